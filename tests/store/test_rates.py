"""Rates that all processes of one store share: taken with the claim, on every server that we support."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest

from forwarder.model import Address
from forwarder.ports import Charge, Claim, RateKind, RateOver
from forwarder.store.client import StoreClient
from forwarder.store.ledger import DELIVERED_FOR, RedisLedger
from forwarder.store.server import EmbeddedStore
from tests.fakes import MemoryJournal
from tests.store.servers import BOUND

ALIAS = Address("alias", "fwd.test")


def mark(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def charge(
    per_hour: float, subject: Address | str = ALIAS, *, cost: float = 1, kind: RateKind = RateKind.ALIAS
) -> Charge:
    """An hour's worth may come at once."""
    least = 3600 / per_hour
    return Charge(kind, subject, min(least * cost, 3600), 3600, least)


@pytest.fixture
def ledger(ours: StoreClient, journal: MemoryJournal) -> RedisLedger:
    return RedisLedger(ours, journal=journal)


@pytest.fixture
async def neighbour(server: EmbeddedStore, journal: MemoryJournal) -> AsyncIterator[RedisLedger]:
    """The ledger of another worker."""
    client = StoreClient(server.url, journal=journal, timeout=BOUND)
    yield RedisLedger(client, journal=journal)
    await client.close()


async def passes(ledger: RedisLedger, number: int, *charges: Charge) -> bool:
    try:
        claims = await ledger.claim([mark(number)], f"attempt{number}", charges)
    except RateOver:
        return False
    assert list(claims) == [Claim.FRESH]
    return True


async def rate_keys(client: StoreClient) -> list[bytes]:
    return [one for one in await client.command("KEYS", "*") if b":w:" in one]


@pytest.mark.parametrize("per_hour", [1, 3, 7, 13, 49, 100])
async def test_as_many_pass_as_the_rate_says_and_no_more(ledger: RedisLedger, per_hour: int) -> None:
    answers = [await passes(ledger, number, charge(per_hour)) for number in range(per_hour + 2)]
    assert answers == [True] * per_hour + [False] * 2


async def test_all_processes_count_together(ledger: RedisLedger, neighbour: RedisLedger) -> None:
    both = [ledger, neighbour]
    answers = await asyncio.gather(*(passes(both[number % 2], number, charge(10)) for number in range(40)))
    assert answers.count(True) == 10


async def test_who_is_over_hears_which_rate_and_how_long_to_wait(ledger: RedisLedger) -> None:
    wide, narrow = charge(1000, "fwd.test", kind=RateKind.SRS_DOMAIN), charge(4)
    for number in range(4):
        assert await passes(ledger, number, wide, narrow)
    with pytest.raises(RateOver) as over:
        await ledger.claim([mark(9)], "nine", [wide, narrow])
    assert over.value.charge == narrow
    assert 890 < over.value.wait <= 900


async def test_what_was_taken_comes_back(ledger: RedisLedger, client: StoreClient) -> None:
    assert await passes(ledger, 1, charge(1))
    assert not await passes(ledger, 2, charge(1))
    [key] = await rate_keys(client)
    assert 3_590_000 < await client.command("PTTL", key) <= 3_600_000
    seconds, _ = await client.command("TIME")
    # As if it had come an hour ago, all but a second of it.
    await client.command("SET", key, b"\x01%d" % ((int(seconds) + 1) * 1_000_000))
    with pytest.raises(RateOver) as over:
        await ledger.claim([mark(2)], "two", [charge(1)])
    assert over.value.wait <= 1
    await client.command("SET", key, b"\x01%d" % (int(seconds) * 1_000_000))
    assert await passes(ledger, 2, charge(1))


async def test_who_is_over_takes_nothing_and_claims_nothing(ledger: RedisLedger, client: StoreClient) -> None:
    wide, narrow = charge(3, "fwd.test", kind=RateKind.SRS_DOMAIN), charge(1)
    assert await passes(ledger, 0, wide, narrow)
    for number in range(1, 6):
        assert not await passes(ledger, number, wide, narrow)
    assert len([one for one in await client.command("KEYS", "*") if b":c:" in one]) == 1
    assert await passes(ledger, 1, wide), "it was refused by the other rate only, and nobody else has its claim"


