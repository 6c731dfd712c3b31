"""docs/mailkey.md section 12: every vector, through the command, the library and the verifier that knows the document only."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from base64 import b64decode
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from forwarder import mailkey
from tests.mailkey import independent
from tests.mailkey.vectors import CASES, FOLDER, WORDS, reason_word
from tests.suites import ROOT


def expectation(found: dict[str, Any]) -> dict[str, Any]:
    """What the program found, as a case expects it."""
    names = ("result", "policy", "bound", "signer", "selector")
    return {name: found[name] for name in names} | {"reason": reason_word(found["reason"])}


def served(dns: dict[str, Any], name: str) -> list[str] | None:
    """What a library user's ``dns`` function gives for the zone of a case."""
    types = dns.get(name, {})
    if "CNAME" in types:
        return served(dns, types["CNAME"][0])
    found = types.get("TXT", [])
    return None if isinstance(found, str) else found


@cache
def authenticated() -> dict[str, dict[str, Any]]:
    """All cases in one run of ``forwarder authenticate``."""
    lines = "".join(json.dumps(case) + "\n" for case in CASES)
    command = [sys.executable, "-m", "forwarder", "authenticate", "--json"]
    done = subprocess.run(command, input=lines.encode(), capture_output=True, cwd=ROOT, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return {one["id"]: one for one in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("case", CASES, ids=[one["id"] for one in CASES])
def test_the_command_finds_what_the_vector_expects(case: dict[str, Any]) -> None:
    assert expectation(authenticated()[case["id"]]["mailkey"]) == case["expect"]


@pytest.mark.parametrize("case", CASES, ids=[one["id"] for one in CASES])
def test_the_library_finds_it_too(case: dict[str, Any]) -> None:
    transaction = {name: case[name] for name in ("mail_from", "rcpt_to", "helo")}
    found = mailkey.verify(
        b64decode(case["message"]),
        **transaction,
        now=datetime.fromtimestamp(case["time"], UTC),
        dns=partial(served, case["dns"]),
    )
    assert expectation(asdict(found)) == case["expect"]


@pytest.mark.parametrize("case", CASES, ids=[one["id"] for one in CASES])
def test_the_independent_verifier_finds_it_too(case: dict[str, Any]) -> None:
    assert independent.verify(case) == case["expect"]


def test_the_cases_are_those_that_their_maker_writes(tmp_path: Path) -> None:
    made = tmp_path / "cases.json"
    maker = ROOT / "tests" / "vectors" / "make_mailkey.py"
    subprocess.run([sys.executable, maker, made], check=True, capture_output=True, timeout=60)
    assert made.read_bytes() == (FOLDER / "cases.json").read_bytes()


def test_the_canonical_forms_of_passing_cases_are_what_a_verifier_hashes() -> None:
    seen = 0
    for case in CASES:
        fields, body_hash = independent.canonical(b64decode(case["message"]))
        if not case["id"].startswith("pass") or len(case["canonical"]) != 1:
            continue
        at = next(n for n, (name, _) in enumerate(fields) if name == b"mailkey-signature")
        tags = independent.tag_list(fields[at][1])
        assert tags is not None
        data = independent.header_input(fields, at, tags)
        form = case["canonical"][0]
        assert (data, sha256(data).hexdigest()) == (b64decode(form["header_input"]), form["header_digest"]), case["id"]
        assert body_hash.hex() == form["body_hash"]
        seen += 1
    assert seen > 30


def test_every_reason_of_the_document_has_a_vector_and_the_document_has_the_programs_words() -> None:
    document = (ROOT / "docs" / "mailkey.md").read_text()
    table = dict(re.findall(r"^\| ([a-z-]+) \| ([^|]+) \|$", document, re.MULTILINE))
    for word, beginnings in WORDS.items():
        assert all(one.strip(": ") in table[word] for one in beginnings), word
    assert {one["expect"]["reason"] for one in CASES} - {None} == {*WORDS, "bad-field"}
    assert {one["expect"]["result"] for one in CASES} == {"pass", "none", "fail", "permerror", "temperror"}


def test_the_independent_verifier_shares_no_code() -> None:
    text = (ROOT / "tests" / "mailkey" / "independent.py").read_text()
    assert not re.search(r"^\s*(from|import) (forwarder|tests)", text, re.MULTILINE)
