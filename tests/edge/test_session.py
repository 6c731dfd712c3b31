"""edge/: a real socket, a real session; behind it a recording acceptor at our own door."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from forwarder.edge.conversation import EdgeSettings
from forwarder.edge.guesses import Guesses
from forwarder.edge.limits import Limits
from forwarder.edge.server import EdgeServer, bind
from forwarder.edge.session import BAD_REVERSIBLE_AFTER, HIGH_WATER, Session
from forwarder.edge.tls import make_self_signed, server_context
from forwarder.edge.trust import NOBODY, Trust
from forwarder.model import Address, BodyKind, Content, Envelope, Refuse, Reply
from forwarder.rounds import MOST
from forwarder.route import Resolved, ToAlias, ToSender
from forwarder.smtp import reply
from tests.fakes import FixedClock, MemoryJournal
from tests.waiting import until

HEADER = b"From: a@b.example\r\nSubject: x\r\n\r\n"


@dataclass
class RecordingAcceptor:
    """Takes alias@, other@ and SRS0=good@fwd.example; keeps what it was handed."""

    answer: Reply = reply.DELIVERED
    accepted: list[tuple[Envelope, bytes]] = field(default_factory=list)
    #: Of the last one: which hashes of its body came with it.
    hashed: list[tuple[str, int | None]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    hold: asyncio.Event | None = None
    fault: Exception | None = None
    heard_of: list[str] = field(default_factory=list)

    def heard(self, message: str) -> None:
        self.heard_of.append(message)

    async def recipient(self, sender: Address | None, address: Address) -> Resolved | Refuse:
        if self.fault is not None:
            raise self.fault
        if address.domain != "fwd.example":
            return Refuse(reply.RELAYING_DENIED, "foreign")
        if address.local == "SRS0=good":
            return ToSender(address, Address("bob", "sender.example"))
        if address.local.startswith("SRS0="):
            return Refuse(reply.BAD_REVERSIBLE, "bad MAC or expired", forged=address.local != "SRS0=old")
        if address.local.lower() in ("alias", "other", "postmaster"):
            return ToAlias(address, (Address("dest", "sink.example"),), "fwd.example")
        return Refuse(reply.UNKNOWN_ALIAS, "unknown")

    async def accept(self, envelope: Envelope, resolved: tuple[Resolved, ...], content: Content) -> Reply:
        if self.fault is not None:
            raise self.fault
        if self.hold is not None:
            await self.hold.wait()
        self.hashed = [*content.body_hashes]
        self.accepted.append((envelope, content.header + content.separator + content.body))
        self.arrived.set()
        return self.answer


class Client:
    """A peer that says exactly the octets it is given."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> str:
        """One reply, all its lines; "" when the server closed."""
        lines = []
        async with asyncio.timeout(30):
            while line := await self.reader.readline():
                assert line.endswith(b"\r\n")
                lines.append(line[:-2].decode())
                if line[3:4] != b"-":
                    break
        return "\n".join(lines)

    async def say(self, octets: bytes) -> str:
        self.writer.write(octets)
        return await self.answer()

    async def ready(self, sender: bytes = b"<bob@sender.example>", rcpt: bytes = b"<alias@fwd.example>") -> None:
        await self.say(b"EHLO client.example\r\n")
        assert (await self.say(b"MAIL FROM:" + sender + b"\r\n")).startswith("250")
        assert (await self.say(b"RCPT TO:" + rcpt + b"\r\n")).startswith("250")

    async def data(self, octets: bytes) -> str:
        assert (await self.say(b"DATA\r\n")).startswith("354")
        return await self.say(octets)


@dataclass
class Edge:
    server: EdgeServer
    acceptor: RecordingAcceptor
    journal: MemoryJournal
    port: int
    connect: Callable[..., Awaitable[Client]]
    guesses: Guesses
    settings: EdgeSettings


