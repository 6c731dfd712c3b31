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
from forwarder.ports import Answer, DnsStatus, Tlsa
from forwarder.resolver.servers import parse_server
from forwarder.resolver.stats import ResolverStats

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
#: Answers kept, and octets of them, roughly; the least recently used go first.
MAX_ENTRIES = 50_000
MAX_OCTETS = 64 * 1024 * 1024
#: RFC 8767 section 5: seconds after which somebody who could be given a stale answer waits no longer for a new one.
STALE_AFTER = 1.8
#: Look-ups under way. More than this many messages waiting for the DNS means that it is down.
MAX_FLIGHTS = 2048

_NOT_A_NAME: Answer[Any] = Answer(DnsStatus.NXDOMAIN, detail="no legal DNS name")
#: Name (``None``: it was no name) and type.
_Key = tuple[str | None, str]
#: Memory of an entry without its records, and of a record that is no text.
_ENTRY_OCTETS = 600
_VALUE_OCTETS = 120


class _Entry:
    """An answer since ``stored``, to be given until ``until``; a last resort until ``stale_until``."""

    __slots__ = ("answer", "octets", "stale_until", "stored", "until")

    def __init__(self, answer: Answer[Any], stored: float, until: float, stale_until: float) -> None:
        self.answer = answer
        self.octets = _ENTRY_OCTETS + sum(
            len(one) if isinstance(one, bytes) else _VALUE_OCTETS for one in answer.records
        )
        self.stored = stored
        self.until = until
        self.stale_until = stale_until

    def at(self, now: float) -> Answer[Any]:
        """The answer with its age; made anew once a second, not once a hit."""
        age = int(now - self.stored)
        if age != self.answer.age:
            self.answer = replace(self.answer, age=age)
        return self.answer

    def hold(self, now: float) -> Answer[Any]:
        """The answer once more, and for a while without asking: the server is left alone (RFC 8767 section 5)."""
        self.until = max(self.until, min(now + FAILURE_TTL, self.stale_until))
        return self.at(now)


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
        stale_after: float = STALE_AFTER,
    ) -> None:
        # dnspython takes a third of a second to import: `forwarder authenticate` with its own zone does without.
        from forwarder.resolver.wire import MAX_OPEN, Exchange  # noqa: PLC0415

        if not nameservers:
            raise ValueError("no name server")
        self.stats = ResolverStats()
        servers = tuple(map(parse_server, nameservers))
        self._exchange = Exchange(servers, timeout, deadline, trust_ad, self.stats, asyncio.Semaphore(MAX_OPEN))
        self._monotonic = monotonic
        self._max_entries = max_entries
        self._stale_after = stale_after
        self._octets = 0
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

    async def tlsa(self, name: str) -> Answer[Tlsa]:
        key = (dns_name(name), "TLSA")
        return self._cached(key) or await self._look_up(key)

    async def cname(self, name: str) -> Answer[str]:
        key = (dns_name(name), "CNAME")
        return self._cached(key) or await self._look_up(key)

    def prefetch_txt(self, names: Iterable[str]) -> None:
        now = self._monotonic()
        for text in names:
            name = dns_name(text)
            key = (name, "TXT")
            entry = self._entries.get(key)
            if entry is not None and now < entry.until:
                self.stats.hits += 1
            elif name is not None and key not in self._flights:
                self._take_off(key, name, "TXT")

    async def ptr(self, ip: IPv4Address | IPv6Address) -> Answer[str]:
        key = (dns_name(ip.reverse_pointer), "PTR")
        return self._cached(key) or await self._look_up(key)

    def __len__(self) -> int:
        """How many answers are kept."""
        return len(self._entries)

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
        self.stats.hits += 1
        answer = entry.answer
        if int(now - entry.stored) == answer.age:
            return answer
        # Which was used last matters by the second, too.
        self._entries.move_to_end(key)
        return entry.at(now)

    async def _look_up(self, key: _Key, *, fresh: bool = False) -> Answer[Any]:
        name, rdtype = key
        if name is None:
            return _NOT_A_NAME
        self.stats.misses += 1
        flight = self._flights.get(key) or self._take_off(key, name, rdtype)
        if flight is None:
            return Answer(DnsStatus.TEMPERROR, detail="too many DNS look-ups under way")
        stale = None if fresh else self._stale(key)
        # Whoever gives up leaves the flight to those who wait with it.
        await asyncio.wait({flight}, timeout=None if stale is None else self._stale_after)
        if stale is not None and (not flight.done() or flight.result().status is DnsStatus.TEMPERROR):
            self.stats.stale += 1
            return stale.hold(self._monotonic())
        return flight.result()

    def _take_off(self, key: _Key, name: str, rdtype: str) -> asyncio.Task[Answer[Any]] | None:
        if len(self._flights) >= MAX_FLIGHTS:
            return None
        flight = self._flights[key] = asyncio.create_task(self._fetch(key, name, rdtype))
        flight.add_done_callback(lambda _: self._flights.pop(key))
        return flight

    async def _fetch(self, key: _Key, name: str, rdtype: str) -> Answer[Any]:
        answer = await self._exchange.ask(name, rdtype)
        now = self._monotonic()
        if answer.status is DnsStatus.TEMPERROR:
            self.stats.failures += 1
            if self._stale(key) is None:
                self._store(key, _Entry(answer, now, now + FAILURE_TTL, stale_until=now))
            return answer
        found = answer.status is DnsStatus.OK
        answer = replace(answer, ttl=min(max(answer.ttl, MIN_TTL), MAX_TTL if found else MAX_NEGATIVE_TTL))
        until = now + answer.ttl
        # Only what exists is worth serving stale: an old "there is no such key" would turn an outage into a fail.
        self._store(
            key, _Entry(answer, now, until, stale_until=until + MAX_STALE if found and rdtype == "TXT" else until)
        )
        return answer

    def _stale(self, key: _Key) -> _Entry | None:
        """RFC 8767: what may be given out again while the server fails."""
        entry = self._entries.get(key)
        return entry if entry is not None and self._monotonic() < entry.stale_until else None

    def _store(self, key: _Key, entry: _Entry) -> None:
        old = self._entries.pop(key, None)
        self._octets += entry.octets - (old.octets if old is not None else 0)
        self._entries[key] = entry
        while len(self._entries) > self._max_entries or self._octets > MAX_OCTETS:
            _, gone = self._entries.popitem(last=False)
            self._octets -= gone.octets
