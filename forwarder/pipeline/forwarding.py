"""Which copies leave, and who gets which? One sealed copy for each alias, one Delivery for each next hop."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from forwarder import notify, rewrite, seal
from forwarder.auth import canonical
from forwarder.auth.signed import sign_together
from forwarder.dispatch import Dispatcher, Fate, Hold, Plan, Ticket
from forwarder.failpoints import reach
from forwarder.mail.report import message_id_of
from forwarder.mail.tlswish import tls_wish
from forwarder.model import (
    Address,
    Deferred,
    Delivery,
    Envelope,
    Field,
    Forward,
    FromRewrite,
    Message,
    Notice,
    Reply,
    Result,
    SecondForm,
    SenderForm,
    Verdict,
)
from forwarder.pipeline.answer import known
from forwarder.pipeline.destinations import PAUSED, Destinations
from forwarder.pipeline.doors import Doors, Settings, Teller
from forwarder.pipeline.metering import Metering
from forwarder.ports import (
    Begun,
    Charge,
    Claim,
    Forwarded,
    Held,
    RateOver,
    StoreAway,
    Waiting,
)
from forwarder.slices import let_others, slices
from forwarder.smtp import reply

__all__ = ["Forwarding", "content_of"]

_NO_NOTICE = Notice()
#: Plans that are made until others have their turn: a list of ten thousand has a hundred, and each takes a signature.
PLANS_A_SLICE = 2


class Forwarding:
    """From routes to fates."""

    def __init__(self, settings: Settings, doors: Doors, dispatcher: Dispatcher) -> None:
        self._settings = settings
        self._doors = doors
        self._dispatcher = dispatcher
        self._tell = Teller(doors.journal)
        self._destinations = Destinations(settings, doors)
        self._metering = Metering(settings, doors)

    async def deliver(
        self,
        envelope: Envelope,
        message: Message,
        verdict: Verdict,
        forwards: Sequence[Forward],
        now: datetime,
        *,
        content: bytes | None = None,
        charges: Sequence[Charge] = (),
        added: Sequence[Field] = (),
        quarantine: str | None = None,
    ) -> list[Fate] | Reply:
        """What became of every destination; a Reply where nothing could be begun. ``content``: what the message was as it
        came, where we have put something on it since. ``charges``: what it takes from rates, if anything of it is to go out.
        ``added``: fields that say what content filters found; ``quarantine``: why it is put aside and not sent."""
        content = content or content_of(message, envelope)
        forwards, paused = await self._sort(envelope, forwards)
        ways = [
            (one.alias, target)
            for one in forwards
            for target in one.targets
            if not paused or target not in paused or self._hold(one.alias) is not Hold.NEVER
        ]
        # A mailkey names the moment and the envelope: who sends twice on purpose has signed twice.
        signed = verdict.mailkey.result is Result.PASS
        tickets = await self._dispatcher.tickets(envelope, ways, content, signed_once=signed)
        rewritten = self._rewritten(envelope, forwards, now)
        begun = _begun(envelope, message, rewritten)
        authored = self._authored(envelope, message, forwards, now)
        reach("K2")
        recorded = True
        try:
            for sender in rewritten.values():
                if sender.token is not None and envelope.sender is not None:
                    await self._doors.ledger.put_token(sender.token, envelope.sender)
            for author in authored.values():
                if author.token is not None:
                    await self._doors.ledger.put_token(author.token, author.author)
            claims = await self._dispatcher.claim(tickets, envelope.id, charges, begun)
        except RateOver as over:
            return self._metering.over(envelope, over, now)
        except StoreAway as away:
            self._doors.journal.event("ledger.away", id=envelope.id, step="claim", reason=str(away))
            tokens = [one.token for one in rewritten.values()] + [one.token for one in authored.values()]
            if len(tickets) > 1 or any(tokens):
                # An opaque address that nobody keeps could never be answered, and of several recipients nobody would know
                # which have it when the sender comes back.
                self._dispatcher.take_back(tickets, envelope.id)
                return reply.STATE_AWAY
            claims, recorded = self._dispatcher.recall(tickets), False
            if Claim.FRESH in claims.values():
                try:
                    self._doors.rates.take(charges, now.timestamp())
                except RateOver as over:
                    self._dispatcher.take_back(tickets, envelope.id)
                    return self._metering.over(envelope, over, now)
        reach("K3")
        fresh = await _fresh(claims)
        plans = await self._plans(
            envelope, message, verdict, forwards, rewritten, authored, fresh, recorded, now, paused, added
        )
        attempted = (
            await self._dispatcher.deliver(plans, envelope.id, recorded=recorded)
            if quarantine is None
            else await self._dispatcher.put_aside(plans, envelope.id, quarantine, recorded=recorded)
        )
        fates = [*attempted] if len(attempted) == len(claims) else [*await _known_before(claims), *attempted]
        if paused:
            named = {(one.alias, one.destination) for one in tickets}
            fates += [
                Fate(Ticket(one.alias, target, b""), Deferred(PAUSED))
                for one in forwards
                for target in one.targets
                if target in paused and (one.alias, target) not in named
            ]
        for at, some in slices(fates):
            if at:
                await let_others()
            self._tell.delivered(envelope, some)
        for at, some in slices(attempted):
            if at:
                await let_others()
            for one in some:
                if self._destinations.teaches(one.outcome):
                    ticket = one.ticket
                    await self._destinations.learn(envelope.id, ticket.alias, ticket.destination, one.outcome)
        return fates

    async def _sort(
        self, envelope: Envelope, forwards: Sequence[Forward]
    ) -> tuple[Sequence[Forward], frozenset[Address]]:
        """Without the destinations that get no mail any more; and which of the others are paused."""
        if not self._doors.standings:
            return forwards, frozenset()
        left, paused = [], frozenset[Address]()
        for one in forwards:
            found = await self._destinations.sort(one.targets, envelope.id)
            for target in found.gone:
                self._doors.journal.event("destination.left_out", id=envelope.id, alias=one.alias, destination=target)
            left.append(replace(one, targets=found.go) if found.gone else one)
            paused |= found.wait
        return left, paused

    def _hold(self, alias: Address) -> Hold:
        return self._settings.domain_holds.get(alias.domain, self._settings.hold)

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

    def _authored(
        self, envelope: Envelope, message: Message, forwards: Sequence[Forward], now: datetime
    ) -> dict[Address, rewrite.RewrittenAuthor]:
        """By alias: what leaves with another From, whoever takes it. Other mail keeps its own, until it is refused."""
        keys, found = self._doors.keys, {}
        for one in forwards:
            if one.from_rewrite is not FromRewrite.AT_ONCE or not keys.dkim(one.srs_domain):
                continue
            authored = rewrite.rewrite_author(message, one.alias, one.srs_domain, keys.srs_secrets(), now.date())
            if authored is not None:
                found[one.alias] = authored
                self._doors.journal.event(
                    "from.rewritten", id=envelope.id, alias=one.alias, next_hop=None, reason=one.from_reason
                )
        return found

    async def _plans(
        self,
        envelope: Envelope,
        message: Message,
        verdict: Verdict,
        forwards: Sequence[Forward],
        rewritten: dict[Address, rewrite.Rewritten],
        authored: dict[Address, rewrite.RewrittenAuthor],
        fresh: dict[Address, dict[Address, Ticket]],
        recorded: bool,
        now: datetime,
        paused: frozenset[Address] = frozenset(),
        added: Sequence[Field] = (),
    ) -> list[Plan]:
        """One plan for each alias and next hop, over the destinations that nobody has delivered yet (``fresh``). What is not
        ``recorded`` is known to this process only once it is under way, so nothing is waited for until then."""
        plans: list[Plan] = []
        tls = tls_wish(envelope, message)
        # The signatures of one message would each wait for the one before.
        may_wait = recorded and len(forwards) == 1
        for one in forwards:
            by_destination = fresh.get(one.alias)
            if by_destination is None:
                continue
            sender = rewritten[one.alias].sender
            sealed = await sign_together(
                seal.seal_message(
                    authored[one.alias].message if one.alias in authored else message,
                    envelope,
                    verdict,
                    one.alias,
                    srs_domain=one.srs_domain,
                    names=self._settings.names,
                    keys=self._doors.keys,
                    now=now,
                    added=added,
                ),
                wait=may_wait,
            )
            self._doors.journal.event("message.sealed", id=envelope.id, alias=one.alias, octets=len(sealed.prefix))
            may_hold = self._hold(one.alias)
            notice = _notice(envelope, one)
            groups = _grouped(list(by_destination), paused)
            for group in groups:
                hold = may_hold
                if group.recipients[0] in paused or self._destinations.is_slowed(group.next_hop):
                    # A pause that cannot be kept here did not come this far.
                    hold = Hold.ALWAYS if may_hold is not Hold.NEVER else may_hold
                # The null sender stays null; what vouches for it at the next hop is the name we greet it with.
                domain = one.srs_domain if sender is not None else self._settings.names.hostname
                data = await sign_together(
                    seal.address_to(
                        sealed,
                        sender,
                        group.recipients,
                        domain=domain,
                        keys=self._doors.keys,
                        now=now,
                        bind=self._settings.bind_recipients,
                    ),
                    wait=may_wait and len(groups) == 1,
                )
                header_at = len(data[0]) - len(sealed.message.header) - len(sealed.message.separator)
                delivery = Delivery(
                    id=envelope.id,
                    sender=sender,
                    recipients=group.recipients,
                    next_hop=group.next_hop,
                    data=data,
                    expires_at=now + self._settings.lifetime,
                    smtputf8=envelope.smtputf8,
                    body=envelope.body,
                    tls=tls,
                    notices=(notice,) * len(group.recipients) if notice != _NO_NOTICE else (),
                    envid=envelope.envid if notice.orcpt is not None else None,
                    # What comes back goes on as its header only: nobody needs to send us the rest.
                    ret="HDRS" if sender is not None else None,
                    second=_second_form(one, verdict, header_at),
                )
                kept = tuple([by_destination[address] for address in group.recipients])
                remembered = self._to_remember(envelope, message, verdict, one, sender, kept, now)
                held = None
                if hold is not Hold.NEVER:
                    held = Held(
                        id=f"{envelope.id}.{len(plans)}",
                        delivery=delivery,
                        waiting=tuple(
                            [
                                Waiting(ticket.alias, ticket.fingerprint, forwarded)
                                for ticket, forwarded in zip(kept, remembered, strict=True)
                            ]
                        ),
                        envelope=envelope,
                        # Architecture section 6, rule 3: no report to a sender that no check vouches for.
                        report_to=envelope.sender if verdict.sender_verified_by is not None else None,
                        srs_domain=one.srs_domain,
                        header_at=header_at,
                        queued_at=now,
                    )
                plans.append(Plan(delivery, kept, remembered, held, hold))
                if len(plans) % PLANS_A_SLICE == 0:
                    await let_others()
        return plans

    def _to_remember(
        self,
        envelope: Envelope,
        message: Message,
        verdict: Verdict,
        forward: Forward,
        sender: Address | None,
        tickets: Sequence[Ticket],
        now: datetime,
    ) -> tuple[Forwarded | None, ...]:
        """What a bounce will be matched against, or a complaint; nothing of a report."""
        if sender is None or envelope.sender is None:
            return (None,) * len(tickets)
        message_id = message_id_of(message)
        asked = envelope.recipient(forward.alias)
        wish, orcpt = (asked.notify, asked.orcpt) if asked is not None else (None, None)
        client, verified = envelope.peer.ip_text, verdict.sender_verified_by is not None
        return tuple(
            [
                Forwarded(
                    sender,
                    envelope.sender,
                    one.alias,
                    one.destination,
                    message_id,
                    envelope.id,
                    now,
                    wish,
                    orcpt,
                    envelope.envid,
                    client,
                    verified,
                )
                for one in tickets
            ]
        )


async def _fresh(claims: dict[Ticket, Claim]) -> dict[Address, dict[Address, Ticket]]:
    """What is to be delivered, by alias and destination."""
    found: dict[Address, dict[Address, Ticket]] = {}
    for at, some in slices(list(claims.items())):
        if at:
            await let_others()
        for ticket, claim in some:
            if claim is Claim.FRESH:
                found.setdefault(ticket.alias, {})[ticket.destination] = ticket
    return found


async def _known_before(claims: dict[Ticket, Claim]) -> list[Fate]:
    """What nobody has to deliver now."""
    found: list[Fate] = []
    for at, some in slices(list(claims.items())):
        if at:
            await let_others()
        found += [Fate(ticket, known(claim)) for ticket, claim in some if claim is not Claim.FRESH]
    return found


def _grouped(destinations: Sequence[Address], paused: frozenset[Address]) -> Sequence[rewrite.Group]:
    """What goes to one next hop, and now or later."""
    if not paused:
        return rewrite.group_by_next_hop(destinations)
    going = [one for one in destinations if one not in paused]
    waiting = [one for one in destinations if one in paused]
    return (*rewrite.group_by_next_hop(going), *rewrite.group_by_next_hop(waiting))


def _begun(envelope: Envelope, message: Message, rewritten: dict[Address, rewrite.Rewritten]) -> list[Begun]:
    """What a report of one of the copies could be about. Nobody reports of a report."""
    if envelope.sender is None:
        return []
    message_id = message_id_of(message)
    return [(one.sender, message_id) for one in rewritten.values() if one.sender is not None]


def _second_form(forward: Forward, verdict: Verdict, header_at: int) -> SecondForm | None:
    """``None``: its From stays what it is now, whoever refuses it."""
    if forward.from_rewrite not in (FromRewrite.IF_REFUSED, FromRewrite.IF_KNOWN) or verdict.dmarc.domain is None:
        return None
    ask = forward.from_rewrite is FromRewrite.IF_KNOWN
    return SecondForm(forward.alias, forward.srs_domain, verdict.dmarc.domain, header_at, ask)


def _notice(envelope: Envelope, forward: Forward) -> Notice:
    """Only where an answer finds its way back."""
    if forward.sender_form is not SenderForm.REVERSIBLE:
        return _NO_NOTICE
    return notify.for_next_hop(envelope, forward.alias, alone=len(forward.targets) == 1)


def content_of(message: Message, envelope: Envelope) -> bytes:
    """32 octets for what this message is, so that a retry of it is recognised."""
    # The body's hash is there already, for the signatures; its size tells bodies apart that differ in blank lines only.
    body = canonical.body_hash(message, "relaxed") + len(message.body).to_bytes(8, "big")
    if message.first(b"message-id") is None and message.first(b"date") is None:
        # Two alarms of one device may be the same to the last octet, and both are mail. Without either field a retry cannot
        # be told from them, and a second copy is better than none.
        body += envelope.id.encode()
    return hashlib.sha256(message.header + body).digest()
