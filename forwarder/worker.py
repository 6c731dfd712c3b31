"""Who delivers what the queue holds? Claims what is due, hands it to the relay, has the outcome settled.

A claim is a lease by the store's clock. Whoever dies with one loses it, and the next worker takes it up; where the final dot
may have been on its way, that is on record, and the message is sent once more and no third time (RFC 1047).
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from forwarder.dispatch import ATTEMPT, CATCH_UP, LEASE, RENEWALS, Settler, UnderWay, begun_of
from forwarder.failpoints import reach
from forwarder.model import Deferred, Failed, Outcome, Reply
from forwarder.ports import Claimed, Held, Journal, Queue, Relay, StoreAway
from forwarder.rounds import Rounds

__all__ = ["Worker", "WorkerSettings"]

#: Seconds after which the queue is looked at again although nothing was said to be due: other processes put things in.
POLL = 5.0
#: Seconds until a store that is away is asked again.
AWAY = 1.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Deliveries at once, and of these to one next hop; seconds of a lease, which is renewed while its attempt goes on."""

    deliveries: int = 50
    per_destination: int = 5
    lease: float = LEASE


#: Recipients whose deliveries begin, or are recorded, in one round of the loop. A list's come by the hundred, and fifty such
#: deliveries may be under way.
A_ROUND = 200

#: RFC 3463 section 3.4: X.3.0, other or undefined mail system status. What the sender of a given-up message reads.
GIVEN_UP = Reply(554, "5.3.0", "not delivered: the operator of the forwarding service has given this message up")


class _LeaseLost(Exception):
    """Another worker has it: what we hold must not be sent."""


