"""Who is this client? AUTH PLAIN and LOGIN: RFC 4954, RFC 4616, draft-murchison-sasl-login.

A password costs a quarter of a second to check: it happens on threads, two at a time, behind a short queue. What does not fit
into the queue hears 454 at once, so that guessing takes nothing from those who are logged in. Each client has a small share of
the queue, so that one who guesses keeps nobody else out.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from forwarder.edge.clients import address_key

__all__ = ["MAX_EXCHANGE", "Authenticator", "Given", "Passwords", "decode", "parse_plain"]

#: Octets of one line of the exchange. The longest that PLAIN can mean is 1,024 (RFC 4616 section 2: three times 255).
MAX_EXCHANGE = 8192
_AT_ONCE = 2
_WAITING = 32
#: Of them, those of one client.
_SHARE = 2


class Passwords(Protocol):
    """forwarder.credentials."""

    def check(self, login: str, password: str) -> bool:
        """Slow on purpose, and as slow for a login that nobody has."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a client says that it is."""

    login: str
    password: str


class Authenticator:
    """One for all sessions of a process."""

    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords
        self._threads = ThreadPoolExecutor(_AT_ONCE, "auth")
        #: By client: how many of its passwords are being checked or wait for it.
        self._waiting: Counter[int] = Counter()

    async def check(self, given: Given, ip: IPv4Address | IPv6Address) -> bool | None:
        """``None``: too many are waiting, of all or of this client; nothing was checked."""
        client = address_key(ip)
        if self._waiting[client] >= _SHARE or self._waiting.total() >= _WAITING:
            return None
        self._waiting[client] += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._passwords.check, given.login, given.password)
        finally:
            self._waiting -= Counter((client,))

    def close(self) -> None:
        """Nothing is waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def decode(line: bytes) -> bytes | None:
    """RFC 4954 section 4: base64 and nothing else; ``None``: it is none."""
    try:
        return base64.b64decode(line, validate=True)
    except binascii.Error:
        return None


def parse_plain(message: bytes) -> Given | None:
    """RFC 4616 section 2: ``[authzid] NUL authcid NUL passwd``. Nobody may act for somebody else: an authorization identity
    that is not the login's own is no log-in."""
    try:
        parts = message.decode().split("\0")
    except UnicodeDecodeError:
        return None
    if len(parts) != 3 or not parts[1] or not parts[2] or parts[0] not in ("", parts[1]):
        return None
    return Given(parts[1], parts[2])
