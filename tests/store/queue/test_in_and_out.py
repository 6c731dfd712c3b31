"""store/queue.py: does what is put in come out as it was, once, and is nothing left of it then?"""

from __future__ import annotations

from dataclasses import replace

from forwarder.ports import Claim, Claimed
from forwarder.store.client import StoreClient
from forwarder.store.ledger import RedisLedger
from forwarder.store.queue import RedisQueue
from tests.store.queue.items import BODY, claim, held, keys, octets_in_store, pass_time


async def test_what_is_put_comes_out_as_it_was(queue: RedisQueue) -> None:
    one = held(recipients=3)
    await queue.put([one])
    assert await claim(queue) == [Claimed(one, dots=0)]


async def test_what_waits_is_nobodys_until_it_is_due(queue: RedisQueue) -> None:
    await queue.put([held()], delay=300)
    assert await claim(queue) == []
    due = await queue.next_due()
    assert due is not None
    assert 299 < due <= 300


async def test_nothing_is_left_of_what_was_settled(queue: RedisQueue, client: StoreClient) -> None:
    one = held()
    await queue.put([one])
    await claim(queue)
    assert await queue.settle(one, "one", left=None, delay=0, reports=())
    assert await keys(client, b"qi") == await keys(client, b"qb") == await keys(client, b"qw") == []
    assert await queue.held_octets() == 0
    assert await queue.next_due() is None


async def test_putting_twice_changes_nothing_while_it_waits_and_after_it_was_settled(queue: RedisQueue) -> None:
    one = held()
    await queue.put([one])
    await queue.put([one])
    assert len(await claim(queue)) == 1
    await queue.put([one])
    assert await claim(queue, "two") == []
    await queue.settle(one, "one", left=None, delay=0, reports=())
    await queue.put([one])
    assert await claim(queue, "three") == []


async def test_what_was_delivered_is_remembered_in_the_same_step_whoever_has_the_lease(
    queue: RedisQueue, ledger: RedisLedger
) -> None:
    one, other = held(), held("e2.0")
    await queue.put([one, other])
    await claim(queue)
    for each, lease, ours in ((one, "one", True), (other, "lost", False)):
        (waiting,) = each.waiting
        assert waiting.forwarded is not None
        forwarded = replace(waiting.forwarded, message_id=f"<{each.id}@x>")
        assert await queue.settle(each, lease, left=None, delay=0, forwards=[forwarded]) is ours
        assert await ledger.find_forward(forwarded.reversible, forwarded.message_id, []) == forwarded


async def test_a_body_is_kept_once_for_all_that_carry_it(queue: RedisQueue, client: StoreClient) -> None:
    several = [held(f"e1.{number}", f"d{number}.example") for number in range(5)]
    await queue.put(several)
    assert len(await keys(client, b"qb")) == 1
    assert (
        await queue.held_octets() == await octets_in_store(client) == len(BODY) + 5 * len(several[0].delivery.data[0])
    )
    for one in await claim(queue):
        assert one.held.delivery.data[1] == BODY
        await queue.settle(one.held, "one", left=None, delay=0, reports=())
    assert await keys(client, b"qb") == []


async def test_what_is_queued_is_marked_in_the_ledger_in_the_same_step(queue: RedisQueue, ledger: RedisLedger) -> None:
    await queue.put([held()])
    assert await ledger.claim([bytes([0]) * 32], "retry") == [Claim.DELIVERED]


async def test_what_is_left_waits_for_its_time_and_reports_go_out_in_the_same_step(
    queue: RedisQueue, client: StoreClient
) -> None:
    one = held(recipients=2)
    await queue.put([one])
    await claim(queue)
    left = replace(
        one,
        delivery=replace(one.delivery, recipients=one.delivery.recipients[:1], attempts=1),
        waiting=one.waiting[:1],
        maybe_dup=True,
    )
    report = held("e1.0.r0", "sender.example", body=b"report\r\n")
    assert await queue.settle(one, "one", left=left, delay=0.3, reports=[report])
    # Asked again after a lost answer, the answer is the same, and nothing is done twice.
    assert await queue.settle(one, "one", left=left, delay=0.3, reports=[report])
    assert await claim(queue, "two") == [Claimed(report, dots=0)]
    due = await queue.next_due()
    assert due is not None
    await pass_time(client, 0.31)
    assert await claim(queue, "three") == [Claimed(left, dots=0)]
