"""Does our DMARC agree with the vectors of mailauth, mox, mail-auth and OpenDMARC where RFC 9989 decides?

The vectors ask for what each library returns. ``READINGS`` says what of our ``DmarcCheck`` answers a question of mailauth's;
``NOT_ASKED`` and ``DECIDED_OTHERWISE`` name, with the reason, what is not asked of us and where RFC 9989 says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from forwarder.auth.dmarc import organizational_domain, verify_dmarc
from forwarder.auth.dmarc.record import parse_record
from forwarder.auth.suffix import registrable_domain
from forwarder.mail.address import parse_from
from forwarder.model import DkimCheck, DmarcCheck, Result, SpfCheck
from forwarder.resolver import ZoneResolver
from tests.fakes import message
from tests.suites import SUITES, suite

SUITE = "dmarc-vectors"
NO_SPF = SpfCheck(Result.NONE)

#: By path of mailauth's result: the texts and figures of that library, which RFC 9989 does not know.
NOT_ASKED = {
    "result.error": "mailauth's own wording",
    "result.info": "mailauth's own rendering",
    "result.rr": "the raw record is not part of a verdict",
    "record.rr": "the raw record is not part of a verdict",
    "result.pct": "pct is gone (RFC 9989 appendix C)",
    "record.pct": "pct is gone (RFC 9989 appendix C)",
    "result.alignment.dkim.underSized": "a signature with l= is no pass here and never reaches DMARC",
}

SYNTAX = "RFC 9989 section 4.7: syntax errors behind v= are ignored"
GONE = "RFC 9989 appendix C: the tag or the order is gone, so that nothing is wrong with it"
DECIDED_OTHERWISE = {
    "mox-lookup-malformed.example": SYNTAX,
    "opendmarc-parse-5": "RFC 9989 section 4.8: a policy word is written out",
    "mox-parse-bad-08": GONE,
    "mox-parse-bad-33": "the size of a report address is ignored, however large (RFC 9990)",
}


def load_cases() -> Iterator[Any]:
    path = SUITES / "developers" / SUITE / "cases.json"
    if not path.is_file():
        yield pytest.param({}, id="absent")  # so that its absence is a skipped test, and seen
        return
    for case in json.loads(path.read_bytes()):
        yield pytest.param(case, id=case["id"])


CASES = list(load_cases())


def cases_of(*functions: str | None) -> list[Any]:
    return [one for one in CASES if not one.values[0] or one.values[0].get("fn") in functions]


def zone_of(case: Mapping[str, Any]) -> ZoneResolver:
    """mox and mail-auth: name -> texts, names that fail, names that merely exist."""
    zone: dict[str, dict[str, list[str] | str]] = {name: {"TXT": texts} for name, texts in case.get("zone", {}).items()}
    zone |= {name: {"*": "SERVFAIL"} for name in case.get("fail", ())}
    zone |= {name: {"A": ["192.0.2.1"]} for name in case.get("existing_names", ())}
    return ZoneResolver(zone)


async def check_of(case: Mapping[str, Any], *, with_dkim: bool = True, with_spf: bool = True) -> DmarcCheck:
    return await verify_dmarc(
        zone_of(case),
        author_domain=case["header_from_domain"],
        spf=SpfCheck(Result(case["spf"]["result"]), case["spf"]["domain"]) if with_spf else NO_SPF,
        dkim=[DkimCheck(Result(one["result"]), one["domain"]) for one in case["dkim"]] if with_dkim else [],
    )


def decided_otherwise(case: Mapping[str, Any]) -> bool:
    suite(SUITE)
    return case["id"] in DECIDED_OTHERWISE


# --- mailauth ---------------------------------------------------------------------------------------------------------


def mailauth_zone(call: Mapping[str, Any]) -> ZoneResolver:
    zone: dict[str, dict[str, list[str] | str]] = {}
    for name, types in call["zone"].items():
        zone[name] = {}
        for rdtype, data in types.items():
            if isinstance(data, dict):
                zone[name][rdtype] = "TIMEOUT" if data["error"] == "ETIMEOUT" else "SERVFAIL"
            elif rdtype == "TXT":
                zone[name][rdtype] = ["".join(strings) for strings in data]
    return ZoneResolver(zone)


async def mailauth_facts(call: Mapping[str, Any]) -> dict[str, Any]:
    """What mailauth would call these things, from our check; an absent key is its ``undefined``."""
    resolver = mailauth_zone(call)
    author = call["headerFrom"] if "headerFrom" in call else f"x@{call['domain']}"
    domain = (author[0] if isinstance(author, list) else author).rpartition("@")[2]
    spf = [SpfCheck(Result.PASS, one["domain"]) for one in call.get("spfDomains", ())]
    check = await verify_dmarc(
        resolver,
        author_domain=domain,
        spf=spf[0] if spf else NO_SPF,
        dkim=[DkimCheck(Result.PASS, one["domain"]) for one in call.get("dkimDomains", ())],
    )
    facts: dict[str, Any] = {
        "result": True,
        "record": check.policy_domain is not None,
        "result.status.result": check.result,
        "result.status.header.from": check.domain,
        "result.domain": await organizational_domain(resolver, domain),
        "throws": "ETIMEOUT" if check.result is Result.TEMPERROR else None,
    }
    if check.policy_domain is not None:
        (text,) = (await resolver.txt(f"_dmarc.{check.policy_domain}")).records
        record = parse_record(text)
        assert record is not None
        facts |= {
            "result.policy": check.applied,
            "result.p": record.policy,
            "record.p": record.policy,
            "record.v": "DMARC1",
            "record.isOrgRecord": check.policy_domain != domain,
            "result.status.header.d": check.policy_domain,
            "result.alignment.spf.strict": record.strict_spf,
            "result.alignment.dkim.strict": record.strict_dkim,
        }
    return facts


@pytest.mark.parametrize("case", cases_of(None))
async def test_every_assertion_of_mailauth_that_the_rfc_decides_holds(case: dict[str, Any]) -> None:
    suite(SUITE)
    if any(isinstance(call.get("headerFrom"), list) and len(call["headerFrom"]) > 1 for call in case["calls"]):
        pytest.skip("several authors are for whoever reads From: verify_dmarc gets the one author domain")
    results = [await mailauth_facts(call) for call in case["calls"]]
    asked = 0
    for number, claim in enumerate(case["asserts"]):
        path = claim.get("path", "throws")
        if path in NOT_ASKED or claim.get("value") == "function":
            continue
        facts = results[number] if len(results) == len(case["asserts"]) else results[-1]
        asked += 1
        match claim["op"]:
            case "to.equal":
                assert facts.get(path) == claim["arg"], path
            case "to.be.true":
                assert facts.get(path) is True, path
            case "to.be.false":
                assert facts.get(path) is False, path
            case "to.not.have.property":
                assert f"{path}.{claim['arg']}" not in facts, path
            case other:
                pytest.fail(f"an assertion that this test does not know: {other}")
    if not asked:
        pytest.skip("asks only for what is mailauth's own")


# --- mox, mail-auth, OpenDMARC ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases_of("lookup"))
async def test_the_policy_is_found_where_mox_finds_it(case: dict[str, Any]) -> None:
    otherwise = decided_otherwise(case)

    check = await verify_dmarc(zone_of(case), author_domain=case["domain"], spf=NO_SPF, dkim=[])

    expect = case["expect"]
    found = check.policy_domain == expect["record_domain"]
    temperror = check.result is Result.TEMPERROR
    assert ((found, temperror) == (expect["record_found"], expect["status"] == "temperror")) is not otherwise


@pytest.mark.parametrize("case", cases_of("verify"))
async def test_result_and_alignment_are_those_of_the_vector(case: dict[str, Any]) -> None:
    otherwise = decided_otherwise(case)
    check = await check_of(case)
    by_dkim = await check_of(case, with_spf=False)
    by_spf = await check_of(case, with_dkim=False)
    facts = {
        "status": check.result,
        "reject": check.result is Result.FAIL and check.applied != "none",
        "aligned_dkim_pass": by_dkim.result is Result.PASS,
        "aligned_spf_pass": by_spf.result is Result.PASS,
        "dkim_aligned": "pass" if by_dkim.result is Result.PASS else "fail",
        "spf_aligned": "pass" if by_spf.result is Result.PASS else "fail",
        "record_domain": check.policy_domain or check.domain,
        "policy": check.policy,
    }
    assert ({key: facts[key] for key in case["expect"]} == case["expect"]) is not otherwise, facts


@pytest.mark.parametrize("case", cases_of("policy"))
async def test_the_policy_is_that_of_the_vector(case: dict[str, Any]) -> None:
    otherwise = decided_otherwise(case)
    check = await verify_dmarc(zone_of(case), author_domain=case["header_from_domain"], spf=NO_SPF, dkim=[])
    assert (check.policy == case["expect"]["policy"]) is not otherwise, check


@pytest.mark.parametrize("case", cases_of("parse"))
def test_a_record_gives_a_policy_where_the_rfc_says_so(case: dict[str, Any]) -> None:
    otherwise = decided_otherwise(case)
    record = parse_record(case["record"].encode())
    assert ((record is not None and record.usable) == case["expect"]["ok"]) is not otherwise, record


@pytest.mark.parametrize("case", cases_of("align"))
async def test_two_domains_align_in_this_mode(case: dict[str, Any]) -> None:
    otherwise = decided_otherwise(case)
    # The vector has no zone: each organization of the public suffix list publishes a record in that mode.
    owners = {registrable_domain(case["a"]), registrable_domain(case["b"])} - {None}
    zone = {f"_dmarc.{owner}": {"TXT": [f"v=DMARC1; p=reject; aspf={case['mode'][0]}"]} for owner in owners}

    check = await verify_dmarc(
        ZoneResolver(zone), author_domain=case["a"], spf=SpfCheck(Result.PASS, case["b"]), dkim=[]
    )

    assert ((check.result is Result.PASS) == case["expect"]["aligned"]) is not otherwise, check


@pytest.mark.parametrize("case", cases_of("from_domain"))
def test_the_author_domain_is_the_vectors_or_none_where_readers_differ(case: dict[str, Any]) -> None:
    """OpenDMARC takes the first domain out of anything; RFC 9989 section 5.3.1 wants exactly one, of a valid field."""
    suite(SUITE)
    header = parse_from(message(f"From: {case['raw']}\n\n"))
    domains = {address.domain for address in header.addresses}
    assert domains == {case["expect"]["domain"]} or header.author is None