@asynccontextmanager
async def edge(
    acceptor: RecordingAcceptor | None = None,
    context: ssl.SSLContext | None = None,
    trust: Trust = NOBODY,
    **limits: float,
) -> AsyncIterator[tuple[Client, Edge]]:
    acceptor = acceptor or RecordingAcceptor()
    journal = MemoryJournal()
    bounds = replace(Limits(command_timeout=20, data_timeout=20), **limits)  # type: ignore[arg-type]
    unknowns = Guesses(bounds.unknown_per_hour)
    settings = EdgeSettings("mx.fwd.example", bounds, lambda: context, "fwd.example", unknowns=unknowns)
    server = EdgeServer(settings, acceptor, FixedClock(), journal)
    sock = bind("127.0.0.1:0")
    port = sock.getsockname()[1]
    await server.start([sock], trust=trust)
    writers = []

    async def connect(octets: bytes = b"") -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        writers.append(writer)
        client = Client(reader, writer)
        writer.write(octets)
        if not trust.proxy:
            await client.answer()
        return client

    try:
        yield await connect(), Edge(server, acceptor, journal, port, connect, settings.guesses, settings)
    finally:
        for writer in writers:
            writer.close()
        await server.drain(1)


async def test_the_greeting_offers_what_is_kept() -> None:
    async with edge() as (client, _):
        answer = await client.say(b"EHLO client.example\r\n")
        offered = {line[4:].split()[0] for line in answer.splitlines()}
        assert offered == {
            "mx.fwd.example",
            "PIPELINING",
            "SIZE",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "CHUNKING",
            "DSN",
        }


async def test_a_message_arrives_with_its_envelope_and_its_octets_unstuffed() -> None:
    async with edge() as (client, it):
        await client.ready()
        answer = await client.data(HEADER + b"..\r\n..leading\r\nplain\r\n.\r\n")
        [(envelope, raw)] = it.acceptor.accepted
        assert answer == f"250 2.0.0 delivered ({envelope.id})"
        assert raw == HEADER + b".\r\n.leading\r\nplain\r\n"
        assert (envelope.sender, envelope.peer.helo) == (Address("bob", "sender.example"), "client.example")
        assert [one.address for one in envelope.recipients] == [Address("alias", "fwd.example")]
        assert envelope.received_at == datetime(2026, 11, 23, 12, 30, tzinfo=UTC)


async def test_a_pipelined_group_gets_all_its_replies() -> None:
    async with edge() as (client, it):
        await client.say(b"EHLO c.example\r\n")
        first = await client.say(
            b"MAIL FROM:<> BODY=8BITMIME\r\nRCPT TO:<nobody@fwd.example>\r\nRCPT TO:<alias@fwd.example>\r\nDATA\r\n"
        )
        assert [first[:3], *[(await client.answer())[:3] for _ in range(3)]] == ["250", "550", "250", "354"]
        assert (await client.say(HEADER + b".\r\nQUIT\r\n")).startswith("250")
        assert (await client.answer()).startswith("221")
        assert await client.answer() == ""
        assert it.acceptor.accepted[0][0].body is BodyKind.EIGHT_BIT_MIME


async def test_the_end_may_come_in_any_pieces() -> None:
    stream = HEADER + b"body\r\n.\r\n"
    for cut in range(1, len(stream)):
        async with edge() as (client, it):
            await client.ready()
            await client.say(b"DATA\r\n")
            client.writer.write(stream[:cut])
            await client.writer.drain()
            await asyncio.sleep(0)
            client.writer.write(stream[cut:])
            assert (await client.answer()).startswith("250")
            assert it.acceptor.accepted[0][1] == HEADER + b"body\r\n"
        if cut > 6:
            break
    for cut in range(len(stream) - 6, len(stream)):
        async with edge() as (client, it):
            await client.ready()
            await client.say(b"DATA\r\n")
            client.writer.write(stream[:cut])
            await client.writer.drain()
            await asyncio.sleep(0)
            client.writer.write(stream[cut:])
            assert (await client.answer()).startswith("250")
            assert it.acceptor.accepted[0][1] == HEADER + b"body\r\n"


