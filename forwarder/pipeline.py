"""What happens to a message, from the first RCPT TO to the reply to its final dot? docs/flow.md tells it in the same order.

recipient   where does it lead?                     route.resolve
accept      is it one message for every reader?     mail.header, screen
            who vouches for it?                     auth.verify
            may it pass, and as what?               route.decide
            whose sender does it leave with?        rewrite
            what goes on it?                        seal
            who has it?                             dispatch
            what does the sender hear?              _answer
a report    for a reversible address goes by _return_bounce instead
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import assert_never

from forwarder import bounce, rewrite, route, screen, seal
from forwarder.auth import canonical
from forwarder.auth.verify import verify
from forwarder.dispatch import BUSY, STILL_UNDER_WAY, Dispatcher, Fate, Plan, Ticket, fingerprint, split
from forwarder.mail.address import parse_from
from forwarder.mail.dsn import parse_report
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.mail.received import build_received
from forwarder.mail.report import parse_message_id
from forwarder.model import (
    Address,
    Deferred,
    Delivered,
    Delivery,
    Discard,
    Envelope,
    Failed,
    Forward,
    Keep,
    Message,
    Refuse,
    Reply,
    ReturnBounce,
    SenderForm,
    Verdict,
)
from forwarder.ports import (
    Claim,
    Clock,
    Directory,
    Forwarded,
    Journal,
    KeyRing,
    Ledger,
    Mailboxes,
    Resolver,
    StoreAway,
)
from forwarder.smtp import reply

__all__ = ["Doors", "Pipeline", "Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator chose, as far as the pipeline must know it."""

    names: seal.Names
    policy: route.Policy
    #: By alias domain, where it differs from the above or not.
    domain_policies: Mapping[str, route.Policy] = field(default_factory=dict)
    trusted_sealers: frozenset[str] = frozenset()
    lifetime: timedelta = timedelta(days=5)
    #: Pass a report on that the state does not know, on the strength of its address alone.
    pass_unmatched: bool = False


@dataclass(frozen=True, slots=True)
class Doors:
    """The outside."""

    directory: Directory
    resolver: Resolver
    ledger: Ledger
    mailboxes: Mailboxes
    keys: KeyRing
    clock: Clock
    journal: Journal


