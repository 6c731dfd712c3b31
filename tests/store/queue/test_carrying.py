"""store/queue.py: what comes along when the queue goes from one store to another?"""

from __future__ import annotations

import pytest

from forwarder.ports import Claim, Claimed, QueueFull
from forwarder.store.client import StoreClient
from forwarder.store.disk import Disk
from forwarder.store.ledger import RedisLedger
from forwarder.store.queue import Brought, Carried, Did, Do, RedisQueue
from forwarder.store.server import EmbeddedStore
from tests.fakes import MemoryJournal
from tests.store.queue.items import claim, end_leases, held, keys


async def carried(queue: RedisQueue, id: str = "e1.0", lease: str = "") -> Carried:  # noqa: A002 - what Held calls it
    (one,) = (await queue.take([id], lease, 60)).values()
    assert isinstance(one, Carried)
    return one


async def wiped(client: StoreClient, ledger: RedisLedger) -> None:
    """Another store, as far as anybody can tell: with a salt of its own."""
    await client.command("FLUSHALL")
    ledger._names, ledger._check_at = None, 0


async def test_what_is_carried_to_another_store_is_there_as_it_was(
    queue: RedisQueue, client: StoreClient, ledger: RedisLedger
) -> None:
    one = held(recipients=3)
    await queue.put([one], delay=300)
    taken = await carried(queue)
    assert (taken.held, taken.dots, taken.dead, taken.on_hold) == (one, 0, None, False)
    assert 299 < taken.due_in <= 300
    await wiped(client, ledger)
    assert await queue.bring(taken) is Brought.DONE
    assert await queue.bring(taken) is Brought.KNOWN
    due = await queue.next_due()
    assert due is not None
    assert 299 < due <= 300
    assert await queue.read(one.id) == one
    # A sender that comes back to the new host gets no second copy.
    assert await ledger.claim([bytes([0]) * 32], "retry") == [Claim.DELIVERED]


@pytest.mark.parametrize("state", ["dead", "on hold", "given up", "dotted"])
async def test_every_state_comes_along(queue: RedisQueue, client: StoreClient, ledger: RedisLedger, state: str) -> None:
    one = held()
    await queue.put([one])
    match state:
        case "dead":
            await claim(queue, "one")
            await queue.bury(one, "one", "nobody may be told")
            await client.command("ZINCRBY", "{fwd0}:qx", -3_600_000, *await keys(client, b"qi"))
        case "on hold":
            await queue.do(one.id, Do.HOLD)
        case "given up":
            await queue.do(one.id, Do.RETURN)
        case _:
            await claim(queue, "one")
            await queue.mark_dot(one.id, "one")
            await end_leases(client)
            await claim(queue, "two", limit=0)
    taken = await carried(queue)
    await wiped(client, ledger)
    assert await queue.bring(taken) is Brought.DONE
    (listed,) = [item async for item in queue.list()]
    assert listed.dead == ("nobody may be told" if state == "dead" else None)
    assert (listed.on_hold, listed.given_up) == (state == "on hold", state == "given up")
    if state == "dead":
        assert 3590 < (await carried(queue)).dead_for < 3700
    expected = {"dotted": [Claimed(one, 1)], "given up": [Claimed(one, 0, given_up=True)]}
    assert await claim(queue, "three") == expected.get(state, [])


async def test_what_was_delivered_meanwhile_is_not_brought_back(queue: RedisQueue, client: StoreClient) -> None:
    one = held()
    await queue.put([one])
    taken = await carried(queue)
    await claim(queue)
    await queue.settle(one, "one", left=None, delay=0)
    assert await queue.bring(taken) is Brought.KNOWN
    await client.command("DEL", *await keys(client, b"qt"))
    assert await queue.bring(taken) is Brought.DELIVERED
    assert await keys(client, b"qi") == []


async def test_what_was_delivered_days_ago_is_not_brought_back_either(
    queue: RedisQueue, client: StoreClient, ledger: RedisLedger
) -> None:
    one = held(recipients=2)
    await queue.put([one])
    taken = await carried(queue)
    await claim(queue)
    assert one.waiting[0].forwarded is not None
    await ledger.settle("one", [], [], [one.waiting[0].forwarded])
    await queue.settle(one, "one", left=None, delay=0)
    # The marks are gone after two days; what a bounce is matched against stays for ten.
    await client.command("DEL", *await keys(client, b"qt"), *await keys(client, b"c"))
    assert await queue.bring(taken) is Brought.DONE
    (again,) = await claim(queue, "two")
    assert again.held.delivery.recipients == one.delivery.recipients[1:]
    assert again.held.waiting == one.waiting[1:]


