"""SPF: every rule of RFC 7208 that a record can lean on, as tables of a zone, a client and what must come out."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.spf import verify_spf
from forwarder.auth.spf.macro import expand, parse_explanation, parse_macro_string
from forwarder.auth.spf.record import MAX_RECORD, BadRecord, parse_record, select_records
from forwarder.auth.spf.verify import MAX_EXPLANATION
from forwarder.model import Address, Result, SpfCheck
from tests.fakes import FakeResolver

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
SENDER = Address("user", "example.org")


async def check(
    resolver: FakeResolver,
    *,
    ip: str = "192.0.2.1",
    sender: Address | None = SENDER,
    helo: str = "mail.example.net",
    identity: Literal["mailfrom", "helo"] = "mailfrom",
    default: str | None = None,
) -> SpfCheck:
    return await verify_spf(
        resolver,
        identity=identity,
        ip=ip_address(ip),
        sender=sender,
        helo=helo,
        receiver="mx.fwd.test",
        now=NOW,
        default_explanation=default,
    )


async def check_record(record: str, *, ip: str = "192.0.2.1", **more: Any) -> SpfCheck:
    """``record`` is that of example.org; ``more`` are other names and their types."""
    zone = {"example.org": {"TXT": [record], "A": ["192.0.2.1"]}}
    return await check(FakeResolver(zone | more.pop("zone", {})), ip=ip, **more)


# --- which identity, which domain -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "sender", "helo", "domain"),
    [
        pytest.param("mailfrom", SENDER, "mail.example.net", "example.org", id="the sender's domain"),
        pytest.param("mailfrom", None, "mail.example.net", "mail.example.net", id="HELO for the null sender"),
        pytest.param("helo", SENDER, "mail.example.net", "mail.example.net", id="the HELO identity"),
        pytest.param("mailfrom", Address("u", "B\u00fccher.example"), "h", "xn--bcher-kva.example", id="U-labels"),
    ],
)
async def test_the_domain_that_is_checked_is_named(
    identity: Literal["mailfrom", "helo"], sender: Address | None, helo: str, domain: str
) -> None:
    resolver = FakeResolver({domain: {"TXT": ["v=spf1 ip4:192.0.2.1 -all"]}})
    spf = await check(resolver, identity=identity, sender=sender, helo=helo)
    assert (spf.result, spf.domain) == (Result.PASS, domain)
    assert resolver.queries == [(domain, "TXT")]


@pytest.mark.parametrize(
    "domain",
    [
        "[192.0.2.1]",
        "[IPv6:2001:db8::1]",
        "localhost",
        "",
        "a..example.org",
        f"{'x' * 64}.example.org",
        "a\0b.example.org",
    ],
)
async def test_what_can_have_no_policy_is_none_and_is_not_asked_for(domain: str) -> None:
    resolver = FakeResolver()
    assert (await check(resolver, sender=None, helo=domain)).result is Result.NONE
    assert (await check(resolver, sender=Address("u", domain))).result is Result.NONE
    assert resolver.queries == []


async def test_a_local_part_is_postmaster_where_the_sender_has_none() -> None:
    zone = {
        "example.org": {"TXT": ["v=spf1 exists:%{l}.ok.test -all"]},
        "mail.example.net": {"TXT": ["v=spf1 exists:%{l}.%{o}.ok.test -all"]},
        "postmaster.ok.test": {"A": ["127.0.0.2"]},
        "postmaster.mail.example.net.ok.test": {"A": ["127.0.0.2"]},
    }
    assert (await check(FakeResolver(zone), sender=Address("", "example.org"))).result is Result.PASS
    assert (await check(FakeResolver(zone), sender=None)).result is Result.PASS


# --- finding the record -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("types", "result"),
    [
        pytest.param({}, Result.NONE, id="a name without TXT"),
        pytest.param(
            {"TXT": ["hello", "v=spf2 -all", "v=spf10 -all", "v=spf1-all", " v=spf1 -all"]}, Result.NONE, id="no spf"
        ),
        pytest.param({"TXT": ["V=SPF1 -ALL", "other"]}, Result.FAIL, id="any case"),
        pytest.param({"TXT": ["v=spf1"]}, Result.NEUTRAL, id="nothing but the version"),
        pytest.param({"TXT": ["v=spf1 -all", "v=spf1 -all"]}, Result.PERMERROR, id="two records"),
        pytest.param({"TXT": "SERVFAIL"}, Result.TEMPERROR, id="a DNS fault"),
        pytest.param({"TXT": [b"v=spf1 \xff -all"]}, Result.PERMERROR, id="not ASCII"),
        pytest.param({"TXT": [b"\xff", "v=spf1 -all"]}, Result.FAIL, id="another text that is not ASCII"),
    ],
)
async def test_the_record_is_selected_as_in_section_4_5(types: dict[str, Any], result: Result) -> None:
    assert (await check(FakeResolver({"example.org": types}))).result is result


async def test_a_domain_that_does_not_exist_has_no_policy() -> None:
    spf = await check(FakeResolver())
    assert (spf.result, spf.reason) == (Result.NONE, "example.org has no record")


GOOD_TERMS = [
    "all", "+all", "-ALL", "ip4:192.0.2.1", "ip4:192.0.2.0/24", "ip4:0.0.0.0/0", "ip6:2001:db8::1", "ip6:::1.1.1.1/0",
    "IP6:Cafe:Babe:8000::/33", "a", "A/24", "a//64", "a/24//64", "a/0//0", "a:mail.example.org", "a:mail.example.org./24",
    "a:foo:bar/baz.example.org", "a:foo/24.example.org/24", "a:_x.example.org", "a:x.xn--p1ai", "a:x.1-2", "a:%{d}",
    "a:x.%{d1r}", "a:x%%", "a:x%_", "a:x%-", "a:%{l1R.-+,/_=}.example.org", "a:%{d127}.x.org", "a:%{d00999}.x.org",
    "mx", "mx:example.org//128", "ptr", "ptr:example.org", "exists:%{i}.x.org", "include:x.org", "redirect=x.org",
    "exp=x.org", "EXP=%{d}", "unknown=", "un-kn_ow.n=a:b/c=%{s}%%", "default=+", "x=%{v}",
]  # fmt: skip
BAD_TERMS = [
    "all:", "all/8", "all.", "-", "+", "?+all", "moo", "moo:x.org", "1up=x", "=all", "+x=y", "ip4", "ip4:", "ip4:1.2.3",
    "ip4:1.2.3.4.5", "ip4:1.2.3.4/", "ip4:1.2.3.4/33", "ip4:1.2.3.4/032", "ip4:1.2.3.4/00", "ip4:1.2.3.4//32",
    "ip4:01.2.3.4", "ip4:1.2.3.256", "ip4:1.2.3.4:80", "ip4:%{i}", "ip4:::1", "ip6", "ip6:", "ip6:1.2.3.4", "ip6::CAFE::BABE",
    "ip6:::1/129", "ip6:::1/064", "ip6:::1//33", "ip6:fe80::1%eth0", "ip6:[::1]", "a:", "a/", "a/33", "a//129", "a/024",
    "a/24/64", "a/24//", "a/24/", "a//", "a:x", "a:museum", "a:museum.", "a:x.123", "a:111.222.33.44", "a:x.-com",
    "a:x.com-", "a:x.com..", "a:x.org:8080", "a:x.org/24/64", "a:x.org\0", "a:x.org\t", "a:%", "a:%x.org", "a:%{d", "a:%{}",
    "a:%{dd}", "a:%{a}.org", "a:%{d0}", "a:%{d00r}", "a:%{dr1}", "a:%(d).org", "a:%{c}.org", "a:%{r}.org", "a:%{t}.org",
    "a:%{d}org", "mx:", "mx:x", "mx/33", "ptr:", "ptr/0", "ptr:x", "exists", "exists:", "exists:x.org/24", "exists/24",
    "include", "include:", "include:x", "include:x.org/24", "include/24", "redirect=", "redirect=x", "redirect=x.org/24",
    "redirect:x.org", "exp=", "exp=x", "exp=%{r}.x.org", "x=%", "x=%{x}", "x=a\x7fb", "all\rptr",
]  # fmt: skip


@pytest.mark.parametrize("term", GOOD_TERMS)
def test_a_term_of_the_grammar_is_taken(term: str) -> None:
    record = parse_record(f"v=spf1 {term}".encode())
    assert not isinstance(record, BadRecord), record


@pytest.mark.parametrize("term", BAD_TERMS)
async def test_one_bad_term_spoils_the_record_even_behind_all(term: str) -> None:
    spf = await check_record(f"v=spf1 +all {term}")
    assert spf.result is Result.PERMERROR
    assert spf.reason is not None
    assert spf.reason.isascii()
    assert spf.reason.isprintable()


@pytest.mark.parametrize("modifier", ["redirect=a.org", "exp=a.org"])
async def test_a_modifier_that_means_something_stands_once(modifier: str) -> None:
    assert (await check_record(f"v=spf1 {modifier} -all {modifier.upper()}")).result is Result.PERMERROR
    assert (await check_record("v=spf1 other=1 other=2 -all")).result is Result.FAIL


def test_a_record_beyond_the_limit_is_refused_unread() -> None:
    longest = b"v=spf1" + b" a" * ((MAX_RECORD - 6) // 2)
    assert not isinstance(parse_record(longest), BadRecord)
    assert isinstance(parse_record(longest + b" a"), BadRecord)


@given(st.binary(max_size=300))
def test_no_octets_make_the_parser_raise(octets: bytes) -> None:
    parse_record(b"v=spf1 " + octets)
    select_records([octets])


@given(st.text(alphabet="%{}sldirpv0129.-+,/_=ab:~?", max_size=60))
def test_no_term_makes_the_parser_raise(term: str) -> None:
    for prefix in ("a:", "exists:", "exp=", "x=", ""):
        parse_record(f"v=spf1 {prefix}{term}".encode())


# --- mechanisms -------------------------------------------------------------------------------------------------------

HOSTS = {
    "four.test": {"A": ["192.0.2.7", "192.0.2.1"]},
    "six.test": {"AAAA": ["2001:db8::1"]},
    "mx.test": {"MX": ["10 six.test", "5 four.test"]},
    "null.test": {"MX": ["0 ."]},
    "broken.test": {"*": "TIMEOUT"},
    "mxbroken.test": {"MX": ["10 broken.test"]},
    "pass.test": {"TXT": ["v=spf1 +all"]},
    "fail.test": {"TXT": ["v=spf1 -all"]},
    "softfail.test": {"TXT": ["v=spf1 ~all"]},
    "neutral.test": {"TXT": ["v=spf1 ?all"]},
    "empty.test": {"TXT": ["v=spf1"]},
    "bad.test": {"TXT": ["v=spf1 moo"]},
    "none.test": {"TXT": ["hello"]},
    "loop.test": {"TXT": ["v=spf1 include:loop.test"]},
}
FOUR, SIX, MAPPED = "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"


@pytest.mark.parametrize(
    ("ip", "record", "result"),
    [
        # Section 5.1 and 4.6.2: qualifiers.
        (FOUR, "all", Result.PASS),
        (FOUR, "-all", Result.FAIL),
        (FOUR, "~all", Result.SOFTFAIL),
        (FOUR, "?all", Result.NEUTRAL),
        (FOUR, "ip4:192.0.2.2", Result.NEUTRAL),
        (FOUR, "-all +all", Result.FAIL),
        # Section 5.6.
        (FOUR, "ip4:192.0.2.1 -all", Result.PASS),
        (FOUR, "ip4:192.0.2.128/25 -all", Result.FAIL),
        (FOUR, "ip4:192.0.2.99/25 -all", Result.PASS),
        (FOUR, "ip4:203.0.113.0/0 -all", Result.PASS),
        (FOUR, "ip6:::/0 -all", Result.FAIL),
        (FOUR, "ip6:::ffff:192.0.2.1 -all", Result.FAIL),
        (SIX, "ip6:2001:db8::/32 -all", Result.PASS),
        (SIX, "ip6:2001:db8:1::/48 -all", Result.FAIL),
        (SIX, "ip4:0.0.0.0/0 -all", Result.FAIL),
        # Section 5: an address that came mapped is the IPv4 address.
        (MAPPED, "ip4:192.0.2.1 -all", Result.PASS),
        (MAPPED, "ip6:::ffff:0:0/96 -all", Result.FAIL),
        (MAPPED, "a:four.test -all", Result.PASS),
        # Section 5.3.
        (FOUR, "a -all", Result.PASS),
        (FOUR, "a:four.test -all", Result.PASS),
        ("192.0.2.99", "a:four.test/24 -all", Result.PASS),
        ("192.0.2.99", "a:four.test//24 -all", Result.FAIL),
        ("198.51.100.1", "a:four.test/0 -all", Result.PASS),
        (FOUR, "a:six.test/0 -all", Result.FAIL),
        (SIX, "a:six.test -all", Result.PASS),
        ("2001:db8::99", "a:six.test/1//64 -all", Result.PASS),
        ("2001:db8::99", "a:six.test/24 -all", Result.FAIL),
        (FOUR, "a:missing.test/0 -all", Result.FAIL),
        (FOUR, "a:broken.test +all", Result.TEMPERROR),
        # Section 5.4.
        (FOUR, "mx:mx.test -all", Result.PASS),
        (SIX, "mx:mx.test -all", Result.PASS),
        ("192.0.2.99", "mx:mx.test/24 -all", Result.PASS),
        (FOUR, "mx:four.test -all", Result.FAIL),
        (FOUR, "mx:null.test/0 -all", Result.FAIL),
        (FOUR, "mx:broken.test -all", Result.TEMPERROR),
        (FOUR, "mx:mxbroken.test -all", Result.TEMPERROR),
        # Section 5.7: A, whatever the client is.
        (SIX, "exists:four.test -all", Result.PASS),
        (SIX, "exists:six.test -all", Result.FAIL),
        (FOUR, "exists:broken.test -all", Result.TEMPERROR),
        # Section 5.2, the table.
        (FOUR, "include:pass.test -all", Result.PASS),
        (FOUR, "~include:pass.test -all", Result.SOFTFAIL),
        (FOUR, "include:fail.test ?all", Result.NEUTRAL),
        (FOUR, "include:softfail.test -all", Result.FAIL),
        (FOUR, "include:neutral.test -all", Result.FAIL),
        (FOUR, "include:empty.test -all", Result.FAIL),
        (FOUR, "include:bad.test +all", Result.PERMERROR),
        (FOUR, "include:none.test +all", Result.PERMERROR),
        (FOUR, "include:missing.test +all", Result.PERMERROR),
        (FOUR, "include:broken.test +all", Result.TEMPERROR),
        (FOUR, "include:%{h1}.invalid..test +all", Result.PERMERROR),
        (FOUR, "include:loop.test +all", Result.PERMERROR),
        # Section 6.1.
        (FOUR, "redirect=fail.test", Result.FAIL),
        (FOUR, "redirect=fail.test a", Result.PASS),
        (FOUR, "redirect=missing.test ~all", Result.SOFTFAIL),
        (FOUR, "redirect=missing.test", Result.PERMERROR),
        (FOUR, "redirect=none.test", Result.PERMERROR),
        (FOUR, "redirect=bad.test", Result.PERMERROR),
        (FOUR, "redirect=broken.test", Result.TEMPERROR),
        (FOUR, "redirect=empty.test", Result.NEUTRAL),
        (FOUR, "redirect=%{h}", Result.PERMERROR),
        (FOUR, "include:example.org", Result.PERMERROR),
        (FOUR, "redirect=example.org", Result.PERMERROR),
    ],
)  # fmt: skip
async def test_a_record_gives_this_client(ip: str, record: str, result: Result) -> None:
    assert (await check_record(f"v=spf1 {record}", ip=ip, zone=HOSTS, helo="single")).result is result


async def test_a_redirect_takes_its_domain_and_its_explanation_along() -> None:
    zone = {
        "example.org": {"TXT": ["v=spf1 redirect=other.test exp=ours.test"], "A": ["192.0.2.1"]},
        "other.test": {"TXT": ["v=spf1 a -all exp=theirs.test"]},
        "ours.test": {"TXT": ["ours"]},
        "theirs.test": {"TXT": ["%{d} for %{o}"]},
    }
    spf = await check(FakeResolver(zone))
    assert (spf.result, spf.domain, spf.explanation) == (Result.FAIL, "example.org", "other.test for example.org")


async def test_warm_networks_ask_for_nothing_but_the_record() -> None:
    resolver = FakeResolver({"example.org": {"TXT": ["v=spf1 ip4:192.0.2.9 ip6:::1 ip4:192.0.2.1 a mx -all"]}})
    spf = await check(resolver)
    assert (spf.result, spf.reason) == (Result.PASS, "ip4:192.0.2.1 of example.org")
    assert resolver.queries == [("example.org", "TXT")]


# --- ptr and the names of the client ----------------------------------------------------------------------------------

REVERSE = "1.2.0.192.in-addr.arpa"


@pytest.mark.parametrize(
    ("names", "zone", "result"),
    [
        pytest.param(["mail.example.org."], {"mail.example.org": {"A": [FOUR]}}, Result.PASS, id="below the domain"),
        pytest.param(["Example.ORG"], {}, Result.PASS, id="the domain itself"),
        pytest.param(["mail.example.org"], {"mail.example.org": {"A": ["192.0.2.2"]}}, Result.FAIL, id="does not lead back"),
        pytest.param(["notexample.org"], {"notexample.org": {"A": [FOUR]}}, Result.FAIL, id="ends in the same letters"),
        pytest.param(["x.example.org", "y.example.org"], {"x.example.org": {"*": "TIMEOUT"}, "y.example.org": {"A": [FOUR]}},
                     Result.PASS, id="a fault skips the name"),
        pytest.param("SERVFAIL", {}, Result.FAIL, id="a fault of the reverse zone is no match"),
        pytest.param([], {}, Result.FAIL, id="no name"),
        pytest.param([f"n{n}.example.org" for n in range(10)] + ["mail.example.org"], {"mail.example.org": {"A": [FOUR]}},
                     Result.FAIL, id="the eleventh name is ignored"),
    ],
)  # fmt: skip
async def test_ptr_matches_names_that_lead_back(names: Any, zone: dict[str, Any], result: Result) -> None:
    spf = await check_record("v=spf1 ptr -all", zone={REVERSE: {"PTR": names}} | zone)
    assert spf.result is result


async def test_ptr_asks_only_for_names_that_can_match() -> None:
    zone = {REVERSE: {"PTR": ["a.other.test", "b.other.test"]}, "example.org": {"TXT": ["v=spf1 ptr -all"]}}
    resolver = FakeResolver(zone)
    assert (await check(resolver)).result is Result.FAIL
    assert resolver.queries == [("example.org", "TXT"), (REVERSE, "PTR")]


@pytest.mark.parametrize(
    ("names", "proven", "expected"),
    [
        (["a.test", "mail.example.org", "example.org"], ["a.test", "mail.example.org", "example.org"], "example.org"),
        (["a.test", "mail.example.org"], ["a.test", "mail.example.org"], "mail.example.org"),
        (["a.test", "mail.example.org"], ["a.test"], "a.test"),
        (["a.test"], [], "unknown"),
        ("SERVFAIL", [], "unknown"),
    ],
)
async def test_p_prefers_the_domain_and_then_a_name_below_it(names: Any, proven: list[str], expected: str) -> None:
    zone: dict[str, Any] = {name: {"A": [FOUR]} for name in proven}
    zone["example.org"] = {"TXT": ["v=spf1 -all exp=why.test"]} | zone.get("example.org", {})
    zone |= {REVERSE: {"PTR": names}, "why.test": {"TXT": ["%{p}"]}}
    assert (await check(FakeResolver(zone))).explanation == expected


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "result"),
    [
        pytest.param(["a:none0.test", "a:none1.test", "?all"], Result.NEUTRAL, id="two void look-ups"),
        pytest.param(["a:none0.test", "a:none1.test", "a:none2.test", "?all"], Result.PERMERROR, id="three void look-ups"),
        pytest.param(["exists:none.test", "mx:none.test", "a:none.test"], Result.PERMERROR, id="of every mechanism"),
        pytest.param(["mx:lost.test", "a:none.test", "a:none.test"], Result.PERMERROR, id="mx whose hosts have no address"),
        pytest.param(["mx:half.test", "a:none.test", "a:none.test"], Result.NEUTRAL, id="mx of which one host has one"),
        pytest.param(["ptr", "ptr", "ptr", "a:none.test", "a:none.test"], Result.NEUTRAL, id="not those of the client's zone"),
        pytest.param(["a:full.test"] * 10 + ["?all"], Result.NEUTRAL, id="ten terms"),
        pytest.param(["a:full.test"] * 11 + ["?all"], Result.PERMERROR, id="eleven terms"),
        pytest.param(["a:full.test"] * 10 + ["ip4:192.0.2.1", "a"], Result.PASS, id="what is not reached does not count"),
        pytest.param(["a:full.test"] * 10 + ["redirect=full.test"], Result.PERMERROR, id="redirect is a term"),
        pytest.param(["include:five.test"] * 2, Result.PERMERROR, id="terms of includes count"),
        pytest.param(["include:five.test", "a:full.test", "a:full.test", "a:full.test", "a:full.test"], Result.NEUTRAL,
                     id="ten with an include"),
    ],
)  # fmt: skip
async def test_the_limits_of_section_4_6_4_hold_over_the_whole_check(terms: list[str], result: Result) -> None:
    zone = {
        "full.test": {"A": ["198.51.100.1"]},
        "five.test": {"TXT": ["v=spf1" + " a:full.test" * 5]},
        "lost.test": {"MX": ["10 none1.test", "20 none2.test"]},
        "half.test": {"MX": ["10 none1.test", "20 full.test"]},
    }
    assert (await check_record("v=spf1 " + " ".join(terms), zone=zone)).result is result


async def test_ten_mail_exchangers_are_asked_by_preference_and_an_eleventh_is_a_permerror() -> None:
    hosts: dict[str, Any] = {f"mx{n}.test": {"A": [f"198.51.100.{n}"]} for n in range(11)}
    zone = hosts | {
        "example.org": {"TXT": ["v=spf1 mx:big.test -all"]},
        "big.test": {"MX": [f"{10 * n} mx{n}.test" for n in reversed(range(11))]},
    }
    assert (await check(FakeResolver(zone), ip="198.51.100.9")).result is Result.PASS
    resolver = FakeResolver(zone)
    assert (await check(resolver, ip="198.51.100.10")).result is Result.PERMERROR
    assert [name for name, rdtype in resolver.queries if rdtype == "A"] == [f"mx{n}.test" for n in range(10)]


async def test_an_include_loop_asks_no_more_than_twelve_questions() -> None:
    resolver = FakeResolver({"example.org": {"TXT": ["v=spf1 include:example.org include:example.org -all"]}})
    assert (await check(resolver)).result is Result.PERMERROR
    assert len(resolver.queries) <= 12


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param("exists:%{L}%{S}%{H}.x.test " * 300, id="macros"),
        pytest.param("exists:" + "%{S}" * 127 + ".x.test", id="one name of macros"),
        pytest.param("a:" + "a." * 4000 + "x", id="labels"),
        pytest.param("ip4:192.0.2.9 " * 580, id="networks"),
        pytest.param("a:" + "9" * 8000, id="a number for a top label"),
        pytest.param("a:" + "a" * 8000 + "!", id="no top label"),
        pytest.param("x=" + "%%" * 4000, id="escapes"),
    ],
)
async def test_the_largest_record_costs_little(terms: str) -> None:
    started = time.process_time()
    sender = Address('"' + " -" * 100 + '"', "example.org")
    await check_record(f"v=spf1 {terms}"[:MAX_RECORD], sender=sender, helo="h" * 200 + ".test")
    assert time.process_time() - started < 0.25


# --- macros -----------------------------------------------------------------------------------------------------------

VALUES = {"s": "strong-bad@email.example.com", "l": "strong-bad", "o": "email.example.com", "d": "email.example.com"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d3}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{D2R}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{s.@-}", None),
        ("%{s.-}", "strong.bad@email.example.com"),
        ("%{s3.-}", "bad@email.example.com"),
        ("%{S}", "strong-bad%40email.example.com"),
        ("%{L}", "strong-bad"),
        ("%%%_%-", "% %20"),
        ("%{d1}.%{l1-}.x", "com.bad.x"),
        ("%{d001}", "com"),
        ("%{d99999999999999999999}", "email.example.com"),
    ],
)
def test_macros_expand_as_in_section_7_3(text: str, expected: str | None) -> None:
    if expected is None:
        assert parse_explanation(text) is None
    else:
        assert expand(parse_macro_string(text), VALUES) == expected


@pytest.mark.parametrize(
    ("ip", "reversed_name"),
    [
        ("192.0.2.1", "1.2.0.192.in-addr.x.test"),
        ("::ffff:192.0.2.1", "1.2.0.192.in-addr.x.test"),
        ("2001:db8::cb01", "1.0.b.c." + "0." * 20 + "8.b.d.0.1.0.0.2.ip6.x.test"),
    ],
)
async def test_the_address_is_asked_for_in_reverse(ip: str, reversed_name: str) -> None:
    resolver = FakeResolver({"example.org": {"TXT": ["v=spf1 exists:%{ir}.%{v}.x.test -all"]}})
    await check(resolver, ip=ip)
    assert resolver.queries[-1] == (reversed_name, "A")


async def test_a_name_that_grows_too_long_loses_labels_on_the_left() -> None:
    sender = Address("u", ".".join(["a" * 60] * 3) + ".example.org")
    resolver = FakeResolver({sender.domain: {"TXT": ["v=spf1 exists:%{d}.%{d}.x.test -all"]}})
    await check(resolver, sender=sender)
    asked = resolver.queries[-1][0]
    assert len(asked) <= 253
    assert f"{sender.domain}.{sender.domain}.x.test".endswith("." + asked)
    assert len(asked) + 61 > 253


async def test_a_local_part_beyond_ascii_matches_nothing() -> None:
    """RFC 8616 section 4. Encoded as a label it would ask for a name that its owner never meant."""
    resolver = FakeResolver({"example.org": {"TXT": ["v=spf1 exists:%{l}.x.test exists:%{S}.x.test ?all"]}})
    spf = await check(resolver, sender=Address("j\u00f6rg", "example.org"))
    assert spf.result is Result.NEUTRAL
    assert not any("x.test" in name for name, _ in resolver.queries)


# --- explanations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        pytest.param(["%{c} of %{h} may not use %{d}, says %{r} at %{t}"],
                     "192.0.2.1 of mail.example.net may not use example.org, says mx.fwd.test at 1795437000", id="all"),
        pytest.param(["See http://x.test/?s=%{S}&i=%{I}"], "See http://x.test/?s=user%40example.org&i=192.0.2.1", id="url"),
        pytest.param(["100%% %-%_."], "100% %20 .", id="escapes"),
        pytest.param([""], "default", id="empty"),
        pytest.param([], "default", id="no record"),
        pytest.param(["one", "two"], "default", id="several records"),
        pytest.param("SERVFAIL", "default", id="a DNS fault"),
        pytest.param(["no %{x}"], "default", id="a syntax error"),
        pytest.param(["100%"], "default", id="a stray percent sign"),
        pytest.param(["two\r\nlines"], "default", id="a line break"),
        pytest.param([b"caf\xc3\xa9"], "default", id="not ASCII"),
        pytest.param(["x" * MAX_EXPLANATION], "x" * MAX_EXPLANATION, id="as long as may be"),
        pytest.param(["x" * (MAX_EXPLANATION + 1)], "default", id="too long"),
        pytest.param(["%{s}" * 99], "default", id="too long when expanded"),
    ],
)  # fmt: skip
async def test_a_fail_is_explained_or_gets_the_default(texts: Any, expected: str) -> None:
    zone = {"why.test": {"TXT": texts}}
    spf = await check_record("v=spf1 -all exp=why.test", zone=zone, default="default")
    assert (spf.result, spf.explanation) == (Result.FAIL, expected)


async def test_an_explanation_with_control_characters_from_the_client_does_not_go_out() -> None:
    zone = {"example.org": {"TXT": ["v=spf1 -all exp=why.test"]}, "why.test": {"TXT": ["hello %{h}"]}}
    assert (await check(FakeResolver(zone), helo="x\r\n250 ok")).explanation is None


@pytest.mark.parametrize("record", ["v=spf1 ~all exp=why.test", "v=spf1 all exp=why.test", "v=spf1 exp=why.test"])
async def test_only_a_fail_fetches_an_explanation(record: str) -> None:
    resolver = FakeResolver({"example.org": {"TXT": [record]}, "why.test": {"TXT": ["because"]}})
    assert (await check(resolver, default="default")).explanation is None
    assert resolver.queries == [("example.org", "TXT")]


async def test_the_explanation_of_an_included_record_is_not_used() -> None:
    zone = {"no.test": {"TXT": ["v=spf1 -all exp=why.test"]}, "why.test": {"TXT": ["because"]}}
    assert (await check_record("v=spf1 include:no.test -all", zone=zone)).explanation is None