class Pipeline:
    """The life of one message. Holds no state of its own."""

    def __init__(self, settings: Settings, doors: Doors, dispatcher: Dispatcher) -> None:
        self._settings = settings
        self._doors = doors
        self._dispatcher = dispatcher

    async def recipient(self, sender: Address | None, address: Address) -> route.Resolved | Refuse:
        """RCPT TO: one answer for each recipient, before the message is sent."""
        doors = self._doors
        return await route.resolve(
            address,
            sender,
            directory=doors.directory,
            ledger=doors.ledger,
            secrets=doors.keys.srs_secrets(),
            today=doors.clock.now().date(),
        )

    async def accept(self, envelope: Envelope, resolved: tuple[route.Resolved, ...], raw: bytes) -> Reply:
        """The final dot: one answer for all recipients."""
        tell = self._doors.journal.event
        tell(
            "message.received",
            id=envelope.id,
            ip=str(envelope.peer.ip),
            helo=envelope.peer.helo,
            sender=envelope.sender or "<>",
            recipients=len(envelope.recipients),
            size=len(raw),
        )
        answer = await self._accept(envelope, resolved, raw)
        tell("message.answered", id=envelope.id, code=answer.code, enhanced=answer.enhanced, text=answer.text)
        return answer

    async def _accept(self, envelope: Envelope, resolved: tuple[route.Resolved, ...], raw: bytes) -> Reply:
        try:
            message = parse_message(raw)
        except MalformedMessage as error:
            return self._refused(envelope, Refuse(reply.malformed(str(error)), str(error)))
        if isinstance(resolved[0], route.ToNowhere):
            return self._discarded(envelope, Discard("report to a one-way address: its sender was never verified"))
        author = parse_from(message)
        unfit = None if isinstance(resolved[0], route.ToSender) else screen.screen_message(message, author)
        if unfit is not None:
            return self._refused(envelope, unfit)
        now = self._doors.clock.now()
        hostname = self._settings.names.hostname
        verdict = await verify(
            self._doors.resolver,
            envelope,
            message,
            author,
            receiver=hostname,
            now=now,
            trusted_sealers=self._settings.trusted_sealers,
        )
        self._tell_verdict(envelope, verdict)
        if isinstance(resolved[0], route.ToSender):
            return await self._return_bounce(envelope, message, verdict, resolved[0])
        routes = []
        for one in resolved:
            assert isinstance(one, route.ToAlias | route.ToMailbox)
            policy = self._settings.domain_policies.get(one.alias.domain, self._settings.policy)
            decided = route.decide(one, envelope, verdict, policy)
            if isinstance(decided, Refuse):
                return self._refused(envelope, decided)
            routes.append(decided)
        loop = screen.screen_loop(message, [one.alias for one in routes])
        if loop is not None:
            return self._refused(envelope, loop)
        return await self._forward(envelope, message, verdict, routes, now)

    # --- forwarding ------------------------------------------------------------------------------------------------------

    async def _forward(
        self, envelope: Envelope, message: Message, verdict: Verdict, routes: Sequence[Forward | Keep], now: datetime
    ) -> Reply:
        forwards = [one for one in routes if isinstance(one, Forward)]
        answer = await self._deliver(envelope, message, verdict, forwards, now) if forwards else reply.KEPT
        if answer.code == 250:
            # Last, because the ledger does not know mailboxes: a sender that must come back has not written here yet.
            for kept in (one for one in routes if isinstance(one, Keep)):
                if not await self._keep(envelope, message, kept, now):
                    return reply.FAULT
        return answer

    async def _deliver(
        self, envelope: Envelope, message: Message, verdict: Verdict, forwards: Sequence[Forward], now: datetime
    ) -> Reply:
        content = _content(message, envelope)
        tickets = {
            (one.alias, target): Ticket(one.alias, target, fingerprint(envelope.sender, one.alias, target, content))
            for one in forwards
            for target in one.targets
        }
        rewritten = self._rewritten(envelope, forwards, now)
        try:
            for sender in rewritten.values():
                if sender.token is not None and envelope.sender is not None:
                    await self._doors.ledger.put_token(sender.token, envelope.sender)
            claims = await self._dispatcher.claim(list(tickets.values()), envelope.id)
        except StoreAway as away:
            self._doors.journal.event("ledger.away", id=envelope.id, step="claim", reason=str(away))
            if len(tickets) > 1 or any(sender.token for sender in rewritten.values()):
                # An opaque sender that nobody keeps could never be answered, and of several recipients nobody would know
                # which have it when the sender comes back.
                self._dispatcher.take_back(list(tickets.values()), envelope.id)
                return reply.STATE_AWAY
            claims = None
        plans = self._plans(envelope, message, verdict, forwards, rewritten, tickets, claims, now)
        fates = [
            *(Fate(one, _known(claims[one])) for one in tickets.values() if claims and claims[one] is not Claim.FRESH),
            *await self._dispatcher.deliver(plans, envelope.id, recorded=claims is not None),
        ]
        self._tell_fates(envelope, fates)
        return await self._answer(envelope, message, verdict, fates)

    def _rewritten(
        self, envelope: Envelope, forwards: Sequence[Forward], now: datetime
    ) -> dict[Address, rewrite.Rewritten]:
        """By alias. Several aliases of one domain share one rewritten sender."""
        keys, directory = self._doors.keys, self._doors.directory
        found = {}
        for one in forwards:
            found[one.alias] = rewrite.rewrite_sender(
                envelope.sender, one, keys.srs_secrets(), now.date(), directory.is_srs_domain
            )
            self._doors.journal.event(
                "route.forward",
                id=envelope.id,
                alias=one.alias,
                targets=len(one.targets),
                sender_form=one.sender_form.value,
                sender=found[one.alias].sender or "<>",
                reason=one.reason,
            )
        return found

    def _plans(
        self,
        envelope: Envelope,
        message: Message,
        verdict: Verdict,
        forwards: Sequence[Forward],
        rewritten: dict[Address, rewrite.Rewritten],
        tickets: dict[tuple[Address, Address], Ticket],
        claims: dict[Ticket, Claim] | None,
        now: datetime,
    ) -> list[Plan]:
        """One plan for each alias and next hop, over the destinations that nobody has delivered yet."""
        plans = []
        for one in forwards:
            mine = [tickets[one.alias, target] for target in one.targets]
            fresh = [ticket for ticket in mine if claims is None or claims[ticket] is Claim.FRESH]
            if not fresh:
                continue
            sender = rewritten[one.alias].sender
            sealed = seal.seal_message(
                message,
                envelope,
                verdict,
                one.alias,
                srs_domain=one.srs_domain,
                names=self._settings.names,
                keys=self._doors.keys,
                now=now,
            )
            self._doors.journal.event("message.sealed", id=envelope.id, alias=one.alias, octets=len(sealed.prefix))
            by_destination = {ticket.destination: ticket for ticket in fresh}
            for group in rewrite.group_by_next_hop(list(by_destination)):
                # The null sender stays null; what vouches for it at the next hop is the name we greet it with.
                domain = one.srs_domain if sender is not None else self._settings.names.hostname
                data = seal.address_to(sealed, sender, group.recipients, domain=domain, keys=self._doors.keys, now=now)
                delivery = Delivery(
                    id=envelope.id,
                    sender=sender,
                    recipients=group.recipients,
                    next_hop=group.next_hop,
                    data=data,
                    expires_at=now + self._settings.lifetime,
                    smtputf8=envelope.smtputf8,
                    body=envelope.body,
                )
                kept = tuple(by_destination[address] for address in group.recipients)
                plans.append(Plan(delivery, kept, self._to_remember(envelope, message, one, sender, kept, now)))
        return plans

    def _to_remember(
        self,
        envelope: Envelope,
        message: Message,
        forward: Forward,
        sender: Address | None,
        tickets: Sequence[Ticket],
        now: datetime,
    ) -> tuple[Forwarded | None, ...]:
        """What a bounce will be matched against; nothing where no bounce can come back."""
        if forward.sender_form is not SenderForm.REVERSIBLE or sender is None or envelope.sender is None:
            return (None,) * len(tickets)
        message_id = _message_id(message)
        return tuple(
            Forwarded(sender, envelope.sender, one.alias, one.destination, message_id, envelope.id, now)
            for one in tickets
        )

    async def _keep(self, envelope: Envelope, message: Message, kept: Keep, now: datetime) -> bool:
        trace = build_received(envelope, by=self._settings.names.hostname, for_=kept.alias, now=now)
        try:
            data = (trace + message.header + message.separator, message.body)
            await self._doors.mailboxes.append(kept.mailbox, envelope.sender, data)
        except OSError as error:
            self._doors.journal.event("mailbox.failed", id=envelope.id, mailbox=kept.mailbox, reason=str(error))
            return False
        self._doors.journal.event("mailbox.kept", id=envelope.id, mailbox=kept.mailbox)
        return True

    # --- what the sender hears -------------------------------------------------------------------------------------------

    async def _answer(self, envelope: Envelope, message: Message, verdict: Verdict, fates: Sequence[Fate]) -> Reply:
        """One reply for every destination. 250 only when each of them has the message, or its sender was told."""
        delivered, deferred, failed = split(fates)
        if deferred:
            return _deferred_reply(deferred[0])
        if not failed:
            return reply.DELIVERED
        if not delivered:
            # RFC 5321 section 6.1: said in session, the sender's own server writes the report. No DSN of ours, no backscatter.
            return _failed_reply(failed[0])
        if envelope.sender is None or verdict.sender_verified_by is None:
            return reply.some_failed(len(delivered), len(failed), _scrubbed(failed[0]))
        return await self._report_failures(envelope, message, failed)

    async def _report_failures(self, envelope: Envelope, message: Message, failed: Sequence[Fate]) -> Reply:
        """Some have it and some never will: the verified sender gets a report from us, and only then our 250."""
        assert envelope.sender is not None
        # RFC 3461 section 4.1: a sender that asked for no report of this recipient gets none.
        failed = [one for one in failed if bounce.wants_failure_report(envelope, one.ticket.alias)]
        if not failed:
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
        )
        outcome = await self._send_report(envelope, raw, envelope.sender, failed[0].ticket.alias.domain)
        match outcome:
            case Delivered():
                return reply.DELIVERED
            case Deferred():
                return reply.STILL_UNDER_WAY
            case Failed():
                return reply.some_failed(1, len(failed), _scrubbed(failed[0]))
            case _:
                assert_never(outcome)

    async def _send_report(
        self, envelope: Envelope, raw: bytes, recipient: Address, alias_domain: str
    ) -> Delivered | Deferred | Failed:
        """A report of ours, with the null sender (RFC 5321 section 4.5.5), claimed and settled like any delivery."""
        now = self._doors.clock.now()
        data = seal.seal_own(
            raw,
            (recipient,),
            srs_domain=self._doors.directory.srs_domain(alias_domain),
            names=self._settings.names,
            keys=self._doors.keys,
            now=now,
        )
        delivery = Delivery(
            id=f"{envelope.id}r",
            sender=None,
            recipients=(recipient,),
            next_hop=recipient.domain,
            data=data,
            expires_at=now + self._settings.lifetime,
            smtputf8=not (recipient.local.isascii() and recipient.domain.isascii()),
        )
        ticket = Ticket(recipient, recipient, b"")
        fates = await self._dispatcher.deliver([Plan(delivery, (ticket,), (None,))], envelope.id, recorded=False)
        self._tell_fates(envelope, fates)
        return fates[0].outcome

    # --- bounces -------------------------------------------------------------------------------------------------------

    async def _return_bounce(
        self, envelope: Envelope, message: Message, verdict: Verdict, resolved: route.ToSender
    ) -> Reply:
        """A report came to a reversible address: matched, scrubbed, passed on to the original sender."""
        admitted = route.evaluate_verdict(verdict, self._settings.policy)
        if isinstance(admitted, Refuse):
            return self._refused(envelope, admitted)
        report = parse_report(message)
        if report is None:
            return self._refused(envelope, Refuse(reply.NO_REPORT, "no delivery report"))
        ledger = self._doors.ledger
        ticket = Ticket(
            resolved.reversible,
            resolved.sender,
            fingerprint(
                None, resolved.reversible, resolved.sender, hashlib.sha256(message.header + message.body).digest()
            ),
        )
        try:
            known = await ledger.find_forward(resolved.reversible, report.message_id, bounce.destinations(report))
            returned = bounce.evaluate_report(resolved.reversible, resolved.sender, known)
            self._tell_match(envelope, returned)
            if known is None and not self._settings.pass_unmatched:
                return self._refused(envelope, Refuse(reply.UNKNOWN_REPORT, "no message of ours matches the report"))
            claim = (await self._dispatcher.claim([ticket], envelope.id))[ticket]
            if claim is not Claim.FRESH:
                return reply.BOUNCE_RETURNED if claim is Claim.DELIVERED else reply.BUSY
            if not await ledger.spend_bounce(resolved.reversible, report.message_id):
                await ledger.settle(envelope.id, [], [ticket.fingerprint], [])
                return self._refused(envelope, Refuse(reply.BOUNCE_BUDGET, "budget of reports used up"))
        except StoreAway as away:
            self._doors.journal.event("ledger.away", id=envelope.id, step="bounce", reason=str(away))
            self._dispatcher.take_back([ticket], envelope.id)
            return reply.STATE_AWAY
        raw = bounce.compose_return(
            report, returned, hostname=self._settings.names.hostname, now=self._doors.clock.now(), id=envelope.id
        )
        outcome = await self._send_report(envelope, raw, resolved.sender, resolved.reversible.domain)
        await self._settle_bounce(envelope, resolved, report.message_id, ticket, outcome)
        match outcome:
            case Delivered():
                return reply.BOUNCE_RETURNED
            case Deferred():
                return reply.STILL_UNDER_WAY
            case Failed():
                # RFC 5321 section 4.5.5: nobody is told of a report that cannot be delivered; its own sender hears it here.
                return Reply(550, outcome.reply.enhanced or "5.0.0", "the original sender's server refuses this report")
            case _:
                assert_never(outcome)

    async def _settle_bounce(
        self,
        envelope: Envelope,
        resolved: route.ToSender,
        message_id: str | None,
        ticket: Ticket,
        outcome: Delivered | Deferred | Failed,
    ) -> None:
        done = isinstance(outcome, Delivered)
        try:
            await self._doors.ledger.settle(
                envelope.id, [ticket.fingerprint] if done else [], [] if done else [ticket.fingerprint], []
            )
            if isinstance(outcome, Deferred):
                await self._doors.ledger.refund_bounce(resolved.reversible, message_id)
        except StoreAway as away:
            self._doors.journal.event("ledger.away", id=envelope.id, step="settle bounce", reason=str(away))

    # --- what is told --------------------------------------------------------------------------------------------------

    def _refused(self, envelope: Envelope, refused: Refuse) -> Reply:
        self._doors.journal.event("route.refuse", id=envelope.id, reason=refused.reason)
        return refused.reply

    def _discarded(self, envelope: Envelope, discarded: Discard) -> Reply:
        self._doors.journal.event("route.discard", id=envelope.id, reason=discarded.reason)
        return reply.DISCARDED

    def _tell_verdict(self, envelope: Envelope, verdict: Verdict) -> None:
        self._doors.journal.event(
            "message.verified",
            id=envelope.id,
            mailkey=verdict.mailkey.result,
            spf=verdict.spf.result,
            dkim=[f"{one.result} {one.domain}" for one in verdict.dkim],
            arc=verdict.arc.result,
            dmarc=verdict.dmarc.result,
            sender_verified_by=verdict.sender_verified_by,
        )

    def _tell_match(self, envelope: Envelope, returned: ReturnBounce) -> None:
        self._doors.journal.event(
            "route.return_bounce",
            id=envelope.id,
            sender=returned.sender,
            alias=returned.alias,
            reason=returned.reason,
        )

    def _tell_fates(self, envelope: Envelope, fates: Sequence[Fate]) -> None:
        for one in fates:
            answer = one.outcome.reply
            self._doors.journal.event(
                "delivery.outcome",
                id=envelope.id,
                alias=one.ticket.alias,
                destination=one.ticket.destination,
                outcome=type(one.outcome).__name__.lower(),
                peer=one.outcome.peer,
                code=answer.code if answer is not None else None,
                text=str(answer) if answer is not None else getattr(one.outcome, "reason", None),
            )


