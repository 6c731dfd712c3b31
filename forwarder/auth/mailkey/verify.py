"""Does the domain in MAIL FROM vouch for this message? Verification by docs/mailkey.md sections 3 and 8.

``mailkey.<domain>`` is looked up for every message, signed or not: only so can "no mailkey here" be told from "this
should have been signed". Then every signature that could count is tried, and one that is good is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from forwarder.auth.canonical import body_hash
from forwarder.auth.dnsname import dns_name
from forwarder.auth.lookup import STALE, TxtLookups
from forwarder.auth.mailkey.record import (
    ALL,
    MailkeyRecord,
    MalformedRecord,
    NoRecord,
    evaluate_answer,
    evaluate_key_text,
)
from forwarder.auth.mailkey.signature import EXPIRY_GRACE, FIELD, MAX_AHEAD, Claim, MalformedClaim, parse_claim
from forwarder.auth.publickey import verify_digest
from forwarder.auth.signed import FieldIndex, header_digest
from forwarder.mail.address import AddressError, wire
from forwarder.model import Address, Field, MailkeyCheck, Message, OpenSignature, Result
from forwarder.ports import KeyHost, NoKeyText, Resolver

__all__ = ["MAX_FIELDS", "MAX_KEYS", "verify_mailkey"]

#: Mailkey-Signature fields that are looked at, from the top: every hop puts its own there.
MAX_FIELDS = 5
#: Keys that are fetched for them; the unnamed key of the sender's own domain comes with its policy.
MAX_KEYS = 2
#: Questions: the policy and the keys, each once more where it came from an old cache entry.
_MAX_QUESTIONS = 2 * (1 + MAX_KEYS)

#: Which of several findings is told: one good signature is enough, and one that may turn out good is waited for.
_WEIGHT = {Result.PASS: 0, Result.TEMPERROR: 1, Result.FAIL: 2, Result.PERMERROR: 2, Result.NONE: 3}

Record = MailkeyRecord | MalformedRecord | NoRecord

_EXHAUSTED = MalformedRecord(ALL, "too many keys to look up")


@dataclass(frozen=True, slots=True)
class _Transaction:
    """What a signature must fit."""

    message: Message
    index: FieldIndex
    reverse_path: bytes
    recipients: Sequence[Address]
    time: float
    key_host: KeyHost | None


@dataclass(frozen=True, slots=True)
class _Finding:
    """What became of one field; ``bound`` tells of rt=. ``none``: not wrong, but it cannot count here."""

    field: Claim | MalformedClaim
    result: Result
    reason: str | None = None
    bound: bool | None = None
    open: OpenSignature | None = None


async def verify_mailkey(
    resolver: Resolver,
    message: Message,
    *,
    sender: Address | None,
    helo: str,
    recipients: Sequence[Address],
    now: datetime,
    is_public_suffix: Callable[[str], bool],
    key_host: KeyHost | None = None,
) -> MailkeyCheck:
    """The one result of a message. Never raises. Without ``key_host`` a key that is served by HTTPS alone counts as not
    there, which is no fault of the sender's."""
    try:
        reverse_path, domain = wire(sender), _responsible_domain(sender, helo)
    except AddressError:
        domain = None
    if domain is None:
        return MailkeyCheck(Result.NONE, reason="no domain that could have a mailkey")
    lookups: TxtLookups[Record] = TxtLookups(resolver, evaluate_answer, limit=_MAX_QUESTIONS, exhausted=_EXHAUSTED)
    policy_name = f"mailkey.{domain}"
    record = await lookups.look_up(policy_name)
    if isinstance(record, MalformedRecord):
        record = await lookups.look_up_again(policy_name) or record
    match record:
        case NoRecord(temporary=True):
            return MailkeyCheck(Result.TEMPERROR, domain, reason="no answer from the DNS for the mailkey")
        case MalformedRecord(policy, reason):
            return MailkeyCheck(Result.PERMERROR, domain, policy=policy, reason=reason)
        case _:
            # Without a record of its own a domain cannot have signed; a parent of it can.
            own = isinstance(record, MailkeyRecord)
    candidates = [
        (field, claim)
        for field, claim in _parse_newest(message)
        if claim.domain is None
        or (own and claim.domain == domain)
        or (domain.endswith(f".{claim.domain}") and not is_public_suffix(claim.domain))
    ]
    findings: list[_Finding] = []
    if candidates:
        transaction = _Transaction(message, message.named, reverse_path, recipients, now.timestamp(), key_host)
        findings = await _verify_candidates(lookups, policy_name, candidates, transaction)
    # A signature that failed may have had the record renewed.
    return _conclude(domain, await lookups.look_up(policy_name), findings)


def _responsible_domain(sender: Address | None, helo: str) -> str | None:
    # docs/mailkey.md section 1: the null sender's is the EHLO domain.
    domain = dns_name(helo if sender is None else sender.domain)
    return None if domain is None or domain.startswith("[") else domain


def _parse_newest(message: Message) -> Iterator[tuple[Field, Claim | MalformedClaim]]:
    for field in message.all(FIELD)[:MAX_FIELDS]:
        yield field, parse_claim(field.raw)


