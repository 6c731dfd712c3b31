"""The service between a sender and a destination, on loopback: a real store, a real DNS server, real SMTP on both sides."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from forwarder.app import App
from forwarder.cli import demo_lab
from forwarder.cli.demo_lab import FORWARDER, SENDER, SINK, Received, Receiver, free_port
from forwarder.config import load
from forwarder.keys import KeyFile, Keys, dkim_record, mailkey_record
from forwarder.ports import StoreAway
from forwarder.store.client import StoreClient
from forwarder.store.server import EmbeddedStore
from tests.e2e.signing import signed
from tests.fakes import MemoryJournal
from tests.peers.dns_server import DnsServer, run_dns_server, zone_text
from tests.waiting import PATIENT

CONFIG = """\
hostname = "mx.fwd.test"
listen = ["127.0.0.25:{port}"{listeners}]
state_dir = "state"
store = "{store}"
store_timeout = {store_timeout}
{top}

[srs]
domain = "fwd.test"
secret_file = "keys/srs.secret"

[dns]
nameservers = ["{dns}"]
timeout = {dns_timeout}
{dns_more}

[[keys.mailkey]]
domain = "fwd.test"
key = "keys/fwd.mailkey.pem"
[[keys.dkim]]
domain = "fwd.test"
selector = "rsa"
key = "keys/fwd.rsa.pem"
[[keys.dkim]]
domain = "fwd.test"
selector = "ed"
key = "keys/fwd.ed25519.pem"
[keys.arc]
domain = "fwd.test"
selector = "rsa"
key = "keys/fwd.rsa.pem"

[relay]
port = {port}
allow_private = true
source = ["127.0.0.25"]
{relay}

[domains."fwd.test".aliases]
alias = ["hidden.destination@sink.test"]
team = ["one@sink.test", "two@other.test"]
both = ["one@sink.test", "two@sink.test"]
{aliases}
{extra}
"""

MESSAGE = (
    b"From: Bob <bob@sender.test>\r\nTo: alias@fwd.test\r\nSubject: hello\r\n"
    b"Date: Mon, 23 Nov 2026 12:30:00 +0000\r\nMessage-ID: <one@sender.test>\r\n\r\nHello.\r\n.dot\r\n"
)


@dataclass
class Lab:
    """What a test works with. ``app`` is running; ``sink`` and ``sender`` take what comes to sink.test and sender.test."""

    folder: Path
    port: int
    dns: DnsServer
    sink: Receiver
    sender: Receiver
    journal: MemoryJournal
    app: App
    records: dict[str, dict[str, list[str]]]
    received: list[Received] = field(default_factory=list)

    def events(self, name: str) -> list[dict[str, Any]]:
        """What the log has told of this kind."""
        return self.journal.named(name)

    @cached_property
    def keys(self) -> Keys:
        """The sender's."""
        at = self.folder / "keys"
        return Keys.load(
            mailkey=[KeyFile("sender.test", "", at / "sender.mailkey.pem")],
            dkim=[KeyFile("sender.test", "s1", at / "sender.rsa.pem")],
            srs_secret_file=at / "srs.secret",
        )

    def signed(
        self,
        raw: bytes = MESSAGE,
        sender: str = "bob@sender.test",
        recipients: tuple[str, ...] = ("alias@fwd.test",),
        *,
        mailkey: bool = True,
    ) -> bytes:
        """``raw`` with the sender's signatures on it."""
        return signed(
            raw,
            sender,
            recipients,
            mailkey=self.keys.mailkey("sender.test") if mailkey else None,
            dkim=self.keys.dkim("sender.test"),
            now=self.app.clock.now(),
        )

    async def send(
        self,
        data: bytes,
        sender: str = "bob@sender.test",
        recipient: str = "alias@fwd.test",
        source: str = SENDER,
        helo: str = "mx.sender.test",
    ) -> str:
        """The last reply. The connection is reset behind it: nothing shows the service that anybody has read it, so that the
        same octets once more are a retry (docs/decisions/0036-heard-is-another-message.md)."""
        return await asyncio.to_thread(_send_and_vanish, source, helo, (FORWARDER, self.port), sender, recipient, data)

    async def bounce(self, arrived: Received, text: str = "user unknown", data: bytes | None = None) -> str:
        """Let the destination bounce what arrived."""
        report = data if data is not None else bounce_of(arrived, text)
        return await self.send(report, "", arrived.sender, SINK, "mx.sink.test")

    @staticmethod
    async def next(receiver: Receiver) -> Received:
        async with asyncio.timeout(30):
            return await receiver.waiting.get()


def _send_and_vanish(source: str, helo: str, target: tuple[str, int], sender: str, recipient: str, data: bytes) -> str:
    client = smtplib.SMTP(*target, local_hostname=helo, timeout=20, source_address=(source, 0))
    try:
        client.ehlo()
        for code, text in (client.mail(sender), client.rcpt(recipient)):
            if code >= 400:
                return f"{code} {text.decode()}"
        code, text = client.data(data)
        return f"{code} {text.decode()}"
    finally:
        vanish(client)


