"""Commands and messages that are wrong, each with the reply that it must get, against one running service."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.lab import lab
from tests.e2e.test_smuggling import ZONE, wire

#: What is said after EHLO, and the decisive reply, that to the last line.
COMMANDS = [
    ("DATA without MAIL", [b"DATA"], "503 5.5.1"),
    ("DATA where every recipient was refused", [b"MAIL FROM:<>", b"RCPT TO:<no@fwd.test>", b"DATA"], "554 5.5.1"),
    ("a second MAIL behind a null sender", [b"MAIL FROM:<>", b"MAIL FROM:<a@sender.test>"], "503 5.5.1"),
    ("HELO without a name", [b"HELO"], r"501 5\.5\.4"),
    ("marked up EHLO", [b"EHLO <script>\x1b[31m"], r"501 5\.5\.4"),
    ("an unknown command", [b"XYZZY"], r"500 5\.5\.1"),
    ("VRFY of an alias", [b"VRFY alias@fwd.test"], r"252 2\.0\.0"),
    ("EXPN", [b"EXPN team"], r"502 5\.5\.1"),
    ("AUTH on port 25", [b"AUTH PLAIN AGEAYg=="], r"503 5\.5\.1"),
    ("a command of 512 octets", [b"NOOP " + b"x" * 505], r"250 2\.0\.0"),
    ("RSET forgets", [b"MAIL FROM:<>", b"RSET", b"RCPT TO:<alias@fwd.test>"], r"503 5\.5\.1"),
    ("MAIL of nothing", [b"MAIL FROM:"], r"501 5\.5\.4"),
    ("an open bracket", [b"MAIL FROM:<a@sender.test"], r"501 5\.1\.7"),
    ("no domain", [b"MAIL FROM:<bob>"], r"501 5\.1\.7"),
    ("two @", [b"MAIL FROM:<a@b@sender.test>"], r"501 5\.1\.7"),
    ("an empty label", [b"MAIL FROM:<a@sender..test>"], r"501 5\.1\.7"),
    ("65 octets of local part", [b"MAIL FROM:<" + b"a" * 65 + b"@sender.test>"], "250"),
    ("a parenthesis", [b"MAIL FROM:<(bob@sender.test>"], r"501 5\.1\.7"),
    ("two domains and a quote", [b'MAIL FROM:<bob@legitimate.test"@sender.test>'], r"501 5\.1\.7"),
    ("NUL in the sender", [b"MAIL FROM:<bob@sender.test\0.legitimate.test>"], r"501 5\.1\.7"),
    ("a quoted CR", [b'MAIL FROM:<"\\\r"@sender.test>'], r"501 5\."),
    ("240 parentheses", [b"MAIL FROM:<" + b"(" * 240 + b"@sender.test>"], r"501 5\.1\.7"),
    ('<"', [b'MAIL FROM:<"'], r"501 5\.1\.7"),
    ("a comment", [b"MAIL FROM:<bob(comment)@sender.test>"], r"501 5\.1\.7"),
    ("UTF-8 without SMTPUTF8", ["MAIL FROM:<bøb@sender.test>".encode()], r"553 5\.6\.7"),
    ("SIZE=-1", [b"MAIL FROM:<> SIZE=-1"], r"501 5\.5\.4"),
    ("SIZE over the limit", [b"MAIL FROM:<> SIZE=99999999999"], r"552 5\.3\.4"),
    ("an unknown parameter", [b"MAIL FROM:<> FOO=BAR"], r"555 5\.5\.4"),
    ("a null recipient", [b"MAIL FROM:<>", b"RCPT TO:<>"], r"501 5\.1\.3"),
    ("a foreign domain", [b"MAIL FROM:<>", b"RCPT TO:<a@foreign.test>"], r"550 5\.7\.1"),
    ("a quoted address", [b"MAIL FROM:<>", b'RCPT TO:<"a@foreign.test"@fwd.test>'], r"550 5\.1\.1"),
    ("a source route through us", [b"MAIL FROM:<>", b"RCPT TO:<@fwd.test:a@foreign.test>"], r"550 5\.7\.1"),
    ("postmaster without a domain", [b"MAIL FROM:<>", b"RCPT TO:<postmaster>"], "250"),
    ("NUL in a recipient", [b"MAIL FROM:<>", b"RCPT TO:<alias\0@fwd.test>"], r"501 5\.1\.3"),
    (
        "an SRS address without a hash",
        [b"MAIL FROM:<>", b"RCPT TO:<SRS0==AB=sender.test=bob@fwd.test>"],
        r"550 5\.1\.1",
    ),
    ("an SRS address of no fields", [b"MAIL FROM:<>", b"RCPT TO:<SRS0=@fwd.test>"], r"550 5\.1\.1"),
    ("a forged SRS1", [b"MAIL FROM:<>", b"RCPT TO:<SRS1=AAAA=x.test==AAAA=AA=b.test=c@fwd.test>"], r"550 5\.1\.1"),
    ("a folded SRS address", [b"MAIL FROM:<>", b"RCPT TO:<srs0=abcd=ab=sender.test=bob@fwd.test>"], r"550 5\.1\.1"),
]

GOOD = b"From: Bob <bob@sender.test>\r\nMessage-ID: <%d@sender.test>\r\n"
CONTENTS = [
    ("nothing", b"", r"550 5\.6\.0"),
    ("two From", b"From: a@sender.test\r\nFrom: b@sender.test\r\n\r\nx\r\n", r"550 5\.6\.0"),
    ("a space before the colon", b"From : a@sender.test\r\nFrom: b@sender.test\r\n\r\nx\r\n", r"550 5\.6\.0"),
    ("only a folded From", b"From\r\n : a@sender.test\r\nSender: b@sender.test\r\n\r\nx\r\n", r"550 5\.6\.0"),
    ("NUL in the body", GOOD + b"\r\n\0\r\n", r"550 5\.6\.0"),
    ("bare CR", GOOD + b"\r\na\rb\r\n", r"550 5\.5\.2"),
    ("bare LF in a field", GOOD + b"X: a\nb\r\n\r\nx\r\n", r"550 5\.5\.2"),
    ("NUL in a signature", GOOD + b"DKIM-Signature: v=1; d=a.test\0.b.test; s=s\r\n\r\nx\r\n", r"550 5\.6\.0"),
    ("CR CR LF at the end", GOOD + b"\r\nx\r\r\n", r"550 5\.5\.2"),
    ("29 Received", b"Received: from a by b; Mon, 23 Nov 2026 12:30:00 +0000\r\n" * 29 + GOOD + b"\r\nx\r\n", "250"),
    ("our own results, forged", b"Authentication-Results: mx.fwd.test; spf=pass\r\n" + GOOD + b"\r\nx\r\n", "250"),
    ("CRLF in an encoded name", b"From: =?utf-8?q?a=0D=0ABcc:_evil?= <bob@sender.test>\r\n\r\nx\r\n", "250"),
    ("a subject of no UTF-8", GOOD + b"Subject: \xff\xfe\r\n\r\nx\r\n", "250"),
    ("a line of 998 octets", GOOD + b"\r\n" + b"y" * 998 + b"\r\n", "250"),
    ("a line of 70,000 octets", GOOD + b"\r\n" + b"y" * 70_000 + b"\r\n", r"554 5\.6\.0"),
    ("a field of 1 MiB", GOOD + b"X: y\r\n" + b" yyyyyyyy\r\n" * 104_858 + b"\r\nx\r\n", r"552 5\.3\.4"),
    ("1,000 fields", GOOD + b"X: y\r\n" * 998 + b"\r\nx\r\n", "250"),
    ("1,001 fields", GOOD + b"X: y\r\n" * 999 + b"\r\nx\r\n", r"552 5\.3\.4"),
    ("5,000 parentheses", b"From: " + b"(" * 5000 + b"\r\n\r\nx\r\n", r"550 5\.6\.0"),
]


async def test_each_wrong_command_gets_its_reply(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE, extra="[limits]\nunknown_per_hour = 1000\nforged_reversible = 1000\n") as it:
        for name, lines, expected in COMMANDS:
            async with wire(it) as peer:
                await peer.line()
                assert (await peer.ask(b"EHLO mx.sender.test")).startswith("250")
                answer = ""
                for line in lines:
                    answer = await peer.ask(line)
                assert re.match(expected, answer), (name, answer)
                if answer[:3] not in ("500", "421"):
                    assert (await peer.ask(b"NOOP")).startswith("250"), name
        assert it.events("fault") == []


async def test_each_wrong_message_gets_its_reply(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE) as it:
        good = 0
        for number, (name, raw, expected) in enumerate(CONTENTS):
            async with wire(it) as peer:
                await peer.line()
                for line in (
                    b"EHLO mx.sender.test",
                    b"MAIL FROM:<bob@sender.test>",
                    b"RCPT TO:<alias@fwd.test>",
                    b"DATA",
                ):
                    answer = await peer.ask(line)
                assert answer.startswith("354")
                peer.say(raw.replace(b"%d", b"%d" % number) + b".\r\n")
                answer = await peer.line()
                assert re.match(expected, answer), (name, answer)
                good += answer.startswith("250")
        arrived = [it.sink.waiting.get_nowait() for _ in range(good)]
        assert it.sink.waiting.empty()
        for one in arrived:
            header = one.data.partition(b"\r\n\r\n")[0]
            assert len(re.findall(rb"(?im)^from:", header)) == 1
            assert not re.search(rb"(?im)^bcc:", header)
            assert b"mx.fwd.test; spf=pass\r\n" not in header
        assert it.events("fault") == []


@pytest.mark.parametrize(
    "line", [b"MAIL FROM: <bob@sender.test>", b"mail from:<bob@sender.test> ", b"MAIL FROM:<@a.test:bob@sender.test>"]
)
async def test_what_real_senders_write_is_taken(tmp_path: Path, line: bytes) -> None:
    async with lab(tmp_path, zone=ZONE) as it, wire(it) as peer:
        await peer.line()
        assert (await peer.ask(b"EHLO mx.sender.test")).startswith("250")
        assert (await peer.ask(line)).startswith("250 2.1.0")
