"""How does a message leave?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from forwarder.model import (
    Address,
    Delivery,
    Outcome,
)

__all__ = ["Mailboxes", "Relay"]


class Relay(Protocol):
    """Hands a Delivery to its next hop."""

    async def deliver(self, delivery: Delivery, *, before_dot: Callable[[], Awaitable[None]] | None = None) -> Outcome:
        """One attempt over every MX that may be asked. Never raises for what a network or a peer does. Time-outs are the
        relay's own (RFC 5321 section 4.5.3.2). ``before_dot`` is awaited each time a next hop is ready for the message; what
        it raises passes, and the message is not sent there."""


class Mailboxes(Protocol):
    """Local mailbox files for postmaster and abuse."""

    async def append(self, mailbox: str, sender: Address | None, data: Sequence[bytes]) -> None:
        """Durable when it returns; raises ``OSError`` when it could not be written."""
