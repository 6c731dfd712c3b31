"""Where does a recipient lead, and may this message go there?

``resolve`` answers at RCPT TO, from the address alone; ``decide`` answers when the message has been verified. Both are early
refusals first, then the way. What a verdict means for a message (refuse, mark, one-way) is decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from enum import StrEnum
from typing import assert_never

from forwarder import srs, srslegacy
from forwarder.model import (
    Address,
    DmarcCheck,
    Envelope,
    Forward,
    FromRewrite,
    Keep,
    Refuse,
    Reply,
    Result,
    SenderForm,
    Verdict,
)
from forwarder.ports import AliasFound, Directory, Ledger, Legacy, MailboxFound, NoSuchAlias, NotOurDomain, StoreAway
from forwarder.smtp import reply
from forwarder.values import value

__all__ = [
    "Action",
    "FromWish",
    "Policy",
    "Resolved",
    "ToAlias",
    "ToMailbox",
    "ToNextHop",
    "ToNowhere",
    "ToSender",
    "decide",
    "evaluate_from",
    "evaluate_verdict",
    "resolve",
    "without_way_back",
]


class Action(StrEnum):
    """What the operator wants for mail that a check does not vouch for.

    ``tag``: forward, with what was found in Authentication-Results. ``accept``: the same, and the finding is not held
    against the message. ``one-way``: forward, but no bounce goes back to the claimed sender. ``reject``: refuse in session.
    """

    REJECT = "reject"
    TAG = "tag"
    ACCEPT = "accept"
    ONE_WAY = "one-way"


class FromWish(StrEnum):
    """Whether the operator wants From rewritten: never; where it is needed; or in all that DMARC does not hold for forged."""

    NEVER = "never"
    AUTO = "auto"
    ALWAYS = "always"


@value
class Policy:
    """The operator's choices, as configured: overall, or for one domain of aliases.

    ``spf_fail`` counts only where nothing else vouches for sender or author; ``temperror`` REJECT answers 451, and only where
    what is not known would decide; any other value goes on without it. ``help_url`` stands in refusals of the mailkey check;
    empty: they name the record instead.
    """

    unauthenticated: Action = Action.TAG
    dmarc_reject: Action = Action.REJECT
    dmarc_quarantine: Action = Action.TAG
    spf_fail: Action = Action.TAG
    temperror: Action = Action.REJECT
    from_rewrite: FromWish = FromWish.AUTO
    help_url: str = ""


# --- RCPT TO -----------------------------------------------------------------------------------------------------------


@value
class ToAlias:
    """An alias or list of ours; ``answer``: an address that stood in a rewritten From, and its target the author."""

    alias: Address
    targets: tuple[Address, ...]
    srs_domain: str
    answer: bool = False


@value
class ToMailbox:
    """postmaster or abuse, kept here."""

    alias: Address
    mailbox: str


@value
class ToSender:
    """A reversible address that verified: ``sender`` is whom its reports go to. ``legacy``: another program minted it, and
    what it forwarded then is not known here."""

    reversible: Address
    sender: Address
    legacy: bool = False


@value
class ToNowhere:
    """A one-way address that verified."""

    reversible: Address


@value
class ToNextHop:
    """Somebody else's address, taken from a client that may send there (submission; never on port 25)."""

    address: Address


Resolved = ToAlias | ToMailbox | ToSender | ToNowhere | ToNextHop


async def resolve(
    recipient: Address,
    sender: Address | None,
    *,
    directory: Directory,
    ledger: Ledger,
    secrets: Sequence[bytes],
    legacies: Sequence[Legacy] = (),
    today: date,
) -> Resolved | Refuse:
    """Where does this recipient lead? Asks the store only for an opaque reversible address."""
    if directory.is_srs_domain(recipient.domain):
        if srs.is_srs(recipient.local):
            return await _resolve_reversible(
                recipient, sender, ledger=ledger, secrets=secrets, legacies=legacies, today=today
            )
        if srs.is_reply(recipient.local):
            return await _resolve_answer(recipient, sender, ledger=ledger, secrets=secrets, today=today)
    try:
        found = await directory.look_up(recipient)
    except StoreAway as away:
        return Refuse(reply.STATE_AWAY, f"directory away: {away}")
    match found:
        case AliasFound(alias, targets):
            return ToAlias(alias, targets, directory.srs_domain(alias.domain))
        case MailboxFound(alias, mailbox):
            return ToMailbox(alias, mailbox)
        case NoSuchAlias():
            return Refuse(reply.UNKNOWN_ALIAS, "no such alias")
        case NotOurDomain():
            return Refuse(reply.RELAYING_DENIED, "not a domain of ours")
        case _:
            assert_never(found)


