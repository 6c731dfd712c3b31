"""What does a DNS list say of an address? Block and allow lists, RFC 5782.

A list that does not answer says nothing. One that lists what no list may list is broken: its domain has expired, or its
resolver makes up answers, and it would list everybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

from forwarder.model import Listed
from forwarder.ports import DnsStatus, Resolver

__all__ = ["ALWAYS", "NEVER", "DnsList", "NotSound", "look_up_list", "query_name"]

#: RFC 5782 section 5: what a list of this family must have, and must not.
ALWAYS = {4: ip_address("127.0.0.2"), 6: ip_address("::ffff:7f00:2")}
NEVER = {4: ip_address("127.0.0.1"), 6: ip_address("::ffff:7f00:1")}
#: RFC 5782 section 2.1: an answer lies here. Whatever else comes is a parked domain.
_ANSWERS = IPv4Network("127.0.0.0/8")
#: No listing: "you ask too often", "not through this resolver". No RFC; large lists agree on it.
_COMPLAINTS = IPv4Network("127.255.255.0/24")


@dataclass(frozen=True, slots=True)
class DnsList:
    """``weight`` is what an answer counts; below 0: it is a list of the good. ``codes``: other weights of single answers, and
    nothing else counts then; ``None``: every answer counts alike."""

    zone: str
    weight: float = 1.0
    codes: Mapping[IPv4Address, float] | None = None


@dataclass(frozen=True, slots=True)
class NotSound:
    """What it says counts for nothing, and why. The text is ours."""

    reason: str


def query_name(ip: IPv4Address | IPv6Address, zone: str) -> str:
    """RFC 5782 section 2.1 and 2.4: octets or nibbles, the last first."""
    return f"{ip.reverse_pointer.removesuffix('.in-addr.arpa').removesuffix('.ip6.arpa')}.{zone}"


async def look_up_list(resolver: Resolver, which: DnsList, ip: IPv4Address | IPv6Address) -> Listed | NotSound | None:
    """``None``: it does not list the address, or nothing that counts, or it does not answer. Never raises."""
    answer = await resolver.a(query_name(ip, which.zone))
    if not answer.records:
        return None
    heeded = [one for one in answer.records if one in _ANSWERS and one not in _COMPLAINTS]
    if not heeded:
        return NotSound(
            "it answers with no return code" if answer.records[0] not in _ANSWERS else "it refuses to answer"
        )
    # Asked only where it has somebody, and in the cache from then on.
    test = await resolver.a(query_name(NEVER[ip.version], which.zone))
    if test.records:
        return NotSound(f"it lists {NEVER[ip.version]}, so it may list everybody")
    if test.status is DnsStatus.TEMPERROR:
        return None
    return _weigh(which, heeded)


def _weigh(which: DnsList, codes: Sequence[IPv4Address]) -> Listed | None:
    # One list is one opinion: of several answers the strongest counts.
    weight = which.weight
    if which.codes is not None:
        weight = max((which.codes.get(one, 0.0) for one in codes), key=abs)
    return Listed(which.zone, tuple(sorted(codes)), weight) if weight else None
