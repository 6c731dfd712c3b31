"""What does the demo need around the service? A DNS server, a sender and a destination, all real, all on loopback.

    127.0.0.10   mx.sender.test   sends the message, takes the report
    127.0.0.25   mx.fwd.test      the service
    127.0.0.50   mx.sink.test     the hidden destination: takes the message, bounces it later

They share one high port, since an MX record names no port.
"""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
from aiosmtpd.smtp import SMTP, Envelope, Session

from forwarder import keys
from forwarder.cli.freeport import free_port

__all__ = ["FORWARDER", "SENDER", "SINK", "DnsServer", "Received", "Receiver", "free_port", "make_keys", "send", "zone"]

SENDER, FORWARDER, SINK = "127.0.0.10", "127.0.0.25", "127.0.0.50"

Zone = Mapping[str, Mapping[str, Sequence[str]]]


def make_keys(folder: Path) -> None:
    """Keys of the sender and of the service, as ``forwarder init`` would make them."""
    folder.mkdir(parents=True, exist_ok=True)
    for who in ("sender", "fwd"):
        keys.generate_rsa(folder / f"{who}.rsa.pem")
        keys.generate_ed25519(folder / f"{who}.mailkey.pem")
    keys.generate_ed25519(folder / "fwd.ed25519.pem")
    keys.generate_secret(folder / "srs.secret")


def zone(records: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """The zone of the story; ``records`` are the TXT records that hold keys, by name."""
    found: dict[str, dict[str, list[str]]] = {
        "sink.test": {"MX": ["10 mx.sink.test."]},
        "mx.sink.test": {"A": [SINK]},
    }
    for who, address in (("sender", SENDER), ("fwd", FORWARDER)):
        found[f"{who}.test"] = {"MX": [f"10 mx.{who}.test."], "TXT": [f"v=spf1 ip4:{address} -all"]}
        found[f"mx.{who}.test"] = {"A": [address], "TXT": [f"v=spf1 ip4:{address} -all"]}
        found[f"_dmarc.{who}.test"] = {"TXT": ["v=DMARC1; p=reject"]}
    for name, text in records.items():
        found.setdefault(name, {})["TXT"] = [text]
    return found


class DnsServer(asyncio.DatagramProtocol):
    """An authoritative DNS server for one zone, over UDP."""

    def __init__(self, records: Zone) -> None:
        self._records = {dns.name.from_text(name): types for name, types in records.items()}
        self._transport: asyncio.DatagramTransport | None = None
        self.address = ""

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        host, port = self._transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"

    def stop(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        try:
            query = dns.message.from_wire(data)
            question = query.question[0]
        except (dns.exception.DNSException, IndexError):
            return
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        types = self._records.get(question.name)
        if types is None:
            below = any(name.is_subdomain(question.name) for name in self._records)
            response.set_rcode(dns.rcode.NOERROR if below else dns.rcode.NXDOMAIN)
        elif data_of_type := types.get(dns.rdatatype.to_text(question.rdtype)):
            texts = [_presented(one) if question.rdtype == dns.rdatatype.TXT else one for one in data_of_type]
            response.answer.append(dns.rrset.from_text_list(question.name, 300, "IN", question.rdtype, texts))
        if self._transport is not None:
            self._transport.sendto(response.to_wire(), addr)


def _presented(text: str) -> str:
    """RFC 1035 section 3.3.14: character-strings of at most 255 octets."""
    return " ".join(f'"{text[at : at + 255]}"' for at in range(0, len(text), 255))


@dataclass(frozen=True, slots=True)
class Received:
    """A message that a Receiver took, with the envelope it came in."""

    ip: str
    helo: str
    sender: str
    recipients: tuple[str, ...]
    data: bytes


@dataclass
class Receiver:
    """A mail server (aiosmtpd as it comes) that takes everything for its domain."""

    host: str
    port: int
    hostname: str
    waiting: asyncio.Queue[Received] = field(default_factory=asyncio.Queue)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: SMTP(self, hostname=self.hostname, ident="ESMTP", enable_SMTPUTF8=True, loop=loop),
            self.host,
            self.port,
        )

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's hook
        sender, content = envelope.mail_from or "", envelope.content or b""
        self.waiting.put_nowait(
            Received(
                ip=str(session.peer[0]) if session.peer else "",
                helo=session.host_name or "",
                sender="" if sender == "<>" else sender,
                recipients=tuple(envelope.rcpt_tos),
                data=content if isinstance(content, bytes) else content.encode(),
            )
        )
        return "250 2.0.0 taken"


def send(source: str, helo: str, target: tuple[str, int], sender: str, recipient: str, data: bytes) -> str:
    """Send ``data`` as it is, the way a mail server does; the last reply. Blocks: call it in a thread."""
    with smtplib.SMTP(*target, local_hostname=helo, timeout=20, source_address=(source, 0)) as client:
        client.ehlo()
        for code, text in (client.mail(sender), client.rcpt(recipient)):
            if code >= 400:
                return f"{code} {text.decode()}"
        code, text = client.data(data)
        return f"{code} {text.decode()}"
