"""store/queue.py: is an item under one lease at a time, and what of a lease that is over?"""

from __future__ import annotations

import asyncio

import pytest

from forwarder.ports import Claimed
from forwarder.store.client import StoreClient
from forwarder.store.ledger import RedisLedger
from forwarder.store.queue import RedisQueue
from tests.fakes import MemoryJournal
from tests.store.queue.items import claim, end_leases, held, octets_in_store


async def test_an_item_is_under_one_lease_at_a_time(queue: RedisQueue) -> None:
    await queue.put([held(f"e{number}.0", f"d{number}.example") for number in range(20)])
    first, second = await claim(queue, "one", limit=15), await claim(queue, "two", limit=15)
    ids = [one.held.id for one in (*first, *second)]
    assert (len(first), len(second), len(set(ids))) == (15, 5, 20)


async def test_of_workers_that_claim_at_once_none_gets_what_another_has(
    queue: RedisQueue, neighbour: RedisQueue
) -> None:
    await queue.put([held(f"e{number}.0", f"d{number % 7}.example") for number in range(100)])
    workers = [(one, f"{name}{turn}") for turn in range(20) for name, one in (("q", queue), ("n", neighbour))]
    answers = await asyncio.gather(*(claim(one, lease, limit=4, each=100) for one, lease in workers))
    ids = [one.held.id for answer in answers for one in answer]
    assert len(ids) == len(set(ids)) == 100
    assert all(len(answer) <= 4 for answer in answers)


@pytest.mark.parametrize("at", [-1, 4], ids=["the item's part", "the shard's part"])
async def test_an_item_whose_name_among_the_leases_was_damaged_is_free_when_no_lease_is_left(
    queue: RedisQueue, client: StoreClient, at: int
) -> None:
    one = held("m1.0")
    await queue.put([one])
    assert await claim(queue, "dead") == [Claimed(one, dots=0)]
    [name] = await client.command("ZRANGE", "{fwd0}:ql", 0, -1)
    damaged = bytearray(name)
    damaged[at] ^= 1
    await client.command("ZREM", "{fwd0}:ql", name)
    await client.command("ZADD", "{fwd0}:ql", 0, bytes(damaged))
    # The first look takes what is there for nobody's, or for somebody else's.
    found = [*await claim(queue, "one"), *await claim(queue, "two")]
    assert found == [Claimed(one, dots=0)]
    assert await client.command("HLEN", "{fwd0}:qc") == await client.command("HLEN", "{fwd0}:qh") == 1


@pytest.mark.parametrize("settled", [True, False], ids=["settled", "lease over"])
async def test_what_is_left_of_an_item_whose_next_hop_nobody_knows_any_more_is_the_operators(
    queue: RedisQueue, client: StoreClient, settled: bool
) -> None:
    one, report = held("m1.0"), held("r1.0", "b.example")
    await queue.put([one])
    await claim(queue)
    [name] = await client.command("ZRANGE", "{fwd0}:ql", 0, -1)
    await client.command("HSET", name, "d", "no name")
    await client.command("DEL", "{fwd0}:qh")
    if settled:
        assert await queue.settle(one, "one", left=one, delay=0, reports=[report])
        assert [each.held.id for each in await claim(queue, "two")] == [report.id]
    else:
        await end_leases(client)
        assert await claim(queue, "two") == []
    (dead,) = [item async for item in queue.list(dead=True)]
    assert dead.id == one.id


async def test_dots_are_counted_over_leases_until_an_attempt_is_settled(queue: RedisQueue, client: StoreClient) -> None:
    one = held()
    await queue.put([one])
    for number in range(3):
        assert await claim(queue, f"lease{number}") == [Claimed(one, dots=number)]
        # At the dot with one host after the other it is one attempt still.
        assert await queue.mark_dot(one.id, f"lease{number}")
        assert await queue.mark_dot(one.id, f"lease{number}")
        await end_leases(client)
    # A crash before the dot forgets none of those before.
    assert await claim(queue, "early") == [Claimed(one, dots=3)]
    await end_leases(client)
    assert await claim(queue, "last") == [Claimed(one, dots=3)]
    await queue.settle(one, "last", left=one, delay=0)
    assert await claim(queue, "new") == [Claimed(one, dots=0)]


async def test_dead_letters_are_made_in_the_step_that_settles_however_full_it_is(
    client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    queue = RedisQueue(client, ledger, journal=journal, max_body=1000, high_water=30)
    one, letter = held(), held("e1.0.d0", head=b"x" * 100)
    await queue.put([one])
    await claim(queue)
    assert await queue.settle(one, "one", left=None, delay=0, dead=[(letter, "nobody may be told")])
    assert await claim(queue, "two") == []
    (dead,) = [item async for item in queue.list()]
    assert (dead.id, dead.dead) == ("e1.0.d0", "nobody may be told")
    assert await queue.held_octets() == await octets_in_store(client)


@pytest.mark.parametrize("dotted", [False, True])
async def test_a_lease_that_ran_out_is_somebody_elses_and_tells_of_the_dot(
    queue: RedisQueue, client: StoreClient, dotted: bool
) -> None:
    one = held()
    await queue.put([one])
    await claim(queue, "one")
    if dotted:
        assert await queue.mark_dot(one.id, "one")
    assert await claim(queue, "two") == []
    await end_leases(client)
    assert await claim(queue, "two") == [Claimed(one, dots=int(dotted))]
    assert await queue.mark_dot(one.id, "one") is False
    assert await queue.settle(one, "one", left=None, delay=0, reports=[held("r")]) is False
    assert await queue.bury(one, "one", "late") is False
    assert await queue.settle(one, "two", left=one, delay=0, reports=()) is True
    # The mark belonged to the lease.
    assert await claim(queue, "three") == [Claimed(one, dots=0)]


async def test_a_lease_that_is_renewed_goes_on_and_one_that_was_lost_does_not(
    queue: RedisQueue, client: StoreClient
) -> None:
    one = held()
    await queue.put([one])
    await claim(queue, "one")
    await end_leases(client)
    await queue.renew([one.id], "one", 60)
    await queue.renew([one.id], "another", 0)
    assert await claim(queue, "two") == []
    await end_leases(client)
    await claim(queue, "two")
    await queue.renew([one.id], "one", 600)
    await end_leases(client)
    assert len(await claim(queue, "three")) == 1


async def test_what_is_put_under_a_lease_belongs_to_the_attempt_that_goes_on(
    queue: RedisQueue, client: StoreClient
) -> None:
    one = held()
    await queue.put([one], lease="attempt", seconds=60)
    assert await claim(queue) == []
    assert await queue.mark_dot(one.id, "attempt")
    await end_leases(client)
    assert await claim(queue) == [Claimed(one, dots=1)]
