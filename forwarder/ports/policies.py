"""What do other domains publish over HTTPS, and what did their TLS turn out to be?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Protocol

from forwarder.model import (
    TlsSession,
)

__all__ = [
    "KeyHost",
    "KeyText",
    "NoKeyText",
    "PolicyStore",
    "ReportHosts",
    "StsMode",
    "StsPolicies",
    "StsPolicy",
    "TlsCounts",
    "TlsLog",
]


@dataclass(frozen=True, slots=True)
class KeyText:
    """What a key host serves, not yet read. ``age`` is how many seconds it has lain in the cache."""

    text: bytes
    age: int = 0


@dataclass(frozen=True, slots=True)
class NoKeyText:
    """Why there is nothing to read; ``temporary``: later there may be, so the sender should come back."""

    reason: str
    temporary: bool


class KeyHost(Protocol):
    """Key hosts of other domains (docs/mailkey.md section 4). To be asked only where a TXT record says ``u=https``."""

    async def fetch(self, domain: str, selector: str | None, *, fresh: bool = False) -> KeyText | NoKeyText:
        """``domain`` in A-labels; ``None`` is the unnamed key. ``fresh`` goes past the cache. Never raises."""


class StsMode(Enum):
    """RFC 8461 section 3.2."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """What a domain says of its mail hosts (MTA-STS). ``id`` is that of the TXT record under which it was fetched, ``hosts`` are
    names in lower-case A-labels, ``*.`` before a name stands for one label. ``max_age``: seconds that it holds from its fetch
    on."""

    id: str
    mode: StsMode
    hosts: tuple[str, ...]
    max_age: int


class StsPolicies(Protocol):
    """MTA-STS policies of other domains."""

    async def policy(self, domain: str) -> StsPolicy | None:
        """That of a next-hop domain, which may be of mode none; ``None``: it has none that is known. Never raises, and never
        waits for a policy while another one still holds."""

    def may_have_one(self, domain: str) -> bool:
        """Was none found because it could not be looked up or fetched just now?"""


class PolicyStore(Protocol):
    """MTA-STS policies that hold longer than we run. Every method raises ``StoreAway`` when the store is away."""

    async def look_up_policy(self, domain: str) -> tuple[StsPolicy, int] | None:
        """And for how many seconds more it holds."""

    async def put_policy(self, domain: str, policy: StsPolicy) -> None:
        """For its ``max_age`` from now."""


class TlsLog(Protocol):
    """How connections to next hops went."""

    def note(self, session: TlsSession) -> None:
        """Count it. Never raises, never waits."""


class TlsCounts(Protocol):
    """Those counts, of all processes, by day (UTC). Every method raises ``StoreAway`` when the store is away."""

    async def add_sessions(self, day: date, domain: str, counts: Mapping[TlsSession, int]) -> None:
        """Beyond some number of domains a day, and of kinds of sessions for each, what is new is left out."""

    async def session_domains(self, day: date) -> Sequence[str]:
        """Domains that something was counted for."""

    async def sessions(self, day: date, domain: str) -> Mapping[TlsSession, int]:
        """What was counted."""

    async def is_reported(self, day: date, domain: str) -> bool:
        """Was ``mark_reported`` called?"""

    async def mark_reported(self, day: date, domain: str) -> None:
        """The domain has its report."""


class ReportHosts(Protocol):
    """Hosts that take reports over HTTPS."""

    async def post_report(self, host: str, path: str, packed: bytes) -> str | None:
        """``None``: it was taken; else why not. One try. Never raises."""
