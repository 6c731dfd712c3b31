"""Whose message is next? Fairness between aliases: a mail bomb to one of them does not have the process to itself.

At most so many messages of one alias (``limits.alias_at_once``) are worked on while mail for others comes in; its next ones wait
for one of them to end, ``PATIENCE`` seconds at the most, and then go ahead all the same. So nothing that is slow outside (a DNS
server, a next hop) can close an alias, and an alias that has the service to itself has all of it.
docs/decisions/0038-odd-names-and-bombs.md
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import suppress

from forwarder.model import Address

__all__ = ["OTHERS_WITHIN", "PATIENCE", "Turns"]

PATIENCE = 1.0
#: Seconds for which mail for another alias counts as somebody who is there.
OTHERS_WITHIN = 10.0
_NEVER = float("-inf")


class Turns:
    """One for all sessions of port 25 of a process, whatever is reloaded. ``begin`` and ``end`` around each message."""

    def __init__(self) -> None:
        self._inside: Counter[Address] = Counter()
        self._waiting: dict[Address, deque[asyncio.Future[None]]] = {}
        #: Whom the latest message was for, when, and when the latest for anybody else.
        self._latest: Address | None = None
        self._latest_at = self._others_at = _NEVER

    async def begin(self, alias: Address, at_once: int) -> None:
        """Wait for its turn. ``at_once`` 0: there are no turns."""
        loop = asyncio.get_running_loop()
        others = self._note(alias, loop.time())
        if not others or not at_once or self._inside[alias] < at_once:
            self._inside[alias] += 1
            return
        turn: asyncio.Future[None] = loop.create_future()
        line = self._waiting.setdefault(alias, deque())
        line.append(turn)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.end(alias)
            raise
        finally:
            with suppress(ValueError):
                line.remove(turn)
            if not line and self._waiting.get(alias) is line:
                del self._waiting[alias]
        if turn.cancelled():
            # Nobody handed over the place of another.
            self._inside[alias] += 1

    def end(self, alias: Address) -> None:
        """Its place goes to the one that has waited longest."""
        line = self._waiting.get(alias) if self._waiting else None
        while line:
            turn = line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        left = self._inside.pop(alias) - 1
        if left:
            self._inside[alias] = left

    def _note(self, alias: Address, now: float) -> bool:
        """Has there been mail for anybody else lately?"""
        if alias != self._latest:
            self._latest, self._others_at = alias, self._latest_at
        self._latest_at = now
        return now - self._others_at < OTHERS_WITHIN
