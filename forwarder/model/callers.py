"""What do others say of the client?"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address

from forwarder.model.verdict import Result
from forwarder.values import value


@value
class Listed:
    """A DNS list (RFC 5782) has the client. ``codes`` are its answers, ``weight`` what they count; below 0: it is a list of the
    good."""

    zone: str
    codes: tuple[IPv4Address, ...]
    weight: float


@value
class IprevCheck:
    """RFC 8601 section 2.7.3. ``name`` is the client's, where it leads back to its address."""

    result: Result
    name: str | None = None
    reason: str | None = None


class HeloFact(StrEnum):
    """What is found out about the name behind EHLO or HELO."""

    #: It leads to the client's address.
    RESOLVES = "resolves"
    #: It is a name, and does not.
    ELSEWHERE = "elsewhere"
    #: The look-up failed.
    UNKNOWN = "unknown"
    #: An address literal, which RFC 5321 section 4.1.3 leaves to those who have no name.
    LITERAL = "literal"
    #: A name of ours, and the client has not our address.
    OURS = "ours"
    #: Of one label.
    SHORT = "short"
    #: No name and no literal.
    NAMELESS = "nameless"


@value
class HeloCheck:
    """``weight`` is what the operator has the fact count, as that of ``Listed``."""

    fact: HeloFact
    result: Result
    reason: str | None = None
    weight: float = 0.0


@value
class Caller:
    """What others say of the client: facts, no advice. ``iprev`` and ``helo`` are ``None`` where it was not asked."""

    listed: tuple[Listed, ...] = ()
    iprev: IprevCheck | None = None
    helo: HeloCheck | None = None

    @property
    def score(self) -> float:
        """What the lists say, and its name, together."""
        return sum(one.weight for one in self.listed) + (self.helo.weight if self.helo is not None else 0)
