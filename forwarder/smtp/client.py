"""What do we say next, and what did they mean by that? The client side of RFC 5321, without any I/O.

Bytes go in by ``receive_data``, events come out; what is to be written waits in ``take_output``. Every command that was sent
has its place in a queue of expected replies, so a reply always belongs to one command, pipelined (RFC 2920) or not:

    connect     ── 220 ──▶ EHLO ──▶ Ready | Refused
    start_tls() ── 220 ──▶ StartTls ─ handshake ─▶ tls_started() ──▶ EHLO ──▶ Ready        or TlsRefused
    log_in()    ── AUTH, challenges ──▶ LoggedIn        or LoginRefused
    begin(mail) ── MAIL RCPT.. DATA ──▶ GoAhead ─▶ message, finish_message() ──▶ Finished   or Finished without a message
    begin(mail) ── MAIL RCPT.. BDAT head ──▶ GoAhead ─▶ last_chunk(), the rest, finish_message() ──▶ likewise
    quit()      ──▶ Closed

``Broken`` can come at any point and is the last event: the connection is of no further use. An Answer that a recipient got
before that stands.
"""

from __future__ import annotations

import re
from collections import deque
from enum import StrEnum
from typing import NamedTuple

from forwarder.model import Reply
from forwarder.smtp.login import Login, choose_mechanism, open_exchange
from forwarder.smtp.replyparser import BadReply, ReplyParser, ServerReply
from forwarder.values import value

__all__ = [
    "NO_CHUNKS",
    "Answer",
    "Broken",
    "Closed",
    "Event",
    "Extensions",
    "Finished",
    "GoAhead",
    "LoggedIn",
    "LoginRefused",
    "Mail",
    "Phase",
    "Ready",
    "Refused",
    "SmtpClient",
    "StartTls",
    "TlsRefused",
    "last_chunk",
    "parse_extensions",
]

# RFC 3207 section 4.2, CVE-2011-0411: what comes in clear behind the reply to STARTTLS was put there by someone else, and
# would be read as if it had come through TLS.
_INJECTED = "bytes in clear after the reply to STARTTLS"
_IN_CLEAR = "bytes in clear before the TLS handshake"

#: Why a connection is Broken: the server does not understand what it offered, and what it makes of a chunk nobody knows.
NO_CHUNKS = "BDAT is offered and not understood"
# RFC 5321 section 4.2.2: about the command, and not about the message or its recipients.
_NOT_UNDERSTOOD = frozenset({500, 501, 502, 503, 504, 555})

# What may stand in a command: a path is one line, whatever else is wrong with it.
_PATH = re.compile(rb"<[^\x00-\x1f\x7f]*>\Z")
_PARAMETERS = re.compile(rb"[ -~]*\Z")
_HOSTNAME = re.compile(r"[!-~]{1,255}\Z")


@value
class Extensions:
    """What the server offers (RFC 5321 section 4.1.1.1). ``size``: its limit (RFC 1870), 0 = none stated, ``None`` = no SIZE.
    ``auth``: its SASL mechanisms (RFC 4954)."""

    pipelining: bool = False
    size: int | None = None
    eight_bit: bool = False
    smtputf8: bool = False
    starttls: bool = False
    requiretls: bool = False
    chunking: bool = False
    auth: frozenset[str] = frozenset()
    dsn: bool = False


class Mail(NamedTuple):
    """One transaction: paths in wire form with their brackets, the size of the message in octets before stuffing, whether it
    holds 8-bit octets (RFC 6152), whether it needs SMTPUTF8 (RFC 6531), and whether it asks for TLS all the way (RFC 8689).
    ``dsn`` and, for each recipient, ``notices`` are parameters of RFC 3461 as ``smtp.commands`` renders them; ``()``: none.
    ``head`` is the beginning of the message where the message goes in chunks (RFC 3030), empty where it goes behind DATA."""

    sender: bytes
    recipients: tuple[bytes, ...]
    size: int
    eight_bit: bool = False
    smtputf8: bool = False
    require_tls: bool = False
    dsn: bytes = b""
    notices: tuple[bytes, ...] = ()
    head: bytes = b""


class Phase(StrEnum):
    """What the server owes us a reply to. ``BODY``: nothing, it is our turn to send the message. ``IDLE``: nothing at all."""

    GREETING = "greeting"
    EHLO = "EHLO"
    HELO = "HELO"
    STARTTLS = "STARTTLS"
    TLS = "TLS handshake"
    AUTH = "AUTH"
    IDLE = "idle"
    RSET = "RSET"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BODY = "message"
    END = "end of message"
    NO_MESSAGE = "end of no message"
    QUIT = "QUIT"
    OVER = "over"


