"""May this client use this sender? Envelope sender and From of submitted mail: RFC 6409 sections 6.1 and 8.

A client uses the senders that it owns and no other. Nothing here, and no setting, opens that for everybody: it is the door by
which mail would be forged in our name, with our own signature on it (docs/mailkey.md).
"""

from __future__ import annotations

import re

from forwarder.auth.suffix import is_public_suffix
from forwarder.mail.address import AddressError, FromHeader, ascii_domain, parse_address
from forwarder.model import Address, Identity, Refuse
from forwarder.smtp import reply

__all__ = ["canonical_owner", "owns", "refuse_author", "refuse_sender"]

_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


def canonical_owner(text: str) -> str:
    """What an operator writes as an owner, in the form that ``owns`` compares: ``example.org``, ``*.example.org``,
    ``bob@example.org``. Raises AddressError."""
    if text in ("*", "*@*") or text.startswith(("@", "*@")):
        raise AddressError("would let this client use every sender: list its domains or addresses")
    if "@" in text:
        return _mailbox(parse_address(text))
    parents, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    domain = ascii_domain(parse_address(f"postmaster@{name}").domain)
    if parents and is_public_suffix(domain):
        raise AddressError("would let this client use everybody's domains under a public suffix: list its domains")
    if domain.startswith("["):
        raise AddressError("must be a domain, not an address literal")
    return parents + domain


def owns(identity: Identity, address: Address) -> bool:
    """Subdomains belong to an owner only where it says so."""
    domain = ascii_domain(address.domain)
    if domain in identity.owns or _mailbox(address) in identity.owns:
        return True
    labels = domain.split(".")
    return any(f"*.{'.'.join(labels[at:])}" in identity.owns for at in range(1, len(labels)))


def refuse_sender(identity: Identity, sender: Address | None) -> Refuse | None:
    """MAIL FROM. The null sender is for those who write reports and vacation notes, and is given to each by name."""
    if identity.null_sender if sender is None else owns(identity, sender):
        return None
    return Refuse(reply.NOT_YOUR_SENDER, f"{identity.name} does not own {sender or '<>'}")


def refuse_author(identity: Identity, author: FromHeader) -> Refuse | None:
    """The From field, every author of it. A Sender field excuses none: readers are shown From, and DMARC judges it."""
    if author.addresses and all(owns(identity, one) for one in author.addresses):
        return None
    return Refuse(reply.NOT_YOUR_AUTHOR, f"{identity.name} does not own every author")


def _mailbox(address: Address) -> str:
    """RFC 5321 section 4.1.2: a quoted string and the atom that it spells are one mailbox. Case is folded in ASCII only, as
    ``K`` (U+212A) is no letter of ours; a host that tells Bob from bob is not known to us."""
    local = address.local
    if local.startswith('"'):
        local = _QUOTED_PAIR.sub(r"\1", local[1:-1])
    local = "".join(one.lower() if one.isascii() else one for one in local)
    return f"{local}@{ascii_domain(address.domain)}"
