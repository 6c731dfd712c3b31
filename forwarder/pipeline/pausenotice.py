"""What does the owner of an alias hear when a destination of it is paused or disabled? One letter for each change."""

from __future__ import annotations

from ipaddress import IPv4Address

from forwarder import bounce
from forwarder.model import Address, Envelope, Peer
from forwarder.pipeline.doors import Doors, Settings
from forwarder.pipeline.owners import Owners
from forwarder.ports import QueueFull, Standing, StoreAway

__all__ = ["PauseNotices"]


class PauseNotices:
    """They go through the queue, so that nobody waits for them."""

    def __init__(self, settings: Settings, doors: Doors) -> None:
        self._settings = settings
        self._doors = doors
        self._owners = Owners(settings, doors)

    async def tell(self, alias: Address, standing: Standing, cause: str) -> None:
        """``cause``: the id of the message that was the last of many. Never raises: a letter that cannot be written is on
        record, and what it would have told is too."""
        doors, name = self._doors, f"pause.{cause}"
        owner = self._settings.routing.way(alias).owner or Address("postmaster", alias.domain)
        hostname, now = self._settings.names.hostname, doors.clock.now()
        raw = bounce.compose_pause(self._settings.letters, owner, alias, standing, hostname=hostname, id=name, now=now)
        envelope = Envelope(name, Peer(IPv4Address("127.0.0.1"), hostname), None, (), now)
        srs_domain = doors.directory.srs_domain(alias.domain)
        try:
            letters = await self._owners.address(raw, owner, envelope, id=name, srs_domain=srs_domain)
            if letters and doors.queue is not None:
                await doors.queue.put(letters)
        except (StoreAway, QueueFull) as error:
            doors.journal.event("owner.not_told", id=cause, alias=alias, owner=owner, reason=str(error))
            return
        if letters is not None:
            doors.journal.event("owner.told", id=cause, alias=alias, owner=owner, findings=len(standing.evidence))