class Answer(NamedTuple):
    """The reply that decided on one recipient, and the command it came to: MAIL, RCPT, DATA or the message (END)."""

    phase: Phase
    reply: Reply


# --- events ------------------------------------------------------------------------------------------------------------


@value
class Ready:
    """Greeted. A transaction, ``start_tls`` or ``quit`` may begin."""

    extensions: Extensions


@value
class Refused:
    """No session: the greeting or HELO said no. ``quit`` is still polite (RFC 5321 section 3.1)."""

    phase: Phase
    reply: Reply


@value
class StartTls:
    """The handshake begins now; ``tls_started`` follows it."""


@value
class TlsRefused:
    """No TLS; the session goes on without it, if the caller likes that."""

    reply: Reply


@value
class LoggedIn:
    """The server knows us now."""


@value
class LoginRefused:
    """It does not. What it says may quote what we sent, so ``reply`` is not for a log."""

    reply: Reply


@value
class GoAhead:
    """354, and somebody to send it to: now the message, then ``finish_message``. Where its head went ahead in a chunk: now
    ``last_chunk``, the rest of it, then ``finish_message``."""


@value
class Finished:
    """The transaction is over, each recipient has its answer, and the connection can take the next one."""

    answers: tuple[Answer, ...]


@value
class Closed:
    """QUIT was answered."""


@value
class Broken:
    """No further use. ``answers`` are those of the transaction under way, ``None`` for a recipient that got none;
    ``reply`` is the 421 that ended it all. ``dot_sent``: the message was sent to its end, so without an answer it may have
    been delivered (RFC 1047)."""

    phase: Phase
    reason: str
    reply: Reply | None = None
    answers: tuple[Answer | None, ...] = ()
    dot_sent: bool = False


Event = Ready | Refused | StartTls | TlsRefused | LoggedIn | LoginRefused | GoAhead | Finished | Closed | Broken

# After these nothing follows.
_LAST = (Broken, Closed)
_GO_AHEAD = GoAhead()


# --- the session -------------------------------------------------------------------------------------------------------


