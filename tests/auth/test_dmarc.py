"""DMARC: policy discovery, organizations, alignment and what is left of a policy, RFC 9989."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.dmarc import organizational_domain, verify_dmarc
from forwarder.auth.dmarc.record import MAX_RECORD, parse_record
from forwarder.model import DkimCheck, DmarcCheck, Result, SpfCheck
from tests.fakes import FakeResolver

NO_SPF = SpfCheck(Result.NONE)


def records(**texts: str | list[str]) -> dict[str, dict[str, Any]]:
    """``records(example_org="v=...")``: the policy records of a zone."""
    return {
        f"_dmarc.{name.replace('_', '.')}": {"TXT": [text] if isinstance(text, str) else text}
        for name, text in texts.items()
    }


async def check(
    resolver: FakeResolver,
    author: str = "example.org",
    *,
    dkim: Sequence[str] = (),
    spf: str | None = None,
    psl: bool = False,
) -> DmarcCheck:
    """``dkim`` and ``spf`` are the domains that passed."""
    return await verify_dmarc(
        resolver,
        author_domain=author,
        spf=SpfCheck(Result.PASS, spf) if spf else NO_SPF,
        dkim=[DkimCheck(Result.PASS, domain) for domain in dkim],
        psl=psl,
    )


def asked(resolver: FakeResolver) -> list[str]:
    return [name for name, _ in resolver.queries]


# --- the record -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "v=DMARC1x; p=none", "v=dmarc1; p=none", "v=DMARC1 p=none", "p=none; v=DMARC1", " v=DMARC1; p=none", "v=DMARC2",
     "v", "v=", "DMARC1", "hello", "v=spf1 -all", "v=DMARC1; p=reject; x=" + "y" * MAX_RECORD],
)  # fmt: skip
def test_only_the_version_makes_a_record(text: str) -> None:
    assert parse_record(text.encode()) is None


@pytest.mark.parametrize(
    ("text", "policies"),
    [
        ("v=DMARC1; p=reject", ("reject", "reject", "reject")),
        ("v=DMARC1;p=reject;", ("reject", "reject", "reject")),
        ("V = DMARC1 ; P = Reject ;\tSP=NONE ", ("reject", "none", "none")),
        ("v=DMARC1; p=reject; sp=quarantine; np=none", ("reject", "quarantine", "none")),
        ("v=DMARC1; np=none; sp=quarantine; p=reject", ("reject", "quarantine", "none")),
        ("v=DMARC1; p=reject; np=quarantine", ("reject", "reject", "quarantine")),
        ("v=DMARC1; p=quarantine; bogus; =; ;; x=y; pct=0; ri=z; adkim=q", ("quarantine", "quarantine", "quarantine")),
        ("v=DMARC1; p=none; t=x; t=y; rua=mailto:a@b.test", ("none", "none", "none")),
    ],
)
def test_a_record_says_what_becomes_of_the_domain_its_subdomains_and_what_does_not_exist(
    text: str, policies: tuple[str, str, str]
) -> None:
    record = parse_record(text.encode())
    assert record is not None
    assert record.usable
    assert (record.policy, record.subdomain, record.nonexistent) == policies
    assert (record.strict_dkim, record.strict_spf, record.testing, record.psd) == (False, False, False, "u")


@pytest.mark.parametrize(
    "flaw",
    ["", "p=", "p=bad", "p=none none", "sp=bad; p=reject", "np=x; p=reject", "p=reject; p=reject", "p=reject; P=none"],
)
def test_without_a_valid_policy_only_an_owner_who_wants_reports_has_one(flaw: str) -> None:
    silent = parse_record(f"v=DMARC1; {flaw}".encode())
    reporting = parse_record(f"v=DMARC1; {flaw}; rua=mailto:dmarc@example.org".encode())
    assert silent is not None
    assert reporting is not None
    assert (silent.usable, silent.policy) == (False, "none")
    assert (reporting.usable, reporting.policy, reporting.subdomain, reporting.nonexistent) == (True, *["none"] * 3)


@pytest.mark.parametrize(
    ("rua", "valid"),
    [
        ("mailto:a@b.test", True),
        ("MAILTO:a@b.test!10m", True),
        ("mailto:a@b.test!10q", False),
        ("nothing, mailto:a@b.test", True),
        ("https://report.test/x", True),
        ("mailto:", False),
        ("mailto:a b@c.test", False),
        ("a@b.test", False),
        ("mailto:a@b.test!x", False),
        ("", False),
    ],
)
def test_a_report_address_is_a_uri(rua: str, valid: bool) -> None:
    record = parse_record(f"v=DMARC1; rua={rua}".encode())
    assert record is not None
    assert record.usable is valid


@given(st.binary(max_size=200))
def test_no_octets_make_the_parser_raise(octets: bytes) -> None:
    parse_record(octets)
    record = parse_record(b"v=DMARC1;" + octets)
    assert record is not None


# --- discovery --------------------------------------------------------------------------------------------------------


async def test_the_walk_asks_at_most_eight_names() -> None:
    """The example of RFC 9989 section 4.10."""
    resolver = FakeResolver()
    await check(resolver, "a.b.c.d.e.f.g.h.i.j.mail.example.com")
    assert asked(resolver) == [
        f"_dmarc.{name}"
        for name in (
            "a.b.c.d.e.f.g.h.i.j.mail.example.com",
            "g.h.i.j.mail.example.com",
            "h.i.j.mail.example.com",
            "i.j.mail.example.com",
            "j.mail.example.com",
            "mail.example.com",
            "example.com",
            "com",
        )
    ]


async def test_a_domain_of_eight_labels_loses_one_at_a_time() -> None:
    resolver = FakeResolver()
    await check(resolver, "a.b.c.d.e.f.example.com")
    assert [len(name.split(".")) - 1 for name in asked(resolver)] == [8, 7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("author", "zone", "found", "policy"),
    [
        pytest.param("example.org", records(example_org="v=DMARC1; p=reject; sp=none"), "example.org", "reject", id="own"),
        pytest.param("a.example.org", records(example_org="v=DMARC1; p=reject; sp=none"), "example.org", "none", id="sp"),
        pytest.param("a.example.org", records(a_example_org="v=DMARC1; p=none", example_org="v=DMARC1; p=reject"),
                     "a.example.org", "none", id="own before the organization's"),
        pytest.param("a.b.example.org", records(b_example_org="v=DMARC1; p=none", example_org="v=DMARC1; p=reject"),
                     "example.org", "reject", id="the highest, not the nearest"),
        pytest.param("a.b.example.org", records(b_example_org="v=DMARC1; p=none; psd=n", example_org="v=DMARC1; p=reject"),
                     "b.example.org", "none", id="psd=n ends the walk"),
        pytest.param("a.example.co.test", records(co_test="v=DMARC1; p=reject; psd=y"), "co.test", "reject", id="psd=y"),
        pytest.param("a.example.co.test", records(example_co_test="v=DMARC1; p=none", co_test="v=DMARC1; p=reject; psd=y"),
                     "example.co.test", "none", id="the organization's before the public suffix's"),
        pytest.param("a.example.co.test", records(a_example_co_test="v=DMARC1; p=quarantine", co_test="v=DMARC1; p=none; psd=y"),
                     "a.example.co.test", "quarantine", id="own before the public suffix's"),
        pytest.param("co.test", records(co_test="v=DMARC1; p=reject; sp=none; psd=y"), "co.test", "reject", id="a suffix itself"),
        pytest.param("a.example.org", records(a_example_org="v=DMARC1 p=reject", example_org="v=DMARC1; p=reject"),
                     "example.org", "reject", id="what is no record is none"),
        pytest.param("a.b.example.org", records(b_example_org=["v=DMARC1; p=none"] * 2, example_org="v=DMARC1; p=reject"),
                     "example.org", "reject", id="several on the way are none"),
        pytest.param("example.org", records(example_org=["hello", "v=DMARC1; p=reject"]), "example.org", "reject",
                     id="other texts"),
        pytest.param("B\u00fccher.example", {"_dmarc.xn--bcher-kva.example": {"TXT": ["v=DMARC1; p=reject"]}},
                     "xn--bcher-kva.example", "reject", id="U-labels"),
    ],
)  # fmt: skip
async def test_the_record_that_applies_is(author: str, zone: dict[str, Any], found: str, policy: str) -> None:
    dmarc = await check(FakeResolver(zone | {author: {}}), author)
    assert (dmarc.result, dmarc.policy_domain, dmarc.policy) == (Result.FAIL, found, policy)


@pytest.mark.parametrize(
    ("author", "zone"),
    [
        pytest.param("example.org", {}, id="no record anywhere"),
        pytest.param("example.org", records(example_org=["v=DMARC1; p=reject"] * 2), id="several records"),
        pytest.param("a.example.org", records(a_example_org=["v=DMARC1; p=none"] * 2, example_org="v=DMARC1; p=reject"),
                     id="several of the author domain, whatever the organization says"),
        pytest.param("example.org", records(example_org="v=DMARC1; adkim=s"), id="no policy and no reports"),
        pytest.param("[192.0.2.1]", {}, id="an address literal"),
        pytest.param("a..example.org", {}, id="no name"),
        pytest.param("", {}, id="nothing"),
    ],
)  # fmt: skip
async def test_without_a_policy_there_is_no_dmarc_even_for_what_is_aligned(author: str, zone: dict[str, Any]) -> None:
    dmarc = await check(FakeResolver(zone), author, dkim=[author], spf=author)
    assert (dmarc.result, dmarc.policy, dmarc.applied, dmarc.aligned_by) == (Result.NONE, None, None, None)
    assert dmarc.reason


@pytest.mark.parametrize(
    ("text", "policy", "applied"),
    [
        ("p=reject", "reject", "reject"),
        ("p=reject; t=n", "reject", "reject"),
        ("p=reject; t=y", "reject", "quarantine"),
        ("p=quarantine; t=Y", "quarantine", "none"),
        ("p=none; t=y", "none", "none"),
        ("p=reject; pct=0", "reject", "reject"),
    ],
)
async def test_a_test_lowers_the_policy_by_one(text: str, policy: str, applied: str) -> None:
    dmarc = await check(FakeResolver(records(example_org=f"v=DMARC1; {text}")))
    assert (dmarc.result, dmarc.policy, dmarc.applied) == (Result.FAIL, policy, applied)


@pytest.mark.parametrize(
    ("zone", "policy"),
    [
        pytest.param({}, "quarantine", id="NXDOMAIN"),
        pytest.param({"a.example.org": {}}, "none", id="a name without TXT"),
        pytest.param({"a.example.org": {"TXT": ["hello"]}}, "none", id="a name with TXT"),
        pytest.param({"_dmarc.a.example.org": {}}, "none", id="a name below it"),
    ],
)
async def test_np_is_for_names_that_do_not_exist(zone: dict[str, Any], policy: str) -> None:
    resolver = FakeResolver(records(example_org="v=DMARC1; p=reject; sp=none; np=quarantine") | zone)
    dmarc = await check(resolver, "a.example.org")
    assert (dmarc.result, dmarc.policy) == (Result.FAIL, policy)


async def test_whether_a_name_exists_is_asked_only_where_it_matters() -> None:
    resolver = FakeResolver(records(example_org="v=DMARC1; p=reject; sp=none"))
    await check(resolver, "a.example.org")
    assert "a.example.org" not in asked(resolver)
    resolver = FakeResolver(records(example_org="v=DMARC1; p=reject; np=none"))
    await check(resolver, "example.org")
    assert "example.org" not in asked(resolver)


# --- alignment --------------------------------------------------------------------------------------------------------

ORGANIZATION = records(example_org="v=DMARC1; p=reject")


@pytest.mark.parametrize(
    ("author", "zone", "dkim", "spf", "aligned"),
    [
        pytest.param("example.org", ORGANIZATION, ["example.org"], None, "dkim:example.org", id="identical d="),
        pytest.param("example.org", ORGANIZATION, [], "example.org", "spf:example.org", id="identical MAIL FROM"),
        pytest.param("example.org", ORGANIZATION, ["Example.ORG."], None, "dkim:example.org", id="in any case"),
        pytest.param("example.org", ORGANIZATION, ["a.example.org"], None, "dkim:a.example.org", id="a subdomain signs"),
        pytest.param("a.example.org", ORGANIZATION, ["example.org"], None, "dkim:example.org", id="the organization signs"),
        pytest.param("a.example.org", ORGANIZATION, ["b.example.org"], None, "dkim:b.example.org", id="a sister signs"),
        pytest.param("a.example.org", ORGANIZATION, [], "b.c.example.org", "spf:b.c.example.org", id="a cousin sends"),
        pytest.param("example.org", ORGANIZATION, ["x.test", "a.example.org", "example.org"], "example.org", "dkim:example.org",
                     id="identical before related"),
        pytest.param("example.org", ORGANIZATION, [], None, None, id="nothing passed"),
        pytest.param("example.org", ORGANIZATION, ["example.com"], "example.net", None, id="strangers"),
        pytest.param("example.org", ORGANIZATION, ["org"], None, None, id="the top-level domain"),
        pytest.param("example.org", ORGANIZATION, ["notexample.org"], None, None, id="the same letters at the end"),
        pytest.param("notexample.org", records(notexample_org="v=DMARC1; p=reject"), ["example.org"], None, None,
                     id="the same letters at the end of the author domain"),
        pytest.param("example.org", ORGANIZATION, ["", "a..b", "[192.0.2.1]"], None, None, id="no names"),
        pytest.param("example.org", records(example_org="v=DMARC1; p=reject; adkim=s"), ["a.example.org"], "a.example.org",
                     "spf:a.example.org", id="strict for DKIM alone"),
        pytest.param("example.org", records(example_org="v=DMARC1; p=reject; aspf=s"), ["a.example.org"], "b.example.org",
                     "dkim:a.example.org", id="strict for SPF alone"),
        pytest.param("example.org", records(example_org="v=DMARC1; p=reject; aspf=S; adkim=s"), ["a.example.org"],
                     "b.example.org", None, id="strict for both"),
        pytest.param("a.example.org", records(example_org="v=DMARC1; p=reject; adkim=s"), ["a.example.org"], None,
                     "dkim:a.example.org", id="strict and identical"),
        pytest.param("a.example.org", records(example_org="v=DMARC1; p=reject; adkim=s"), ["example.org"], None, None,
                     id="strict and the organization"),
        pytest.param("example.co.test", records(co_test="v=DMARC1; p=reject; psd=y"), ["other.co.test"], "co.test", None,
                     id="neighbours below psd=y"),
        pytest.param("a.example.co.test", records(co_test="v=DMARC1; p=reject; psd=y"), ["b.example.co.test"], None,
                     "dkim:b.example.co.test", id="an organization below psd=y that publishes nothing"),
        pytest.param("a.dept.example.org", records(dept_example_org="v=DMARC1; p=reject; psd=n", example_org="v=DMARC1; p=none"),
                     ["b.dept.example.org"], None, "dkim:b.dept.example.org", id="within psd=n"),
        pytest.param("a.dept.example.org", records(dept_example_org="v=DMARC1; p=reject; psd=n", example_org="v=DMARC1; p=none"),
                     ["example.org"], "b.example.org", None, id="psd=n parts with its parent"),
        pytest.param("a.example.org", records(dept_example_org="v=DMARC1; p=reject; psd=n", example_org="v=DMARC1; p=none"),
                     ["b.dept.example.org"], None, None, id="and its parent with it"),
    ],
)  # fmt: skip
async def test_what_aligns_is(
    author: str, zone: dict[str, Any], dkim: list[str], spf: str | None, aligned: str | None
) -> None:
    dmarc = await check(FakeResolver(zone), author, dkim=dkim, spf=spf)
    assert (dmarc.result, dmarc.aligned_by) == (Result.PASS if aligned else Result.FAIL, aligned)
    assert dmarc.domain == author


@pytest.mark.parametrize("result", [one for one in Result if one is not Result.PASS])
async def test_only_a_pass_counts(result: Result) -> None:
    dmarc = await verify_dmarc(
        FakeResolver(ORGANIZATION),
        author_domain="example.org",
        spf=SpfCheck(result, "example.org"),
        dkim=[DkimCheck(result, "example.org")],
    )
    assert dmarc.result is (Result.TEMPERROR if result is Result.TEMPERROR else Result.FAIL)
    assert (dmarc.policy, dmarc.applied, dmarc.aligned_by) == ("reject", "reject", None)


@pytest.mark.parametrize(
    ("dkim", "spf", "aligned_by", "signed_by"),
    [
        pytest.param(["example.org"], None, "dkim:example.org", "example.org", id="the signature"),
        pytest.param(["a.example.org"], "example.org", "spf:example.org", "a.example.org", id="beside SPF"),
        pytest.param(["stranger.org"], "example.org", "spf:example.org", None, id="SPF alone"),
        pytest.param([], "example.org", "spf:example.org", None, id="no signature"),
        pytest.param(["stranger.org"], "stranger.org", None, None, id="nothing"),
    ],
)
async def test_it_is_told_which_signature_outlives_forwarding(
    dkim: list[str], spf: str | None, aligned_by: str | None, signed_by: str | None
) -> None:
    found = await check(FakeResolver(ORGANIZATION), dkim=dkim, spf=spf)
    assert (found.aligned_by, found.signed_by) == (aligned_by, signed_by)


async def test_which_signature_outlives_forwarding_is_looked_for_only_where_the_policy_makes_it_matter() -> None:
    resolver = FakeResolver(records(example_org="v=DMARC1; p=none"))
    found = await check(resolver, dkim=["a.example.org"], spf="example.org")
    assert (found.aligned_by, found.signed_by) == ("spf:example.org", None)
    assert asked(resolver) == ["_dmarc.example.org"]


async def test_a_signature_that_may_be_aligned_is_not_counted_on() -> None:
    zone = ORGANIZATION | {"_dmarc.a.example.org": {"*": "TIMEOUT"}}
    found = await check(FakeResolver(zone), dkim=["a.example.org"], spf="example.org")
    assert (found.result, found.signed_by) == (Result.PASS, None)


async def test_identical_domains_cost_one_query() -> None:
    resolver = FakeResolver(ORGANIZATION)
    assert (await check(resolver, dkim=["example.org"], spf="bounces.example.org")).result is Result.PASS
    assert asked(resolver) == ["_dmarc.example.org"]


async def test_strict_alignment_costs_one_query() -> None:
    resolver = FakeResolver(records(example_org="v=DMARC1; p=reject; adkim=s; aspf=s"))
    assert (await check(resolver, dkim=["a.example.org"], spf="b.example.org")).result is Result.FAIL
    assert asked(resolver) == ["_dmarc.example.org"]


async def test_strangers_signatures_cost_no_walks() -> None:
    resolver = FakeResolver(ORGANIZATION)
    await check(resolver, dkim=[f"a.b.c.d.e.stranger{n}.org" for n in range(50)], spf="stranger.org")
    assert asked(resolver) == ["_dmarc.example.org", "_dmarc.org"]


async def test_a_hundred_related_signatures_cost_a_bounded_number_of_walks() -> None:
    zone = records(example_org="v=DMARC1; p=reject")
    zone |= {f"_dmarc.{n}.example.org": {"TXT": ["v=DMARC1; p=none; psd=n"]} for n in range(100)}
    resolver = FakeResolver(zone)
    assert (await check(resolver, dkim=[f"x.{n}.example.org" for n in range(100)])).result is Result.FAIL
    assert len(resolver.queries) <= 2 + 10 * 8


async def test_no_name_is_asked_twice() -> None:
    resolver = FakeResolver(ORGANIZATION)
    await check(resolver, "a.example.org", dkim=["b.example.com", "c.a.example.org"], spf="d.a.example.org")
    assert len(asked(resolver)) == len(set(asked(resolver)))


# --- when the DNS fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("author", ["example.org", "a.example.org"])
async def test_a_policy_that_cannot_be_had_is_a_temperror(author: str) -> None:
    dmarc = await check(FakeResolver({"_dmarc.example.org": {"*": "SERVFAIL"}}), author, dkim=["x.test"])
    assert (dmarc.result, dmarc.policy) == (Result.TEMPERROR, None)


async def test_a_fault_above_the_record_matters_only_to_what_needs_the_walk() -> None:
    zone = ORGANIZATION | {"_dmarc.org": {"*": "TIMEOUT"}}
    assert (await check(FakeResolver(zone), dkim=["example.org"])).result is Result.PASS
    assert (await check(FakeResolver(zone), dkim=["example.com"])).result is Result.FAIL
    related = await check(FakeResolver(zone), dkim=["a.example.org"])
    assert (related.result, related.policy, related.applied) == (Result.TEMPERROR, "reject", "reject")


async def test_a_fault_of_one_identifiers_walk_does_not_hide_another_that_aligns() -> None:
    zone = ORGANIZATION | {"_dmarc.a.example.org": {"*": "TIMEOUT"}}
    both = await check(FakeResolver(zone), dkim=["a.example.org", "b.example.org"])
    assert both.aligned_by == "dkim:b.example.org"
    assert (await check(FakeResolver(zone), dkim=["a.example.org"])).result is Result.TEMPERROR


@pytest.mark.parametrize(
    ("domain", "result"),
    [("example.org", Result.TEMPERROR), ("a.example.org", Result.TEMPERROR), ("stranger.test", Result.FAIL)],
)
async def test_a_check_without_an_answer_matters_if_it_would_have_aligned(domain: str, result: Result) -> None:
    by_spf = await verify_dmarc(
        FakeResolver(ORGANIZATION), author_domain="example.org", spf=SpfCheck(Result.TEMPERROR, domain), dkim=[]
    )
    by_dkim = await verify_dmarc(
        FakeResolver(ORGANIZATION), author_domain="example.org", spf=NO_SPF, dkim=[DkimCheck(Result.TEMPERROR, domain)]
    )
    assert (by_spf.result, by_dkim.result) == (result, result)


async def test_whether_the_name_exists_is_no_matter_to_a_pass() -> None:
    zone = records(example_org="v=DMARC1; p=reject; sp=quarantine; np=none") | {"a.example.org": {"*": "SERVFAIL"}}
    passed = await check(FakeResolver(zone), "a.example.org", dkim=["example.org"])
    assert (passed.result, passed.policy) == (Result.PASS, "quarantine")
    zone = records(example_org="v=DMARC1; p=reject; sp=none; np=quarantine") | {"a.example.org": {"*": "SERVFAIL"}}
    failed = await check(FakeResolver(zone), "a.example.org")
    assert (failed.result, failed.policy) == (Result.TEMPERROR, "quarantine")


# --- organizations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "zone", "organization"),
    [
        (
            "a.mail.example.com",
            records(mail_example_com="v=DMARC1; p=none", example_com="v=DMARC1; p=none"),
            "example.com",
        ),
        ("a.mail.example.com", records(mail_example_com="v=DMARC1; p=none; psd=n"), "mail.example.com"),
        ("a.mail.example.com", records(com="v=DMARC1; p=none; psd=y"), "example.com"),
        ("a.mail.example.com", records(example_com="v=DMARC1; p=none; psd=y"), "mail.example.com"),
        ("a.mail.example.com", {}, "a.mail.example.com"),
        ("com", records(com="v=DMARC1; p=none; psd=y"), "com"),
        ("A.Example.com.", records(example_com="v=DMARC1; psd=u"), "example.com"),
        ("a.example.com", {"_dmarc.example.com": {"*": "SERVFAIL"}}, None),
        ("no..name", {}, None),
    ],
)
async def test_the_organizational_domain_is(domain: str, zone: dict[str, Any], organization: str | None) -> None:
    assert await organizational_domain(FakeResolver(zone), domain) == organization


async def test_the_public_suffix_list_parts_and_joins_only_where_it_is_asked_to() -> None:
    # A suffix that publishes a record without psd=y makes one organization of all its customers.
    suffix = records(co_uk="v=DMARC1; p=reject")
    assert (await check(FakeResolver(suffix), "a.co.uk", dkim=["b.co.uk"])).result is Result.PASS
    assert (await check(FakeResolver(suffix), "a.co.uk", dkim=["b.co.uk"], psl=True)).result is Result.FAIL
    # A record on a subdomain alone: RFC 7489 looked for the organization in the list.
    sub = records(mail_example_com="v=DMARC1; p=reject")
    assert (await check(FakeResolver(sub), "mail.example.com", spf="bounce.example.com")).result is Result.FAIL
    assert (
        await check(FakeResolver(sub), "mail.example.com", spf="bounce.example.com", psl=True)
    ).result is Result.PASS
    # A psd tag is the owner's word and stands.
    psd = records(dept_example_com="v=DMARC1; p=reject; psd=n")
    assert (
        await check(FakeResolver(psd), "a.dept.example.com", dkim=["b.example.com"], psl=True)
    ).result is Result.FAIL
