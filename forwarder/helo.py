"""Does what a client calls itself lead to its address? RFC 5321 section 4.1.1.1, 4.1.4: a fact, and no verdict.

RFC 5321 section 4.1.4 forbids to refuse a message because of it, and large senders of honest mail fail it; what follows is the
operator's to say (``callers.helo_weights``).
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address

from forwarder.model import HeloCheck, HeloFact, Peer, Result
from forwarder.ports import DnsStatus, Resolver

__all__ = ["verify_helo"]


async def verify_helo(resolver: Resolver, peer: Peer, ours: Collection[str]) -> HeloCheck:
    """``ours``: names of our own, lower case. One look-up at the most. Never raises."""
    name = peer.helo.removesuffix(".").lower()
    if not peer.named or name.rpartition(".")[2].isdigit():
        return HeloCheck(HeloFact.NAMELESS, Result.FAIL, "no host name and no address literal")
    if name.startswith("["):
        its_own = _address(name) == peer.ip
        return HeloCheck(HeloFact.LITERAL, *(_PASS if its_own else (Result.FAIL, "the literal of another address")))
    if "." not in name:
        return HeloCheck(HeloFact.SHORT, Result.FAIL, "not a fully qualified name")
    answer = await (resolver.a(name) if peer.ip.version == 4 else resolver.aaaa(name))
    if peer.ip in answer.records:
        return HeloCheck(HeloFact.RESOLVES, *_PASS)
    if name in ours:
        # Whatever the DNS says: whoever has our address would have been found above.
        return HeloCheck(HeloFact.OURS, Result.FAIL, "our own name, from elsewhere")
    if answer.status is DnsStatus.TEMPERROR:
        return HeloCheck(HeloFact.UNKNOWN, Result.TEMPERROR, "the look-up failed")
    reason = "the name leads elsewhere" if answer.records else "the name has no address of this kind"
    return HeloCheck(HeloFact.ELSEWHERE, Result.FAIL, reason)


_PASS = (Result.PASS, None)


def _address(literal: str) -> IPv4Address | IPv6Address:
    # It was read as a literal already: smtp.commands.parse_helo.
    ip = ip_address(literal[1:-1].removeprefix("ipv6:"))
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip
