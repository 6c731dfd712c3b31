"""How much is done in one round of the event loop by all who do the same? A bound for a process.

A session that has a block of a large message there looks at it in one go, a millisecond or so; a delivery to a hundred
recipients is recorded in two. Twenty at once would all do so in the same round, and everybody else would wait for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["MOST", "Rounds"]

#: Octets of large messages in a round. One block more may be looked at: who begins before they are used up ends.
MOST = 256 * 1024


class Rounds:
    """Belongs to one event loop. What is counted, octets or recipients, is up to those who share it."""

    def __init__(self, most: int = MOST) -> None:
        self._most = self._left = most
        self._next: asyncio.Handle | None = None
        #: Who waits for a later round, the longest first, and for how many.
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    async def turn(self, count: int) -> None:
        """Wait until it is one's turn to deal with so many."""
        loop = asyncio.get_running_loop()
        if self._waiting or self._left <= 0:
            turn = loop.create_future()
            self._waiting.append((turn, count))
            self._schedule(loop)
            await turn
            return
        self._left -= count
        self._schedule(loop)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._next is None:
            self._next = loop.call_soon(self._begin, loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """The next round."""
        self._next, self._left = None, self._most
        while self._waiting and self._left > 0:
            turn, count = self._waiting.popleft()
            if not turn.done():
                self._left -= count
                turn.set_result(None)
        if self._left < self._most:
            self._schedule(loop)
