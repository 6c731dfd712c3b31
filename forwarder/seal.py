"""What do we put on a message before it leaves? Trace fields and signatures, in front of what the sender wrote.

From the top:

    Mailkey-Signature           ours, over the new envelope sender; one for each next hop, bound to its recipients
    ARC-Seal, -Message-Signature, -Authentication-Results     what we found, for receivers that read ARC (RFC 8617)
    DKIM-Signature (RSA, ed25519)                             we handled this (RFC 6376)
    X-Spam-Status and others    what content filters found, by names that the operator gave
    Authentication-Results      what we found (RFC 8601)
    Delivered-To                the alias; stops loops (RFC 9228)
    Received                    the lowest of our block: all below it is the sender's (bounce.py cuts there); with our
                                loop mark

The sender's own fields and its body are never touched, but for Authentication-Results that claim our name on arrival: they are
forged, or our own from an earlier pass, and are taken out (RFC 8601 section 5); and for From, where the Route says so
(mail.author).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from forwarder.auth import canonical
from forwarder.auth.arc import seal_set
from forwarder.auth.dkim import sign_dkim
from forwarder.auth.mailkey import sign_mailkey
from forwarder.auth.signed import Selected, Signing, select_ours
from forwarder.auth.template import Written
from forwarder.loopmark import make_mark
from forwarder.mail import authres, received
from forwarder.mail.address import wire
from forwarder.mail.header import parse_message
from forwarder.model import Address, ArcCheck, Envelope, Field, Message, Result, Verdict
from forwarder.ports import KeyRing, SigningKey

__all__ = ["Names", "Sealed", "address_to", "seal_edited", "seal_message", "seal_own", "seal_submitted"]

#: Of our block, what is made anew when the message below it was edited.
_SIGNATURES = frozenset(
    {b"mailkey-signature", b"dkim-signature", b"arc-seal", b"arc-message-signature", b"arc-authentication-results"}
)
#: Of a seal of our own.
_TAG = re.compile(rb"(?:\A|;)[ \t\r\n]*(i|cv)=([a-z0-9]+)")
#: No set of ours was on it, and none comes on it now: what the chain was is known no more.
_NOT_SEALED = ArcCheck(Result.TEMPERROR)


@dataclass(frozen=True, slots=True)
class Names:
    """Who we are: in Received and EHLO, and in Authentication-Results."""

    hostname: str
    authserv_id: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """A message with everything on it that all of its next hops share."""

    prefix: bytes
    message: Message
    body_hash: bytes
    #: What our signatures sign of what the sender wrote.
    selected: Selected

    @property
    def chunks(self) -> tuple[bytes, ...]:
        """The octets as they leave, the body last and not copied."""
        return (self.prefix + self.message.header + self.message.separator, self.message.body)


def seal_message(
    message: Message,
    envelope: Envelope,
    verdict: Verdict,
    alias: Address,
    *,
    srs_domain: str,
    names: Names,
    keys: KeyRing,
    now: datetime,
    added: Sequence[Field] = (),
) -> Signing[Sealed]:
    """Everything but the mailkey signature, which is bound to a next hop. ``added``: fields of content filters."""
    message = remove_forged_results(message, names.authserv_id)
    results = authres.render(names.authserv_id, verdict, envelope)
    trace = (
        *(one.raw for one in added),
        authres.build_field(results),
        b"Delivered-To: " + wire(alias) + b"\r\n",
        received.build_received(
            envelope, by=names.hostname, for_=alias, now=now, mark=make_mark(keys.srs_secrets()[0], alias, message)
        ),
    )
    return (yield from _sign(message, trace, results, verdict.arc, srs_domain=srs_domain, keys=keys, now=now))


def seal_edited(block: bytes, message: Message, *, srs_domain: str, keys: KeyRing, now: datetime) -> Signing[Sealed]:
    """The same trace, with new signatures, on a message that was edited since it was sealed. ``block`` is what we had put in
    front of it."""
    fields = parse_message(block).fields
    trace = [one for one in fields if one.name not in _SIGNATURES]
    results = next(one.value for one in trace if one.name == b"authentication-results")
    chain = next((_chain_before(one) for one in fields if one.name == b"arc-seal"), None)
    return (
        yield from _sign(
            message,
            [one.raw for one in trace],
            results,
            chain or _NOT_SEALED,
            srs_domain=srs_domain,
            keys=keys,
            now=now,
        )
    )


def _sign(
    message: Message,
    trace: Sequence[bytes],
    results: bytes,
    chain: ArcCheck,
    *,
    srs_domain: str,
    keys: KeyRing,
    now: datetime,
) -> Signing[Sealed]:
    """DKIM over what the sender wrote, ARC over that; ``trace`` stands below, as nobody changes it."""
    body_hash = canonical.body_hash(message, "relaxed")
    selected = select_ours(message.named)
    signatures = yield from _sign_dkim(selected, body_hash, keys.dkim(srs_domain), now)
    arc_key = keys.arc()
    sealed: tuple[bytes, ...] = ()
    if arc_key is not None:
        made = yield from seal_set(
            message.fields,
            _with_signatures(message, selected, signatures),
            body_hash,
            chain,
            authres_value=results,
            key=arc_key,
            now=now,
        )
        sealed = made or ()
    prefix = b"".join((*sealed, *[one.raw for one in signatures], *trace))
    return Sealed(prefix, message, body_hash, selected)


def _sign_dkim(
    selected: Selected, body_hash: bytes, keys: Iterable[SigningKey], now: datetime
) -> Signing[list[Written]]:
    signatures: list[Written] = []
    for key in keys:
        one = yield from sign_dkim(selected, body_hash, key, now=now)
        signatures.append(one)
    return signatures


def _with_signatures(message: Message, selected: Selected, ours: Sequence[Written]) -> Selected:
    """What ARC signs: every DKIM-Signature too."""
    if not ours:
        return select_ours(message.named, (b"dkim-signature",))
    theirs = [canonical.relaxed_field(one.raw) for one in reversed(message.all(b"dkim-signature"))]
    return selected.with_signatures([*theirs, *[one.relaxed for one in reversed(ours)]])


def _chain_before(seal: Field) -> ArcCheck:
    """What we found on arrival, as our own seal tells it (RFC 8617 section 4.1.3)."""
    tags = dict(_TAG.findall(seal.value))
    return ArcCheck(Result(tags[b"cv"].decode()), int(tags[b"i"]) - 1)


def address_to(
    sealed: Sealed,
    sender: Address | None,
    recipients: Sequence[Address],
    *,
    domain: str,
    keys: KeyRing,
    now: datetime,
    bind: bool = True,
) -> Signing[tuple[bytes, ...]]:
    """The octets for one next hop: our mailkey over the envelope sender that it will see. ``domain`` names the key; ``bind``
    says whether the signature holds for these recipients only (rt=)."""
    key = keys.mailkey(domain)
    if key is None:
        return sealed.chunks
    signature = yield from sign_mailkey(
        sealed.selected, sealed.body_hash, key, sender=sender, recipients=recipients if bind else (), now=now
    )
    head, body = sealed.chunks
    return (signature + head, body)


def seal_own(
    raw: bytes,
    recipients: Sequence[Address],
    *,
    srs_domain: str,
    names: Names,
    keys: KeyRing,
    now: datetime,
    bind: bool = True,
) -> Signing[tuple[bytes, ...]]:
    """A message that we wrote ourselves (a report): signed, with the null sender, whose mailkey is the EHLO name's."""
    message = parse_message(raw)
    body_hash = canonical.body_hash(message, "relaxed")
    selected = select_ours(message.named)
    signatures = yield from _sign_dkim(selected, body_hash, keys.dkim(srs_domain), now)
    sealed = Sealed(b"".join([one.raw for one in signatures]), message, body_hash, selected)
    return (yield from address_to(sealed, None, recipients, domain=names.hostname, keys=keys, now=now, bind=bind))


