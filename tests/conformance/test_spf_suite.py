"""Does our SPF agree with the RFC 7208 suite of openspf, explanations included?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from forwarder.auth.spf import verify_spf
from forwarder.model import Address
from forwarder.resolver import ZoneResolver
from tests.suites import SUITES, suite

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SUITE = "spf-rfc7208"


def load_cases() -> Iterator[Any]:
    """One case a test of each document; its zone as ``ZoneResolver`` takes it."""
    path = SUITES / "developers" / SUITE / "rfc7208-tests.yml"
    if not path.is_file():
        yield pytest.param({}, id="absent")  # so that its absence is a skipped test, and seen
        return
    for document in yaml.safe_load_all(path.read_bytes()):
        if document:
            zone = {str(name): load_types(entries) for name, entries in document["zonedata"].items()}
            for name, case in document["tests"].items():
                yield pytest.param(case | {"zone": zone}, id=name)


def load_types(entries: list[Any]) -> dict[str, list[str] | str]:
    """The suite's rules: SPF entries are TXT unless there are such, and TIMEOUT holds for the types not given."""
    types: dict[str, list[str] | str] = {}
    explicit = any("TXT" in entry for entry in entries if isinstance(entry, dict))
    for entry in entries:
        if entry == "TIMEOUT":
            types["*"] = "TIMEOUT"
            continue
        ((rdtype, value),) = entry.items()
        if (rdtype == "SPF" and explicit) or value == "NONE":
            continue
        data = types.setdefault("TXT" if rdtype == "SPF" else rdtype, [])
        assert isinstance(data, list)
        data.append(presentation(rdtype, value))
    return types


def presentation(rdtype: str, value: Any) -> str:
    if rdtype == "MX":
        return f"{value[0]} {value[1] or '.'}"
    if rdtype not in ("SPF", "TXT"):
        return str(value)
    strings = value if isinstance(value, list) else [value]
    # The suite writes octets as code points. A record without strings is not allowed, and is the empty one here.
    text = "".join(strings).encode("latin-1", "replace")
    return (
        '"' + "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03}" for byte in text) + '"'
    )


@pytest.mark.parametrize("case", list(load_cases()))
async def test_the_result_and_the_explanation_are_those_of_the_suite(case: dict[str, Any]) -> None:
    suite(SUITE)
    local, at, domain = str(case.get("mailfrom", "")).rpartition("@")

    check = await verify_spf(
        ZoneResolver(case["zone"]),
        identity="mailfrom",
        ip=ip_address(case["host"]),
        sender=Address(local, domain.lower()) if at else None,
        helo=case["helo"],
        receiver="mx.fwd.test",
        now=NOW,
        default_explanation="DEFAULT",
    )

    accepted = case["result"] if isinstance(case["result"], list) else [case["result"]]
    assert check.result in accepted, check.reason
    if "explanation" in case:
        assert check.explanation == case["explanation"]
