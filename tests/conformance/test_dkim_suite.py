"""Others' DKIM cases: RFC 6376 A.2, RFC 8463 A.3, dkimpy's keys and messages, Mail::DKIM's corpus, the canonicalization set."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dkim  # type: ignore[import-untyped]
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from forwarder.auth.canonical import relaxed_body, relaxed_field, simple_body
from forwarder.auth.dkim import verify_dkim
from forwarder.mail.header import parse_message
from forwarder.model import DkimCheck, Result
from tests.auth.signers import run
from tests.fakes import FakeResolver, Zone
from tests.suites import suite

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
#: dkimpy signs with the time that it is.
LATER = datetime(2100, 1, 1, tzinfo=UTC)
NOT_PASS = {Result.FAIL, Result.PERMERROR, Result.NEUTRAL, Result.POLICY, Result.TEMPERROR}


def crlf(raw: bytes) -> bytes:
    return re.sub(rb"\r?\n", b"\r\n", raw)


def verify(raw: bytes, zone: Zone, now: datetime = NOW) -> tuple[DkimCheck, ...]:
    return run(verify_dkim(FakeResolver(zone), parse_message(raw), author_domain=None, now=now))


def overall(checks: tuple[DkimCheck, ...]) -> Result:
    """One result for the message: a pass wins, then the first."""
    results = [one.result for one in checks]
    return Result.PASS if Result.PASS in results else results[0] if results else Result.NONE


# --- the RFCs' own examples --------------------------------------------------------------------------------------------


def test_the_examples_of_the_rfcs_pass() -> None:
    folder = suite("dkim-rfc-examples")
    for case in json.loads((folder / "cases.json").read_text()):
        zone = {name: {"TXT": [text]} for name, text in case["dns"].items()}
        checks = verify(crlf((folder / case["file"]).read_bytes()), zone)
        assert [str(one.result) for one in checks] == case["expect"], case["file"]


# --- canonicalization --------------------------------------------------------------------------------------------------


def test_the_canonical_forms_are_those_of_the_set() -> None:
    folder = suite("dkim-canon")
    files = sorted(folder.glob("email.*"))
    assert files
    for file in files:
        # The cases without a body end with their last field; parse_message wants its line end, which they have.
        message = parse_message(crlf(file.read_bytes()))
        for form, field, body in (("simple", bytes, simple_body), ("relaxed", relaxed_field, relaxed_body)):
            header = b"".join(field(one.raw) for one in message.fields)
            expected = crlf((folder / f"{form}.expected{file.suffix}").read_bytes())
            assert header + b"\r\n" + body(message.body) == expected, (file.name, form)


# --- Mail::DKIM --------------------------------------------------------------------------------------------------------


def mail_dkim_cases() -> Iterator[tuple[str, bytes, Zone, set[Result]]]:
    folder = suite("dkim-mail-dkim")
    for case in json.loads((folder / "cases.json").read_text()):
        zone: dict[str, dict[str, Any]] = {}
        for name, data in case["dns"].items():
            if "txt" in data:
                zone[name] = {"TXT": [data["txt"]]}
            elif data["error"] != "NXDOMAIN":
                zone[name] = {"TXT": "TIMEOUT"}
        yield case["file"], crlf((folder / "messages" / case["file"]).read_bytes()), zone, _expected(case)


def _expected(case: dict[str, Any]) -> set[Result]:
    if case["kind"] != "dkim":
        # RFC 4870 is historic: no DKIM signature, or none that passes.
        return NOT_PASS | {Result.NONE}
    if case.get("expect_rfc8301") == "not-pass" or case["expect"] in (None, "fail"):
        return NOT_PASS
    return {Result.PASS} if case["expect"] == "pass" else NOT_PASS - {Result.FAIL}


def test_the_corpus_of_mail_dkim_gets_the_results_of_rfc_8301() -> None:
    wrong = []
    cases = list(mail_dkim_cases())
    assert cases
    for name, raw, zone, expected in cases:
        checks = verify(raw, zone)
        if overall(checks) not in expected:
            wrong.append((name, checks))
    assert wrong == []


# --- dkimpy ------------------------------------------------------------------------------------------------------------

DKIMPY_KEYS = [
    # private key, the records that must verify with it
    ("1024_testkey.key", ["1024_testkey_wo_markers.pub.txt", "1024_testkey_wo_markers.pub.rsa.txt"], b"rsa-sha256"),
    ("2048_testkey.key", ["2048_testkey_wo_markers.pub.txt", "2048_testkey_wo_markers.pub.rsa.txt"], b"rsa-sha256"),
    ("2048_testkey_PKCS8.key", ["2048_testkey_PKCS8.key.pub.txt"], b"rsa-sha256"),
    ("ed25519test.key", ["ed25519test.dns"], b"ed25519-sha256"),
]
BAD_RECORDS = ["test_bad.txt", "badk.txt", "badversion.txt", "test_tlsrpt.txt"]


def dkimpy_record(folder: Path, name: str) -> bytes:
    """A TXT record as the file has it, or one around a bare key."""
    text = b"".join((folder / name).read_bytes().split(b"\n"))
    return text if b"p=" in text else b"v=DKIM1; k=rsa; p=" + text


@pytest.mark.parametrize(("key", "records", "algorithm"), DKIMPY_KEYS, ids=[one[0] for one in DKIMPY_KEYS])
@pytest.mark.parametrize("forms", [(b"simple", b"simple"), (b"relaxed", b"relaxed"), (b"relaxed", b"simple")])
def test_messages_signed_with_dkimpys_keys_verify_under_its_records(
    key: str, records: list[str], algorithm: bytes, forms: tuple[bytes, bytes]
) -> None:
    folder = suite("dkim-dkimpy")
    private = (folder / key).read_bytes()
    for file in ("test.message", "rfc6376.msg", "ed25519test2.msg", "test_extra.message"):
        raw = crlf((folder / file).read_bytes())
        field = dkim.sign(
            raw,
            b"s",
            b"d.example",
            private,
            canonicalize=forms,
            signature_algorithm=algorithm,
            include_headers=[b"from"],
        )
        for record in records:
            zone: Zone = {"s._domainkey.d.example": {"TXT": [dkimpy_record(folder, record)]}}
            assert verify(field + raw, zone, LATER)[0].result is Result.PASS, (file, record)
        for record in BAD_RECORDS:
            zone = {"s._domainkey.d.example": {"TXT": [dkimpy_record(folder, record)]}}
            assert verify(field + raw, zone, LATER)[0].result is not Result.PASS, (file, record)


def test_we_judge_dkimpys_signed_messages_as_dkimpy_does() -> None:
    folder = suite("dkim-dkimpy")
    seed = Ed25519PrivateKey.from_private_bytes(b64decode((folder / "rfc8032_7_1.key").read_bytes()))
    records = {
        b"brisbane": b"v=DKIM1; k=ed25519; p=" + b64encode(seed.public_key().public_bytes_raw()),
        b"test": dkimpy_record(folder, "test.txt"),
    }
    agreed = set()
    for file in ("rfc6376.signed.msg", "rfc6376.signed.no_t.msg", "rfc6376.signed.rsa.msg", "test.message.baddomain"):
        raw = crlf((folder / file).read_bytes())
        zone: Zone = {
            f"{selector.decode()}._domainkey.{domain}": {"TXT": [record]}
            for selector, record in records.items()
            for domain in ("football.example.com", "example.com")
        }
        for number, check in enumerate(verify(raw, zone)):
            judge = dkim.DKIM(raw)
            try:
                good = judge.verify(number, dnsfunc=lambda name, timeout: records.get(name.partition(b".")[0], b""))
            except dkim.DKIMException:
                good = False
            assert (check.result is Result.PASS) == good, (file, check)
            agreed.add(good)
    assert agreed == {True, False}
