"""What was the life of a message, for who asks later? Keeps what the journal is told of messages, and hands it to the store.

``Tracing`` is a journal in front of the journal. Events that bear a message's id wait here for a moment and go to the store
together, many messages in one trip. Mail never waits for that: while the store is away or slow, what does not fit is dropped,
and the life that is short of something says so.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import islice
from typing import Any

from forwarder.ports import Clock, Journal, StoreAway, Traced, TraceEvent, Traces

__all__ = ["Tracing"]

#: Seconds between two trips, and that a life waits at least: nearly every one leaves whole, and within twice of that.
PAUSE = 0.5
#: Messages that wait for the store. A bit over a second at the highest rate of one process.
MAX_WAITING = 4000
#: Events of one of them that do: what a list of ten thousand makes when it is queued.
MAX_EVENTS = 500
#: Messages of one trip.
BATCH = 500
#: What is said of every message in nearly the same words, or of a part of the program rather than of it.
_LEFT_OUT = frozenset({"message.sealed", "queue.away", "ledger.away", "fault"})


class Tracing:
    """``ports.Journal``. Belongs to one event loop; ``close`` when there is nothing more to come."""

    def __init__(self, journal: Journal, traces: Traces, clock: Clock) -> None:
        self._journal = journal
        self._traces = traces
        self._clock = clock
        self._waiting: dict[str, Traced] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def event(self, name: str, /, **fields: Any) -> None:
        """See ``ports.Journal``."""
        self._journal.event(name, **fields)
        id_ = fields.get("id")
        if not isinstance(id_, str) or name in _LEFT_OUT or self._closed:
            return
        traced = self._waiting.get(id_)
        if traced is None:
            if len(self._waiting) >= MAX_WAITING:
                self._drop_one()
            traced = self._waiting[id_] = Traced(id_)
        if len(traced.events) >= MAX_EVENTS:
            traced.dropped += 1
            return
        del fields["id"]
        traced.events.append(TraceEvent(self._clock.now().timestamp(), name, fields))
        if self._task is None:
            self._task = asyncio.ensure_future(self._hand_over())

    def _drop_one(self) -> None:
        """The oldest goes, but for the mark that it was there."""
        id_, oldest = next(iter(self._waiting.items()))
        del self._waiting[id_]
        self._journal.event("trace.dropped", message=id_, events=len(oldest.events))

    async def _hand_over(self) -> None:
        while self._waiting:
            begun = len(self._waiting)
            await asyncio.sleep(PAUSE)
            await self._give(begun)
        self._task = None

    async def flush(self) -> None:
        """Hand over what waits, as much as one trip takes."""
        await self._give(len(self._waiting))

    async def _give(self, count: int) -> None:
        """The oldest so many of them."""
        batch = [self._waiting.pop(id_) for id_ in list(islice(self._waiting, min(count, BATCH)))]
        try:
            await self._traces.append(batch)
        except StoreAway:
            # Back to the front, behind nothing that came meanwhile: the order within a life is what matters.
            for one in reversed(batch):
                if len(self._waiting) < MAX_WAITING:
                    self._put_back(one)
                else:
                    self._journal.event("trace.dropped", message=one.id, events=len(one.events))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end all traces that follow
            self._journal.event("fault", where="traces", reason=f"{type(error).__name__}: {error}")
            for one in batch:
                self._journal.event("trace.dropped", message=one.id, events=len(one.events))

    def _put_back(self, one: Traced) -> None:
        later = self._waiting.pop(one.id, None)
        if later is not None:
            one.events += later.events
            one.dropped += later.dropped
        self._waiting = {one.id: one} | self._waiting

    async def close(self) -> None:
        """Hand over what waits, once."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        while self._waiting:
            before = len(self._waiting)
            await self.flush()
            if len(self._waiting) >= before:
                return
