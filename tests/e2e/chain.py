"""Forwarders in a row, each a process as an operator runs it, one DNS server, a sender in front and a destination behind.

    A  mx.sender.test   127.0.0.10   signs with a mailkey and DKIM
    1  mx.f1.test       127.0.0.31   hop1@f1.test leads to hop2@f2.test
    2  mx.f2.test       127.0.0.32   hop2@f2.test leads to hop3@f3.test
    3  mx.f3.test       127.0.0.33   hop3@f3.test leads to cellar@sink.test
    B  mx.sink.test     127.0.0.50   signs the reports that it writes

Every domain says o=all, for its host name too: what comes from the null sender is signed by the domain of its EHLO name.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from forwarder import keys
from forwarder.auth.verify import verify
from forwarder.cli.demo_lab import SENDER, SINK, Received, Receiver, free_port, send
from forwarder.keys import Key, KeyFile, dkim_record, load_key, mailkey_record
from forwarder.mail.address import parse_address, parse_from
from forwarder.mail.header import parse_message
from forwarder.model import Envelope, Peer, Recipient, Verdict
from tests.e2e.lab import bounce_of
from tests.e2e.signing import signed
from tests.fakes import FakeResolver
from tests.peers.dns_server import DnsServer, run_dns_server, zone_text
from tests.suites import ROOT

__all__ = ["Chain", "Hop", "chain", "message_of", "results_of"]

HOSTS = {1: "127.0.0.31", 2: "127.0.0.32", 3: "127.0.0.33"}
LAST = 3
_READY_WITHIN = 30

CONFIG = """\
hostname = "mx.f{n}.test"
listen = ["{host}:{port}"]
state_dir = "state"
store_timeout = 5

[srs]
domain = "f{n}.test"
secret_file = "srs.secret"

[dns]
nameservers = ["{dns}"]

[[keys.mailkey]]
domain = "f{n}.test"
key = "mailkey.pem"
[[keys.dkim]]
domain = "f{n}.test"
selector = "rsa"
key = "rsa.pem"
[[keys.dkim]]
domain = "f{n}.test"
selector = "ed"
key = "mailkey.pem"
[keys.arc]
domain = "f{n}.test"
selector = "rsa"
key = "rsa.pem"

[relay]
port = {port}
allow_private = true
source = ["{host}"]

[domains."f{n}.test".aliases]
hop{n} = ["{target}"]
other = ["{target}"]
{aliases}
"""


@dataclass
class Hop:
    """One running forwarder. ``events`` is what it has told so far."""

    number: int
    process: asyncio.subprocess.Process
    events: list[dict[str, Any]] = field(default_factory=list)
    reading: asyncio.Task[None] | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def named(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.events if one["event"] == event]

    async def read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == "service.ready":
                self.ready.set()


@dataclass
class Party:
    """A domain that signs."""

    domain: str
    mailkey: Key
    dkim: tuple[Key, ...]

    def sign(self, raw: bytes, sender: str, recipient: str, *, mailkey: bool = True) -> bytes:
        key = self.mailkey if mailkey else None
        return signed(
            raw, sender, (recipient,) if recipient else (), mailkey=key, dkim=self.dkim, now=datetime.now(UTC)
        )


@dataclass
class Chain:
    """What a test works with. ``parties`` by domain, those without a process as well."""

    port: int
    dns: DnsServer
    hops: dict[int, Hop]
    parties: dict[str, Party]
    sender: Receiver
    sink: Receiver
    zone: FakeResolver
    stack: AsyncExitStack

    async def stand_in(self, number: int) -> Receiver:
        """A mail server that takes everything, at the host of a hop that is not running."""
        receiver = Receiver(HOSTS[number], self.port, f"mx.f{number}.test")
        await receiver.start()
        self.stack.callback(receiver.stop)
        return receiver

    async def send(
        self,
        data: bytes,
        sender: str = "bob@sender.test",
        recipient: str = "hop1@f1.test",
        *,
        source: str = SENDER,
        helo: str = "mx.sender.test",
    ) -> str:
        """Into the chain, at the host of the recipient's domain; the last reply."""
        host = HOSTS[int(recipient[-6])]
        return await asyncio.to_thread(send, source, helo, (host, self.port), sender, recipient, data)

    def bounce_at_the_end(self, arrived: Received, message_id: str) -> bytes:
        """B's report of what arrived, signed."""
        return self.parties["sink.test"].sign(bounce_of(arrived, message_id=message_id), "", arrived.sender)

    async def verdict(self, arrived: Received) -> Verdict:
        """What a careful receiver finds."""
        message = parse_message(arrived.data)
        envelope = Envelope(
            "test",
            Peer(ip_address(arrived.ip), arrived.helo),
            parse_address(arrived.sender) if arrived.sender else None,
            tuple(Recipient(parse_address(one)) for one in arrived.recipients),
            datetime.now(UTC),
        )
        author = parse_from(message)
        return await verify(self.zone, envelope, message, author, receiver="mx.sink.test", now=datetime.now(UTC))

    def txt(self, name: bytes, timeout: int = 5) -> bytes:
        """What dkimpy asks."""
        return str(self.zone.zone.get(name.decode().rstrip("."), {}).get("TXT", [""])[0]).encode()


