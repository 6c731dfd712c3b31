"""How does a header field write a time? RFC 5322 section 3.3, always UTC, never in the language of the host."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from math import floor

__all__ = ["render_date"]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def render_date(when: datetime) -> str:
    """``Mon, 23 Nov 2026 12:30:00 +0000``."""
    return _render_second(floor(when.timestamp()))


# Whatever is written within one second bears the same time.
@lru_cache(maxsize=64)
def _render_second(second: int) -> str:
    when = datetime.fromtimestamp(second, UTC)
    return f"{_DAYS[when.weekday()]}, {when.day} {_MONTHS[when.month - 1]} {when.year:04} {when:%H:%M:%S} +0000"
