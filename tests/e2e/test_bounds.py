"""Dialogues that cost, break off or come back: the reply, what is relayed, and what must hold, CPU included, over the wire."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from forwarder.cli.demo_lab import FORWARDER, SENDER
from forwarder.edge.session import Session
from tests.e2e.lab import Lab, lab
from tests.e2e.test_smuggling import ZONE, Wire, wire
from tests.waiting import until

GREET = [b"EHLO mx.sender.test", b"MAIL FROM:<bob@sender.test>", b"RCPT TO:<alias@fwd.test>", b"DATA"]
FROM = b"From: Bob <bob@sender.test>\r\n"
TAGS = b"DKIM-Signature: v=1; a=rsa-sha256; d=sender.test; s=s%d; h=from; bh=x; b=x; "
NESTED = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (n, n) for n in range(5000))

#: A name, the header and what follows it, the reply, how many are relayed, and seconds of CPU; of what is
#: relayed, beyond those of a plain message.
COSTLY = [
    ("a Subject that is no UTF-8", FROM + b"Subject: \xff\xfe\xc3\x28\r\n\r\nx\r\n", "250", 1, 0.05),
    ("a line of 2,000 octets", FROM + b"\r\n" + b"y" * 2000 + b"\r\n", "250", 1, 0.05),
    ("a folded field of 1 MiB", FROM + b"X: y\r\n" + b" yyyyyyyy\r\n" * 104_858 + b"\r\nx\r\n", "552 5.3.4", 0, 0.2),
    ("10,000 fields", FROM + b"X: y\r\n" * 10_000 + b"\r\nx\r\n", "552 5.3.4", 0, 0.5),
    ("To 20,000", FROM + b"To: " + b"someone@to.test,\r\n " * 20_000 + b"a@to.test\r\n\r\nx\r\n", "552 5.3.4", 0, 0.5),
    ("To 10,000", FROM + b"To: " + b"someone@to.test,\r\n " * 10_000 + b"a@to.test\r\n\r\nx\r\n", "250", 1, 0.5),
    ("From of 50,000 quotes", b"From: " + b'"' * 50_000 + b"\r\n\r\nx\r\n", "550 5.6.0", 0, 0.05),
    ("From of 5,000 parentheses", b"From: " + b"(" * 5000 + b"\r\n\r\nx\r\n", "550 5.6.0", 0, 0.05),
    ("MIME in MIME 5,000 times", FROM + b"MIME-Version: 1.0\r\n" + NESTED + b"x\r\n", "250", 1, 0.5),
    ("500 signatures", FROM + b"".join(TAGS % n + b"\r\n" for n in range(500)) + b"\r\nx\r\n", "250", 1, 0.5),
    ("a signature of 5,000 tags", FROM + TAGS % 0 + b"".join(b"t%d=1; " % n for n in range(5000)) + b"\r\n\r\nx\r\n",
     "250", 1, 0.05),
]  # fmt: skip
#: The machine does other things as well: the best of so many.
TURNS = 4


async def talk(peer: Wire, lines: Sequence[bytes]) -> str:
    """The last reply, the greeting read before."""
    answer = ""
    for line in lines:
        answer = await peer.ask(line)
    return answer


async def send(it: Lab, message: bytes) -> tuple[str, float]:
    """The answer, and seconds of CPU of the service, the DNS, the destination and ourselves together."""
    async with wire(it) as peer:
        await peer.line()
        assert (await talk(peer, GREET)).startswith("354")
        begun = time.process_time()
        peer.say(message + b".\r\n")
        answer = await peer.line()
        return answer, time.process_time() - begun


async def arrived(it: Lab, count: int) -> list[bytes]:
    """What was relayed: so many, and no more."""
    found = [(await it.next(it.sink)).data for _ in range(count)]
    assert it.sink.waiting.empty()
    return found


async def test_what_was_made_to_be_dear_costs_little_and_passes_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The destination takes long lines, as most do.
    monkeypatch.setattr("aiosmtpd.smtp.SMTP.line_length_limit", 65_536)
    async with lab(tmp_path, zone=ZONE) as it:
        number = 0
        plain = []
        for number in range(TURNS):
            answer, cpu = await send(it, b"X: %d\r\n" % number + FROM + b"\r\nx\r\n")
            assert answer.startswith("250")
            plain.append(cpu)
        await arrived(it, TURNS)
        for name, message, expected, relayed, bound in COSTLY:
            usual = min(plain) if relayed else 0
            for turn in range(TURNS):
                number += 1
                sent = b"X-Number: %d\r\n" % number + message
                asked = len(it.dns.queries)
                answer, cpu = await send(it, sent)
                assert answer.startswith(expected), (name, answer)
                for one in await arrived(it, relayed):
                    assert one.endswith(sent), name
                keys = {name for name, *_ in it.dns.queries[asked:] if "_domainkey" in name}
                assert len(keys) <= 10, name
                if cpu - usual < bound:
                    break
                assert turn < TURNS - 1, (name, cpu, usual)
        assert it.events("fault") == []


async def test_mail_before_ehlo_and_the_101st_recipient_are_told_and_the_session_goes_on(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE) as it, wire(it) as peer:
        await peer.line()
        assert (await peer.ask(b"MAIL FROM:<bob@sender.test>")).startswith("503 5.5.1")
        await talk(peer, GREET[:2])
        for number in range(100):
            assert (await peer.ask(b"RCPT TO:<alias+%d@fwd.test>" % number)).startswith("250")
        assert (await peer.ask(b"RCPT TO:<alias+100@fwd.test>")).startswith("452 4.5.3")
        await peer.ask(b"DATA")
        assert (await peer.ask(FROM + b"\r\nx\r\n.")).startswith("250")
        # All of them are one alias: one copy.
        await arrived(it, 1)


async def test_three_messages_of_one_session_and_a_report_keep_their_envelopes(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE) as it, wire(it) as peer:
        await peer.line()
        await peer.ask(GREET[0])
        senders = (b"bob@sender.test", b"", b"eve@sender.test")
        for number, sender in enumerate(senders):
            await talk(peer, [b"MAIL FROM:<" + sender + b">", *GREET[2:]])
            assert (await peer.ask(b"X: %d\r\n" % number + FROM + b"\r\nx\r\n.")).startswith("250")
        assert (await peer.ask(b"QUIT")).startswith("221")
        found = [await it.next(it.sink) for _ in senders]
        assert [re.findall(rb"^X: (\d)", one.data, re.MULTILINE) for one in found] == [[b"0"], [b"1"], [b"2"]]
        # RFC 5321 section 4.5.5: what came from nobody leaves from nobody.
        assert ["bob" in found[0].sender, found[1].sender, "eve" in found[2].sender] == [True, "", True]
        assert it.sink.waiting.empty()


def reset(peer: Wire) -> None:
    """End with a RST."""
    sock = peer.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.writer.close()


async def test_a_message_that_breaks_off_is_none_and_one_that_is_whole_is_one(tmp_path: Path) -> None:
    whole = b"X: %d\r\n" + FROM + b"\r\nx\r\n.\r\n"
    async with lab(tmp_path, zone=ZONE) as it:
        for end in (reset, lambda peer: peer.writer.close()):
            async with wire(it) as peer:
                await peer.line()
                await talk(peer, GREET)
                peer.say(FROM + b"\r\nhalf a mess")
                await peer.writer.drain()
                end(peer)
        async with wire(it) as peer:
            await peer.line()
            await talk(peer, GREET)
            peer.say(whole % 1)
            peer.writer.write_eof()
            assert (await peer.line()).startswith("250")
        async with wire(it) as peer:
            await peer.line()
            await talk(peer, GREET)
            peer.say(whole % 2)
            await peer.writer.drain()
            # A reset that overtakes the final dot would be another case.
            await until(lambda: len(it.events("message.received")) == 2)
            reset(peer)
        found = await arrived(it, 2)
        assert [re.findall(rb"^X: (\d)", one, re.MULTILINE) for one in found] == [[b"1"], [b"2"]]
        await until(lambda: sessions() == 0)
        assert it.events("fault") == []


def sessions() -> int:
    """How many the service has."""
    return sum(
        getattr(one.get_coro(), "__qualname__", "") == Session.converse.__qualname__ for one in asyncio.all_tasks()
    )


def unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count, no paths


async def test_starttls_lets_nothing_through_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE) as it:
        async with wire(it) as peer:
            await peer.line()
            await peer.ask(GREET[0])
            # What comes along with it came in the clear.
            peer.say(b"STARTTLS\r\nMAIL FROM:<eve@sender.test>\r\n")
            assert [one[:9] for one in await peer.rest()] == ["501 5.5.1"]
        async with wire(it) as peer:
            await peer.line()
            await talk(peer, GREET[:3])
            assert (await peer.ask(b"STARTTLS")).startswith("220")
            await peer.writer.start_tls(unverified())
            # RFC 3207 section 4.2: the transaction and the name are forgotten.
            assert (await peer.ask(b"RCPT TO:<alias@fwd.test>")).startswith("503 5.5.1")
            assert (await peer.ask(b"MAIL FROM:<bob@sender.test>")).startswith("503 5.5.1")
            assert (await peer.ask(GREET[0])).startswith("250")
            assert (await peer.ask(b"STARTTLS")).startswith("503 5.5.1")
        open_files = files()
        for octets in (b"rubbish that is no ClientHello\r\n" * 10, b""):
            reader, writer = await asyncio.open_connection(FORWARDER, it.port, local_addr=(SENDER, 0))
            peer = Wire(reader, writer)
            await peer.line()
            await peer.ask(GREET[0])
            assert (await peer.ask(b"STARTTLS")).startswith("220")
            writer.write(octets)
            if octets:
                async with asyncio.timeout(30):
                    # At the most a TLS alert; no reply in clear text.
                    assert not re.search(rb"\d{3} ", await reader.read())
            writer.close()
        await until(lambda: len(it.events("tls.failed")) == 2)
        await until(lambda: sessions() == 0 and files() <= open_files)
        assert it.events("fault") == []
        assert it.sink.waiting.empty()
