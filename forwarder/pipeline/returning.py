"""A report comes back to a reversible address: what is it about, and who hears of it?

is it a report?              mail.dsn, or an automatic reply: mail.autoreply
about which message?         the ledger, what is under way; bounce.match
is that enough?              bounces.matching
who hears of it?             bounce.routes: the sender, the owner of the alias
not twice, and not too many  claims and the budget
in which words?              bounce.compose, bounce.letter
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from forwarder import bounce, notify, route, srs
from forwarder.bounce import Kind, Target
from forwarder.dispatch import Dispatcher, Ticket, fingerprint
from forwarder.mail.address import AddressError, parse_address
from forwarder.mail.autoreply import AutoReply, parse_auto_reply
from forwarder.mail.dsn import parse_report
from forwarder.mail.report import RecipientStatus, Report
from forwarder.model import (
    Address,
    Deferred,
    Delivered,
    Discard,
    Envelope,
    Failed,
    Message,
    Queued,
    RecipientOutcome,
    Refuse,
    Reply,
    ReturnBounce,
    Verdict,
)
from forwarder.pipeline.destinations import Destinations
from forwarder.pipeline.doors import Doors, Settings, Teller
from forwarder.pipeline.notes import note_for
from forwarder.pipeline.owners import Owners
from forwarder.pipeline.reporting import Reporting
from forwarder.ports import AliasFound, Claim, Forwarded, StoreAway
from forwarder.smtp import reply

__all__ = ["Returning"]

_Outcome = RecipientOutcome | Queued


@dataclass(frozen=True, slots=True)
class _Came:
    """What came back, and what we make of it. ``answer`` is there where it is an automatic reply and no report."""

    report: Report
    answer: AutoReply | None
    returned: ReturnBounce
    said: RecipientStatus
    kind: Kind
    target: Target


class Returning:
    """``reporting`` sends what is written here."""

    def __init__(self, settings: Settings, doors: Doors, dispatcher: Dispatcher, reporting: Reporting) -> None:
        self._settings = settings
        self._doors = doors
        self._dispatcher = dispatcher
        self._reporting = reporting
        self._owners = Owners(settings, doors)
        self._destinations = Destinations(settings, doors)
        self._tell = Teller(doors.journal)

    async def return_bounce(
        self, envelope: Envelope, message: Message, verdict: Verdict, resolved: route.ToSender
    ) -> Reply:
        """A report came to a reversible address: matched, scrubbed, passed on to who is to hear of it."""
        admitted = route.evaluate_verdict(verdict, self._settings.policy)
        if isinstance(admitted, Refuse):
            return self._tell.refused(envelope, admitted)
        report = parse_report(message, self._settings.reason_rules)
        answer = parse_auto_reply(message) if report is None else None
        report = answer.as_report() if answer is not None else report
        if report is None:
            return self._tell.refused(envelope, Refuse(reply.NO_REPORT, "no delivery report"))
        await self._note_secret(envelope, resolved.reversible)
        content = hashlib.sha256(message.header + message.body).digest()
        tickets: list[Ticket] = []
        try:
            came = await self._about(envelope, resolved, report, answer)
            if isinstance(came, Refuse):
                return self._tell.refused(envelope, came)
            if came.target is Target.SUPPRESS:
                return self._tell.discarded(envelope, Discard(f"reports of this kind are suppressed: {came.kind}"))
            # Each reader by itself: who has it is not told again because another has not.
            tickets = self._tickets(resolved, came.target, content)
            claims = await self._dispatcher.claim(tickets, envelope.id)
            fresh = [one for one in tickets if claims[one] is Claim.FRESH]
            if not fresh:
                return reply.BUSY if Claim.BUSY in claims.values() else reply.BOUNCE_RETURNED
            if not await self._doors.ledger.spend_bounce(resolved.reversible, report.message_id):
                await self._doors.ledger.settle(envelope.id, [], [one.fingerprint for one in fresh], [])
                return self._tell.refused(envelope, Refuse(reply.BOUNCE_BUDGET, "budget of reports used up"))
        except StoreAway as away:
            self._doors.journal.event("ledger.away", id=envelope.id, step="bounce", reason=str(away))
            self._dispatcher.take_back(tickets, envelope.id)
            return reply.STATE_AWAY
        outcomes = {one: await self._pass_on(envelope, resolved, came, one) for one in fresh}
        await self._settle_bounce(envelope, resolved, report.message_id, outcomes)
        return _answer(list(outcomes.values()))

    # --- what it is about

    async def _about(
        self, envelope: Envelope, resolved: route.ToSender, report: Report, answer: AutoReply | None
    ) -> _Came | Refuse:
        about = (resolved.reversible, report.message_id, bounce.destinations(report))
        under_way = self._dispatcher.under_way
        # Asked before the ledger, which knows of what ends in between.
        elsewhere = under_way.is_elsewhere(resolved.reversible, report.message_id)
        known = await self._doors.ledger.find_forward(*about) or under_way.find(*about)
        # Of another host: its mark outlives the attempt, so it is asked last, and for nothing that is known.
        if known is None and (elsewhere or await self._doors.ledger.is_begun((resolved.reversible, report.message_id))):
            return Refuse(reply.STILL_UNDER_WAY, "another worker has the message under way")
        returned = bounce.evaluate_report(resolved.reversible, resolved.sender, known, report)
        unmatched = await self._unmatched(resolved, returned)
        if isinstance(unmatched, Refuse):
            return unmatched
        said = bounce.worst_status(report, returned.destination)
        kind = Kind.AUTO_REPLY if answer is not None else bounce.kind_of(said)
        if known is not None and answer is None and await self._is_about(known, report):
            await self._destinations.learn_report(envelope.id, known, said)
        target = _as_asked(self._owners.target(returned.alias, kind), kind, said, known)
        self._tell.matched(envelope, returned, said, kind=kind, target=target, unmatched=unmatched)
        return _Came(report, answer, returned, said, kind, target)

    async def _is_about(self, known: Forwarded, report: Report) -> bool:
        """Is it this destination's, beyond doubt? Where another one of the alias sent it on, a report may name neither."""
        if str(known.destination).casefold() in {str(one).casefold() for one in bounce.destinations(report)}:
            return True
        found = await self._doors.directory.look_up(known.alias)
        return isinstance(found, AliasFound) and len(found.targets) == 1

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

    # --- who hears of it

    def _tickets(self, resolved: route.ToSender, target: Target, content: bytes) -> list[Ticket]:
        """One for each reader."""
        readers = [resolved.sender] if target.tells_sender else []
        if not target.tells_sender or target.tells_owner:
            readers.append(_OWNER)
        reversible = resolved.reversible
        return [Ticket(reversible, one, fingerprint(None, reversible, one, content)) for one in readers]

    async def _pass_on(self, envelope: Envelope, resolved: route.ToSender, came: _Came, ticket: Ticket) -> _Outcome:
        if ticket.destination is _OWNER:
            return await self._tell_owner(envelope, resolved, came)
        if came.answer is not None:
            raw = self._answered(envelope, came.answer, came.returned)
        else:
            raw = bounce.compose_return(
                came.report,
                came.returned,
                hostname=self._settings.names.hostname,
                now=self._doors.clock.now(),
                id=envelope.id,
                note=await note_for(resolved.sender.domain, envelope.id, self._settings, self._doors),
            )
        return await self._reporting.send_report(envelope, raw, resolved.sender, resolved.reversible.domain)

    def _answered(self, envelope: Envelope, answer: AutoReply, returned: ReturnBounce) -> bytes:
        try:
            author = parse_address(answer.author or "")
        except AddressError:
            author = None
        return bounce.compose_answer(
            self._settings.letters,
            answer,
            returned,
            author,
            hostname=self._settings.names.hostname,
            id=envelope.id,
            now=self._doors.clock.now(),
        )

    async def _tell_owner(self, envelope: Envelope, resolved: route.ToSender, came: _Came) -> _Outcome:
        alias, said = came.returned.alias, came.said
        named = came.returned.destination or said.final_recipient or said.original_recipient or "not named"
        words = came.answer.subject if came.answer is not None else said.diagnostic or ""
        finding = self._owners.finding(alias, resolved.sender, str(named), came.kind, said.status or "", words)
        domain = (alias or resolved.reversible).domain
        try:
            letters = await self._owners.tell(
                alias,
                came.target,
                [finding],
                envelope,
                domain=domain,
                message_id=came.report.message_id,
                id=f"{envelope.id}.o",
            )
        except StoreAway as away:
            self._doors.journal.event("ledger.away", id=envelope.id, step="owner", reason=str(away))
            return Deferred("the owner cannot be told now")
        if letters is None:
            # The operator's own mistake, on record: nobody else can do anything about it.
            return Queued("the owner's address leads nowhere")
        return await self._reporting.send_letters(envelope, letters, domain)

    # --- in the end

    async def _settle_bounce(
        self, envelope: Envelope, resolved: route.ToSender, message_id: str | None, outcomes: dict[Ticket, _Outcome]
    ) -> None:
        done = [ticket.fingerprint for ticket, one in outcomes.items() if isinstance(one, Delivered | Queued)]
        not_done = [ticket.fingerprint for ticket, one in outcomes.items() if not isinstance(one, Delivered | Queued)]
        try:
            await self._doors.ledger.settle(envelope.id, done, not_done, [])
            if not done and any(isinstance(one, Deferred) for one in outcomes.values()):
                await self._doors.ledger.refund_bounce(resolved.reversible, message_id)
        except StoreAway as away:
            self._doors.journal.event("ledger.away", id=envelope.id, step="settle bounce", reason=str(away))


