"""What is to go where, and what became of it? One destination is a Ticket, what goes to one next hop a Plan, how it ended a
Fate."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

from forwarder.model import Address, Deferred, Delivered, Delivery, Failed, Queued, RecipientOutcome
from forwarder.ports import Forwarded, Held
from forwarder.values import value

__all__ = [
    "BUSY",
    "PUT_ASIDE",
    "QUEUE_AWAY",
    "QUEUE_FIRST",
    "STILL_UNDER_WAY",
    "Fate",
    "Hold",
    "Plan",
    "Ticket",
    "fingerprint",
    "fingerprint_behind",
    "packed",
    "pick",
    "split",
]

#: Reasons that the pipeline tells apart when it answers.
BUSY = "an earlier attempt is still under way"
STILL_UNDER_WAY = "the next hop has not answered within the session's deadline"
QUEUE_FIRST = "the queue comes first"
QUEUE_AWAY = "the queue cannot take it now"
PUT_ASIDE = "put aside for the operator"


class Hold(Enum):
    """May we keep mail? ``auto``: what cannot go at once; ``always``: everything, first; ``never``: nothing."""

    AUTO = "auto"
    NEVER = "never"
    ALWAYS = "always"


@value
class Ticket:
    """One destination of one alias, with the fingerprint that stands for this message going there."""

    alias: Address
    destination: Address
    fingerprint: bytes

    def __hash__(self) -> int:
        # It stands for all of them, and is quick.
        return hash(self.fingerprint)


@value
class Plan:
    """A Delivery and, for each of its recipients in order, the ticket and what to remember once it is delivered. ``held`` is
    how the queue would keep it, ``None`` where it may not be kept."""

    delivery: Delivery
    tickets: tuple[Ticket, ...]
    forwards: tuple[Forwarded | None, ...]
    held: Held | None = None
    hold: Hold = Hold.NEVER


@value
class Fate:
    """What became of one ticket."""

    ticket: Ticket
    outcome: RecipientOutcome | Queued


def fingerprint(sender: Address | None, alias: Address, destination: Address, content: bytes) -> bytes:
    """32 octets for this message from this sender by this alias to this destination. ``content`` is a digest of its bytes."""
    return fingerprint_behind(packed(sender or "<>") + packed(alias), destination, content)


def fingerprint_behind(begin: bytes, destination: Address, content: bytes) -> bytes:
    return hashlib.sha256(begin + packed(destination) + content).digest()


def packed(one: Address | str) -> bytes:
    octets = str(one).encode()
    return len(octets).to_bytes(4, "big") + octets


def split(fates: Sequence[Fate]) -> tuple[list[Fate], list[Fate], list[Fate]]:
    """(ours no more or ours to deliver, deferred, failed)."""
    taken: list[Fate] = []
    deferred: list[Fate] = []
    failed: list[Fate] = []
    into = {Delivered: taken, Queued: taken, Deferred: deferred, Failed: failed}
    for one in fates:
        into[type(one.outcome)].append(one)
    return taken, deferred, failed


def pick(held: Held, indexes: Sequence[int]) -> Held:
    """The same for some of its recipients only."""
    delivery = held.delivery
    recipients = tuple(delivery.recipients[one] for one in indexes)
    notices = tuple(delivery.notices[one] for one in indexes) if delivery.notices else ()
    waiting = tuple(held.waiting[one] for one in indexes)
    return replace(held, delivery=replace(delivery, recipients=recipients, notices=notices), waiting=waiting)