async def test_what_is_carried_away_is_gone_and_may_come_back(
    queue: RedisQueue, client: StoreClient, ledger: RedisLedger
) -> None:
    one = held()
    await queue.put([one])
    taken = await carried(queue, lease="mine")
    assert await claim(queue) == []
    assert await queue.carried_away([one.id], "mine") == [True]
    assert await keys(client, b"qi") == await keys(client, b"qb") == await keys(client, b"qw") == []
    assert await queue.held_octets() == 0
    # The sender's retry still makes no second copy: who has it has it.
    assert await ledger.claim([bytes([0]) * 32], "retry") == [Claim.DELIVERED]
    assert await queue.bring(taken) is Brought.DONE
    assert await queue.bring(taken) is Brought.KNOWN
    assert await claim(queue, "two") == [Claimed(one, dots=0)]
    await queue.settle(one, "two", left=None, delay=0)
    await client.command("DEL", *await keys(client, b"qt"))
    assert await queue.bring(taken) is Brought.DELIVERED


async def test_what_a_lease_lost_is_not_removed(queue: RedisQueue, client: StoreClient) -> None:
    one = held()
    await queue.put([one])
    await carried(queue, lease="mine")
    await end_leases(client)
    assert len(await claim(queue)) == 1
    assert await queue.carried_away([one.id], "mine") == [False]
    assert await queue.read(one.id) == one


@pytest.mark.parametrize("state", ["on hold", "dead"])
async def test_whom_an_exporter_leaves_behind_is_what_it_was(
    queue: RedisQueue, client: StoreClient, state: str
) -> None:
    one = held()
    await queue.put([one])
    if state == "dead":
        await claim(queue, "one")
        await queue.bury(one, "one", "no way")
    else:
        await queue.do(one.id, Do.HOLD)
    await carried(queue, lease="mine")
    await end_leases(client)
    assert await claim(queue, "two") == []
    (listed,) = [item async for item in queue.list()]
    assert (listed.leased, listed.on_hold, listed.dead is not None) == (False, state == "on hold", state == "dead")


async def test_what_is_under_way_or_missing_is_not_taken(queue: RedisQueue) -> None:
    await queue.put([held("m1.0"), held("m2.0")])
    await claim(queue, limit=1)
    taken = await queue.take(["nothing", "m1.0", "m2.0", "nor this"], "mine", 60)
    assert sorted(map(str, taken)) == ["m1.0", "m2.0", "nothing"]
    assert {Did.BUSY, Did.MISSING} == {one for one in taken.values() if isinstance(one, Did)}
    assert await queue.take(["nor this"], "mine", 60) == {"nor this": Did.MISSING}


async def test_what_is_under_way_in_a_session_is_not_brought_in(
    queue: RedisQueue, client: StoreClient, ledger: RedisLedger
) -> None:
    one = held(recipients=2)
    await queue.put([one])
    taken = await carried(queue)
    await wiped(client, ledger)
    await ledger.claim([one.waiting[1].fingerprint], "a session")
    assert await queue.bring(taken) is Brought.BUSY
    await ledger.settle("a session", [], [one.waiting[1].fingerprint], [])
    assert await ledger.claim([one.waiting[0].fingerprint], "another") == [Claim.FRESH]


async def test_what_finds_no_room_is_not_brought_in_and_claims_nothing(
    queue: RedisQueue, server: EmbeddedStore, client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    one = held()
    await queue.put([one])
    taken = await carried(queue)
    await wiped(client, ledger)
    with pytest.raises(QueueFull):
        await RedisQueue(client, ledger, journal=journal, max_body=1000, high_water=10).bring(taken)
    with pytest.raises(QueueFull):
        await RedisQueue(client, ledger, journal=journal, max_body=2, high_water=1000).bring(taken)
    disk = Disk(server.directory, client, least=1 << 80, journal=journal)
    with pytest.raises(QueueFull, match="disk"):
        await RedisQueue(client, ledger, journal=journal, max_body=1000, high_water=1000, disk=disk).bring(taken)
    assert await keys(client, b"qi") == []
    assert await ledger.claim([one.waiting[0].fingerprint], "retry") == [Claim.FRESH]
