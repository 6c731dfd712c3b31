"""Who guesses at addresses? Counts those that are none, for each client network, over an hour.

A reversible address of ours cannot be found by guessing (srs.py: 65 bits), one of another program before us can (srslegacy.py:
16 to 24). Ten tries an hour make even those a matter of centuries, and no honest client makes one: whoever got an address from
us sends reports to that. Aliases are guessed at as well, by whoever gathers addresses; honest clients miss now and then, so
more misses are allowed.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address

from forwarder.edge.clients import address_key

__all__ = ["Guesses"]

#: Seconds that a guess is held against its network.
PERIOD = 3600.0
#: Networks that are remembered; the one that has been quiet the longest goes first.
MAX_NETWORKS = 10_000


class Guesses:
    """``allowed`` guesses for each network and hour. Times are seconds of the event loop's clock."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        #: (guesses, when the first of them was made), the latest network last.
        self._made: OrderedDict[int, tuple[int, float]] = OrderedDict()

    def note(self, ip: IPv4Address | IPv6Address, now: float) -> None:
        """This client named an address that could be one of ours and is none."""
        network = address_key(ip)
        count, since = self._made.pop(network, (0, now))
        self._made[network] = (count + 1, since) if now - since < PERIOD else (1, now)
        if len(self._made) > MAX_NETWORKS:
            self._made.popitem(last=False)

    def forgive(self, ip: IPv4Address | IPv6Address) -> None:
        """Something good came from there. Who sends as much good mail as it misses is no guesser: a mail server before us, or
        a large one that passes on what others wrote."""
        network = address_key(ip)
        count, since = self._made.get(network, (0, 0.0))
        if count > 1:
            self._made[network] = count - 1, since
        elif count:
            del self._made[network]

    def exhausted(self, ip: IPv4Address | IPv6Address, now: float, allowed: int | None = None) -> bool:
        """Has its network made as many as it may? ``allowed``: where it may make other than most."""
        count, since = self._made.get(address_key(ip), (0, now))
        return count >= (self._allowed if allowed is None else allowed) and now - since < PERIOD
