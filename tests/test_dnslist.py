"""What does a DNS list say of an address? RFC 5782, and what becomes of lists that are broken, silent or gone."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from forwarder.callers import DnsCallers
from forwarder.dnslist import DnsList, NotSound, look_up_list, query_name
from forwarder.iprev import verify_iprev
from forwarder.model import Address, Caller, IprevCheck, Listed, Result
from forwarder.resolver import DnsResolver
from forwarder.screen import Door, screen_caller
from tests.fakes import FakeResolver, MemoryJournal
from tests.peers.dns_server import run_dns_server
from tests.waiting import until

V4, V6 = ip_address("192.0.2.99"), ip_address("2001:db8::1")
NIBBLES = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
CODES = {IPv4Address("127.0.0.2"): 2.0, IPv4Address("127.0.0.10"): 0.5, IPv4Address("127.0.0.3"): -3.0}


def answers(*codes: str, zone: str = "bl.example") -> dict[str, dict[str, list[str]]]:
    """A zone that lists V4 with these answers, and is sound."""
    return {f"99.2.0.192.{zone}": {"A": list(codes)}, f"2.0.0.127.{zone}": {"A": ["127.0.0.2"]}}


def test_the_name_has_octets_or_nibbles_the_last_first() -> None:
    assert query_name(V4, "bl.example") == "99.2.0.192.bl.example"
    assert query_name(V6, "bl.example") == f"{NIBBLES}.bl.example"


@pytest.mark.parametrize(
    ("codes", "which", "want"),
    [
        ([], DnsList("bl.example"), None),
        (["127.0.0.2"], DnsList("bl.example"), 1.0),
        (["127.0.0.2"], DnsList("bl.example", -5.0), -5.0),
        (["127.0.0.10", "127.0.0.2"], DnsList("bl.example", codes=CODES), 2.0),
        (["127.0.0.2", "127.0.0.3"], DnsList("bl.example", codes=CODES), -3.0),
        (["127.0.0.99"], DnsList("bl.example", codes=CODES), None),
        (["127.0.0.2"], DnsList("bl.example", 0.0), None),
        (["127.255.255.254"], DnsList("bl.example"), "it refuses to answer"),
        (["127.255.255.254", "127.0.0.2"], DnsList("bl.example"), 1.0),
        (["203.0.113.80"], DnsList("bl.example"), "it answers with no return code"),
    ],
    ids=str,
)
async def test_what_its_answers_count(codes: list[str], which: DnsList, want: float | str | None) -> None:
    found = await look_up_list(FakeResolver(answers(*codes) if codes else {}), which, V4)
    if isinstance(want, str):
        assert found == NotSound(want)
    else:
        assert (found.weight if isinstance(found, Listed) else found) == want


async def test_a_list_that_lists_the_address_no_list_may_list_is_not_believed() -> None:
    zone = answers("127.0.0.2") | {"1.0.0.127.bl.example": {"A": ["127.0.0.2"]}}
    found = await look_up_list(FakeResolver(zone), DnsList("bl.example"), V4)
    assert found == NotSound("it lists 127.0.0.1, so it may list everybody")


async def test_whom_it_does_not_have_costs_one_question() -> None:
    resolver = FakeResolver({"2.0.0.127.bl.example": {"A": ["127.0.0.2"]}})
    assert await look_up_list(resolver, DnsList("bl.example"), V4) is None
    assert resolver.queries == [("99.2.0.192.bl.example", "A")]


@pytest.mark.parametrize("name", ["99.2.0.192.bl.example", "1.0.0.127.bl.example"])
async def test_a_list_that_does_not_answer_says_nothing(name: str) -> None:
    zone = answers("127.0.0.2") | {name: {"*": "SERVFAIL"}}
    assert await look_up_list(FakeResolver(zone), DnsList("bl.example"), V4) is None


# --- all of them, through a real resolver ---


ZONE = """\
99.2.0.192.bl.example. 300 IN A 127.0.0.2
2.0.0.127.bl.example. 300 IN A 127.0.0.2
99.2.0.192.wl.example. 300 IN A 127.0.5.1
2.0.0.127.wl.example. 300 IN A 127.0.0.2
99.2.0.192.all.example. 300 IN A 127.0.0.2
1.0.0.127.all.example. 300 IN A 127.0.0.2
"""
LISTS = [DnsList("bl.example", 3.0), DnsList("wl.example", -1.0), DnsList("all.example"), DnsList("dead.example")]


async def test_lists_are_asked_at_once_and_summed_and_the_broken_ones_told_once() -> None:
    journal = MemoryJournal()
    async with run_dns_server(ZONE) as server:
        resolver = DnsResolver([server.address], monotonic=asyncio.get_running_loop().time)
        callers = DnsCallers(resolver, LISTS, journal, timeout=5)
        for _ in range(3):
            found = await callers.look_up(V4)
            assert [(one.zone, one.weight) for one in found.listed] == [("bl.example", 3.0), ("wl.example", -1.0)]
            assert found.score == 2.0
        assert [(one["zone"], one["reason"][:12]) for one in journal.named("dnsbl.not_sound")] == [
            ("all.example", "it lists 127"),
            ("dead.example", "it does not "),
        ]
        assert journal.named("caller.listed")[0]["lists"] == ["bl.example 3", "wl.example -1"]
        await callers.aclose()
        await resolver.aclose()


async def test_a_slow_list_counts_nothing_and_keeps_nobody_waiting() -> None:
    async with run_dns_server(ZONE) as server:
        server.faults["99.2.0.192.bl.example"] = "TIMEOUT"
        resolver = DnsResolver([server.address], monotonic=asyncio.get_running_loop().time)
        callers = DnsCallers(resolver, LISTS, MemoryJournal(), timeout=1)
        found = await callers.look_up(V4)
        assert [one.zone for one in found.listed] == ["wl.example"]
        await callers.aclose()
        await resolver.aclose()


async def test_who_waits_while_it_is_closed_hears_nothing_of_it() -> None:
    async with run_dns_server(ZONE) as server:
        server.gate.clear()
        resolver = DnsResolver([server.address], monotonic=asyncio.get_running_loop().time)
        callers = DnsCallers(resolver, LISTS, MemoryJournal(), timeout=5, iprev=True)
        asked = callers.look_up(V4)
        await until(lambda: len(server.queries) > 3)
        await callers.aclose()
        assert await asked == Caller()
        await resolver.aclose()


async def test_networks_that_are_left_out_are_not_asked_about() -> None:
    resolver = FakeResolver(answers("127.0.0.2"))
    skip = [(ip_network("192.0.2.0/24"), frozenset({"dnsbl"}))]
    callers = DnsCallers(resolver, [DnsList("bl.example")], MemoryJournal(), timeout=5, skip=skip)
    assert await callers.look_up(V4) == Caller()
    assert resolver.queries == []


# --- what follows ---

ALIAS = Address("alias", "fwd.example")
BAD = Caller((Listed("a.example", (), 1.0), Listed("worst.example", (), 2.0), Listed("good.example", (), -0.5)))


@pytest.mark.parametrize(
    ("alias", "caller", "door", "refused"),
    [
        (ALIAS, Caller(), Door(), False),
        (ALIAS, BAD, Door(), True),
        (ALIAS, BAD, Door(2.5), True),
        (ALIAS, BAD, Door(2.6), False),
        (ALIAS, BAD, Door(0), False),
        (ALIAS, BAD, Door(domains={"fwd.example": 0}), False),
        (ALIAS, BAD, Door(0, {"fwd.example": 1}), True),
        (Address("Postmaster", "fwd.example"), BAD, Door(), False),
        (Address("abuse", "fwd.example"), BAD, Door(), False),
    ],
)
def test_the_sum_decides_and_the_reply_names_the_worst_list(
    alias: Address, caller: Caller, door: Door, *, refused: bool
) -> None:
    found = screen_caller(alias, V4, caller, door)
    assert (found is not None) is refused
    if found is not None:
        assert f"{found.reply}".startswith("550 5.7.1 192.0.2.99 is listed by worst.example")


# --- iprev ---


@pytest.mark.parametrize(
    ("zone", "want"),
    [
        ({}, IprevCheck(Result.PERMERROR, reason="the address has no name")),
        (
            {"99.2.0.192.in-addr.arpa": {"PTR": ["a.example", "b.example"]}, "b.example": {"A": ["192.0.2.99"]}},
            IprevCheck(Result.PASS, "b.example"),
        ),
        (
            {"99.2.0.192.in-addr.arpa": {"PTR": ["a.example"]}, "a.example": {"A": ["192.0.2.98"]}},
            IprevCheck(Result.FAIL, reason="no name of the address leads back to it"),
        ),
        (
            {"99.2.0.192.in-addr.arpa": {"*": "SERVFAIL"}},
            IprevCheck(Result.TEMPERROR, reason="the reverse look-up failed"),
        ),
        (
            {"99.2.0.192.in-addr.arpa": {"PTR": ["a.example"]}, "a.example": {"*": "TIMEOUT"}},
            IprevCheck(Result.TEMPERROR, reason="a forward look-up failed"),
        ),
    ],
    ids=["no name", "pass", "fail", "reverse temperror", "forward temperror"],
)
async def test_a_name_leads_back_or_not(zone: dict[str, dict[str, list[str]]], want: IprevCheck) -> None:
    assert await verify_iprev(FakeResolver(zone), V4) == want
