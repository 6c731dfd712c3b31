"""A name server on loopback, UDP and TCP on one port, that can misbehave in every way a resolver must survive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from dnslib import CNAME, EDNS0, QTYPE, RCODE, RR, SOA, DNSHeader, DNSQuestion, DNSRecord  # type: ignore[import-untyped]

from forwarder.cli.freeport import free_port

__all__ = ["DnsServer", "run_dns_server", "zone_text"]

_UDP_SIZE = 1232


def zone_text(records: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """Names with types with data, as the lab has them, in zone file text."""
    return "\n".join(
        f"{name}. 300 IN {rdtype} {_presented(one) if rdtype == 'TXT' else one}"
        for name, types in records.items()
        for rdtype, data in types.items()
        for one in data
    )


def _presented(text: str) -> str:
    """RFC 1035 section 3.3.14: character-strings of at most 255 octets."""
    return " ".join(f'"{text[at : at + 255]}"' for at in range(0, len(text), 255))


class DnsServer:
    """``zone`` is zone file text. ``faults`` maps a name to a word (see ``_misbehave``); ``queries`` is what was asked, as
    (name, type, transport). ``negative_ttl`` is the SOA's, ``None`` for none; ``gate`` holds all answers back."""

    def __init__(self, zone: str = "") -> None:
        self.records: list[Any] = list(RR.fromZone(zone))
        self.faults: dict[str, str] = {}
        self.queries: list[tuple[str, str, str]] = []
        self.negative_ttl: int | None = 300
        self.authentic = False
        self.recursive = True
        self.follows_cnames = True
        self.knows_edns = True
        self.truncates_to_header = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.address = ""

    def add(self, zone: str) -> None:
        """More records, in zone file text."""
        self.records += RR.fromZone(zone)

    async def answer(self, wire: bytes, transport: str) -> list[bytes]:
        """The octets that go back, packet by packet."""
        request = DNSRecord.parse(wire)
        name, rdtype = str(request.q.qname).rstrip("."), QTYPE[request.q.qtype]
        self.queries.append((name, rdtype, transport))
        await self.gate.wait()
        if not self.knows_edns and any(one.rtype == QTYPE.OPT for one in request.ar):
            return [_reply(request, rcode="FORMERR").pack()]
        fault = self.faults.get(name.lower())
        return self._misbehave(request, fault, transport) if fault else [self._look_up(request, transport)]

    def _look_up(self, request: Any, transport: str) -> bytes:
        reply = _reply(request)
        reply.header.ra = int(self.recursive)
        reply.header.ad = int(self.authentic and request.header.ad)
        if any(one.rtype == QTYPE.OPT for one in request.ar):
            reply.add_ar(EDNS0(udp_len=_UDP_SIZE))
        name = str(request.q.qname).lower()
        found = self._records_of(name, request.q.qtype)
        while not found and (aliases := self._records_of(name, QTYPE.CNAME)):
            reply.add_answer(*aliases)
            name = str(aliases[0].rdata).lower()
            if not self.follows_cnames:
                return bytes(reply.pack())
            found = self._records_of(name, request.q.qtype)
        reply.add_answer(*found)
        if not found:
            exists = any(
                str(one.rname).lower() == name or str(one.rname).lower().endswith("." + name) for one in self.records
            )
            reply.header.rcode = RCODE.NOERROR if exists else RCODE.NXDOMAIN
            if self.negative_ttl is not None:
                times = (1, 3600, 600, 86400, self.negative_ttl)
                reply.add_auth(RR("test.", QTYPE.SOA, ttl=86400, rdata=SOA("ns.test.", "hostmaster.test.", times)))
        octets = bytes(reply.pack())
        return octets if transport == "tcp" or len(octets) <= _UDP_SIZE else self._truncate(request)

    def _truncate(self, request: Any) -> bytes:
        reply = _reply(request)
        reply.header.tc = 1
        # dnslib's own truncate() leaves the header alone, as some servers do.
        return bytes(reply.truncate().pack() if self.truncates_to_header else reply.pack())

    def _records_of(self, name: str, rdtype: int) -> list[Any]:
        return [one for one in self.records if str(one.rname).lower() == name and one.rtype == rdtype]

    def _misbehave(self, request: Any, fault: str, transport: str) -> list[bytes]:
        name = request.q.qname
        match fault:
            case "TIMEOUT":
                return []
            case "SERVFAIL" | "REFUSED" | "NXDOMAIN" | "NOTIMP":
                return [_reply(request, rcode=fault).pack()]
            case "CNAMELOOP":
                reply = _reply(request)
                reply.add_answer(RR(name, QTYPE.CNAME, ttl=300, rdata=CNAME(name)))
                return [reply.pack()]
            case "TRUNCATED-NOTCP":
                return [self._truncate(request)] if transport == "udp" else []
            case "WRONG-QNAME":
                return [self._for_another_name(request)]
            case "WRONG-ID":
                return [_with_another_id(self._look_up(request, transport))]
            case "GARBAGE":
                return [b"", b"\0", request.pack()[:2] + b"\xff" * 40, request.pack()[:12], request.pack()]
            case "LIES-FIRST":
                honest = self._look_up(request, transport)
                return [_with_another_id(honest), self._for_another_name(request), b"\xff" * 20, honest]
            case "REFERRAL":
                reply = _reply(request)
                reply.header.ra = 0
                reply.add_auth(*RR.fromZone("test. 300 IN NS ns.other.test."))
                return [reply.pack()]
            case "ANSWER-FOR-NXDOMAIN":
                reply = DNSRecord.parse(self._look_up(request, transport))
                reply.header.rcode = RCODE.NXDOMAIN
                return [reply.pack()]
        raise AssertionError(fault)

    def _for_another_name(self, request: Any) -> bytes:
        reply = DNSRecord(DNSHeader(id=request.header.id, qr=1, ra=1), q=DNSQuestion("evil.test", request.q.qtype))
        reply.add_answer(*RR.fromZone('evil.test. 300 IN TXT "forged"'))
        return bytes(reply.pack())


