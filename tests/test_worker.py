"""worker.py: what it asks of the queue when an answer was lost. All else of it is seen at work in tests/e2e/test_queue.py."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from forwarder.dispatch import UnderWay
from forwarder.ports import Claimed, StoreAway
from forwarder.worker import Worker, WorkerSettings
from tests.fakes import MemoryJournal
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
