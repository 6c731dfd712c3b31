"""Who has the message at the end of the session? Delivers while the sender waits, and holds what could not go yet.

Architecture decisions 2 and 3. Every (reverse-path, alias, destination, message) has a fingerprint. It is claimed before the
attempt and settled after it, so that a sender that retries gets the recipients it still lacks and nobody gets a second copy.

    the next hop has it in time         delivered, marked so
    it refuses                          failed; what the sender hears of it is the pipeline's
    not now, or not before the deadline put into the queue, then the sender hears 250; an attempt that still runs keeps
                                        the lease of what was queued, and settles it when it ends
    it cannot be held                   deferred: the sender hears 4xx and keeps it (too large, queue full, store away,
                                        hold = "never")

Where the operator wants it, for more next hops than one sender should wait for, and for one that gets only so many messages a
minute, the queue comes first.

This file waits for several deliveries at once, the one place of the core besides auth.verify that does.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Protocol

from forwarder.dispatch.plans import (
    PUT_ASIDE,
    QUEUE_AWAY,
    QUEUE_FIRST,
    STILL_UNDER_WAY,
    Fate,
    Hold,
    Plan,
    Ticket,
    fingerprint_behind,
    packed,
    pick,
)
from forwarder.dispatch.underway import Attempt, Late, Put, UnderWay, begun_of
from forwarder.failpoints import reach
from forwarder.model import Address, Deferred, Delivered, Envelope, Outcome, Queued
from forwarder.ports import (
    Begun,
    Charge,
    Claim,
    Forwarded,
    Held,
    Journal,
    Ledger,
    Queue,
    QueueFull,
    Relay,
    StoreAway,
    StoreUntouched,
)
from forwarder.slices import let_others, slices
from forwarder.timelimit import TimeLimit

__all__ = ["ATTEMPT", "CATCH_UP", "LEASE", "RENEWALS", "Dispatcher", "Settler"]

#: Seconds that one attempt may take in all, the wait for the answer to the final dot (600) included.
ATTEMPT = 840.0
#: Seconds that a claim and a lease hold where nothing else was chosen. Who still works renews them (``renew``), so that what a
#: dead process held is taken up within a minute, by the sender's retry or by another worker.
LEASE = 60.0
#: A lease is renewed this many times within its life: one lost renewal must not cost it.
RENEWALS = 3
#: Seconds that a sender waits where nothing else was chosen.
DEFAULT_IN_SESSION = 20.0
#: Next hops of one message that are tried while the sender waits. Lists have more, and the queue comes first for them.
MAX_IN_SESSION = 5

#: Items that are put into the queue or told of in one go; each may have a hundred recipients.
ITEMS_A_SLICE = 10

#: Seconds between the tries to settle what is under a lease.
CATCH_UP = (1.0, 4.0, 15.0, 60.0, 240.0)
#: Seconds between the tries to tell the ledger what it missed, at first and at most, and how much it is told at once.
LATE_PAUSE = (1.0, 5.0)
LATE_GROUP = 50
#: The same when the program stops: a store that is back is found to be within half a second (store.client).
LAST_PAUSES = (0.0, 0.6)
#: What waits for that (some 10 MB); in a long outage there is more, and the oldest is forgotten.
MAX_LATE = 10_000


class Settler(Protocol):
    """What becomes of a held delivery after an attempt: pipeline.aftermath."""

    def first_pause(self) -> float:
        """Seconds until what could not be delivered in session is tried again."""

    async def before(self, held: Held) -> float | Outcome | None:
        """What is to be done in the place of an attempt: wait so many seconds more, or this; ``None``: nothing."""

    async def settle(self, held: Held, lease: str, outcome: Outcome) -> bool:
        """Record what the attempt that holds ``lease`` led to. Raises StoreAway; calling again does no harm."""


class Dispatcher:
    """Claims, delivers, holds, settles. Without a queue nothing is held."""

    def __init__(
        self,
        relay: Relay,
        ledger: Ledger,
        journal: Journal,
        *,
        in_session: float,
        lease: float = LEASE,
        queue: Queue | None = None,
        settler: Settler | None = None,
        wake: Callable[[], None] = lambda: None,
        under_way: UnderWay | None = None,
    ) -> None:
        """``wake`` tells the queue's worker that something may be due."""
        self.under_way = under_way or UnderWay()
        self._relay = relay
        self._ledger = ledger
        self._journal = journal
        self._in_session = in_session
        # Zero means that the queue comes first. What it refuses is tried all the same, for as long as by default.
        self._patience = TimeLimit[asyncio.Future[None]](in_session or DEFAULT_IN_SESSION, _resolve)
        self._lease = lease
        self._attempts: set[Attempt] = set()
        self._queue = queue
        self._settler = settler
        self._wake = wake
        self._behind: set[asyncio.Task[None]] = set()
        self._unsettled = self.under_way.unsettled

    async def tickets(
        self, envelope: Envelope, ways: Iterable[tuple[Address, Address]], content: bytes, *, signed_once: bool = False
    ) -> list[Ticket]:
        """One for each (alias, destination), in their order. Once its sender has provably read that we have it, the same
        ``content`` is another message; not where its sender signs each one anew (``signed_once``), as then only a thief sends
        those octets again."""
        sender = packed(envelope.sender or "<>")
        begun, begin = None, b""
        by_way: dict[tuple[Address, Address], bytes] = {}
        for at, some in slices(list(ways)):
            if at:
                await let_others()
            for way in some:
                alias, destination = way
                if alias is not begun:
                    begun, begin = alias, sender + packed(alias)
                by_way[way] = fingerprint_behind(begin, destination, content)
        listed, plain = list(by_way), list(by_way.values())
        marks = plain
        if not signed_once:
            # A list's stay as they are: Heard tells few apart.
            marks = self.under_way.heard.distinguish(envelope.id, plain)
            again = sum(map(operator.ne, marks, plain))
            if again:
                # A middle box can acknowledge and close in its client's stead, so what goes out now is on record.
                self._journal.event("claim.again", id=envelope.id, destinations=again)
        tickets: list[Ticket] = []
        for at, some in slices(listed):
            if at:
                await let_others()
            tickets += [Ticket(*way, marks[number]) for number, way in enumerate(some, at)]
        return tickets

    def read(self, message: str) -> None:
        """The 250 to this message, by its id, was read."""
        self.under_way.heard.read(message)

    async def claim(
        self, tickets: Sequence[Ticket], attempt: str, charges: Sequence[Charge] = (), begun: Sequence[Begun] = ()
    ) -> dict[Ticket, Claim]:
        """Which of these are still to be delivered? ``begun``: as of ``Ledger.claim``. Raises RateOver, and StoreAway; then
        ``take_back`` what is not delivered without, and ``recall`` the rest."""
        fingerprints = [one.fingerprint for one in tickets]
        claims = self._unsettled.correct(fingerprints, await self._ledger.claim(fingerprints, attempt, charges, begun))
        claimed: dict[Ticket, Claim] = {}
        for at, some in slices(tickets):
            if at:
                await let_others()
            claimed.update(zip(some, claims[at:], strict=False))
        return claimed

    def recall(self, tickets: Sequence[Ticket]) -> dict[Ticket, Claim]:
        """The same from memory, while the ledger cannot be asked: what this process delivers or has delivered meanwhile, and what
        the queue may have."""
        under_way = {ticket.fingerprint for attempt in self.under_way.attempts for ticket in attempt.plan.tickets}
        claims = {one: self._unsettled.recall(one.fingerprint) for one in tickets}
        return {
            one: Claim.BUSY if claim is Claim.FRESH and one.fingerprint in under_way else claim
            for one, claim in claims.items()
        }

    def take_back(self, tickets: Sequence[Ticket], attempt: str) -> None:
        """Nobody delivers these under ``attempt``. Its claim was not answered, but a store that stood still carries it out when
        it wakes, and would hold the sender's retries off until the lease is over."""
        self._settle_behind(attempt, [], [one.fingerprint for one in tickets], [])

    async def deliver(self, plans: Sequence[Plan], attempt: str, *, recorded: bool) -> tuple[Fate, ...]:
        """Deliver all plans at once; what is not done at the deadline is queued and goes on behind, or is Deferred.
        ``recorded``: the tickets were claimed under ``attempt``; if not, the ledger hears of them when it is back."""
        first: list[Plan] = []
        now: list[Plan] = []
        for plan in plans:
            (first if self._queue_comes_first(plan, len(plans)) else now).append(plan)
        put = await self._put(first, [one.held for one in first if one.held is not None]) if first else False
        fates = await _all_queued(first, QUEUE_FIRST) if put is Put.DONE else []
        for plan in first if put is not Put.DONE else ():
            if put is Put.REFUSED and plan.hold is Hold.AUTO:
                now.append(plan)
            else:
                # Nobody knows whether the queue has it, or the operator wants nothing delivered past the queue: the sender
                # comes back, and the ledger knows.
                fates += await self._conclude(plan, _all_deferred(plan, QUEUE_AWAY), attempt, recorded, may_hold=False)
        for one in await self._start_all(now, attempt, recorded) if now else ():
            assert one.task is not None
            # With the relay done, what is left is a trip to the store, which has a limit of its own.
            fates += (
                await one.task if one.task.done() or one.outcome is not None else await self._hand_over(one, attempt)
            )
        return tuple(fates)

    async def put_aside(self, plans: Sequence[Plan], attempt: str, reason: str, *, recorded: bool) -> tuple[Fate, ...]:
        """Keep all of it for the operator, who may let it go on; nobody tries it before. What cannot be kept is Deferred."""
        held = [one.held for one in plans if one.held is not None]
        if len(held) == len(plans) and await self._put(plans, held, dead=reason) is Put.DONE:
            return tuple(await _all_queued(plans, PUT_ASIDE))
        fates: list[Fate] = []
        for plan in plans:
            fates += await self._conclude(plan, _all_deferred(plan, QUEUE_AWAY), attempt, recorded, may_hold=False)
        return tuple(fates)

    async def _start_all(self, plans: Collection[Plan], attempt: str, recorded: bool) -> Sequence[Attempt]:
        """The attempts, when all of them have ended, or patience has."""
        loop = asyncio.get_running_loop()
        enough = loop.create_future()
        left = len(plans)

        def ended() -> None:
            nonlocal left
            left -= 1
            if not left:
                _resolve(enough)

        attempts = [self._start(Attempt(one, attempt, recorded, loop.time(), ended), loop) for one in plans]
        self._patience.begin(enough, loop)
        try:
            await enough
        finally:
            self._patience.end(enough)
        return attempts

    def cut_short(self, seconds: float) -> None:
        """The program stops: no sender waits longer than this for its next hop."""
        self._patience.cut(seconds)

    def _queue_comes_first(self, plan: Plan, plans: int) -> bool:
        if self._queue is None or plan.held is None:
            return False
        if plan.hold is Hold.AUTO:
            return self._in_session == 0 or plans > MAX_IN_SESSION or self._queue.is_paced(plan.delivery.next_hop)
        return plan.hold is Hold.ALWAYS

    # --- one attempt in session

    def _start(self, one: Attempt, loop: asyncio.AbstractEventLoop) -> Attempt:
        one.task = loop.create_task(self._attempt(one))
        self._attempts.add(one)
        self.under_way.attempts.add(one)
        return one

    async def _attempt(self, one: Attempt) -> tuple[Fate, ...]:
        try:
            with self.under_way.during(one.plan.forwards):
                return await self._until_settled(one)
        finally:
            # Here and not by a callback of its task, which would cost each message a turn of the loop.
            self._attempts.discard(one)
            self.under_way.attempts.discard(one)
            one.ended()

    async def _until_settled(self, one: Attempt) -> tuple[Fate, ...]:
        plan = one.plan
        # How long that takes has a limit of the relay's own.
        one.outcome = await self._relay.deliver(plan.delivery)
        handed = await one.handed if one.handed is not None else None
        fates: tuple[Fate, ...] = ()
        if handed is not Put.DONE:
            # A sender that was told 451 comes back for it: it is not queued behind its back.
            fates = await self._conclude(plan, one.outcome, one.attempt, one.recorded, may_hold=handed is None)
        if handed in (Put.DONE, Put.UNKNOWN) and plan.held is not None:
            await self._settle_held(plan.held, one.attempt, one.outcome)
        return fates

    async def _hand_over(self, one: Attempt, attempt: str) -> tuple[Fate, ...]:
        """The session waits no longer. What is queued belongs to the attempt that goes on, until that ends or its lease does."""
        one.handed = asyncio.get_running_loop().create_future()
        put = Put.REFUSED
        try:
            if one.plan.held is not None and one.plan.hold is Hold.AUTO:
                put = await self._put([one.plan], [one.plan.held], lease=attempt)
        finally:
            one.handed.set_result(put)
        outcome = Queued(STILL_UNDER_WAY) if put is Put.DONE else Deferred(STILL_UNDER_WAY)
        return tuple(Fate(ticket, outcome) for ticket in one.plan.tickets)

    async def _settle_held(self, held: Held, lease: str, outcome: Outcome) -> None:
        assert self._settler is not None
        for pause in (0.0, *CATCH_UP):
            await asyncio.sleep(pause)
            with suppress(StoreAway):
                await self._settler.settle(held, lease, outcome)
                return
        # The lease runs out, and the queue's worker goes on from there.
        self._journal.event("queue.unsettled", id=held.delivery.id, item=held.id)

    async def _conclude(
        self, plan: Plan, outcome: Outcome, attempt: str, recorded: bool, *, may_hold: bool = True
    ) -> tuple[Fate, ...]:
        """Queue what has to wait, settle the rest."""
        # What a next hop has taken is put on record before anything else is done: until then a crash makes a second copy.
        fates = [Fate(ticket, one) for ticket, (_, one) in zip(plan.tickets, outcome.results, strict=True)]
        waits = [index for index, fate in enumerate(fates) if isinstance(fate.outcome, Deferred)]
        if waits and may_hold and plan.hold is Hold.AUTO and self._settler is not None:
            if recorded and any(isinstance(fate.outcome, Delivered) for fate in fates):
                await self._settle(plan, fates, attempt, recorded, release=False)
            held = _some_of(plan.held, waits, fates) if plan.held is not None else None
            if held is not None and await self._put([plan], [held], delay=self._settler.first_pause()) is Put.DONE:
                for index in waits:
                    fates[index] = Fate(plan.tickets[index], Queued(_reason(fates[index])))
        if any(ticket.fingerprint for ticket in plan.tickets):
            await self._settle(plan, fates, attempt, recorded)
        return tuple(fates)

    async def _settle(
        self, plan: Plan, fates: Sequence[Fate], attempt: str, recorded: bool, *, release: bool = True
    ) -> None:
        """``release``: what is neither delivered nor queued can be claimed by others again."""
        delivered: list[bytes] = []
        released: list[bytes] = []
        forwards: list[Forwarded] = []
        for fate, forwarded in zip(fates, plan.forwards, strict=True):
            if isinstance(fate.outcome, Delivered):
                delivered.append(fate.ticket.fingerprint)
                if forwarded is not None:
                    forwards.append(forwarded)
            # What is queued has its mark already, set in the step that queued it.
            elif release and not isinstance(fate.outcome, Queued):
                released.append(fate.ticket.fingerprint)
        reach("K6")
        settled = False
        try:
            if recorded:
                await self._ledger.settle(attempt, delivered, released, forwards)
                settled = True
        except StoreAway as away:
            # The next hop has the message: saying anything but 250 now would make a second copy. What may be lost is the memory:
            # until the store has it, a bounce of it is not matched.
            self._journal.event("ledger.away", id=plan.delivery.id, step="settle", reason=str(away))
        if not settled:
            self._unsettled.note(delivered, Claim.DELIVERED)
            self._settle_behind(attempt, delivered, released, forwards)
        reach("K7")

    # --- the queue

    async def _put(
        self,
        plans: Sequence[Plan],
        held: Sequence[Held],
        *,
        delay: float = 0,
        lease: str | None = None,
        dead: str | None = None,
    ) -> Put:
        """All of it or nothing. With ``lease`` it belongs to the attempt that is under way; with ``dead`` it is nobody's turn."""
        if self._queue is None or not held:
            return Put.REFUSED
        message, is_in = plans[0].delivery.id, False
        reach("K8")
        try:
            await self._queue.put(held, lease=lease, seconds=self._lease, delay=delay, dead=dead)
            is_in = True
            if lease is not None:
                # Its final dot may be on the way by now: after a crash this must not pass for a first attempt.
                await self._queue.mark_dot(held[0].id, lease, begun_of(plans[0].forwards))
        except QueueFull as full:
            self._journal.event("queue.full", id=message, reason=str(full))
            return Put.REFUSED
        except StoreAway as away:
            self._journal.event("queue.away", id=message, step="put", reason=str(away))
            if isinstance(away, StoreUntouched) and not is_in:
                return Put.REFUSED
            self._unsettled.note((each.fingerprint for one in held for each in one.waiting), Claim.BUSY)
            return Put.UNKNOWN
        for at, some in slices(held, ITEMS_A_SLICE):
            if at:
                await let_others()
            for one in some:
                self._tell_of(one, message, delay, lease, dead)
        self._wake()
        reach("K9")
        return Put.DONE

    def _tell_of(self, held: Held, message: str, delay: float, lease: str | None, dead: str | None) -> None:
        known = {"id": message, "item": held.id, "recipients": len(held.waiting)}
        if dead is not None:
            self._journal.event("queue.dead", **known, reason=dead)
            return
        timing = {"due_in": round(delay), "under_way": lease is not None}
        self._journal.event("queue.put", **known, next_hop=held.delivery.next_hop, **timing)

    # --- claims and leases

    async def renew(self) -> None:
        """For as long as the program runs: attempts that take long keep what they claimed."""
        pause = self._lease / RENEWALS
        while True:
            await asyncio.sleep(pause)
            now = asyncio.get_running_loop().time()
            for one in [one for one in self._attempts if now - one.began >= pause]:
                with suppress(StoreAway):
                    await self._renew(one)

    async def _renew(self, one: Attempt) -> None:
        if one not in self._attempts:
            return  # it ended while others were renewed: what it gave back is not claimed again
        in_queue = one.handed is not None and one.handed.done() and one.handed.result() is Put.DONE
        if not in_queue:
            # To claim again what is ours renews it (ports.Ledger).
            marks = [ticket.fingerprint for ticket in one.plan.tickets if one.recorded and ticket.fingerprint]
            await self._ledger.claim(marks, one.attempt, begun=begun_of(one.plan.forwards))
        if one.handed is not None and self._queue is not None and one.plan.held is not None:
            begun = begun_of(one.plan.forwards)
            await self._queue.renew([one.plan.held.id], one.attempt, self._lease, begun)

    # --- what the store missed

    def _settle_behind(
        self, attempt: str, delivered: Sequence[bytes], released: Sequence[bytes], forwards: Sequence[Forwarded]
    ) -> None:
        """Tell the ledger as soon as the store is back. Settling twice does no harm (ports.Ledger)."""
        late = self.under_way.late
        if len(late) >= MAX_LATE:
            if not delivered:
                return  # a claim that nobody gives back ends by itself
            del late[next(iter(late))]
        late[Late(attempt, delivered, released, forwards)] = None
        if not self._behind:
            task = asyncio.ensure_future(self._catch_up())
            self._behind.add(task)
            task.add_done_callback(self._behind.discard)

    async def _catch_up(self) -> None:
        pause, longest = LATE_PAUSE
        while self.under_way.late:
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
            await self._tell_late()

    async def _tell_late(self) -> None:
        """What the ledger does not take stays."""
        late = self.under_way.late
        # A store that was away is asked by one; the others would be refused meanwhile.
        if not late or not await self._settle_late(next(iter(late))):
            return
        while late:
            settled = await asyncio.gather(*map(self._settle_late, islice(late, LATE_GROUP)))
            if not all(settled):
                return

    async def _settle_late(self, one: Late) -> bool:
        try:
            await self._ledger.settle(one.attempt, one.delivered, one.released, one.forwards)
        except StoreAway:
            return False
        self.under_way.late.pop(one, None)
        self._unsettled.forget(one.delivered)
        return True

    async def ended(self) -> None:
        """When nothing is under way any more: each attempt, and what the store missed of it, has its own end."""
        while under_way := {*self._running(), *self._behind}:
            await asyncio.wait(under_way)

    async def finish(self, seconds: float) -> int:
        """Wait for the attempts that go on behind an answer. Returns how many are left after ``seconds``."""
        if running := self._running():
            await asyncio.wait(running, timeout=seconds)
        for task in self._behind:
            task.cancel()
        for pause in LAST_PAUSES if self.under_way.late else ():
            await asyncio.sleep(pause)
            await self._tell_late()
        return len(self._attempts)

    def _running(self) -> set[asyncio.Task[tuple[Fate, ...]]]:
        return {one.task for one in self._attempts if one.task is not None}


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _all_queued(plans: Sequence[Plan], reason: str) -> list[Fate]:
    queued, fates = Queued(reason), list[Fate]()
    for at, some in slices(plans, ITEMS_A_SLICE):
        if at:
            await let_others()
        fates += [Fate(ticket, queued) for plan in some for ticket in plan.tickets]
    return fates


def _some_of(held: Held, indexes: Sequence[int], fates: Sequence[Fate]) -> Held:
    """What is left of it after the attempt in session."""
    left = pick(held, indexes)
    uncertain = any(isinstance(one.outcome, Deferred) and one.outcome.maybe_delivered for one in fates)
    return replace(left, delivery=replace(left.delivery, attempts=1), maybe_dup=uncertain)


def _all_deferred(plan: Plan, reason: str) -> Outcome:
    return Outcome(tuple((one, Deferred(reason)) for one in plan.delivery.recipients))


def _reason(fate: Fate) -> str:
    return fate.outcome.reason if isinstance(fate.outcome, Deferred) else QUEUE_FIRST
