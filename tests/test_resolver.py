"""The resolver against a real name server on loopback: what it asks, keeps, gives out again, and does not believe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.ports import Answer, DnsStatus, Tlsa
from forwarder.resolver import DnsResolver, system_nameservers
from forwarder.resolver.caching import FAILURE_TTL, MAX_NEGATIVE_TTL, MAX_STALE, MAX_TTL, MIN_TTL
from forwarder.resolver.servers import Server, parse_server
from forwarder.resolver.wire import Fault, Query, parse_response, read_response
from tests.peers.dns_server import DnsServer, run_dns_server
from tests.suites import badinputs

DIGEST = "ab" * 32
ZONE = rf"""
$ORIGIN test.
$TTL 300
txt       IN TXT  "v=spf1 " "-all"
many      IN TXT  "one"
many      IN TXT  "two"
host      IN A    192.0.2.1
host      IN A    192.0.2.2
host      IN AAAA 2001:db8::1
mx        IN MX   20 b.test.
mx        IN MX   10 A.test.
null      IN MX   0 .
alias     IN CNAME txt
alias2    IN CNAME alias
lost      IN CNAME nowhere.test.
bare      IN CNAME host
loop1     IN CNAME loop2
loop2     IN CNAME loop1
short     60 IN TXT "short"
zero      0 IN TXT "zero"
week      604800 IN TXT "week"
zeroa     0 IN A 192.0.2.9
a.b       IN TXT "below"
_25._tcp.host IN TLSA 3 1 1 {DIGEST}
_25._tcp.odd  IN TLSA 3 1 1 {DIGEST}
_25._tcp.odd  IN TLSA 3 1 1 ab01
_25._tcp.bad  IN TLSA 3 1 1 ab01
_25._tcp.bad  IN TLSA 3 1 2 ab01
_25._tcp.bare IN CNAME _25._tcp.host
_dmarc.xn--bcher-kva IN TXT "v=DMARC1; p=none"
1.2.0.192.in-addr.arpa. IN PTR Host.Test.
"""
#: Seconds that a test waits for a server that does not answer, and for one that does: a busy machine may stand still for a while.
HASTY, PATIENT = 0.05, 20.0


class Time:
    """A monotonic clock that moves when the test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def pass_(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with run_dns_server(ZONE) as running:
        yield running


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
async def resolver(server: DnsServer, clock: Time) -> AsyncIterator[DnsResolver]:
    made = make(server.address, clock)
    yield made
    await made.aclose()


@pytest.fixture
async def hasty(server: DnsServer, clock: Time) -> AsyncIterator[DnsResolver]:
    """For what is about a server that does not answer."""
    made = make(server.address, clock, timeout=HASTY)
    yield made
    await made.aclose()


def make(
    servers: str | list[str], clock: Time, *, timeout: float = PATIENT, deadline: float = PATIENT, **more: Any
) -> DnsResolver:
    listed = [servers] if isinstance(servers, str) else servers
    return DnsResolver(listed, monotonic=clock, timeout=timeout, deadline=deadline, **more)


def asked(server: DnsServer) -> list[tuple[str, str]]:
    return [(name, rdtype) for name, rdtype, _ in server.queries]


# --- what is asked and answered ---------------------------------------------------------------------------------------


async def test_each_type_is_read_into_its_values(resolver: DnsResolver) -> None:
    assert (await resolver.txt("txt.test")).records == (b"v=spf1 -all",)
    assert sorted((await resolver.txt("many.test")).records) == [b"one", b"two"]
    assert set((await resolver.a("host.test")).records) == {IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")}
    assert (await resolver.aaaa("host.test")).records == (IPv6Address("2001:db8::1"),)
    assert sorted((await resolver.mx("mx.test")).records) == [(10, "A.test"), (20, "b.test")]
    assert (await resolver.mx("null.test")).records == ((0, ""),)
    assert (await resolver.ptr(IPv4Address("192.0.2.1"))).records == ("Host.Test",)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("txt.test", DnsStatus.OK),
        ("TXT.Test.", DnsStatus.OK),
        ("_dmarc.b\u00fccher.test", DnsStatus.OK),
        ("host.test", DnsStatus.NODATA),
        ("b.test", DnsStatus.NODATA),
        ("nothing.test", DnsStatus.NXDOMAIN),
        ("alias.test", DnsStatus.OK),
        ("alias2.test", DnsStatus.OK),
        ("bare.test", DnsStatus.NODATA),
        ("lost.test", DnsStatus.NXDOMAIN),
    ],
)
@pytest.mark.parametrize("follows", [True, False])
async def test_a_name_is_there_or_without_data_or_not_there(
    server: DnsServer, resolver: DnsResolver, name: str, status: DnsStatus, follows: bool
) -> None:
    server.follows_cnames = follows
    assert (await resolver.txt(name)).status is status


