"""What does a mail server of ours say of its client? Postfix's XCLIENT and XFORWARD (XCLIENT_README, XFORWARD_README).

Grammar only. Of the attributes three count here: ADDR, HELO and PROTO. The others are read, checked and dropped: names of
clients are looked up by ourselves or not at all, and LOGIN is refused, because who logs in is checked here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from forwarder.model import Peer, Reply
from forwarder.smtp.commands import CommandError, parse_helo

__all__ = ["NO_CLAIM", "XCLIENT", "XFORWARD", "Claim", "parse_claim"]

#: What EHLO announces, and what is taken.
XCLIENT = ("NAME", "ADDR", "PORT", "PROTO", "HELO")
XFORWARD = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE")

_BAD_ATTRIBUTE = Reply(501, "5.5.4", "syntax: attribute=value, the value as xtext")
_UNKNOWN_ATTRIBUTE = Reply(501, "5.5.4", "an attribute that is not offered")
_TWICE = Reply(501, "5.5.4", "an attribute is given twice")
_BAD_ADDR = Reply(501, "5.5.4", "ADDR must be an IP address")
_BAD_PROTO = Reply(501, "5.5.4", "PROTO must be SMTP or ESMTP")

_ATTRIBUTE = re.compile(rb"([A-Za-z]+)=((?:[!-*,-<>-~]|\+[0-9A-Fa-f]{2})+)")
_HEX = re.compile(rb"\+([0-9A-Fa-f]{2})")
_NOT_KNOWN = (b"[UNAVAILABLE]", b"[TEMPUNAVAIL]")


@dataclass(frozen=True, slots=True)
class Claim:
    """What is said of the client; ``None``: nothing, or that it is not known."""

    ip: IPv4Address | IPv6Address | None = None
    helo: str | None = None
    esmtp: bool | None = None

    def over(self, earlier: Claim) -> Claim:
        """Both, where this one goes over the other."""
        return Claim(
            self.ip or earlier.ip, self.helo or earlier.helo, earlier.esmtp if self.esmtp is None else self.esmtp
        )

    def applied(self, peer: Peer) -> Peer:
        """The client, as this says it is. TLS stays that of the connection."""
        if self is NO_CLAIM:
            return peer
        esmtp = peer.esmtp if self.esmtp is None else self.esmtp
        named = peer.named or self.helo is not None
        return replace(peer, ip=self.ip or peer.ip, helo=self.helo or peer.helo, esmtp=esmtp, named=named)


NO_CLAIM = Claim()


def parse_claim(argument: bytes, offered: tuple[str, ...]) -> Claim:
    """The argument of either command; raises CommandError."""
    given: dict[str, bytes] = {}
    for part in argument.split():
        match = _ATTRIBUTE.fullmatch(part)
        if match is None:
            raise CommandError(_BAD_ATTRIBUTE)
        name = match[1].decode().upper()
        if name not in offered:
            raise CommandError(_UNKNOWN_ATTRIBUTE)
        if name in given:
            raise CommandError(_TWICE)
        given[name] = match[2]
    if not given:
        raise CommandError(_BAD_ATTRIBUTE)
    known = {name: _decoded(value) for name, value in given.items() if value.upper() not in _NOT_KNOWN}
    return Claim(_ip(known.get("ADDR")), _helo(known.get("HELO")), _esmtp(known.get("PROTO")))


def _decoded(xtext: bytes) -> bytes:
    return _HEX.sub(lambda pair: bytes.fromhex(pair[1].decode()), xtext)


def _ip(value: bytes | None) -> IPv4Address | IPv6Address | None:
    if value is None:
        return None
    text = value.decode("latin-1")
    try:
        # The README writes IPv6 addresses as in RFC 5321 section 4.1.3; Postfix takes them without the tag too.
        ip = ip_address(text[5:] if text[:5].upper() == "IPV6:" else text)
    except ValueError:
        raise CommandError(_BAD_ADDR) from None
    if isinstance(ip, IPv6Address):
        if ip.scope_id is not None:
            raise CommandError(_BAD_ADDR)
        return ip.ipv4_mapped or ip
    return ip


def _helo(value: bytes | None) -> str | None:
    return None if value is None else parse_helo(value)


def _esmtp(value: bytes | None) -> bool | None:
    if value is None:
        return None
    if value.upper() not in (b"SMTP", b"ESMTP"):
        raise CommandError(_BAD_PROTO)
    return value.upper() == b"ESMTP"
