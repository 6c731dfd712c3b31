"""May we connect to this address because a stranger named it? Only if it is one of the public Internet."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

__all__ = ["is_public"]

# RFC 6052 section 2.1: an IPv4 address behind a translator.
_NAT64 = IPv6Network("64:ff9b::/96")
# What Python's tables, of some of its releases, do not have: RFC 6890 section 2.2.2 (IETF protocol assignments, DS-Lite among
# them, RFC 6333), RFC 7526 (the anycast address of 6to4), RFC 9637 (documentation).
_OTHERS = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"), IPv6Network("3fff::/20"))


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Is this a unicast address of the public Internet (IANA's special-purpose registries), in every notation of it?"""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    if any(address in one for one in _OTHERS):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved
