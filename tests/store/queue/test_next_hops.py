"""store/queue.py: what has one next hop of another's mountain of mail?"""

from __future__ import annotations

from forwarder.store.client import StoreClient
from forwarder.store.ledger import RedisLedger
from forwarder.store.queue import RedisQueue
from tests.fakes import MemoryJournal
from tests.store.queue.items import claim, commands_run, held


async def test_a_next_hop_with_a_mountain_of_mail_keeps_nobody_waiting(
    client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    queue = RedisQueue(client, ledger, journal=journal, max_body=1000, high_water=100_000_000)
    # The first to claim of a store sends it the script.
    await claim(queue, "first", limit=0)
    cost = []
    for mountain in (10, 10_000):
        await client.command("FLUSHALL")
        ledger._check_at = 0  # the salt is gone with it
        for start in range(0, mountain, 500):
            many = range(start, min(start + 500, mountain))
            await queue.put([held(f"m{number}.0", "dead.example") for number in many])
        await queue.put([held("other.0", "living.example")])
        await client.command("CONFIG", "RESETSTAT")
        claimed = await claim(queue, limit=4, each=2)
        hops = sorted(one.held.delivery.next_hop for one in claimed)
        assert hops == ["dead.example", "dead.example", "living.example"]
        cost.append(await commands_run(client))
    # The same commands on single items, whatever lies there.
    assert cost[0] == cost[1] < 100


async def test_next_hops_at_their_limit_hide_none_that_is_not(queue: RedisQueue) -> None:
    await queue.put([held(f"{hop}{number}.0", f"{hop}.example") for hop in "abc" for number in range(3)])
    assert len(await claim(queue, "one", each=1)) == 3
    await queue.put([held("d.0", "d.example")])
    # a, b and c are due, come first and may have no more: d is found all the same, with room for one.
    for hop in "abc":
        await queue.back_off(f"{hop}.example", 0)
    assert [one.held.id for one in await claim(queue, "two", limit=1, each=1)] == ["d.0"]


async def test_of_one_next_hop_no_more_than_so_many_are_under_way(queue: RedisQueue) -> None:
    await queue.put([held(f"m{number}.0") for number in range(10)])
    first = await claim(queue, "one", each=3)
    assert len(first) == 3
    assert await claim(queue, "two", each=3) == []
    await queue.settle(first[0].held, "one", left=None, delay=0, reports=())
    assert len(await claim(queue, "three", each=3)) == 1


async def test_a_next_hop_that_is_left_alone_is_left_alone_as_a_whole(queue: RedisQueue, client: StoreClient) -> None:
    await queue.put([held("m1.0"), held("m2.0")])
    (first,) = await claim(queue, limit=1)
    await queue.back_off("dest.example", 300)
    assert await claim(queue, "two") == []
    await queue.put([held("m3.0")])
    assert await claim(queue, "three") == []
    due = await queue.next_due()
    assert due is not None
    assert 50 < due <= 60.1  # the lease of the first ends before that
    await queue.settle(first.held, "one", left=None, delay=0, reports=())
    await queue.back_off("DEST.example", 0)
    assert len(await claim(queue, "four")) == 2