def message_of(number: int, sender: str = "bob@sender.test") -> bytes:
    return (
        f"From: Bob <{sender}>\r\nTo: hop1@f1.test\r\nSubject: number {number}\r\n"
        f"Date: Mon, 23 Nov 2026 12:30:00 +0000\r\nMessage-ID: <{number}@sender.test>\r\n\r\nHello {number}.\r\n"
    ).encode()


def results_of(arrived: Received) -> dict[str, str]:
    """Authentication-Results by who wrote it, unfolded."""
    found = re.findall(rb"^Authentication-Results:((?:[^\r]|\r\n[ \t])*)", arrived.data, re.MULTILINE)
    # Without the comments, which are for people.
    texts = [re.sub(r" \([^()]*\)", "", " ".join(one.decode().split())) for one in found]
    return {text.partition(";")[0]: text for text in texts}


@asynccontextmanager
async def chain(
    folder: Path, *, running: Sequence[int] = (1, 2, 3), aliases: Mapping[int, str] | None = None
) -> AsyncIterator[Chain]:
    """The row, started and stopped. ``running``: the hops that are; the names and keys of the others exist all the same.
    ``aliases``: more of them, by hop, as lines of its configuration."""
    hosts = {"sender.test": SENDER, "sink.test": SINK} | {f"f{n}.test": host for n, host in HOSTS.items()}
    parties = {domain: _party(folder / domain, domain) for domain in hosts}
    records = {name: types for one in parties.values() for name, types in _records(one, hosts[one.domain]).items()}
    port = free_port(*hosts.values())
    async with AsyncExitStack() as stack:
        dns = await stack.enter_async_context(run_dns_server(zone_text(records)))
        sender, sink = Receiver(SENDER, port, "mx.sender.test"), Receiver(SINK, port, "mx.sink.test")
        for receiver in (sender, sink):
            await receiver.start()
            stack.callback(receiver.stop)
        for n in running:
            target = "cellar@sink.test" if n == LAST else f"hop{n + 1}@f{n + 1}.test"
            more = (aliases or {}).get(n, "")
            text = CONFIG.format(n=n, host=HOSTS[n], port=port, dns=dns.address, target=target, aliases=more)
            (folder / f"f{n}.test" / "forwarder.toml").write_text(text)
        hops = {}
        for n in running:
            hops[n] = await stack.enter_async_context(_running(n, folder / f"f{n}.test" / "forwarder.toml"))
        async with asyncio.timeout(_READY_WITHIN):
            await asyncio.gather(*(one.ready.wait() for one in hops.values()))
        yield Chain(port, dns, hops, parties, sender, sink, FakeResolver(records), stack)


def _party(folder: Path, domain: str) -> Party:
    folder.mkdir()
    keys.generate_ed25519(folder / "mailkey.pem")
    keys.generate_rsa(folder / "rsa.pem")
    keys.generate_secret(folder / "srs.secret")
    dkim = (KeyFile(domain, "rsa", folder / "rsa.pem"), KeyFile(domain, "ed", folder / "mailkey.pem"))
    return Party(domain, load_key(KeyFile(domain, "", folder / "mailkey.pem")), tuple(map(load_key, dkim)))


def _records(party: Party, host: str) -> dict[str, dict[str, list[str]]]:
    domain, mailkey = party.domain, mailkey_record(party.mailkey)
    found: dict[str, dict[str, list[str]]] = {
        domain: {"MX": [f"10 mx.{domain}."], "TXT": [f"v=spf1 ip4:{host} -all"]},
        f"mx.{domain}": {"A": [host], "TXT": [f"v=spf1 ip4:{host} -all"]},
        f"_dmarc.{domain}": {"TXT": ["v=DMARC1; p=reject"]},
        f"mailkey.{domain}": {"TXT": [mailkey]},
        f"mailkey.mx.{domain}": {"TXT": [mailkey]},
    }
    return found | {f"{one.selector}._domainkey.{domain}": {"TXT": [dkim_record(one)]} for one in party.dkim}


@asynccontextmanager
async def _running(number: int, config: Path) -> AsyncIterator[Hop]:
    command = (sys.executable, "-P", "-m", "forwarder", "serve", "--config", str(config))
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=asyncio.subprocess.PIPE)
    hop = Hop(number, process)
    hop.reading = asyncio.create_task(hop.read())
    try:
        yield hop
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(15):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        await hop.reading
