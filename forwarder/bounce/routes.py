"""Who hears of a failure? The sender, the owner of the alias, both, the owner's digest or nobody: by alias, domain and kind.

The owner put the hidden address behind the alias, so what is told to the owner may name it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from forwarder.mail.address import AddressError, ascii_domain
from forwarder.mail.report import Action, RecipientStatus
from forwarder.model import Address

__all__ = ["CATCH_ALL", "DEFAULT", "Kind", "Routing", "Target", "Way", "kind_of"]

CATCH_ALL = "*"


class Kind(StrEnum):
    """What a report says. ``HARD``: the address or its domain is gone; ``SOFT``: every other failure for good."""

    HARD = "hard"
    SOFT = "soft"
    DELAYED = "delayed"
    AUTO_REPLY = "auto_reply"
    #: Delivered, relayed, expanded.
    OTHER = "other"


class Target(StrEnum):
    """Who hears of it. ``DIGEST``: the owner, with the rest of the day in one message."""

    SENDER = "sender"
    OWNER = "owner"
    BOTH = "both"
    DIGEST = "digest"
    SUPPRESS = "suppress"

    @property
    def tells_sender(self) -> bool:
        """Does the original sender get a report?"""
        return self in (Target.SENDER, Target.BOTH)

    @property
    def tells_owner(self) -> bool:
        """Does the owner get a message of its own?"""
        return self in (Target.OWNER, Target.BOTH)


#: A sender must hear that its message is lost (RFC 5321 section 6.1); that it is late it need not.
DEFAULT: Mapping[Kind, Target] = {
    Kind.HARD: Target.SENDER,
    Kind.SOFT: Target.SENDER,
    Kind.DELAYED: Target.SUPPRESS,
    Kind.AUTO_REPLY: Target.SUPPRESS,
    Kind.OTHER: Target.SENDER,
}


@dataclass(frozen=True, slots=True)
class Way:
    """``owner``: ``None`` is the postmaster of the alias's domain."""

    targets: Mapping[Kind, Target] = field(default_factory=lambda: DEFAULT)
    owner: Address | None = None


@dataclass(frozen=True, slots=True)
class Routing:
    """``domains`` by name in A-labels; ``aliases`` by (local part in lower case or ``*``, domain): each complete, with what it
    has from the domain and from the whole already in it."""

    overall: Way = field(default_factory=Way)
    domains: Mapping[str, Way] = field(default_factory=dict)
    aliases: Mapping[tuple[str, str], Way] = field(default_factory=dict)

    def way(self, alias: Address | None) -> Way:
        """``None``: nobody knows which alias it was."""
        if alias is None or not (self.domains or self.aliases):
            return self.overall
        try:
            domain = ascii_domain(alias.domain)
        except AddressError:
            return self.overall
        for local in (alias.local.lower(), CATCH_ALL):
            if (found := self.aliases.get((local, domain))) is not None:
                return found
        return self.domains.get(domain, self.overall)


def kind_of(said: RecipientStatus) -> Kind:
    """What a report says of a recipient."""
    if said.action is Action.DELAYED:
        return Kind.DELAYED
    if said.action is not Action.FAILED:
        return Kind.OTHER
    return Kind.HARD if said.hard else Kind.SOFT
