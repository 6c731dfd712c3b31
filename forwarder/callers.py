"""What can be found out about a client? ``ports.Callers``: DNS lists, its reverse name, the name it gives."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeVar

from forwarder.dnslist import ALWAYS, DnsList, NotSound, look_up_list, query_name
from forwarder.helo import verify_helo
from forwarder.iprev import verify_iprev
from forwarder.model import Caller, HeloCheck, HeloFact, IprevCheck, Listed, Peer, Result
from forwarder.ports import DnsStatus, Journal, Resolver

__all__ = ["DnsCallers"]

#: Seconds between two events about one list.
QUIET = 3600.0
#: For whom nothing is asked.
_NOTHING = Caller()

_T = TypeVar("_T")


class DnsCallers:
    """``timeout``: seconds for all of it; what has not answered by then says nothing. ``skip``: networks, and what is not asked
    about them ("dnsbl", "iprev", "helo"). ``helo``: what each fact about a client's own name counts; ``None``: it is not asked.
    ``ours``: names of our own, lower case."""

    def __init__(
        self,
        resolver: Resolver,
        lists: Sequence[DnsList],
        journal: Journal,
        *,
        timeout: float,
        iprev: bool = False,
        helo: Mapping[HeloFact, float] | None = None,
        ours: Collection[str] = (),
        skip: Sequence[tuple[IPv4Network | IPv6Network, frozenset[str]]] = (),
    ) -> None:
        self._resolver = resolver
        self._lists = lists
        self._journal = journal
        self._timeout = timeout
        self._iprev = iprev
        self._helo = helo
        self._ours = ours
        self._skip = skip
        self._tasks: set[asyncio.Task[Any]] = set()
        #: By list: when it may be told, and tested, again.
        self._told: dict[str, float] = {}
        self._tested: dict[str, float] = {}

    def look_up(self, ip: IPv4Address | IPv6Address) -> asyncio.Future[Caller]:
        """See ``ports.Callers``."""
        skipped = self._skipped(ip)
        lists = () if "dnsbl" in skipped else self._lists
        iprev = self._iprev and "iprev" not in skipped
        return self._begin(self._gather(ip, lists, iprev=iprev), _NOTHING) if lists or iprev else _known(_NOTHING)

    def look_up_helo(self, peer: Peer) -> asyncio.Future[HeloCheck | None]:
        """See ``ports.Callers``."""
        if self._helo is None or "helo" in self._skipped(peer.ip):
            return _known(None)
        return self._begin(self._name(peer, self._helo), None)

    def _skipped(self, ip: IPv4Address | IPv6Address) -> frozenset[str]:
        return next((what for network, what in self._skip if ip in network), frozenset())

    def _begin(self, looking: Coroutine[Any, Any, _T], nothing: _T) -> asyncio.Task[_T]:
        task = asyncio.get_running_loop().create_task(self._until_closed(looking, nothing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """End what is under way."""
        tasks = list(self._tasks)
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_closed(self, looking: Coroutine[Any, Any, _T], nothing: _T) -> _T:
        try:
            return await looking
        except asyncio.CancelledError:
            # A session that waits for it goes on: it is not the session that was cancelled.
            return nothing

    async def _gather(self, ip: IPv4Address | IPv6Address, lists: Sequence[DnsList], *, iprev: bool) -> Caller:
        asked = asyncio.gather(*(self._one(which, ip) for which in lists))
        found, reverse = await asyncio.gather(asked, self._reverse(ip)) if iprev else (await asked, None)
        listed = tuple(one for one in found if one is not None)
        if listed:
            said = [f"{one.zone} {one.weight:g}" for one in listed]
            self._journal.event("caller.listed", ip=str(ip), lists=said, score=sum(one.weight for one in listed))
        return Caller(listed, reverse)

    async def _one(self, which: DnsList, ip: IPv4Address | IPv6Address) -> Listed | None:
        try:
            async with asyncio.timeout(self._timeout):
                found = await look_up_list(self._resolver, which, ip)
                if found is None:
                    await self._test(which, ip)
        except TimeoutError:
            return None
        if isinstance(found, NotSound):
            self._tell(which, found.reason)
            return None
        return found

    async def _test(self, which: DnsList, ip: IPv4Address | IPv6Address) -> None:
        """A list that has died says of everybody that it has nobody: now and then it is asked for what it must have."""
        now = asyncio.get_running_loop().time()
        if now < self._tested.get(which.zone, now):
            return
        self._tested[which.zone] = now + QUIET
        always = ALWAYS[ip.version]
        answer = await self._resolver.a(query_name(always, which.zone))
        if answer.status in (DnsStatus.NXDOMAIN, DnsStatus.NODATA):
            self._tell(which, f"it does not list {always}, so it may list nobody")

    def _tell(self, which: DnsList, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._told.get(which.zone, now):
            self._told[which.zone] = now + QUIET
            self._journal.event("dnsbl.not_sound", zone=which.zone, reason=reason)

    async def _reverse(self, ip: IPv4Address | IPv6Address) -> IprevCheck:
        try:
            async with asyncio.timeout(self._timeout):
                return await verify_iprev(self._resolver, ip)
        except TimeoutError:
            return IprevCheck(Result.TEMPERROR, reason="no answer in time")

    async def _name(self, peer: Peer, weights: Mapping[HeloFact, float]) -> HeloCheck:
        try:
            async with asyncio.timeout(self._timeout):
                check = await verify_helo(self._resolver, peer, self._ours)
        except TimeoutError:
            return HeloCheck(HeloFact.UNKNOWN, Result.TEMPERROR, "no answer in time")
        weight = weights.get(check.fact, 0.0)
        if weight:
            self._journal.event("caller.helo", ip=peer.ip_text, helo=peer.helo, fact=str(check.fact), score=weight)
        return replace(check, weight=weight)


def _known(found: _T) -> asyncio.Future[_T]:
    future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
    future.set_result(found)
    return future
