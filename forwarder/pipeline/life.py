"""What happens to a message, from the first RCPT TO to the reply to its final dot? docs/flow.md tells it in the same order.

recipient   where does it lead?                     route.resolve
accept      is it one message for every reader?     mail.header, screen
            is there too much of it?                metering
            who vouches for it?                     auth.verify, replay
            may it pass, and as what?               route.decide, greylisting, reputation
            what is in it?                          filtering
            whose sender does it leave with?        rewrite
            what goes on it?                        seal
            who has it?                             dispatch
            what does the sender hear?              answer
a report    for a reversible address goes by returning.return_bounce instead
our users   submission: another way in, the same way out
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from forwarder import notify, route, screen
from forwarder.auth.verify import verify
from forwarder.dispatch import Dispatcher, Fate, split
from forwarder.failpoints import reach
from forwarder.mail.address import parse_from
from forwarder.mail.header import MalformedMessage, parse_content
from forwarder.mail.received import build_received
from forwarder.mail.report import message_id_of
from forwarder.model import (
    Address,
    Content,
    Discard,
    Envelope,
    Forward,
    Keep,
    Message,
    Refuse,
    Reply,
    Verdict,
)
from forwarder.pipeline.answer import accepted_reply, deferred_reply, failed_reply, scrubbed, set_aside_reply
from forwarder.pipeline.destinations import Destinations
from forwarder.pipeline.doors import Doors, Settings, Teller
from forwarder.pipeline.filtering import Filtered, filter_message
from forwarder.pipeline.forwarding import Forwarding
from forwarder.pipeline.greylisting import greylist
from forwarder.pipeline.metering import Metering
from forwarder.pipeline.replay import count_replays
from forwarder.pipeline.reporting import Reporting
from forwarder.pipeline.reputation import Reputation
from forwarder.pipeline.returning import Returning
from forwarder.ports import Charge, StoreAway
from forwarder.smtp import reply

__all__ = ["Pipeline"]


class Pipeline:
    """The life of one message. Holds no state of its own."""

    def __init__(self, settings: Settings, doors: Doors, dispatcher: Dispatcher) -> None:
        self._settings = settings
        self._doors = doors
        self._dispatcher = dispatcher
        self._tell = Teller(doors.journal)
        self._forwarding = Forwarding(settings, doors, dispatcher)
        self._reporting = Reporting(settings, doors, dispatcher)
        self._metering = Metering(settings, doors)
        self._reputation = Reputation(settings, doors)
        self._returning = Returning(settings, doors, dispatcher, self._reporting)
        self._destinations = Destinations(settings, doors)

    async def recipient(self, sender: Address | None, address: Address) -> route.Resolved | Refuse:
        """RCPT TO: one answer for each recipient, before the message is sent."""
        doors = self._doors
        resolved = await route.resolve(
            address,
            sender,
            directory=doors.directory,
            ledger=doors.ledger,
            secrets=doors.keys.srs_secrets(),
            legacies=doors.keys.srs_legacies(),
            today=doors.clock.now().date(),
        )
        if not isinstance(resolved, route.ToAlias):
            return resolved
        return self._destinations.at_rcpt(resolved) or self._metering.refuse_recipient(resolved) or resolved

    async def accept(self, envelope: Envelope, resolved: tuple[route.Resolved, ...], content: Content) -> Reply:
        """The final dot: one answer for all recipients."""
        tell = self._doors.journal.event
        tell(
            "message.received",
            id=envelope.id,
            ip=envelope.peer.ip_text,
            helo=envelope.peer.helo,
            sender=envelope.sender or "<>",
            recipients=len(envelope.recipients),
            size=content.size,
            tls=envelope.peer.tls.version if envelope.peer.tls is not None else None,
        )
        reach("K1")
        answer = await self._accept(envelope, resolved, content)
        tell("message.answered", id=envelope.id, code=answer.code, enhanced=answer.enhanced, text=answer.text)
        return answer

    def heard(self, message: str) -> None:
        """Its sender has read the 250 to this message, by its id: the same octets are another message from now on."""
        self._dispatcher.read(message)

    async def _accept(self, envelope: Envelope, resolved: tuple[route.Resolved, ...], content: Content) -> Reply:
        try:
            message = parse_content(content)
        except MalformedMessage as error:
            return self._tell.refused(envelope, Refuse(reply.malformed(str(error)), str(error)))
        if isinstance(resolved[0], route.ToNowhere):
            return self._tell.discarded(envelope, Discard("report to a one-way address: its sender was never verified"))
        lenient = self._settings.lenient
        author = parse_from(message, loose_dots=lenient.dots)
        unfit = None if isinstance(resolved[0], route.ToSender) else screen.screen_message(message, author, lenient)
        if unfit is not None:
            return self._tell.refused(envelope, unfit)
        too_much = self._metering.refuse_client(envelope) if isinstance(resolved[0], route.ToAlias) else None
        if too_much is not None:
            return self._tell.refused(envelope, too_much)
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
            key_host=self._doors.key_host,
        )
        verdict = await count_replays(envelope, resolved, verdict, self._settings, self._doors, now)
        self._tell.verified(envelope, message, verdict)
        if isinstance(resolved[0], route.ToSender):
            return await self._returning.return_bounce(envelope, message, verdict, resolved[0])
        aliases: list[Address] = []
        # By alias: however often and in whatever spelling a sender names one, it gets one copy.
        routes: dict[Address, Forward | Keep] = {}
        for one in resolved:
            assert isinstance(one, route.ToAlias | route.ToMailbox)
            policy = self._settings.domain_policies.get(one.alias.domain, self._settings.policy)
            decided = route.decide(one, envelope, verdict, policy)
            if isinstance(decided, Refuse):
                return self._tell.refused(envelope, decided)
            routes[decided.alias] = decided
            aliases.append(decided.alias)
        addressed = list(routes)
        loop = screen.screen_loop(message, addressed, self._doors.keys.srs_secrets())
        if loop is not None:
            return self._tell.refused(envelope, loop)
        too_early = await greylist(envelope, verdict, addressed, self._settings, self._doors)
        if too_early is not None:
            return self._tell.refused(envelope, too_early)
        one_way = self._reputation.admit(envelope, verdict, addressed, now)
        if isinstance(one_way, Refuse):
            return self._tell.refused(envelope, one_way)
        filtered = await filter_message(envelope, message, verdict, addressed, self._settings, self._doors)
        if isinstance(filtered, Refuse):
            return self._tell.refused(envelope, filtered)
        if isinstance(filtered, Discard):
            return self._tell.discarded(envelope, filtered)
        if no_way_back := one_way or filtered.one_way:
            routes = {alias: route.without_way_back(one, no_way_back) for alias, one in routes.items()}
        await self._reputation.note_complaint(envelope, message, addressed)
        for address in {one.alias for one in resolved if isinstance(one, route.ToAlias) and one.answer}:
            refused = await self._refuse_answer(address, message)
            if refused is not None:
                return self._tell.refused(envelope, refused)
        envelope = notify.by_alias(envelope, aliases)
        forwards = [one for one in routes.values() if isinstance(one, Forward)]
        kept = [one for one in routes.values() if isinstance(one, Keep)] if len(forwards) < len(routes) else []
        charges = self._metering.charges(envelope, message, author.addresses, verdict, forwards)
        return await self._forward(envelope, filtered, verdict, forwards, kept, now, charges)

    async def _refuse_answer(self, address: Address, message: Message) -> Refuse | None:
        """A reply address is in the hands of whoever got the message: it takes no more than a return path does."""
        try:
            within = await self._doors.ledger.spend_bounce(address, message_id_of(message))
        except StoreAway as away:
            return Refuse(reply.STATE_AWAY, f"answers cannot be counted: {away}")
        return None if within else Refuse(reply.ENOUGH_ANSWERS, "enough answers to this author")

    async def _forward(
        self,
        envelope: Envelope,
        filtered: Filtered,
        verdict: Verdict,
        forwards: Sequence[Forward],
        kept: Sequence[Keep],
        now: datetime,
        charges: Sequence[Charge],
    ) -> Reply:
        message = filtered.message
        verified = verdict.sender_verified_by is not None
        answer = reply.KEPT
        if forwards:
            fates = await self._forwarding.deliver(
                envelope,
                message,
                verdict,
                forwards,
                now,
                charges=charges,
                added=filtered.added,
                quarantine=filtered.quarantine,
            )
            if isinstance(fates, Reply):
                answer = fates
            elif filtered.quarantine is not None:
                answer = set_aside_reply(fates)
            else:
                answer = await self.answer(envelope, message, fates, verified=verified)
        if answer.code == 250:
            # Last, because the ledger does not know mailboxes: a sender that must come back has not written here yet.
            for one in kept:
                if not await self.keep(envelope, message, one, now):
                    return reply.FAULT
                if verified:
                    await self.report_kept(envelope, message, one.alias)
        return answer

    async def keep(self, envelope: Envelope, message: Message, kept: Keep, now: datetime) -> bool:
        """Into a mailbox file of this host; False: it could not be written."""
        trace = build_received(envelope, by=self._settings.names.hostname, for_=kept.alias, now=now)
        try:
            data = (trace + message.header + message.separator, message.body)
            await self._doors.mailboxes.append(kept.mailbox, envelope.sender, data)
        except OSError as error:
            self._doors.journal.event("mailbox.failed", id=envelope.id, mailbox=kept.mailbox, reason=str(error))
            return False
        self._doors.journal.event("mailbox.kept", id=envelope.id, mailbox=kept.mailbox)
        return True

    async def report_kept(self, envelope: Envelope, message: Message, alias: Address) -> None:
        """The verified sender hears of it, where it asked to."""
        await self._reporting.report_kept(envelope, message, alias)

    async def answer(self, envelope: Envelope, message: Message, fates: Sequence[Fate], *, verified: bool) -> Reply:
        """One reply for every destination. 250 only when each of them has the message, or it is durable here, or its sender
        was told."""
        if verified:
            # Whatever the answer is: what is delivered is not delivered again.
            await self._reporting.report_success(envelope, message, fates)
        taken, deferred, failed = split(fates)
        if deferred:
            return deferred_reply(deferred[0])
        if not failed:
            return accepted_reply(taken)
        if not taken:
            # RFC 5321 section 6.1: said in session, the sender's own server writes the report. No DSN of ours, no backscatter.
            return failed_reply(failed[0])
        if envelope.sender is None or not verified:
            return reply.some_failed(len(taken), len(failed), scrubbed(failed[0]))
        return await self._reporting.report_failures(envelope, message, failed)
