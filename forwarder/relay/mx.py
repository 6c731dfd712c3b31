"""Which hosts take mail for this domain, and at which addresses? RFC 5321 section 5, RFC 7505, RFC 3974.

``lookup_route`` asks the DNS and gives the hosts in their tiers, or says why there is no way: ``Failed`` where the domain's
own records rule mail out, ``Deferred`` where the DNS could not be asked. ``order_targets`` makes of a route the addresses in
the order to try them, anew for each delivery (equals are shuffled).

Two things are kept from happening here. Mail does not go round: the list is cut where it names us (section 5.1). And mail is
no way into the network behind us: whoever may choose a destination may publish ``MX 0 localhost`` too, so an address that is
not of the public Internet is not connected to, unless the operator allows it. A domain with no other address is ``Failed``:
its own records say so, another try next hour would ask the same records, and the sender should learn of it now.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain, zip_longest
from typing import Any

from forwarder.auth.dnsname import dns_name
from forwarder.model import Deferred, Failed, Reply, TlsWish
from forwarder.ports import Answer, DnsStatus, Resolver, StsPolicy
from forwarder.public import is_public
from forwarder.relay.dane import DaneAnswer, Place, lookup_dane
from forwarder.relay.settings import RelaySettings
from forwarder.relay.tls import Dane, Required, TlsPolicy

__all__ = ["LOOP", "Host", "Route", "Target", "lookup_route", "order_targets", "parse_smarthost"]

Ip = IPv4Address | IPv6Address

#: Addresses taken of one host. More do not make it more reachable, and one answer can hold hundreds.
_MAX_HOST_ADDRESSES = 8
#: Times that ``max_hosts`` more are looked up, while none had an address.
_MAX_ROUNDS = 4
# RFC 5321 section 2.3.5. Names with an underscore exist; anything else is no host, and would end up in logs and in SNI.
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\Z")

_NO_DOMAIN = Reply(550, "5.1.2", "the domain does not exist")
# RFC 7505 section 4.1, RFC 7504 section 4.
_NULL_MX = Reply(556, "5.1.10", "the domain accepts no mail (null MX)")
# RFC 3463 section 3.5: X.4.4 is for a domain without the records to route by.
_NO_HOST = Reply(550, "5.4.4", "no mail host of the domain has an address")
_NOT_PUBLIC = Reply(550, "5.4.4", "the mail hosts of the domain have no public address")
LOOP = Reply(554, "5.4.6", "the mail of the domain loops back to this host")
_BAD_DOMAIN = Reply(550, "5.1.2", "the domain is malformed")


@dataclass(frozen=True, slots=True)
class Target:
    """One address to try. ``host`` is its name, for SNI and logs; ``peer`` is how an Outcome names it. ``dane`` is what TLSA
    records ask for, ``None`` where there are none that the DNS vouches for."""

    host: str
    address: str
    port: int
    preference: int
    dane: Dane | Required | None = None
    peer: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "peer", f"{self.host}[{self.address}]:{self.port}")


@dataclass(frozen=True, slots=True)
class Host:
    """One mail host with its addresses in the order to try them."""

    preference: int
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """The hosts that may be asked, best preference first, and for how many seconds this holds. Never without a target.
    ``domain`` is whose hosts they are: the smarthost's name where everything goes there. ``authentic``: the DNS vouches for
    the MX records. ``trouble``: a look-up that failed, so that there may be more hosts than these. ``sts`` is what the
    domain promises; ``sts_missed``: it may promise something that could not be had. ``policies`` is for the relay: each of its
    targets with what TLS to it has to be, by what a sender wishes."""

    domain: str
    hosts: tuple[Host, ...]
    ttl: int = 0
    authentic: bool = False
    trouble: str | None = None
    sts: StsPolicy | None = None
    sts_missed: bool = False
    policies: dict[TlsWish, dict[Target, TlsPolicy]] = field(default_factory=dict, repr=False, compare=False)


async def lookup_route(
    resolver: Resolver, domain: str, settings: RelaySettings, rng: random.Random
) -> Route | Deferred | Failed:
    """The way to ``domain``: a name or an address literal with its brackets. Of hosts with one preference beyond
    ``settings.max_hosts``, ``rng`` draws the ones to look up."""
    if settings.smarthost:
        return await _lookup_smarthost(resolver, settings)
    if domain.startswith("["):
        return _route_literal(domain, settings)
    answer = await resolver.mx(domain)
    match answer.status:
        case DnsStatus.TEMPERROR:
            # RFC 5321 section 5.1: retried later, and never taken for "no MX".
            return _dns_trouble("MX", answer)
        case DnsStatus.NXDOMAIN:
            return Failed("no such domain", _NO_DOMAIN)
        case DnsStatus.NODATA:
            # RFC 5321 section 5.1: the implicit MX, only where there is none.
            exchanges = [(0, domain)]
        case DnsStatus.OK:
            exchanges = [(preference, name.rstrip(".")) for preference, name in answer.records]
            if not any(name for _, name in exchanges):
                # RFC 7505 section 3.
                return Failed("null MX", _NULL_MX)
    return await _lookup_hosts(resolver, domain, exchanges, answer, settings, rng)


def order_targets(route: Route, rng: random.Random) -> list[Target]:
    """RFC 5321 section 5.1: by preference, equals in random order, the addresses of a host as the DNS gave them."""
    hosts: Iterable[Host] = route.hosts
    if len(route.hosts) > 1:
        hosts = sorted(route.hosts, key=lambda host: (host.preference, rng.random()))
    return [target for host in hosts for target in host.targets]


def parse_smarthost(text: str) -> tuple[str, int]:
    """``host:port``, ``192.0.2.1:port`` or ``[2001:db8::1]:port``. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("a smarthost is host:port")
    if host.startswith("[") and host.endswith("]"):
        return str(IPv6Address(host[1:-1])), int(port)
    if not _HOST_NAME.match(host):
        raise ValueError("a smarthost is host:port")
    return host, int(port)


