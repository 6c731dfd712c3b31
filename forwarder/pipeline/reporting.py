"""What reports do we write in session? Of what became of a delivery, to its verified sender and to who owns the alias."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import assert_never

from forwarder import bounce, notify
from forwarder.bounce import Target
from forwarder.dispatch import Dispatcher, Fate, Hold, Plan, Ticket, fingerprint
from forwarder.failpoints import reach
from forwarder.mail.dsn import Action
from forwarder.mail.report import parse_message_id
from forwarder.model import (
    Address,
    Deferred,
    Delivered,
    Envelope,
    Failed,
    Finding,
    Message,
    Queued,
    Reply,
)
from forwarder.pipeline.answer import scrubbed
from forwarder.pipeline.doors import Doors, Settings, Teller
from forwarder.pipeline.notes import note_for
from forwarder.pipeline.owners import Owners
from forwarder.pipeline.report import seal_report
from forwarder.ports import Claim, Held, StoreAway
from forwarder.smtp import reply

__all__ = ["Reporting"]


class Reporting:
    """Reports always leave with the null sender, and only for a sender that a check vouched for."""

    def __init__(self, settings: Settings, doors: Doors, dispatcher: Dispatcher) -> None:
        self._settings = settings
        self._doors = doors
        self._dispatcher = dispatcher
        self._owners = Owners(settings, doors)
        self._tell = Teller(doors.journal)

    async def report_failures(self, envelope: Envelope, message: Message, failed: Sequence[Fate]) -> Reply:
        """Some have it and some never will: the verified sender gets a report from us, and only then our 250."""
        assert envelope.sender is not None
        # RFC 3461 section 4.1: a sender that asked for no report of this recipient gets none.
        failed = [one for one in failed if notify.wants_failure(envelope, one.ticket.alias)]
        if not failed:
            return reply.DELIVERED
        mark = _mark(Action.FAILED, failed)
        claim, recorded = await self._claim(envelope, mark)
        if claim is Claim.DELIVERED:
            return reply.DELIVERED
        if claim is Claim.BUSY:
            return reply.BUSY
        if not await self._tell_owners(envelope, message, failed):
            self._dispatcher.take_back([Ticket(envelope.sender, envelope.sender, mark)], envelope.id)
            return reply.STILL_UNDER_WAY
        failed = [one for one in failed if self._target(one).tells_sender]
        if not failed:
            # The operator does not want the sender told. It is on record, and the owner may know.
            self._doors.journal.event("report.suppressed", id=envelope.id, action=str(Action.FAILED))
            if recorded:
                await self._settle_mark(envelope, mark)
            return reply.DELIVERED
        raw = bounce.compose_failure(
            [
                (one.ticket.alias, one.ticket.destination, one.outcome)
                for one in failed
                if isinstance(one.outcome, Failed)
            ],
            envelope,
            message,
            hostname=self._settings.names.hostname,
            now=self._doors.clock.now(),
            note=await note_for(envelope.sender.domain, envelope.id, self._settings, self._doors),
        )
        aliases = {one.ticket.alias for one in failed}
        self._doors.journal.event("report.written", id=envelope.id, action=str(Action.FAILED), aliases=len(aliases))
        domain = failed[0].ticket.alias.domain
        outcome = await self.send_report(envelope, raw, envelope.sender, domain, mark, recorded=recorded)
        match outcome:
            case Delivered() | Queued():
                return reply.DELIVERED
            case Deferred():
                return reply.STILL_UNDER_WAY
            case Failed():
                return reply.some_failed(1, len(failed), scrubbed(failed[0]))
            case _:
                assert_never(outcome)

    async def _settle_mark(self, envelope: Envelope, mark: bytes) -> None:
        """Whoever was to hear of it has heard: a sender that comes back is not kept waiting, and nobody hears it twice."""
        try:
            await self._doors.ledger.settle(envelope.id, [mark], [], [])
        except StoreAway as away:
            self._doors.journal.event("ledger.away", id=envelope.id, step="suppressed", reason=str(away))

    def _target(self, one: Fate) -> Target:
        assert isinstance(one.outcome, Failed)
        return self._owners.failure(one.ticket.alias, one.outcome)[1]

    async def _tell_owners(self, envelope: Envelope, message: Message, failed: Sequence[Fate]) -> bool:
        """The owners of aliases that are to hear of this. False: they cannot be told now."""
        groups: dict[tuple[Address, Target], list[Finding]] = {}
        for one in failed:
            assert isinstance(one.outcome, Failed)
            kind, target = self._owners.failure(one.ticket.alias, one.outcome)
            status, destination = one.outcome.reply.enhanced or "5.0.0", str(one.ticket.destination)
            finding = self._owners.finding(
                one.ticket.alias, envelope.sender, destination, kind, status, str(one.outcome.reply)
            )
            groups.setdefault((one.ticket.alias, target), []).append(finding)
        field = message.first(b"message-id")
        message_id = parse_message_id(field.value) if field is not None else None
        for number, ((alias, target), findings) in enumerate(groups.items()):
            name = f"{envelope.id}.o{number}"
            try:
                letters = await self._owners.tell(
                    alias, target, findings, envelope, domain=alias.domain, message_id=message_id, id=name
                )
            except StoreAway as away:
                self._doors.journal.event("ledger.away", id=envelope.id, step="owner", reason=str(away))
                return False
            if isinstance(await self.send_letters(envelope, letters or (), alias.domain), Deferred):
                return False
        return True

    async def report_success(self, envelope: Envelope, message: Message, fates: Sequence[Fate]) -> None:
        """RFC 3461 section 5.2.2 "relayed", 5.2.7.3 "expanded": where NOTIFY=SUCCESS asks, and nobody behind us will tell."""
        if not notify.asks(envelope):
            return
        by_alias: dict[Address, list[Fate]] = {}
        for one in fates:
            if notify.wants_success(envelope, one.ticket.alias):
                by_alias.setdefault(one.ticket.alias, []).append(one)
        for alias, mine in by_alias.items():
            if len(mine) > 1 and all(isinstance(one.outcome, Delivered | Queued) for one in mine):
                await self._report_success(envelope, message, Action.EXPANDED, alias, mine)
            elif len(mine) == 1 and isinstance(mine[0].outcome, Delivered) and not mine[0].outcome.dsn:
                await self._report_success(envelope, message, Action.RELAYED, alias, mine)

    async def report_kept(self, envelope: Envelope, message: Message, alias: Address) -> None:
        """RFC 3461 section 5.2.3: a mailbox of ours is where it ends."""
        if notify.wants_success(envelope, alias):
            digest = hashlib.sha256(message.header + message.body).digest()
            ticket = Ticket(alias, alias, fingerprint(envelope.sender, alias, alias, digest))
            await self._report_success(envelope, message, Action.DELIVERED, alias, [Fate(ticket, Queued("kept"))])

    async def _report_success(
        self, envelope: Envelope, message: Message, action: Action, alias: Address, fates: Sequence[Fate]
    ) -> None:
        """Once, whatever the sender repeats. The answer does not hang on it: the message has arrived, and a sender that came
        back for its report could only be told so again."""
        if envelope.sender is None:
            return
        mark = _mark(action, fates)
        claim, recorded = await self._claim(envelope, mark)
        if claim is not Claim.FRESH:
            return
        raw = bounce.compose_success(
            action,
            alias,
            [one.ticket.destination for one in fates],
            envelope,
            message,
            hostname=self._settings.names.hostname,
            now=self._doors.clock.now(),
            note=await note_for(envelope.sender.domain, envelope.id, self._settings, self._doors),
        )
        held = seal_report(
            raw,
            envelope.sender,
            envelope,
            id=f"{envelope.id}.{mark.hex()[:8]}",
            srs_domain=self._doors.directory.srs_domain(alias.domain),
            settings=self._settings,
            doors=self._doors,
            fingerprint=mark,
        )
        reach("K13")
        self._doors.journal.event("report.written", id=envelope.id, action=str(action), aliases=1)
        ticket = Ticket(envelope.sender, envelope.sender, mark)
        may_hold = self._settings.domain_holds.get(alias.domain, self._settings.hold) is not Hold.NEVER
        # The queue comes first: the sender waits for its answer and not for its own server.
        hold = Hold.ALWAYS if may_hold else Hold.NEVER
        plan = Plan(held.delivery, (ticket,), (None,), held if may_hold else None, hold)
        self._tell.delivered(envelope, await self._dispatcher.deliver([plan], envelope.id, recorded=recorded))

    async def _claim(self, envelope: Envelope, mark: bytes) -> tuple[Claim, bool]:
        """Has this been told, to a sender that lost our answer? False: as far as this process knows, the store is away."""
        assert envelope.sender is not None
        ticket = Ticket(envelope.sender, envelope.sender, mark)
        try:
            return (await self._dispatcher.claim([ticket], envelope.id))[ticket], True
        except StoreAway as away:
            self._doors.journal.event("ledger.away", id=envelope.id, step="report", reason=str(away))
            self._dispatcher.take_back([ticket], envelope.id)
            return self._dispatcher.recall([ticket])[ticket], False

    async def send_report(
        self,
        envelope: Envelope,
        raw: bytes,
        recipient: Address,
        alias_domain: str,
        mark: bytes = b"",
        *,
        recorded: bool = False,
    ) -> Delivered | Queued | Deferred | Failed:
        """A report of ours, with the null sender (RFC 5321 section 4.5.5), delivered or held like any delivery. ``mark`` stands
        for it in the ledger, ``recorded`` where it was claimed there."""
        held = seal_report(
            raw,
            recipient,
            envelope,
            id=f"{envelope.id}r",
            srs_domain=self._doors.directory.srs_domain(alias_domain),
            settings=self._settings,
            doors=self._doors,
            fingerprint=mark,
        )
        reach("K13")
        hold = self._settings.domain_holds.get(alias_domain, self._settings.hold)
        ticket = Ticket(recipient, recipient, mark)
        plan = Plan(held.delivery, (ticket,), (None,), held if hold is not Hold.NEVER else None, hold)
        fates = await self._dispatcher.deliver([plan], envelope.id, recorded=recorded)
        self._tell.delivered(envelope, fates)
        return fates[0].outcome

    async def send_letters(
        self, envelope: Envelope, letters: Sequence[Held], alias_domain: str
    ) -> Delivered | Queued | Deferred | Failed:
        """To the owner of an alias; what became of it where that is worst. The queue comes first: nobody waits for a letter."""
        may_hold = self._settings.domain_holds.get(alias_domain, self._settings.hold) is not Hold.NEVER
        plans = [
            Plan(
                one.delivery,
                tuple(Ticket(address, address, b"") for address in one.delivery.recipients),
                (None,) * len(one.delivery.recipients),
                one if may_hold else None,
                Hold.ALWAYS if may_hold else Hold.NEVER,
            )
            for one in letters
        ]
        fates = await self._dispatcher.deliver(plans, envelope.id, recorded=False) if plans else ()
        self._tell.delivered(envelope, fates)
        outcomes = [one.outcome for one in fates]
        for kind in (Deferred, Failed):
            if (found := next((one for one in outcomes if isinstance(one, kind)), None)) is not None:
                return found
        return Queued("the owner has it")


def _mark(action: Action, fates: Sequence[Fate]) -> bytes:
    """32 octets for this report, made of what stands for the message: a retry of it makes the same."""
    about = b"".join(sorted(one.ticket.fingerprint for one in fates))
    return hashlib.sha256(b"report" + action.encode() + about).digest()