#: Stands for the owner in a ticket, whoever it is today.
_OWNER = Address("owner", "invalid")


def _as_asked(target: Target, kind: Kind, said: RecipientStatus, known: Forwarded | None) -> Target:
    """What the sender itself said of reports goes before what the operator wants it to hear (RFC 3461 section 4.1)."""
    if known is None or known.notify is None or kind is Kind.AUTO_REPLY:
        return target
    if not notify.may_tell(known.notify, said.action):
        # RFC 3461 section 5.2.2: a next hop without DSN could not be told.
        return {Target.BOTH: Target.OWNER, Target.SENDER: Target.SUPPRESS}.get(target, target)
    if kind is Kind.DELAYED and target is Target.SUPPRESS:
        return Target.SENDER
    return target


def _answer(outcomes: Sequence[_Outcome]) -> Reply:
    if any(isinstance(one, Deferred) for one in outcomes):
        return reply.STILL_UNDER_WAY
    failed = next((one for one in outcomes if isinstance(one, Failed)), None)
    if failed is not None:
        # RFC 5321 section 4.5.5: nobody is told of a report that cannot be delivered; its own sender hears it here.
        return Reply(550, failed.reply.enhanced or "5.0.0", "the original sender's server refuses this report")
    return reply.BOUNCE_RETURNED