@pytest.mark.parametrize(
    "name", ["", ".", "a..test", "a\0.test", f"{'x' * 64}.test", f"{'x.' * 130}test", "\u2603.test"]
)
async def test_what_is_no_name_is_not_asked_for(server: DnsServer, resolver: DnsResolver, name: str) -> None:
    answers = [await ask(name) for ask in (resolver.txt, resolver.a, resolver.aaaa, resolver.mx)]
    answers.append(await resolver.txt(name, fresh=True))
    resolver.prefetch_txt([name])
    assert {answer.status for answer in answers} == {DnsStatus.NXDOMAIN}
    assert server.queries == []


async def test_names_with_odd_octets_arrive_as_they_are(server: DnsServer, resolver: DnsResolver) -> None:
    assert (await resolver.a("foo:bar/b%20az.test")).status is DnsStatus.NXDOMAIN
    assert (await resolver.a("a b\\.test")).status is DnsStatus.NXDOMAIN
    assert [name for name, _ in asked(server)] == ["foo:bar/b%20az.test", "a\\032b\\.test"]


@pytest.mark.parametrize("to_header", [True, False])
async def test_an_answer_too_large_for_a_datagram_comes_over_tcp(
    server: DnsServer, clock: Time, to_header: bool
) -> None:
    # No time-out is under test here, and a busy machine must not make one: a second try would be one query more.
    resolver = DnsResolver([server.address], monotonic=clock, timeout=60, deadline=60)
    server.truncates_to_header = to_header
    server.add("big.test. 300 IN TXT " + " ".join(f'"{"x" * 250}"' for _ in range(16)))
    assert (await resolver.txt("big.test")).records == (b"x" * 4000,)
    assert [transport for _, _, transport in server.queries] == ["udp", "tcp"]
    assert resolver.stats.queries == 2


async def test_tlsa_records_are_read_and_aliases_of_them_followed(resolver: DnsResolver) -> None:
    assert (await resolver.tlsa("_25._tcp.Host.test")).records == (Tlsa(3, 1, 1, b"\xab" * 32),)
    assert (await resolver.tlsa("_25._tcp.bare.test")).records == (Tlsa(3, 1, 1, b"\xab" * 32),)
    assert (await resolver.tlsa("_26._tcp.host.test")).status is DnsStatus.NXDOMAIN


async def test_a_malformed_tlsa_record_is_there_and_of_no_use(resolver: DnsResolver) -> None:
    odd, bad = [(await resolver.tlsa(f"_25._tcp.{name}.test")).records for name in ("odd", "bad")]
    assert [one.usage for one in odd] == [3, 255]
    assert [one.usage for one in bad] == [255, 255]


async def test_an_alias_can_be_asked_for_by_itself(resolver: DnsResolver) -> None:
    assert (await resolver.cname("alias2.test")).records == ("alias.test",)
    assert (await resolver.cname("txt.test")).status is DnsStatus.NODATA


@pytest.mark.parametrize("follows", [True, False], ids=["by the server", "by us"])
async def test_the_name_at_the_end_of_aliases_is_told(
    server: DnsServer, resolver: DnsResolver, *, follows: bool
) -> None:
    server.follows_cnames = follows
    assert (await resolver.txt("alias2.test")).canonical == "txt.test"
    assert (await resolver.a("bare.test")).canonical == "host.test"
    assert (await resolver.a("Host.test")).canonical == ""
    assert (await resolver.a("nothing.test")).canonical == ""


