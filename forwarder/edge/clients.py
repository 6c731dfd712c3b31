"""Who counts as one client? Limits go by address and by network; whoever has one IPv6 address has very many of them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

__all__ = ["address_key", "network_key"]

#: RFC 6177 section 2: what one customer has at least, so that a client cannot go on from its next address.
_IPV6_ADDRESS = 64
#: What one site usually has (RFC 6177 section 2), and a hoster gives to one machine at most.
_IPV6_NETWORK = 48
_IPV4_NETWORK = 24

# An IPv4 address is below 2**32, the upper 64 bits of an IPv6 address in use are above 2**60, the upper 48 above 2**44: an
# IPv4 and an IPv6 key never meet.


def address_key(ip: IPv4Address | IPv6Address) -> int:
    """One number for an IPv4 address or an IPv6 /64."""
    return int(ip) if isinstance(ip, IPv4Address) else int(ip) >> (128 - _IPV6_ADDRESS)


def network_key(ip: IPv4Address | IPv6Address) -> int:
    """One number for an IPv4 /24 or an IPv6 /48."""
    return int(ip) >> (32 - _IPV4_NETWORK) if isinstance(ip, IPv4Address) else int(ip) >> (128 - _IPV6_NETWORK)
