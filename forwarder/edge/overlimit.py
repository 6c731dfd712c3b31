"""Which limit keeps whom out? One line a second for each limit: who floods us must not fill the disk with our log."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from forwarder.ports import Journal

__all__ = ["OverLimit"]

#: Seconds between two lines about one limit.
PAUSE = 1.0


class OverLimit:
    """One for all sessions that share a journal. Times are seconds of the event loop's clock."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        #: By limit: when it was told last, and how many were not told since.
        self._told: dict[str, tuple[float, int]] = {}

    def tell(self, limit: str, ip: IPv4Address | IPv6Address, now: float) -> None:
        """This client came upon ``limit``, a name of ``[limits]``."""
        last, unsaid = self._told.get(limit, (-PAUSE, 0))
        if now - last < PAUSE:
            self._told[limit] = last, unsaid + 1
            return
        self._told[limit] = now, 0
        self._journal.event("limits.over", limit=limit, ip=str(ip), others=unsaid)
