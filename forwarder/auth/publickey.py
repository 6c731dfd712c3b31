"""Is this signature made by the owner of this key? RFC 6376 section 3.3, RFC 8301 and RFC 8463, for DKIM, ARC and
mailkey.

Keys and signatures come from strangers: sizes are checked before any arithmetic, and nothing here raises for what they
hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

__all__ = ["MAX_RSA_BITS", "BadKey", "PublicKey", "load_key", "verify_digest"]

PublicKey = RSAPublicKey | Ed25519PublicKey

#: RFC 8301 section 3.2: verifiers must take 1024 to 4096 bits. More costs the verifier, not the signer (16384 bits: 1
#: ms).
MAX_RSA_BITS = 4096
#: Octets of a DER key that are handed to the parser: 8192 bits still get the reason that names their size.
_MAX_DER = 1200
#: Bits of an RSA exponent. Everyone uses 3, 17 or 65537; an exponent as long as the modulus makes verifying as dear as
#: signing.
_MAX_EXPONENT_BITS = 64

_ED25519_OCTETS = 32

_PADDING = PKCS1v15()
_DIGEST = Prehashed(SHA256())

# Curve25519 has eight points of an order that divides 8. For a key among them one signature fits many messages, and
# OpenSSL takes them (RFC 8032 section 8.9 leaves the choice). Their y coordinates; the other sign bit is the other
# half of them.
_PRIME = 2**255 - 19
_ORDER_EIGHT = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER = {0, 1, _PRIME - 1, _ORDER_EIGHT, _PRIME - _ORDER_EIGHT}


@dataclass(frozen=True, slots=True)
class BadKey:
    """A key that nothing can be verified with, and why."""

    reason: str


def load_key(kind: bytes, octets: bytes, min_rsa_bits: int) -> PublicKey | BadKey:
    """The key of a record: ``kind`` is its k=, ``octets`` its p=."""
    match kind:
        case b"rsa":
            return _load_rsa(octets, min_rsa_bits)
        case b"ed25519":
            return _load_ed25519(octets)
        case _:
            return BadKey("unknown k=")


def _load_rsa(der: bytes, minimum: int) -> RSAPublicKey | BadKey:
    """An RSA key of ``minimum`` to 4096 bits, as SubjectPublicKeyInfo or as bare PKCS#1 (RFC 6376 erratum 3017)."""
    if len(der) > _MAX_DER:
        return BadKey("RSA key too large")
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        return BadKey("RSA key malformed")
    if not isinstance(key, RSAPublicKey):
        return BadKey("not an RSA key")
    # RFC 8301 section 3.2
    if not minimum <= key.key_size <= MAX_RSA_BITS:
        return BadKey(f"RSA key of {key.key_size} bits, {minimum} to {MAX_RSA_BITS} are taken")
    if key.public_numbers().e.bit_length() > _MAX_EXPONENT_BITS:
        return BadKey("RSA key with an oversized exponent")
    return key


def _load_ed25519(raw: bytes) -> Ed25519PublicKey | BadKey:
    """The 32 octets of RFC 8463 section 4."""
    if len(raw) != _ED25519_OCTETS:
        return BadKey(f"ed25519 key of {len(raw)} octets, not {_ED25519_OCTETS}")
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if y >= _PRIME or y in _SMALL_ORDER:
        return BadKey("ed25519 key is a point of small order")
    try:
        return Ed25519PublicKey.from_public_bytes(raw)
    except (ValueError, UnsupportedAlgorithm):
        return BadKey("ed25519 key malformed")


def verify_digest(key: PublicKey, signature: bytes, digest: bytes) -> bool:
    """Does ``signature`` fit the SHA-256 ``digest``? RSA: PKCS#1 v1.5. Ed25519 signs the digest itself (RFC 8463
    section 3)."""
    try:
        if _is_rsa(type(key)):
            cast("RSAPublicKey", key).verify(signature, digest, _PADDING, _DIGEST)
        else:
            cast("Ed25519PublicKey", key).verify(signature, digest)
    except (InvalidSignature, ValueError):
        return False
    return True


# The classes are abstract: to ask whether a key is one of them takes longer than to hash what it signed.
@cache
def _is_rsa(kind: type[PublicKey]) -> bool:
    return issubclass(kind, RSAPublicKey)
