"""Which domains signed this message? DKIM verification, RFC 6376 section 6.1, with RFC 8301 and RFC 8463.

Every DKIM-Signature field gets its own result, in the order of the fields. Only so many are looked at, those of the
author's domain first: a stranger decides how many fields there are, and the author's is the one that DMARC needs. A
result word means: ``fail``, looked at and wrong; ``permerror``, nothing to look at (syntax, no key, a weak key);
``temperror``, the DNS did not answer; ``policy``, right but not to our liking.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection
from datetime import datetime

from forwarder.auth.canonical import body_hash, body_size
from forwarder.auth.dkim.signature import Signature, parse_signature
from forwarder.auth.keyrecord import KeyLookups, KeyRecord, NoKey, key_lookups
from forwarder.auth.publickey import verify_digest
from forwarder.auth.signed import FieldIndex, header_digest
from forwarder.auth.tags import TagError, parse_domain, parse_tags
from forwarder.kept import Kept
from forwarder.model import DkimCheck, Field, Message, Result
from forwarder.ports import Resolver

__all__ = ["CLOCK_SKEW", "MAX_KEYS", "MAX_SIGNATURES", "key_names", "verify_dkim"]

#: Signatures that are looked at, and questions for their keys (RFC 6376 section 8.4); real mail has up to four.
MAX_SIGNATURES = 10
MAX_KEYS = 10
#: Seconds that t= may be ahead of our clock: software that takes local time for UTC is up to 14 hours off, and a
#: signature from tomorrow harms nobody. The same as for mailkey.
CLOCK_SKEW = 86400
#: Octets of a field whose parsed form is remembered from ``key_names`` to ``verify_dkim``, and how many.
_KEPT_FIELD = 4096
_KEPT_FIELDS = 256

_BODY_CHANGED = "body hash does not match"


def key_names(message: Message) -> list[str]:
    """The DNS names of the keys that ``verify_dkim`` is likely to ask for, so that they can be looked up at once."""
    claims = (parse_dkim_signature(one.raw) for one in message.all(b"dkim-signature")[:MAX_SIGNATURES])
    return list(dict.fromkeys(one.key_name for one in claims if isinstance(one, Signature)))


async def verify_dkim(
    resolver: Resolver, message: Message, *, author_domain: str | None, now: datetime
) -> tuple[DkimCheck, ...]:
    """One check for each DKIM-Signature field, from the top. Never raises."""
    fields = message.all(b"dkim-signature")
    if not fields:
        return ()
    claims = [parse_dkim_signature(one.raw) for one in fields]
    index = message.named
    keys = key_lookups(resolver, MAX_KEYS)
    chosen: Collection[int] = range(len(claims))
    if len(claims) > MAX_SIGNATURES:
        chosen = _choose([one.domain if isinstance(one, Signature) else None for one in claims], author_domain)
    checks: list[DkimCheck] = []
    for number, (field, claim) in enumerate(zip(fields, claims, strict=True)):
        if isinstance(claim, DkimCheck):
            checks.append(claim)
        elif number not in chosen:
            checks.append(_check(claim, Result.POLICY, f"not looked at, more than {MAX_SIGNATURES} signatures"))
        else:
            checks.append(await _verify(keys, message, index, field, claim, now))
    return tuple(checks)


def _parse(raw: bytes) -> Signature | DkimCheck:
    domain = None
    try:
        tags = parse_tags(raw[raw.index(b":") + 1 :])
        domain = _readable_domain(tags)
        if tags.get(b"v") != b"1":
            raise TagError("v= is not 1" if b"v" in tags else "v= is missing")
        signature = parse_signature(tags, identity_tag=tags.get(b"i"))
        if b"from" not in signature.names:
            # RFC 6376 section 6.1.1
            raise TagError("h= does not name From")
    except TagError as error:
        return DkimCheck(Result.PERMERROR, domain, reason=str(error))
    return signature


#: RFC 6376 section 6.1.1; a DkimCheck says why a field claims nothing that could be checked.
parse_dkim_signature = Kept(_parse, most=_KEPT_FIELDS, longest=_KEPT_FIELD).__getitem__


def _readable_domain(tags: dict[bytes, bytes]) -> str | None:
    # What a broken signature says of its signer is worth telling, if it is a name.
    try:
        return parse_domain(tags, b"d")
    except TagError:
        return None


def _choose(domains: list[str | None], author_domain: str | None) -> set[int]:
    """Which fields to look at: the more labels a signer shares with the author the sooner, then from the top."""
    author = (author_domain or "").lower().split(".")[::-1]

    def shared(domain: str) -> int:
        labels = domain.split(".")[::-1]
        return next(
            (at for at, (one, other) in enumerate(zip(labels, author, strict=False)) if one != other), len(labels)
        )

    ranked = sorted((-shared(domain), number) for number, domain in enumerate(domains) if domain is not None)
    return {number for _, number in ranked[:MAX_SIGNATURES]}


async def _verify(
    keys: KeyLookups, message: Message, index: FieldIndex, field: Field, signature: Signature, now: datetime
) -> DkimCheck:
    if refusal := _evaluate_times(signature, now):
        return refusal
    key = await keys.look_up(signature.key_name)
    check = evaluate_signature(signature, key, message, index, field)
    if check.result in (Result.FAIL, Result.PERMERROR) and check.reason != _BODY_CHANGED:
        # A key from a cache may have been replaced since: nobody is called a forger on an old one.
        renewed = await keys.look_up_again(signature.key_name)
        if renewed is not None:
            check = evaluate_signature(signature, renewed, message, index, field)
    return check


def _evaluate_times(signature: Signature, now: datetime) -> DkimCheck | None:
    # RFC 6376 section 3.5: x= and t=.
    time = now.timestamp()
    if signature.expires_at is not None and time > signature.expires_at:
        return _check(signature, Result.FAIL, "signature expired")
    if signature.signed_at is not None and signature.signed_at > time + CLOCK_SKEW:
        return _check(signature, Result.POLICY, "signature from the future")
    return None


def evaluate_signature(
    signature: Signature, key: KeyRecord | NoKey, message: Message, index: FieldIndex, field: Field
) -> DkimCheck:
    """RFC 6376 sections 6.1.2 and 6.1.3, with the key at hand."""
    if isinstance(key, NoKey):
        return _check(signature, Result.TEMPERROR if key.temporary else Result.PERMERROR, key.reason)
    if key.kind != signature.key_kind:
        return _check(signature, Result.PERMERROR, "the key is not for this algorithm")
    if key.strict and signature.identity_domain != signature.domain:
        # RFC 6376 section 3.6.1, t=s
        return _check(signature, Result.PERMERROR, "the key allows no subdomain in i=")
    unsigned = _unsigned_octets(signature, message)
    result: Result
    reason: str | None
    if unsigned < 0:
        # RFC 6376 section 3.5: l= must not be larger than the body.
        result, reason = Result.PERMERROR, "l= is larger than the body"
    elif not unsigned and body_hash(message, signature.body_form) != signature.body_hash:
        result, reason = Result.FAIL, _BODY_CHANGED
    elif not verify_digest(
        key.key,
        signature.value,
        header_digest(index, signature.names, signature.header_form, field),
    ):
        result, reason = Result.FAIL, "signature does not match"
    elif unsigned:
        # RFC 6376 section 8.2. Whoever appends text decides what is read, so this vouches for nothing.
        result, reason = Result.POLICY, f"l= leaves {unsigned} octets of the body unsigned"
    else:
        result, reason = Result.PASS, None
    return _check(signature, result, reason, testing=key.testing)


def _unsigned_octets(signature: Signature, message: Message) -> int:
    return 0 if signature.length is None else body_size(message, signature.body_form) - signature.length


def _check(signature: Signature, result: Result, reason: str | None, *, testing: bool = False) -> DkimCheck:
    return DkimCheck(
        result,
        signature.domain,
        signature.selector,
        reason,
        signature.identity,
        signature.algorithm,
        # RFC 6008 section 4: the first eight characters at least.
        b64encode(signature.value[:6]).decode(),
        testing,
    )
