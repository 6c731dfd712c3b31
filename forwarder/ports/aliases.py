"""Where does an address lead?"""

from __future__ import annotations

from typing import Protocol

from forwarder.model import (
    Address,
)
from forwarder.values import value

__all__ = ["AliasFound", "Directory", "DirectoryAnswer", "MailboxFound", "NoSuchAlias", "NotOurDomain"]


@value
class AliasFound:
    """``alias`` is the address as the directory spells it; ``targets`` is never empty."""

    alias: Address
    targets: tuple[Address, ...]


@value
class MailboxFound:
    """postmaster or abuse, kept on this host in the mailbox of this name."""

    alias: Address
    mailbox: str


@value
class NoSuchAlias:
    """Our domain, but no such (or a disabled) address: the two are not told apart outside."""


@value
class NotOurDomain:
    """A domain that we do not serve."""


DirectoryAnswer = AliasFound | MailboxFound | NoSuchAlias | NotOurDomain


class Directory(Protocol):
    """Which addresses do we serve?"""

    async def look_up(self, address: Address) -> DirectoryAnswer:
        """Never raises for an unknown address; raises ``StoreAway`` if the answer cannot be had now."""

    def is_ours(self, domain: str) -> bool:
        """True for a domain that we accept mail for."""

    def srs_domain(self, domain: str) -> str:
        """The domain under which reversible addresses for mail to ``domain`` are minted."""

    def is_srs_domain(self, domain: str) -> bool:
        """True for a domain under which we mint reversible addresses."""
