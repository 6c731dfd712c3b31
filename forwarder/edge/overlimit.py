"""Which limit keeps whom out? One line a second for each limit: who floods us must not fill the disk with our log."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from forwarder.model import Refuse
from forwarder.ports import Journal

__all__ = ["OverLimit"]

#: Seconds between two lines about one limit.
PAUSE = 1.0
#: Limits and reasons that are remembered.
_MOST = 1000


class OverLimit:
    """One for all sessions that share a journal. Times are seconds of the event loop's clock."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        #: By limit: when it was told last, and how many were not told since.
        self._told: dict[str, tuple[float, int]] = {}

    def tell(self, limit: str, ip: IPv4Address | IPv6Address, now: float) -> None:
        """This client came upon ``limit``, a name of ``[limits]``."""
        others = self._unsaid(limit, now)
        if others is not None:
            self._journal.event("limits.over", limit=limit, ip=str(ip), others=others)

    def tell_put_off(self, refused: Refuse, ip: IPv4Address | IPv6Address, now: float) -> None:
        """A recipient is told to wait, for this reason. Whoever is told so may try again as often as it likes."""
        others = self._unsaid(f"rcpt {refused.reason}", now)
        if others is not None:
            code, reason = refused.reply.code, refused.reason
            self._journal.event("rcpt.refused", ip=str(ip), code=code, reason=reason, others=others)

    def _unsaid(self, what: str, now: float) -> int | None:
        """How many there were since the last that was told of; ``None``: this one is not told either."""
        last, unsaid = self._told.get(what, (now - PAUSE, 0))
        if now - last < PAUSE:
            self._told[what] = last, unsaid + 1
            return None
        if what not in self._told and len(self._told) >= _MOST:
            self._told.clear()
        self._told[what] = now, 0
        return unsaid
