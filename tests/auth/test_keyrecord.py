"""RFC 6376 section 3.6: which key does the DNS name, and why none?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.keyrecord import KeyRecord, NoKey, evaluate_answer, parse_key_record
from forwarder.ports import Answer, DnsStatus
from tests.auth.signers import ed25519, rsa

RSA = rsa().public.encode()
ED25519 = ed25519().public.encode()


def answer(*records: bytes) -> Answer[bytes]:
    return Answer(DnsStatus.OK, records)


@pytest.mark.parametrize(
    "record",
    [
        b"v=DKIM1; k=rsa; p=" + RSA,
        b"v=DKIM1;k=rsa;p=" + RSA + b";",
        b"p=" + RSA,
        b"v=DKIM1; p=" + RSA[:100] + b" \t" + RSA[100:],
        b"v=DKIM1; h=sha1:sha256; p=" + RSA,
        b"v=DKIM1; h=sha256; p=" + RSA,
        b"v=DKIM1; s=email; p=" + RSA,
        b"v=DKIM1; s=tlsrpt : email; p=" + RSA,
        b"v=DKIM1; s=*; p=" + RSA,
        b"v=DKIM1; n=a note; x=unknown; g=; p=" + RSA,
    ],
)
def test_a_good_rsa_record_gives_a_key(record: bytes) -> None:
    key = parse_key_record(record)
    assert isinstance(key, KeyRecord)
    assert (key.kind, key.strict, key.testing) == ("rsa", False, False)


def test_a_good_ed25519_record_gives_a_key() -> None:
    key = parse_key_record(b"v=DKIM1; k=ed25519; p=" + ED25519)
    assert isinstance(key, KeyRecord)
    assert key.kind == "ed25519"


@pytest.mark.parametrize(
    ("flags", "strict", "testing"),
    [
        (b"y", False, True),
        (b"s", True, False),
        (b"y:s", True, True),
        (b" s : x : y ", True, True),
        (b"ys", False, False),
    ],
)
def test_flags(flags: bytes, strict: bool, testing: bool) -> None:
    key = parse_key_record(b"v=DKIM1; t=" + flags + b"; p=" + RSA)
    assert isinstance(key, KeyRecord)
    assert (key.strict, key.testing) == (strict, testing)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"v=DKIM1; p=", "key revoked"),
        (b"v=DKIM1; k=rsa", "key record: p= is missing"),
        (b"v=DKIM2; p=" + RSA, "key record: not v=DKIM1"),
        (b"v=dkim1; p=" + RSA, "key record: not v=DKIM1"),
        (b"k=rsa; v=DKIM1; p=" + RSA, "key record: not v=DKIM1"),
        (b"v=spf1 -all", "key record: not v=DKIM1"),
        (b"v=DKIM1; p=" + RSA + b"; p=" + RSA, "key record: p= twice"),
        (b"v=DKIM1; k=rsa; what is this", "key record: a malformed tag"),
        (b"v=DKIM1; h=sha1; p=" + RSA, "key record: h= does not allow sha256"),
        (b"v=DKIM1; s=tlsrpt; p=" + RSA, "key record: s= does not allow email"),
        (b"v=DKIM1; k=dsa; p=" + RSA, "unknown k="),
        (b"v=DKIM1; p=***", "key record: p= is no base64"),
        (b"v=DKIM1; p=" + RSA[:200], "RSA key malformed"),
        (b"v=DKIM1; k=ed25519; p=" + RSA, "ed25519 key of 294 octets, not 32"),
        (b"v=DKIM1; p=" + b"A" * 10_000, "key record too large"),
        (b"", "key record: p= is missing"),
    ],
)
def test_a_record_without_a_usable_key_says_why(record: bytes, reason: str) -> None:
    assert parse_key_record(record) == NoKey(reason)


@given(st.binary(max_size=200))
def test_octets_give_a_key_or_a_reason(record: bytes) -> None:
    found = parse_key_record(record)
    assert isinstance(found, KeyRecord) or found.reason.isprintable()


def test_no_answer_may_become_one() -> None:
    assert evaluate_answer(Answer(DnsStatus.TEMPERROR)) == NoKey("no answer from the DNS for the key", temporary=True)


@pytest.mark.parametrize("status", [DnsStatus.NXDOMAIN, DnsStatus.NODATA, DnsStatus.OK])
def test_no_record_stays_none(status: DnsStatus) -> None:
    assert evaluate_answer(Answer(status)) == NoKey("no key record")


def test_the_order_of_several_records_never_matters() -> None:
    """RFC 6376 section 3.6.2.2 leaves it undefined; a coin toss would be the worst answer."""
    one, other = b"v=DKIM1; p=" + RSA, b"v=DKIM1; p=" + rsa(number=1).public.encode()
    assert evaluate_answer(answer(one, other)) == evaluate_answer(answer(other, one)) == NoKey("several key records")


def test_records_of_other_kinds_at_the_name_do_not_hide_the_key() -> None:
    key = b"v=DKIM1; k=rsa; p=" + RSA
    found = evaluate_answer(answer(b"v=spf1 -all", key, b"site-verification=1"))
    assert found == parse_key_record(key)
    assert isinstance(found, KeyRecord)


def test_a_name_with_a_hundred_records_is_not_read() -> None:
    assert evaluate_answer(answer(*(b"p=%d" % n for n in range(100)))) == NoKey(
        "too many records at the name of the key"
    )
