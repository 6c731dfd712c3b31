"""How much mail may there be of one network, sender, alias, destination? What a message takes from its rates. docs/decisions/0026

A rate is so many messages an hour. A message takes 3600 / rate seconds of it, and as much again for each ``size_unit`` octets
that it has; what was taken comes back, a second each second, and no more than ``burst`` seconds may be out at once. The store
counts for all processes (``store/rates.py``). Here is the same in memory, of one process: for while the store is away, and so
that what is over costs no trip and no verification until it can pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from forwarder.model import Address
from forwarder.ports import Charge, RateKind, RateOver

__all__ = ["MAX_SUBJECTS", "RateMemory", "Rates"]

#: Subjects that are remembered in memory (3 MB); the oldest is forgotten first.
MAX_SUBJECTS = 20_000
#: Seconds between two lines in the log about one kind of rate: who floods us must not fill the disk with our log.
PAUSE = 1.0
_HOUR = 3600.0
#: Seconds: what sums of fractions may be wrong by.
_ROUNDING = 0.001

_Key = tuple[RateKind, str]


@dataclass(frozen=True, slots=True)
class Rates:
    """Messages an hour of each subject of a kind; a kind that is not there is not counted. ``burst`` in seconds, ``size_unit`` in
    octets. The clients of ``exempt`` are not counted by their network."""

    per_hour: Mapping[RateKind, float] = field(default_factory=dict)
    burst: float = _HOUR
    size_unit: int = 1_048_576
    exempt: tuple[IPv4Network | IPv6Network, ...] = ()

    def charge(self, kind: RateKind, subject: Address | str, octets: int = 0) -> Charge:
        """What a message of this size takes. A large one takes all there is, and passes when nothing is out: what no rate had
        room for would never be delivered."""
        least = _HOUR / self.per_hour[kind]
        most = max(self.burst, least)
        return Charge(kind, subject, min(least * (1 + octets // self.size_unit), most), most, least)


class RateMemory:
    """Times are seconds of any one clock."""

    def __init__(self) -> None:
        #: Until when no message at all passes, and when all that was taken has come back.
        self._over: dict[_Key, float] = {}
        self._back: dict[_Key, float] = {}
        #: By kind: when it was told last, and how many were not told since.
        self._told: dict[RateKind, tuple[float, int]] = {}

    def note(self, over: RateOver, now: float) -> None:
        """The store, or ``take``, says that this one is over."""
        charge = over.charge
        wait = over.wait - (charge.takes - charge.least)
        if wait > 0:
            _keep(self._over, _key(charge.kind, charge.subject), now + wait)

    def wait(self, kind: RateKind, subject: Address | str, now: float) -> float:
        """Seconds until the smallest message may pass; 0: it may, as far as we know."""
        if not self._over:
            return 0
        key = _key(kind, subject)
        until = self._over.get(key)
        if until is None:
            return 0
        if until <= now:
            del self._over[key]
            return 0
        return until - now

    def take(self, charges: Sequence[Charge], now: float) -> None:
        """Take from all, or raise RateOver: ``scripts/rates.lua`` in memory."""
        back, waits = {}, []
        for one in charges:
            key = _key(one.kind, one.subject)
            back[key] = min(max(self._back.get(key, now), now), now + one.most) + one.takes
            waits.append(back[key] - now - one.most)
        if waits and max(waits) > _ROUNDING:
            raise RateOver(charges[waits.index(max(waits))], max(waits))
        for key, time in back.items():
            _keep(self._back, key, time)

    def unsaid(self, kind: RateKind, now: float) -> int | None:
        """How many have been over since the last that was told of; ``None``: do not tell of this one."""
        last, unsaid = self._told.get(kind, (now - PAUSE, 0))
        if 0 <= now - last < PAUSE:
            self._told[kind] = last, unsaid + 1
            return None
        self._told[kind] = now, 0
        return unsaid


def _key(kind: RateKind, subject: Address | str) -> _Key:
    return kind, str(subject).lower()


def _keep(times: dict[_Key, float], key: _Key, time: float) -> None:
    times.pop(key, None)
    if len(times) >= MAX_SUBJECTS:
        del times[next(iter(times))]
    times[key] = time