async def _resolve_reversible(
    recipient: Address,
    sender: Address | None,
    *,
    ledger: Ledger,
    secrets: Sequence[bytes],
    legacies: Sequence[Legacy],
    today: date,
) -> ToSender | ToNowhere | Refuse:
    # Architecture decision 5: reports come from the null sender (RFC 3464 section 2, RFC 5321 section 4.5.5). Said before the
    # MAC is looked at, so that a prober with a sender learns nothing about the address.
    if sender is not None:
        return Refuse(reply.REVERSIBLE_TAKES_REPORTS_ONLY, "reversible address, sender not null")
    decoded = srs.decode(recipient, secrets, today)
    match decoded:
        case srs.Reversed(original):
            return ToSender(recipient, original)
        case srs.OneWay():
            return ToNowhere(recipient)
        case srs.Token(token):
            try:
                known = await ledger.look_up_token(token)
            except StoreAway as away:
                return Refuse(reply.STATE_AWAY, f"token cannot be looked up: {away}")
            if known is None:
                return Refuse(reply.BAD_REVERSIBLE, "opaque address unknown to the store")
            return ToSender(recipient, known)
        case srs.WhyNot() as why:
            return _resolve_legacy(recipient, legacies, today, why)
        case _:
            assert_never(decoded)


async def _resolve_answer(
    recipient: Address, sender: Address | None, *, ledger: Ledger, secrets: Sequence[bytes], today: date
) -> ToAlias | Refuse:
    """An answer to a rewritten From. Not from the null sender: whoever reports, or is away, writes to the envelope's."""
    if sender is None:
        return Refuse(reply.ANSWERS_ONLY, "reply address, null sender")
    decoded = srs.decode_reply(recipient, secrets, today)
    match decoded:
        case srs.Reversed(author):
            return ToAlias(recipient, (author,), recipient.domain, answer=True)
        case srs.Token(token):
            try:
                known = await ledger.look_up_token(token)
            except StoreAway as away:
                return Refuse(reply.STATE_AWAY, f"token cannot be looked up: {away}")
            if known is None:
                return Refuse(reply.BAD_REVERSIBLE, "opaque reply address unknown to the store")
            return ToAlias(recipient, (known,), recipient.domain, answer=True)
        case srs.WhyNot() as why:
            return Refuse(reply.BAD_REVERSIBLE, f"reply address: {why.value}", forged=why is not srs.WhyNot.EXPIRED)
        case _:
            assert_never(decoded)


def _resolve_legacy(
    recipient: Address, legacies: Sequence[Legacy], today: date, why_not_ours: srs.WhyNot
) -> ToSender | Refuse:
    """Not minted here; by the program that was here before?"""
    decoded = srslegacy.decode(recipient, legacies, today)
    if isinstance(decoded, srs.Reversed):
        return ToSender(recipient, decoded.sender, legacy=True)
    # An address that is only old was made by us, or by who knew the secret: nobody guessed it.
    expired = srs.WhyNot.EXPIRED in (why_not_ours, decoded)
    why = srs.WhyNot.EXPIRED if expired else why_not_ours
    return Refuse(reply.BAD_REVERSIBLE, f"reversible address: {why.value}", forged=not expired)


# --- after DATA --------------------------------------------------------------------------------------------------------


@value
class Admitted:
    """The message may pass. ``one_way`` holds the finding that takes the way back from it; ``None``: nothing does."""

    one_way: str | None


