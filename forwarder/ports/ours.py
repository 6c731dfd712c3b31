"""What is our own: keys, and secrets?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Protocol

__all__ = ["Dialect", "KeyRing", "Legacy", "SigningKey"]


class SigningKey(Protocol):
    """A private key that was loaded once. ``selector`` is ``""`` for the unnamed mailkey."""

    @property
    def domain(self) -> str: ...

    @property
    def selector(self) -> str: ...

    @property
    def algorithm(self) -> str:
        """``"rsa-sha256"`` or ``"ed25519-sha256"``."""

    def sign(self, data: bytes) -> bytes:
        """RSA: PKCS#1 v1.5 over SHA-256 of ``data``. Ed25519: over the SHA-256 digest of ``data`` (RFC 8463 section 3)."""

    async def signature(self, data: bytes) -> bytes:
        """The same, which may be made together with others that are asked for meanwhile."""


class Dialect(StrEnum):
    """Which program minted a reversible address before this one took its place (``srslegacy`` knows their shapes)."""

    POSTSRSD = "postsrsd"
    EXIM = "exim"
    OPENSMTPD = "opensmtpd"


@dataclass(frozen=True, slots=True)
class Legacy:
    """Its addresses under ``domain`` are honoured through the day ``until``, and no longer than ``max_age`` days after they were
    minted. ``hash_length``: letters that a MAC of the dialect postsrsd has at least."""

    dialect: Dialect
    domain: str
    secrets: tuple[bytes, ...] = field(repr=False)
    until: date
    hash_length: int = 4
    max_age: int = 21


class KeyRing(Protocol):
    """Which keys do we sign with, and which secrets mint reversible addresses?"""

    def mailkey(self, domain: str) -> SigningKey | None:
        """The key of ``domain`` or of the nearest parent of it that has one."""

    def dkim(self, domain: str) -> Sequence[SigningKey]:
        """The keys to sign with for mail whose reversible addresses are under ``domain``; RSA first."""

    def arc(self) -> SigningKey | None:
        """The sealing key; ``None``: sealing is off."""

    def srs_secrets(self) -> Sequence[bytes]:
        """The first mints, all verify. Never empty."""

    def srs_legacies(self) -> Sequence[Legacy]:
        """Reversible addresses of another program that are honoured still."""