# --- the cases ---------------------------------------------------------------------------------------------------------


async def _lookup_smarthost(resolver: Resolver, settings: RelaySettings) -> Route | Deferred | Failed:
    """What the operator names is asked whatever its address, and no record of anybody's can say otherwise."""
    name, port = parse_smarthost(settings.smarthost)
    try:
        return Route(name, (_host(0, name, port, [ip_address(name)]),), ttl=86400)
    except ValueError:
        pass
    if name.lower() == "localhost":
        # RFC 6761 section 6.3: not a question for the DNS.
        return Route(name, (_host(0, name, port, [IPv4Address("127.0.0.1"), IPv6Address("::1")]),), ttl=86400)
    found = await _lookup_addresses(resolver, name, port, None if settings.tls.excepts(name) else ())
    if not found.addresses:
        # Whatever the DNS says of our own smarthost, it is not the sender's fault.
        return Deferred(f"the smarthost has no address: {found.trouble or 'no record'}")
    if found.dane.trouble:
        return Deferred(found.dane.trouble)
    return Route(name, (_host(0, name, port, found.addresses, found.dane.policy),), found.ttl)


def _route_literal(domain: str, settings: RelaySettings) -> Route | Failed:
    # RFC 5321 section 4.1.3: no look-up at all.
    text = domain[1:-1]
    try:
        address = IPv6Address(text[5:]) if text.lower().startswith("ipv6:") else ip_address(text)
    except ValueError:
        return Failed("malformed address literal", _BAD_DOMAIN)
    if address in settings.own_addresses:
        return Failed("mail loop", LOOP)
    if not settings.allow_private and not is_public(address):
        return Failed("not a public address", _NOT_PUBLIC)
    return Route(domain, (_host(0, domain, settings.port, [address]),), ttl=86400)


