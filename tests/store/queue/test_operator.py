"""store/queue.py: what may an operator do with what waits, is under way or is dead?"""

from __future__ import annotations

import pytest

from forwarder.ports import Claimed
from forwarder.store.client import StoreClient
from forwarder.store.queue import Did, Do, RedisQueue
from tests.store.queue.items import claim, end_leases, held, keys


async def test_a_dead_letter_is_seen_and_waits_for_the_operator(queue: RedisQueue) -> None:
    one, other = held(), held("e2.0", "other.example")
    await queue.put([one, other])
    await claim(queue)
    assert await queue.bury(one, "one", "nobody may be told")
    assert await claim(queue, "two") == []
    (dead,) = [item async for item in queue.list(dead=True)]
    assert (dead.id, dead.dead, dead.due_in, dead.leased) == ("e1.0", "nobody may be told", None, False)
    (leased,) = [item async for item in queue.list() if item.dead is None]
    assert (leased.id, leased.leased) == ("e2.0", True)
    assert await queue.do(leased.id, Do.DROP) is Did.BUSY
    assert await queue.do(dead.id, Do.RETRY) is Did.DONE
    assert await claim(queue, "three") == [Claimed(one, dots=0)]
    assert [item async for item in queue.list(dead=True)] == []


async def test_an_operator_reads_drops_and_hurries(queue: RedisQueue) -> None:
    one = held()
    await queue.put([one], delay=300)
    assert await queue.read(one.id) == one
    assert await queue.read("nothing") is None
    assert await queue.do(one.id, Do.RETRY) is Did.DONE
    assert await claim(queue) == [Claimed(one, dots=0)]
    await queue.settle(one, "one", left=one, delay=300, reports=())
    assert await queue.do(one.id, Do.DROP) is Did.DONE
    assert await queue.do(one.id, Do.DROP) is Did.MISSING
    assert await queue.held_octets() == 0


async def test_a_long_list_comes_in_pages(queue: RedisQueue) -> None:
    await queue.put([held(f"m{number}.0", f"d{number}.example") for number in range(450)])
    ids = [one.id async for one in queue.list()]
    assert (len(ids), len(set(ids))) == (450, 450)


async def test_what_is_on_hold_stays_and_is_nobodys_turn_until_it_is_released(queue: RedisQueue) -> None:
    one = held()
    await queue.put([one])
    assert await queue.do(one.id, Do.HOLD) is Did.DONE
    assert await queue.do(one.id, Do.HOLD) is Did.HELD
    assert await claim(queue) == []
    assert await queue.next_due() is None
    (listed,) = [item async for item in queue.list()]
    assert (listed.on_hold, listed.due_in, listed.dead) == (True, None, None)
    assert await queue.do(one.id, Do.RETRY) is Did.HELD
    assert await queue.do(one.id, Do.RELEASE) is Did.DONE
    assert await queue.do(one.id, Do.RELEASE) is Did.FREE
    assert await claim(queue) == [Claimed(one, dots=0)]


@pytest.mark.parametrize("ends", ["settled", "lease over"])
async def test_what_is_under_way_is_on_hold_when_its_attempt_ends_without_a_result(
    queue: RedisQueue, client: StoreClient, ends: str
) -> None:
    one = held()
    await queue.put([one])
    await claim(queue, "one")
    assert await queue.do(one.id, Do.HOLD) is Did.LATER
    if ends == "settled":
        assert await queue.settle(one, "one", left=one, delay=0)
    else:
        await end_leases(client)
    assert await claim(queue, "two") == []
    assert [item.on_hold async for item in queue.list()] == [True]
    assert await queue.do(one.id, Do.RELEASE) is Did.DONE
    assert len(await claim(queue, "three")) == 1


async def test_what_is_under_way_and_then_delivered_is_gone_hold_or_not(queue: RedisQueue, client: StoreClient) -> None:
    one = held()
    await queue.put([one])
    await claim(queue, "one")
    await queue.do(one.id, Do.HOLD)
    assert await queue.settle(one, "one", left=None, delay=0)
    assert await keys(client, b"qi") == await keys(client, b"qw") == []


async def test_a_hold_of_one_does_not_keep_the_others_of_its_next_hop(queue: RedisQueue) -> None:
    await queue.put([held("m1.0"), held("m2.0")])
    await queue.do("m1.0", Do.HOLD)
    assert [one.held.id for one in await claim(queue)] == ["m2.0"]


async def test_a_dead_letter_is_not_put_on_hold(queue: RedisQueue) -> None:
    one = held()
    await queue.put([one])
    await claim(queue, "one")
    await queue.bury(one, "one", "no way")
    assert await queue.do(one.id, Do.HOLD) is Did.DEAD
    assert await queue.do(one.id, Do.RELEASE) is Did.DEAD
    assert await queue.do("nothing", Do.HOLD) is Did.MISSING


@pytest.mark.parametrize("state", ["waiting", "on hold", "dead", "next hop left alone"])
async def test_what_is_given_up_is_the_workers_at_once(queue: RedisQueue, state: str) -> None:
    one = held()
    await queue.put([one], delay=300)
    match state:
        case "on hold":
            await queue.do(one.id, Do.HOLD)
        case "dead":
            await queue.do(one.id, Do.RETRY)
            await claim(queue, "one")
            await queue.bury(one, "one", "no way")
        case "next hop left alone":
            await queue.back_off("dest.example", 300)
    assert await queue.do(one.id, Do.RETURN) is Did.DONE
    assert [item.given_up async for item in queue.list()] == [True]
    assert await claim(queue, "two") == [Claimed(one, dots=0, given_up=True)]
    assert await queue.settle(one, "two", left=None, delay=0)
    assert await queue.next_due() is None
