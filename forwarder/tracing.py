"""What was the life of a message, for who asks later? Keeps what the journal is told of messages, and hands it to the store.

``Tracing`` is a journal in front of the journal. Events that bear a message's id wait here for a moment and go to the store
together, many messages in one trip. Mail never waits for that: while the store is away or slow, what does not fit is dropped,
and the life that is short of something says so.

Where traces lie at several servers and one of them is away, what is left of a message waits by itself and goes with the next
trips, as far as new ones leave room in them. It is also what is dropped first, so that the dead keep nothing from the living.
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
        #: What some servers have taken and others have not.
        self._left: dict[str, Traced] = {}
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
            traced = self._left.pop(id_, None)
            if traced is None:
                if self._is_full():
                    self._drop_one()
                traced = Traced(id_)
            self._waiting[id_] = traced
        if len(traced.events) >= MAX_EVENTS:
            traced.dropped += 1
            return
        del fields["id"]
        traced.events.append(TraceEvent(self._clock.now().timestamp(), name, fields))
        if self._task is None:
            self._task = asyncio.ensure_future(self._hand_over())

    def _is_full(self) -> bool:
        return len(self._waiting) + len(self._left) >= MAX_WAITING

    def _drop_one(self) -> None:
        """The oldest goes, but for the mark that it was there."""
        full = self._left or self._waiting
        self._tell_dropped(full.pop(next(iter(full))))

    def _tell_dropped(self, one: Traced) -> None:
        unfound = {"names": len(one.leads)} if one.leads else {}
        self._journal.event("trace.dropped", message=one.id, events=len(one.events), **unfound)

    async def _hand_over(self) -> None:
        while self._waiting or self._left:
            begun = len(self._waiting)
            await asyncio.sleep(PAUSE)
            await self._give(begun)
        self._task = None

    async def flush(self) -> None:
        """Hand over what waits, as much as one trip takes."""
        await self._give(len(self._waiting))

    async def _give(self, count: int) -> None:
        """The oldest so many of them, and what is left of earlier ones as far as there is room."""
        batch = [self._waiting.pop(id_) for id_ in list(islice(self._waiting, min(count, BATCH)))]
        batch += [self._left.pop(id_) for id_ in list(islice(self._left, BATCH - len(batch)))]
        if not batch:
            return
        try:
            left = await self._traces.append(batch)
        except StoreAway:
            # Back to the front, behind nothing that came meanwhile: the order within a life is what matters.
            for one in reversed(batch):
                if not self._is_full():
                    self._waiting = {one.id: self._with_later(one)} | self._waiting
                else:
                    self._tell_dropped(one)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end all traces that follow
            self._journal.event("fault", where="traces", reason=f"{type(error).__name__}: {error}")
            for one in batch:
                self._tell_dropped(one)
        else:
            for one in left:
                if not self._is_full():
                    self._left[one.id] = self._with_later(one)
                else:
                    self._tell_dropped(one)

    def _with_later(self, one: Traced) -> Traced:
        later = self._waiting.pop(one.id, None)
        if later is not None:
            one.events += later.events
            one.dropped += later.dropped
        return one

    async def close(self) -> None:
        """Hand over what waits, once."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        while self._waiting or self._left:
            new, all_ = len(self._waiting), len(self._waiting) + len(self._left)
            await self.flush()
            if len(self._waiting) >= new and len(self._waiting) + len(self._left) >= all_:
                return
