"""Who guesses at addresses? Counts those that are none, for each client network, over an hour.

A reversible address of ours cannot be found by guessing (srs.py: 65 bits), one of another program before us can (srslegacy.py:
16 to 24). Ten tries an hour make even those a matter of centuries, and no honest client makes one: whoever got an address from
us sends reports to that. Aliases are guessed at as well, by whoever gathers addresses; honest clients miss now and then, so
more misses are allowed.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address

from forwarder.edge.clients import address_key, network_key

__all__ = ["SITE", "Guesses"]

#: Seconds that a guess is held against its network.
PERIOD = 3600.0
#: Networks that are remembered; the one that has been quiet the longest goes first.
MAX_NETWORKS = 10_000


#: What a whole site may guess, of what one client may.
SITE = 10


class Guesses:
    """``allowed`` guesses for each client and hour, and ``by_site`` for all of an IPv4 /24 or IPv6 /48, which holds 65,536 times
    the /64 that counts as one client; ``None``: any number. Times are seconds of the event loop's clock."""

    def __init__(self, allowed: int, by_site: int | None = None) -> None:
        self._allowed = allowed
        self._by_site = by_site
        #: (guesses, when the first of them was made), the latest network last.
        self._made: OrderedDict[int, tuple[int, float]] = OrderedDict()
        #: The same by site.
        self._made_at: OrderedDict[int, tuple[int, float]] = OrderedDict()

    def note(self, ip: IPv4Address | IPv6Address, now: float) -> None:
        """This client named an address that could be one of ours and is none."""
        _count(self._made, address_key(ip), now)
        if self._by_site is not None:
            _count(self._made_at, network_key(ip), now)

    def forgive(self, ip: IPv4Address | IPv6Address) -> None:
        """Something good came from there. Who sends as much good mail as it misses is no guesser: a mail server before us, or
        a large one that passes on what others wrote."""
        if not self._made:
            return
        network = address_key(ip)
        count, since = self._made.get(network, (0, 0.0))
        if count > 1:
            self._made[network] = count - 1, since
        elif count:
            del self._made[network]

    def exhausted(self, ip: IPv4Address | IPv6Address, now: float, allowed: int | None = None) -> bool:
        """Has its network made as many as it may? ``allowed``: where it may make other than most."""
        if self._by_site is not None:
            count, since = self._made_at.get(network_key(ip), (0, now))
            if count >= self._by_site and now - since < PERIOD:
                return True
        count, since = self._made.get(address_key(ip), (0, now))
        return count >= (self._allowed if allowed is None else allowed) and now - since < PERIOD


def _count(made: OrderedDict[int, tuple[int, float]], network: int, now: float) -> None:
    count, since = made.pop(network, (0, now))
    made[network] = (count + 1, since) if now - since < PERIOD else (1, now)
    if len(made) > MAX_NETWORKS:
        made.popitem(last=False)
