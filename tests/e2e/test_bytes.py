"""What the sender wrote arrives byte for byte, and an independent verifier finds every signature in order.

Each message of the MIME and DKIM suites is sent through one running service. What the edge refuses is refused for a reason
that is listed with it; of the rest, dkimpy must find our DKIM signatures and our ARC set good, and what passed before must pass
after.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import dkim
import pytest

from tests.e2e.lab import Lab, lab
from tests.suites import suite

FOLDERS = (
    "mime-stalwart",
    "mime-cpython",
    "mime-flanker",
    "dkim-canon",
    "dkim-dkimpy",
    "dkim-mail-dkim",
    "dkim-rfc-examples",
)
NO_POLICY = {"_dmarc.sender.test": {"TXT": ["v=DMARC1; p=none"]}, "mailkey.sender.test": {"A": ["127.0.0.10"]}}
NOT_MESSAGES = (".json", ".md", ".py", ".key", ".private", ".dns", ".dat", ".upstream")
_MESSAGE = re.compile(rb"\A(?:[!-9;-~]+:|From )")
#: dkimpy itself cannot read these, before we touch them: its reason, and how many of each there may be.
DKIMPY_CANNOT = {"MessageFormatError": 3, "UnicodeDecodeError": 3}


def messages() -> list[Path]:
    """Files of these suites that may be messages."""
    return [
        path
        for name in FOLDERS
        for path in sorted(suite(name).rglob("*"))
        if path.is_file()
        and path.suffix not in NOT_MESSAGES
        and ".expected." not in path.name
        and not path.name.startswith(("purpose", "README", "LICENSE"))
    ]


def crlf(raw: bytes) -> bytes:
    raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    return raw if raw.endswith(b"\r\n") else raw + b"\r\n"


@pytest.mark.timeout(180)
async def test_every_message_that_the_edge_accepts_arrives_unchanged_and_sealed(tmp_path: Path) -> None:
    # By content: the ledger knows a message that it has delivered, and gives no second copy.
    paths = list(
        {crlf(path.read_bytes()): path for path in messages() if _MESSAGE.match(path.read_bytes()[:200])}.values()
    )
    refused: dict[str, str] = {}
    cannot: Counter[str] = Counter()
    accepted = 0
    async with lab(tmp_path, zone=NO_POLICY) as it:
        for path in paths:
            raw = crlf(path.read_bytes())
            answer = await it.send(raw)
            if answer.startswith("5"):
                refused[path.name] = answer
                continue
            assert answer.startswith("250"), (path, answer)
            accepted += 1
            arrived = (await it.next(it.sink)).data
            assert arrived.endswith(raw), f"{path}: not what was sent"
            try:
                dkim.DKIM(raw)
            except dkim.MessageFormatError:
                cannot["MessageFormatError"] += 1
                continue
            assert_sealed(it, arrived, path, cannot)
    assert accepted > 0.6 * len(paths) > 60, refused
    assert all("5.6.0" in why or "5.5.2" in why for why in refused.values()), refused
    assert all(count <= DKIMPY_CANNOT.get(name, 0) for name, count in cannot.items()), cannot


def assert_sealed(it: Lab, arrived: bytes, path: Path, cannot: Counter[str]) -> None:
    def look_up(name: bytes, timeout: int = 5) -> bytes:
        return it.records.get(name.decode("latin-1").rstrip("."), {}).get("TXT", [""])[0].encode()

    ours = dkim.DKIM(arrived)
    try:
        assert [ours.verify(index, dnsfunc=look_up) for index in range(2)] == [True, True], path
        already = b"arc-seal:" in arrived.lower().partition(b"\r\n\r\n")[0].partition(b"delivered-to: <alias@")[2]
        if not already:
            assert dkim.arc_verify(arrived, dnsfunc=look_up)[0] == b"pass", path
    except UnicodeDecodeError as error:
        cannot[type(error).__name__] += 1


async def test_signatures_of_others_that_passed_still_pass(tmp_path: Path) -> None:
    """Messages of the RFCs' examples and of dkimpy's data whose own signatures dkimpy verifies before we forward them."""
    import json

    cases = json.loads((suite("dkim-mail-dkim") / "cases.json").read_text())
    checked = 0
    async with lab(tmp_path, zone=NO_POLICY) as it:
        for case in cases:
            records = {name.rstrip("."): one.get("txt", "") for name, one in (case.get("dns") or {}).items()}

            def look_up(name: bytes, timeout: int = 5, records: dict[str, str] = records) -> bytes:
                return str(records.get(name.decode("latin-1").rstrip("."), "")).encode()

            path = next((suite("dkim-mail-dkim") / "messages").glob(case["file"]), None)
            if path is None:
                continue
            raw = crlf(path.read_bytes())
            before = passing(raw, look_up)
            if not before:
                continue
            answer = await it.send(raw)
            if answer.startswith("5"):
                continue
            arrived = (await it.next(it.sink)).data
            after = passing(arrived, look_up)
            # Two signatures of ours stand above theirs.
            assert {index + 2 for index in before} <= after, path
            checked += 1
    assert checked >= 5


def passing(raw: bytes, look_up: object) -> set[int]:
    """Which signatures, from the top, dkimpy finds good."""
    found = set()
    count = raw.lower().partition(b"\r\n\r\n")[0].count(b"dkim-signature:")
    for index in range(count):
        try:
            if dkim.DKIM(raw, minkey=512).verify(index, dnsfunc=look_up):
                found.add(index)
        except (dkim.DKIMException, UnicodeError):
            continue
    return found
