"""What waits for its next attempt?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from forwarder.model import (
    Address,
    Delivery,
    Envelope,
)
from forwarder.ports.state import Begun, Forwarded
from forwarder.values import value

__all__ = ["Claimed", "Held", "Queue", "QueueFull", "QueueSize", "Waiting"]


class QueueFull(Exception):
    """This cannot be held: its body is too large, or the queue is at its high-water mark. The sender hears 4xx and keeps it."""


@value
class Waiting:
    """One recipient that a held Delivery still has to reach, in the place of its Delivery's recipient. ``alias`` is the
    address the mail was for, ``fingerprint`` its mark in the ledger (``b""``: none, a report of ours), ``forwarded`` what a
    bounce will be matched against once it is delivered."""

    alias: Address
    fingerprint: bytes
    forwarded: Forwarded | None


@value
class Held:
    """A Delivery in the queue. ``id`` is unique and the same each time the same thing is put: putting twice does no harm.

    ``delivery.attempts`` counts those that ended without a result. ``envelope`` is that of the message as it came (for a
    report: of the transaction that caused it); ``report_to`` is the verified sender that hears of a failure, ``None``: nobody
    does, and a failure ends in a dead letter. ``header_at`` is where the sender's own header begins in ``delivery.data[0]``.
    ``maybe_dup``: an earlier final dot was never answered, so that a further attempt may make a second copy. ``delay_told``:
    its sender knows that the message waits.
    """

    id: str
    delivery: Delivery
    waiting: tuple[Waiting, ...]
    envelope: Envelope
    report_to: Address | None
    srs_domain: str
    header_at: int
    queued_at: datetime
    maybe_dup: bool = False
    delay_told: bool = False


@value
class Claimed:
    """``held`` is ours until the lease ends. ``dots``: under how many leases since it was settled last a final dot was on its
    way, and the lease ended without a word (a crash). ``given_up``: the operator wants it tried no more, and its sender told."""

    held: Held
    dots: int
    given_up: bool = False


@value
class QueueSize:
    """How much is in the queue: deliveries that wait and those under lease, octets of them all, seconds since the oldest was put,
    dead letters."""

    waiting: int
    under_way: int
    octets: int
    oldest: float
    dead: int


class Queue(Protocol):
    """Durable mail (docs/decisions/0011). Every method raises ``StoreAway`` when the store is away; times that matter are the
    store's own clock."""

    def is_paced(self, next_hop: str) -> bool:
        """True: it gets only so many messages a minute, and only the queue counts them."""

    async def put(
        self,
        held: Sequence[Held],
        *,
        lease: str | None = None,
        seconds: float = 0,
        delay: float = 0,
        dead: str | None = None,
    ) -> None:
        """All of them or none, durable when it returns; the fingerprints become delivered marks in the same step, so that a
        retry of the sender's makes no second copy. With ``lease`` they belong to that attempt, which is under way, for
        ``seconds``; without one they are due in ``delay`` seconds. With ``dead``, a reason, they are dead letters from the first
        moment on. Raises ``QueueFull``."""

    async def claim(self, lease: str, *, seconds: float, limit: int, per_destination: int) -> Sequence[Claimed]:
        """Up to ``limit`` due ones for this lease, destinations taken in turn, never more than ``per_destination`` of one next
        hop under lease at a time, nor more a minute than it may have. Leases that ran out are taken back first. The same
        ``lease`` again is given the same: its answer was lost."""

    async def next_due(self) -> float | None:
        """Seconds until something can be claimed (0: now); ``None``: the queue is empty or all of it is under lease."""

    async def renew(self, ids: Sequence[str], lease: str, seconds: float, begun: Sequence[Begun] = ()) -> None:
        """The attempts that hold ``lease`` go on: those of ``ids`` that it still has keep it for ``seconds`` from now. ``begun``:
        as of ``Ledger.claim``."""

    async def mark_dot(self, id: str, lease: str, begun: Sequence[Begun] = ()) -> bool:  # noqa: A002 - what Held calls it
        """The final dot is about to leave: durable when it returns. False: the lease is not ours any more, do not send.
        ``begun``: as of ``Ledger.claim``."""

    async def settle(
        self,
        held: Held,
        lease: str,
        *,
        left: Held | None,
        delay: float,
        reports: Sequence[Held] = (),
        dead: Sequence[tuple[Held, str]] = (),
        forwards: Sequence[Forwarded] = (),
    ) -> bool:
        """One step: remember ``forwards`` like ``Ledger.settle``, replace ``held`` by ``left`` (``None``: it is done), due in
        ``delay`` seconds, put ``reports`` in, and the dead letters with their reasons, however full it is. False: the lease is
        not ours any more, and nothing was changed but what is remembered."""

    async def bury(self, held: Held, lease: str, reason: str) -> bool:
        """It becomes a dead letter that the operator sees, with ``reason``. False as for ``settle``."""

    async def back_off(self, next_hop: str, seconds: float) -> None:
        """Nothing for this next hop is due before ``seconds`` from now: it could not be reached. 0 lifts it."""