class SmtpClient:
    """One connection, from the greeting on. ``hostname`` is what we call ourselves in EHLO (RFC 5321 section 4.1.1.1);
    ``implicit_tls``: the handshake comes before the greeting (RFC 8314 section 3)."""

    def __init__(self, hostname: str, *, implicit_tls: bool = False) -> None:
        if not _HOSTNAME.match(hostname):
            raise ValueError("the host name is not one")
        self._hostname = hostname.encode("ascii")
        self._parser = ReplyParser()
        self._implicit_tls = implicit_tls
        self._expected: deque[Phase] = deque(() if implicit_tls else (Phase.GREETING,))
        #: Where we are when no reply is owed.
        self._resting = Phase.TLS if implicit_tls else Phase.IDLE
        self._output: list[bytes] = []
        self._handlers = {
            Phase.GREETING: self._on_greeting,
            Phase.EHLO: self._on_ehlo,
            Phase.HELO: self._on_helo,
            Phase.STARTTLS: self._on_starttls,
            Phase.AUTH: self._on_auth,
            Phase.RSET: self._on_rset,
            Phase.MAIL: self._on_mail,
            Phase.RCPT: self._on_rcpt,
            Phase.DATA: self._on_data,
            Phase.END: self._on_end,
            Phase.NO_MESSAGE: self._on_no_message,
            Phase.QUIT: self._on_quit,
        }
        self._dirty = False
        #: What answers the challenges of AUTH.
        self._responses: deque[bytes] = deque()
        self._start(())
        #: Complete replies so far: progress, which a server that sends a byte a minute does not make.
        self.replies = 0
        self.extensions = Extensions()
        #: What the server calls itself in its reply to EHLO or HELO (RFC 5321 section 4.1.1.1).
        self.server_name = ""

    # --- in and out

    @property
    def phase(self) -> Phase:
        """What we wait for."""
        return self._expected[0] if self._expected else self._resting

    @property
    def over(self) -> bool:
        """Was there a Broken or Closed?"""
        return self._resting is Phase.OVER

    def receive_data(self, data: bytes) -> list[Event]:
        """Take bytes from the server; what follows from them, in order."""
        events: list[Event] = []
        if self._resting is Phase.OVER:
            return events
        if self._resting is Phase.TLS:
            return [self._break(_IN_CLEAR if self._implicit_tls else _INJECTED)]
        for reply in self._parser.feed(data):
            self.replies += 1
            event = self._break(reply.reason) if isinstance(reply, BadReply) else self._handle(reply)
            if event is not None:
                events.append(event)
                if isinstance(event, _LAST):
                    break
        return events

    def lost(self, reason: str) -> list[Event]:
        """The connection is gone, or the caller has lost patience."""
        return [] if self.over else [self._break(reason)]

    def take_output(self) -> bytes:
        """What is to be written now."""
        if not self._output:
            return b""
        output, self._output = b"".join(self._output), []
        return output

    # --- what the caller wants

    def start_tls(self) -> None:
        """RFC 3207, where ``extensions`` offer it."""
        self._require(Phase.IDLE)
        self._send(Phase.STARTTLS, b"STARTTLS\r\n")

    def tls_started(self) -> None:
        """The handshake is done. RFC 3207 section 4.2: everything learned before it is forgotten."""
        self._require(Phase.TLS)
        self._parser = ReplyParser()
        self.extensions = Extensions()
        self._resting = Phase.IDLE
        if self._implicit_tls:
            self._expected.append(Phase.GREETING)
        else:
            self._send(Phase.EHLO, b"EHLO %b\r\n" % self._hostname)

    def log_in(self, login: Login) -> None:
        """RFC 4954, where ``extensions.auth`` have a mechanism of ours; ValueError where not."""
        self._require(Phase.IDLE)
        mechanism = choose_mechanism(self.extensions.auth)
        if mechanism is None:
            raise ValueError("no mechanism of ours is offered")
        command, responses = open_exchange(login, mechanism)
        self._responses = deque(responses)
        self._send(Phase.AUTH, command)

    def begin(self, mail: Mail) -> None:
        """Start a transaction."""
        self._require(Phase.IDLE)
        if not mail.recipients or not all(map(_PATH.match, (mail.sender, *mail.recipients))):
            raise ValueError("a path is <...> in one line, and there is at least one recipient")
        if not all(map(_PARAMETERS.match, (mail.dsn, *mail.notices))):
            raise ValueError("parameters are printable ASCII")
        paths = mail.recipients
        if mail.notices and self.extensions.dsn:
            paths = tuple([path + notice for path, notice in zip(paths, mail.notices, strict=True)])
        self._start(paths)
        self._head = mail.head
        if self._dirty:
            # The last transaction was left open: nobody was accepted in it.
            self._dirty = False
            self._send(Phase.RSET, b"RSET\r\n")
        self._send(Phase.MAIL, self._mail_command(mail))
        if self.extensions.pipelining:
            # RFC 2920 section 3.1: one flight, DATA at its end.
            while self._unsent:
                self._send_rcpt()
            self._send_data()

    def finish_message(self) -> bytes:
        """The final dot, or nothing behind a chunk. From here on the message counts as sent, so call it before its last octet
        leaves; the caller writes these bytes behind the message."""
        self._require(Phase.BODY)
        self._resting = Phase.IDLE
        self._dot_sent = True
        self._expected.append(Phase.END)
        return b"" if self._head else b".\r\n"

    def quit(self) -> None:
        """RFC 5321 section 4.1.1.10."""
        if self.phase is Phase.IDLE:
            self._send(Phase.QUIT, b"QUIT\r\n")

    # --- commands

    def _start(self, recipients: tuple[bytes, ...]) -> None:
        self._unsent = deque(recipients)
        self._answers: list[Answer | None] = []
        self._head = b""
        self._total = len(recipients)
        self._accepted = 0
        self._mail_refused: Answer | None = None
        self._dot_sent = False

    def _send(self, phase: Phase, line: bytes) -> None:
        self._expected.append(phase)
        self._output.append(line)

    def _mail_command(self, mail: Mail) -> bytes:
        # Each parameter only where its extension is offered (RFC 5321 section 4.1.1.11).
        command = b"MAIL FROM:" + mail.sender
        if self.extensions.size is not None:
            command += b" SIZE=%d" % mail.size
        if self.extensions.eight_bit and mail.eight_bit:
            command += b" BODY=8BITMIME"
        if self.extensions.smtputf8 and mail.smtputf8:
            command += b" SMTPUTF8"
        if mail.require_tls:
            # Not a matter of what is offered: without it, such mail does not go here at all.
            command += b" REQUIRETLS"
        if self.extensions.dsn:
            command += mail.dsn
        return command + b"\r\n"

    def _send_rcpt(self) -> None:
        self._send(Phase.RCPT, b"RCPT TO:" + self._unsent.popleft() + b"\r\n")

    def _send_data(self) -> None:
        if self._head:
            # RFC 3030 section 2: what is no last chunk delivers nothing. As DATA does, it asks whether to go on.
            self._send(Phase.DATA, b"BDAT %d\r\n%b" % (len(self._head), self._head))
        else:
            self._send(Phase.DATA, b"DATA\r\n")

    def _require(self, resting: Phase) -> None:
        if self._expected or self._resting is not resting:
            raise RuntimeError(f"not now: {self.phase.value}")

    # --- replies

    def _handle(self, answer: ServerReply) -> Event | None:
        reply = answer.reply
        if not self._expected:
            return self._unasked(reply)
        phase = self._expected.popleft()
        if reply.code == 421 and phase is not Phase.GREETING and phase is not Phase.QUIT:
            # RFC 5321 section 4.2.1 and 3.8: to any command, and the connection closes behind it. To a message it is as
            # good an answer as any other.
            if phase is Phase.END:
                self._answer_accepted(Answer(phase, reply))
            return self._break("421", reply, phase)
        return self._handlers[phase](answer)

    def _unasked(self, reply: Reply) -> Event:
        if self._resting is Phase.BODY and reply.code // 100 in (4, 5):
            # The server has seen enough of the message: an answer for all. The rest of it must not go out, as it would be
            # read as commands.
            self._answer_accepted(Answer(Phase.END, reply))
            return self._break("answered before the end of the message")
        if self._resting is Phase.TLS:
            return self._break(_INJECTED)
        # A farewell while nothing is under way is the ordinary end of an idle connection.
        return self._break("421" if reply.code == 421 else "a reply to nothing", reply if reply.code == 421 else None)

    def _on_greeting(self, answer: ServerReply) -> Event | None:
        # RFC 5321 section 3.1 and 4.3.2: 220, or 554 (521 in RFC 7504) for a host that takes no mail, or 421 for not now.
        if answer.reply.code // 100 == 3:
            return self._break("unexpected reply", phase=Phase.GREETING)
        if answer.reply.code // 100 != 2:
            return Refused(Phase.GREETING, answer.reply)
        self._send(Phase.EHLO, b"EHLO %b\r\n" % self._hostname)
        return None

    def _on_ehlo(self, answer: ServerReply) -> Event | None:
        match answer.reply.code // 100:
            case 2:
                self.server_name = _first_word(answer.lines[0])
                self.extensions = parse_extensions(answer.lines[1:])
                return Ready(self.extensions)
            case 5:
                # RFC 5321 section 3.2 and 4.1.4: a server from before 1995.
                self._send(Phase.HELO, b"HELO %b\r\n" % self._hostname)
                return None
            case 4:
                return Refused(Phase.EHLO, answer.reply)
            case _:
                return self._break("unexpected reply", phase=Phase.EHLO)

    def _on_helo(self, answer: ServerReply) -> Event | None:
        if answer.reply.code // 100 == 2:
            self.server_name = _first_word(answer.lines[0])
            self.extensions = Extensions()
            return Ready(self.extensions)
        return Refused(Phase.HELO, answer.reply)

    def _on_starttls(self, answer: ServerReply) -> Event | None:
        if answer.reply.code // 100 != 2:
            return TlsRefused(answer.reply)
        if self._parser.pending:
            return self._break(_INJECTED)
        self._resting = Phase.TLS
        return StartTls()

    def _on_auth(self, answer: ServerReply) -> Event | None:
        match answer.reply.code // 100:
            case 2:
                return LoggedIn()
            case 3 if self._responses:
                # RFC 4954 section 4. The challenge says nothing that PLAIN or LOGIN would need.
                self._send(Phase.AUTH, self._responses.popleft())
                return None
            case 4 | 5:
                self._responses.clear()
                return LoginRefused(answer.reply)
            case _:
                return self._break("unexpected reply", phase=Phase.AUTH)

    def _on_rset(self, answer: ServerReply) -> Event | None:
        return None if answer.reply.code // 100 == 2 else self._break("RSET refused", phase=Phase.RSET)

    def _on_mail(self, answer: ServerReply) -> Event | None:
        match answer.reply.code // 100:
            case 2:
                self._dirty = True
                if not self.extensions.pipelining:
                    self._send_rcpt()
                return None
            case 4 | 5:
                self._mail_refused = Answer(Phase.MAIL, answer.reply)
                return None if self.extensions.pipelining else self._finish()
            case _:
                return self._break("unexpected reply", phase=Phase.MAIL)

    def _on_rcpt(self, answer: ServerReply) -> Event | None:
        match answer.reply.code // 100:
            case 2:
                # 250, 251 and 252 alike: it is responsible now (RFC 5321 section 3.4).
                self._accepted += 1
                self._answers.append(None)
            case 4 | 5:
                self._answers.append(Answer(Phase.RCPT, answer.reply))
            case _:
                return self._break("unexpected reply", phase=Phase.RCPT)
        if self.extensions.pipelining:
            return None
        if self._unsent:
            self._send_rcpt()
        elif self._accepted:
            self._send_data()
        else:
            return self._finish()
        return None

    def _on_data(self, answer: ServerReply) -> Event | None:
        if self._head:
            return self._on_head(answer)
        match answer.reply.code // 100:
            case 3 if self._mail_refused is None and self._accepted:
                self._resting = Phase.BODY
                return _GO_AHEAD
            case 3 if not self._accepted:
                # RFC 2920 section 3.1: a single dot, which has no recipients to go to.
                self._send(Phase.NO_MESSAGE, b".\r\n")
                return None
            case 4 | 5:
                self._answer_accepted(Answer(Phase.DATA, answer.reply))
                return self._finish()
            case _:
                # Among them 354 for a refused sender and accepted recipients: a dot would send them an empty message.
                return self._break("unexpected reply", phase=Phase.DATA)

    def _on_head(self, answer: ServerReply) -> Event | None:
        match answer.reply.code // 100:
            case 2 if self._mail_refused is None:
                if self._accepted:
                    self._resting = Phase.BODY
                    return _GO_AHEAD
                # Taken for nobody: RSET forgets it.
                return self._finish()
            case 4 | 5 if not (self._accepted and answer.reply.code in _NOT_UNDERSTOOD):
                self._answer_accepted(Answer(Phase.DATA, answer.reply))
                return self._finish()
            case 5:
                return self._break(NO_CHUNKS, phase=Phase.DATA)
            case _:
                return self._break("unexpected reply", phase=Phase.DATA)

    def _on_end(self, answer: ServerReply) -> Event | None:
        if answer.reply.code // 100 == 3:
            return self._break("unexpected reply", phase=Phase.END)
        self._answer_accepted(Answer(Phase.END, answer.reply))
        # RFC 3030 section 2: after a refused chunk nothing but RSET is certain to work.
        self._dirty = bool(self._head) and answer.reply.code // 100 != 2
        return self._finish()

    def _on_no_message(self, answer: ServerReply) -> Event | None:
        return self._finish()

    def _on_quit(self, answer: ServerReply) -> Event | None:
        self._resting = Phase.OVER
        return Closed()

    # --- ends

    def _answer_accepted(self, answer: Answer) -> None:
        self._answers = [answer if one is None else one for one in self._answers]

    def _finish(self) -> Finished:
        if self._mail_refused is not None:
            answers = (self._mail_refused,) * self._total
        else:
            answers = tuple([one for one in self._answers if one is not None])
        self._total, self._dot_sent = 0, False
        return Finished(answers)

    def _break(self, reason: str, reply: Reply | None = None, phase: Phase | None = None) -> Broken:
        phase = phase or self.phase
        known = self._answers if self._mail_refused is None else [self._mail_refused] * self._total
        answers = (*known, *[None] * (self._total - len(known)))[: self._total]
        self._resting = Phase.OVER
        self._expected.clear()
        self._output.clear()
        return Broken(phase, reason, reply, answers, self._dot_sent)


