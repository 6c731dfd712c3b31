"""What did the DNS say lately? The cache in front of the name servers: RFC 1035 section 7.4, RFC 2308, 8767 and 9520.

A forwarder asks the same names all day: the key, the policy and the MX of a few large senders. A hit costs a dictionary
look-up. A miss is asked once however many messages wait for it, in a task of its own, so that a message which gives up
does not take the answer away from the others, and the answer is there for its retry.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from forwarder.auth.dnsname import dns_name
from forwarder.ports import Answer, DnsStatus
from forwarder.resolver.servers import parse_server
from forwarder.resolver.stats import ResolverStats
from forwarder.resolver.wire import MAX_OPEN, Exchange

__all__ = ["DnsResolver"]

#: Seconds. Below the floor a stranger with TTL 0 has us ask for every message of a burst; above the cap the owner of a
#: name waits too long for a change (a failing signature asks past the cache anyway).
MIN_TTL = 10
MAX_TTL = 3600
#: RFC 2308 section 5 allows hours. Who has just published a key or a policy wants it seen soon.
MAX_NEGATIVE_TTL = 900
#: RFC 9520 section 3.2: a failure is remembered for at least a second and at most five minutes.
FAILURE_TTL = 5
#: RFC 8767 allows days. A TXT record also revokes: an hour bridges an outage and bounds what a blocked server hides.
MAX_STALE = 3600
#: Answers kept, least recently used first to go. At 1 KB each this is 50 MB in the worst case.
MAX_ENTRIES = 50_000
#: Look-ups under way. More than this many messages waiting for the DNS means that it is down.
MAX_FLIGHTS = 2048

_NOT_A_NAME: Answer[Any] = Answer(DnsStatus.NXDOMAIN, detail="no legal DNS name")
#: Name (``None``: it was no name) and type.
_Key = tuple[str | None, str]


class _Entry:
    """An answer since ``stored``, to be given until ``until``; a last resort until ``stale_until``."""

    __slots__ = ("answer", "stale_until", "stored", "until")

    def __init__(self, answer: Answer[Any], stored: float, until: float, stale_until: float) -> None:
        self.answer = answer
        self.stored = stored
        self.until = until
        self.stale_until = stale_until

    def at(self, now: float) -> Answer[Any]:
        """The answer with its age; made anew once a second, not once a hit."""
        age = int(now - self.stored)
        if age != self.answer.age:
            self.answer = replace(self.answer, age=age)
        return self.answer


class DnsResolver:
    """``ports.Resolver`` over recursive name servers (``"ip"`` or ``"ip:port"``). Raises ValueError for a bad server.

    ``timeout`` is for one datagram or TCP exchange, ``deadline`` for all that one look-up does, both in seconds.
    ``trust_ad`` believes the AD bit: only for a validating resolver over a path that nobody else can write to.
    """

    def __init__(
        self,
        nameservers: Sequence[str],
        *,
        monotonic: Callable[[], float],
        timeout: float = 2.5,
        deadline: float = 8.0,
        trust_ad: bool = False,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        if not nameservers:
            raise ValueError("no name server")
        self.stats = ResolverStats()
        servers = tuple(map(parse_server, nameservers))
        self._exchange = Exchange(servers, timeout, deadline, trust_ad, self.stats, asyncio.Semaphore(MAX_OPEN))
        self._monotonic = monotonic
        self._max_entries = max_entries
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._flights: dict[_Key, asyncio.Task[Answer[Any]]] = {}

    async def txt(self, name: str, *, fresh: bool = False) -> Answer[bytes]:
        """A ``fresh`` look-up that fails is a TEMPERROR; what is cached stays there for others."""
        key = (dns_name(name), "TXT")
        if fresh:
            return await self._look_up(key, fresh=True)
        return self._cached(key) or await self._look_up(key)

    async def a(self, name: str) -> Answer[IPv4Address]:
        key = (dns_name(name), "A")
        return self._cached(key) or await self._look_up(key)

    async def aaaa(self, name: str) -> Answer[IPv6Address]:
        key = (dns_name(name), "AAAA")
        return self._cached(key) or await self._look_up(key)

    async def mx(self, name: str) -> Answer[tuple[int, str]]:
        key = (dns_name(name), "MX")
        return self._cached(key) or await self._look_up(key)

    def prefetch_txt(self, names: Iterable[str]) -> None:
        for text in names:
            name = dns_name(text)
            key = (name, "TXT")
            if name is not None and key not in self._flights and self._cached(key) is None:
                self._take_off(key, name, "TXT")

    async def ptr(self, ip: IPv4Address | IPv6Address) -> Answer[str]:
        key = (dns_name(ip.reverse_pointer), "PTR")
        return self._cached(key) or await self._look_up(key)

    async def aclose(self) -> None:
        """End what is under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _cached(self, key: _Key) -> Answer[Any] | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self._monotonic()
        if now >= entry.until:
            return None
        self._entries.move_to_end(key)
        self.stats.hits += 1
        return entry.at(now)

    async def _look_up(self, key: _Key, *, fresh: bool = False) -> Answer[Any]:
        name, rdtype = key
        if name is None:
            return _NOT_A_NAME
        self.stats.misses += 1
        flight = self._flights.get(key) or self._take_off(key, name, rdtype)
        if flight is None:
            return Answer(DnsStatus.TEMPERROR, detail="too many DNS look-ups under way")
        # Shielded: a message that gives up leaves the look-up to those who wait with it.
        answer = await asyncio.shield(flight)
        if answer.status is DnsStatus.TEMPERROR and not fresh:
            return self._stale(key) or answer
        return answer

    def _take_off(self, key: _Key, name: str, rdtype: str) -> asyncio.Task[Answer[Any]] | None:
        if len(self._flights) >= MAX_FLIGHTS:
            return None
        flight = self._flights[key] = asyncio.create_task(self._fetch(key, name, rdtype))
        return flight

    async def _fetch(self, key: _Key, name: str, rdtype: str) -> Answer[Any]:
        try:
            answer = await self._exchange.ask(name, rdtype)
            return self._remember(key, answer)
        finally:
            del self._flights[key]

    def _remember(self, key: _Key, answer: Answer[Any]) -> Answer[Any]:
        now = self._monotonic()
        if answer.status is DnsStatus.TEMPERROR:
            self.stats.failures += 1
            self._remember_failure(key, answer, now)
            return answer
        found = answer.status is DnsStatus.OK
        answer = replace(answer, ttl=min(max(answer.ttl, MIN_TTL), MAX_TTL if found else MAX_NEGATIVE_TTL))
        until = now + answer.ttl
        # Only what exists is worth serving stale: an old "there is no such key" would turn an outage into a fail.
        self._store(key, _Entry(answer, now, until, until + MAX_STALE if found and key[1] == "TXT" else until))
        return answer

    def _remember_failure(self, key: _Key, answer: Answer[Any], now: float) -> None:
        old = self._entries.get(key)
        if old is not None and now < old.stale_until:
            # RFC 8767 section 5: while the server fails, the old answer stands, and the server is left alone meanwhile.
            old.until = max(old.until, min(now + FAILURE_TTL, old.stale_until))
        else:
            self._store(key, _Entry(answer, now, now + FAILURE_TTL, now))

    def _stale(self, key: _Key) -> Answer[Any] | None:
        """What ``_remember_failure`` left to be served; a failure that was stored counts as none."""
        entry = self._entries.get(key)
        if entry is None or entry.answer.status is DnsStatus.TEMPERROR:
            return None
        self.stats.stale += 1
        return entry.at(self._monotonic())

    def _store(self, key: _Key, entry: _Entry) -> None:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
