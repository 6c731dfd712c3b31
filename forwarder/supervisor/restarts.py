"""When may a worker that died be started again? At once, unless it keeps dying."""

from __future__ import annotations

__all__ = ["Restarts"]

#: Seconds of life after which what happened before is forgotten.
STEADY = 60.0
#: Deaths, none of them after a steady life, from which on each pause is twice the last.
PATIENCE = 5
#: Seconds until the next start before that, after it at first, and at most.
SOON, FIRST, LONGEST = 0.1, 1.0, 60.0


class Restarts:
    """Of one worker. Times are seconds of any one clock."""

    def __init__(self) -> None:
        #: Deaths without a steady life in between.
        self.deaths = 0
        self._born = 0.0

    def born(self, now: float) -> None:
        """It was started."""
        self._born = now

    def pause(self, now: float) -> float:
        """It died: seconds until it is started again."""
        if now - self._born >= STEADY:
            self.deaths = 0
        self.deaths += 1
        if self.deaths < PATIENCE:
            return SOON
        return min(FIRST * 2.0 ** min(self.deaths - PATIENCE, 30), LONGEST)
