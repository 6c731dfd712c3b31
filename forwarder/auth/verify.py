"""Who vouches for this message? Runs every check under one deadline and gathers the facts into a Verdict.

The checks run one after the other. When one of them has to wait, the deadline begins, and what they will ask first (mailkey, SPF,
DMARC and key records) is looked up at once: cold, they wait for one round trip instead of five; warm, neither a task nor a timer
is made at all. A check that the deadline cuts off is a temperror, never a "none".
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from forwarder.auth.arc import key_names as arc_key_names
from forwarder.auth.arc import restoring_sealer, verify_arc
from forwarder.auth.dkim import key_names as dkim_key_names
from forwarder.auth.dkim import verify_dkim
from forwarder.auth.dmarc import verify_dmarc
from forwarder.auth.mailkey import verify_mailkey
from forwarder.auth.spf import verify_spf
from forwarder.auth.suffix import is_public_suffix
from forwarder.begun import begin
from forwarder.mail.address import FromHeader, ascii_domain
from forwarder.model import (
    Address,
    ArcCheck,
    DkimCheck,
    DmarcCheck,
    Envelope,
    MailkeyCheck,
    Message,
    Result,
    SpfCheck,
    Verdict,
)
from forwarder.ports import KeyHost, Resolver

__all__ = ["DEADLINE", "replayed", "verify"]

#: Seconds for all checks together. RFC 7208 section 4.6.4 asks for at least 20 for SPF alone; a sender waits 10 minutes for
#: the answer to its final dot (RFC 5321 section 4.5.3.2.6), so there is room for the delivery behind it.
DEADLINE = 20.0

_LATE = "not answered within the deadline"
_LATE_MAILKEY = MailkeyCheck(Result.TEMPERROR, reason=_LATE)
_LATE_SPF = SpfCheck(Result.TEMPERROR, reason=_LATE)
_LATE_DKIM = DkimCheck(Result.TEMPERROR, reason=_LATE)
_LATE_ARC = ArcCheck(Result.TEMPERROR, reason=_LATE)


async def verify(
    resolver: Resolver,
    envelope: Envelope,
    message: Message,
    author: FromHeader,
    *,
    receiver: str,
    now: datetime,
    deadline: float = DEADLINE,
    default_explanation: str | None = None,
    trusted_sealers: Collection[str] = (),
    key_host: KeyHost | None = None,
) -> Verdict:
    """Every check of this message. Never raises for what the message or the DNS holds. ``default_explanation`` stands in an
    SPF fail whose domain explains nothing (RFC 7208 section 6.2). ``trusted_sealers``: whose ARC may restore a DMARC verdict.
    ``key_host``: ``None`` asks no mailkey host over HTTPS."""
    authors = {ascii_domain(one.domain) for one in author.addresses}
    author_domain = next(iter(authors)) if len(authors) == 1 else None
    found = _Found()

    async def check() -> None:
        peer = envelope.peer
        found.mailkey = await verify_mailkey(
            resolver,
            message,
            sender=envelope.sender,
            helo=peer.helo,
            recipients=[one.address for one in envelope.recipients],
            now=now,
            is_public_suffix=is_public_suffix,
            key_host=key_host,
        )
        check_spf = functools.partial(
            verify_spf,
            resolver,
            ip=peer.ip,
            sender=envelope.sender,
            helo=peer.helo,
            receiver=receiver,
            now=now,
            default_explanation=default_explanation,
        )
        spf = await check_spf(identity="mailfrom")
        found.spf = spf
        # RFC 7208 section 2.4: without a reverse-path the two identities are one.
        found.helo = spf if envelope.sender is None else await check_spf(identity="helo")
        found.dkim = dkim = await verify_dkim(resolver, message, author_domain=author_domain, now=now)
        found.arc = await verify_arc(resolver, message, now=now)
        if author_domain is None:
            # RFC 9989 section 5.3.1: several Author Domains, or none: no policy can be looked up.
            found.dmarc = DmarcCheck(
                Result.NONE if not authors else Result.PERMERROR, reason="not exactly one Author Domain"
            )
        else:
            dmarc = await verify_dmarc(resolver, author_domain=author_domain, spf=spf, dkim=dkim)
            found.dmarc = _restored(dmarc, restoring_sealer(message, found.arc, author_domain, trusted_sealers))

    if (rest := begin(check())) is not None:
        resolver.prefetch_txt(_first_names(envelope, message, author_domain))
        try:
            async with asyncio.timeout(deadline):
                await rest
        except TimeoutError:
            if not found.dkim and message.first(b"dkim-signature") is not None:
                found.dkim = (_LATE_DKIM,)
    dmarc = found.dmarc or DmarcCheck(Result.TEMPERROR, domain=author_domain, reason=_LATE)
    verified_by = _sender_verified_by(envelope.sender, found.mailkey, found.spf, found.dkim)
    return Verdict(found.mailkey, found.spf, found.helo, found.dkim, found.arc, dmarc, verified_by)


@dataclass(slots=True)
class _Found:
    """What the checks have found so far. What they have not got to yet is late."""

    mailkey: MailkeyCheck = _LATE_MAILKEY
    spf: SpfCheck = _LATE_SPF
    helo: SpfCheck = _LATE_SPF
    dkim: tuple[DkimCheck, ...] = ()
    arc: ArcCheck = _LATE_ARC
    dmarc: DmarcCheck | None = None


def replayed(verdict: Verdict, sender: Address | None, reason: str) -> Verdict:
    """The same, with a mailkey signature that vouches for nobody any more: it was seen for too many recipients."""
    mailkey = replace(verdict.mailkey, result=Result.POLICY, reason=reason)
    # Whoever replays a signature replays the message's DKIM-Signature with it. SPF is about the client, and cannot be.
    # Under o=test the mailkey changes nothing: what vouches is what would without one.
    dkim = verdict.dkim if mailkey.policy == "test" else ()
    return replace(verdict, mailkey=mailkey, sender_verified_by=_sender_verified_by(sender, mailkey, verdict.spf, dkim))


def _restored(dmarc: DmarcCheck, sealer: str | None) -> DmarcCheck:
    """A fail that a trusted sealer saw pass, before a forwarder broke it, is a pass that says so."""
    if dmarc.result is not Result.FAIL or sealer is None:
        return dmarc
    reason = f"restored by the ARC chain of {sealer}, a trusted sealer"
    return replace(dmarc, result=Result.PASS, applied="none", aligned_by=f"arc:{sealer}", reason=reason)


def _first_names(envelope: Envelope, message: Message, author_domain: str | None) -> Iterator[str]:
    domain = envelope.sender.domain if envelope.sender else envelope.peer.helo
    if not domain.startswith("["):
        yield f"mailkey.{domain}"
        yield domain
    if author_domain is not None:
        yield f"_dmarc.{author_domain}"
    yield from dkim_key_names(message)
    yield from arc_key_names(message)


def _sender_verified_by(
    sender: Address | None, mailkey: MailkeyCheck, spf: SpfCheck, dkim: tuple[DkimCheck, ...]
) -> str | None:
    """Does any check vouch for the envelope sender's domain? DKIM does when the signer is that domain or a parent of it."""
    if sender is None:
        return None
    if mailkey.result is Result.PASS:
        return "mailkey"
    if spf.result is Result.PASS:
        return "spf"
    domain = ascii_domain(sender.domain)
    for one in dkim:
        # RFC 6376 section 3.6.1: a signature under a key in test mode counts no more than none.
        if one.result is Result.PASS and not one.testing and one.domain is not None:
            signer = one.domain.lower()
            if (domain == signer or domain.endswith("." + signer)) and not is_public_suffix(signer):
                return "dkim"
    return None
