"""What do the name servers answer to one question? RFC 1035 over UDP, and over TCP (RFC 7766) where that is too small.

Stub resolver: the servers are recursive and, where AD is believed, trusted. What is not an answer to the question
(another id, another name, no DNS at all) is not looked at, so that a blind forger has to hit port and id before the
real answer comes (RFC 5452). What is neither data nor the server's own word that there is none is a TEMPERROR.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forwarder.ports import Answer, DnsStatus
from forwarder.resolver.packet import (
    BADVERS,
    FORMERR,
    NOERROR,
    NOTIMP,
    NXDOMAIN,
    REFUSED,
    SERVFAIL,
    TYPES,
    Contradiction,
    Loop,
    Response,
    build_query,
    encode_name,
    parse_response,
)
from forwarder.resolver.servers import Server
from forwarder.resolver.stats import ResolverStats

__all__ = ["MAX_OPEN", "Exchange"]

#: Questions in a row that a CNAME may lead to, where the server does not follow it itself.
_MAX_CNAMES = 8
#: Sockets open at a time; more look-ups than that wait within their own deadline.
MAX_OPEN = 256
#: A server that did not answer in time is asked once more: UDP loses packets. A server that refused is not.
_ROUNDS = 2

_RCODES = {FORMERR: "FORMERR", SERVFAIL: "SERVFAIL", NOTIMP: "NOTIMP", REFUSED: "REFUSED", BADVERS: "BADVERS"}


class _Fault(Exception):
    """This server gave no answer that can be used; the text says what it did."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Asks ``servers`` in their order. ``timeout`` seconds for one datagram or TCP exchange, ``deadline`` for all."""

    servers: Sequence[Server]
    timeout: float
    deadline: float
    trust_ad: bool
    stats: ResolverStats
    open: asyncio.Semaphore

    async def ask(self, name: str, rdtype: str) -> Answer[Any]:
        """``name`` is as ``dns_name`` makes it. Never raises for what the network does."""
        try:
            async with asyncio.timeout(self.deadline), self.open:
                return await self._follow(encode_name(name), rdtype)
        except TimeoutError:
            return Answer(DnsStatus.TEMPERROR, detail=f"no answer within {self.deadline:g} s")
        except (_Fault, Contradiction, Loop) as fault:
            return Answer(DnsStatus.TEMPERROR, detail=str(fault))

    async def _follow(self, name: bytes, rdtype: str) -> Answer[Any]:
        """Ask, and ask again for the target where the server left the end of a CNAME chain to us."""
        seen = {name}
        ttl = None
        authentic = self.trust_ad
        for _ in range(_MAX_CNAMES):
            response = await self._ask_servers(name, rdtype)
            reading = response.read(rdtype)
            ttl = reading.ttl if ttl is None else min(ttl, reading.ttl)
            authentic = authentic and response.authentic
            if reading.status is not None:
                return Answer(reading.status, reading.records, ttl, authentic)
            name = reading.target
            if name in seen:
                break
            seen.add(name)
        raise Loop("CNAME loop")

    async def _ask_servers(self, name: bytes, rdtype: str) -> Response:
        servers = list(self.servers)
        faults: dict[Server, str] = {}
        for _ in range(_ROUNDS):
            for server in tuple(servers):
                try:
                    return await self._ask_server(server, name, rdtype)
                except TimeoutError:
                    faults[server] = f"no answer within {self.timeout:g} s"
                except (_Fault, OSError) as fault:
                    servers.remove(server)
                    faults[server] = str(fault)
        raise _Fault("; ".join(f"{server}: {fault}" for server, fault in faults.items()))

    async def _ask_server(self, server: Server, name: bytes, rdtype: str) -> Response:
        response = await self._send(server, name, rdtype, edns=True)
        if response.rcode in (FORMERR, NOTIMP, BADVERS):
            # RFC 6891 section 7: a server that knows no EDNS.
            response = await self._send(server, name, rdtype, edns=False)
        if response.rcode not in (NOERROR, NXDOMAIN):
            raise _Fault(_RCODES.get(response.rcode, f"response code {response.rcode}"))
        if response.is_referral:
            raise _Fault("a referral: this is no recursive server")
        return response

    async def _send(self, server: Server, name: bytes, rdtype: str, *, edns: bool) -> Response:
        query = build_query(secrets.randbits(16), name, TYPES[rdtype], edns=edns, ad=self.trust_ad)
        self.stats.queries += 1
        async with asyncio.timeout(self.timeout):
            response = await _exchange_udp(server, query)
        if response.truncated:
            self.stats.queries += 1
            async with asyncio.timeout(self.timeout):
                response = await _exchange_tcp(server, query)
        if response.truncated:
            raise _Fault("truncated over TCP")
        return response


class _Datagrams(asyncio.DatagramProtocol):
    """A connected socket with its own port: the kernel drops what comes from elsewhere, and tells of a closed port."""

    def __init__(self, query: bytes) -> None:
        self._query = query
        self.response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        response = parse_response(self._query, data)
        if response is not None and not self.response.done():
            self.response.set_result(response)

    def error_received(self, exc: Exception) -> None:
        if not self.response.done():
            self.response.set_exception(exc)


async def _exchange_udp(server: Server, query: bytes) -> Response:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: _Datagrams(query), remote_addr=server)
    try:
        transport.sendto(query)
        return await protocol.response
    finally:
        transport.close()


async def _exchange_tcp(server: Server, query: bytes) -> Response:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    except (EOFError, ConnectionError) as error:
        raise _Fault("TCP connection closed") from error
    finally:
        writer.transport.abort()
    response = parse_response(query, data)
    if response is None:
        raise _Fault("no DNS answer over TCP")
    return response