SMUGGLED = b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<alias@fwd.example>\r\nDATA\r\nFrom: e@b.example\r\n\r\nx\r\n.\r\n"


@pytest.mark.parametrize(
    "fake_end",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\r\r\n.\r\r\n",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
    ],
    ids=repr,
)
async def test_only_crlf_dot_crlf_ends_a_message_and_what_is_smuggled_is_refused_whole(fake_end: bytes) -> None:
    async with edge() as (client, it):
        await client.ready()
        answer = await client.data(HEADER + b"innocent" + fake_end + SMUGGLED)
        assert answer.startswith(("550 5.5.2", "550 5.6.0"))
        assert await client.answer() == ""
        assert it.acceptor.accepted == []


async def test_bdat_carries_dots_as_they_are_and_mixes_chunks() -> None:
    async with edge() as (client, it):
        await client.ready()
        part = HEADER + b".dot\r\n"
        assert (await client.say(b"BDAT %d\r\n" % len(part) + part)).startswith("250")
        assert (await client.say(b"BDAT 6 LAST\r\nend.\r\n")).startswith("250")
        assert it.acceptor.accepted[0][1] == part + b"end.\r\n"


async def test_data_after_bdat_is_out_of_order() -> None:
    async with edge() as (client, _):
        await client.ready()
        await client.say(b"BDAT 3\r\nabc")
        assert (await client.say(b"DATA\r\n")).startswith("503")


async def test_bdat_with_no_transaction_is_read_and_refused() -> None:
    async with edge() as (client, _):
        await client.say(b"EHLO c.example\r\n")
        assert (await client.say(b"BDAT 10 LAST\r\nQUIT\r\nNOOP")).startswith("503")
        assert (await client.say(b"NOOP\r\n")).startswith("250")


async def test_too_large_is_552_in_both_ways_and_the_session_goes_on() -> None:
    async with edge(message_size=1000) as (client, it):
        await client.ready()
        assert (await client.data(HEADER + b"x" * 2000 + b"\r\n.\r\n")).startswith("552 5.3.4")
        await client.ready()
        assert (await client.say(b"BDAT 2000 LAST\r\n" + b"x" * 2000)).startswith("552 5.3.4")
        assert (await client.say(b"MAIL FROM:<b@c.example> SIZE=2000\r\n")).startswith("552 5.3.4")
        await client.ready()
        assert (await client.data(HEADER + b".\r\n")).startswith("250")
        assert len(it.acceptor.accepted) == 1


async def test_content_ahead_of_the_354_is_refused() -> None:
    async with edge() as (client, it):
        await client.ready()
        assert (await client.say(b"DATA\r\n" + HEADER + b".\r\n")).startswith("503 5.5.0")
        assert await client.answer() == ""
        assert it.acceptor.accepted == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"MAIL FROM:<a@b.example>\r\n", "503 5.5.1"),
        (b"RCPT TO:<alias@fwd.example>\r\n", "503 5.5.1"),
        (b"DATA\r\n", "503 5.5.1"),
        (b"EHLO\r\n", "501 5.5.4"),
        (b"EHLO a\0b\r\n", "501 5.5.4"),
        (b"EHLO a\rb\r\n", "501 5.5.2"),
        (b"XYZZY\r\n", "500 5.5.1"),
        (b"\xff\xfe\r\n", "500 5.5.2"),
        (b"VRFY alias\r\n", "252 2.0.0"),
        (b"EXPN list\r\n", "502 5.5.1"),
        (b"AUTH PLAIN AGEAYg==\r\n", "503 5.5.1"),
        (b"STARTTLS now\r\n", "501 5.5.4"),
        (b"STARTTLS\r\n", "502 5.5.1"),
        (b"NOOP " + b"x" * 505 + b"\r\n", "250 2.0.0"),
        (b"NOOP " + b"x" * 4000 + b"\r\n", "500 5.5.2"),
        (b"BDAT x\r\n", "501 5.5.4"),
    ],
)
async def test_each_wrong_command_has_its_reply(line: bytes, expected: str) -> None:
    async with edge() as (client, _):
        assert (await client.say(line)).startswith(expected)


