"""Is this the password of this login? A file of scrypt hashes (RFC 7914), one login a line.

    alice:$scrypt$ln=15,r=8,p=3$<salt>$<hash>

All hashes of a file have the same cost, and an unknown login costs as much as a wrong password: whoever measures learns nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import unicodedata
from collections.abc import Mapping

__all__ = ["MAX_PASSWORD", "Credentials", "CredentialsError", "make_line"]

#: Octets of a login and of a password (RFC 4616 section 2 gives each 255).
MAX_PASSWORD = 255
LOGIN = re.compile(r"[!-9;-~]{1,255}")
# 32 MiB and about a quarter of a second: what OWASP's cheat sheet asks of scrypt at this size.
_LN, _R, _P = 15, 8, 3
_MAX_MEMORY = 64 * 1024 * 1024
_PREFIX = f"$scrypt$ln={_LN},r={_R},p={_P}$"


class CredentialsError(ValueError):
    """The file cannot be used. The text names a line, never what stands in it."""


class Credentials:
    """``parse`` makes one from a file's content."""

    def __init__(self, hashes: Mapping[str, tuple[bytes, bytes]]) -> None:
        self._hashes = dict(hashes)
        # What an unknown login is compared with; nothing hashes to it.
        self._nobody = (secrets.token_bytes(16), b"")

    @classmethod
    def parse(cls, content: bytes) -> Credentials:
        """Empty lines and those that begin with # are passed over. Raises CredentialsError."""
        found: dict[str, tuple[bytes, bytes]] = {}
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            login, _, hashed = line.strip().partition(":")
            pair = _parse(hashed)
            if pair is None or not LOGIN.fullmatch(login):
                raise CredentialsError(f"line {number} is no login; make one with: forwarder passwd LOGIN")
            if login in found:
                raise CredentialsError(f"line {number}: {login} has a line already")
            found[login] = pair
        return cls(found)

    def __contains__(self, login: str) -> bool:
        return login in self._hashes

    def check(self, login: str, password: str) -> bool:
        """Takes about a quarter of a second of a processor, whatever the answer: not for the event loop."""
        salt, expected = self._hashes.get(login, self._nobody)
        return hmac.compare_digest(_hash(password, salt), expected)


def make_line(login: str, password: str) -> str:
    """A line for the file. Raises ValueError for what can be no login or password."""
    if not LOGIN.fullmatch(login):
        raise ValueError("a login is 1 to 255 visible ASCII characters without a colon")
    if not 0 < len(_prepared(password)) <= MAX_PASSWORD or "\0" in password:
        raise ValueError(f"a password has 1 to {MAX_PASSWORD} octets, none of them NUL")
    salt = secrets.token_bytes(16)
    return f"{login}:{_PREFIX}{_encode(salt)}${_encode(_hash(password, salt))}"


def _parse(hashed: str) -> tuple[bytes, bytes] | None:
    if not hashed.startswith(_PREFIX):
        return None
    salt, _, digest = hashed.removeprefix(_PREFIX).partition("$")
    try:
        pair = base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True)
    except binascii.Error:
        return None
    return pair if len(pair[0]) == 16 and len(pair[1]) == 32 else None


def _hash(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(_prepared(password), salt=salt, n=1 << _LN, r=_R, p=_P, maxmem=_MAX_MEMORY, dklen=32)


def _prepared(password: str) -> bytes:
    # RFC 8265 section 4.2.2: one composition for what two keyboards spell in two ways.
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
