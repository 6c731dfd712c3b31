"""What do the name servers answer to one question? RFC 1035 on the wire, RFC 6891 for large answers, RFC 7766 for TCP.

Stub resolver: the servers are recursive and, where AD is believed, trusted. What is not an answer to the question
(another id, another name, no DNS at all) is not looked at, so that a blind forger has to hit port and id before the
real answer comes (RFC 5452). What is neither data nor the server's own word that there is none is a TEMPERROR.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from forwarder.ports import Answer, DnsStatus, Tlsa
from forwarder.resolver.servers import Server
from forwarder.resolver.stats import ResolverStats

__all__ = ["MAX_OPEN", "Exchange", "Fault", "Query", "parse_response", "read_response"]

#: RFC 9715 section 3 (fragmentation): what passes every path in one datagram.
_PAYLOAD = 1232
#: Questions in a row that a CNAME may lead to, where the server does not follow it itself.
_MAX_CNAMES = 8
#: Sockets open at a time; more look-ups than that wait within their own deadline.
MAX_OPEN = 256
#: A server that did not answer in time is asked once more: UDP loses packets. A server that refused is not.
_ROUNDS = 2

#: Octets in front of the question.
_HEADER = 12
#: RFC 2181 section 8.
_MAX_TTL = (1 << 31) - 1

#: What stands in for a TLSA record that cannot be read: no usage that anybody uses.
_MALFORMED_TLSA = Tlsa(255, 255, 255, b"")

_ROOT = dns.name.root
_WITHOUT_QUESTION = (dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED)
_TYPES = {one: dns.rdatatype.from_text(one) for one in ("A", "AAAA", "CNAME", "MX", "PTR", "TLSA", "TXT")}


class Fault(Exception):
    """This server gave no answer that can be used; the text says what it did."""


class Forever(Fault):
    """No other server will do better: the data themselves are at fault."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question, as it goes out: RFC 1035 section 4.1. ``id`` is what the answer must bear, and nobody can guess."""

    id: int
    name: dns.name.Name
    rdtype: dns.rdatatype.RdataType
    wire: bytes

    @classmethod
    def make(cls, name: dns.name.Name, rdtype: str, *, edns: bool, ad: bool) -> Query:
        """``edns``: larger answers than 512 octets may come in one datagram (RFC 6891). ``ad``: we want to know what the
        server has validated."""
        id_ = secrets.randbits(16)
        head, tail = _around_name(rdtype, edns, ad)
        return cls(id_, name, _TYPES[rdtype], id_.to_bytes(2, "big") + head + _octets(name) + tail)

    def is_answered_by(self, response: dns.message.Message) -> bool:
        """RFC 5452 section 9.1: the id, the question, and that it is an answer. A server that could not read the question may
        leave it out."""
        if response.id != self.id or not response.flags & dns.flags.QR or response.opcode() != dns.opcode.QUERY:
            return False
        if not response.question:
            return response.rcode() in _WITHOUT_QUESTION
        asked = response.question[0]
        return (
            len(response.question) == 1
            and asked.rdtype == self.rdtype
            and asked.rdclass == dns.rdataclass.IN
            and asked.name == self.name
        )


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
        """``name`` is legal and in A-labels. Never raises for what the network does."""
        try:
            async with asyncio.timeout(self.deadline), self.open:
                return await self._follow(_name(name), rdtype)
        except TimeoutError:
            return Answer(DnsStatus.TEMPERROR, detail=f"no answer within {self.deadline:g} s")
        except Fault as fault:
            return Answer(DnsStatus.TEMPERROR, detail=str(fault))

    async def _follow(self, name: dns.name.Name, rdtype: str) -> Answer[Any]:
        """Ask, and ask again for the target where the server left the end of a CNAME chain to us."""
        asked, seen = name, {name}
        ttl = _MAX_TTL
        authentic = self.trust_ad
        for _ in range(_MAX_CNAMES):
            response = await self._ask_servers(name, rdtype)
            reading = read_response(response, rdtype)
            ttl = min(ttl, reading.ttl)
            authentic = authentic and bool(response.flags & dns.flags.AD)
            if reading.status is not None:
                end = "" if reading.target == asked else _host(reading.target)
                return Answer(reading.status, reading.records, ttl, authentic, canonical=end)
            name = reading.target
            if name in seen:
                break
            seen.add(name)
        raise Forever("CNAME loop")

    async def _ask_servers(self, name: dns.name.Name, rdtype: str) -> dns.message.QueryMessage:
        servers = list(self.servers)
        faults: dict[Server, str] = {}
        for _ in range(_ROUNDS):
            for server in tuple(servers):
                try:
                    return await self._ask_server(server, name, rdtype)
                except TimeoutError:
                    faults[server] = f"no answer within {self.timeout:g} s"
                except Forever:
                    raise
                except (Fault, OSError) as fault:
                    servers.remove(server)
                    faults[server] = str(fault)
        raise Fault("; ".join(f"{server}: {fault}" for server, fault in faults.items()) or "no name server")

    async def _ask_server(self, server: Server, name: dns.name.Name, rdtype: str) -> dns.message.QueryMessage:
        response = await self._send(server, Query.make(name, rdtype, edns=True, ad=self.trust_ad))
        if response.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS):
            # RFC 6891 section 7: a server that knows no EDNS.
            response = await self._send(server, Query.make(name, rdtype, edns=False, ad=self.trust_ad))
        if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise Fault(dns.rcode.to_text(response.rcode()))
        if _is_referral(response):
            raise Fault("a referral: this is no recursive server")
        return response

    async def _send(self, server: Server, query: Query) -> dns.message.QueryMessage:
        self.stats.queries += 1
        async with asyncio.timeout(self.timeout):
            response = await _exchange_udp(server, query)
        if response.flags & dns.flags.TC:
            self.stats.queries += 1
            async with asyncio.timeout(self.timeout):
                response = await _exchange_tcp(server, query)
        if response.flags & dns.flags.TC:
            raise Fault("truncated over TCP")
        return response


