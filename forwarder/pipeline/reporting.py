"""What reports do we send? Our own of what became of a delivery, and those that come back, each to the original sender."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import assert_never

from forwarder import bounce, notify, route, srs
from forwarder.dispatch import Dispatcher, Fate, Hold, Plan, Ticket, fingerprint
from forwarder.failpoints import reach
from forwarder.mail.dsn import Action, parse_report
from forwarder.model import (
    Address,
    Deferred,
    Delivered,
    Discard,
    Envelope,
    Failed,
    Message,
    Queued,
    Refuse,
    Reply,
    ReturnBounce,
    Verdict,
)
from forwarder.pipeline.answer import scrubbed
from forwarder.pipeline.doors import Doors, Settings, Teller
from forwarder.pipeline.notes import note_for
from forwarder.pipeline.report import seal_report
from forwarder.ports import (
    Claim,
    StoreAway,
)
from forwarder.smtp import reply

__all__ = ["Reporting"]


class Reporting:
    """Reports always leave with the null sender, and only for a sender that a check vouched for."""

    def __init__(self, settings: Settings, doors: Doors, dispatcher: Dispatcher) -> None:
        self._settings = settings
        self._doors = doors
        self._dispatcher = dispatcher
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
        outcome = await self._send_report(envelope, raw, envelope.sender, domain, mark, recorded=recorded)
        match outcome:
            case Delivered() | Queued():
                return reply.DELIVERED
            case Deferred():
                return reply.STILL_UNDER_WAY
            case Failed():
                return reply.some_failed(1, len(failed), scrubbed(failed[0]))
            case _:
                assert_never(outcome)

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

    async def _send_report(
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

    async def return_bounce(
        self, envelope: Envelope, message: Message, verdict: Verdict, resolved: route.ToSender
    ) -> Reply:
        """A report came to a reversible address: matched, scrubbed, passed on to the original sender."""
        admitted = route.evaluate_verdict(verdict, self._settings.policy)
        if isinstance(admitted, Refuse):
            return self._tell.refused(envelope, admitted)
        report = parse_report(message, self._settings.reason_rules)
        if report is None:
            return self._tell.refused(envelope, Refuse(reply.NO_REPORT, "no delivery report"))
        await self._note_secret(envelope, resolved.reversible)
        ledger = self._doors.ledger
        ticket = Ticket(
            resolved.reversible,
            resolved.sender,
            fingerprint(
                None, resolved.reversible, resolved.sender, hashlib.sha256(message.header + message.body).digest()
            ),
        )
        try:
            about = (resolved.reversible, report.message_id, bounce.destinations(report))
            known = await ledger.find_forward(*about) or self._dispatcher.under_way.find(*about)
            returned = bounce.evaluate_report(resolved.reversible, resolved.sender, known, report)
            unmatched = await self._unmatched(resolved, returned)
            if isinstance(unmatched, Refuse):
                return self._tell.refused(envelope, unmatched)
            said = bounce.worst_status(report, returned.destination)
            self._tell.matched(envelope, returned, said, unmatched=unmatched)
            if known is not None and not notify.may_tell(known.notify, said.action):
                # RFC 3461 section 5.2.2: a next hop without DSN could not be told.
                return self._tell.discarded(envelope, Discard(f"its sender asked not to hear that it is {said.action}"))
            claim = (await self._dispatcher.claim([ticket], envelope.id))[ticket]
            if claim is not Claim.FRESH:
                return reply.BOUNCE_RETURNED if claim is Claim.DELIVERED else reply.BUSY
            if not await ledger.spend_bounce(resolved.reversible, report.message_id):
                await ledger.settle(envelope.id, [], [ticket.fingerprint], [])
                return self._tell.refused(envelope, Refuse(reply.BOUNCE_BUDGET, "budget of reports used up"))
        except StoreAway as away:
            self._doors.journal.event("ledger.away", id=envelope.id, step="bounce", reason=str(away))
            self._dispatcher.take_back([ticket], envelope.id)
            return reply.STATE_AWAY
        raw = bounce.compose_return(
            report,
            returned,
            hostname=self._settings.names.hostname,
            now=self._doors.clock.now(),
            id=envelope.id,
            note=await note_for(resolved.sender.domain, envelope.id, self._settings, self._doors),
        )
        outcome = await self._send_report(envelope, raw, resolved.sender, resolved.reversible.domain)
        await self._settle_bounce(envelope, resolved, report.message_id, ticket, outcome)
        match outcome:
            case Delivered() | Queued():
                return reply.BOUNCE_RETURNED
            case Deferred():
                return reply.STILL_UNDER_WAY
            case Failed():
                # RFC 5321 section 4.5.5: nobody is told of a report that cannot be delivered; its own sender hears it here.
                return Reply(550, outcome.reply.enhanced or "5.0.0", "the original sender's server refuses this report")
            case _:
                assert_never(outcome)

    async def _unmatched(self, resolved: route.ToSender, returned: ReturnBounce) -> str | Refuse | None:
        """Why a report goes on that has too little in common with a message of ours; ``None``: it has enough."""
        matching = self._settings.matching
        if returned.matched and bounce.is_enough(matching, returned.matched):
            return None
        if matching is bounce.Matching.LENIENT:
            return "the reversible address is enough"
        if resolved.legacy:
            # What another program forwarded before us, the ledger never knew.
            return "another program minted the address"
        minted = srs.minted_on(resolved.reversible, self._doors.clock.now().date())
        # A store that was lost, or is new, must cost nobody the reports of what was forwarded before.
        if minted is not None and minted <= await self._doors.ledger.remembers_since():
            return "the address is older than the store"
        return Refuse(reply.UNKNOWN_REPORT, f"no message of ours matches the report: {returned.reason}")

    async def _note_secret(self, envelope: Envelope, reversible: Address) -> None:
        """For whoever wants to know whether an old secret may go. Nothing rests on it."""
        doors = self._doors
        today = doors.clock.now().date()
        secret = srs.made_with(reversible, doors.keys.srs_secrets(), today)
        try:
            if secret is not None:
                await doors.ledger.note_secret(srs.secret_name(secret), today)
        except StoreAway as away:
            doors.journal.event("ledger.away", id=envelope.id, step="secret", reason=str(away))

    async def _settle_bounce(
        self,
        envelope: Envelope,
        resolved: route.ToSender,
        message_id: str | None,
        ticket: Ticket,
        outcome: Delivered | Queued | Deferred | Failed,
    ) -> None:
        done = isinstance(outcome, Delivered | Queued)
        try:
            await self._doors.ledger.settle(
                envelope.id, [ticket.fingerprint] if done else [], [] if done else [ticket.fingerprint], []
            )
            if isinstance(outcome, Deferred):
                await self._doors.ledger.refund_bounce(resolved.reversible, message_id)
        except StoreAway as away:
            self._doors.journal.event("ledger.away", id=envelope.id, step="settle bounce", reason=str(away))


def _mark(action: Action, fates: Sequence[Fate]) -> bytes:
    """32 octets for this report, made of what stands for the message: a retry of it makes the same."""
    about = b"".join(sorted(one.ticket.fingerprint for one in fates))
    return hashlib.sha256(b"report" + action.encode() + about).digest()
