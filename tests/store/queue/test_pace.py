"""store/queue.py: does a next hop get no more, and no sooner, than the operator lets it?"""

from __future__ import annotations

from typing import Any

from forwarder.store.client import StoreClient
from forwarder.store.ledger import RedisLedger
from forwarder.store.queue import Pace, RedisQueue
from tests.fakes import MemoryJournal
from tests.store.queue.items import claim, held, pass_time, store_time


def paced(client: StoreClient, ledger: RedisLedger, journal: MemoryJournal, **settings: Any) -> RedisQueue:
    return RedisQueue(client, ledger, journal=journal, max_body=1000, high_water=100_000, **settings)


async def test_a_next_hop_with_a_pace_gets_one_after_the_other_and_others_do_not_wait(
    client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    queue = paced(client, ledger, journal, paces={"slow.example": Pace(5, per_minute=60)})
    await queue.put([held(f"s{number}.0", "slow.example") for number in range(3)])
    await queue.put([held(f"f{number}.0", "fast.example") for number in range(3)])
    hops = sorted(one.held.delivery.next_hop for one in await claim(queue, "one"))
    assert hops == ["fast.example"] * 3 + ["slow.example"]
    due = await queue.next_due()
    assert due is not None
    # Nobody looks before its second is over.
    assert 0.1 < due <= 1
    assert await claim(queue, "two") == []
    await pass_time(client, due)
    assert len(await claim(queue, "three")) == 1
    assert await claim(queue, "four") == []


async def test_whoever_has_a_pace_is_known_in_any_spelling(
    client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    queue = paced(client, ledger, journal, paces={"xn--bcher-kva.example": Pace(5, 60), "quick.example": Pace(5)})
    assert [queue.is_paced(one) for one in ("Bücher.example", "XN--BCHER-KVA.example")] == [True, True]
    assert [queue.is_paced(one) for one in ("quick.example", "other.example", "sub.quick.example")] == [False] * 3
    await queue.put([held("m1.0", "bücher.example"), held("m2.0", "bücher.example")])
    assert len(await claim(queue)) == 1
    assert paced(client, ledger, journal, per_minute=1).is_paced("any.example")


async def test_an_empty_queue_in_between_does_not_quicken_the_pace(
    client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    queue = paced(client, ledger, journal, per_minute=60)
    for number in range(3):
        one = held(f"s{number}.0")
        await queue.put([one])
        claimed = await claim(queue, f"lease{number}")
        assert len(claimed) == (1 if number == 0 else 0)
        if claimed:
            await queue.settle(one, f"lease{number}", left=None, delay=0)


async def test_a_high_pace_is_given_in_helpings_and_is_not_exceeded(
    client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    queue = paced(client, ledger, journal, per_minute=1200)
    await queue.put([held(f"m{number}.0") for number in range(100)])
    began = await store_time(client)
    first = await claim(queue, "one", limit=100, each=100)
    # What a second holds may go at once: 20, and the one that is always free.
    assert 20 <= len(first) <= 21
    due = await queue.next_due()
    assert due is not None
    assert due > 0.15
    await pass_time(client, 0.5)
    second = await claim(queue, "two", limit=100, each=100)
    assert 10 <= len(second) <= 1 + 20 * (await store_time(client) - began)


async def test_a_next_hop_may_have_fewer_deliveries_at_once(
    client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    queue = paced(client, ledger, journal, paces={"slow.example": Pace(2), "quick.example": Pace(7)})
    for hop in ("slow", "quick", "other"):
        await queue.put([held(f"{hop}{number}.0", f"{hop}.example") for number in range(9)])
    hops = [one.held.delivery.next_hop for one in await claim(queue, "one", limit=50, each=5)]
    assert [hops.count(f"{hop}.example") for hop in ("slow", "quick", "other")] == [2, 7, 5]
