"""Command lines, whole dialogues, and what next hops answer."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import replace

from forwarder.edge.conversation import EdgeSettings
from forwarder.edge.limits import Limits
from forwarder.edge.server import EdgeServer, bind
from forwarder.mail.address import parse_address, wire
from forwarder.model import Address
from forwarder.smtp.client import Broken as BrokenOff
from forwarder.smtp.client import Finished, GoAhead, Mail, Phase, SmtpClient
from forwarder.smtp.commands import (
    CommandError,
    parse_helo,
    parse_mail,
    parse_rcpt,
    render_mail_dsn,
    render_rcpt_dsn,
)
from forwarder.smtp.replyparser import MAX_TEXT, BadReply, ReplyParser
from tests.edge.test_session import RecordingAcceptor
from tests.fakes import FixedClock, MemoryJournal
from tests.fuzz.target import Target, holds, is_clean_reply

OFFERED = frozenset({"SIZE", "8BITMIME", "SMTPUTF8", "DSN", "AUTH", "REQUIRETLS"})
_UNSAFE = re.compile(r"[\x00-\x1f\x7f]")

# --- one command line ---------------------------------------------------------------------------------------------------


def run_command(data: bytes) -> None:
    """The argument of EHLO, MAIL and RCPT."""
    verb, _, argument = data.partition(b" ")
    try:
        match verb.upper():
            case b"MAIL":
                _check_mail(argument)
            case b"RCPT":
                _check_rcpt(argument)
            case _:
                name = parse_helo(argument)
                holds(name.isascii() and name.isprintable() and len(name) <= 255, f"EHLO {name!r}")
    except CommandError as error:
        is_clean_reply(error.reply)


def _check_mail(argument: bytes) -> None:
    mail = parse_mail(argument, max_size=10_000_000, offered=OFFERED)
    _check_address(mail.sender)
    for text in (mail.ret, mail.envid):
        holds(text is None or not _UNSAFE.search(text), f"a control character in {text!r}")
    again = parse_mail(b"FROM:<>" + render_mail_dsn(mail.ret, mail.envid), max_size=0, offered=OFFERED)
    holds((again.ret, again.envid) == (mail.ret, mail.envid), "what we write of RET and ENVID reads otherwise")


def _check_rcpt(argument: bytes) -> None:
    rcpt = parse_rcpt(argument, smtputf8=len(argument) % 2 == 0, postmaster_domain="fwd.test", offered=OFFERED)
    _check_address(rcpt.address)
    rendered = b"TO:<a@b.test>" + render_rcpt_dsn(rcpt.notify, rcpt.orcpt)
    again = parse_rcpt(rendered, smtputf8=False, postmaster_domain="fwd.test", offered=OFFERED)
    holds(again.notify == rcpt.notify, "what we write of NOTIFY reads otherwise")
    if rcpt.orcpt is not None and rcpt.orcpt.isascii():
        holds(again.orcpt == rcpt.orcpt, "what we write of ORCPT reads otherwise")


def _check_address(address: Address | None) -> None:
    if address is None:
        return
    holds(not _UNSAFE.search(str(address)), f"a control character in {address}")
    path = wire(address)
    holds(path.startswith(b"<") and path.endswith(b">"), f"no path: {path!r}")
    again = parse_address(path[1:-1].decode())
    holds(wire(again) == path, f"{path!r} reads otherwise")


COMMANDS = Target(
    "commands",
    run_command,
    (
        b"EHLO client.example",
        b"HELO [192.0.2.1]",
        b"EHLO [IPv6:2001:db8::1]",
        b"MAIL FROM:<bob@sender.test> SIZE=1000 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=Q+201",
        b"MAIL FROM:<> AUTH=<> REQUIRETLS",
        b'MAIL FROM:<"b \\" ob"@sender.test> SIZE=1',
        b"MAIL FROM:<@a.test,@b.test:bob@[IPv6:2001:db8::1]>",
        "MAIL FROM:<bücher@bücher.test> SMTPUTF8".encode(),
        b"RCPT TO:<postmaster>",
        b"RCPT TO:<alias@fwd.test> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;alias+2B1@fwd.test",
        b"RCPT TO:<SRS0=AAAAAAAAAAAAAA=BB=sender.test=bob@fwd.test> NOTIFY=NEVER",
        "RCPT TO:<ü@fwd.test> ORCPT=utf-8;ü\\x{E9}@fwd.test".encode(),
    ),
    (
        *(
            b"FROM:",
            b"TO:",
            b"<",
            b">",
            b"<>",
            b"@",
            b"@a.test:",
            b'"',
            b"\\",
            b"[",
            b"]",
            b"[IPv6:",
            b"::",
            b".",
            b"..",
        ),
        *(
            b" ",
            b"  ",
            b"\t",
            b"=",
            b";",
            b",",
            b"SIZE=",
            b"BODY=",
            b"7BIT",
            b"BINARYMIME",
            b"RET=",
            b"FULL",
            b"ENVID=",
        ),
        *(
            b"NOTIFY=",
            b"NEVER",
            b"ORCPT=",
            b"utf-8;",
            b"\\x{10FFFF}",
            b"\\x{110000}",
            b"+0D+0A",
            b"+",
            b"AUTH=",
            b"SMTPUTF8",
        ),
        *(
            b"\xc3\xbc",
            b"\xff",
            b"\xe3\x80\x82",
            b"\xe2\x80\x8d",
            b"xn--",
            b"xn--a",
            b"\xf0\x9f\x98\x80",
            b"99999999999999999999",
        ),
        *(
            b"\xd9\xa1",
            b"\xc2\xb2",
            b"\xc5\xbf",
            b"\xe2\x84\xaa",
            b"MAIL ",
            b"RCPT ",
            b"EHLO ",
            b"postmaster>",
            b"a" * 64,
        ),
    ),
    3000,
)

# --- a dialogue ---------------------------------------------------------------------------------------------------------

_REPLY_LINE = re.compile(rb"[2-5][0-9][0-9][ -][ -~]*\r\n\Z")
#: The session ends for many reasons; here it should go on.
_LIMITS = replace(
    Limits(), errors=10_000, junk_commands=10_000, unknown_recipients=10_000, unknown_per_hour=10**9, sessions=10_000
)


class Dialogues:
    """A service on loopback, started at the first input and ended by ``close``."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._acceptor = RecordingAcceptor()
        self._journal = MemoryJournal()
        self._server: EdgeServer | None = None
        self._port = 0

    def run(self, data: bytes) -> None:
        """All that a client says, and then nothing more."""
        if self._runner is None:
            self._runner = asyncio.Runner()
            self._runner.run(self._start())
        self._runner.run(self._say(data))

    def close(self) -> None:
        if self._runner is not None:
            self._runner.run(self._stop())
            self._runner.close()

    async def _start(self) -> None:
        settings = EdgeSettings("mx.fwd.test", _LIMITS, lambda: None, "fwd.example")
        self._server = EdgeServer(settings, self._acceptor, FixedClock(), self._journal)
        sock = bind("127.0.0.1:0")
        self._port = sock.getsockname()[1]
        await self._server.start([sock])

    async def _stop(self) -> None:
        assert self._server is not None
        await self._server.drain(1)

    async def _say(self, data: bytes) -> None:
        self._acceptor.accepted.clear()
        self._journal.events.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        said = b""
        # A reset is an answer too: the service has closed, and what we still said came too late.
        with suppress(OSError):
            said = await reader.readline()
            # EHLO and DATA end a group (RFC 2920 section 3.1): what comes behind them waits for the answer.
            for group in re.split(rb"(?<=\n)(?:(?<=EHLO c\r\n)|(?<=DATA\r\n))", data):
                writer.write(group)
                await writer.drain()
                if group.endswith((b"EHLO c\r\n", b"DATA\r\n")):
                    said += await _answer(reader)
            writer.write_eof()
            said += await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self._check(said)

    def _check(self, said: bytes) -> None:
        for line in said.splitlines(keepends=True):
            holds(_REPLY_LINE.match(line) is not None, f"no reply line: {line!r}")
            holds(b"451 4.3.0" not in line, f"a fault: {line!r}")
        faults = self._journal.named("fault")
        holds(not faults, f"a fault: {faults}")
        for envelope, raw in self._acceptor.accepted:
            bare = raw.count(b"\n") != raw.count(b"\r\n") or raw.count(b"\r") != raw.count(b"\r\n")
            holds(not bare and b"\0" not in raw, "a bare CR or LF, or a NUL, in a message that was taken")
            holds(all(one.address.domain == "fwd.example" for one in envelope.recipients), "relayed")


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """The reply to one command, and those of its group before it, as far as they have come."""
    lines = line = await reader.readline()
    while line[3:4] == b"-":
        line = await reader.readline()
        lines += line
    return lines


