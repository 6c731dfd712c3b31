"""When is a delivery tried again, and when is it given up? RFC 5321 section 4.5.4.1.

Pure: the time, the count of attempts and the share of chance are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["Schedule", "pause", "spread"]

#: Share of a pause that chance moves it by, up or down: what failed together is not tried again together.
_SPREAD = 0.1
#: Doublings beyond which every pause is the longest anyway; keeps the arithmetic small.
_MAX_DOUBLINGS = 30


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds to the second attempt, and at most between two."""

    first: float
    most: float


def pause(schedule: Schedule, attempts: int, *, expires_at: datetime, now: datetime, chance: float) -> float | None:
    """Seconds to wait after ``attempts`` of them (1 or more) ended without a result; ``None``: its time is over.

    ``chance`` is from 0 to 1. The last attempt is made at ``expires_at``, not left out because it would come later.
    """
    left = (expires_at - now).total_seconds()
    if left <= 0:
        return None
    doubled = min(schedule.first * float(1 << min(max(attempts, 1) - 1, _MAX_DOUBLINGS)), schedule.most)
    return min(spread(doubled, chance), left)


def spread(seconds: float, chance: float) -> float:
    """Moved by chance, up or down."""
    return seconds * (1 + _SPREAD * (2 * chance - 1))
