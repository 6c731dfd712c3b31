"""What was the life of a message, for who asks later? Keeps what the journal is told of messages, and hands it to the store.

``Tracing`` is a journal in front of the journal. Events that bear a message's id wait here for a moment and go to the store
together, many messages in one trip. Mail never waits for that: while the store is away or slow, what does not fit is dropped,
and the life that is short of something says so.

Where traces lie at several servers and one of them is away, what is left of a message waits by itself and goes with the next
trips, as far as new ones leave room in them. It is also what is dropped first, so that the dead keep nothing from the living.
Only a server that is silent, instead of closed, holds up a trip, now and then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from forwarder.ports import Clock, Journal, StoreAway, Traced, TraceEvent, Traces

__all__ = ["TRIPS", "Tracing"]

#: Seconds that a life waits at least: nearly every one leaves whole, and within twice of that.
PAUSE = 0.5
#: Trips in that time. While the store keeps a hundred lives it does nothing else for 5 ms, and a message that comes then waits.
TRIPS = 5
#: Messages that wait for the store. A bit over a second at the highest rate of one process.
MAX_WAITING = 4000
#: Events of one of them that do: what a list of ten thousand makes when it is queued.
MAX_EVENTS = 500
#: Events that are told before they are sorted by messages, at the most.
MAX_TOLD = 1000
#: Messages of all trips in that time.
BATCH = 500
#: In nanoseconds.
_SECOND = 1_000_000_000
#: What is said of every message in nearly the same words, or of a part of the program rather than of it.
_LEFT_OUT = frozenset({"message.sealed", "queue.away", "ledger.away", "fault"})


class Tracing:
    """``ports.Journal``. Belongs to one event loop; ``close`` when there is nothing more to come. ``trips``: in ``PAUSE``."""

    def __init__(self, journal: Journal, traces: Traces, clock: Clock, trips: int = 1) -> None:
        self._journal = journal
        self._traces = traces
        self._clock = clock
        self._trips = trips
        #: When, its name, its fields, of whatever bears an id.
        self._told: list[tuple[int, str, dict[str, Any]]] = []
        self._waiting: dict[str, Traced] = {}
        #: How many came to wait so far.
        self._came = 0
        #: What some servers have taken and others have not.
        self._left: dict[str, Traced] = {}
        self._task: asyncio.Task[None] | None = None
        self._on_the_way = False
        self._closed = False

    def event(self, name: str, /, **fields: Any) -> None:
        """See ``ports.Journal``."""
        self._journal.event(name, **fields)
        if "id" not in fields or name in _LEFT_OUT or self._closed:
            return
        self._told.append((self._clock.nanoseconds(), name, fields))
        if len(self._told) >= MAX_TOLD:
            self._sort()
        if self._task is None:
            self._task = asyncio.ensure_future(self._hand_over())

    def _sort(self) -> None:
        """What was told goes to the life that it is of. Many events in one go: each by itself takes twice as long, as what that
        needs has left the processor's caches."""
        told, self._told = self._told, []
        for at, name, fields in told:
            id_ = fields.pop("id")
            if not isinstance(id_, str):
                continue
            traced = self._waiting.get(id_)
            if traced is None:
                traced = self._left.pop(id_, None)
                if traced is None:
                    self._make_room(1)
                    traced = Traced(id_)
                self._waiting[id_] = traced
                self._came += 1
            if len(traced.events) >= MAX_EVENTS:
                traced.dropped += 1
            else:
                traced.events.append(TraceEvent(at / _SECOND, name, fields))

    def _make_room(self, more: int = 0) -> None:
        """The oldest go, what is left of others before what is new."""
        while len(self._waiting) + len(self._left) + more > MAX_WAITING:
            full = self._left or self._waiting
            self._tell_dropped(full.pop(next(iter(full))))

    def _tell_dropped(self, one: Traced) -> None:
        unfound = {"names": len(one.leads)} if one.leads else {}
        self._journal.event("trace.dropped", message=one.id, events=len(one.events), **unfound)

    async def _hand_over(self) -> None:
        came: deque[int] = deque()
        while (self._told or self._waiting or self._left) and not self._closed:
            self._sort()
            came.append(self._came)
            await asyncio.sleep(PAUSE / self._trips)
            if len(came) < self._trips:
                continue
            self._sort()
            gone = self._came - len(self._waiting)
            self._on_the_way = True
            await self._give(max(0, came.popleft() - gone))
            self._on_the_way = False
        self._task = None

    async def flush(self) -> None:
        """Hand over what waits, as much as one trip takes."""
        self._sort()
        await self._give(len(self._waiting))

    async def _give(self, count: int, *, last: bool = False) -> None:
        """The oldest so many of them, and what is left of earlier ones as far as there is room. ``last``: as of ``Traces``."""
        most = BATCH // self._trips
        new = _take(self._waiting, min(count, most))
        old = _take(self._left, most - len(new))
        if not (new or old):
            return
        try:
            rests = await self._traces.append([*new, *old], last=last)
        except StoreAway:
            # Back to the front, behind nothing that came meanwhile: the order within a life is what matters.
            self._waiting = {one.id: _joined(one, self._waiting.pop(one.id, None)) for one in new} | self._waiting
            self._leave(old)
        except asyncio.CancelledError:
            self._drop([*new, *old])
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end all traces that follow
            self._journal.event("fault", where="traces", reason=f"{type(error).__name__}: {error}")
            self._drop([*new, *old])
        else:
            self._leave(rests)
        self._make_room()

    def _leave(self, rests: Sequence[Traced]) -> None:
        """Behind the others that are left, so that each has its turn; or with what came of the same message meanwhile."""
        for one in rests:
            later = self._waiting.get(one.id)
            (self._left if later is None else self._waiting)[one.id] = _joined(one, later)

    def _drop(self, lives: Iterable[Traced]) -> None:
        for one in lives:
            self._tell_dropped(one)

    async def close(self) -> None:
        """Hand over what waits, once, and tell of what is not taken. A trip that is under way takes as long as the store may."""
        self._sort()
        self._closed = True
        try:
            if self._task is not None:
                if not self._on_the_way:
                    self._task.cancel()
                await asyncio.wait([self._task])
            last = True
            while self._waiting or self._left:
                new, all_ = len(self._waiting), len(self._waiting) + len(self._left)
                await self._give(new, last=last)
                last = False  # who is silent now is so for the rest of them
                if len(self._waiting) >= new and len(self._waiting) + len(self._left) >= all_:
                    break
        finally:
            if self._task is not None:
                self._task.cancel()  # else it has ended
            self._drop([*self._left.values(), *self._waiting.values()])
            self._left, self._waiting = {}, {}


def _take(lives: dict[str, Traced], count: int) -> list[Traced]:
    """The oldest so many."""
    return [lives.pop(id_) for id_ in list(islice(lives, count))]


def _joined(one: Traced, later: Traced | None) -> Traced:
    """With what came behind it, as far as there is room."""
    if later is not None:
        room = max(0, MAX_EVENTS - len(one.events))
        one.events += later.events[:room]
        one.dropped += later.dropped + len(later.events[room:])
    return one
