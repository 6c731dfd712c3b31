"""Authentication-Results: what we write, that we read it back, and that nobody else's field passes for ours."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.mail import authres
from forwarder.mail.authres import (
    AuthenticationResults,
    MalformedResults,
    MethodResult,
    build_field,
    claims,
    parse,
    render,
    render_results,
    results_of,
)
from forwarder.model import (
    Address,
    ArcCheck,
    DkimCheck,
    DmarcCheck,
    Envelope,
    Field,
    MailkeyCheck,
    Peer,
    Result,
    SpfCheck,
    Verdict,
)

ENVELOPE = Envelope(
    "id1",
    Peer(IPv4Address("192.0.2.1"), "client.sender.test"),
    Address("bob", "sender.test"),
    (),
    datetime(2026, 11, 23, 12, 30, tzinfo=UTC),
)
VERDICT = Verdict(
    mailkey=MailkeyCheck(Result.PASS, "sender.test", "sender.test", "k2611", "all", True),
    spf=SpfCheck(Result.PASS, "sender.test"),
    spf_helo=SpfCheck(Result.NONE),
    dkim=(DkimCheck(Result.PASS, "sender.test", "s1", None, "@sender.test", "rsa-sha256", "abcd/efghij"),),
    arc=ArcCheck(Result.NONE),
    dmarc=DmarcCheck(Result.PASS, "sender.test", "sender.test", "reject", "none", "dkim:sender.test"),
)
NOTHING = Verdict(
    MailkeyCheck(Result.NONE),
    SpfCheck(Result.NONE),
    SpfCheck(Result.NONE),
    (),
    ArcCheck(Result.NONE),
    DmarcCheck(Result.NONE),
)


def field(value: str | bytes) -> Field:
    raw = value.encode() if isinstance(value, str) else value
    return Field(b"authentication-results", b"Authentication-Results: " + raw + b"\r\n")


# --- writing ----------------------------------------------------------------------------------------------------------


def test_every_finding_is_written_with_the_identity_it_is_about() -> None:
    assert build_field(render("mx.fwd.test", VERDICT, ENVELOPE)).decode().splitlines() == [
        "Authentication-Results: mx.fwd.test;",
        "\tmailkey=pass smtp.mailfrom=bob@sender.test header.d=sender.test",
        "\t  header.s=k2611 policy.rcpt=bound;",
        "\tspf=pass smtp.mailfrom=bob@sender.test;",
        "\tdkim=pass header.d=sender.test header.s=s1 header.a=rsa-sha256",
        '\t  header.b="abcd/efg";',
        "\tarc=none;",
        "\tdmarc=pass (p=reject) header.from=sender.test policy.dmarc=none",
    ]


def test_nothing_found_is_written_as_none() -> None:
    assert parse(render("mx.fwd.test", NOTHING, ENVELOPE), strict=True).results == (
        MethodResult("mailkey", "none", (("smtp.mailfrom", "bob@sender.test"),)),
        MethodResult("spf", "none", (("smtp.mailfrom", "bob@sender.test"),)),
        MethodResult("dkim", "none", (), "no signature"),
        MethodResult("arc", "none"),
        MethodResult("dmarc", "none"),
    )
    assert render_results(AuthenticationResults("mx.fwd.test")) == b"mx.fwd.test; none"


def test_the_null_sender_is_judged_by_its_ehlo_name() -> None:
    results = results_of(replace(VERDICT, spf_helo=SpfCheck(Result.PASS)), replace(ENVELOPE, sender=None))
    assert [one for one in results if one.method == "spf"] == [
        MethodResult("spf", "pass", (("smtp.helo", "client.sender.test"),))
    ]
    assert results[0].properties[0] == ("smtp.helo", "client.sender.test")


def test_an_ehlo_finding_is_a_result_of_its_own() -> None:
    results = results_of(replace(VERDICT, spf_helo=SpfCheck(Result.FAIL, reason="-all")), ENVELOPE)
    assert MethodResult("spf", "fail", (("smtp.helo", "client.sender.test"),), "-all") in results


def test_arc_tells_the_address_and_the_oldest_pass() -> None:
    peer = Peer(IPv6Address("2001:db8::1"), "c.test")
    verdict = replace(VERDICT, arc=ArcCheck(Result.PASS, 2, 0, None, ("a.test", "b.test")))
    value = render("mx.fwd.test", verdict, replace(ENVELOPE, peer=peer))
    assert b'arc=pass header.oldest-pass=0 smtp.remote-ip="2001:db8::1"' in value


def test_a_key_under_test_and_a_foreign_identity_are_told() -> None:
    check = DkimCheck(Result.FAIL, "sender.test", "s1", "bad signature", "bob@x.sender.test", "rsa-sha256", "a", True)
    assert results_of(replace(VERDICT, dkim=(check,)), ENVELOPE)[2] == MethodResult(
        "dkim",
        "fail",
        (
            ("header.d", "sender.test"),
            ("header.i", "bob@x.sender.test"),
            ("header.s", "s1"),
            ("header.a", "rsa-sha256"),
            ("header.b", "a"),
        ),
        "bad signature, testing",
    )


def test_what_is_kept_of_a_domain_is_bounded_whatever_it_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[MethodResult, str] = {}
    monkeypatch.setattr(authres, "_kept_results", kept)

    def results(identity: str, signature: str = "abcd") -> bytes:
        dkim = DkimCheck(Result.PASS, "sender.test", "s1", None, identity, "rsa-sha256", signature)
        return render("mx.fwd.test", replace(VERDICT, dkim=(dkim,)), ENVELOPE)

    first = results("a@sender.test", "abcdefgh")
    known = len(kept)
    assert results("a@sender.test", "ijklmnop") == first.replace(b"abcdefgh", b"ijklmnop")
    assert len(kept) == known
    results("b" * 2000 + "@sender.test")
    assert len(kept) == known
    for number in range(2 * authres._KEPT_RESULTS):
        results(f"{number}@sender.test")
    assert len(kept) <= authres._KEPT_RESULTS


@given(
    properties=st.lists(
        st.tuples(st.sampled_from(["header.d", "header.b", "smtp.mailfrom"]), st.text('ab.@"\\/', max_size=80)),
        max_size=4,
    ),
    comment=st.none() | st.text("xyz ()", max_size=90),
    reason=st.none() | st.text("xyz ", max_size=40),
)
def test_what_stands_last_is_written_as_if_all_were_written_in_one_go(
    properties: list[tuple[str, str]], comment: str | None, reason: str | None
) -> None:
    one = MethodResult("dkim", "pass", tuple(properties), comment, reason)
    written = render_results(AuthenticationResults("mx", (one,)))
    assert written.decode() == f"mx;\r\n\t{authres._write_result(one)}"


@pytest.mark.parametrize(
    ("local", "domain", "expected"),
    [
        ('"a b"', "sender.test", "sender.test"),
        ('"x; dkim=pass header.d=good.test"', "sender.test", "sender.test"),
        ("böb", "bücher.test", "xn--bcher-kva.test"),
        ("a=b/c", "sender.test", "a=b/c@sender.test"),
        ("a", "[IPv6:::1]", "a@[IPv6:::1]"),
    ],
)
def test_a_sender_that_two_readers_could_read_in_two_ways_loses_its_local_part(
    local: str, domain: str, expected: str
) -> None:
    value = render("mx.fwd.test", VERDICT, replace(ENVELOPE, sender=Address(local, domain)))
    read = parse(value, strict=True)
    assert dict(read.results[0].properties)["smtp.mailfrom"] == expected
    assert len(read.results) == 5


@given(st.text(max_size=60), st.text(max_size=60))
def test_hostile_findings_stay_inside_their_place(domain: str, reason: str) -> None:
    verdict = Verdict(
        MailkeyCheck(Result.FAIL, domain, domain, domain, "all", False, reason),
        SpfCheck(Result.FAIL, domain, reason, reason),
        SpfCheck(Result.PERMERROR, domain, reason),
        (DkimCheck(Result.FAIL, domain, domain, reason, domain, domain, domain),),
        ArcCheck(Result.FAIL, 1, 0, reason, (domain,)),
        DmarcCheck(Result.FAIL, domain, domain, domain, domain, domain, reason),
    )
    raw = build_field(render("mx.fwd.test", verdict, ENVELOPE))
    assert raw.isascii()
    assert raw.endswith(b"\r\n")
    assert all(line[:1] == b"\t" and line.strip() for line in raw[:-2].split(b"\r\n")[1:])
    assert b"\n" not in raw.replace(b"\r\n", b"")
    read = parse(Field(b"authentication-results", raw).value, strict=True)
    assert read.authserv_id == "mx.fwd.test"
    assert [(one.method, one.result) for one in read.results] == [
        ("mailkey", "fail"),
        ("spf", "fail"),
        ("spf", "permerror"),
        ("dkim", "fail"),
        ("arc", "fail"),
        ("dmarc", "fail"),
    ]


_keyword = st.from_regex(r"[a-z][a-z0-9]{0,7}(-[a-z0-9]{1,4})?", fullmatch=True)
_printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=100)
_properties = st.lists(st.tuples(st.builds("{}.{}".format, _keyword, _keyword), _printable), max_size=4).map(tuple)
_results = st.builds(
    MethodResult,
    _keyword,
    _keyword,
    _properties,
    st.none() | _printable,
    st.none() | _printable,
    st.integers(1, 99),
)
_fields = st.builds(
    AuthenticationResults,
    _printable,
    st.lists(_results, max_size=4).map(tuple),
    st.integers(1, 99),
    st.none() | st.integers(1, 50),
)


@given(_fields)
def test_render_and_parse_are_inverses(results: AuthenticationResults) -> None:
    assert parse(render_results(results), strict=True) == results


# --- reading ----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=400) | st.text('abc=;.()"\\/ \t1', max_size=200).map(str.encode))
def test_no_value_raises_anything_but_its_own_error(value: bytes) -> None:
    for strict in (True, False):
        with contextlib.suppress(MalformedResults):
            parse(value, strict=strict)
    claims(field(value), ["mx.fwd.test"])


@pytest.mark.parametrize(
    "unit",
    [b"(", b'"', b"\\", b"a;", b"x=y ", b"()", b"a; b=c ", b"a.", b"=?a?q?", b"((", b"\xc3\xa9 ", b"=?a?b?QQ==?= "],
)
def test_a_megabyte_of_anything_costs_next_to_nothing(unit: bytes) -> None:
    started = time.process_time()
    for size in (1_000_000, 16_000):
        value = b"a; b=c " + unit * (size // len(unit))
        with contextlib.suppress(MalformedResults):
            parse(value)
        claims(field(value), ["mx.fwd.test"])
        claims(field(value[7:]), ["mx.fwd.test"])
    assert time.process_time() - started < 1


# --- claims -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "mx.fwd.test; none",
        "MX.Fwd.Test 1; dkim=pass",
        "mx.fwd.test",
        "mx.fwd.test.; none",
        "mx.fwd.test1; none",
        "mx.fwd.test/1; none",
        "mx.fwd.test:25; none",
        '"mx.fwd.test"; none',
        r'"mx.\fwd.test"; none',
        "(a (b) c) mx.fwd.test; none",
        "(;) mx.fwd.test; dkim=pass",
        "(mx.fwd.test) other.test; dkim=pass",
        "mx(x).fwd.test; none",
        "mx.fwd\r\n .test; dkim=pass",
        "\r\n\tmx.fwd.test\r\n\t; none",
        "; mx.fwd.test; dkim=pass",
        "i=1; mx.fwd.test; dkim=pass",
        "=?utf-8?b?bXguZndkLnRlc3Q=?=; none",
        "=?us-ascii?Q?mx=2Efwd.test?=; none",
        "forward.bücher.test; none",
        b"mx.fwd.test\x00; none",
        "(" * 60 + "mx.fwd.test; none",
        "x " * 10000 + "; none",
    ],
)
def test_a_field_that_claims_our_name_in_any_disguise_is_ours_to_remove(value: str | bytes) -> None:
    assert claims(field(value), ["mx.fwd.test", "forward.xn--bcher-kva.test"])


@pytest.mark.parametrize(
    "value",
    [
        "other.test; spf=pass smtp.helo=mx.fwd.test",
        "other.test; arc=pass; dkim=pass header.d=mx.fwd.test",
        "sub.mx.fwd.test; none",
        "notmx.fwd.test; none",
        "mx.fwd.test.other.test; none",
        "fwd.test; none",
        "other.test; mx.fwd.test; none",
        "spf=pass smtp.mailfrom=a@mx.other.test; dkim=none",
        "",
    ],
)
def test_a_field_of_somebody_else_stays(value: str) -> None:
    assert not claims(field(value), ["mx.fwd.test"])


def test_our_own_field_claims_our_name() -> None:
    assert claims(field(render("mx.fwd.test", VERDICT, ENVELOPE)), ["mx.fwd.test"])


def test_what_is_as_long_as_a_header_is_written_and_not_kept() -> None:
    """Each message of a stranger could bring another i= of 200 KB."""
    check = replace(VERDICT.dkim[0], identity="a" * 200_000 + "@sender.test")
    verdict = replace(VERDICT, dkim=(check,))
    render("mx.fwd.test", VERDICT, ENVELOPE)
    kept = len(authres._kept_pvalues)
    assert b"header.i=aaaa" in render("mx.fwd.test", verdict, ENVELOPE)
    assert len(authres._kept_pvalues) == kept
