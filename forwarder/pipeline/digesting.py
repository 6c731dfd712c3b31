"""Who reads the digest of a day? Each owner of aliases about whose mail there was something to tell, once."""

from __future__ import annotations

import hashlib
from datetime import date
from ipaddress import IPv4Address

from forwarder import bounce
from forwarder.model import Address, Envelope, Peer
from forwarder.pipeline.doors import Doors, Settings
from forwarder.pipeline.owners import Owners
from forwarder.ports import Digests, Queue, QueueFull

__all__ = ["Digesting"]


class Digesting:
    """Digests leave by the queue."""

    def __init__(self, settings: Settings, doors: Doors, digests: Digests, queue: Queue, srs_domain: str) -> None:
        self._settings = settings
        self._doors = doors
        self._digests = digests
        self._queue = queue
        self._srs_domain = srs_domain
        self._owners = Owners(settings, doors)

    async def send(self, day: date) -> None:
        """That of ``day``, to all who have not had it. Raises StoreAway; again does no harm."""
        for owner in await self._digests.owners(day):
            await self._send_one(day, owner)

    async def _send_one(self, day: date, owner: Address) -> None:
        findings, count = await self._digests.findings(day, owner)
        hostname, now = self._settings.names.hostname, self._doors.clock.now()
        # The same for the same digest: two processes write one.
        name = f"digest.{day.isoformat()}.{hashlib.sha256(str(owner).encode()).hexdigest()[:16]}"
        raw = bounce.compose_digest(
            self._settings.letters, owner, day, findings, count, hostname=hostname, id=name, now=now
        )
        cause = Envelope(name, Peer(IPv4Address("127.0.0.1"), hostname), None, (), now)
        letters = await self._owners.address(raw, owner, cause, id=name, srs_domain=self._srs_domain)
        try:
            await self._queue.put(letters or ())
        except QueueFull:
            # Mail comes first, and the next minute may have room.
            self._doors.journal.event("digest.not_sent", id=name, owner=owner, reason="the queue is full")
            return
        self._doors.journal.event("digest.sent", id=name, owner=owner, day=day.isoformat(), findings=count)
        await self._digests.mark_read(day, owner)