async def _lookup_hosts(
    resolver: Resolver,
    domain: str,
    exchanges: list[tuple[int, str]],
    answer: Answer[tuple[int, str]],
    settings: RelaySettings,
    rng: random.Random,
) -> Route | Deferred | Failed:
    own = {name.lower().rstrip(".") for name in (settings.hostname, *settings.own_hosts)}
    exchanges = sorted(exchanges, key=lambda one: (one[0], rng.random()))
    limit = min((preference for preference, name in exchanges if name.lower() in own), default=None)
    # RFC 5321 section 5.1: names first, over the whole list; then addresses, of those that will be asked.
    listed = [one for one in exchanges if _HOST_NAME.match(one[1])]
    # RFC 7672 section 2.2.1: TLSA records count where the DNS vouches for the MX records. Else nothing more is asked.
    domains = _names(domain, answer) if answer.authentic and not settings.tls.excepts(domain) else None
    hosts: list[Host] = []
    private = False
    trouble: str | None = None
    ttl = _remaining(answer)
    # The first few are enough, unless none of them can be used: then what follows them is asked before that is a verdict.
    for start in range(0, min(len(listed), settings.max_hosts * _MAX_ROUNDS), settings.max_hosts):
        chosen = [one for one in listed[start : start + settings.max_hosts] if limit is None or one[0] < limit]
        if hosts or trouble or not chosen:
            break
        found = await asyncio.gather(*(_lookup_addresses(resolver, name, settings.port, domains) for _, name in chosen))
        for (preference, _), host in zip(chosen, found, strict=True):
            if settings.own_addresses.intersection(host.addresses):
                limit = preference if limit is None else min(limit, preference)
        for (preference, name), host in zip(chosen, found, strict=True):
            if limit is not None and preference >= limit:
                continue
            allowed = [one for one in host.addresses if settings.allow_private or is_public(one)]
            private = private or len(allowed) < len(host.addresses)
            if allowed and not host.dane.trouble:
                hosts.append(_host(preference, name, settings.port, allowed, host.dane.policy))
                ttl = min(ttl, host.ttl)
        trouble = next((host.trouble or host.dane.trouble for host in found if host.trouble or host.dane.trouble), None)
    if hosts:
        return Route(domain, tuple(hosts), ttl, answer.authentic, trouble)
    if trouble:
        return Deferred(trouble)
    if limit is not None and all(preference >= limit for preference, _ in listed):
        return Failed("mail loop", LOOP)
    if limit is None and len(listed) > settings.max_hosts * _MAX_ROUNDS:
        return Deferred("of very many mail hosts, those that were looked up have no address")
    # RFC 5321 section 5.1: MX records none of which is usable are an error, not a reason to try the domain's own address.
    return Failed("no public address", _NOT_PUBLIC) if private else Failed("no host with an address", _NO_HOST)


@dataclass(frozen=True, slots=True)
class _Addresses:
    """``trouble``: a look-up that failed, so that ``addresses`` may not be all. ``dane`` is what TLSA records ask for."""

    addresses: list[Ip]
    ttl: int
    trouble: str | None
    dane: DaneAnswer


async def _lookup_addresses(resolver: Resolver, name: str, port: int, domains: tuple[str, ...] | None) -> _Addresses:
    """``domains``: a certificate may be for one of these too; ``None``: TLSA records do not count."""
    v4, v6 = await asyncio.gather(resolver.a(name), resolver.aaaa(name))
    trouble = next((_dns_trouble("address", one).reason for one in (v4, v6) if one.status is DnsStatus.TEMPERROR), None)
    # IPv4 first, then in turns: a receiver that refuses IPv6 clients without a PTR or SPF for it does so with 5xx, which
    # is final, and a host that forwards has these things in order for IPv4 if for anything.
    pairs = zip_longest(v4.records[:_MAX_HOST_ADDRESSES], v6.records[:_MAX_HOST_ADDRESSES])
    addresses: list[Ip] = [one for one in chain.from_iterable(pairs) if one is not None]
    answers = [one for one in (v4, v6) if one.records]
    dane = DaneAnswer(None)
    if domains is not None and answers:
        secure = all(one.authentic for one in answers)
        dane = await lookup_dane(resolver, Place(name, port, answers[0].canonical, secure, domains))
    ttl = min(dane.ttl, *map(_remaining, answers)) if answers else 0
    return _Addresses(addresses, ttl, trouble, dane)


def _names(domain: str, answer: Answer[tuple[int, str]]) -> tuple[str, ...]:
    """RFC 7672 section 3.2.2: the next-hop domain, and what it is an alias of."""
    name = dns_name(domain) or domain
    return (name, answer.canonical) if answer.canonical else (name,)


def _host(preference: int, name: str, port: int, addresses: list[Ip], dane: Dane | Required | None = None) -> Host:
    return Host(preference, tuple(Target(name, str(address), port, preference, dane) for address in addresses))


def _dns_trouble(what: str, answer: Answer[Any]) -> Deferred:
    detail = "".join(one if " " <= one <= "~" else "?" for one in answer.detail[:100])
    return Deferred(f"{what} look-up failed: {detail}" if detail else f"{what} look-up failed")


def _remaining(answer: Answer[Any]) -> int:
    return max(0, answer.ttl - answer.age)
