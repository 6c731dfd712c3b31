"""May we ask the store now, or is it known to be away? A circuit breaker as pure state: the time is an argument.

A store that hangs costs each caller the whole time limit, and a mail server asks it twice a message: without a breaker
an outage turns into a queue of waiting sessions. So after one call without an answer the next ones are refused at once;
when ``pause`` is over one call, the probe, is let through, and what becomes of it decides.
"""

from __future__ import annotations

__all__ = ["Breaker"]


class Breaker:
    """Closed (calls pass), open (calls are refused), or half open (one probe is under way, the rest are refused)."""

    __slots__ = ("_open_until", "_pause", "_probing", "since")

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._open_until: float | None = None
        self._probing = False
        #: When the outage began that lasts, or the last one.
        self.since = 0.0

    def admits(self, now: float) -> bool:
        """True: go ahead. Whoever got True must see to it that ``worked`` or ``failed`` is called afterwards."""
        if self.refuses(now):
            return False
        self._probing = self._open_until is not None
        return True

    def refuses(self, now: float) -> bool:
        """Would a call be refused now? Asking changes nothing."""
        return self._open_until is not None and (self._probing or now < self._open_until)

    @property
    def is_open(self) -> bool:
        """Does an outage last, as far as anybody has tried?"""
        return self._open_until is not None

    def worked(self) -> bool:
        """An answer came. True when that ends an outage."""
        ended = self._open_until is not None
        self._open_until = None
        self._probing = False
        return ended

    def failed(self, now: float) -> bool:
        """No answer came. True when that begins an outage."""
        began = self._open_until is None
        if began:
            self.since = now
        self._open_until = now + self._pause
        self._probing = False
        return began
