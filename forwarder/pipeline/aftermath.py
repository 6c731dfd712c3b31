"""What becomes of a held delivery after an attempt? Done, tried again, reported to its sender, or a dead letter.

    delivered                      remembered, so that a bounce of it finds its way; told, where nobody behind us does
    refused for good               a report to the verified sender, a letter to the owner of the alias, as configured; where
                                   neither is (a report of ours, a sender nobody verified) a dead letter that the operator
                                   sees, and never a bounce
    not now                        again later, up to its expiry; then as refused; the verified sender is told of it once
    no answer to the final dot     once more, and on record as maybe a second copy; then a dead letter: neither lost nor
                                   sent a third time (RFC 1047)

All of it in one step of the queue, so that a crash leaves either what was before or what is after.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from forwarder import bounce, notify, retry
from forwarder.bounce import Target
from forwarder.dispatch import pick
from forwarder.failpoints import reach
from forwarder.mail.dsn import Action
from forwarder.mail.header import parse_message
from forwarder.model import (
    Address,
    Deferred,
    Delivered,
    Failed,
    Finding,
    Message,
    Outcome,
    Queued,
    RecipientOutcome,
    Reply,
)
from forwarder.pipeline.destinations import DISABLED, Destinations
from forwarder.pipeline.doors import Doors, Settings, alike, named
from forwarder.pipeline.notes import note_for
from forwarder.pipeline.owners import Owners
from forwarder.pipeline.report import seal_report
from forwarder.ports import Claim, Held, Queue, StoreAway

__all__ = ["Aftermath"]

#: Attempts that ended without a result until a sender that asked for it (NOTIFY=DELAY) is told: a quarter of an hour with the
#: default schedule, in which greylisting is over.
TOLD_AFTER = 3
#: Failures that wait for the store and of which an owner was told; the oldest is forgotten first.
MAX_TOLD = 1000


def _aside(held: Held, mark: str, reason: str) -> tuple[Held, str]:
    """A dead letter of its own; the same attempt that is settled twice makes the same."""
    return replace(held, id=f"{held.id}.{mark}{held.delivery.attempts}"), reason


class Aftermath:
    """Settles what a lease holds. ``chance`` gives a number from 0 to 1."""

    def __init__(
        self, settings: Settings, doors: Doors, queue: Queue, schedule: retry.Schedule, chance: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._doors = doors
        self._queue = queue
        self._schedule = schedule
        self._chance = chance
        self._owners = Owners(settings, doors)
        self._destinations = Destinations(settings, doors)
        #: What owners were told under a lease whose end the store does not know yet.
        self._told: OrderedDict[tuple[str, str], tuple[list[Held], set[int]]] = OrderedDict()

    async def before(self, held: Held) -> float | Outcome | None:
        """What is to be done in the place of an attempt: wait so many seconds more, or this; ``None``: nothing."""
        recipients = held.delivery.recipients
        if self._destinations.are_disabled(recipients):
            gone = Failed(DISABLED, Reply(550, "5.2.1", "this address has been disabled"))
            return Outcome(tuple((one, gone) for one in recipients))
        if self._doors.clock.now() >= held.delivery.expires_at:
            return None
        slow = self._destinations.slow_pause(held.delivery.next_hop)
        if slow:
            return retry.spread(slow, self._chance())
        if not self._destinations.are_paused(recipients):
            return None
        if await self._destinations.may_probe(recipients, held.delivery.id):
            return None
        return retry.spread(self._destinations.pause_of(recipients), self._chance())

    def first_pause(self) -> float:
        """Seconds until what could not be delivered in session is tried again."""
        return retry.spread(self._schedule.first, self._chance())

    async def settle(self, held: Held, lease: str, outcome: Outcome) -> bool:
        """Record what an attempt under ``lease`` led to. Raises StoreAway; calling again does no harm. False: the lease was
        lost, and whoever has it now goes on from what the store says."""
        reach("K12")
        results = [result for _, result in outcome.results]
        failed = {index: one for index, one in enumerate(results) if isinstance(one, Failed)}
        deferred = {index: one for index, one in enumerate(results) if isinstance(one, Deferred)}
        uncertain = [index for index, one in deferred.items() if one.maybe_delivered and held.maybe_dup]
        dead: list[tuple[Held, str]] = []
        if uncertain:
            # A second unanswered dot: a third copy is worse than an operator who looks at it.
            dead.append(_aside(pick(held, uncertain), "u", "two final dots were not answered: it may have arrived"))
            deferred = {index: one for index, one in deferred.items() if index not in uncertain}
        left, delay = self._left(held, deferred)
        if left is None and deferred:
            failed |= {index: self._expired(held, one) for index, one in deferred.items()}
        targets = self._targets(held, failed)
        letters, heard = await self._tell_owners_once(held, lease, failed, targets)
        # Who may not be told of a failure must not lose it: whoever operates this looks at it.
        untold = [
            index for index in failed if held.report_to is None or not (targets[index].tells_sender or index in heard)
        ]
        if untold:
            reason = "; ".join(sorted({f"{failed[index].reason}: {failed[index].reply}" for index in untold}))
            dead.append(_aside(pick(held, untold), "d", reason[:500]))
        for_sender = {index: one for index, one in failed.items() if targets[index].tells_sender}
        reports = [*await self._report(held, for_sender), *await self._report_relayed(held, results), *letters]
        if left is not None:
            left, delayed = await self._report_delay(left, lease, list(deferred.values()))
            reports += delayed
        if reports:
            reach("K13")
        forwards = [
            waiting.forwarded
            for waiting, one in zip(held.waiting, results, strict=True)
            if isinstance(one, Delivered) and waiting.forwarded is not None
        ]
        done = await self._queue.settle(
            held, lease, left=left, delay=delay, reports=reports, dead=dead, forwards=forwards
        )
        self._told.pop((held.id, lease), None)
        self._tell(held, results, delay if left is not None else None, len(reports))
        for waiting, (address, one) in zip(held.waiting, outcome.results, strict=True):
            if getattr(one, "reason", None) != DISABLED:
                await self._destinations.learn(held.delivery.id, waiting.alias, address, one)
        for letter, reason in dead:
            self._doors.journal.event(
                "queue.dead", id=held.delivery.id, item=letter.id, recipients=len(letter.waiting), reason=reason
            )
        await self._back_off(held, results, delay)
        return done

    def _left(self, held: Held, deferred: dict[int, Deferred]) -> tuple[Held | None, float]:
        """What is still to be delivered, and in how many seconds; nothing where its time is over."""
        if not deferred:
            return None, 0
        attempts = held.delivery.attempts + 1
        delay = retry.pause(
            self._schedule,
            attempts,
            expires_at=held.delivery.expires_at,
            now=self._doors.clock.now(),
            chance=self._chance(),
        )
        if delay is None:
            return None, 0
        left = pick(held, list(deferred))
        maybe_dup = held.maybe_dup or any(one.maybe_delivered for one in deferred.values())
        return replace(left, delivery=replace(left.delivery, attempts=attempts), maybe_dup=maybe_dup), delay

    def _expired(self, held: Held, last: Deferred) -> Failed:
        days = (held.delivery.expires_at - held.queued_at).total_seconds() / 86400
        said = last.reply.text if last.reply is not None else "no answer from the next hop"
        # RFC 3463 section 3.5: X.4.7, delivery time expired.
        text = f"not delivered within {days:.3g} days; the last try: {said}"
        return Failed("expired", Reply(554, "5.4.7", text), last.peer)

    # --- reports

    def _targets(self, held: Held, failed: dict[int, Failed]) -> dict[int, Target]:
        return {index: self._owners.failure(held.waiting[index].alias, one)[1] for index, one in failed.items()}

    async def _tell_owners_once(
        self, held: Held, lease: str, failed: dict[int, Failed], targets: dict[int, Target]
    ) -> tuple[list[Held], set[int]]:
        """As ``_tell_owners``, however often the same is settled: an owner's mailbox has its letter before the queue knows."""
        known = self._told.get((held.id, lease))
        if known is None:
            known = await self._tell_owners(held, failed, targets)
            if known[1]:
                self._told[held.id, lease] = known
                if len(self._told) > MAX_TOLD:
                    self._told.popitem(last=False)
        return known

    async def _tell_owners(
        self, held: Held, failed: dict[int, Failed], targets: dict[int, Target]
    ) -> tuple[list[Held], set[int]]:
        """Letters to the owners of aliases, and of whose failure they hear."""
        letters: list[Held] = []
        heard: set[int] = set()
        # Nobody is told of a report that fails (RFC 5321 section 6.1), and a letter is one.
        if held.delivery.sender is None:
            return letters, heard
        groups: dict[tuple[Address, Target], list[int]] = {}
        for index, target in targets.items():
            groups.setdefault((held.waiting[index].alias, target), []).append(index)
        for number, ((alias, target), mine) in enumerate(groups.items()):
            written = await self._owners.tell(
                alias,
                target,
                [self._finding(held, index, failed[index]) for index in mine],
                held.envelope,
                domain=alias.domain,
                message_id=next((one.forwarded.message_id for one in held.waiting if one.forwarded is not None), None),
                id=f"{held.id}.o{held.delivery.attempts}.{number}",
            )
            if written is not None:
                letters += written
                heard |= set(mine)
        return letters, heard

    def _finding(self, held: Held, index: int, failed: Failed) -> Finding:
        alias = held.waiting[index].alias
        kind, _ = self._owners.failure(alias, failed)
        status, destination = failed.reply.enhanced or "5.0.0", str(held.delivery.recipients[index])
        return self._owners.finding(alias, held.envelope.sender, destination, kind, status, str(failed.reply))

    async def _report(self, held: Held, failed: dict[int, Failed]) -> list[Held]:
        """The report for the verified sender."""
        if not failed or held.report_to is None:
            return []
        # RFC 3461 section 4.1: a sender that asked for no report of this recipient gets none.
        told = [
            (held.waiting[index].alias, held.delivery.recipients[index], one)
            for index, one in failed.items()
            if notify.wants_failure(held.envelope, held.waiting[index].alias)
        ]
        if not told:
            return []
        names, now, note = self._settings.names, self._doors.clock.now(), await self._note(held, held.report_to)
        raw = bounce.compose_failure(told, held.envelope, _original(held), hostname=names.hostname, now=now, note=note)
        return [self._seal(held, held.report_to, raw, Action.FAILED, f"r{held.delivery.attempts}")]

    async def _report_relayed(self, held: Held, results: Sequence[RecipientOutcome]) -> list[Held]:
        """RFC 3461 section 5.2.2: success was asked for, and who has it now was not asked for it."""
        if held.report_to is None or not held.delivery.notices:
            return []
        reports = []
        for index, (one, asked) in enumerate(zip(results, held.delivery.notices, strict=True)):
            if isinstance(one, Delivered) and not one.dsn and "SUCCESS" in (asked.notify or "").upper():
                raw = bounce.compose_success(
                    Action.RELAYED,
                    held.waiting[index].alias,
                    [held.delivery.recipients[index]],
                    held.envelope,
                    _original(held),
                    hostname=self._settings.names.hostname,
                    now=self._doors.clock.now(),
                    note=await self._note(held, held.report_to),
                )
                mark = f"k{held.delivery.attempts}.{index}"
                reports.append(self._seal(held, held.report_to, raw, Action.RELAYED, mark))
        return reports

    def _wants_delay(self, held: Held, alias: Address) -> bool:
        """Is it time to tell, and does the sender want to hear it?"""
        wants = notify.wants_delay(held.envelope, alias)
        waited = (self._doors.clock.now() - held.queued_at).total_seconds()
        long = 0 < self._settings.delay_report <= waited
        return long if wants is None else wants and (long or held.delivery.attempts >= TOLD_AFTER)

    async def _report_delay(self, left: Held, lease: str, deferred: Sequence[Deferred]) -> tuple[Held, list[Held]]:
        """At most one for a message, whatever of it waits where."""
        waiting = zip(left.waiting, left.delivery.recipients, deferred, strict=True)
        told = [
            (one.alias, address, outcome) for one, address, outcome in waiting if self._wants_delay(left, one.alias)
        ]
        to = left.report_to
        if to is None or left.delay_told or not told:
            return left, []
        mark = hashlib.sha256(b"report" + Action.DELAYED.encode() + left.envelope.id.encode()).digest()
        claim = (await self._doors.ledger.claim([mark], lease))[0]
        if claim is Claim.BUSY:
            return left, []
        left = replace(left, delay_told=True)
        if claim is Claim.DELIVERED:
            return left, []
        raw = bounce.compose_delay(
            told,
            left.envelope,
            _original(left),
            retry_until=left.delivery.expires_at,
            hostname=self._settings.names.hostname,
            now=self._doors.clock.now(),
            note=await self._note(left, to),
        )
        # By the message's own id: of two items of it that are settled at once, one report goes in.
        report = self._seal(replace(left, id=left.envelope.id), to, raw, Action.DELAYED, "w", mark)
        return left, [report]

    async def _note(self, held: Held, to: Address) -> str | None:
        return await note_for(to.domain, held.id, self._settings, self._doors)

    def _seal(self, held: Held, to: Address, raw: bytes, action: Action, mark: str, fingerprint: bytes = b"") -> Held:
        """The same attempt that is settled twice writes the same report."""
        self._doors.journal.event("report.written", id=held.delivery.id, action=str(action), item=held.id)
        return seal_report(
            raw,
            to,
            held.envelope,
            id=f"{held.id}.{mark}",
            srs_domain=held.srs_domain,
            settings=self._settings,
            doors=self._doors,
            fingerprint=fingerprint,
        )

    async def _back_off(self, held: Held, results: Sequence[RecipientOutcome], delay: float) -> None:
        """Nobody there: nothing else for this next hop needs to find that out. Somebody there again: all of it may go."""
        unreachable = all(isinstance(one, Deferred) and one.peer is None for one in results)
        try:
            if unreachable and delay:
                await self._queue.back_off(held.delivery.next_hop, delay)
            elif held.delivery.attempts and any(one.peer is not None for one in results):
                await self._queue.back_off(held.delivery.next_hop, 0)
        except StoreAway:
            # A convenience: without it each delivery finds out by itself.
            return

    def _tell(self, held: Held, results: Sequence[RecipientOutcome], delay: float | None, reports: int) -> None:
        outcomes = list(zip((one.alias for one in held.waiting), held.delivery.recipients, results, strict=True))
        for alias, one, destinations in alike(outcomes):
            assert not isinstance(one, Queued)
            self._doors.journal.event(
                "queue.outcome",
                id=held.delivery.id,
                item=held.id,
                alias=alias,
                **named(destinations),
                outcome=type(one).__name__.lower(),
                attempt=held.delivery.attempts + 1,
                maybe_dup=held.maybe_dup,
                peer=one.peer,
                text=str(one.reply) if one.reply is not None else getattr(one, "reason", None),
                again_in=round(delay) if delay is not None and isinstance(one, Deferred) else None,
                reports=reports,
            )


def _original(held: Held) -> Message:
    """What the sender sent. The body was never parsed, and need not be."""
    head, body = held.delivery.data[0], held.delivery.data[1]
    return replace(parse_message(head[held.header_at :]), body=body)