@pytest.mark.parametrize("name", ["txt.test", "host.test", "nothing.test", "alias.test"])
@pytest.mark.parametrize(("trusted", "authentic"), [(True, True), (True, False), (False, True)])
async def test_the_ad_bit_counts_where_it_is_trusted(
    server: DnsServer, clock: Time, name: str, trusted: bool, authentic: bool
) -> None:
    server.authentic = authentic
    answer = await make(server.address, clock, trust_ad=trusted).txt(name)
    assert answer.authentic is (trusted and authentic)


async def test_a_server_without_edns_is_asked_again_without(server: DnsServer, resolver: DnsResolver) -> None:
    server.knows_edns = False
    assert (await resolver.txt("txt.test")).status is DnsStatus.OK


# --- what is not believed ---------------------------------------------------------------------------------------------

FAULTS = {
    "NXDOMAIN": DnsStatus.NXDOMAIN,
    "SERVFAIL": DnsStatus.TEMPERROR,
    "REFUSED": DnsStatus.TEMPERROR,
    "NOTIMP": DnsStatus.TEMPERROR,
    "TIMEOUT": DnsStatus.TEMPERROR,
    "CNAMELOOP": DnsStatus.TEMPERROR,
    "TRUNCATED-NOTCP": DnsStatus.TEMPERROR,
    "WRONG-QNAME": DnsStatus.TEMPERROR,
    "WRONG-ID": DnsStatus.TEMPERROR,
    "GARBAGE": DnsStatus.TEMPERROR,
    "REFERRAL": DnsStatus.TEMPERROR,
    "ANSWER-FOR-NXDOMAIN": DnsStatus.TEMPERROR,
    "LIES-FIRST": DnsStatus.OK,
}
#: After these nothing comes that could be an answer.
SILENT = {"TIMEOUT", "WRONG-QNAME", "WRONG-ID", "GARBAGE"}


@pytest.mark.parametrize(("fault", "status"), FAULTS.items())
async def test_only_what_the_server_said_is_taken_for_said(
    server: DnsServer, resolver: DnsResolver, hasty: DnsResolver, fault: str, status: DnsStatus
) -> None:
    server.faults["txt.test"] = fault
    answer = await (hasty if fault in SILENT else resolver).txt("txt.test")
    assert answer.status is status
    assert answer.records == ((b"v=spf1 -all",) if status is DnsStatus.OK else ())
    assert (answer.detail != "") is (status is DnsStatus.TEMPERROR)


async def test_the_faults_of_the_hostile_zone_are_temperrors(
    server: DnsServer, resolver: DnsResolver, hasty: DnsResolver
) -> None:
    rows = [line.split("\t") for line in (badinputs() / "auth" / "zone.tsv").read_text().splitlines()]
    faults = {name: fault for name, rdtype, _, fault in (row for row in rows if len(row) == 4) if rdtype == "FAULT"}
    assert faults
    server.faults |= faults
    server.add("".join(f'{name}. 300 IN TXT "v=DKIM1; p=forged"\n' for name in faults))
    answers = await asyncio.gather(
        *((hasty if fault in SILENT else resolver).txt(name) for name, fault in faults.items())
    )
    assert {fault: answer.status for fault, answer in zip(faults.values(), answers, strict=True)} == {
        fault: FAULTS[fault] for fault in faults.values()
    }


@pytest.mark.parametrize("name", ["loop1.test", "loop2.test"])
async def test_a_loop_over_several_answers_is_a_temperror(server: DnsServer, resolver: DnsResolver, name: str) -> None:
    server.follows_cnames = False
    answer = await resolver.txt(name)
    assert (answer.status, answer.detail) == (DnsStatus.TEMPERROR, "CNAME loop")
    assert len(server.queries) == 2


