"""Is our reading of the Public Suffix List that of its own test vectors?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from forwarder.auth.dnsname import dns_name
from forwarder.auth.suffix import is_public_suffix, registrable_domain
from tests.suites import SUITES, suite

SUITE = "psl"
_LINE = re.compile(r"checkPublicSuffix\((?:null|'(?P<domain>[^']*)'), (?:null|'(?P<expected>[^']*)')\);")


def load_cases() -> Iterator[Any]:
    path = SUITES / "developers" / SUITE / "test_psl.txt"
    if not path.is_file():
        yield pytest.param("", None, id="absent")  # so that its absence is a skipped test, and seen
        return
    for line in path.read_text("utf-8").splitlines():
        if match := _LINE.match(line):
            yield pytest.param(match["domain"] or "", match["expected"], id=ascii(match["domain"]))


@pytest.mark.parametrize(("domain", "expected"), list(load_cases()))
def test_the_registrable_domain_is_that_of_the_vector(domain: str, expected: str | None) -> None:
    suite(SUITE)
    registrable = registrable_domain(domain)
    assert registrable == (dns_name(expected) if expected else None)
    # Only what has no registrable domain can be a suffix; what is no name at all is none either.
    assert is_public_suffix(domain) == (registrable is None and dns_name(domain) is not None)