def _first_word(line: str) -> str:
    return line.partition(" ")[0]


def last_chunk(size: int) -> bytes:
    """What goes ahead of the rest of the message where its head went in a chunk: all of its ``size`` octets as they are."""
    return b"BDAT %d LAST\r\n" % size


def parse_extensions(lines: tuple[str, ...]) -> Extensions:
    """The lines of an EHLO reply behind its first (RFC 5321 section 4.1.1.1); what is unknown or malformed is not offered."""
    offered: dict[str, str] = {}
    for line in lines:
        keyword, _, parameters = line.strip().partition(" ")
        offered[keyword.upper()] = parameters.strip()
    size = offered.get("SIZE")
    return Extensions(
        pipelining="PIPELINING" in offered,
        # RFC 1870 section 4: at most 20 digits; without any, or 0, there is no limit that is worth stating.
        size=None if size is None else int(size) if size.isdecimal() and len(size) <= 20 else 0,
        eight_bit="8BITMIME" in offered,
        smtputf8="SMTPUTF8" in offered,
        starttls="STARTTLS" in offered,
        requiretls="REQUIRETLS" in offered,
        chunking="CHUNKING" in offered,
        auth=frozenset(offered.get("AUTH", "").upper().split()),
        dsn="DSN" in offered,
    )