def _name(text: str) -> dns.name.Name:
    # Label by label, as a backslash in a macro's text is no escape.
    return dns.name.Name([*(label.encode("ascii") for label in text.split(".")), b""])


@cache
def _around_name(rdtype: str, edns: bool, ad: bool) -> tuple[bytes, bytes]:
    """The octets of a query between its id and its name, and behind its name: the same in all of a kind."""
    # RFC 6840 section 5.7: AD in a query asks for AD in the answer.
    flags = dns.flags.RD | (dns.flags.AD if ad else 0)
    query = dns.message.make_query(
        _ROOT, _TYPES[rdtype], flags=flags, use_edns=0 if edns else False, payload=_PAYLOAD if edns else None
    )
    wire = query.to_wire()
    return wire[2:_HEADER], wire[_HEADER + len(_octets(_ROOT)) :]


def _octets(name: dns.name.Name) -> bytes:
    # None is for who has it written into a file.
    return name.to_wire() or b""


# --- one exchange -----------------------------------------------------------------------------------------------------


class _Datagrams(asyncio.DatagramProtocol):
    """A connected socket with its own port: the kernel drops what comes from elsewhere, and tells of a closed port."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self.response: asyncio.Future[dns.message.QueryMessage] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        response = parse_response(self._query, data)
        if response is not None and not self.response.done():
            self.response.set_result(response)

    def error_received(self, exc: Exception) -> None:
        if not self.response.done():
            self.response.set_exception(exc)


async def _exchange_udp(server: Server, query: Query) -> dns.message.QueryMessage:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: _Datagrams(query), remote_addr=server)
    try:
        transport.sendto(query.wire)
        return await protocol.response
    finally:
        transport.close()


async def _exchange_tcp(server: Server, query: Query) -> dns.message.QueryMessage:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(query.wire).to_bytes(2, "big") + query.wire)
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    except (EOFError, ConnectionError) as error:
        raise Fault("TCP connection closed") from error
    finally:
        writer.transport.abort()
    response = parse_response(query, data)
    if response is None:
        raise Fault("no DNS answer over TCP")
    return response


def parse_response(query: Query, data: bytes) -> dns.message.QueryMessage | None:
    """``None``: not the answer to this question."""
    if data[:2] != query.id.to_bytes(2, "big"):
        return None
    try:
        # One malformed TLSA record takes nothing from the others (RFC 7671 section 4.3), and there are some.
        lenient = query.rdtype == dns.rdatatype.TLSA
        response = dns.message.from_wire(data, continue_on_error=lenient)
    except Exception:  # noqa: BLE001 - hostile octets: whatever the parser raises, they are no answer
        return None
    if not isinstance(response, dns.message.QueryMessage):
        return None
    # Some servers cut down to the header. To believe that costs a TCP exchange, in which the question is compared.
    bare = response.flags & dns.flags.QR and response.flags & dns.flags.TC and not response.question
    return response if bare or query.is_answered_by(response) else None


# --- one response -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """What a response says. ``status`` is ``None`` where it only leads on to ``target``."""

    status: DnsStatus | None
    ttl: int
    target: dns.name.Name
    records: tuple[Any, ...] = ()


def read_response(response: dns.message.QueryMessage, rdtype: str) -> Reading:
    """Raises Fault for what contradicts itself."""
    try:
        chain = response.resolve_chaining()
    except dns.message.ChainTooLong as error:
        raise Forever("CNAME loop") from error
    except dns.exception.DNSException as error:
        raise Fault("a contradictory answer") from error
    ttl, target = chain.minimum_ttl, chain.canonical_name
    malformed = (_MALFORMED_TLSA,) * len(response.errors) if rdtype == "TLSA" else ()
    if chain.answer is not None or malformed:
        return Reading(DnsStatus.OK, ttl, target, tuple(map(_READERS[rdtype], chain.answer or ())) + malformed)
    if not _has(response, dns.rdatatype.SOA):
        if response.rcode() == dns.rcode.NOERROR and chain.cnames:
            return Reading(None, ttl, target)
        # RFC 2308 section 5: without the SOA nobody says how long this holds.
        ttl = 0
    status = DnsStatus.NXDOMAIN if response.rcode() == dns.rcode.NXDOMAIN else DnsStatus.NODATA
    return Reading(status, ttl, target)


def _has(response: dns.message.QueryMessage, rdtype: dns.rdatatype.RdataType) -> bool:
    return any(rrset.rdtype == rdtype for rrset in response.authority)


def _is_referral(response: dns.message.QueryMessage) -> bool:
    """NS records and nothing else from a server without recursion: it says who knows, not that there is nothing."""
    return (
        response.rcode() == dns.rcode.NOERROR
        and not response.answer
        and not response.flags & (dns.flags.RA | dns.flags.AA)
        and _has(response, dns.rdatatype.NS)
        and not _has(response, dns.rdatatype.SOA)
    )


def _host(name: dns.name.Name) -> str:
    return "" if name == _ROOT else name.to_text(omit_final_dot=True)


_READERS: dict[str, Callable[[Any], Any]] = {
    # RFC 7208 section 3.3, RFC 6376 section 3.6.2.2: the strings of a record are joined without anything between them.
    "TXT": lambda rdata: b"".join(rdata.strings),
    "A": lambda rdata: IPv4Address(rdata.address),
    "AAAA": lambda rdata: IPv6Address(rdata.address),
    "MX": lambda rdata: (int(rdata.preference), _host(rdata.exchange)),
    "PTR": lambda rdata: _host(rdata.target),
    "CNAME": lambda rdata: _host(rdata.target),
    "TLSA": lambda rdata: Tlsa(int(rdata.usage), int(rdata.selector), int(rdata.mtype), bytes(rdata.cert)),
}
