"""Who is calling, and what do filters say of what they bring?"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from forwarder.model import (
    Address,
    Caller,
    ContentCheck,
    Envelope,
    HeloCheck,
    Message,
    Peer,
)

__all__ = ["Callers", "ComeBack", "ContentFilters", "Greylist"]


class Callers(Protocol):
    """What others say of a client."""

    def look_up(self, ip: IPv4Address | IPv6Address) -> Awaitable[Caller]:
        """Begin to ask, in the background; what comes can be awaited any number of times, behind ``asyncio.shield``. It has a
        time limit, and never raises."""

    def look_up_helo(self, peer: Peer) -> Awaitable[HeloCheck | None]:
        """The same about what it calls itself, as soon as it has; ``None``: that is not asked."""


class ContentFilters(Protocol):
    """Programs that know content: spam filters, virus scanners."""

    async def check(
        self, envelope: Envelope, message: Message, recipients: Sequence[Address]
    ) -> Sequence[ContentCheck]:
        """What each of them says, in the order of the configuration; all are asked at once. Each has a time limit. Never raises:
        one that cannot be asked is a check that says so."""


@dataclass(frozen=True, slots=True)
class ComeBack:
    """Seconds: that a new client waits, in which it must come back, and for which its network is known from then on."""

    delay: float = 300.0
    window: float = 86400.0
    keep: float = 3110400.0


class Greylist(Protocol):
    """Who has come back. Every method raises ``StoreAway`` when the store is away."""

    async def wait(self, network: str, sender: Address | None, aliases: Sequence[Address], rule: ComeBack) -> float:
        """One trip: seconds until mail from this network, of this sender and for all of these aliases is taken; 0: now."""
