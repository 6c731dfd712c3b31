"""Destinations of other makers that bounce, each in its own words: one truthful report, without a trace of them."""

from __future__ import annotations

from email import message_from_bytes
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from forwarder.cli.demo_lab import FORWARDER, Received
from forwarder.mail.dsn import Action, parse_report
from forwarder.mail.header import parse_message
from tests.e2e.lab import Lab, lab
from tests.peers.smtp_sink import SmtpSink
from tests.peers.unpacked import exim, needs_exim, needs_opensmtpd, opensmtpd

OTHER, BEHIND = "127.0.0.51", "127.0.0.52"
ZONE = {"other.test": {"MX": ["10 mx.other.test."]}, "mx.other.test": {"A": [OTHER]}}
ELSEWHERE = 'elsewhere = ["hidden.person@other.test"]'
HIDDEN = (b"hidden.person", b"other.test", OTHER.encode(), BEHIND.encode())


async def sent(it: Lab) -> str:
    return await it.send(it.signed(recipients=("elsewhere@fwd.test",)), recipient="elsewhere@fwd.test")


async def assert_told_once(it: Lab, status: str) -> None:
    """The only report that the sender gets, and that it tells the truth and nothing more."""
    home = await it.next(it.sender)
    texts = [home.data, *(part.get_payload(decode=True) or b"" for part in message_from_bytes(home.data).walk())]
    assert not [one for one in HIDDEN for text in texts if isinstance(text, bytes) and one in text.lower()]
    assert (home.sender, home.recipients) == ("", ("bob@sender.test",))
    report = parse_report(parse_message(home.data))
    assert report is not None
    (about,) = report.recipients
    assert (about.action, about.final_recipient) == (Action.FAILED, "elsewhere@fwd.test")
    assert about.status == status
    assert b"<one@sender.test>" in report.returned_header
    (told,) = it.journal.named("route.return_bounce")
    assert told["unmatched"] is None
    assert "message-id" in told["matched"]
    assert it.sender.waiting.empty()


@needs_exim
async def test_exim(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ELSEWHERE) as it,
        exim(OTHER, it.port, "mx.other.test", back="fwd.test", back_host=FORWARDER),
    ):
        assert (await sent(it)).startswith("250")
        await assert_told_once(it, "5.0.0")


@needs_opensmtpd
async def test_opensmtpd(tmp_path: Path) -> None:
    refuse = {"RCPT": b"550 5.1.1 <hidden.person@other.test>: no such user at mx.behind.other.test\r\n"}
    async with (
        lab(tmp_path, zone=ZONE, aliases=ELSEWHERE) as it,
        SmtpSink(host=BEHIND, port=it.port, script=refuse),
        opensmtpd(OTHER, it.port, "mx.other.test", back="fwd.test", back_host=FORWARDER, next_host=BEHIND),
    ):
        assert (await sent(it)).startswith("250")
        await assert_told_once(it, "5.1.1")


def qmail_bounce(arrived: Received) -> bytes:
    """As qmail-send writes it: no MIME, no fields, and the whole message below."""
    return (
        b"From: MAILER-DAEMON@mx.other.test\r\nTo: %b\r\nSubject: failure notice\r\nDate: 23 Nov 2026 12:31:00 -0000\r\n\r\n"
        b"Hi. This is the qmail-send program at mx.other.test.\r\n"
        b"I'm afraid I wasn't able to deliver your message to the following addresses.\r\n"
        b"This is a permanent error; I've given up. Sorry it didn't work out.\r\n\r\n"
        b"<hidden.person@other.test>:\r\nSorry, no mailbox here by that name. (#5.1.1)\r\n\r\n"
        b"--- Below this line is a copy of the message.\r\n\r\nReturn-Path: <%b>\r\n"
        b"Received: (qmail 1234 invoked from network); 23 Nov 2026 12:31:00 -0000\r\n%b"
    ) % (arrived.sender.encode(), arrived.sender.encode(), arrived.data)


async def test_qmail(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE, aliases=ELSEWHERE) as it, SmtpSink(host=OTHER, port=it.port) as other:
        assert (await sent(it)).startswith("250")
        (got,) = other.messages
        sender = got.mail.partition(b"<")[2].partition(b">")[0].decode()
        arrived = Received(OTHER, "mx.fwd.test", sender, ("hidden.person@other.test",), got.data)
        assert (await it.send(qmail_bounce(arrived), "", sender, OTHER, "mx.other.test")).startswith("250")
        await assert_told_once(it, "5.1.1")


class Refusing:
    """Knows nobody, and says whom."""

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        return f"550 5.1.1 <{address}>: not known at mx.other.test [{OTHER}]"


async def test_aiosmtpd_that_refuses_in_session(tmp_path: Path) -> None:
    """The sender's own server is told, and writes the report."""
    async with lab(tmp_path, zone=ZONE, aliases=ELSEWHERE) as it:
        other = Controller(Refusing(), hostname=OTHER, port=it.port)
        other.start()
        try:
            answer = (await sent(it)).lower().encode()
        finally:
            other.stop()
        assert answer.startswith(b"550 5.1.1 <elsewhere@fwd.test>: not known at")
        assert not [one for one in HIDDEN if one in answer]
        assert it.sender.waiting.empty()