def decide(
    resolved: ToAlias | ToMailbox, envelope: Envelope, verdict: Verdict, policy: Policy
) -> Forward | Keep | Refuse:
    """What is to be done with this message for this recipient?"""
    match evaluate_verdict(verdict, policy):
        case Refuse() as refused:
            return refused
        case Admitted(one_way):
            pass
    if isinstance(resolved, ToMailbox):
        return Keep(resolved.alias, resolved.mailbox, "kept on this host")
    form, why = _sender_form(envelope.sender, verdict, one_way)
    if not resolved.answer:
        rewrite, because = evaluate_from(verdict.dmarc, policy.from_rewrite)
        return Forward(resolved.alias, resolved.targets, resolved.srs_domain, form, why, rewrite, because)
    if form is not SenderForm.REVERSIBLE:
        return Refuse(reply.ANSWER_UNVERIFIED, f"answer to an author: {why}")
    # Its From stays: who answers by such an address, and not to Reply-To, shows who they are.
    return Forward(resolved.alias, resolved.targets, resolved.srs_domain, form, f"answer to an author, {why}")


def without_way_back(decided: Forward | Keep, why: str) -> Forward | Keep:
    """The same, but no bounce of it goes back to its sender."""
    if isinstance(decided, Forward) and decided.sender_form is SenderForm.REVERSIBLE:
        return replace(decided, sender_form=SenderForm.ONE_WAY, reason=why)
    return decided


def evaluate_verdict(verdict: Verdict, policy: Policy) -> Admitted | Refuse:
    """May a message with this verdict pass at all? What refuses wins over what cannot be known yet, and both over marks."""
    findings = [_mailkey(verdict, policy), _dmarc(verdict, policy), _spf(verdict, policy), _nothing(verdict, policy)]
    if findings == _NOTHING_FOUND:
        return _ADMITTED
    refused = [one for one in findings if isinstance(one, Refuse)]
    if refused:
        # A permanent answer first: what the mail is refused for will not change while the sender waits.
        return min(refused, key=lambda one: -one.reply.code)
    marks = [one for one in findings if isinstance(one, Admitted) and one.one_way is not None]
    return marks[0] if marks else _ADMITTED


_Finding = Admitted | Refuse
_ADMITTED = Admitted(None)
_NOTHING_FOUND: list[_Finding] = [_ADMITTED] * 4


def _mailkey(verdict: Verdict, policy: Policy) -> _Finding:
    check = verdict.mailkey
    domain = check.domain or "the sender"
    if check.result is Result.TEMPERROR:
        # docs/mailkey.md section 9: a look-up that failed is never "no mailkey", so this one is not for policy to waive.
        return Refuse(reply.mailkey_unknown(domain), f"mailkey temperror: {check.reason}")
    if check.result is Result.POLICY:
        # docs/mailkey.md section 10: what the domain asks to be refused is what its key does not cover, and a replay is not
        # covered. A client that SPF vouches for is no replay: it is a mailing of the domain's own that was not bound.
        if check.policy != "all" or verdict.spf.result is Result.PASS:
            return _ADMITTED
        return Refuse(reply.mailkey_replayed(domain, policy.help_url), f"mailkey policy: {check.reason}")
    if check.result not in (Result.FAIL, Result.PERMERROR):
        return _ADMITTED
    if check.policy == "all":
        return Refuse(reply.mailkey_refused(domain, policy.help_url), f"mailkey {check.result}: {check.reason}")
    # A mailkey being rolled out (o=some) that fails marks the message; one under test (o=test) changes nothing.
    return _ADMITTED if check.policy == "test" else Admitted(f"mailkey {check.result}")


def _dmarc(verdict: Verdict, policy: Policy) -> _Finding:
    check = verdict.dmarc
    if check.result is not Result.FAIL and check.result is not Result.TEMPERROR:
        return _ADMITTED
    domain = check.domain or "the author"
    actions = {"reject": policy.dmarc_reject, "quarantine": policy.dmarc_quarantine}
    # Without a policy known, the strictest that the operator would heed is what may be at stake.
    stakes = actions.values() if check.applied is None else [actions.get(check.applied, Action.TAG)]
    if check.result is Result.TEMPERROR and Action.REJECT in stakes:
        return _not_now(policy, reply.dmarc_unknown(domain), f"dmarc temperror: {check.reason}")
    if check.result is not Result.FAIL:
        return _ADMITTED
    applied = check.applied or "none"
    refusal = reply.dmarc_refused(domain, applied)
    return _act(actions.get(applied, Action.TAG), refusal, "dmarc fail", f"p={applied}, {check.reason}")


