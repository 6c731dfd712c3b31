"""RFC 6376 section 6.1: one result word for each signature, and never more work than the limits allow."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha1, sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.auth.canonical import Form, relaxed_body, simple_body
from forwarder.auth.dkim import key_names, verify_dkim
from forwarder.auth.dkim.verify import CLOCK_SKEW, MAX_SIGNATURES
from forwarder.auth.signed import header_digest, index_fields
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.model import DkimCheck, Field, Message, Result
from forwarder.ports import Resolver
from tests.auth.signers import NOW, AgingResolver, Signer, cpu_seconds, ed25519, rsa, rsa_key, run, zone
from tests.fakes import FakeResolver

RAW = (
    b"Received: from a.example\r\n\tby b.example; Sat, 3 Feb 2024 04:05:00 +0000\r\n"
    b"From: Alice  <alice@signer.example>\r\n"
    b"To: bob@fwd.example\r\n"
    b"Subject: hello\r\n  there\r\n"
    b"\r\n"
    b"Hi  Bob,\t \r\n\r\nit works. \r\n\r\n\r\n"
)


def sign(raw: bytes, signer: Signer, **changes: str | None) -> bytes:
    """A signature that may be wrong in any tag (``None`` leaves one out), made without a line of the code under
    test."""
    defaults: dict[str, str | None] = {
        "v": "1",
        "a": signer.algorithm,
        "c": "relaxed/relaxed",
        "d": signer.domain,
        "s": signer.selector,
        "t": str(int(NOW.timestamp()) - 60),
        "h": "from:to:subject",
        "bh": "computed",
    }
    tags = {name: value for name, value in (defaults | changes).items() if value is not None}
    message = parse_message(raw)
    header_form, _, body_form = tags.get("c", "simple/simple").partition("/")
    if tags.get("bh") == "computed":
        body = relaxed_body(message.body) if body_form == "relaxed" else simple_body(message.body)
        body = body[: int(tags["l"])] if tags.get("l", "").isdigit() else body
        tags["bh"] = b64encode(sha256(body).digest()).decode()
    unsigned = f"DKIM-Signature: {'; '.join(f'{name}={value}' for name, value in tags.items())};\r\n b=".encode()
    names = [name.strip().lower().encode() for name in tags.get("h", "").split(":")]
    covered = _covered(message, names, "relaxed" if header_form == "relaxed" else "simple", unsigned)
    return unsigned + b64encode(signer.sign(covered)) + b"\r\n"


def _covered(message: Message, names: list[bytes], form: Form, unsigned: bytes) -> bytes:
    parts: list[bytes] = []
    left = [(name, raw) for name, raw in message.fields]
    for name in names:
        for at in range(len(left) - 1, -1, -1):
            if left[at][0] == name:
                parts.append(left.pop(at)[1])
                break
    parts.append(unsigned + b"\r\n")
    if form == "relaxed":
        parts = [_relaxed(part) for part in parts]
    return b"".join(parts)[:-2]


def _relaxed(raw: bytes) -> bytes:
    name, _, value = raw.partition(b":")
    value = re.sub(rb"[ \t]+", b" ", value.replace(b"\r\n", b"")).strip()
    return name.strip().lower() + b":" + value + b"\r\n"


def verify(
    raw: bytes, resolver: Resolver, *, author_domain: str | None = "signer.example", now: datetime = NOW
) -> tuple[DkimCheck, ...]:
    return run(verify_dkim(resolver, parse_message(raw), author_domain=author_domain, now=now))


def verify_one(
    raw: bytes, *signers: Signer, records: Sequence[str] | str | None = None, now: datetime = NOW
) -> DkimCheck:
    zones = dict(zone(*(signers or (rsa(),))))
    if records is not None:
        zones = {name: {"TXT": records} for name in zones}
    (check,) = verify(raw, FakeResolver(zones), now=now)
    return check


def found(check: DkimCheck) -> tuple[Result, str | None]:
    return check.result, check.reason


# --- what passes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed"])
@pytest.mark.parametrize(
    "signer", [rsa(), ed25519(), rsa(bits=1024), rsa(bits=4096)], ids=["rsa", "ed25519", "1024", "4096"]
)
def test_a_right_signature_passes(signer: Signer, form: str) -> None:
    signed = sign(RAW, signer, c=form) + RAW
    check = verify_one(signed, signer)
    assert check.result is Result.PASS
    assert (check.domain, check.selector, check.identity) == ("signer.example", signer.selector, "@signer.example")
    assert check.algorithm == signer.algorithm
    assert check.signature is not None
    assert check.signature.encode() in signed


def test_a_message_without_signatures_has_no_results() -> None:
    resolver = FakeResolver()
    assert verify(RAW, resolver) == ()
    assert resolver.queries == []


@pytest.mark.parametrize(
    "changes",
    [
        {"c": None},
        {"c": "relaxed"},
        {"q": "dns/txt"},
        {"q": "http : dns/txt"},
        {"t": None},
        {"x": str(int(NOW.timestamp()))},
        {"x": "9" * 20},
        {"i": "@signer.example"},
        {"i": "alice@mail.Signer.example"},
        {"i": "a=40b@signer.example"},
        {"z": "From:alice@signer.example"},
        {"unknown": "something"},
        {"h": "From : To :Subject"},
        {"h": "from:from:to:cc:cc:bcc"},
        {"h": "from:dkim-signature:dkim-signature"},
        {"d": "SIGNER.example"},
        {"l": str(len(relaxed_body(b"Hi  Bob,\t \r\n\r\nit works. \r\n\r\n\r\n")))},
    ],
)
def test_every_legal_spelling_passes(changes: dict[str, str | None]) -> None:
    assert found(verify_one(sign(RAW, rsa(), **changes) + RAW)) == (Result.PASS, None)


def test_internationalized_names_are_asked_for_in_a_labels() -> None:
    """RFC 8616 section 4: d= and i= may come in UTF-8."""
    signer = Signer("xn--bcher-kva.example", "r", rsa_key())
    signed = sign(RAW, signer, d="bücher.example", i="@b\u00fccher.example") + RAW
    check = verify_one(signed, signer)
    assert (check.result, check.domain, check.identity) == (Result.PASS, "xn--bcher-kva.example", "@bücher.example")


def test_a_key_in_test_mode_says_so() -> None:
    check = verify_one(sign(RAW, rsa()) + RAW, records=[rsa().record.replace("k=rsa", "t=y")])
    assert (check.result, check.testing) == (Result.PASS, True)


def test_b_may_be_folded_and_stand_anywhere() -> None:
    field = sign(RAW, rsa()).decode()
    head, _, value = field.rpartition("b=")
    folded = head + "b=" + re.sub(r"(.{40})", "\\1\r\n\t", value.strip()) + "\r\n"
    assert verify_one(folded.encode() + RAW).result is Result.PASS


# --- what fails -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b"it works", b"it breaks", "body hash does not match"),
        (b"Alice", b"Mallory", "signature does not match"),
        (b"hello", b"HELLO", "signature does not match"),
        (b"t=1706", b"t=1606", "signature does not match"),
    ],
)
def test_a_changed_message_fails(before: bytes, after: bytes, reason: str) -> None:
    signed = sign(RAW, rsa()) + RAW
    assert before in signed
    assert found(verify_one(signed.replace(before, after))) == (Result.FAIL, reason)


@pytest.mark.parametrize("form", ["relaxed/relaxed", "relaxed/simple"])
def test_what_relaxed_forgives(form: str) -> None:
    changed = RAW.replace(b"Alice  <", b"Alice\r\n\t<").replace(b"Subject:", b"SUBJECT:")
    assert verify_one(sign(RAW, rsa(), c=form) + changed).result is Result.PASS


def test_simple_forgives_nothing() -> None:
    changed = RAW.replace(b"Subject:", b"SUBJECT:")
    assert verify_one(sign(RAW, rsa(), c="simple/simple") + changed).result is Result.FAIL


def test_fields_are_taken_from_the_bottom_up() -> None:
    """RFC 6376 section 5.4.2: a Subject put on top of the signed one is not the signed one, unless h= counts one
    more."""
    other = b"Subject: another\r\n"
    assert verify_one(other + sign(RAW, rsa()) + RAW).result is Result.PASS
    oversigned = sign(RAW, rsa(), h="from:to:subject:subject")
    assert verify_one(oversigned + RAW).result is Result.PASS
    assert found(verify_one(other + oversigned + RAW)) == (Result.FAIL, "signature does not match")


@pytest.mark.parametrize(
    ("seconds", "changes", "expected"),
    [
        (0, {"x": 0}, (Result.PASS, None)),
        (1, {"x": 0}, (Result.FAIL, "signature expired")),
        (0, {"t": CLOCK_SKEW}, (Result.PASS, None)),
        (0, {"t": CLOCK_SKEW + 1}, (Result.POLICY, "signature from the future")),
        (0, {"t": 10, "x": 10}, (Result.PERMERROR, "x= is not after t=")),
        (0, {"t": 20, "x": 10}, (Result.PERMERROR, "x= is not after t=")),
    ],
)
def test_times_are_held_against_the_given_clock(
    seconds: int, changes: dict[str, int], expected: tuple[Result, str | None]
) -> None:
    base = int(NOW.timestamp())
    times = {name: str(base + value) for name, value in changes.items()}
    check = verify_one(sign(RAW, rsa(), **times) + RAW, now=NOW + timedelta(seconds=seconds))
    assert found(check) == expected


# --- what cannot be checked -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"v": None}, "v= is missing"),
        ({"v": "2"}, "v= is not 1"),
        ({"v": "0.5"}, "v= is not 1"),
        ({"a": "rsa-sha1"}, "rsa-sha1 is not accepted"),
        ({"a": "rsa-md5"}, "unknown a="),
        ({"a": ""}, "a= is empty"),
        ({"c": "future"}, "unknown c="),
        ({"c": "relaxed/future"}, "unknown c="),
        ({"d": None}, "d= is missing"),
        ({"d": "a..b"}, "d= is no domain name"),
        ({"s": None}, "s= is missing"),
        ({"s": "a b"}, "s= is no domain name"),
        ({"h": None}, "h= is missing"),
        ({"h": ""}, "h= does not name From"),
        ({"h": "to:subject"}, "h= does not name From"),
        ({"h": "from::to"}, "h= is no list of field names"),
        ({"bh": None}, "bh= is missing"),
        ({"bh": "***"}, "bh= is no base64"),
        ({"q": "http"}, "unknown q="),
        ({"t": "yesterday"}, "t= is no number"),
        ({"x": "-1"}, "x= is no number"),
        ({"l": "-1"}, "l= is no number"),
        ({"l": "9" * 77}, "l= is no number"),
        ({"i": "alice"}, "i= is not in the domain of d="),
        ({"i": "@other.example"}, "i= is not in the domain of d="),
        ({"i": "@notsigner.example"}, "i= is not in the domain of d="),
        ({"i": "@example"}, "i= is not in the domain of d="),
        ({"i": "@mail=2Esigner=2Eexample=2Eorg"}, "i= is not in the domain of d="),
    ],
)
def test_a_malformed_field_is_a_permerror_without_a_question(changes: dict[str, str | None], reason: str) -> None:
    resolver = FakeResolver(zone(rsa()))
    (check,) = verify(sign(RAW, rsa(), **changes) + RAW, resolver)
    assert found(check) == (Result.PERMERROR, reason)
    assert resolver.queries == []


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([], "no key record"),
        (["v=DKIM1; p="], "key revoked"),
        ([rsa().record.replace("v=DKIM1", "v=DKIM2")], "key record: not v=DKIM1"),
        ([rsa().record, rsa(number=1).record], "several key records"),
        ([rsa(bits=1024).record.replace("k=rsa", "s=tlsrpt")], "key record: s= does not allow email"),
        ([ed25519().record], "the key is not for this algorithm"),
    ],
)
def test_a_key_that_cannot_be_used_is_a_permerror(records: list[str], reason: str) -> None:
    assert found(verify_one(sign(RAW, rsa()) + RAW, records=records)) == (Result.PERMERROR, reason)


def test_a_key_for_the_domain_itself_allows_no_subdomain() -> None:
    """RFC 6376 section 3.6.1, t=s."""
    strict = [rsa().record.replace("k=rsa", "t=s")]
    assert verify_one(sign(RAW, rsa(), i="a@signer.example") + RAW, records=strict).result is Result.PASS
    check = verify_one(sign(RAW, rsa(), i="a@mail.signer.example") + RAW, records=strict)
    assert found(check) == (Result.PERMERROR, "the key allows no subdomain in i=")


def test_rsa_sha1_is_not_even_looked_up() -> None:
    """RFC 8301 section 3.1. The arithmetic would be right."""
    body = b64encode(sha1(relaxed_body(parse_message(RAW).body)).digest()).decode()
    resolver = FakeResolver(zone(rsa()))
    (check,) = verify(sign(RAW, rsa(), a="rsa-sha1", bh=body) + RAW, resolver)
    assert found(check) == (Result.PERMERROR, "rsa-sha1 is not accepted")
    assert resolver.queries == []


@pytest.mark.parametrize("fault", ["SERVFAIL", "TIMEOUT"])
def test_a_dns_that_does_not_answer_is_a_temperror(fault: str) -> None:
    check = verify_one(sign(RAW, rsa()) + RAW, records=fault)
    assert found(check) == (Result.TEMPERROR, "no answer from the DNS for the key")


def test_a_name_that_does_not_exist_is_a_permerror() -> None:
    (check,) = verify(sign(RAW, rsa()) + RAW, FakeResolver())
    assert found(check) == (Result.PERMERROR, "no key record")


# --- l= ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        ("0", (Result.POLICY, "l= leaves 22 octets of the body unsigned")),
        ("21", (Result.POLICY, "l= leaves 1 octets of the body unsigned")),
        ("22", (Result.PASS, None)),
        ("23", (Result.PERMERROR, "l= is larger than the body")),
        ("9" * 76, (Result.PERMERROR, "l= is larger than the body")),
    ],
)
def test_a_signature_over_a_part_of_the_body_never_passes(length: str, expected: tuple[Result, str | None]) -> None:
    assert found(verify_one(sign(RAW, rsa(), l=length) + RAW)) == expected


def test_text_behind_the_signed_part_is_found_out() -> None:
    signed = sign(RAW, rsa(), l="22") + RAW
    assert verify_one(signed + b"Send money.\r\n").result is Result.POLICY


def test_a_wrong_signature_with_a_short_l_fails() -> None:
    signed = sign(RAW, rsa(), l="5") + RAW.replace(b"Alice", b"Mallory")
    assert found(verify_one(signed)) == (Result.FAIL, "signature does not match")


# --- several signatures -----------------------------------------------------------------------------------------------


def test_results_stand_in_the_order_of_the_fields() -> None:
    good, other = rsa(), ed25519("other.example")
    bad = sign(RAW, rsa("bad.example", number=1))
    signed = sign(RAW, other) + bad + b"DKIM-Signature: nonsense\r\n" + sign(RAW, good) + RAW
    checks = verify(signed, FakeResolver(zone(good, other)))
    assert [(one.result, one.domain) for one in checks] == [
        (Result.PASS, "other.example"),
        (Result.PERMERROR, "bad.example"),
        (Result.PERMERROR, None),
        (Result.PASS, "signer.example"),
    ]


def test_signatures_of_one_key_share_one_question() -> None:
    resolver = FakeResolver(zone(rsa()))
    field = sign(RAW, rsa())
    assert [one.result for one in verify(field * 3 + RAW, resolver)] == [Result.PASS] * 3
    assert len(resolver.queries) == 1


def test_the_authors_signature_is_looked_at_however_many_stand_above_it() -> None:
    noise = b"".join(sign(RAW, rsa(f"n{number}.example"), bh="AAAA") for number in range(30))
    resolver = FakeResolver(zone(rsa()))
    checks = verify(noise + sign(RAW, rsa()) + RAW, resolver)
    assert checks[-1].result is Result.PASS
    assert [one.result for one in checks].count(Result.POLICY) == 31 - MAX_SIGNATURES
    assert checks[20].reason == "not looked at, more than 10 signatures"
    assert len(resolver.queries) == MAX_SIGNATURES


@pytest.mark.parametrize(
    ("author", "signer"),
    [
        ("signer.example", "signer.example"),
        ("mail.signer.example", "signer.example"),
        ("signer.example", "mail.signer.example"),
        ("a.signer.example", "b.signer.example"),
    ],
)
def test_a_signer_near_the_author_comes_first(author: str, signer: str) -> None:
    noise = b"".join(sign(RAW, rsa(f"n{number}.example"), bh="AAAA") for number in range(MAX_SIGNATURES))
    near = Signer(signer, "r", rsa_key())
    checks = verify(noise + sign(RAW, near) + RAW, FakeResolver(zone(near)), author_domain=author)
    assert checks[-1].result is Result.PASS


def test_without_an_author_the_topmost_come_first() -> None:
    noise = b"".join(sign(RAW, rsa(f"n{number}.example"), bh="AAAA") for number in range(12))
    checks = verify(noise + RAW, FakeResolver(), author_domain=None)
    assert [one.result for one in checks] == [Result.PERMERROR] * 10 + [Result.POLICY] * 2


def test_the_names_to_look_up_at_once_are_those_of_the_keys() -> None:
    fields = sign(RAW, rsa()) * 2 + b"DKIM-Signature: nonsense\r\n" + sign(RAW, ed25519("other.example"))
    assert key_names(parse_message(fields + RAW)) == ["r._domainkey.signer.example", "e._domainkey.other.example"]


def test_a_signature_is_not_among_the_fields_that_it_signs() -> None:
    """h= may name dkim-signature for those below; the one under verification was not there when it was made."""
    first = sign(RAW, rsa())
    second = sign(first + RAW, ed25519(), h="from:dkim-signature:dkim-signature")
    checks = verify(second + first + RAW, FakeResolver(zone(rsa(), ed25519())))
    assert [one.result for one in checks] == [Result.PASS, Result.PASS]


# --- keys from a cache ------------------------------------------------------------------------------------------------


def test_a_replaced_key_is_found_by_one_fresh_look_up() -> None:
    old, new = rsa(number=1), rsa()
    resolver = AgingResolver(zone(old), zone(new), age=61)
    assert [one.result for one in verify(sign(RAW, new) * 2 + RAW, resolver)] == [Result.PASS, Result.PASS]
    assert resolver.fresh_queries == [new.key_name]


def test_a_new_selector_is_found_although_the_cache_says_there_is_none() -> None:
    resolver = AgingResolver({}, zone(rsa()), age=61)
    (check,) = verify(sign(RAW, rsa()) + RAW, resolver)
    assert check.result is Result.PASS


def test_a_key_that_was_just_fetched_is_not_asked_for_again() -> None:
    resolver = AgingResolver(zone(rsa(number=1)), zone(rsa()), age=60)
    (check,) = verify(sign(RAW, rsa()) + RAW, resolver)
    assert check.result is Result.FAIL
    assert resolver.fresh_queries == []


def test_a_forged_signature_costs_one_fresh_look_up() -> None:
    resolver = AgingResolver(zone(rsa()), zone(rsa()), age=3600)
    forged = sign(RAW, rsa(number=1)) + RAW
    assert [one.result for one in verify(forged, resolver)] == [Result.FAIL]
    assert resolver.fresh_queries == [rsa().key_name]


def test_a_changed_body_costs_none() -> None:
    resolver = AgingResolver(zone(rsa()), zone(rsa()), age=3600)
    (check,) = verify(sign(RAW, rsa()) + RAW + b"more\r\n", resolver)
    assert found(check) == (Result.FAIL, "body hash does not match")
    assert resolver.fresh_queries == []


def test_nobody_is_called_a_forger_on_an_old_key_while_the_dns_is_away() -> None:
    resolver = AgingResolver(zone(rsa(number=1)), {rsa().key_name: {"TXT": "SERVFAIL"}}, age=3600)
    (check,) = verify(sign(RAW, rsa()) + RAW, resolver)
    assert check.result is Result.TEMPERROR


def test_a_good_signature_needs_no_fresh_look_up_however_old_its_key_is() -> None:
    resolver = AgingResolver(zone(rsa()), {}, age=86400)
    assert [one.result for one in verify(sign(RAW, rsa()) + RAW, resolver)] == [Result.PASS]
    assert resolver.fresh_queries == []


# --- bounds -----------------------------------------------------------------------------------------------------------


def bounded(raw: bytes, resolver: FakeResolver) -> tuple[DkimCheck, ...]:
    checks, seconds = cpu_seconds(verify_dkim(resolver, parse_message(raw), author_domain="signer.example", now=NOW))
    assert seconds < 0.25
    assert len(resolver.queries) <= 10
    return checks


def test_500_signatures_are_bounded() -> None:
    signers = [rsa("signer.example", f"s{number}") for number in range(500)]
    fields = [sign(RAW, one, h="from") for one in signers]
    body = b"x" * 78 + b"\r\n"
    raw = b"".join(fields) + RAW + body * 13_000
    assert len(bounded(raw, FakeResolver(zone(*signers)))) == 500


def test_5000_tags_are_bounded() -> None:
    field = sign(RAW, rsa(), **{f"x{number}": "y" for number in range(5000)})
    (check,) = bounded(field + RAW, FakeResolver(zone(rsa())))
    assert check.result is Result.PASS


def test_50000_names_in_h_are_bounded() -> None:
    field = sign(RAW, rsa(), h="from:" + "to:" * 50_000 + "subject")
    (check,) = bounded(field + RAW, FakeResolver(zone(rsa())))
    assert check.result is Result.PASS


def test_ten_signatures_that_each_sign_the_largest_field_are_bounded() -> None:
    raw = b"X-Large:" + b" a" * 110_000 + b"\r\n" + RAW
    fields = b"".join(sign(raw, rsa("signer.example", f"s{number}"), h="from:x-large") for number in range(10))
    signers = [rsa("signer.example", f"s{number}") for number in range(10)]
    assert {one.result for one in bounded(fields + raw, FakeResolver(zone(*signers)))} == {Result.PASS}


def test_200000_blank_lines_are_bounded() -> None:
    raw = RAW + b"\r\n" * 200_000
    (check,) = bounded(sign(RAW, rsa()) + raw, FakeResolver(zone(rsa())))
    assert check.result is Result.PASS


def test_ten_different_lengths_do_not_mean_ten_passes_over_the_body() -> None:
    raw = RAW + (b"x" * 78 + b"\r\n") * 13_000
    signers = [rsa("signer.example", f"s{number}") for number in range(10)]
    fields = b"".join(sign(raw, one, l=str(number + 1)) for number, one in enumerate(signers))
    assert {one.result for one in bounded(fields + raw, FakeResolver(zone(*signers)))} == {Result.POLICY}


@given(st.data())
@settings(max_examples=300)
def test_a_damaged_message_never_raises_and_never_passes_with_other_text(data: st.DataObject) -> None:
    signed = bytearray(sign(RAW, ed25519(), h="from:to:subject:received") + RAW)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(signed) - 1))
        signed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        message = parse_message(bytes(signed))
    except MalformedMessage:
        return
    checks = run(verify_dkim(FakeResolver(zone(ed25519())), message, author_domain=None, now=NOW))
    original = parse_message(RAW)
    if any(one.result is Result.PASS for one in checks):
        assert relaxed_body(message.body) == relaxed_body(original.body)


def test_the_digest_is_that_of_an_independent_reading() -> None:
    message = parse_message(RAW)
    unsigned = b"DKIM-Signature: v=1;\r\n b="
    own = Field(b"dkim-signature", unsigned + b"abc\r\n def=\r\n")
    names = [b"subject", b"from", b"from", b"none"]
    for form in ("simple", "relaxed"):
        assert (
            header_digest(index_fields(message.fields), names, form, own)
            == sha256(_covered(message, names, form, unsigned)).digest()
        )