_DIALOGUES = Dialogues()
close_dialogues = _DIALOGUES.close

_HELLO = b"EHLO c\r\n"
_ENVELOPE = b"MAIL FROM:<bob@sender.test> SIZE=100\r\nRCPT TO:<alias@fwd.example> NOTIFY=FAILURE\r\n"
DIALOGUES = Target(
    "dialogues",
    _DIALOGUES.run,
    (
        _HELLO + _ENVELOPE + b"DATA\r\nFrom: a@b.test\r\n\r\n..x\r\n.\r\nNOOP\r\nQUIT\r\n",
        _HELLO + _ENVELOPE + b"BDAT 20\r\nFrom: a@b.test\r\n\r\nxxBDAT 2 LAST\r\n\r\nQUIT\r\n",
        _HELLO + _ENVELOPE * 3 + b"RSET\r\n" + _ENVELOPE + b"DATA\r\n.\r\nQUIT\r\n",
        b"HELO c\r\nVRFY a\r\nEXPN b\r\nHELP\r\nNOOP x\r\nAUTH PLAIN AAAA\r\nSTARTTLS x\r\nRSET x\r\nQUIT x\r\nQUIT\r\n",
        _HELLO
        + b"MAIL FROM:<>\r\nRCPT TO:<other@fwd.example>\r\nRCPT TO:<no@fwd.example>\r\nRCPT TO:<a@b.test>\r\nDATA\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ),
    (
        *(
            _HELLO,
            _ENVELOPE,
            b"DATA\r\n",
            b"\r\n.\r\n",
            b"\n.\n",
            b"\r.\r",
            b"\r\n.\n",
            b"\n.\r\n",
            b"\r\n",
            b"\r",
            b"\n",
            b"\0",
        ),
        *(
            b"BDAT 0 LAST\r\n",
            b"BDAT 5\r\n",
            b"BDAT 999999999999\r\n",
            b"BDAT -1\r\n",
            b"BDAT \xb2\r\n",
            b"BDAT 1 LASt\r\nx",
        ),
        *(
            b"RSET\r\n",
            b"NOOP\r\n",
            b"QUIT\r\n",
            b"STARTTLS\r\n",
            b"HELO x\r\n",
            b"MAIL FROM:<>\r\n",
            b"RCPT TO:<alias@fwd.example>\r\n",
        ),
        *(
            b"x" * 3000,
            b"\xff\xfe",
            b"\x16\x03\x01",
            b"mail from:<\xc3\xbc@b.test> smtputf8\r\n",
            b"..",
            b".",
            b" ",
            b"\t",
        ),
        *(
            b"AUTH LOGIN\r\n",
            b"_init__\r\n",
            b"PUSH x\r\n",
            b"\xc4\xb1\r\n",
            b"RCPT TO:<\xff@fwd.example>\r\n",
            b"SIZE=99999999999",
        ),
    ),
    20_000,
)

# --- what next hops answer ----------------------------------------------------------------------------------------------

_MAILS = (
    Mail(b"<a@a.test>", (b"<b@b.test>", b"<c@c.test>"), 100),
    Mail(b"<>", (b"<b@b.test>",), 9, True, True, False, b" RET=FULL", (b" NOTIFY=NEVER",), b"From: x\r\n"),
)


def run_replies(data: bytes) -> None:
    """A server's whole side of a session, in pieces; every recipient is accounted for."""
    size = data[0] if data else 1
    mail = _MAILS[size % 2]
    client = SmtpClient("us.test")
    ends: list[BrokenOff | Finished] = []
    begun = False
    step = max(1, size)
    for at in range(1, max(2, len(data)), step):
        for event in client.receive_data(data[at : at + step]):
            if isinstance(event, GoAhead) and client.phase is Phase.BODY:
                client.finish_message()
            elif isinstance(event, Finished | BrokenOff):
                ends.append(event)
        if not client.over and client.phase is Phase.IDLE and not begun:
            begun = True
            client.begin(mail)
        client.take_output()
    for event in client.lost("gone"):
        assert isinstance(event, BrokenOff)
        ends.append(event)
    holds(len(ends) > 0, "no end")
    if begun:
        answers = next(one.answers for one in ends)
        holds(len(answers) == len(mail.recipients), "a recipient without an account")
        for answer in answers:
            if answer is not None:
                _is_safe(answer.reply.text)
                holds(answer.reply.code // 100 != 2 or answer.phase is Phase.END, "delivered before the end")
    _parse_whole(data[1:])


def _parse_whole(data: bytes) -> None:
    """Whole or octet by octet, the replies are the same."""
    whole = ReplyParser().feed(data[:600])
    parser = ReplyParser()
    pieces = []
    for at in range(len(data[:600])):
        found = parser.feed(data[at : at + 1])
        pieces += found
        if any(isinstance(one, BadReply) for one in found):
            break
    holds(pieces == whole, "replies in pieces read otherwise")
    for one in whole:
        if not isinstance(one, BadReply):
            _is_safe(one.reply.text)


def _is_safe(text: str) -> None:
    holds(text.isascii() and (not text or text.isprintable()) and len(text) <= MAX_TEXT, f"a reply's text: {text!r}")


_OFFERS = (b"PIPELINING", b"SIZE 1000", b"8BITMIME", b"SMTPUTF8", b"DSN", b"AUTH PLAIN LOGIN")
_EHLO = b"220 hi\r\n250-x\r\n" + b"".join(b"250-%b\r\n" % one for one in _OFFERS) + b"250 CHUNKING\r\n"
REPLIES = Target(
    "replies",
    run_replies,
    (
        b"\x80"
        + _EHLO
        + b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n550 5.1.1 <b@b.test>: no such user\r\n354 go\r\n250 2.0.0 queued as 1\r\n221 bye\r\n",
        b"\x81" + _EHLO + b"250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n",
        b"\x07220 x ESMTP\r\n502 no\r\n250 x\r\n250 ok\r\n250 ok\r\n451-4.3.0 a\r\n451-4.3.0 b\r\n451 4.3.0 c\r\n",
        b"\x30421 4.3.2 closing\r\n",
        b"\x40" + _EHLO + b"452 4.2.2 full\r\n503 5.5.1 x\r\n503 5.5.1 x\r\n503 x\r\n250 ok\r\n",
    ),
    (
        *(
            b"\r\n",
            b"\n",
            b"\r",
            b"250 ",
            b"250-",
            b"250",
            b"354 ",
            b"354 x\r\n",
            b"421 ",
            b"550 5.1.1 ",
            b"5.1.1",
            b"4.999.999",
            b"2.1.5 ",
        ),
        *(
            b"999 x\r\n",
            b"150 x\r\n",
            b"250-x\r\n" * 99,
            b"\0",
            b"\xff",
            b"\t",
            b"250-SIZE \r\n",
            b"250-SIZE 99999999999999999999999\r\n",
        ),
        *(
            b"250-AUTH=LOGIN\r\n",
            b"x" * 1100,
            b"250 x\r\n",
            b"451 x\r\n",
            b"550 x\r\n",
            b"221 x\r\n",
            b"250-STARTTLS\r\n",
            b"5 0",
            b"250_",
        ),
    ),
    20_000,
)
