"""What does the name that a client gives tell of it? Facts, and what the operator has them count."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network

import pytest

from forwarder.callers import DnsCallers
from forwarder.helo import verify_helo
from forwarder.model import Address, Caller, HeloCheck, HeloFact, Listed, Peer, Result
from forwarder.resolver import DnsResolver
from forwarder.screen import Door, screen_caller
from tests.fakes import FakeResolver, MemoryJournal
from tests.peers.dns_server import run_dns_server

V4, V6 = ip_address("192.0.2.99"), ip_address("2001:db8::1")
OURS = frozenset({"mx.fwd.test", "fwd.test"})
ZONE = {
    "mx.sender.test": {"A": ["192.0.2.98", "192.0.2.99"], "AAAA": ["2001:db8::1"]},
    "four.sender.test": {"A": ["192.0.2.99"]},
    "away.sender.test": {"*": "SERVFAIL"},
    "mx.fwd.test": {"A": ["192.0.2.25"]},
    "fwd.test": {"A": ["192.0.2.99"]},
}


@pytest.mark.parametrize(
    ("peer", "fact", "result", "asked"),
    [
        (Peer(V4, "mx.sender.test"), HeloFact.RESOLVES, Result.PASS, "A"),
        (Peer(V4, "MX.Sender.test."), HeloFact.RESOLVES, Result.PASS, "A"),
        (Peer(V6, "mx.sender.test"), HeloFact.RESOLVES, Result.PASS, "AAAA"),
        (Peer(V6, "four.sender.test"), HeloFact.ELSEWHERE, Result.FAIL, "AAAA"),
        (Peer(ip_address("192.0.2.1"), "mx.sender.test"), HeloFact.ELSEWHERE, Result.FAIL, "A"),
        (Peer(V4, "nobody.sender.test"), HeloFact.ELSEWHERE, Result.FAIL, "A"),
        (Peer(V4, "away.sender.test"), HeloFact.UNKNOWN, Result.TEMPERROR, "A"),
        (Peer(V4, "[192.0.2.99]"), HeloFact.LITERAL, Result.PASS, ""),
        (Peer(V4, "[192.0.2.1]"), HeloFact.LITERAL, Result.FAIL, ""),
        (Peer(V6, "[IPv6:2001:db8::1]"), HeloFact.LITERAL, Result.PASS, ""),
        (Peer(V4, "[IPv6:::ffff:192.0.2.99]"), HeloFact.LITERAL, Result.PASS, ""),
        (Peer(V4, "MX.fwd.test"), HeloFact.OURS, Result.FAIL, "A"),
        (Peer(V4, "fwd.test"), HeloFact.RESOLVES, Result.PASS, "A"),
        (Peer(V4, "localhost"), HeloFact.SHORT, Result.FAIL, ""),
        (Peer(V4, "192.0.2.99"), HeloFact.NAMELESS, Result.FAIL, ""),
        (Peer(V4, "[192.0.2.99]", named=False), HeloFact.NAMELESS, Result.FAIL, ""),
    ],
    ids=lambda one: f"{one.ip} {one.helo}" if isinstance(one, Peer) else None,
)
async def test_a_name_tells_one_thing_and_costs_one_question_at_the_most(
    peer: Peer, fact: HeloFact, result: Result, asked: str
) -> None:
    resolver = FakeResolver(ZONE)
    found = await verify_helo(resolver, peer, OURS)
    assert (found.fact, found.result, found.weight) == (fact, result, 0)
    assert [kind for _, kind in resolver.queries] == [asked][: bool(asked)]


async def test_it_counts_what_the_operator_says_and_else_nothing() -> None:
    journal = MemoryJournal()
    weights = {HeloFact.ELSEWHERE: 0.5, HeloFact.RESOLVES: -1.0}
    callers = DnsCallers(FakeResolver(ZONE), [], journal, timeout=5, helo=weights, ours=OURS)
    for helo, weight in (
        ("nobody.sender.test", 0.5),
        ("mx.sender.test", -1),
        ("localhost", 0),
        ("away.sender.test", 0),
    ):
        found = await callers.look_up_helo(Peer(V4, helo))
        assert found is not None
        assert Caller((Listed("bl.test", (), 1),), helo=found).score == 1 + weight
    assert [one["fact"] for one in journal.named("caller.helo")] == ["elsewhere", "resolves"]


async def test_who_is_left_out_or_not_asked_about_is_not_looked_up() -> None:
    resolver = FakeResolver(ZONE)
    skip = [(ip_network("192.0.2.0/24"), frozenset({"helo"}))]
    for callers in (
        DnsCallers(resolver, [], MemoryJournal(), timeout=5, helo={}, skip=skip),
        DnsCallers(resolver, [], MemoryJournal(), timeout=5),
    ):
        assert await callers.look_up_helo(Peer(V4, "mx.sender.test")) is None
    assert resolver.queries == []


async def test_a_resolver_that_is_silent_costs_its_time_and_tells_nothing() -> None:
    async with run_dns_server("") as server:
        server.gate.clear()
        resolver = DnsResolver([server.address], monotonic=asyncio.get_running_loop().time)
        callers = DnsCallers(resolver, [], MemoryJournal(), timeout=0.05, helo={HeloFact.UNKNOWN: 9})
        async with asyncio.timeout(5):
            found = await callers.look_up_helo(Peer(V4, "mx.sender.test"))
        assert found == HeloCheck(HeloFact.UNKNOWN, Result.TEMPERROR, "no answer in time")
        server.gate.set()
        await callers.aclose()
        await resolver.aclose()


ALIAS = Address("alias", "fwd.test")


@pytest.mark.parametrize(
    ("listed", "weight", "refused"),
    [
        ((), 0, None),
        ((), 0.5, None),
        ((), 1.0, "EHLO does not lead to your address"),
        ((Listed("bl.test", (), 0.7),), 0.5, "is listed by bl.test"),
        ((Listed("bl.test", (), 0.4),), 0.6, "EHLO does not lead to your address"),
        ((Listed("wl.test", (), -1.0),), 1.0, None),
    ],
)
def test_the_sum_decides_and_the_reply_names_what_weighs_most(
    listed: tuple[Listed, ...], weight: float, refused: str | None
) -> None:
    caller = Caller(listed, helo=HeloCheck(HeloFact.ELSEWHERE, Result.FAIL, weight=weight))
    found = screen_caller(ALIAS, V4, caller, Door())
    assert (found is None) if refused is None else (found is not None and refused in str(found.reply))
    assert screen_caller(Address("postmaster", "fwd.test"), V4, caller, Door()) is None
