"""What does a Mailkey-Signature field claim? docs/mailkey.md sections 5 and 6."""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from hashlib import sha256

from forwarder.auth.dkim.signature import ALGORITHMS
from forwarder.auth.tags import (
    TagError,
    decode_base64,
    parse_domain,
    parse_exact_base64,
    parse_names,
    parse_number,
    parse_tags,
    required,
    without_space,
)
from forwarder.mail.address import AddressError, wire
from forwarder.model import Address

__all__ = [
    "EXPIRY_GRACE",
    "FIELD",
    "MAX_AHEAD",
    "MAX_LIFETIME",
    "Claim",
    "MalformedClaim",
    "bind_recipient",
    "parse_claim",
]

FIELD = b"mailkey-signature"
#: Seconds from t= to x=, at most.
MAX_LIFETIME = 14 * 86400
#: Seconds past x= that are forgiven: the time in a queue between signing and the final dot.
EXPIRY_GRACE = 300
#: Seconds that t= may be ahead of our clock.
MAX_AHEAD = 86400

# Tags of DKIM that do not exist here: each would let the signer leave something out.
_FORBIDDEN = (b"c", b"l", b"i", b"q")
#: Octets of SHA-256 that bind a recipient.
_BINDING = 16


@dataclass(frozen=True, slots=True)
class Claim:
    """The claims, syntax checked. ``selector`` is ``None`` for the unnamed key; ``bindings`` are the items of rt=,
    ``None`` without it; ``time_text`` and ``body_hash_text`` are the tags as they stand, which the bindings are
    made from."""

    algorithm: str
    key_kind: str
    value: bytes
    body_hash: bytes
    domain: str
    selector: str | None
    mail_from: bytes
    bindings: frozenset[bytes] | None
    names: tuple[bytes, ...]
    signed_at: int
    expires_at: int
    time_text: bytes
    body_hash_text: bytes

    @property
    def key_name(self) -> str:
        """The DNS name of the key record."""
        return f"mailkey.{self.domain}" if self.selector is None else f"{self.selector}.mailkey.{self.domain}"

    def binds(self, recipient: Address) -> bool:
        """Is this recipient one that rt= names?"""
        try:
            binding = bind_recipient(self.time_text, self.body_hash_text, recipient)
        except AddressError:
            return False
        return self.bindings is not None and binding in self.bindings


@dataclass(frozen=True, slots=True)
class MalformedClaim:
    """A field that claims nothing that could be checked; ``domain`` is its d= where that can be read."""

    domain: str | None
    reason: str


def bind_recipient(time_text: bytes, body_hash_text: bytes, recipient: Address) -> bytes:
    """One item of rt=, before base64."""
    return sha256(b":".join((time_text, body_hash_text, wire(recipient)[1:-1]))).digest()[:_BINDING]


def parse_claim(raw: bytes) -> Claim | MalformedClaim:
    """The whole field, name included."""
    domain = None
    try:
        tags = parse_tags(raw[raw.index(b":") + 1 :])
        domain = parse_domain(tags, b"d")
        return _parse(tags, domain)
    except TagError as error:
        return MalformedClaim(domain, str(error))


def _parse(tags: dict[bytes, bytes], domain: str) -> Claim:
    if tags.get(b"v") != b"1":
        raise TagError("v= is not 1" if b"v" in tags else "v= is missing")
    for name in _FORBIDDEN:
        if name in tags:
            raise TagError(f"{name.decode()}= does not exist in a mailkey")
    algorithm = required(tags, b"a")
    if algorithm not in ALGORITHMS:
        raise TagError("unknown a=")
    selector = parse_domain(tags, b"s") if b"s" in tags else None
    if selector is not None and "." in selector:
        raise TagError("s= is not one label")
    required(tags, b"t"), required(tags, b"x")
    signed_at, expires_at = parse_number(tags, b"t") or 0, parse_number(tags, b"x") or 0
    if not signed_at < expires_at <= signed_at + MAX_LIFETIME:
        raise TagError("x= is not within 14 days after t=")
    names = parse_names(tags)
    if b"from" not in names:
        raise TagError("h= does not name From")
    return Claim(
        algorithm=algorithm.decode(),
        key_kind=ALGORITHMS[algorithm],
        value=parse_exact_base64(tags, b"b"),
        body_hash=parse_exact_base64(tags, b"bh"),
        domain=domain,
        selector=selector,
        mail_from=parse_exact_base64(tags, b"mf"),
        bindings=_parse_bindings(tags),
        names=names,
        signed_at=signed_at,
        expires_at=expires_at,
        time_text=tags[b"t"],
        body_hash_text=without_space(tags[b"bh"]),
    )


def _parse_bindings(tags: dict[bytes, bytes]) -> frozenset[bytes] | None:
    if b"rt" not in tags:
        return None
    try:
        items = frozenset(decode_base64(item) for item in without_space(required(tags, b"rt")).split(b","))
    except binascii.Error:
        items = frozenset({b""})
    if any(len(item) != _BINDING for item in items):
        raise TagError("rt= is no list of 16 octets each")
    return items
