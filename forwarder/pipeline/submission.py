"""What happens to a message of our own users? docs/submission.md. RFC 6409.

recipient   anybody; an alias of ours must exist
accept      does From belong to the client?         ownership
            is it complete?                         complete: Date, Message-ID (RFC 6409 section 8)
            what is in it?                          filtering, where the operator wants it
            what goes on it?                        seal: mailkey, DKIM, Received
            who has it?                             dispatch; aliases of ours by forwarding, like anybody's mail to them
            what does the client hear?              Pipeline.answer
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address

from forwarder import notify, ownership, rewrite, route, screen, seal
from forwarder.auth.signed import sign_together
from forwarder.auth.verify import verify
from forwarder.dispatch import Dispatcher, Fate, Hold, Plan, Ticket
from forwarder.mail.address import ascii_domain, parse_from
from forwarder.mail.date import render_date
from forwarder.mail.header import MalformedMessage, parse_content, parse_message
from forwarder.mail.tlswish import tls_wish
from forwarder.model import (
    Address,
    Content,
    Delivery,
    Envelope,
    Field,
    Forward,
    Keep,
    Message,
    Notice,
    Peer,
    Refuse,
    Reply,
    SenderForm,
)
from forwarder.pipeline.answer import known
from forwarder.pipeline.doors import Doors, Settings, Teller
from forwarder.pipeline.filtering import filter_submitted
from forwarder.pipeline.forwarding import Forwarding, content_of
from forwarder.pipeline.life import Pipeline
from forwarder.ports import Claim, Held, StoreAway, Waiting
from forwarder.smtp import reply

__all__ = ["Allowance", "Submission", "SubmissionSettings"]

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class SubmissionSettings:
    """``source`` is the address that we send from: what SPF sees where a user writes to an alias of ours."""

    source: IPv4Address | IPv6Address
    hide_client: bool = True
    recipients_per_hour: int = 1000


class Submission:
    """The life of one submitted message. The envelope's identity is never ``None`` here."""

    def __init__(
        self,
        settings: Settings,
        submission: SubmissionSettings,
        doors: Doors,
        dispatcher: Dispatcher,
        pipeline: Pipeline,
        allowance: Allowance | None = None,
    ) -> None:
        """``allowance``: what was spent already, by others who speak to the same clients."""
        self._settings = settings
        self._submission = submission
        self._doors = doors
        self._dispatcher = dispatcher
        self._pipeline = pipeline
        self._forwarding = Forwarding(settings, doors, dispatcher)
        self._tell = Teller(doors.journal)
        self._allowance = allowance or Allowance()

    async def recipient(self, sender: Address | None, address: Address) -> route.Resolved | Refuse:
        """RCPT TO. A reversible address is no place to write to: reports come to it on port 25."""
        directory = self._doors.directory
        if not (directory.is_ours(address.domain) or directory.is_srs_domain(address.domain)):
            return route.ToNextHop(address)
        resolved = await self._pipeline.recipient(sender, address)
        if isinstance(resolved, route.ToSender | route.ToNowhere):
            return Refuse(reply.BAD_REVERSIBLE, "a client writes to a reversible address")
        return resolved

    async def accept(self, envelope: Envelope, resolved: tuple[route.Resolved, ...], content: Content) -> Reply:
        """The final dot: one answer for all recipients."""
        assert envelope.identity is not None
        tell = self._doors.journal.event
        tell(
            "message.submitted",
            id=envelope.id,
            ip=envelope.peer.ip_text,
            client=envelope.identity.name,
            sender=envelope.sender or "<>",
            recipients=len(envelope.recipients),
            size=content.size,
            tls=envelope.peer.tls.version if envelope.peer.tls is not None else None,
        )
        answer = await self._accept(envelope, resolved, content)
        tell("message.answered", id=envelope.id, code=answer.code, enhanced=answer.enhanced, text=answer.text)
        return answer

    def heard(self, message: str) -> None:
        """The client has read the 250 to this message, by its id."""
        self._dispatcher.read(message)

    async def _accept(self, envelope: Envelope, resolved: tuple[route.Resolved, ...], content: Content) -> Reply:
        assert envelope.identity is not None
        try:
            message = parse_content(content)
        except MalformedMessage as error:
            return self._tell.refused(envelope, Refuse(reply.malformed(str(error)), str(error)))
        author, now = parse_from(message), self._doors.clock.now()
        aliases = [one.alias for one in resolved if isinstance(one, route.ToAlias | route.ToMailbox)]
        refused = (
            screen.screen_message(message, author)
            or ownership.refuse_author(envelope.identity, author)
            or screen.screen_loop(message, aliases, self._doors.keys.srs_secrets())
            or self._allowance.refuse(envelope.identity.name, len(resolved), now, self._submission.recipients_per_hour)
        )
        if refused is not None:
            return self._tell.refused(envelope, refused)
        named = [one.address for one in envelope.recipients]
        unwanted = await filter_submitted(envelope, message, named, self._settings, self._doors)
        if unwanted is not None:
            return self._tell.refused(envelope, unwanted)
        digest = content_of(message, envelope)
        domains = [ascii_domain(one.domain) for one in author.addresses]
        sealed = await sign_together(
            seal.seal_submitted(
                complete(message, digest, domains[0], now),
                envelope,
                domains,
                names=self._settings.names,
                keys=self._doors.keys,
                now=now,
                hide_client=self._submission.hide_client,
            )
        )
        return await self._send(envelope, resolved, sealed, digest, now)

    async def _send(
        self,
        envelope: Envelope,
        resolved: tuple[route.Resolved, ...],
        sealed: seal.Sealed,
        content: bytes,
        now: datetime,
    ) -> Reply:
        """Out to everybody, then one truthful answer. A mailbox of ours comes last, as the ledger does not know it."""
        envelope = notify.by_alias(envelope, [_named(one) for one in resolved])
        hops = [one.address for one in resolved if isinstance(one, route.ToNextHop)]
        to_hops = await self._to_next_hops(envelope, sealed, hops, content, now, alone=len(resolved) == 1)
        if isinstance(to_hops, Reply):
            return to_hops
        to_aliases = await self._to_aliases(envelope, resolved, sealed, content, now)
        if isinstance(to_aliases, Reply):
            return to_aliases
        answer = await self._pipeline.answer(envelope, sealed.message, [*to_hops, *to_aliases], verified=True)
        for one in {one.alias: one for one in resolved if isinstance(one, route.ToMailbox)}.values():
            if answer.code == 250:
                kept = Keep(one.alias, one.mailbox, "submitted")
                if not await self._pipeline.keep(self._as_our_own(envelope), sealed.message, kept, now):
                    return reply.FAULT
                await self._pipeline.report_kept(envelope, sealed.message, one.alias)
        return answer

    async def _to_next_hops(
        self,
        envelope: Envelope,
        sealed: seal.Sealed,
        recipients: Sequence[Address],
        content: bytes,
        now: datetime,
        *,
        alone: bool,
    ) -> list[Fate] | Reply:
        """With the sender's own address: what comes back goes to the sender's domain and not through us."""
        made = await self._dispatcher.tickets(envelope, ((one, one) for one in recipients), content)
        tickets = {ticket.destination: ticket for ticket in made}
        recorded = True
        try:
            claims = await self._dispatcher.claim(made, envelope.id) if made else {}
        except StoreAway as away:
            self._doors.journal.event("ledger.away", id=envelope.id, step="claim", reason=str(away))
            if not alone:
                # Of several recipients nobody would know which have it when the client comes back.
                self._dispatcher.take_back(made, envelope.id)
                return reply.STATE_AWAY
            claims, recorded = self._dispatcher.recall(made), False
        fresh = [one for one in recipients if claims[tickets[one]] is Claim.FRESH]
        plans: list[Plan] = []
        groups = rewrite.group_by_next_hop(fresh)
        for group in groups:
            mine = tuple(tickets[one] for one in group.recipients)
            delivery = Delivery(
                id=envelope.id,
                sender=envelope.sender,
                recipients=group.recipients,
                next_hop=group.next_hop,
                # What is not recorded is known to this process only once it is under way; and each of many would wait for the
                # one before.
                data=await self._addressed(envelope, sealed, group.recipients, now, wait=recorded and len(groups) == 1),
                expires_at=now + self._settings.lifetime,
                smtputf8=envelope.smtputf8,
                body=envelope.body,
                tls=tls_wish(envelope, sealed.message),
                # RFC 3461 section 5.2.1: a relay hands on what it was asked.
                notices=_notices(envelope, group.recipients),
                envid=envelope.envid,
                ret=envelope.ret,
            )
            held = self._held(envelope, sealed, delivery, mine, f"{envelope.id}.s{len(plans)}")
            plans.append(Plan(delivery, mine, (None,) * len(mine), held, self._settings.hold))
        fates = [
            *(Fate(one, known(claim)) for one, claim in claims.items() if claim is not Claim.FRESH),
            *await self._dispatcher.deliver(plans, envelope.id, recorded=recorded),
        ]
        self._tell.delivered(envelope, fates)
        return fates

    def _held(
        self, envelope: Envelope, sealed: seal.Sealed, delivery: Delivery, tickets: Sequence[Ticket], item: str
    ) -> Held | None:
        """How the queue keeps it. What is refused later is reported to the sender, who is known."""
        if self._settings.hold is Hold.NEVER:
            return None
        own_domain = (envelope.sender or tickets[0].alias).domain
        return Held(
            id=item,
            delivery=delivery,
            waiting=tuple(Waiting(one.alias, one.fingerprint, None) for one in tickets),
            envelope=replace(envelope, identity=None),
            report_to=envelope.sender,
            srs_domain=self._doors.directory.srs_domain(own_domain),
            header_at=len(delivery.data[0]) - len(sealed.message.header) - len(sealed.message.separator),
            queued_at=self._doors.clock.now(),
        )

    async def _to_aliases(
        self,
        envelope: Envelope,
        resolved: tuple[route.Resolved, ...],
        sealed: seal.Sealed,
        content: bytes,
        now: datetime,
    ) -> list[Fate] | Reply:
        """Forwarded like mail that came to port 25 from us: signed, verified, rewritten, hidden. Nothing loops through DNS."""
        pairs = [
            (to, one) for to, one in zip(envelope.recipients, resolved, strict=True) if isinstance(one, route.ToAlias)
        ]
        if not pairs:
            return []
        arriving = replace(self._as_our_own(envelope), recipients=tuple(to for to, _ in pairs))
        addresses = [to.address for to, _ in pairs]
        head, body = await self._addressed(envelope, sealed, addresses, now)
        message = replace(parse_message(head), body=body, body_hashes=sealed.message.body_hashes)
        verdict = await verify(
            self._doors.resolver,
            arriving,
            message,
            parse_from(message),
            receiver=self._settings.names.hostname,
            now=now,
            key_host=self._doors.key_host,
        )
        verdict = replace(verdict, sender_verified_by="login" if envelope.sender is not None else None)
        self._tell.verified(arriving, message, verdict)
        form = SenderForm.NULL if envelope.sender is None else SenderForm.REVERSIBLE
        # One copy for each alias, in whatever spellings it was named.
        aliases = {one.alias: one for _, one in pairs}.values()
        forwards = [Forward(one.alias, one.targets, one.srs_domain, form, "submitted by its owner") for one in aliases]
        return await self._forwarding.deliver(arriving, message, verdict, forwards, now, content=content)

    async def _addressed(
        self,
        envelope: Envelope,
        sealed: seal.Sealed,
        recipients: Sequence[Address],
        now: datetime,
        *,
        wait: bool = True,
    ) -> tuple[bytes, ...]:
        sender = envelope.sender
        domain = sender.domain if sender is not None else self._settings.names.hostname
        bind = self._settings.bind_recipients
        return await sign_together(
            seal.address_to(sealed, sender, recipients, domain=domain, keys=self._doors.keys, now=now, bind=bind),
            wait=wait,
        )

    def _as_our_own(self, envelope: Envelope) -> Envelope:
        """The envelope as we would hand it to ourselves: the client is not in it any more."""
        return replace(envelope, peer=Peer(self._submission.source, self._settings.names.hostname), identity=None)