@pytest.mark.parametrize("line", [b"EHLO c.example\n", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01", b"x" * 5000])
async def test_what_is_not_smtp_is_answered_once_and_closed(line: bytes) -> None:
    async with edge() as (client, _):
        assert (await client.say(line))[:1] in ("4", "5")
        assert await client.answer() == ""


async def test_two_megabytes_without_a_line_end_are_not_kept() -> None:
    async with edge() as (client, _):
        client.writer.write(b"x" * (2 << 20))
        assert (await client.answer()).startswith("500 5.5.2")


async def test_a_second_ehlo_forgets_the_transaction_and_a_nested_mail_does_not() -> None:
    async with edge() as (client, _):
        await client.ready(sender=b"<>")
        assert (await client.say(b"MAIL FROM:<>\r\n")).startswith("503 5.5.1")
        await client.say(b"EHLO again.example\r\n")
        assert (await client.say(b"RCPT TO:<alias@fwd.example>\r\n")).startswith("503 5.5.1")


async def test_errors_junk_and_unknown_recipients_end_the_session() -> None:
    for line, most in ((b"XYZZY\r\n", 10), (b"NOOP\r\n", 100), (b"RCPT TO:<nobody@fwd.example>\r\n", 11)):
        async with edge() as (client, _):
            await client.say(b"EHLO c.example\r\n")
            await client.say(b"MAIL FROM:<>\r\n")
            answers = [await client.say(line) for _ in range(most)]
            assert answers[-1].startswith("421 4.7.0")
            assert not any(one.startswith("421") for one in answers[:-1])
            assert await client.answer() == ""


async def test_guesses_at_reversible_addresses_are_counted_for_the_network_and_then_cut_off() -> None:
    async with edge() as (client, it):
        await client.say(b"EHLO c.example\r\n")
        await client.say(b"MAIL FROM:<>\r\n")
        for number in range(9):
            assert (await client.say(b"RCPT TO:<SRS0=x%d@fwd.example>\r\n" % number)).startswith("550 5.1.1")
        again = await it.connect()
        await again.say(b"EHLO c.example\r\n")
        await again.say(b"MAIL FROM:<>\r\n")
        # One that is only old was not guessed.
        assert (await again.say(b"RCPT TO:<SRS0=old@fwd.example>\r\n")).startswith("550 5.1.1")
        assert (await again.say(b"RCPT TO:<SRS0=x9@fwd.example>\r\n")).startswith("550 5.1.1")
        # From here on a good one too.
        assert (await again.say(b"RCPT TO:<SRS0=good@fwd.example>\r\n")).startswith("421 4.7.0")
        assert await again.answer() == ""


async def test_who_guessed_may_still_send_to_an_alias() -> None:
    async with edge() as (client, it):
        for _ in range(10):
            it.guesses.note(ip_address("127.0.0.1"), asyncio.get_running_loop().time())
        await client.ready()
        assert (await client.data(HEADER + b".\r\n")).startswith("250")


async def test_the_time_until_a_reversible_address_is_refused_tells_nothing() -> None:
    async with edge() as (client, _):
        await client.say(b"EHLO c.example\r\n")
        await client.say(b"MAIL FROM:<>\r\n")
        loop = asyncio.get_running_loop()
        for local in (b"SRS0=x", b"SRS0=old"):
            began = loop.time()
            assert (await client.say(b"RCPT TO:<%b@fwd.example>\r\n" % local)).startswith("550 5.1.1")
            assert loop.time() - began >= BAD_REVERSIBLE_AFTER


async def test_the_recipient_limit_is_452_and_the_first_stay_valid() -> None:
    async with edge(recipients=1) as (client, it):
        await client.ready()
        assert (await client.say(b"RCPT TO:<other@fwd.example>\r\n")).startswith("452 4.5.3")
        assert (await client.data(HEADER + b".\r\n")).startswith("250")
        assert len(it.acceptor.accepted[0][0].recipients) == 1


async def test_the_same_recipient_twice_is_one() -> None:
    async with edge() as (client, it):
        await client.ready()
        assert (await client.say(b"RCPT TO:<alias@FWD.example>\r\n")).startswith("250")
        await client.data(HEADER + b".\r\n")
        assert len(it.acceptor.accepted[0][0].recipients) == 1


async def test_a_report_takes_one_recipient_a_transaction() -> None:
    async with edge() as (client, _):
        await client.ready(sender=b"<>", rcpt=b"<SRS0=good@fwd.example>")
        assert (await client.say(b"RCPT TO:<alias@fwd.example>\r\n")).startswith("452 4.5.3")
        await client.say(b"RSET\r\n")
        await client.ready(sender=b"<>")
        assert (await client.say(b"RCPT TO:<SRS0=good@fwd.example>\r\n")).startswith("452 4.5.3")


async def test_all_recipients_refused_is_554_at_data() -> None:
    async with edge() as (client, _):
        await client.say(b"EHLO c.example\r\n")
        await client.say(b"MAIL FROM:<>\r\n")
        assert (await client.say(b"RCPT TO:<x@foreign.example>\r\n")).startswith("550 5.7.1")
        assert (await client.say(b"DATA\r\n")).startswith("554 5.5.1")


async def test_a_fault_of_ours_is_451_and_its_text_stays_here() -> None:
    async with edge(RecordingAcceptor(fault=RuntimeError("the secret detail"))) as (client, it):
        await client.say(b"EHLO c.example\r\n")
        await client.say(b"MAIL FROM:<>\r\n")
        answer = await client.say(b"RCPT TO:<alias@fwd.example>\r\n")
        assert answer.startswith("451 4.3.0")
        assert "secret" not in answer
        assert it.journal.named("fault")[0]["detail"] == "the secret detail"


async def test_a_client_that_hangs_up_behind_the_dot_does_not_stop_the_delivery() -> None:
    hold = asyncio.Event()
    async with edge(RecordingAcceptor(hold=hold)) as (client, it):
        await client.ready()
        await client.say(b"DATA\r\n")
        client.writer.write(HEADER + b".\r\n")
        await client.writer.drain()
        client.writer.transport.abort()
        hold.set()
        async with asyncio.timeout(30):
            await it.acceptor.arrived.wait()
        assert it.acceptor.accepted[0][1] == HEADER


async def test_a_half_closed_client_still_hears_the_answer() -> None:
    async with edge() as (client, it):
        await client.ready()
        await client.say(b"DATA\r\n")
        client.writer.write(HEADER + b".\r\n")
        client.writer.write_eof()
        assert (await client.answer()).startswith("250")
        assert len(it.acceptor.accepted) == 1


async def test_an_unfinished_message_is_no_message() -> None:
    async with edge() as (client, it):
        await client.ready()
        await client.say(b"DATA\r\n")
        client.writer.write(HEADER + b"half of")
        client.writer.write_eof()
        assert await client.answer() == ""
        assert it.acceptor.accepted == []


async def test_a_silent_client_is_sent_away() -> None:
    async with edge(command_timeout=0.05) as (client, _):
        assert (await client.answer()).startswith("421 4.4.2")


async def test_more_sessions_than_allowed_hear_421() -> None:
    async with edge(sessions=1) as (_, it):
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        assert (await Client(reader, writer).answer()).startswith("421 4.3.2")
        writer.close()


async def test_drain_lets_an_open_message_finish_and_sends_the_idle_away() -> None:
    async with edge() as (client, it):
        idle = await it.connect()  # type: ignore[misc]
        await client.ready()
        assert (await client.say(b"DATA\r\n")).startswith("354")
        draining = asyncio.ensure_future(it.server.drain(5))
        assert (await idle.answer()).startswith("421 4.3.2")
        assert (await client.say(HEADER + b".\r\n")).startswith("250")
        assert (await client.answer()).startswith("421 4.3.2")
        await draining
        assert len(it.acceptor.accepted) == 1


async def test_starttls_forgets_what_was_said_before_and_drops_what_was_injected(tmp_path: Path) -> None:
    context = server_context(*make_self_signed(tmp_path, "mx.fwd.example", datetime.now(UTC)))
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    async with edge(context=context) as (client, it):
        assert "STARTTLS" in await client.say(b"EHLO c.example\r\n")
        await client.say(b"MAIL FROM:<a@b.example>\r\n")
        assert (await client.say(b"STARTTLS\r\n")).startswith("220")
        await client.writer.start_tls(trusting)
        assert (await client.say(b"RCPT TO:<alias@fwd.example>\r\n")).startswith("503")
        assert "STARTTLS" not in await client.say(b"EHLO c.example\r\n")
        await client.ready()
        assert (await client.data(HEADER + b".\r\n")).startswith("250")
        tls = it.acceptor.accepted[0][0].peer.tls
        assert tls is not None
        assert tls.version == "TLSv1.3"
    async with edge(context=context) as (client, _):
        await client.say(b"EHLO c.example\r\n")
        assert (await client.say(b"STARTTLS\r\nMAIL FROM:<evil@b.example>\r\n")).startswith("501")
        assert await client.answer() == ""


async def test_the_self_signed_certificate_is_made_once_and_private(tmp_path: Path) -> None:
    first = make_self_signed(tmp_path, "mx.fwd.example", datetime.now(UTC))
    before = first[0].read_bytes()
    assert make_self_signed(tmp_path, "mx.fwd.example", datetime.now(UTC)) == first
    assert first[0].read_bytes() == before
    assert first[1].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("cut", [b"", b"-----BEGIN CERTIFICATE-----\nMII"])
async def test_a_self_signed_certificate_that_a_power_cut_left_behind_is_made_anew(tmp_path: Path, cut: bytes) -> None:
    certificate, key = make_self_signed(tmp_path, "mx.fwd.example", datetime.now(UTC))
    for damaged in (certificate, key):
        damaged.write_bytes(cut)
        server_context(*make_self_signed(tmp_path, "mx.fwd.example", datetime.now(UTC)))


async def test_a_client_of_a_tls_port_that_shakes_no_hands_is_hung_up_on_in_time(tmp_path: Path) -> None:
    context = server_context(*make_self_signed(tmp_path, "mx.fwd.example", datetime.now(UTC)))
    async with edge(handshake_timeout=0.2) as (_, it):
        sock = bind("127.0.0.1:0")
        port = sock.getsockname()[1]
        await it.server.start([sock], tls=context)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()


async def test_connections_that_shake_no_hands_are_sessions_and_end(tmp_path: Path) -> None:
    context = server_context(*make_self_signed(tmp_path, "mx.fwd.example", datetime.now(UTC)))
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with edge(sessions=11, handshakes=1000, handshake_timeout=2) as (_, it):
        sock = bind("127.0.0.1:0")
        port = sock.getsockname()[1]
        await it.server.start([sock], tls=context)
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
        reader, late = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        late.close()
        assert not any(one.at_eof() for one, _ in idle)
        async with asyncio.timeout(30):
            await asyncio.gather(*(one.read() for one, _ in idle), return_exceptions=True)
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
            assert (await reader.readline()).startswith(b"220 ")
            writer.close()
            await reader.read()
        for _, one in idle:
            one.close()


async def test_of_a_message_that_is_thrown_away_no_line_is_obeyed() -> None:
    """Its last octets are kept until the end has come whole; they are not the beginning of a message."""
    async with edge(message_size=1000) as (client, it):
        await client.ready()
        assert (await client.say(b"DATA\r\n")).startswith("354")
        client.writer.write(HEADER + b"a line of text\r\n" * (HIGH_WATER // 15) + b"It ends.\r\nN")
        await until(lambda: "message_size" in [one["limit"] for one in it.journal.named("limits.over")])
        assert (await client.say(b"OOP\r\nNOOP\r\n.\r\n")).startswith("552")
        assert (await client.say(b"QUIT\r\n")).startswith("221")
        assert await client.answer() == ""


async def test_a_large_message_arrives_as_a_small_one_does_and_was_hashed_on_the_way() -> None:
    body = b"..dots\r\nand  spaces \t\r\n" * 20_000
    async with edge() as (client, it):
        await client.ready()
        assert (await client.data(HEADER + body + b".\r\n")).startswith("250")
        assert it.acceptor.accepted[0][1] == HEADER + body.replace(b"..", b".")
        assert set(it.acceptor.hashed) == {("relaxed", None)}
        await client.ready()
        for part, last in ((HEADER + body[:-1], b""), (body[-1:] + body, b" LAST")):
            assert (await client.say(b"BDAT %d%b\r\n" % (len(part), last) + part)).startswith("250")
        assert it.acceptor.accepted[1][1] == HEADER + body + body
        assert it.settings.budget.held == 0


@pytest.mark.parametrize("chunked", [False, True])
async def test_what_comes_while_others_have_their_turn_is_read_too(chunked: bool) -> None:
    body = b"a line of text\r\n" * 20_000
    sent = HEADER + body
    async with edge() as (client, it):

        async def others() -> None:
            while True:
                await it.settings.rounds.turn(MOST)

        busy = [asyncio.create_task(others()) for _ in range(5)]
        await client.ready()
        if chunked:
            stream = b"BDAT %d LAST\r\n" % len(sent) + sent
        else:
            await client.say(b"DATA\r\n")
            stream = sent + b".\r\n"
        for at in range(0, len(stream), 50_000):
            client.writer.write(stream[at : at + 50_000])
            await asyncio.sleep(0)
        assert (await client.answer()).startswith("250")
        assert it.acceptor.accepted[0][1] == sent
        for one in busy:
            one.cancel()


async def test_a_bare_newline_in_the_middle_of_a_large_message_ends_the_session_once_all_of_it_was_read() -> None:
    async with edge() as (client, it):
        await client.ready()
        assert (await client.say(b"DATA\r\n")).startswith("354")
        client.writer.write(HEADER + b"x" * 1000 + b"\n" + b"line\r\n" * 40_000)
        assert (await client.say(b"NOOP\r\n.\r\nNOOP\r\n")).startswith(f"{reply.BARE_NEWLINE}")
        assert await client.answer() == ""
        assert it.acceptor.accepted == []


async def test_what_a_session_begins_with_is_its_own() -> None:
    """What lies in the class is everybody's, so nothing there may be written into."""
    begun = [value for one in Session.__mro__[:2] for name, value in vars(one).items() if not name.startswith("__")]
    assert not [one for one in begun if isinstance(one, (list, set, bytearray))]
    async with edge(errors=3, junk_commands=3) as (first, it):
        second = await it.connect()
        for _ in range(2):
            assert (await first.say(b"WHAT\r\n")).startswith("500")
            assert (await first.say(b"NOOP\r\n")).startswith("250")
        await first.ready()
        assert (await second.say(b"WHAT\r\n")).startswith("500")
        assert (await second.say(b"MAIL FROM:<bob@sender.example>\r\n")).startswith("503")
        assert (await second.say(b"EHLO client.example\r\n")).startswith("250")