def _spf(verdict: Verdict, policy: Policy) -> _Finding:
    check = verdict.spf
    if verdict.sender_verified_by is not None or verdict.dmarc.result is Result.PASS:
        return _ADMITTED
    domain = check.domain or "the sender"
    if check.result is Result.TEMPERROR and policy.spf_fail is Action.REJECT:
        return _not_now(policy, reply.dmarc_unknown(domain), f"spf temperror: {check.reason}")
    if check.result is not Result.FAIL:
        return _ADMITTED
    return _act(policy.spf_fail, reply.spf_refused(domain), "spf fail", check.reason)


def _nothing(verdict: Verdict, policy: Policy) -> _Finding:
    """No authentication at all."""
    if verdict.sender_verified_by is not None or verdict.dmarc.result is Result.PASS:
        return _ADMITTED
    results = [one.result for one in verdict.dkim] + [verdict.spf_helo.result]
    if Result.PASS in results or policy.unauthenticated is not Action.REJECT:
        return _ADMITTED
    if Result.TEMPERROR in (*results, verdict.spf.result):
        return _not_now(policy, reply.unauthenticated_unknown(), "no check passed, and not all could be made")
    return Refuse(reply.unauthenticated_refused(), "no check passed")


def _act(action: Action, refusal: Reply, finding: str, reason: str | None) -> _Finding:
    match action:
        case Action.REJECT:
            return Refuse(refusal, f"{finding}: {reason}")
        case Action.ONE_WAY:
            return Admitted(finding)
        case Action.TAG | Action.ACCEPT:
            return _ADMITTED
        case _:
            assert_never(action)


def _not_now(policy: Policy, later: Reply, reason: str) -> _Finding:
    return Refuse(later, reason) if policy.temperror is Action.REJECT else _ADMITTED


def _sender_form(sender: Address | None, verdict: Verdict, one_way: str | None) -> tuple[SenderForm, str]:
    if sender is None:
        return SenderForm.NULL, "null sender"
    if one_way is not None:
        return SenderForm.ONE_WAY, one_way
    if verdict.sender_verified_by is None:
        # Architecture decision 6: what nobody vouches for gets no way back: no backscatter, no relay oracle.
        return SenderForm.ONE_WAY, "no check vouches for the sender's domain"
    return SenderForm.REVERSIBLE, f"sender verified by {verdict.sender_verified_by}"


# --- From --------------------------------------------------------------------------------------------------------------


def evaluate_from(check: DmarcCheck, wish: FromWish) -> tuple[FromRewrite, str]:
    """May the author's own From stay, and why? The reason is for the log, and for an operator who asks.

    An SPF pass ends here, a signature does not. What nothing aligned vouches for is never given our name: a forger's mail
    would pass for ours.
    """
    if wish is FromWish.NEVER:
        return FromRewrite.NEVER, "policy.from_rewrite is never"
    if check.result not in (Result.PASS, Result.NONE):
        return FromRewrite.NEVER, f"dmarc {check.result}: what may be forged is not given our name"
    if wish is FromWish.ALWAYS:
        return FromRewrite.AT_ONCE, "policy.from_rewrite is always"
    # What ARC restored: the next hop does not know that we trust the sealer.
    asked = check.policy if (check.aligned_by or "").startswith("arc:") else check.applied
    if check.result is Result.NONE or asked not in ("quarantine", "reject"):
        return FromRewrite.NEVER, "the author's domain asks nobody to refuse or to put aside its mail"
    if check.signed_by is not None:
        return FromRewrite.IF_REFUSED, f"p={asked}, and the signature of {check.signed_by} is good at the next hop too"
    if asked == "reject":
        return FromRewrite.IF_KNOWN, "p=reject, and no aligned signature that is good at the next hop"
    # Nobody would ever tell: it is not refused, it lies among the spam.
    return FromRewrite.AT_ONCE, "p=quarantine, and no aligned signature that is good at the next hop"