def _reply(request: Any, rcode: str = "NOERROR") -> Any:
    reply = request.reply(ra=1, aa=0)
    reply.header.rcode = getattr(RCODE, rcode)
    return reply


def _with_another_id(octets: bytes) -> bytes:
    return bytes((octets[0] ^ 0xFF, octets[1])) + octets[2:]


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer, tasks: set[asyncio.Task[None]]) -> None:
        self.server = server
        self.tasks = tasks

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        task = asyncio.ensure_future(self.reply(data, addr))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def reply(self, data: bytes, addr: Any) -> None:
        for octets in await self.server.answer(data, "udp"):
            self.transport.sendto(octets, addr)


@asynccontextmanager
async def run_dns_server(zone: str = "") -> AsyncIterator[DnsServer]:
    """The server, listening at ``server.address`` while the context lasts."""
    server = DnsServer(zone)
    tasks: set[asyncio.Task[None]] = set()

    async def serve_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(2), "big")
            for octets in await server.answer(await reader.readexactly(size), "tcp"):
                writer.write(len(octets).to_bytes(2, "big") + octets)
            await writer.drain()
        except asyncio.IncompleteReadError:
            pass  # it asked nothing (more)
        finally:
            writer.close()

    # What the system would give out for TCP, somebody's question over UDP may have.
    port = free_port("127.0.0.1")
    tcp = await asyncio.start_server(serve_tcp, "127.0.0.1", port)
    loop = asyncio.get_running_loop()
    udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(server, tasks), local_addr=("127.0.0.1", port))
    server.address = f"127.0.0.1:{port}"
    try:
        yield server
    finally:
        udp.close()
        tcp.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
