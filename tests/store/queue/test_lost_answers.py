"""store/queue.py: is a step whose answer was lost done once, and answered the same when it is asked for again?"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from forwarder.ports import Claimed, StoreAway
from forwarder.store.client import StoreClient
from forwarder.store.ledger import RedisLedger
from forwarder.store.queue import Did, Do, RedisQueue
from forwarder.store.server import EmbeddedStore
from tests.fakes import MemoryJournal
from tests.store.queue.items import claim, end_leases, held


async def everything(client: StoreClient) -> dict[bytes, object]:
    """All that the store holds; of what counts down only that it is there."""
    found: dict[bytes, object] = {}
    for name in await client.command("KEYS", "*"):
        kind = await client.command("TYPE", name)
        match kind:
            case b"string":
                found[name] = await client.command("GET", name)
            case b"hash":
                values = await client.command("HGETALL", name)
                found[name] = dict(zip(values[::2], values[1::2], strict=True))
            case b"list":
                found[name] = await client.command("LRANGE", name, 0, -1)
            case _:
                found[name] = sorted(await client.command("ZRANGE", name, 0, -1))
    return found


Step = Callable[[RedisQueue], Awaitable[object]]
_ONE, _REPORT = held("m1.0"), held("r1.0", "sender.example", body=b"report\r\n")
_LETTER = held("m1.0.d0")


@pytest.mark.parametrize(
    ("under_lease", "step"),
    [
        pytest.param(False, lambda queue: queue.put([held("m3.0"), held("m4.0")], delay=60), id="put"),
        pytest.param(False, lambda queue: queue.put([held("m3.0")], lease="mine", seconds=60), id="put under a lease"),
        pytest.param(False, lambda queue: claim(queue, "mine", limit=1), id="claim"),
        pytest.param(True, lambda queue: queue.mark_dot("m1.0", "mine"), id="mark"),
        pytest.param(True, lambda queue: queue.renew(["m1.0"], "mine", 60), id="renew"),
        pytest.param(True, lambda queue: queue.settle(_ONE, "mine", left=None, delay=0), id="settle done"),
        pytest.param(True, lambda queue: queue.settle(_ONE, "mine", left=_ONE, delay=60), id="settle left"),
        pytest.param(
            True,
            lambda queue: queue.settle(_ONE, "mine", left=None, delay=0, reports=[_REPORT], dead=[(_LETTER, "no")]),
            id="settle with report and dead letter",
        ),
        pytest.param(True, lambda queue: queue.bury(_ONE, "mine", "no way"), id="bury"),
        pytest.param(False, lambda queue: queue.back_off("dest.example", 0), id="back off"),
        *(
            pytest.param(False, lambda queue, what=what: queue.do("m1.0", what, "op"), id=what.value)
            for what in Do
            if what is not Do.RELEASE
        ),
        pytest.param(True, lambda queue: queue.do("m1.0", Do.HOLD, "op"), id="hold under way"),
        pytest.param(False, lambda queue: queue.take(["m1.0", "m2.0"], "mine", 60), id="take"),
        pytest.param(True, lambda queue: queue.carried_away(["m1.0"], "mine"), id="carried away"),
    ],
)
async def test_a_step_that_is_asked_for_again_is_done_once_and_answered_the_same(
    queue: RedisQueue, client: StoreClient, under_lease: bool, step: Step
) -> None:
    if under_lease:
        await queue.put([_ONE], lease="mine", seconds=60)
        await queue.put([held("m2.0", "other.example")])
    else:
        await queue.put([_ONE, held("m2.0", "other.example")])
    first = await step(queue)
    after = await everything(client)
    assert await step(queue) == first
    assert await everything(client) == after


async def test_a_release_that_is_asked_for_again_is_done_once(queue: RedisQueue) -> None:
    await queue.put([held()])
    await queue.do("e1.0", Do.HOLD)
    assert await queue.do("e1.0", Do.RELEASE, "op") is Did.DONE
    assert await queue.do("e1.0", Do.RELEASE, "op") is Did.DONE
    assert len(await claim(queue)) == 1


async def test_a_claim_whose_answer_was_lost_is_given_what_it_still_has(queue: RedisQueue, client: StoreClient) -> None:
    several = [held(f"m{number}.0", f"d{number}.example") for number in range(3)]
    await queue.put(several)
    first = await claim(queue, "one", limit=2)
    await queue.settle(first[0].held, "one", left=None, delay=0)
    assert await claim(queue, "one", limit=2) == first[1:]
    await end_leases(client)
    # The lease is over: what it had may be another's now.
    assert len(await claim(queue, "two")) == 2


async def test_a_claim_that_a_store_carries_out_when_it_wakes_is_given_to_who_asks_again(
    queue: RedisQueue, server: EmbeddedStore, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    one = held()
    await queue.put([one])
    assert server.pid is not None
    client = StoreClient(server.url, journal=journal, timeout=1)
    hasty = RedisQueue(client, ledger, journal=journal, max_body=1000, high_water=100_000)
    assert await claim(hasty, "warm", limit=0) == []
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreAway):
            await claim(hasty, "mine")
    finally:
        os.kill(server.pid, signal.SIGCONT)
    # It was carried out behind our back: nobody else is given it.
    assert await claim(queue, "another") == []
    assert await claim(queue, "mine") == [Claimed(one, dots=0)]
    await client.close()