def seal_submitted(
    message: Message,
    envelope: Envelope,
    author_domains: Sequence[str],
    *,
    names: Names,
    keys: KeyRing,
    now: datetime,
    hide_client: bool,
) -> Signing[Sealed]:
    """A message of our own user: DKIM of its authors' domains, our Received, nothing about ourselves."""
    message = remove_forged_results(message, names.authserv_id)
    body_hash = canonical.body_hash(message, "relaxed")
    trace = received.build_received(envelope, by=names.hostname, for_=None, now=now, hide_client=hide_client)
    chosen = dict.fromkeys(key for domain in author_domains for key in keys.dkim(domain))
    selected = select_ours(message.named)
    signatures = yield from _sign_dkim(selected, body_hash, chosen, now)
    return Sealed(b"".join((*[one.raw for one in signatures], trace)), message, body_hash, selected)


def remove_forged_results(message: Message, authserv_id: str) -> Message:
    """RFC 8601 section 5: an Authentication-Results that bears our name did not come from us this time."""
    claimed = message.all(b"authentication-results")
    if not any(authres.claims(one, (authserv_id,)) for one in claimed):
        return message
    kept = tuple(
        one
        for one in message.fields
        if one.name != b"authentication-results" or not authres.claims(one, (authserv_id,))
    )
    return Message(b"".join(one.raw for one in kept), message.separator, message.body, kept, message.body_hashes)
