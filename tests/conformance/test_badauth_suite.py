"""Hostile signed messages: weak and odd keys, l= abuse, broken DNS, ARC chains that lie. One test for each row."""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest

from forwarder.auth.arc import build_arc_set, verify_arc
from forwarder.auth.canonical import body_hash
from forwarder.auth.dkim import verify_dkim
from forwarder.auth.signed import sign_now
from forwarder.mail.header import parse_message
from forwarder.model import Result
from tests.auth.signers import rsa, run
from tests.fakes import FakeResolver, Zone
from tests.suites import BADINPUTS, badinputs

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)


def rows() -> Iterator[Any]:
    index = BADINPUTS / "auth_index.tsv"
    if not index.is_file():
        yield pytest.param({}, id="absent")  # so that its absence is a skipped test, and seen
        return
    with index.open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield pytest.param(row, id=row["file"].removeprefix("auth/"))


@cache
def zone() -> Zone:
    """The TXT records; every FAULT but NXDOMAIN is what a resolver answers with TEMPERROR."""
    records: dict[str, dict[str, Any]] = {}
    for line in (badinputs() / "auth" / "zone.tsv").read_text().splitlines():
        if line.startswith("#"):
            continue
        name, rdtype, _, value = line.split("\t", 3)
        if rdtype == "TXT":
            records.setdefault(name, {}).setdefault("TXT", []).append(value)
        elif rdtype == "FAULT" and value != "NXDOMAIN":
            records[name] = {"TXT": "SERVFAIL"}
    return records


def expected(row: dict[str, str], method: str) -> set[str] | None:
    words = re.search(rf"\b{method}=([a-z|]+)", row["expected"])
    return set(words[1].split("|")) if words else None


@pytest.mark.parametrize("row", list(rows()))
def test_a_hostile_message_gets_the_result_that_it_must(row: dict[str, str]) -> None:
    folder = badinputs()
    raw = (folder / row["file"]).read_bytes()
    resolver = FakeResolver(zone())
    start = time.process_time()
    message = parse_message(raw)
    dkim = run(verify_dkim(resolver, message, author_domain="origin.example", now=NOW))
    arc = run(verify_arc(resolver, message, now=NOW))
    seconds = time.process_time() - start
    if (words := expected(row, "dkim")) is not None:
        found = {str(one.result) for one in dkim}
        assert found & words, (found, row["expected"])
        if "pass" not in words:
            assert "pass" not in found
    if (words := expected(row, "arc")) is not None:
        assert str(arc.result) in words, arc
    assert len(resolver.queries) <= 20
    assert seconds < 0.25
    # Whatever arrived, what we say of it is the truth or nothing.
    made = sign_now(
        build_arc_set(message.fields, body_hash(message, "relaxed"), arc, authres_value=b"x; none", key=rsa(), now=NOW)
    )
    assert made is None or (b"cv=fail" in made[0]) == (arc.result is Result.FAIL)
    if arc.sets == 50:
        assert made is None
