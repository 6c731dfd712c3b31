"""Whose connection does a proxy hand us? The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt).

Sans-I/O, strict: a header is whole and right, or not yet whole, or wrong. Nothing is guessed, since what a header says is
believed from then on. Type-length-values behind the addresses are skipped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

__all__ = ["MAX_HEADER", "Introduction", "ProxyError", "parse_proxy"]

#: Octets of a version 2 header with all its type-length-values: they hold a TLS host name, a client's certificate name.
MAX_HEADER = 2048
#: Octets of a version 1 header with its CRLF (section 2.1).
_MAX_V1 = 107

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_BEGINNING = b"PROXY "
_PORT = rb"(0|[1-9][0-9]{0,4})"
_V1 = re.compile(
    rb"PROXY (?:TCP4 ([0-9.]+) ([0-9.]+)|TCP6 ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+)) %b %b\r\n" % (_PORT, _PORT)
)
#: Section 2.2: version 2, LOCAL or PROXY.
_LOCAL, _PROXIED = 0x20, 0x21
#: Family and protocol: TCP over IPv4, TCP over IPv6, and octets of both addresses and ports.
_FAMILIES = {0x11: (4, 12), 0x21: (16, 36)}


class ProxyError(Exception):
    """This is no PROXY header. The text is ours."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """A header of ``size`` octets. ``ip`` is the client's; ``None``: the connection is the proxy's own (a health check)."""

    ip: IPv4Address | IPv6Address | None
    size: int


def parse_proxy(octets: bytes) -> Introduction | None:
    """What the header at the start of ``octets`` says; ``None``: it is not whole. Raises ProxyError."""
    if octets.startswith(_BEGINNING[: len(octets)]):
        return _parse_v1(octets)
    if octets.startswith(_SIGNATURE[: len(octets)]):
        return _parse_v2(octets)
    raise ProxyError("no PROXY header")


def _parse_v1(octets: bytes) -> Introduction | None:
    end = octets.find(b"\n", 0, _MAX_V1) + 1
    if not end:
        if len(octets) >= _MAX_V1:
            raise ProxyError("a version 1 header is longer than 107 octets")
        return None
    line = octets[:end]
    if line.startswith(b"PROXY UNKNOWN") and line[13:14] in (b" ", b"\r") and line.endswith(b"\r\n"):
        # Section 2.1: the rest of the line is ignored, and the connection's own addresses count.
        return Introduction(None, end)
    match = _V1.fullmatch(line)
    if match is None:
        raise ProxyError("malformed version 1 header")
    v4, to_v4, v6, to_v6, *ports = match.groups()
    if any(int(port) > 65535 for port in ports):
        raise ProxyError("malformed version 1 header")
    family: type[IPv4Address | IPv6Address] = IPv4Address if v4 else IPv6Address
    try:
        family((to_v4 or to_v6).decode())
        return Introduction(_plain(family((v4 or v6).decode())), end)
    except ValueError:
        raise ProxyError("malformed version 1 header") from None


def _parse_v2(octets: bytes) -> Introduction | None:
    if len(octets) < 16:
        return None
    command, family = octets[12], octets[13]
    size = 16 + int.from_bytes(octets[14:16], "big")
    if command not in (_LOCAL, _PROXIED):
        raise ProxyError("not version 2, or an unknown command")
    if size > MAX_HEADER:
        raise ProxyError(f"a version 2 header is longer than {MAX_HEADER} octets")
    if command == _PROXIED and family not in _FAMILIES:
        raise ProxyError("not TCP over IPv4 or IPv6")
    if command == _PROXIED and size < 16 + _FAMILIES[family][1]:
        raise ProxyError("a version 2 header is shorter than its addresses")
    if len(octets) < size:
        return None
    if command == _LOCAL:
        # Section 2.2: whatever the rest of it says.
        return Introduction(None, size)
    raw = octets[16 : 16 + _FAMILIES[family][0]]
    return Introduction(IPv4Address(raw) if family == 0x11 else _plain(IPv6Address(raw)), size)


def _plain(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An IPv4 address that came through an IPv6 socket is IPv4 (RFC 4291 section 2.5.5.2)."""
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip
