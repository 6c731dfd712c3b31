"""Who is connected, and from where? One count for all servers that share it, as those before and after a reload do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forwarder.edge.clients import address_key, network_key

if TYPE_CHECKING:
    from forwarder.edge.session import Session

__all__ = ["Seats"]


@dataclass(slots=True)
class Seats:
    """Those who talk to us, and those whose TLS handshake on a TLS port is not done."""

    #: With what each of them counts as: address_key and network_key.
    sessions: dict[Session, tuple[int, int]] = field(default_factory=dict)
    handshakes: set[asyncio.Task[None]] = field(default_factory=set)
    #: How many sessions there are of each.
    addresses: dict[int, int] = field(default_factory=dict)
    networks: dict[int, int] = field(default_factory=dict)

    def take(self, session: Session) -> str | None:
        """It is connected, and has a seat; or which limit, by its name in ``[limits]``, keeps it out."""
        limits, address, network = session.limits, address_key(session.ip), network_key(session.ip)
        of_address, of_network = self.addresses.get(address, 0), self.networks.get(network, 0)
        if len(self.sessions) >= limits.sessions:
            return "sessions"
        if of_address >= limits.sessions_per_address:
            return "sessions_per_address"
        if of_network >= limits.sessions_per_network:
            return "sessions_per_network"
        self.sessions[session] = address, network
        self.addresses[address] = of_address + 1
        self.networks[network] = of_network + 1
        return None

    def give(self, session: Session) -> None:
        """It is over. One that never had a seat changes nothing."""
        seat = self.sessions.pop(session, None)
        if seat is not None:
            _less(self.addresses, seat[0])
            _less(self.networks, seat[1])


def _less(counts: dict[int, int], key: int) -> None:
    left = counts.pop(key) - 1
    if left:
        counts[key] = left
