"""Is this message fit to be vouched for? What two readers could take for two different messages is refused by name.

RFC 5322 section 3.6 and the attacks of "Composition Kills" (USENIX Security 2020): the identity that is authenticated must
be the identity that is relayed. What is merely odd passes unchanged. Loops end here too, in session, so that no bounce of
ours is ever written for one (RFC 5321 section 6.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from forwarder.loopmark import bears_mark
from forwarder.mail.address import AddressError, FromHeader, parse_address
from forwarder.mail.header import unfold
from forwarder.model import Address, Caller, HeloFact, Message, Refuse
from forwarder.smtp import reply
from forwarder.smtp.lenient import STANDARD, Lenient

__all__ = ["MAX_HOPS", "Door", "screen_caller", "screen_loop", "screen_message"]

#: RFC 5321 section 4.5.1, RFC 2142: whoever is refused can still write to these.
ALWAYS_OPEN = frozenset({"postmaster", "abuse"})

#: RFC 5321 section 6.3 asks for at least 100.
MAX_HOPS = 100


@dataclass(frozen=True, slots=True)
class Door:
    """From which score of DNS lists on a client is refused, and by alias domain where that differs; 0: never."""

    reject_at: float = 1.0
    domains: Mapping[str, float] = field(default_factory=dict)


def screen_caller(alias: Address, ip: IPv4Address | IPv6Address, caller: Caller, door: Door) -> Refuse | None:
    """May this client write to the alias? ``None``: it may."""
    reject_at = door.domains.get(alias.domain, door.reject_at)
    if not reject_at or caller.score < reject_at or alias.local.lower() in ALWAYS_OPEN:
        return None
    worst = max(caller.listed, key=lambda one: one.weight, default=None)
    helo = caller.helo
    if helo is not None and (worst is None or helo.weight > worst.weight):
        return Refuse(reply.helo_refused(_NAMES[helo.fact]), f"EHLO: {helo.fact}, score {caller.score:g}")
    assert worst is not None
    return Refuse(reply.listed(str(ip), worst.zone), f"listed by {worst.zone}, score {caller.score:g}")


_NAMES = {
    HeloFact.RESOLVES: "leads to your address",
    HeloFact.ELSEWHERE: "does not lead to your address",
    HeloFact.UNKNOWN: "cannot be looked up",
    HeloFact.LITERAL: "is an address literal",
    HeloFact.OURS: "is ours",
    HeloFact.SHORT: "is not fully qualified",
    HeloFact.NAMELESS: "is no host name",
}


def screen_message(message: Message, author: FromHeader, lenient: Lenient = STANDARD) -> Refuse | None:
    """``None``: fit. The reply names exactly what is wrong."""
    if author.reason is not None:
        return Refuse(reply.malformed(author.reason), f"From: {author.reason}")
    if not lenient.missing_date and message.first(b"date") is None:
        return Refuse(reply.malformed("no Date field"), "no Date field")
    if len(message.all(b"received")) > MAX_HOPS:
        return Refuse(reply.TOO_MANY_HOPS, f"more than {MAX_HOPS} Received fields")
    return None


def screen_loop(message: Message, aliases: Iterable[Address], secrets: Sequence[bytes]) -> Refuse | None:
    """Has this message been through one of these aliases before? Our own Delivered-To says so, or our mark."""
    marks = {_mark(unfold(one.value)) for one in message.all(b"delivered-to")}
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