async def test_a_long_chain_of_answers_ends(server: DnsServer, resolver: DnsResolver) -> None:
    server.follows_cnames = False
    server.add("".join(f"c{n}.test. 300 IN CNAME c{n + 1}.test.\n" for n in range(50)))
    assert (await resolver.txt("c0.test")).status is DnsStatus.TEMPERROR
    assert len(server.queries) <= 10


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8), st.integers(0, 60))
def test_no_octets_of_a_response_make_it_raise(changes: list[tuple[int, int]], cut: int) -> None:
    query = Query.make(dns.name.from_text("alias.test"), "TXT", edns=True, ad=False)
    response = dns.message.make_response(dns.message.from_wire(query.wire))
    text = (
        'alias.test. 300 IN CNAME txt.test.\ntxt.test. 300 IN TXT "a" "b"\ntxt.test. 300 IN MX 10 mx.test.\n'
        "txt.test. 300 IN A 192.0.2.1"
    )
    for line in text.splitlines():
        name, rest = line.split(" ", 1)
        ttl, _, rdtype, data = rest.split(" ", 3)
        response.answer.append(dns.rrset.from_text(name, int(ttl), "IN", rdtype, data))
    octets = bytearray(response.to_wire())
    for at, value in changes:
        if 2 <= at < len(octets):
            octets[at] = value
    parsed = parse_response(query, bytes(octets[: len(octets) - cut]))
    if parsed is not None:
        with suppress(Fault):
            read_response(parsed, "TXT")


