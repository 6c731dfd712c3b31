"""Who made this? HMAC-SHA256 (RFC 2104) under a secret that is used again and again, as text for an address or a comment."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

__all__ = ["mac_text"]

#: Octets of a block of SHA-256.
_BLOCK = 64
_INNER = bytes(one ^ 0x36 for one in range(256))
_OUTER = bytes(one ^ 0x5C for one in range(256))
# RFC 4648 section 6, two characters for ten bits at a time.
_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_PAIRS = tuple(one + other for one in _BASE32 for other in _BASE32)
#: Of the 80 bits that are used: where each ten of them begin.
_PLACES = range(70, -10, -10)


def mac_text(secret: bytes, data: bytes) -> str:
    """The first 80 bits of the MAC, in base32: 16 characters."""
    keyed = _keyed(secret)
    inner, outer = keyed.inner.copy(), keyed.outer.copy()
    inner.update(data)
    outer.update(inner.digest())
    number = int.from_bytes(outer.digest()[:10], "big")
    return "".join([_PAIRS[number >> at & 1023] for at in _PLACES])


class _Keyed:
    """What both hashes of a MAC begin with. To copy them takes a third of what OpenSSL needs for a MAC that begins anew."""

    __slots__ = ("inner", "outer")

    def __init__(self, secret: bytes) -> None:
        key = (sha256(secret).digest() if len(secret) > _BLOCK else secret).ljust(_BLOCK, b"\0")
        self.inner = sha256(key.translate(_INNER))
        self.outer = sha256(key.translate(_OUTER))


_keyed = lru_cache(maxsize=64)(_Keyed)
