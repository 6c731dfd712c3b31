"""Do we read what the reference implementations of SRS minted? Their own vectors, through ``srs.legacy``.

We mint none of these addresses, so a vector of theirs for minting is read in the other direction: what they made of a sender
must lead back to it here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest

from forwarder.mail.address import AddressError, parse_address
from forwarder.model import Address
from forwarder.ports import Dialect, Legacy
from forwarder.srs import Reversed, WhyNot
from forwarder.srslegacy import decode
from tests.suites import SUITES, suite

SUITE = "srs-vectors"
#: Days: Mail::SRS takes addresses for 49, the tests of PostSRSd for half a year.
AGES = {"mail": 49, "postsrsd": 183, "srsmilter": 49}


def load_cases() -> Iterator[Any]:
    path = SUITES / "developers" / SUITE / "vectors.json"
    if not path.is_file():
        yield pytest.param({}, id="absent")  # so that its absence is a skipped test, and seen
        return
    for case in json.loads(path.read_text("utf-8")):
        yield pytest.param(case, id=case["id"])


CASES = list(load_cases())


def minted(case: dict[str, Any]) -> bool:
    return bool(case.get("op") == "forward" and case.get("output") and case["input"] != case["output"])


def read(text: str, case: dict[str, Any]) -> Reversed | WhyNot:
    local, _, domain = text.rpartition("@")
    legacy = Legacy(Dialect.POSTSRSD, domain, (case["secret"].encode(),), date.max, case["hashlength"])
    return decode(Address(local, domain), [legacy], datetime.fromtimestamp(case["time"], UTC).date())


def expected(sender: str | None) -> Reversed | None:
    """``None``: to be refused. Some of what the reference reads is no address (an empty local part, a domain of 600 octets):
    it is refused here, as nothing could be sent to it."""
    try:
        return Reversed(parse_address(sender or ""))
    except AddressError:
        return None


def origin(case: dict[str, Any]) -> str:
    """Where reports to the minted address go: one hop back, but from SRS1 to the first hop of all, which SRS1 is made for."""
    if case["scheme"] == "Guarded" and case["input"][:4].upper() == "SRS1":
        # "SRS1=@first.example" carries nothing, and what is made of it leads nowhere.
        _, _, host, rest = (*case["input"].rpartition("@")[0].split("=", 3), "", "")[:4]
        return f"SRS0{rest}@{host}"
    return str(case["input"])


def is_around_the_hop(case: dict[str, Any]) -> bool:
    """Shortcut without a guard makes an address that leads past the forwarder before: it cannot be read back to that."""
    return bool(case["scheme"] == "Shortcut" and case["input"][:3].upper() == "SRS")


def agree(found: Reversed | WhyNot, wanted: Reversed | None) -> bool:
    if wanted is None or isinstance(found, WhyNot):
        return wanted is None and isinstance(found, WhyNot)
    # The word SRS0 itself is written anew, in capitals.
    return str(found.sender).casefold() == str(wanted.sender).casefold()


@pytest.mark.parametrize("case", [one for one in CASES if one.values[0].get("op") != "forward"])
def test_an_address_leads_where_the_reference_says(case: dict[str, Any]) -> None:
    suite(SUITE)
    assert agree(read(case["input"], case), expected(case.get("output")))


@pytest.mark.parametrize(
    "case", [one for one in CASES if minted(one.values[0]) and not is_around_the_hop(one.values[0])]
)
def test_what_the_reference_minted_leads_back(case: dict[str, Any]) -> None:
    assert agree(read(case["output"], case), expected(origin(case)))


def test_what_is_left_out_is_known() -> None:
    suite(SUITE)
    left_out = [one.values[0] for one in CASES if one.values[0]["op"] == "forward" and not minted(one.values[0])] + [
        one.values[0] for one in CASES if minted(one.values[0]) and is_around_the_hop(one.values[0])
    ]
    # No address to begin with, one of the forwarder's own domain, or the unguarded shortcut.
    for case in left_out:
        own = case["input"].endswith(f"@{case['alias']}")
        assert own or expected(case["input"]) is None or is_around_the_hop(case)
