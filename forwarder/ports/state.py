"""What is remembered of a message that was forwarded, and how much may there be of it?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from enum import Enum, StrEnum
from typing import Protocol

from forwarder.model import (
    Address,
    Finding,
)
from forwarder.values import value

__all__ = [
    "Begun",
    "Charge",
    "Claim",
    "Digests",
    "Forwarded",
    "Ledger",
    "RateKind",
    "RateOver",
    "StoreAway",
    "StoreUntouched",
]


class StoreAway(Exception):
    """The store did not answer in time or refused: the caller says 451, or goes on without where nothing rests on it."""


class StoreUntouched(StoreAway):
    """And nothing was done: it is known to be away and was not asked, or it said no before it began."""


class Claim(Enum):
    """What the ledger knows of a fingerprint: never seen (now claimed for us), under way elsewhere, or done."""

    FRESH = "fresh"
    BUSY = "busy"
    DELIVERED = "delivered"


@value
class Forwarded:
    """One message that we delivered to one destination: what a bounce is matched against, and a complaint. ``notify``, ``orcpt``
    and ``envid`` are what its sender said of reports (RFC 3461), as it came. ``client`` is the IP address that it came from.
    ``verified``: a check vouched for ``sender``; if not, the reversible address is one-way."""

    reversible: Address
    sender: Address
    alias: Address
    destination: Address
    message_id: str | None
    envelope_id: str
    at: datetime
    notify: str | None = None
    orcpt: str | None = None
    envid: str | None = None
    client: str | None = None
    verified: bool = True


class RateKind(StrEnum):
    """What mail is counted by: the network of the client, the envelope sender's domain (that a check vouched for, or that was
    only claimed), an alias of ours, a destination, the domain that it leaves under, the message itself."""

    NETWORK = "network"
    DOMAIN = "domain"
    CLAIMED = "claimed"
    ALIAS = "alias"
    DESTINATION = "destination"
    SRS_DOMAIN = "srs_domain"
    REPLAY = "replay"


@value
class Charge:
    """What a message takes from one rate, in seconds. What was taken comes back with time, a second each second, and no more than
    ``most`` may be out at once; ``takes`` is never more. ``least`` is what the smallest message takes."""

    kind: RateKind
    subject: Address | str
    takes: float
    most: float
    least: float


class RateOver(Exception):
    """There is too much of it now. Nothing was claimed and nothing taken; in ``wait`` seconds this message would pass."""

    def __init__(self, charge: Charge, wait: float) -> None:
        super().__init__(f"{charge.kind} {charge.subject}: {wait:.0f} s")
        self.charge = charge
        self.wait = wait


#: What a report can be about before it is on record: a reversible address and a Message-ID.
Begun = tuple[Address, str | None]


class Ledger(Protocol):
    """What was delivered, and what it was. Every method raises ``StoreAway`` when the store is away."""

    async def claim(
        self,
        fingerprints: Sequence[bytes],
        attempt: str,
        charges: Sequence[Charge] = (),
        begun: Sequence[Begun] = (),
    ) -> Sequence[Claim]:
        """One trip: claim each 32-octet fingerprint for ``attempt`` (a unique id), or say who has it. Where one of them becomes
        ours that was not, ``charges`` are taken too, all of them; or RateOver is raised. The same attempt is charged once.
        ``begun``: what ``is_begun`` tells other hosts for as long as the lease, if one of them is ours."""

    async def is_begun(self, one: Begun) -> bool:
        """Has anybody such a message under way, or had within the last lease? No is no answer where the store is our own host's
        alone, whose workers have a shorter way to know, nor for a message without a Message-ID."""

    async def settle(
        self, attempt: str, delivered: Sequence[bytes], released: Sequence[bytes], forwards: Sequence[Forwarded]
    ) -> None:
        """One trip: mark ``delivered`` for 48 h, give ``released`` back if still ours, remember ``forwards``."""

    async def put_token(self, token: str, sender: Address) -> None:
        """Keep what an opaque reversible address stands for; idempotent. Durable when it returns."""

    async def look_up_token(self, token: str) -> Address | None:
        """The sender behind an opaque token; ``None``: unknown or expired."""

    async def find_forward(
        self, reversible: Address, message_id: str | None, destinations: Sequence[Address]
    ) -> Forwarded | None:
        """The forward a report is about: by (reversible address, Message-ID) and the destination, else by (reversible
        address, destination), else by Message-ID and the alias, else by Message-ID alone where only one destination had it."""

    async def remembers_since(self) -> date:
        """The day (UTC) on which the store began to remember, as it was new or had been wiped. What was forwarded on it or
        before may be unknown to it."""

    async def spend_bounce(self, reversible: Address, message_id: str | None) -> bool:
        """Count one report against the budget of its message and of its reversible address; False: used up."""

    async def refund_bounce(self, reversible: Address, message_id: str | None) -> None:
        """Give back what ``spend_bounce`` took: the report could not be passed on now and will come again."""

    async def note_secret(self, name: bytes, day: date) -> None:
        """A report came to an address that the SRS secret of this name (``srs.secret_name``) made: remember the day. At most
        one trip a day for each secret and process."""

    async def count_recipients(
        self, signature: bytes, recipients: Sequence[Address], *, most: int, seconds: int
    ) -> bool:
        """One trip: add these to the recipients that a signature (32 octets) was seen for; who was counted before is not
        counted again. False, and none is added, where there would be more than ``most``. Forgotten ``seconds`` after the
        last that was added."""

    async def take_note(self, domain: str) -> bool:
        """True once in a day for each domain: the note for it may go out now."""


class Digests(Protocol):
    """What owners of aliases read once a day, by day (UTC). Every method raises ``StoreAway`` when the store is away."""

    async def add_finding(self, day: date, owner: Address, id: str, finding: Finding) -> None:  # noqa: A002 - of the finding
        """The same ``id`` again is the same. Beyond some number it is counted only."""

    async def owners(self, day: date) -> Sequence[Address]:
        """Who has something to read of this day and has not had it."""

    async def findings(self, day: date, owner: Address) -> tuple[Sequence[Finding], int]:
        """What there is, and how many there were."""

    async def mark_read(self, day: date, owner: Address) -> None:
        """The owner has its digest."""
