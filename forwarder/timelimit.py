"""How do many that may each take equally long share one timer? For what nearly always ends in time: a timer that each message
starts and stops costs it more than all that is looked at here."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["TimeLimit"]

_T = TypeVar("_T", bound=Hashable)


class TimeLimit(Generic[_T]):
    """``seconds`` from ``begin`` to ``end``; whatever takes longer is given to ``over``, once. Belongs to one event loop."""

    def __init__(self, seconds: float, over: Callable[[_T], None]) -> None:
        self._seconds = seconds
        self._over = over
        #: When the time of each is up, those that began first in front: so it is the first whose time is up first.
        self._ends: dict[_T, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._cut_at = math.inf

    def begin(self, one: _T, loop: asyncio.AbstractEventLoop) -> None:
        """Its time runs. ``loop`` is the running one: who has it spares Python 3.11 a question to the kernel."""
        self._ends[one] = ends_at = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(min(ends_at, self._cut_at), self._look)

    def end(self, one: _T) -> bool:
        """It took no longer than it may. False: it did. The timer runs on: until then many others will have begun."""
        return self._ends.pop(one, None) is not None

    def cut(self, seconds: float) -> None:
        """Nothing takes longer than so many seconds from now, neither what is under way nor what begins."""
        loop = asyncio.get_running_loop()
        self._cut_at = loop.time() + seconds
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._cut_at, self._look)

    def _look(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        now = loop.time()
        for one, ends_at in [*self._ends.items()]:
            if now < min(ends_at, self._cut_at):
                self._timer = loop.call_at(min(ends_at, self._cut_at), self._look)
                return
            if self.end(one):
                self._over(one)
