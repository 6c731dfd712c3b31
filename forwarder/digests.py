"""When do owners of aliases get the digest of a day? Some time after its end (UTC), from whichever process is first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date, timedelta

from forwarder.ports import Clock, Journal, StoreAway

__all__ = ["LOOK", "START", "DailyDigests"]

#: Seconds between two looks.
LOOK = 60.0
#: Seconds after midnight from which on digests go: a process draws its own, so that two of them rarely write the same.
START = (60.0, 1800.0)


class DailyDigests:
    """``send`` sends those of a day, to who has not had them; ``start``: seconds after midnight."""

    def __init__(self, send: Callable[[date], Awaitable[None]], clock: Clock, journal: Journal, start: float) -> None:
        self._send = send
        self._clock = clock
        self._journal = journal
        self._start = timedelta(seconds=start)

    async def run(self) -> None:
        """For as long as the program runs."""
        while True:
            await asyncio.sleep(LOOK)
            await self.send_if_due()

    async def send(self, day: date) -> None:
        """Those of this day, now. Raises StoreAway."""
        await self._send(day)

    async def send_if_due(self) -> None:
        """Yesterday's, and those that the queue did not take until now."""
        day = (self._clock.now() - self._start).date() - timedelta(days=1)
        try:
            await self._send(day)
        except StoreAway as away:
            self._journal.event("digest.away", reason=str(away))
