"""What does the DNS say about a DKIM key? RFC 6376 section 3.6, for DKIM signatures and ARC sets.

A record is parsed and its key loaded once for as long as the same octets come back, whatever the resolver's cache does.
"""

from __future__ import annotations

from functools import lru_cache

from forwarder.auth.lookup import TxtLookups
from forwarder.auth.publickey import BadKey, PublicKey, load_key
from forwarder.auth.tags import TagError, parse_base64, parse_tags, without_space
from forwarder.ports import Answer, DnsStatus, Resolver
from forwarder.values import value

__all__ = ["MIN_RSA_BITS", "KeyLookups", "KeyRecord", "NoKey", "key_lookups", "parse_key_record"]

#: RFC 8301 section 3.2: shorter RSA keys must not count.
MIN_RSA_BITS = 1024
#: Octets of a key record. A 4096-bit key with every tag there is takes under 1,000.
_MAX_RECORD = 8192
#: Records at one name that are looked at; there should be one.
_MAX_RECORDS = 8


@value
class KeyRecord:
    """A usable key. ``strict`` is t=s: the identity must be in d= itself. ``testing`` is t=y."""

    kind: str
    key: PublicKey
    strict: bool = False
    testing: bool = False


@value
class NoKey:
    """No usable key, and why; ``temporary`` when asking again later may find one."""

    reason: str
    temporary: bool = False


_EXHAUSTED = NoKey("too many keys to look up")


@lru_cache(maxsize=1024)
def parse_key_record(record: bytes) -> KeyRecord | NoKey:
    """RFC 6376 section 3.6.1."""
    if len(record) > _MAX_RECORD:
        return NoKey("key record too large")
    try:
        tags = parse_tags(record)
    except TagError as error:
        return NoKey(f"key record: {error}")
    # v= may be left out, but where it is it comes first and names this version.
    if b"v" in tags and (next(iter(tags)) != b"v" or tags[b"v"] != b"DKIM1"):
        return NoKey("key record: not v=DKIM1")
    if b"p" not in tags:
        return NoKey("key record: p= is missing")
    if b"h" in tags and b"sha256" not in _colon_list(tags[b"h"]):
        return NoKey("key record: h= does not allow sha256")
    if b"s" in tags and not {b"*", b"email"} & _colon_list(tags[b"s"]):
        return NoKey("key record: s= does not allow email")
    if not tags[b"p"]:
        return NoKey("key revoked")
    kind = tags.get(b"k", b"rsa")
    try:
        key = load_key(kind, parse_base64(tags, b"p"), MIN_RSA_BITS)
    except TagError as error:
        return NoKey(f"key record: {error}")
    if isinstance(key, BadKey):
        return NoKey(key.reason)
    flags = _colon_list(tags.get(b"t", b""))
    return KeyRecord(kind.decode(), key, strict=b"s" in flags, testing=b"y" in flags)


def _colon_list(value: bytes) -> set[bytes]:
    return set(without_space(value).split(b":"))


KeyLookups = TxtLookups[KeyRecord | NoKey]


def key_lookups(resolver: Resolver, limit: int) -> KeyLookups:
    """Key records by the name they are at."""
    return TxtLookups(resolver, evaluate_answer, limit=limit, exhausted=_EXHAUSTED)


def evaluate_answer(answer: Answer[bytes]) -> KeyRecord | NoKey:
    """Which key an answer holds. RFC 6376 section 3.6.2.2 leaves several records undefined; here the order never
    decides."""
    if answer.status is DnsStatus.TEMPERROR:
        # RFC 6376 section 6.1.2
        return NoKey("no answer from the DNS for the key", temporary=True)
    if answer.status is not DnsStatus.OK or not answer.records:
        return NoKey("no key record")
    if len(answer.records) == 1:
        return parse_key_record(answer.records[0])
    records = sorted(set(answer.records))
    if len(records) > _MAX_RECORDS:
        return NoKey("too many records at the name of the key")
    # What is no key record (a wildcard's SPF, a proof of ownership) does not count.
    found = [parse_key_record(one) for one in records]
    keys = [one for one in found if isinstance(one, KeyRecord)]
    if len(keys) > 1:
        return NoKey("several key records")
    return keys[0] if keys else found[0]
