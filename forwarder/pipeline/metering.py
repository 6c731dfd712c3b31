"""Is there too much of this mail now? What counts a message, and what its sender hears. docs/decisions/0026

Nothing here asks the store: what a message takes goes along with the claim (``pipeline.forwarding``). What is known to be over is
refused before that, as early as it can be: an alias at RCPT TO, a network before anything is verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from forwarder import route
from forwarder.auth import canonical
from forwarder.mail.address import ascii_domain
from forwarder.model import Address, Envelope, Forward, Message, Refuse, Reply, Result, Verdict
from forwarder.pipeline.doors import Doors, Settings
from forwarder.pipeline.reputation import sender_subject
from forwarder.ports import Charge, RateKind, RateOver
from forwarder.smtp import reply

__all__ = ["Metering"]

#: Signatures of one message that are counted: more are no use to an honest sender.
MAX_SIGNATURES = 4


class Metering:
    """Without rates (``Settings``) nothing is counted and nothing over."""

    def __init__(self, settings: Settings, doors: Doors) -> None:
        self._rates = settings.rates
        self._doors = doors

    # --- what is known to be over

    def refuse_recipient(self, resolved: route.Resolved) -> Refuse | None:
        """At RCPT TO, so that one recipient that has too much does not keep the others of a message waiting."""
        if not self._rates.per_hour or not isinstance(resolved, route.ToAlias):
            return None
        now = self._doors.clock.now().timestamp()
        subjects: list[tuple[RateKind, Address | str]] = [
            (RateKind.ALIAS, resolved.alias),
            *((RateKind.DESTINATION, target) for target in resolved.targets),
            (RateKind.SRS_DOMAIN, resolved.srs_domain),
        ]
        for kind, subject in subjects:
            wait = self._wait(kind, subject, now)
            if wait:
                return _refused(kind, wait)
        return None

    def refuse_client(self, envelope: Envelope) -> Refuse | None:
        """At the final dot, before the message costs anything more."""
        if RateKind.NETWORK not in self._rates.per_hour or self._is_exempt(envelope):
            return None
        wait = self._wait(RateKind.NETWORK, _network(envelope), self._doors.clock.now().timestamp())
        return _refused(RateKind.NETWORK, wait) if wait else None

    def _wait(self, kind: RateKind, subject: Address | str, now: float) -> float:
        return self._doors.rates.wait(kind, subject, now) if kind in self._rates.per_hour else 0

    def over(self, envelope: Envelope, over: RateOver, now: datetime) -> Reply:
        """The store says that it is over: remember it, and what the sender hears."""
        memory, kind = self._doors.rates, over.charge.kind
        memory.note(over, now.timestamp())
        unsaid = memory.unsaid(kind, now.timestamp())
        if unsaid is not None:
            self._doors.journal.event(
                "rates.over",
                id=envelope.id,
                kind=str(kind),
                subject=over.charge.subject,
                wait=round(over.wait, 1),
                others=unsaid,
            )
        return reply.rate_over(_WORDS[kind], over.wait)

    # --- what a message takes

    def charges(
        self,
        envelope: Envelope,
        message: Message,
        author: Sequence[Address],
        verdict: Verdict,
        forwards: Sequence[Forward],
    ) -> list[Charge]:
        """Each subject once, whatever the number of recipients that lead to it. ``author``: the addresses in From."""
        if not self._rates.per_hour:
            return []
        subjects: list[tuple[RateKind, Address | str]] = []
        if RateKind.NETWORK in self._rates.per_hour and not self._is_exempt(envelope):
            subjects.append((RateKind.NETWORK, _network(envelope)))
        if envelope.sender is not None:
            # What anybody can claim is counted apart: else a forger could use up what the domain itself may send.
            kind = RateKind.CLAIMED if verdict.sender_verified_by is None else RateKind.DOMAIN
            subjects.append((kind, ascii_domain(envelope.sender.domain)))
        for one in forwards:
            subjects.append((RateKind.ALIAS, one.alias))
            subjects += [(RateKind.DESTINATION, target) for target in one.targets]
            subjects.append((RateKind.SRS_DOMAIN, one.srs_domain))
        charges = {
            (kind, str(subject).lower()): self._rates.charge(kind, subject, message.size)
            for kind, subject in subjects
            if kind in self._rates.per_hour
        }
        if RateKind.REPLAY in self._rates.per_hour:
            for subject in _bodies(message, author, verdict):
                charges[RateKind.REPLAY, subject] = self._rates.charge(RateKind.REPLAY, subject)
        return list(charges.values())

    def _is_exempt(self, envelope: Envelope) -> bool:
        ip = envelope.peer.ip
        return any(ip in network for network in self._rates.exempt)


_WORDS = {
    RateKind.NETWORK: "from your network",
    RateKind.DOMAIN: "from this domain",
    RateKind.CLAIMED: "from this domain that nothing vouches for",
    RateKind.ALIAS: "for this recipient",
    # Nobody hears that there is an address behind the alias.
    RateKind.DESTINATION: "for this recipient",
    RateKind.SRS_DOMAIN: "for this domain",
    RateKind.REPLAY: "like this message",
}


def _refused(kind: RateKind, wait: float) -> Refuse:
    return Refuse(reply.rate_over(_WORDS[kind], wait), f"the rate of this {kind} is over")


def _network(envelope: Envelope) -> str:
    return sender_subject(None, False, envelope.peer.ip).name


def _bodies(message: Message, author: Sequence[Address], verdict: Verdict) -> list[str]:
    """What stays the same when one message is sent again and again: its signatures that hold (whoever adds one of his own cannot
    take the others off and be vouched for), or, where none does, its body together with the author."""
    signed = [
        f"{one.domain} {one.selector} {one.signature}"
        for one in verdict.dkim
        if one.result is Result.PASS and one.signature is not None
    ]
    if signed:
        return signed[:MAX_SIGNATURES]
    if not author:
        return []
    digest = hashlib.sha256(canonical.body_hash(message, "relaxed") + str(author[0]).lower().encode()).hexdigest()
    return [f"{ascii_domain(author[0].domain)} {digest[:24]}"]
