"""How many TLS handshakes are under way, and whose? STARTTLS and TLS ports together, over all sessions of a process.

A handshake that does not go on costs little but a place; so one address has a share of the places, and all have an end.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv6Address

from forwarder.edge.clients import address_key

__all__ = ["Shaking"]

#: One address (IPv6 /64) may have this part of all places.
_SHARE = 8


class Shaking:
    """``most`` comes with each question, as it may change in a reload."""

    def __init__(self) -> None:
        self._total = 0
        self._by_client: Counter[int] = Counter()

    def begin(self, ip: IPv4Address | IPv6Address, most: int) -> bool:
        """Count one more, if there is a place for it; then ``end`` follows."""
        client = address_key(ip)
        if self._total >= most or self._by_client[client] >= max(1, most // _SHARE):
            return False
        self._total += 1
        self._by_client[client] += 1
        return True

    def end(self, ip: IPv4Address | IPv6Address) -> None:
        """It is done, or failed."""
        self._total -= 1
        self._by_client -= Counter((address_key(ip),))