def vanish(client: smtplib.SMTP) -> None:
    """End as a client does that has lost our last answer: with a reset, and not a word."""
    if client.sock is not None:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def bounce_of(arrived: Received, text: str = "user unknown", message_id: str = "<b1@mx.sink.test>") -> bytes:
    """A report as Postfix writes it, full of the destination's name."""
    recipient = arrived.recipients[0]
    header = arrived.data.partition(b"\r\n\r\n")[0]
    return (
        (
            f"From: MAILER-DAEMON@mx.sink.test (Mail Delivery System)\r\nTo: {arrived.sender}\r\n"
            f"Subject: Undelivered Mail\r\nMessage-ID: {message_id}\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"
            'Content-Type: multipart/report; report-type=delivery-status; boundary="b1"\r\n\r\n'
            "--b1\r\nContent-Type: text/plain\r\n\r\n"
            f"This is the mail system at host mx.sink.test.\r\n<{recipient}>: {text}\r\n\r\n"
            "--b1\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.sink.test\r\n\r\n"
            f"Final-Recipient: rfc822; {recipient}\r\nAction: failed\r\nStatus: 5.1.1\r\n"
            f"Diagnostic-Code: smtp; 550 5.1.1 <{recipient}>: {text} at mx.sink.test [127.0.0.50]\r\n\r\n"
            "--b1\r\nContent-Type: text/rfc822-headers\r\n\r\n"
        ).encode()
        + header
        + b"\r\n\r\n--b1--\r\n"
    )


@asynccontextmanager
async def store_of(it: Lab) -> AsyncIterator[StoreClient]:
    """The lab's own store, past the program."""
    server = EmbeddedStore(it.folder / "state", journal=it.journal)
    client = StoreClient(server.admin_url, journal=it.journal, timeout=20)
    try:
        yield client
    finally:
        await client.close()


async def _check_rights(it: Lab) -> None:
    """The program came as a user with few rights; the store has written down what it asked for beyond them: nothing."""
    server = EmbeddedStore(it.folder / "state", journal=it.journal)
    client = StoreClient(server.admin_url, journal=MemoryJournal(), timeout=2)
    try:
        assert await client.command("ACL", "LOG") == []
    except StoreAway:
        return  # a test has stopped it
    finally:
        await client.close()


async def age_store(it: Lab) -> None:
    """As if it had been there for years: on the first day of a store much is passed on that it does not know."""
    async with store_of(it) as store:
        await store.command("SET", "{fwd0}:birth", b"\x0110000")


@asynccontextmanager
async def lab(
    folder: Path,
    *,
    store: str = "embedded",
    store_timeout: float = PATIENT,
    top: str = "",
    relay: str = "",
    aliases: str = "",
    extra: str = "",
    listeners: str = "",
    zone: dict[str, dict[str, list[str]]] | None = None,
    dns_timeout: float = 2.5,
    resolver: Callable[[str], AbstractAsyncContextManager[str]] | None = None,
    port: int | None = None,
) -> AsyncIterator[Lab]:
    """The whole lab, started and stopped. ``listeners``: more of them, as in the file. ``zone`` adds names or replaces them; the
    rest goes into the configuration. ``resolver`` makes of the zone's text the address of one that validates; without it the
    lab's own server is asked. ``port`` is where everybody listens. ``store_timeout``: seconds; HASTY for what is about a store
    that does not answer."""
    demo_lab.make_keys(folder / "keys")
    at = folder / "keys"
    texts = {}
    for who, selectors in (("fwd", (("rsa", "rsa"), ("ed", "ed25519"))), ("sender", (("s1", "rsa"),))):
        keys = Keys.load(
            mailkey=[KeyFile(f"{who}.test", "", at / f"{who}.mailkey.pem")],
            dkim=[KeyFile(f"{who}.test", selector, at / f"{who}.{kind}.pem") for selector, kind in selectors],
            srs_secret_file=at / "srs.secret",
        )
        mailkey = keys.mailkey(f"{who}.test")
        assert mailkey is not None
        texts[f"mailkey.{who}.test"] = mailkey_record(mailkey)
        texts |= {f"{one.selector}._domainkey.{who}.test": dkim_record(one) for one in keys.dkim(f"{who}.test")}
    records = demo_lab.zone(texts) | (zone or {})
    port = port or free_port(FORWARDER, SENDER, SINK, "127.0.0.51")
    sink, sender = Receiver(SINK, port, "mx.sink.test"), Receiver(SENDER, port, "mx.sender.test")
    await sink.start()
    await sender.start()
    config = folder / "forwarder.toml"
    journal = MemoryJournal()
    async with AsyncExitStack() as stack:
        dns = await stack.enter_async_context(run_dns_server(zone_text(records)))
        asked = await stack.enter_async_context(resolver(zone_text(records))) if resolver else dns.address
        config.write_text(
            CONFIG.format(
                port=port,
                dns=asked,
                dns_timeout=dns_timeout,
                dns_more="trust_ad = true" if resolver else "",
                store=store,
                store_timeout=store_timeout,
                top=top,
                relay=relay,
                aliases=aliases,
                extra=extra,
                listeners=listeners and f", {listeners}",
            )
        )
        app = App(load(config), journal)
        await app.start()
        it = Lab(folder, port, dns, sink, sender, journal, app, records)
        try:
            yield it
            if store == "embedded":
                await _check_rights(it)
        finally:
            await app.stop(2)
            sink.stop()
            sender.stop()