async def test_what_was_left_behind_stays_so_for_who_is_over(
    ledger: RedisLedger, client: StoreClient, journal: MemoryJournal
) -> None:
    assert await passes(ledger, 0, charge(1))
    [claim] = [one for one in await client.command("KEYS", "*") if b":c:" in one]
    had = await client.command("GET", claim)
    left = had[:2] + b"0" * 13 + had[15:]
    await client.command("SET", claim, left)
    with pytest.raises(RateOver):
        await ledger.claim([mark(0)], "another", [charge(1)])
    assert await client.command("GET", claim) == left
    assert 0 < await client.command("TTL", claim) <= DELIVERED_FOR
    assert not journal.named("claim.taken_over")


async def test_the_same_attempt_is_charged_once(ledger: RedisLedger) -> None:
    for _ in range(5):
        assert await passes(ledger, 0, charge(2))
    assert await passes(ledger, 1, charge(2))


async def test_what_was_delivered_or_is_under_way_costs_nothing(ledger: RedisLedger) -> None:
    assert await passes(ledger, 0, charge(2))
    assert await ledger.claim([mark(0)], "retry", [charge(2)]) == [Claim.BUSY]
    await ledger.settle("attempt0", [mark(0)], [], [])
    for _ in range(5):
        assert await ledger.claim([mark(0)], "retry", [charge(2)]) == [Claim.DELIVERED]
    assert await passes(ledger, 1, charge(2))
    assert await ledger.claim([mark(0)], "retry", [charge(2)]) == [Claim.DELIVERED], "also when the rate is used up"


async def test_a_large_message_takes_more_and_one_beyond_all_bounds_takes_all(ledger: RedisLedger) -> None:
    assert await passes(ledger, 0, charge(10, cost=9))
    assert await passes(ledger, 1, charge(10))
    assert not await passes(ledger, 2, charge(10))
    other = Address("other", "fwd.test")
    assert await passes(ledger, 3, charge(10, other, cost=1000))
    assert not await passes(ledger, 4, charge(10, other))


async def test_a_subject_is_one_however_it_is_spelled_and_kinds_are_apart(ledger: RedisLedger) -> None:
    assert await passes(ledger, 0, charge(1))
    assert not await passes(ledger, 1, charge(1, Address("ALIAS", "FWD.test")))
    assert await passes(ledger, 2, charge(1, kind=RateKind.DESTINATION))


async def test_a_rate_that_was_lowered_keeps_nobody_waiting_longer_than_a_full_one(ledger: RedisLedger) -> None:
    for number in range(100):
        assert await passes(ledger, number, charge(100))
    small = Charge(RateKind.ALIAS, ALIAS, 6, 60, 6)
    with pytest.raises(RateOver) as over:
        await ledger.claim([mark(200)], "lower", [small])
    assert over.value.wait <= 6


@pytest.mark.parametrize(
    "damage", [("SET", b"\x02123"), ("SET", b""), ("SET", b"\x01" + b"9" * 40), ("SET", b"\x01x"), ("SADD", b"x")]
)
async def test_a_damaged_rate_is_an_empty_one(
    ledger: RedisLedger, client: StoreClient, damage: tuple[str, bytes]
) -> None:
    assert await passes(ledger, 0, charge(1))
    [key] = await rate_keys(client)
    await client.command("DEL", key)
    await client.command(damage[0], key, damage[1])
    assert await passes(ledger, 1, charge(1))
    assert not await passes(ledger, 2, charge(1))


async def test_the_names_tell_nothing_of_whom_they_are_about(ledger: RedisLedger, client: StoreClient) -> None:
    assert await passes(ledger, 0, charge(1))
    [key] = await rate_keys(client)
    assert b"alias" not in key
    assert b"fwd.test" not in key


async def test_a_claim_with_rates_is_one_command(ledger: RedisLedger, client: StoreClient) -> None:
    charges = [charge(100, f"{number}") for number in range(8)]
    assert await passes(ledger, 0, *charges)
    await client.command("CONFIG", "RESETSTAT")
    assert await passes(ledger, 1, *charges)
    stats = (await client.command("INFO", "commandstats")).decode()
    assert "cmdstat_evalsha:calls=1," in stats