class Worker:
    """``run`` until ``stop``. Belongs to one event loop."""

    def __init__(
        self,
        queue: Queue,
        relay: Relay,
        settler: Settler,
        journal: Journal,
        settings: WorkerSettings,
        under_way: UnderWay,
    ) -> None:
        self._queue = queue
        self._relay = relay
        self._settler = settler
        self._journal = journal
        self._settings = settings
        self._under_way = under_way
        self._running: set[asyncio.Task[None]] = set()
        self._awake = asyncio.Event()
        self._stopping = False
        #: No claim is under way, of which the answer would be lost.
        self._idle = asyncio.Event()
        self._idle.set()
        #: Deliveries that have not come to their final dot: to break them off costs nothing but the time.
        self._before_dot: set[asyncio.Task[Any]] = set()
        self._handing_back = False
        #: Apart: what a next hop has taken does not wait for what only begins.
        self._begins, self._ends = Rounds(A_ROUND), Rounds(A_ROUND)
        #: Of a claim that was not answered: the same again is given what that one was.
        self._unanswered: str | None = None

    def wake(self) -> None:
        """Something may be due, or there is room for more."""
        self._awake.set()

    async def run(self) -> None:
        """Claim and deliver, until ``stop``."""
        self._idle.clear()
        try:
            await self._run()
        finally:
            self._idle.set()

    async def _run(self) -> None:
        while not self._stopping:
            self._awake.clear()
            try:
                idle = await self._fill()
            except StoreAway as away:
                self._journal.event("queue.away", step="claim", reason=str(away))
                idle = AWAY
            except Exception as fault:  # noqa: BLE001 - without this task nothing would leave the queue until a restart
                self._journal.event("fault", where="claim", kind=type(fault).__name__, detail=str(fault))
                # Not the same again: what it holds is free when its lease ends.
                self._unanswered, idle = None, AWAY
            if idle > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(idle):
                        await self._awake.wait()

    async def _fill(self) -> float:
        """Take what there is room for. Returns the seconds that nothing will happen for."""
        room = self._settings.deliveries - len(self._running)
        if room <= 0:
            return POLL
        self._unanswered = lease = self._unanswered or secrets.token_hex(8)
        claimed = await self._queue.claim(
            lease, seconds=self._settings.lease, limit=room, per_destination=self._settings.per_destination
        )
        self._unanswered = None
        for one in claimed:
            task = asyncio.ensure_future(self._work(one, lease))
            self._running.add(task)
            task.add_done_callback(self._ended)
        if claimed:
            return 0
        due = await self._queue.next_due()
        if due is None:
            return POLL
        # What is due and was not given to us is for next hops that have as many deliveries as they may.
        return min(due, POLL) or AWAY

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self.wake()

    # --- one delivery

    async def _work(self, claimed: Claimed, lease: str) -> None:
        held = claimed.held
        renewals = asyncio.ensure_future(self._renew(held, lease))
        try:
            await self._begins.turn(len(held.waiting))
            reach("K10")
            if claimed.given_up:
                failed = Failed("given up by the operator", GIVEN_UP)
                await self._settle(held, lease, Outcome(tuple((one, failed) for one in held.delivery.recipients)))
                return
            if claimed.dots + held.maybe_dup > 1:
                await self._queue.bury(held, lease, "two final dots were not answered: it may have arrived")
                self._journal.event("queue.dead", id=held.delivery.id, item=held.id, reason="two unanswered dots")
                return
            held = replace(held, maybe_dup=held.maybe_dup or claimed.dots > 0)
            if held.maybe_dup:
                # Now, and not with the outcome: a crash in between must not leave a second copy that nobody was told of.
                self._journal.event("queue.taken_over", id=held.delivery.id, item=held.id, maybe_dup=True)
            instead = await self._settler.before(held)
            if isinstance(instead, Outcome):
                await self._settle(held, lease, instead)
                return
            if instead is not None:
                await self._queue.settle(held, lease, left=held, delay=instead)
                return
            with self._under_way.during([one.forwarded for one in held.waiting]):
                outcome = await self._deliver(held, lease)
                if outcome is not None:
                    await self._settle(held, lease, outcome)
        except _LeaseLost:
            self._journal.event("queue.lease_lost", id=held.delivery.id, item=held.id)
        except StoreAway as away:
            self._journal.event("queue.away", id=held.delivery.id, item=held.id, step="work", reason=str(away))
        except Exception as fault:  # noqa: BLE001 - the lease runs out, and it is tried again: nothing is lost by a fault of ours
            self._journal.event("fault", where="worker", kind=type(fault).__name__, detail=str(fault), item=held.id)
        finally:
            renewals.cancel()

    async def _renew(self, held: Held, lease: str) -> None:
        begun = begun_of(one.forwarded for one in held.waiting)
        while True:
            await asyncio.sleep(self._settings.lease / RENEWALS)
            with suppress(StoreAway):
                await self._queue.renew([held.id], lease, self._settings.lease, begun)

    async def _deliver(self, held: Held, lease: str) -> Outcome | None:
        """``None``: it was not sent, and goes back as it was."""
        dotted, begun = False, begun_of(one.forwarded for one in held.waiting)
        task = asyncio.current_task()
        assert task is not None

        async def before_dot() -> None:
            nonlocal dotted
            self._before_dot.discard(task)
            try:
                if not await self._queue.mark_dot(held.id, lease, begun):
                    raise _LeaseLost
            except StoreAway:
                if not dotted:
                    raise
                # It is on record already. To break off now would forget who has it, and make each of them a second copy.
            dotted = True
            reach("K11")

        if self._handing_back:
            await self._queue.settle(held, lease, left=held, delay=0)
            return None
        self._before_dot.add(task)
        try:
            async with asyncio.timeout(ATTEMPT):
                return await self._relay.deliver(held.delivery, before_dot=before_dot)
        except TimeoutError:
            return Outcome(
                tuple(
                    (one, Deferred("the attempt took too long", maybe_delivered=dotted))
                    for one in held.delivery.recipients
                )
            )
        except asyncio.CancelledError:
            # The program stops. What was not on its way yet is handed back; the rest waits for its lease to end.
            if not dotted:
                await self._queue.settle(held, lease, left=held, delay=0)
            raise
        finally:
            self._before_dot.discard(task)

    async def _settle(self, held: Held, lease: str, outcome: Outcome) -> None:
        """A delivery whose record fails would be made twice: this insists, for as long as the lease allows."""
        if not self._stopping:
            await self._ends.turn(len(held.waiting))
        for pause in (0.0, *CATCH_UP):
            await asyncio.sleep(pause)
            try:
                if not await self._settler.settle(held, lease, outcome):
                    self._journal.event("queue.lease_lost", id=held.delivery.id, item=held.id)
                return
            except StoreAway as away:
                self._journal.event("queue.away", id=held.delivery.id, item=held.id, step="settle", reason=str(away))

    async def stop(self, seconds: float, *, patient: bool = False) -> int:
        """Claim nothing more, let what runs end within ``seconds``, hand the rest back. Returns how many those were. Not
        ``patient``: what has not come to its final dot is handed back at once, and is due."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        self._stopping = True
        self.wake()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._idle.wait()
        if not patient:
            self._handing_back = True
            for task in self._before_dot:
                task.cancel()
        if self._running:
            await asyncio.wait(set(self._running), timeout=max(0.0, until - loop.time()))
        left = [task for task in self._running if not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)