def _conclude(domain: str, record: Record, findings: list[_Finding]) -> MailkeyCheck:
    """docs/mailkey.md section 8, the steps 5, 7 and 8, for the findings of every field that could count."""
    policy = record.policy if isinstance(record, MailkeyRecord | MalformedRecord) else None
    if not findings:
        match policy:
            case None:
                return MailkeyCheck(Result.NONE, domain, reason="no mailkey record")
            case "all":
                return MailkeyCheck(Result.FAIL, domain, policy=policy, reason="not signed")
            case _:
                return MailkeyCheck(Result.NONE, domain, policy=policy, reason="not signed")
    finding = min(findings, key=lambda one: _WEIGHT[one.result])
    result, reason = finding.result, finding.reason
    if policy is None and result not in (Result.PASS, Result.TEMPERROR):
        # A parent's signature that is no good says nothing of a domain that asks for none.
        result, reason = Result.NONE, f"no mailkey record; {reason}"
    elif policy == ALL and finding.bound is False:
        result = Result.FAIL
    signer = finding.field.domain
    selector = finding.field.selector if isinstance(finding.field, Claim) else None
    return MailkeyCheck(result, domain, signer, selector, policy, finding.bound, reason, finding.open)


# --- one signature ----------------------------------------------------------------------------------------------------


async def _verify_candidates(
    lookups: TxtLookups[Record],
    policy_name: str,
    candidates: Sequence[tuple[Field, Claim | MalformedClaim]],
    transaction: _Transaction,
) -> list[_Finding]:
    findings: list[_Finding] = []
    # The policy's name is here from the start, as its record is the unnamed key.
    fetched = {policy_name}
    for field, claim in candidates:
        if isinstance(claim, MalformedClaim):
            findings.append(_Finding(claim, Result.PERMERROR, claim.reason))
            continue
        finding = _evaluate_claim(claim, transaction)
        if finding is None:
            if claim.key_name not in fetched and len(fetched) > MAX_KEYS:
                continue
            fetched.add(claim.key_name)
            finding = await _verify_signature(lookups, field, claim, transaction)
        findings.append(finding)
        if finding.result is Result.PASS:
            break
    return findings


def _evaluate_claim(claim: Claim, transaction: _Transaction) -> _Finding | None:
    """What needs no key: ``None`` is all right so far."""
    if claim.mail_from != transaction.reverse_path:
        return _Finding(claim, Result.FAIL, "signed for another MAIL FROM")
    if transaction.time > claim.expires_at + EXPIRY_GRACE:
        return _Finding(claim, Result.FAIL, "mailkey signature expired")
    if claim.signed_at > transaction.time + MAX_AHEAD:
        return _Finding(claim, Result.FAIL, "mailkey signature from the future")
    if body_hash(transaction.message, "relaxed") != claim.body_hash:
        return _Finding(claim, Result.FAIL, "body hash does not match")
    return None


async def _verify_signature(
    lookups: TxtLookups[Record], field: Field, claim: Claim, transaction: _Transaction
) -> _Finding:
    digest = header_digest(transaction.index, claim.names, "relaxed", field)
    finding = await _evaluate_with(transaction.key_host, claim, await lookups.look_up(claim.key_name), digest)
    if finding.result in (Result.FAIL, Result.PERMERROR):
        renewed = await lookups.look_up_again(claim.key_name)
        if renewed is not None:
            finding = await _evaluate_with(transaction.key_host, claim, renewed, digest)
    if finding.result is not Result.PASS:
        return finding
    if claim.bindings is None:
        # docs/mailkey.md section 10. The digest and not b=: whoever replays the signature cannot give it another one.
        return replace(finding, open=OpenSignature(digest, claim.expires_at))
    if all(map(claim.binds, transaction.recipients)):
        return replace(finding, bound=True)
    # docs/mailkey.md section 8: replayed, or forwarded by something that does not sign again.
    return _Finding(claim, Result.NONE, "not signed for this recipient", bound=False)


async def _evaluate_with(key_host: KeyHost | None, claim: Claim, record: Record, digest: bytes) -> _Finding:
    """docs/mailkey.md section 4: the key host is asked where the record at the key's own name sends us there."""
    if key_host is None or not isinstance(record, MailkeyRecord) or not record.elsewhere:
        return _evaluate_signature(claim, record, digest)
    for fresh in (False, True):
        fetched = await key_host.fetch(claim.domain, claim.selector, fresh=fresh)
        if isinstance(fetched, NoKeyText):
            return _Finding(claim, Result.TEMPERROR if fetched.temporary else Result.PERMERROR, fetched.reason)
        finding = _evaluate_signature(claim, evaluate_key_text(fetched.text), digest)
        if finding.result is Result.PASS or fetched.age <= STALE:
            break
    return finding


def _evaluate_signature(claim: Claim, record: Record, digest: bytes) -> _Finding:
    match record:
        case NoRecord(temporary=True):
            return _Finding(claim, Result.TEMPERROR, "no answer from the DNS for the key")
        case NoRecord():
            return _Finding(claim, Result.PERMERROR, "unknown key")
        case MalformedRecord(_, reason):
            return _Finding(claim, Result.PERMERROR, reason)
        case MailkeyRecord(elsewhere=True, problem=problem):
            # Not a fault of the sender, so no refusal; not ours to wait for, so no temperror.
            return _Finding(claim, Result.NONE, problem)
        case MailkeyRecord(key=None, problem=problem):
            return _Finding(claim, Result.PERMERROR, problem)
        case MailkeyRecord(kind=kind, key=key):
            if kind != claim.key_kind or key is None:
                return _Finding(claim, Result.PERMERROR, "the key is not for this algorithm")
            if not verify_digest(key, claim.value, digest):
                return _Finding(claim, Result.FAIL, "signature does not match")
            return _Finding(claim, Result.PASS)
        case _:
            assert_never(record)
