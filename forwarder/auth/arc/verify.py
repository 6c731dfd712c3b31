"""Is the ARC chain on this message whole? RFC 8617 section 5.2.

The seals of N sets sign 1, 2 .. N sets each; one running hash that is copied at every seal makes that N steps, not N
squared. A DNS that does not answer is ``temperror`` and not the ``fail`` of RFC 8617 section 5.2.1: a chain is broken
for good once somebody says so, and we need not say it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from forwarder.auth.arc.chain import AS, ArcSet, BrokenChain, chain_of, newest_instance
from forwarder.auth.canonical import body_hash, body_size, relaxed_field
from forwarder.auth.dkim.signature import parse_signature
from forwarder.auth.keyrecord import KeyLookups, KeyRecord, NoKey, key_lookups
from forwarder.auth.publickey import verify_digest
from forwarder.auth.signed import FieldIndex, header_digest, unsigned_field
from forwarder.auth.tags import TagError, parse_base64, parse_domain, parse_number, required
from forwarder.model import ArcCheck, Message, Result
from forwarder.ports import Resolver

__all__ = ["MAX_KEYS", "key_names", "verify_arc"]

#: Questions for keys. Every hop has one or two; a chain through more than ten different sealers is not followed.
MAX_KEYS = 10

_NO_CHAIN = ArcCheck(Result.NONE)
_STATUSES = frozenset({b"none", b"pass", b"fail"})


@dataclass(frozen=True, slots=True)
class _Seal:
    """ARC-Seal, syntax checked (RFC 8617 section 4.1.3)."""

    domain: str
    key_name: str
    value: bytes
    status: bytes


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why a signature of the chain does not count."""

    reason: str
    temporary: bool = False


async def verify_arc(resolver: Resolver, message: Message, *, now: datetime) -> ArcCheck:
    """The state of the chain as it arrived. Never raises."""
    # RFC 8617 section 5.2, by its steps.
    try:
        sets = chain_of(message)  # 1, 3
        if not sets:
            return _NO_CHAIN
        seals = [_parse_seal(one.seal_tags) for one in sets]
        _evaluate_statuses(seals)  # 2, 3
    except BrokenChain as error:
        return ArcCheck(Result.FAIL, newest_instance(message.fields)[0], reason=str(error))
    keys = key_lookups(resolver, MAX_KEYS)
    index = message.named
    sealers = tuple(one.domain for one in seals)
    problem = await _verify_message_signature(keys, message, index, sets[-1], now)  # 4
    if problem is None:
        problem = await _verify_seals(keys, sets, seals)  # 6
    if problem is not None:
        result = Result.TEMPERROR if problem.temporary else Result.FAIL
        return ArcCheck(result, len(sets), reason=problem.reason, sealers=sealers)
    oldest_pass = await _find_oldest_pass(keys, message, index, sets, now)  # 5
    return ArcCheck(Result.PASS, len(sets), oldest_pass, sealers=sealers)


def key_names(message: Message) -> list[str]:
    """The DNS names of the keys that ``verify_arc`` is likely to ask for first, so that they can be looked up at
    once."""
    try:
        seals = [_parse_seal(one.seal_tags) for one in chain_of(message)]
    except BrokenChain:
        return []
    return list(dict.fromkeys(one.key_name for one in reversed(seals)))[:MAX_KEYS]


def _parse_seal(tags: dict[bytes, bytes]) -> _Seal:
    try:
        _check_algorithm(tags)
        if b"h" in tags:
            # RFC 8617 section 4.1.3
            raise TagError("h= does not exist here")
        parse_number(tags, b"t")
        status = required(tags, b"cv")
        if status not in _STATUSES:
            raise TagError("unknown cv=")
        domain, selector = parse_domain(tags, b"d"), parse_domain(tags, b"s")
        return _Seal(domain, f"{selector}._domainkey.{domain}", parse_base64(tags, b"b"), status)
    except TagError as error:
        raise BrokenChain(f"arc-seal: {error}") from None


def _check_algorithm(tags: dict[bytes, bytes]) -> None:
    # RFC 8617 section 4.1: rsa-sha256 is the only algorithm that ARC has.
    if required(tags, b"a") != b"rsa-sha256":
        raise TagError("unknown a=")


