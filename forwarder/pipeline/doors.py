"""What does the pipeline know of the operator's choices and of the outside, and what does it tell of a message?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from forwarder import bounce, route, seal
from forwarder.content import ContentRule
from forwarder.dispatch import Fate, Hold
from forwarder.mail.reasons import Reason, Rules, standard_rules
from forwarder.mail.report import RecipientStatus, message_id_of
from forwarder.model import (
    Address,
    Caller,
    Discard,
    Envelope,
    Message,
    Queued,
    RecipientOutcome,
    Refuse,
    Reply,
    ReturnBounce,
    Verdict,
)
from forwarder.ports import (
    Clock,
    ComeBack,
    ContentFilters,
    Digests,
    Directory,
    Greylist,
    Journal,
    KeyHost,
    KeyRing,
    Ledger,
    Mailboxes,
    Queue,
    Resolver,
    Standings,
)
from forwarder.rates import RateMemory, Rates
from forwarder.smtp import reply
from forwarder.smtp.lenient import STANDARD, Lenient
from forwarder.standing import Patience, Scale

__all__ = ["DEFAULT_WEIGHTS", "ContentPolicy", "Doors", "Greylisting", "Settings", "Teller", "alike", "named"]

#: What a failure counts against its destination that is not hard. Of the other reasons, nothing.
DEFAULT_WEIGHTS: Mapping[Reason, float] = {
    Reason.UNKNOWN_USER: 0.5,
    Reason.MAILBOX_FULL: 0.2,
    Reason.DNS: 0.5,
    Reason.EXPIRED: 0.2,
}


#: Destinations that one event names: a line of the log is short enough then to be written whole where others write too.
MAX_NAMED = 50


@dataclass(frozen=True, slots=True)
class Greylisting:
    """Whom nobody vouches for comes back later. ``from_score``: only whom DNS lists give so much; 0: everybody. ``skip``: but for
    these networks."""

    rule: ComeBack = field(default_factory=ComeBack)
    from_score: float = 0
    skip: Sequence[IPv4Network | IPv6Network] = ()


@dataclass(frozen=True, slots=True)
class ContentPolicy:
    """What follows from what content filters say. ``rules`` are in the order of the filters. ``postmaster``: they are asked about
    its mail and abuse's too; ``submission``: and about what our users submit. ``skip``: not about mail from these networks."""

    rules: Sequence[ContentRule]
    postmaster: bool = False
    submission: bool = False
    skip: Sequence[IPv4Network | IPv6Network] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator chose, as far as the pipeline must know it."""

    names: seal.Names
    policy: route.Policy
    #: By alias domain, where it differs from the above or not.
    domain_policies: Mapping[str, route.Policy] = field(default_factory=dict)
    trusted_sealers: frozenset[str] = frozenset()
    lenient: Lenient = STANDARD
    lifetime: timedelta = timedelta(days=5)
    #: May mail be kept here? Overall, and by alias domain where that differs.
    hold: Hold = Hold.AUTO
    domain_holds: Mapping[str, Hold] = field(default_factory=dict)
    #: Who hears of failures, in which words.
    routing: bounce.Routing = field(default_factory=bounce.Routing)
    letters: bounce.Letters = field(default_factory=bounce.standard_letters)
    #: What a report must have in common with a message of ours.
    matching: bounce.Matching = bounce.Matching.KNOWN
    #: Why deliveries fail, as the words of reports and replies tell.
    reason_rules: Rules = field(default_factory=standard_rules)
    #: Different recipients that one mailkey signature without rt= may reach; 0: they are not counted.
    replay_recipients: int = 25
    #: Our mailkey signatures hold for the recipients of one transaction only (rt=).
    bind_recipients: bool = True
    #: Seconds that a message waits until a sender that said nothing about reports hears of it; 0: never.
    delay_report: float = 0
    #: Addresses of ours, lower case, that complaints come to, besides abuse of each domain.
    complaint_addresses: frozenset[str] = frozenset()
    #: What follows from complaints, and how many messages an hour of a sender pass that is slowed down.
    reputation: Scale = field(default_factory=Scale)
    slow_per_hour: float = 20
    #: What follows from failures of a destination: what a hard one counts, what others do, and when it is too much.
    patience: Patience = field(default_factory=Patience)
    hard_weight: float = 1.0
    weights: Mapping[Reason, float] = field(default_factory=lambda: DEFAULT_WEIGHTS)
    #: How much mail there may be of whom.
    rates: Rates = field(default_factory=Rates)
    #: ``None``: nobody is asked to come back.
    greylisting: Greylisting | None = None
    #: ``None``: nobody is asked about content.
    content: ContentPolicy | None = None
    #: What a report to a domain without a mailkey ends with (``bounce.note``), and where it leads; ``None``: nothing.
    note: str | None = None
    note_url: str = ""


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
    #: ``None``: no key host is asked.
    key_host: KeyHost | None = None
    #: ``None``: nothing is held against anybody.
    standings: Standings | None = None
    #: ``None``: what is for a digest goes to the owner at once.
    digests: Digests | None = None
    #: ``None``: nobody is asked to come back.
    greylist: Greylist | None = None
    #: ``None``: nobody is asked about content.
    filters: ContentFilters | None = None
    #: ``None``: what we write ourselves is not sent later.
    queue: Queue | None = None
    #: Which rates are over, and all of them while the store is away.
    rates: RateMemory = field(default_factory=RateMemory)


def alike(
    outcomes: Sequence[tuple[Address, Address, RecipientOutcome | Queued]],
) -> Iterator[tuple[Address, RecipientOutcome | Queued, list[Address]]]:
    """From (alias, destination, outcome): the destinations of one alias for which all was the same, so many that one event names
    them."""
    if len(outcomes) == 1:
        # Nothing is to be compared, nor hashed.
        alias, destination, outcome = outcomes[0]
        yield alias, outcome, [destination]
        return
    together: dict[tuple[Address, RecipientOutcome | Queued], list[Address]] = {}
    last: tuple[Address, RecipientOutcome | Queued] | None = None
    destinations: list[Address] = []
    for alias, destination, outcome in outcomes:
        # What one transaction led to is one object, and is not compared.
        if last is None or outcome is not last[1] or alias is not last[0]:
            last = alias, outcome
            destinations = together.setdefault(last, [])
        destinations.append(destination)
    for (alias, outcome), found in together.items():
        for at in range(0, len(found), MAX_NAMED):
            yield alias, outcome, found[at : at + MAX_NAMED]


def named(destinations: Sequence[Address]) -> dict[str, Any]:
    """The field of an event that names them."""
    return {"destination": destinations[0]} if len(destinations) == 1 else {"destinations": list(destinations)}


class Teller:
    """The events of a message's life."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def refused(self, envelope: Envelope, refused: Refuse) -> Reply:
        self._journal.event("route.refuse", id=envelope.id, reason=refused.reason)
        return refused.reply

    def discarded(self, envelope: Envelope, discarded: Discard) -> Reply:
        self._journal.event("route.discard", id=envelope.id, reason=discarded.reason)
        return reply.DISCARDED

    def verified(self, envelope: Envelope, message: Message, verdict: Verdict) -> None:
        self._journal.event(
            "message.verified",
            id=envelope.id,
            message_id=message_id_of(message),
            mailkey=verdict.mailkey.result,
            spf=verdict.spf.result,
            dkim=[f"{one.result} {one.domain}" for one in verdict.dkim],
            arc=verdict.arc.result,
            dmarc=verdict.dmarc.result,
            sender_verified_by=verdict.sender_verified_by,
            **_caller(envelope.caller),
        )

    def matched(
        self,
        envelope: Envelope,
        returned: ReturnBounce,
        said: RecipientStatus,
        *,
        kind: bounce.Kind,
        target: bounce.Target,
        unmatched: str | None,
    ) -> None:
        """``unmatched``: why it goes on although it has too little in common with a message of ours."""
        self._journal.event(
            "route.return_bounce",
            id=envelope.id,
            sender=returned.sender,
            alias=returned.alias,
            reason=returned.reason,
            action=said.action,
            status=said.status,
            cause=said.reason,
            hard=said.hard,
            kind=kind,
            route=target,
            matched=list(returned.matched),
            about=returned.about,
            unmatched=unmatched,
        )

    def delivered(self, envelope: Envelope, fates: Sequence[Fate]) -> None:
        for alias, outcome, destinations in alike(
            [(one.ticket.alias, one.ticket.destination, one.outcome) for one in fates]
        ):
            answer = None if isinstance(outcome, Queued) else outcome.reply
            self._journal.event(
                "delivery.outcome",
                id=envelope.id,
                alias=alias,
                **named(destinations),
                outcome=type(outcome).__name__.lower(),
                peer=None if isinstance(outcome, Queued) else outcome.peer,
                code=answer.code if answer is not None else None,
                text=str(answer) if answer is not None else getattr(outcome, "reason", None),
            )


def _caller(caller: Caller | None) -> dict[str, str | list[str]]:
    """What was asked about the client and found out."""
    told: dict[str, str | list[str]] = {}
    if caller is None:
        return told
    if caller.listed:
        told["listed"] = [f"{one.zone} {one.weight:g}" for one in caller.listed]
    if caller.iprev is not None:
        told["iprev"] = str(caller.iprev.result)
    if caller.helo is not None:
        told["helo_name"] = str(caller.helo.fact)
    return told
