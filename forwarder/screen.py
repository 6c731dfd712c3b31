"""Is this message fit to be vouched for? What two readers could take for two different messages is refused by name.

RFC 5322 section 3.6 and the attacks of "Composition Kills" (USENIX Security 2020): the identity that is authenticated must
be the identity that is relayed. What is merely odd passes unchanged. Loops end here too, in session, so that no bounce of
ours is ever written for one (RFC 5321 section 6.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from forwarder.loopmark import bears_mark
from forwarder.mail.address import AddressError, FromHeader, parse_address
from forwarder.mail.header import unfold
from forwarder.model import Address, Message, Refuse
from forwarder.smtp import reply

__all__ = ["MAX_HOPS", "screen_loop", "screen_message"]

#: RFC 5321 section 6.3 asks for at least 100.
MAX_HOPS = 100


def screen_message(message: Message, author: FromHeader) -> Refuse | None:
    """``None``: fit. The reply names exactly what is wrong."""
    if author.reason is not None:
        return Refuse(reply.malformed(author.reason), f"From: {author.reason}")
    if sum(1 for one in message.fields if one.name == b"received") > MAX_HOPS:
        return Refuse(reply.TOO_MANY_HOPS, f"more than {MAX_HOPS} Received fields")
    return None


def screen_loop(message: Message, aliases: Iterable[Address], secrets: Sequence[bytes]) -> Refuse | None:
    """Has this message been through one of these aliases before? Our own Delivered-To says so, or our mark."""
    marks = {_mark(unfold(one.value)) for one in message.fields if one.name == b"delivered-to"}
    for alias in aliases:
        if f"{alias.local.lower()}@{alias.domain}" in marks:
            return Refuse(reply.LOOP, "Delivered-To names the alias")
        if bears_mark(message, alias, secrets):
            return Refuse(reply.LOOP, "our mark of the alias is on it")
    return None


def _mark(value: bytes) -> str | None:
    try:
        address = parse_address(value.decode("utf-8", "replace").strip("<> "))
    except AddressError:
        return None
    return f"{address.local.lower()}@{address.domain}"
