"""Does the client's name lead back to its address? RFC 8601 section 2.7.3: a fact, and no verdict."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from forwarder.model import IprevCheck, Result
from forwarder.ports import DnsStatus, Resolver

__all__ = ["verify_iprev"]

#: Names of one address that are looked up, as RFC 7208 section 4.6.4 has it for the same look-up.
MAX_NAMES = 10


async def verify_iprev(resolver: Resolver, ip: IPv4Address | IPv6Address) -> IprevCheck:
    """Never raises."""
    names = await resolver.ptr(ip)
    if names.status is DnsStatus.TEMPERROR:
        return IprevCheck(Result.TEMPERROR, reason="the reverse look-up failed")
    if not names.records:
        return IprevCheck(Result.PERMERROR, reason="the address has no name")
    unknown = False
    for name in names.records[:MAX_NAMES]:
        answer = await (resolver.a(name) if ip.version == 4 else resolver.aaaa(name))
        if ip in answer.records:
            return IprevCheck(Result.PASS, name)
        unknown = unknown or answer.status is DnsStatus.TEMPERROR
    if unknown:
        return IprevCheck(Result.TEMPERROR, reason="a forward look-up failed")
    return IprevCheck(Result.FAIL, reason="no name of the address leads back to it")
