"""How does a header field write a time? RFC 5322 section 3.3, always UTC, never in the language of the host."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["render_date"]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def render_date(when: datetime) -> str:
    """``Mon, 23 Nov 2026 12:30:00 +0000``."""
    when = when.astimezone(UTC)
    return f"{_DAYS[when.weekday()]}, {when.day} {_MONTHS[when.month - 1]} {when.year:04} {when:%H:%M:%S} +0000"
