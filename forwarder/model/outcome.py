"""What became of a delivery?"""

from __future__ import annotations

from datetime import datetime

from forwarder.model.envelope import Address
from forwarder.model.reply import Reply
from forwarder.values import value


@value
class Delivered:
    """The next hop has it. ``peer`` is the host (``mx.example[192.0.2.1]:25``), ``reply`` what it said. ``dsn``: it offers DSN
    and was asked, so what there is to report is its to report (RFC 3461 section 5.2.1)."""

    peer: str
    reply: Reply
    dsn: bool = False


@value
class Deferred:
    """Not now: 4xx, unreachable, time out. ``peer`` and ``reply`` are ``None`` when nobody answered. ``maybe_delivered``: the
    final dot was sent and not answered, so that nobody knows (RFC 1047)."""

    reason: str
    peer: str | None = None
    reply: Reply | None = None
    maybe_delivered: bool = False


@value
class Failed:
    """Never: a 5xx of the next hop, or no way there (null MX, no such domain); ``reply`` always says which."""

    reason: str
    reply: Reply
    peer: str | None = None


RecipientOutcome = Delivered | Deferred | Failed


@value
class Queued:
    """Not delivered yet, and ours to deliver: it is durable. ``reason`` is why it did not go at once."""

    reason: str


@value
class Outcome:
    """What became of a Delivery, recipient by recipient, in the Delivery's order."""

    results: tuple[tuple[Address, RecipientOutcome], ...]


@value
class Finding:
    """What the owner of an alias reads of one destination that a message did not reach, or that answered. Text as it came, of
    any length: ``said`` is the reply. ``kind`` and ``status`` are ours."""

    at: datetime
    alias: str
    sender: str
    destination: str
    kind: str
    status: str
    said: str