def _evaluate_statuses(seals: list[_Seal]) -> None:
    """RFC 8617 section 5.2 steps 2 and 3."""
    for instance, seal in reversed(list(enumerate(seals, 1))):
        if seal.status == b"fail":
            raise BrokenChain(f"arc-seal i={instance} says cv=fail")
        if (seal.status == b"none") is not (instance == 1):
            raise BrokenChain(f"arc-seal i={instance} says cv={seal.status.decode()}")


# --- the two kinds of signature ---------------------------------------------------------------------------------------


async def _verify_message_signature(
    keys: KeyLookups, message: Message, index: FieldIndex, one: ArcSet, now: datetime
) -> _Problem | None:
    try:
        _check_algorithm(one.message_tags)
        # RFC 6376 section 3.5 takes a missing c= for simple/simple. The suite of ARC's own authors takes it for
        # relaxed, and so do the implementations that were tested with it.
        signature = parse_signature(one.message_tags, default_forms=b"relaxed/relaxed")
    except TagError as error:
        return _Problem(f"arc-message-signature: {error}")
    if AS in signature.names:
        # RFC 8617 section 4.1.2. The other ARC fields must not be signed either, but signers do, and it harms nobody.
        return _Problem("arc-message-signature signs arc-seal")
    if signature.expires_at is not None and now.timestamp() > signature.expires_at:
        return _Problem("arc-message-signature expired")
    if signature.length is not None and signature.length != body_size(message, signature.body_form):
        # As with DKIM: text that nobody signed is not vouched for.
        return _Problem("arc-message-signature: l= is not the size of the body")
    if body_hash(message, signature.body_form) != signature.body_hash:
        return _Problem("arc-message-signature: body hash does not match")
    field = one.message_signature
    digest = header_digest(index, signature.names, signature.header_form, field)
    return await _verify_signature(keys, "arc-message-signature", signature.key_name, signature.value, digest)


async def _verify_seals(keys: KeyLookups, sets: list[ArcSet], seals: list[_Seal]) -> _Problem | None:
    digests = _seal_digests(sets)
    for seal, digest in zip(reversed(seals), reversed(digests), strict=True):
        if problem := await _verify_signature(keys, "arc-seal", seal.key_name, seal.value, digest):
            return problem
    return None


def _seal_digests(sets: list[ArcSet]) -> list[bytes]:
    # RFC 8617 section 5.1.1: the sets in their order, each as results, message signature, seal; always relaxed.
    digests: list[bytes] = []
    running = sha256()
    for one in sets:
        running.update(relaxed_field(one.results.raw) + relaxed_field(one.message_signature.raw))
        own = running.copy()
        own.update(relaxed_field(unsigned_field(one.seal.raw)).removesuffix(b"\r\n"))
        digests.append(own.digest())
        running.update(relaxed_field(one.seal.raw))
    return digests


async def _verify_signature(keys: KeyLookups, what: str, key_name: str, value: bytes, digest: bytes) -> _Problem | None:
    problem = _evaluate_signature(what, await keys.look_up(key_name), value, digest)
    if problem is not None and not problem.temporary:
        renewed = await keys.look_up_again(key_name)
        if renewed is not None:
            problem = _evaluate_signature(what, renewed, value, digest)
    return problem


def _evaluate_signature(what: str, key: KeyRecord | NoKey, value: bytes, digest: bytes) -> _Problem | None:
    if isinstance(key, NoKey):
        return _Problem(f"{what}: {key.reason}", key.temporary)
    if key.kind != "rsa":
        return _Problem(f"{what}: the key is not for this algorithm")
    return None if verify_digest(key.key, value, digest) else _Problem(f"{what} does not match")


async def _find_oldest_pass(
    keys: KeyLookups, message: Message, index: FieldIndex, sets: list[ArcSet], now: datetime
) -> int:
    """The oldest set from which on the message was not changed; 0: nobody ever changed it."""
    for instance in range(len(sets) - 1, 0, -1):
        if await _verify_message_signature(keys, message, index, sets[instance - 1], now) is not None:
            return instance + 1
    return 0
