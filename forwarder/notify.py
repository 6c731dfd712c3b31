"""Which reports does a sender want, and what of that does the next hop hear? RFC 3461, docs/decisions/0014.

NOTIFY and ORCPT belong to an address as the sender named it. From the decision on, an envelope names aliases as the directory
spells them (``by_alias``), so that every later step finds what was asked of an alias.

    an alias with one target     is passed through: the next hop is asked what we were asked (section 5.2.7.2)
    an alias with several        is where success ends: we say "expanded", and ask the next hops for the rest
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from forwarder.mail.address import AddressError, ascii_domain
from forwarder.model import Address, Envelope, Notice, Recipient

__all__ = ["asks", "by_alias", "for_next_hop", "may_tell", "wants_delay", "wants_failure", "wants_success"]

_NEVER = "NEVER"


def asks(envelope: Envelope) -> bool:
    """Did the sender say anything about reports? Most do not."""
    return (
        envelope.envid is not None
        or envelope.ret is not None
        or any(one.notify is not None or one.orcpt is not None for one in envelope.recipients)
    )


def by_alias(envelope: Envelope, aliases: Sequence[Address]) -> Envelope:
    """The envelope with its recipients named as ``aliases``, which are in the same order. Whom the sender meant stays in
    ORCPT (RFC 3461 section 4.2)."""
    if not asks(envelope):
        return envelope
    named = zip(envelope.recipients, aliases, strict=True)
    recipients = tuple(Recipient(alias, one.notify, one.orcpt or _orcpt(one.address)) for one, alias in named)
    return replace(envelope, recipients=recipients)


def wants_failure(envelope: Envelope, alias: Address) -> bool:
    """RFC 3461 section 4.1: a sender that says nothing wants to hear of failures."""
    words = _words(envelope, alias)
    return words is None or "FAILURE" in words


def wants_success(envelope: Envelope, alias: Address) -> bool:
    """Only where it was asked for."""
    return "SUCCESS" in (_words(envelope, alias) or ())


def wants_delay(envelope: Envelope, alias: Address) -> bool | None:
    """``None``: the sender said nothing, and it is for us to choose."""
    words = _words(envelope, alias)
    return None if words is None else "DELAY" in words


def may_tell(notify: str | None, action: str) -> bool:
    """May a report that came back go on to a sender that said this? ``action`` is RFC 3464's."""
    if notify is None:
        return True
    words = notify.upper().split(",")
    return {"failed": "FAILURE", "delayed": "DELAY"}.get(action, "SUCCESS") in words


def for_next_hop(envelope: Envelope, alias: Address, *, alone: bool) -> Notice:
    """What the next hop of an alias is asked. ``alone``: the alias has one target."""
    asked = envelope.recipient(alias)
    if asked is None:
        return Notice()
    if alone:
        return Notice(asked.notify, asked.orcpt)
    if asked.notify is None:
        return Notice()
    # RFC 3461 section 5.2.7.3: the success was told when the alias was expanded. No ORCPT: a report about one of several
    # must name which one, to us.
    words = [one for one in asked.notify.upper().split(",") if one != "SUCCESS"]
    return Notice(",".join(words) or _NEVER)


def _words(envelope: Envelope, alias: Address) -> list[str] | None:
    asked = envelope.recipient(alias)
    return None if asked is None or asked.notify is None else asked.notify.upper().split(",")


def _orcpt(address: Address) -> str | None:
    """RFC 3461 section 4.2; RFC 6533 section 3 for an address that is not ASCII."""
    try:
        domain = ascii_domain(address.domain)
    except AddressError:
        return None
    if address.local.isascii():
        return f"rfc822;{_xtext(f'{address.local}@{domain}')}"
    return f"utf-8;{''.join(_utf8_xtext(one) for one in str(address))}"


def _xtext(text: str) -> str:
    return "".join(one if "!" <= one <= "~" and one not in "+=" else f"+{ord(one):02X}" for one in text)


def _utf8_xtext(one: str) -> str:
    return one if "!" <= one <= "~" and one not in "\\+=" else f"\\x{{{ord(one):02X}}}"