def _named(one: route.Resolved) -> Address:
    """As the tickets name it."""
    if isinstance(one, route.ToNextHop):
        return one.address
    assert isinstance(one, route.ToAlias | route.ToMailbox)
    return one.alias


def _notices(envelope: Envelope, recipients: Sequence[Address]) -> tuple[Notice, ...]:
    notices = tuple(notify.for_next_hop(envelope, one, alone=True) for one in recipients)
    return notices if any(one != Notice() for one in notices) else ()


def complete(message: Message, content: bytes, domain: str, now: datetime) -> Message:
    """RFC 6409 section 8: Date and Message-ID where they are missing, on top; nothing else is touched. The Message-ID is made
    of the content, so that a client's retry is the same message for whoever got it already."""
    added = []
    if message.first(b"date") is None:
        added.append(Field(b"date", f"Date: {render_date(now)}\r\n".encode()))
    if message.first(b"message-id") is None:
        added.append(Field(b"message-id", f"Message-ID: <{content.hex()[:40]}@{domain}>\r\n".encode()))
    if not added:
        return message
    header = b"".join(one.raw for one in added) + message.header
    return replace(message, header=header, fields=(*added, *message.fields))


class Allowance:
    """How many recipients has each client written to within this hour? One entry for each client of the configuration."""

    def __init__(self) -> None:
        self._spent: dict[str, tuple[datetime, int]] = {}

    def refuse(self, client: str, recipients: int, now: datetime, per_hour: int) -> Refuse | None:
        """``None``: they are counted, and may be written to."""
        since, spent = self._spent.get(client, (now, 0))
        if now - since >= _HOUR:
            since, spent = now, 0
        if spent + recipients > per_hour:
            return Refuse(reply.ENOUGH_SUBMITTED, f"{client} has written to {spent} recipients since {since:%H:%M}")
        self._spent[client] = (since, spent + recipients)
        return None