def _known(claim: Claim) -> Delivered | Deferred:
    """What the ledger already knows of a destination."""
    if claim is Claim.DELIVERED:
        return Delivered("ledger", Reply(250, "2.0.0", "delivered by an earlier attempt"))
    return Deferred(BUSY)


def _deferred_reply(fate: Fate) -> Reply:
    assert isinstance(fate.outcome, Deferred)
    if fate.outcome.reason == BUSY:
        return reply.BUSY
    if fate.outcome.reason == STILL_UNDER_WAY or fate.outcome.reply is None:
        return reply.STILL_UNDER_WAY
    enhanced = fate.outcome.reply.enhanced
    return Reply(451, enhanced if enhanced and enhanced[0] == "4" else "4.0.0", _scrubbed(fate))


def _failed_reply(fate: Fate) -> Reply:
    assert isinstance(fate.outcome, Failed)
    code, enhanced = fate.outcome.reply.code, fate.outcome.reply.enhanced
    # RFC 5321 section 4.2.1: only the first digit is ours to rely on; a code that DATA may not answer with becomes 554.
    code = code if code in (550, 551, 552, 553, 554) else 554
    return Reply(code, enhanced if enhanced and enhanced[0] == "5" else "5.0.0", _scrubbed(fate))


def _scrubbed(fate: Fate) -> str:
    """What the next hop said, without a trace of who it is and of the address behind the alias."""
    answer = fate.outcome.reply
    text = answer.text if answer is not None else "no answer from the next hop"
    return (
        bounce.scrub(text, hidden=fate.ticket.destination, alias=fate.ticket.alias, peer=fate.outcome.peer) or "refused"
    )


def _content(message: Message, envelope: Envelope) -> bytes:
    """32 octets for what this message is, so that a retry of it is recognised."""
    # The body's hash is there already, for the signatures; its size tells bodies apart that differ in blank lines only.
    body = canonical.body_hash(message, "relaxed") + len(message.body).to_bytes(8, "big")
    if message.first(b"message-id") is None and message.first(b"date") is None:
        # Two alarms of one device may be the same to the last octet, and both are mail. Without either field a retry cannot
        # be told from them, and a second copy is better than none.
        body += envelope.id.encode()
    return hashlib.sha256(message.header + body).digest()


def _message_id(message: Message) -> str | None:
    found = message.first(b"message-id")
    return parse_message_id(found.value) if found is not None else None
