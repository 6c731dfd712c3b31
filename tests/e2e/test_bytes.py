"""Does every message of other people's suites arrive as it was written, signed so that another implementation agrees?

dkimpy is the other implementation. It agrees about every message that we accept: there is no exception to list.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import dkim
import pytest

from tests.e2e.lab import Lab, lab
from tests.peers.smtp_sink import SmtpSink
from tests.suites import suite

MESSAGES = {
    "mime-cpython": "msg_*.txt",
    "mime-flanker": "**/*.eml",
    "mime-stalwart": "**/*.eml",
    "dkim-canon": "email.*",
    "dkim-dkimpy": "*.m[es]*",
    "dkim-mail-dkim": "messages/*.txt",
    "dkim-rfc-examples": "*.eml",
}
#: How many good signatures of their senders these hold, at least: fewer would mean that nothing is looked at.
SIGNED = {"dkim-mail-dkim": 5, "dkim-rfc-examples": 3}

#: SPF passes, and neither a mailkey nor a DMARC record of the sender stands in the way. What comes through goes to a server
#: that takes lines of any length, as aiosmtpd does not.
ZONE: dict[str, dict[str, list[str]]] = {
    "_dmarc.sender.test": {},
    "mailkey.sender.test": {},
    "other.test": {"MX": ["10 mx.other.test."]},
    "mx.other.test": {"A": ["127.0.0.51"]},
}

DnsFunc = Callable[..., bytes | None]


@dataclass(frozen=True)
class Case:
    name: str
    raw: bytes
    dns: Mapping[str, bytes]


def cases(name: str) -> Iterator[Case]:
    folder = suite(name)
    texts: dict[str, dict[str, bytes]] = {}
    for case in json.loads((folder / "cases.json").read_text()) if (folder / "cases.json").is_file() else []:
        records = {name: one.get("txt", "") if isinstance(one, dict) else one for name, one in case["dns"].items()}
        texts[case["file"]] = {name: text.encode() for name, text in records.items() if text}
    for path in sorted(folder.glob(MESSAGES[name])):
        raw = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        raw += b"" if raw.endswith(b"\r\n") else b"\r\n"
        yield Case(f"{name}/{path.relative_to(folder)}", raw, texts.get(path.name, {}))


def dns_func(it: Lab, case: Case) -> DnsFunc:
    def look_up(name: bytes, timeout: int = 5) -> bytes | None:
        bare = name.decode("latin-1").rstrip(".")
        return case.dns.get(bare) or it.records.get(bare, {}).get("TXT", [""])[0].encode() or None

    return look_up


def verifies(raw: bytes, index: int, look_up: DnsFunc) -> str:
    """``pass``, or what dkimpy says instead."""
    try:
        return "pass" if dkim.DKIM(raw, minkey=512).verify(index, dnsfunc=look_up) else "fail"
    except (dkim.DKIMException, UnicodeError) as error:
        return f"{type(error).__name__}: {error}"


def still_good(it: Lab, case: Case) -> list[int]:
    """The sender's DKIM signatures that verify as it sent them, counted from the top."""
    try:
        count = sum(1 for name, _ in dkim.DKIM(case.raw).headers if name.lower() == b"dkim-signature")
    except dkim.DKIMException:
        return []
    return [index for index in range(count) if verifies(case.raw, index, dns_func(it, case)) == "pass"]


def findings(it: Lab, case: Case, arrived: bytes) -> Iterator[str]:
    """What is not as it should be with one message that came through."""
    if not arrived.endswith(case.raw):
        yield "what the sender wrote is not what arrived"
        return
    look_up = dns_func(it, case)
    for index in range(2):
        if (said := verifies(arrived, index, look_up)) != "pass":
            yield f"our DKIM signature {index}: {said}"
    arc, _, why = dkim.arc_verify(arrived, dnsfunc=look_up)
    if arc != b"pass":
        yield f"our ARC set: {arc.decode()}, {why}"
    for index in still_good(it, case):
        # Two of ours stand above it.
        if (after := verifies(arrived, index + 2, look_up)) != "pass":
            yield f"the sender's DKIM signature {index} passed before and is {after} now"


@pytest.mark.parametrize("name", MESSAGES)
async def test_every_message_arrives_byte_for_byte_under_signatures_that_dkimpy_takes(
    tmp_path: Path, name: str
) -> None:
    wrong, refused, taken, signed = [], [], 0, 0
    everything = list(cases(name))
    async with (
        lab(tmp_path, aliases='bytes = ["x@other.test"]', zone=ZONE) as it,
        SmtpSink(host="127.0.0.51", port=it.port) as sink,
    ):
        for number, case in enumerate(everything):
            # A sender of its own each: the suites hold the same message twice, which would be a retry.
            answer = await it.send(case.raw, f"n{number}@sender.test", "bytes@fwd.test")
            if not answer.startswith("250"):
                # Refused for its form and nothing else, and never "come back later".
                assert answer.startswith(("550 5.6.0", "550 5.5.2")), (case.name, answer)
                assert not sink.messages, case.name
                refused.append(f"{case.name}: {answer.partition(' (')[0]}")
                continue
            taken += 1
            signed += len(still_good(it, case))
            (arrived,) = sink.messages
            sink.messages.clear()
            wrong += [f"{case.name}: {one}" for one in findings(it, case, arrived.data)]
        assert it.journal.named("fault") == []
    print(f"{taken} of {len(everything)} accepted, {signed} good signatures in them; refused:", *refused, sep="\n  ")
    assert wrong == []
    assert signed >= SIGNED.get(name, 0)
    if name.startswith("mime-"):
        assert taken >= 0.6 * len(everything)
