"""Who is connected, and from where? One count for all servers that share it, as those before and after a reload do."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forwarder.edge.clients import address_key, network_key

if TYPE_CHECKING:
    from forwarder.edge.session import Session

__all__ = ["Seats"]


@dataclass(slots=True)
class Seats:
    """Those who talk to us, and those whose TLS handshake on a TLS port is not done."""

    sessions: set[Session] = field(default_factory=set)
    handshakes: set[asyncio.Task[None]] = field(default_factory=set)
    #: Sessions by address_key and by network_key.
    addresses: Counter[int] = field(default_factory=Counter)
    networks: Counter[int] = field(default_factory=Counter)

    def full(self, session: Session) -> str | None:
        """Which limit, by its name in ``[limits]``, keeps one more out; ``None``: there is room."""
        limits = session.limits
        if len(self.sessions) >= limits.sessions:
            return "sessions"
        if self.addresses[address_key(session.ip)] >= limits.sessions_per_address:
            return "sessions_per_address"
        if self.networks[network_key(session.ip)] >= limits.sessions_per_network:
            return "sessions_per_network"
        return None

    def take(self, session: Session) -> None:
        """It is connected."""
        self.sessions.add(session)
        self.addresses[address_key(session.ip)] += 1
        self.networks[network_key(session.ip)] += 1

    def give(self, session: Session) -> None:
        """It is over. One that never had a seat changes nothing."""
        if session not in self.sessions:
            return
        self.sessions.discard(session)
        for count, key in ((self.addresses, address_key(session.ip)), (self.networks, network_key(session.ip))):
            count[key] -= 1
            if not count[key]:
                del count[key]
