"""What is to be done for a recipient?"""

from __future__ import annotations

from enum import Enum

from forwarder.model.envelope import Address
from forwarder.model.reply import Reply
from forwarder.values import value


class SenderForm(Enum):
    """How the envelope sender is rewritten: so that it comes back, so that it ends here, or the null sender as it is."""

    REVERSIBLE = "reversible"
    ONE_WAY = "one-way"
    NULL = "null"


class FromRewrite(Enum):
    """When does From become an address of ours? ``IF_REFUSED``: for a next hop that refuses the message for its authentication,
    in the same attempt. ``IF_KNOWN``: likewise, and at once for one that has refused such mail before."""

    NEVER = "never"
    IF_REFUSED = "if-refused"
    IF_KNOWN = "if-known"
    AT_ONCE = "at-once"


@value
class Forward:
    """Send on: ``alias`` is the address the mail was for, ``targets`` where it goes, ``srs_domain`` whose sender it gets.
    ``from_reason`` is why From is rewritten when it is."""

    alias: Address
    targets: tuple[Address, ...]
    srs_domain: str
    sender_form: SenderForm
    reason: str
    from_rewrite: FromRewrite = FromRewrite.NEVER
    from_reason: str = ""


@value
class ReturnBounce:
    """A report for a reversible address: ``sender`` is the original sender it goes to, ``reversible`` the address it
    came to, ``alias`` and ``destination`` the forward it is about (``None``: the state does not know). ``orcpt`` and ``envid``
    are the sender's own; ``matched`` is what the report and that forward have in common (``bounce.Evidence``)."""

    reversible: Address
    sender: Address
    alias: Address | None
    destination: Address | None
    reason: str
    orcpt: str | None = None
    envid: str | None = None
    matched: tuple[str, ...] = ()
    #: The message's id of ours.
    about: str | None = None


@value
class Keep:
    """Put into a local mailbox file (postmaster and abuse without an ``[admin] address``)."""

    alias: Address
    mailbox: str
    reason: str


@value
class Refuse:
    """Say no in session. ``forged``: an address that looks like one of ours and is none. Who tries many is guessing."""

    reply: Reply
    reason: str
    forged: bool = False


@value
class Discard:
    """Take and end it here, on record (a bounce to a one-way address)."""

    reason: str


Route = Forward | ReturnBounce | Keep | Refuse | Discard
