"""Who has the message at the end of the session? Delivers while the sender waits, and remembers who got it.

Architecture decisions 2 and 3. Every (reverse-path, alias, destination, message) has a fingerprint. It is claimed before the
attempt and settled after it, so that a sender that retries gets the recipients it still lacks and nobody gets a second copy.
An attempt that outlasts the session's deadline goes on: the sender hears 451 and comes back, and finds it done.

This file waits for several deliveries at once, the one place of the core besides auth.verify that does.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from forwarder.model import Address, Deferred, Delivered, Delivery, Failed, RecipientOutcome
from forwarder.ports import Claim, Forwarded, Journal, Ledger, Relay, StoreAway

__all__ = ["ATTEMPT", "BUSY", "Dispatcher", "Fate", "Plan", "Ticket", "fingerprint"]

#: Seconds that one attempt may take in all, the wait for the answer to the final dot (600) included.
ATTEMPT = 840.0

#: Seconds between the tries to tell the store what it missed, or what it may have heard too late.
CATCH_UP = (1.0, 4.0, 15.0, 60.0, 240.0)
#: Attempts that wait for this at once; in a long outage there are others, and they are forgotten.
MAX_CATCH_UP = 1000

#: Reasons that the pipeline tells apart when it answers.
BUSY = "an earlier attempt is still under way"
STILL_UNDER_WAY = "the next hop has not answered within the session's deadline"


@dataclass(frozen=True, slots=True)
class Ticket:
    """One destination of one alias, with the fingerprint that stands for this message going there."""

    alias: Address
    destination: Address
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """A Delivery and, for each of its recipients in order, the ticket and what to remember once it is delivered."""

    delivery: Delivery
    tickets: tuple[Ticket, ...]
    forwards: tuple[Forwarded | None, ...]


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one ticket."""

    ticket: Ticket
    outcome: RecipientOutcome


def fingerprint(sender: Address | None, alias: Address, destination: Address, content: bytes) -> bytes:
    """32 octets for this message from this sender by this alias to this destination. ``content`` is a digest of its bytes."""
    parts = (str(sender or "<>"), str(alias), str(destination))
    packed = b"".join(len(one).to_bytes(4, "big") + one for one in (part.encode() for part in parts))
    return hashlib.sha256(packed + content).digest()


class Dispatcher:
    """Claims, delivers, settles."""

    def __init__(self, relay: Relay, ledger: Ledger, journal: Journal, *, in_session: float) -> None:
        self._relay = relay
        self._ledger = ledger
        self._journal = journal
        self._in_session = in_session
        self._running: set[asyncio.Task[tuple[Fate, ...]]] = set()
        self._behind: set[asyncio.Task[None]] = set()

    async def claim(self, tickets: Sequence[Ticket], attempt: str) -> dict[Ticket, Claim]:
        """Which of these are still to be delivered? Raises StoreAway; then ``take_back`` what is not delivered without."""
        claims = await self._ledger.claim([one.fingerprint for one in tickets], attempt)
        return dict(zip(tickets, claims, strict=True))

    def take_back(self, tickets: Sequence[Ticket], attempt: str) -> None:
        """Nobody delivers these under ``attempt``. Its claim was not answered, but a store that stood still carries it out when
        it wakes, and would hold the sender's retries off until the lease is over."""
        self._settle_behind(attempt, [], [one.fingerprint for one in tickets], [])

    async def deliver(self, plans: Sequence[Plan], attempt: str, *, recorded: bool) -> tuple[Fate, ...]:
        """Deliver all plans at once; whatever is not done at the deadline is Deferred here and goes on behind.
        ``recorded``: the tickets were claimed under ``attempt`` and must be settled."""
        tasks = {asyncio.ensure_future(self._attempt(plan, attempt, recorded)): plan for plan in plans}
        self._running |= tasks.keys()
        for task in tasks:
            task.add_done_callback(self._running.discard)
        if tasks:
            await asyncio.wait(tasks, timeout=self._in_session)
        fates: list[Fate] = []
        for task, plan in tasks.items():
            if task.done():
                fates += task.result()
            else:
                fates += (Fate(ticket, Deferred(STILL_UNDER_WAY)) for ticket in plan.tickets)
        return tuple(fates)

    async def _attempt(self, plan: Plan, attempt: str, recorded: bool) -> tuple[Fate, ...]:
        try:
            async with asyncio.timeout(ATTEMPT):
                outcome = await self._relay.deliver(plan.delivery)
            fates = tuple(Fate(ticket, one) for ticket, (_, one) in zip(plan.tickets, outcome.results, strict=True))
        except TimeoutError:
            fates = tuple(Fate(ticket, Deferred("the attempt took too long")) for ticket in plan.tickets)
        if recorded:
            await self._settle(plan, fates, attempt)
        return fates

    async def _settle(self, plan: Plan, fates: Sequence[Fate], attempt: str) -> None:
        delivered = [fate.ticket.fingerprint for fate in fates if isinstance(fate.outcome, Delivered)]
        released = [fate.ticket.fingerprint for fate in fates if not isinstance(fate.outcome, Delivered)]
        forwards = [
            forwarded
            for fate, forwarded in zip(fates, plan.forwards, strict=True)
            if forwarded is not None and isinstance(fate.outcome, Delivered)
        ]
        try:
            await self._ledger.settle(attempt, delivered, released, forwards)
        except StoreAway as away:
            # The next hop has the message: saying anything but 250 now would make a second copy. What may be lost is the memory:
            # until the store has it, a bounce of it is not matched, and a retry after a lost 250 is not recognised.
            self._journal.event("ledger.away", id=plan.delivery.id, step="settle", reason=str(away))
            self._settle_behind(attempt, delivered, released, forwards)

    def _settle_behind(
        self, attempt: str, delivered: Sequence[bytes], released: Sequence[bytes], forwards: Sequence[Forwarded]
    ) -> None:
        """Tell the ledger as soon as the store is back. Settling twice does no harm (ports.Ledger)."""

        async def catch_up() -> None:
            for pause in CATCH_UP:
                await asyncio.sleep(pause)
                with suppress(StoreAway):
                    await self._ledger.settle(attempt, delivered, released, forwards)
                    return

        if len(self._behind) < MAX_CATCH_UP:
            task = asyncio.ensure_future(catch_up())
            self._behind.add(task)
            task.add_done_callback(self._behind.discard)

    async def finish(self, seconds: float) -> int:
        """Wait for the attempts that go on behind a 451. Returns how many are left after ``seconds``."""
        for task in self._behind:
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running), timeout=seconds)
        return len(self._running)


def split(fates: Sequence[Fate]) -> tuple[list[Fate], list[Fate], list[Fate]]:
    """(delivered, deferred, failed)."""
    delivered = [one for one in fates if isinstance(one.outcome, Delivered)]
    deferred = [one for one in fates if isinstance(one.outcome, Deferred)]
    failed = [one for one in fates if isinstance(one.outcome, Failed)]
    return delivered, deferred, failed