# --- what goes out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rdtype", ["TXT", "A", "AAAA", "MX", "PTR", "CNAME", "TLSA"])
@pytest.mark.parametrize("edns", [True, False])
@pytest.mark.parametrize("ad", [True, False])
@pytest.mark.parametrize("name", ["txt.test.", f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}.", "MiXed.test.", "."])
def test_a_query_is_written_as_dnspython_writes_it(rdtype: str, edns: bool, ad: bool, name: str) -> None:
    query = Query.make(dns.name.from_text(name), rdtype, edns=edns, ad=ad)
    flags = dns.flags.RD | (dns.flags.AD if ad else 0)
    theirs = dns.message.make_query(name, rdtype, flags=flags, id=query.id, use_edns=0 if edns else False, payload=1232)
    assert query.wire == theirs.to_wire()


RESPONSES = {
    "the answer": lambda it: None,
    "other case": lambda it: setattr(it, "question", [dns.rrset.RRset(dns.name.from_text("TXT.test"), 1, 16)]),
    "another id": lambda it: setattr(it, "id", it.id ^ 1),
    "a query": lambda it: setattr(it, "flags", it.flags & ~dns.flags.QR),
    "another operation": lambda it: it.set_opcode(dns.opcode.STATUS),
    "another name": lambda it: setattr(it, "question", [dns.rrset.RRset(dns.name.from_text("x.test"), 1, 16)]),
    "another type": lambda it: setattr(it, "question", [dns.rrset.RRset(dns.name.from_text("txt.test"), 1, 1)]),
    "another class": lambda it: setattr(it, "question", [dns.rrset.RRset(dns.name.from_text("txt.test"), 3, 16)]),
    "two questions": lambda it: it.question.append(dns.rrset.RRset(dns.name.from_text("x.test"), 1, 16)),
    "none": lambda it: it.question.clear(),
    "none, as it failed": lambda it: (it.question.clear(), it.set_rcode(dns.rcode.SERVFAIL)),
}


@pytest.mark.parametrize("change", RESPONSES.values(), ids=RESPONSES)
def test_an_answer_is_told_from_anything_else_as_dnspython_tells_it(
    change: Callable[[dns.message.QueryMessage], object],
) -> None:
    query = Query.make(dns.name.from_text("txt.test"), "TXT", edns=True, ad=False)
    theirs = dns.message.from_wire(query.wire)
    response = dns.message.make_response(theirs)
    change(response)
    assert query.is_answered_by(response) is theirs.is_response(response)


# --- several servers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["SERVFAIL", "REFUSED", "TIMEOUT", "WRONG-ID"])
async def test_the_next_server_is_asked_where_one_fails(server: DnsServer, clock: Time, fault: str) -> None:
    async with run_dns_server(ZONE) as broken:
        broken.faults["txt.test"] = fault
        # The second answers in time, however busy the machine is.
        resolver = make([broken.address, server.address], clock, timeout=10 * HASTY if fault in SILENT else PATIENT)
        assert (await resolver.txt("txt.test")).status is DnsStatus.OK
    assert (len(broken.queries), len(server.queries)) == (1, 1)


async def test_a_server_that_is_not_there_costs_no_timeout(server: DnsServer, clock: Time) -> None:
    async with run_dns_server() as gone:
        pass
    resolver = DnsResolver([gone.address, server.address], monotonic=clock, timeout=60, deadline=60)
    assert (await resolver.txt("txt.test")).status is DnsStatus.OK
    alone = await DnsResolver([gone.address], monotonic=clock, timeout=60, deadline=60).txt("txt.test")
    assert alone.status is DnsStatus.TEMPERROR
    assert gone.address in alone.detail


async def test_a_lost_datagram_is_sent_again_but_not_for_ever(server: DnsServer, hasty: DnsResolver) -> None:
    server.faults["txt.test"] = "TIMEOUT"
    assert (await hasty.txt("txt.test")).status is DnsStatus.TEMPERROR
    assert len(server.queries) == 2
    assert hasty.stats.queries == 2


async def test_the_deadline_ends_a_look_up_over_many_servers(server: DnsServer, clock: Time) -> None:
    server.faults["txt.test"] = "TIMEOUT"
    resolver = make([server.address] * 40, clock, timeout=HASTY, deadline=3 * HASTY)
    assert (await resolver.txt("txt.test")).status is DnsStatus.TEMPERROR
    assert len(server.queries) <= 4


# --- the cache --------------------------------------------------------------------------------------------------------


async def test_an_answer_is_given_again_with_its_age_until_its_ttl_is_over(
    server: DnsServer, resolver: DnsResolver, clock: Time
) -> None:
    first = await resolver.txt("txt.test")
    clock.pass_(299)
    again = await resolver.txt("TXT.test.")
    assert (first.age, again.age, again.ttl, again.records) == (0, 299, 300, first.records)
    assert len(server.queries) == 1
    clock.pass_(1)
    assert (await resolver.txt("txt.test")).age == 0
    assert len(server.queries) == 2
    assert (resolver.stats.hits, resolver.stats.misses) == (1, 2)


@pytest.mark.parametrize(
    ("name", "ttl"), [("zero.test", MIN_TTL), ("short.test", 60), ("week.test", MAX_TTL), ("alias.test", 300)]
)
async def test_a_ttl_has_a_floor_and_a_cap(
    server: DnsServer, resolver: DnsResolver, clock: Time, name: str, ttl: int
) -> None:
    assert (await resolver.txt(name)).ttl == ttl
    clock.pass_(ttl - 1)
    await resolver.txt(name)
    assert len(server.queries) == 1
    clock.pass_(1)
    await resolver.txt(name)
    assert len(server.queries) == 2


@pytest.mark.parametrize("name", ["nothing.test", "host.test"])
@pytest.mark.parametrize(("soa", "kept"), [(0, MIN_TTL), (120, 120), (86400, MAX_NEGATIVE_TTL), (None, MIN_TTL)])
async def test_what_is_not_there_is_remembered_as_the_soa_says(
    server: DnsServer, resolver: DnsResolver, clock: Time, name: str, soa: int | None, kept: int
) -> None:
    server.negative_ttl = soa
    await resolver.txt(name)
    clock.pass_(kept - 1)
    assert not (await resolver.txt(name)).records
    assert len(server.queries) == 1
    clock.pass_(1)
    server.add(f'{name}. 300 IN TXT "new"')
    assert (await resolver.txt(name)).records == (b"new",)


async def test_a_type_is_cached_apart_from_another(server: DnsServer, resolver: DnsResolver) -> None:
    await resolver.a("host.test")
    await resolver.aaaa("host.test")
    assert asked(server) == [("host.test", "A"), ("host.test", "AAAA")]


async def test_a_failure_is_remembered_briefly(server: DnsServer, resolver: DnsResolver, clock: Time) -> None:
    server.faults["txt.test"] = "SERVFAIL"
    assert (await resolver.txt("txt.test")).status is DnsStatus.TEMPERROR
    del server.faults["txt.test"]
    clock.pass_(FAILURE_TTL - 1)
    assert (await resolver.txt("txt.test")).status is DnsStatus.TEMPERROR
    clock.pass_(1)
    assert (await resolver.txt("txt.test")).status is DnsStatus.OK
    assert len(server.queries) == 2


async def test_a_fresh_look_up_goes_past_the_cache_and_renews_it(
    server: DnsServer, resolver: DnsResolver, clock: Time
) -> None:
    await resolver.txt("txt.test")
    server.records = [one for one in server.records if str(one.rname) != "txt.test."]
    server.add('txt.test. 300 IN TXT "changed"')
    clock.pass_(61)
    assert (await resolver.txt("txt.test")).records == (b"v=spf1 -all",)
    fresh = await resolver.txt("txt.test", fresh=True)
    assert (fresh.records, fresh.age) == ((b"changed",), 0)
    assert (await resolver.txt("txt.test")).records == (b"changed",)


async def test_a_fresh_look_up_that_fails_says_so_and_takes_nothing_away(
    server: DnsServer, resolver: DnsResolver, clock: Time
) -> None:
    await resolver.txt("txt.test")
    server.faults["txt.test"] = "SERVFAIL"
    clock.pass_(61)
    assert (await resolver.txt("txt.test", fresh=True)).status is DnsStatus.TEMPERROR
    assert (await resolver.txt("txt.test")).records == (b"v=spf1 -all",)


async def test_an_old_key_is_served_while_the_server_fails(
    server: DnsServer, resolver: DnsResolver, clock: Time
) -> None:
    await resolver.txt("txt.test")
    server.faults["txt.test"] = "SERVFAIL"
    clock.pass_(600)
    stale = await resolver.txt("txt.test")
    assert (stale.status, stale.records, stale.age) == (DnsStatus.OK, (b"v=spf1 -all",), 600)
    # The server is left alone for a while, and asked again after it.
    await resolver.txt("txt.test")
    assert len(server.queries) == 2
    clock.pass_(FAILURE_TTL)
    await resolver.txt("txt.test")
    assert len(server.queries) == 3
    assert resolver.stats.stale == 2


async def test_an_old_key_is_served_before_the_server_has_been_waited_for_to_the_end(
    server: DnsServer, clock: Time
) -> None:
    resolver = DnsResolver([server.address], monotonic=clock, timeout=60, deadline=60, stale_after=0.02)
    await resolver.txt("txt.test")
    server.gate.clear()
    clock.pass_(600)
    assert (await resolver.txt("txt.test")).age == 600
    # Others are served at once, and the new answer takes over when it comes.
    assert (await resolver.txt("txt.test")).age == 600
    server.gate.set()
    fresh = await resolver.txt("txt.test", fresh=True)
    assert (fresh.age, (await resolver.txt("txt.test")).age) == (0, 0)
    assert len(server.queries) == 2


async def test_an_old_key_is_served_for_a_bounded_time(server: DnsServer, resolver: DnsResolver, clock: Time) -> None:
    await resolver.txt("txt.test")
    server.faults["txt.test"] = "SERVFAIL"
    clock.pass_(300 + MAX_STALE - 1)
    assert (await resolver.txt("txt.test")).status is DnsStatus.OK
    clock.pass_(1)
    assert (await resolver.txt("txt.test")).status is DnsStatus.TEMPERROR
    assert (await resolver.txt("txt.test")).status is DnsStatus.TEMPERROR


async def test_nothing_else_is_served_stale(server: DnsServer, resolver: DnsResolver, clock: Time) -> None:
    await resolver.a("zeroa.test")
    await resolver.txt("nothing.test")
    server.faults |= {"zeroa.test": "SERVFAIL", "nothing.test": "SERVFAIL"}
    clock.pass_(3600)
    assert (await resolver.a("zeroa.test")).status is DnsStatus.TEMPERROR
    assert (await resolver.txt("nothing.test")).status is DnsStatus.TEMPERROR


async def test_what_was_not_used_longest_makes_room(server: DnsServer, clock: Time) -> None:
    resolver = make(server.address, clock, max_entries=3)
    for name in ("a.test", "b.test", "c.test", "a.test", "d.test", "a.test", "b.test"):
        await resolver.a(name)
        # Within a second nobody asks which was the last.
        clock.pass_(1)
    assert [name[0] for name, _ in asked(server)] == ["a", "b", "c", "d", "b"]


async def test_large_answers_make_room_by_their_size(
    server: DnsServer, resolver: DnsResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forwarder.resolver.caching.MAX_OCTETS", 12_000)
    server.add("".join(f"big{n}.test. 300 IN TXT " + " ".join([f'"{"x" * 250}"'] * 16) + "\n" for n in range(3)))
    for name in ("big0.test", "big1.test", "big2.test", "big1.test", "big2.test", "big0.test", "big0.test"):
        await resolver.txt(name)
    assert [name for name, _, transport in server.queries if transport == "tcp"] == [
        "big0.test", "big1.test", "big2.test", "big0.test"
    ]  # fmt: skip


# --- together ---------------------------------------------------------------------------------------------------------


async def test_many_who_wait_for_one_name_cost_one_query(server: DnsServer, resolver: DnsResolver) -> None:
    answers = await asyncio.gather(*(resolver.txt("txt.test") for _ in range(50)))
    assert {answer.records for answer in answers} == {(b"v=spf1 -all",)}
    assert len(server.queries) == 1


async def test_who_gives_up_does_not_take_the_answer_along(server: DnsServer, resolver: DnsResolver) -> None:
    server.gate.clear()
    first = asyncio.create_task(resolver.txt("txt.test"))
    second = asyncio.create_task(resolver.txt("txt.test"))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    server.gate.set()
    assert (await second).status is DnsStatus.OK


async def test_what_was_begun_ahead_is_there_when_it_is_asked_for(server: DnsServer, resolver: DnsResolver) -> None:
    await resolver.txt("many.test")
    resolver.prefetch_txt(["txt.test", "TXT.test", "many.test"])
    assert (await resolver.txt("txt.test")).status is DnsStatus.OK
    resolver.prefetch_txt(["txt.test"])
    assert asked(server) == [("many.test", "TXT"), ("txt.test", "TXT")]


async def test_closing_ends_what_is_under_way(server: DnsServer, resolver: DnsResolver) -> None:
    server.gate.clear()
    waiting = asyncio.create_task(resolver.txt("txt.test"))
    await asyncio.sleep(0)
    await resolver.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_flood_of_names_is_answered_with_temperror_not_with_sockets(
    server: DnsServer, resolver: DnsResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forwarder.resolver.caching.MAX_FLIGHTS", 10)
    answers: list[Answer[bytes]] = await asyncio.gather(*(resolver.txt(f"n{n}.test") for n in range(20)))
    assert [answer.status for answer in answers] == [DnsStatus.NXDOMAIN] * 10 + [DnsStatus.TEMPERROR] * 10


# --- servers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", Server("192.0.2.1", 53)),
        ("192.0.2.1:5353", Server("192.0.2.1", 5353)),
        ("2001:DB8::1", Server("2001:db8::1", 53)),
        ("[2001:db8::1]:5353", Server("2001:db8::1", 5353)),
        *(
            (bad, None)
            for bad in ("", "dns.test", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:x", "[::1]", "a:53")
        ),
    ],
)
def test_a_server_is_an_address_with_or_without_a_port(text: str, server: Server | None) -> None:
    if server is None:
        with pytest.raises(ValueError, match=r"name server|IP|Expected"):
            parse_server(text)
        with pytest.raises(ValueError, match=r"name server|IP|Expected"):
            DnsResolver([text], monotonic=Time())
    else:
        assert parse_server(text) == server


def test_a_resolver_needs_a_server() -> None:
    with pytest.raises(ValueError, match="no name server"):
        DnsResolver([], monotonic=Time())


def test_the_systems_servers_are_the_first_three_that_are_addresses(tmp_path: Any) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("# x\nsearch test\nnameserver 192.0.2.1\nnameserver dns.test\n nameserver ::1 # x\nnameserver 192.0.2.2\n"
                    "nameserver\nnameserver 192.0.2.3\n")  # fmt: skip
    assert system_nameservers(conf) == ("192.0.2.1", "::1", "192.0.2.2")
    assert system_nameservers(tmp_path / "absent") == ()
