"""worker.py: what it asks of the queue when an answer was lost. All else of it is seen at work in tests/e2e/test_queue.py."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from forwarder.dispatch import UnderWay
from forwarder.model import Delivered, Delivery, Outcome, Reply
from forwarder.ports import Claimed, Held, StoreAway
from forwarder.worker import Worker, WorkerSettings
from tests.fakes import MemoryJournal
from tests.store.queue.items import held
from tests.waiting import until


class ForgetfulQueue:
    """A queue whose first answer is lost."""

    def __init__(self) -> None:
        self.leases: list[str] = []

    async def claim(self, lease: str, **_: object) -> Sequence[Claimed]:
        self.leases.append(lease)
        if len(self.leases) == 1:
            raise StoreAway("no answer")
        return []

    async def next_due(self) -> float | None:
        return None


async def test_a_claim_whose_answer_was_lost_is_asked_for_again_by_its_name() -> None:
    queue, nobody = ForgetfulQueue(), Any
    worker = Worker(queue, nobody, nobody, MemoryJournal(), WorkerSettings(), UnderWay())  # type: ignore[arg-type]
    running = asyncio.create_task(worker.run())
    for count in (1, 2, 3):
        await until(lambda: len(queue.leases) == count)  # noqa: B023 - waited for at once
        worker.wake()
    await worker.stop(1)
    await running
    lost, again, another = queue.leases[:3]
    assert lost == again != another


class FadingQueue:
    """A queue that puts one final dot on record, and is away for the next."""

    def __init__(self, claimed: Claimed) -> None:
        self.claimed = [claimed]
        self.dots = 0

    async def claim(self, lease: str, **_: object) -> Sequence[Claimed]:
        given, self.claimed = self.claimed, []
        return given

    async def next_due(self) -> float | None:
        return None

    async def mark_dot(self, id: str, lease: str, begun: object) -> bool:  # noqa: A002 - as in ports
        self.dots += 1
        if self.dots > 1:
            raise StoreAway("no answer")
        return True


class TwoHosts:
    """A next hop that takes some recipients at one host and the others at another."""

    async def deliver(self, delivery: Delivery, *, before_dot: Callable[[], Awaitable[None]]) -> Outcome:
        await before_dot()
        await before_dot()
        return Outcome(tuple((one, Delivered("mx", Reply(250, None, "ok"))) for one in delivery.recipients))


class Settled:
    """What came of it."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    async def before(self, held: Held) -> None:
        return None

    async def settle(self, held: Held, lease: str, outcome: Outcome) -> bool:
        self.outcomes.append(outcome)
        return True


async def test_a_store_that_goes_between_two_hosts_costs_no_second_copy_at_the_first() -> None:
    queue, settler, journal = FadingQueue(Claimed(held(), 0, False)), Settled(), MemoryJournal()
    worker = Worker(queue, TwoHosts(), settler, journal, WorkerSettings(), UnderWay())  # type: ignore[arg-type]
    running = asyncio.create_task(worker.run())
    await until(lambda: settler.outcomes or journal.named("queue.away"))
    await worker.stop(1)
    await running
    assert len(settler.outcomes) == 1


class StumblingQueue(ForgetfulQueue):
    """A queue in which a fault of ours shows once."""

    async def claim(self, lease: str, **_: object) -> Sequence[Claimed]:
        self.leases.append(lease)
        if len(self.leases) == 1:
            raise RuntimeError("a fault")
        return []


async def test_a_fault_of_ours_is_told_and_the_queue_is_worked_off_all_the_same() -> None:
    queue, nobody, journal = StumblingQueue(), Any, MemoryJournal()
    worker = Worker(queue, nobody, nobody, journal, WorkerSettings(), UnderWay())  # type: ignore[arg-type]
    running = asyncio.create_task(worker.run())
    await until(lambda: queue.leases)
    worker.wake()
    await until(lambda: running.done() or len(queue.leases) > 1)
    assert not running.done()
    await worker.stop(1)
    await running
    assert journal.named("fault")[0]["kind"] == "RuntimeError"


class FullQueue(ForgetfulQueue):
    """A queue that gives twelve deliveries to a hundred recipients at once."""

    async def claim(self, lease: str, **_: object) -> Sequence[Claimed]:
        self.leases.append(lease)
        return [Claimed(held(f"e1.{n}", recipients=100), 0) for n in range(12)] if len(self.leases) == 1 else []


class Counting(Settled):
    """How many began, and were recorded, in each turn of the loop?"""

    def __init__(self) -> None:
        super().__init__()
        self.turn = 0
        self.begun, self.recorded = Counter[int](), Counter[int]()

    async def count(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.turn += 1

    async def before(self, held: Held) -> None:
        self.begun[self.turn] += 1

    async def settle(self, held: Held, lease: str, outcome: Outcome) -> bool:
        self.recorded[self.turn] += 1
        return await super().settle(held, lease, outcome)


class Everybody:
    """A next hop that takes all of it when the test says so: in one turn of the loop."""

    def __init__(self) -> None:
        self.now = asyncio.Event()

    async def deliver(self, delivery: Delivery, *, before_dot: Callable[[], Awaitable[None]]) -> Outcome:
        await self.now.wait()
        return Outcome(tuple((one, Delivered("mx", Reply(250, None, "ok"))) for one in delivery.recipients))


async def test_deliveries_to_hundreds_begin_and_are_recorded_some_in_each_turn_of_the_loop() -> None:
    settler, relay = Counting(), Everybody()
    worker = Worker(FullQueue(), relay, settler, MemoryJournal(), WorkerSettings(), UnderWay())  # type: ignore[arg-type]
    counting, running = asyncio.create_task(settler.count()), asyncio.create_task(worker.run())
    await until(lambda: settler.begun.total() == 12)
    relay.now.set()
    await until(lambda: settler.recorded.total() == 12)
    await worker.stop(1)
    await running
    counting.cancel()
    assert (max(settler.begun.values()), max(settler.recorded.values())) == (2, 2)


class MixedQueue(ForgetfulQueue):
    """A delivery to one, and twelve to a hundred each, at once."""

    async def claim(self, lease: str, **_: object) -> Sequence[Claimed]:
        self.leases.append(lease)
        sizes = (1, *[100] * 12) if len(self.leases) == 1 else ()
        return [Claimed(held(f"e1.{n}", recipients=size), 0) for n, size in enumerate(sizes)]


class QuickForOne(Everybody):
    async def deliver(self, delivery: Delivery, *, before_dot: Callable[[], Awaitable[None]]) -> Outcome:
        if len(delivery.recipients) == 1:
            # All of them are there, and wait for their turn to begin.
            await asyncio.sleep(0)
            self.now.set()
        return await super().deliver(delivery, before_dot=before_dot)


class CountingAtFirst(Counting):
    """How many had begun when the first was recorded?"""

    at_first: int | None = None

    async def settle(self, held: Held, lease: str, outcome: Outcome) -> bool:
        if self.at_first is None:
            self.at_first = self.begun.total()
        return await super().settle(held, lease, outcome)


async def test_what_a_next_hop_has_taken_is_recorded_before_others_have_begun() -> None:
    """Until it is on record, a crash makes a second copy of it."""
    settler = CountingAtFirst()
    worker = Worker(MixedQueue(), QuickForOne(), settler, MemoryJournal(), WorkerSettings(), UnderWay())  # type: ignore[arg-type]
    running = asyncio.create_task(worker.run())
    await until(lambda: settler.recorded.total() == 13)
    await worker.stop(1)
    await running
    assert settler.at_first is not None
    assert settler.at_first < 8
