"""How does a client talk to us? One SMTP session: RFC 5321, 1870, 2034, 2920, 3030, 3207, 6152, 6531, 8689.

    Session.converse   reads a command line, calls ``smtp_<COMMAND>``, collects the replies of a pipelined group
    smtp_MAIL/RCPT     the grammar is smtp.commands', the answer the acceptor's
    smtp_DATA/BDAT     the octets are edge.data's, the answer the acceptor's

It subclasses aiosmtpd's SMTP and keeps its shape (``smtp_X`` methods, ``push``), but neither its session loop nor its DATA:
those turn a handler's fault into a permanent 500, cancel a delivery when the client hangs up, obey commands that end in a
bare LF, and read a message line by line (docs/decisions/0002-edge.md).

A client that hangs up never cancels anything: the connection ends, ``converse`` goes on to the end of its command, and a
message whose last octet arrived is delivered all the same.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, ClassVar, Protocol, cast

from aiosmtpd.smtp import SMTP

from forwarder import srs
from forwarder.edge.budget import Budget
from forwarder.edge.data import BLOCK, MAX_LINE, STANDARD_LINE, BadOctets, Incoming, find_end, read_whole, refuse_header
from forwarder.edge.guesses import Guesses
from forwarder.edge.limits import Limits
from forwarder.edge.overlimit import OverLimit
from forwarder.edge.proxy import ProxyError, parse_proxy
from forwarder.edge.rounds import Rounds
from forwarder.edge.shaking import Shaking
from forwarder.edge.trust import NOBODY, Trust, within
from forwarder.edge.turns import Turns
from forwarder.edge.unread import Unread
from forwarder.model import Address, BodyKind, Caller, Content, Envelope, HeloCheck, Peer, Recipient, Refuse, Reply, Tls
from forwarder.ports import Callers, Clock, Journal
from forwarder.route import Resolved, ToAlias, ToNowhere, ToSender
from forwarder.screen import Door, screen_caller
from forwarder.smtp import reply
from forwarder.smtp.commands import CommandError, MailCommand, parse_helo, parse_mail, parse_rcpt
from forwarder.smtp.lenient import STANDARD, Lenient
from forwarder.smtp.xclient import NO_CLAIM, XCLIENT, XFORWARD, parse_claim

__all__ = ["Acceptor", "EdgeSettings", "Session", "commands_of", "peer_ip"]

_Method = Callable[[Any, bytes], Awaitable[None]]

#: Octets of a command line: RFC 5321 section 4.5.3.1.4 says 512, the extensions we offer add to it (RFC 1870, 3461, 6531).
MAX_COMMAND = 2048
#: Octets that wait unread before the client is made to wait: of a message, and between messages, where they count for nobody.
# What is there is looked at in one go, for every session that has some: this bounds how long the loop is held up.
HIGH_WATER = 128 * 1024
HIGH_WATER_BETWEEN = 64 * 1024
#: Seconds until a timer looks again whether a deadline came nearer meanwhile.
_LOOK_AGAIN = 5.0
#: Octets beyond the size limit that are read and thrown away so that the client hears 552 and not a reset.
MAX_OVERRUN = 64 * 1024 * 1024
#: Seconds after which a reversible address that is not valid is refused: more than its MACs and the store take.
BAD_REVERSIBLE_AFTER = 0.05
#: Up to so many more, by chance: timers are not so exact that a tenth of a millisecond before them could not be measured.
_BLUR = 0.02
#: Seconds that a client has to close its side behind QUIT, where that tells whether it has read what it sent QUIT along with.
_PARTING = 1.0
#: Seconds for a proxy to say whose connection it is; it does so at once.
PROXY_TIMEOUT = 5.0

#: Parameters that are taken.
_OFFERED = frozenset({"SIZE", "8BITMIME", "SMTPUTF8", "DSN"})

_OFFERED_IN_TLS = frozenset({"REQUIRETLS"})

_HTTP = (b"GET ", b"POST ", b"HEAD ", b"PUT ", b"OPTIONS ", b"CONNECT ", b"DELETE ", b"PRI ")
#: Commands that do nothing towards a message.
_JUNK = frozenset({"NOOP", "RSET", "VRFY", "EXPN", "HELP", "EHLO", "HELO"})


class Acceptor(Protocol):
    """Who answers for recipients and messages: forwarder.pipeline."""

    async def recipient(self, sender: Address | None, address: Address) -> Resolved | Refuse:
        """Where this recipient leads, or the refusal."""

    async def accept(self, envelope: Envelope, resolved: tuple[Resolved, ...], content: Content) -> Reply:
        """The whole life of one message; the reply is for all of its recipients."""

    def heard(self, message: str) -> None:
        """The client has read the 250 to this message, by its id."""


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """What every session of a listener shares. ``tls`` is asked at each STARTTLS, so that a new certificate counts at once."""

    hostname: str
    limits: Limits
    tls: Callable[[], ssl.SSLContext | None]
    default_domain: str
    guesses: Guesses = field(default_factory=lambda: Guesses(Limits().forged_reversible))
    #: Recipients that do not exist.
    unknowns: Guesses = field(default_factory=lambda: Guesses(Limits().unknown_per_hour))
    budget: Budget = field(default_factory=Budget)
    rounds: Rounds = field(default_factory=Rounds)
    shaking: Shaking = field(default_factory=Shaking)
    turns: Turns = field(default_factory=Turns)
    #: Whose limits differ: the first network that fits.
    networks: Sequence[tuple[IPv4Network | IPv6Network, Limits]] = ()
    #: Who is asked about clients; ``None``: nobody.
    callers: Callers | None = None
    door: Door = field(default_factory=Door)
    lenient: Lenient = STANDARD

    @property
    def max_line(self) -> int:
        """Octets of one line of a message, with its CRLF."""
        return MAX_LINE if self.lenient.long_lines else STANDARD_LINE

    def limits_for(self, ip: IPv4Address | IPv6Address) -> Limits:
        """Of a client that comes from there."""
        return next((limits for network, limits in self.networks if ip in network), self.limits)


@dataclass(slots=True)
class _Transaction:
    mail: MailCommand
    recipients: list[Recipient]
    resolved: list[Resolved]
    refused: int = 0
    chunks: Incoming | None = None


class _Closed(Exception):
    """The connection is gone; there is nobody to answer."""


class Session(SMTP):
    """One connection. Made by the server for each client; ``on_end`` is called once when it is over."""

    #: EHLO keywords whose parameters MAIL and RCPT take.
    offered: ClassVar[frozenset[str]] = _OFFERED
    #: What is obeyed, by the command's name. A subclass makes its own with ``commands_of``.
    commands: ClassVar[dict[str, _Method]] = {}
    #: Are recipients that do not exist held against the client's network?
    counts_unknown: ClassVar[bool] = True

    def __init__(
        self,
        settings: EdgeSettings,
        acceptor: Acceptor,
        clock: Clock,
        journal: Journal,
        *,
        loop: asyncio.AbstractEventLoop,
        admit: Callable[[Session], Reply | None],
        on_end: Callable[[Session], None],
        over_limit: OverLimit,
        trust: Trust = NOBODY,
    ) -> None:
        """``admit`` refuses it, or counts it. ``trust``: who may say whose connection it is."""
        # aiosmtpd's own __init__ inspects handler and class anew for every connection (140 to 250 us) and builds a
        # StreamReader that is not used here; only the flow control of its ancestor is needed.
        asyncio.streams.FlowControlMixin.__init__(self, loop)
        self.loop = loop
        self._settings = settings
        self.limits = settings.limits
        self._acceptor = acceptor
        self._clock = clock
        self._journal = journal
        self._admit = admit
        self._on_end = on_end
        self._over_limit = over_limit
        self._trust = trust
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._wakeup: asyncio.Future[None] | None = None
        self._eof = False
        self._gone = False
        self._reading_paused = False
        self._out: list[bytes] = []
        self._unread = Unread(acceptor.heard)
        self._parting = False
        #: Octets of the budget that are ours.
        self._taken = 0
        self._high_water = HIGH_WATER_BETWEEN
        #: What is asked about a client, and about which.
        self._asked: tuple[IPv4Address | IPv6Address, Awaitable[Caller]] | None = None
        self._asked_name: tuple[Peer, Awaitable[HeloCheck | None]] | None = None
        self._deadline = 0.0
        #: What is said when it has passed.
        self._late = reply.TIMED_OUT
        self._session_deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.ip: IPv4Address | IPv6Address = IPv4Address(0)
        #: Where XCLIENT and XFORWARD come from, whoever the client is by them.
        self._origin: IPv4Address | IPv6Address = self.ip
        #: What is said of the client, by XCLIENT until it is said anew, and by XFORWARD of one message.
        self._claimed = self._forwarded = NO_CLAIM
        self._peer: Peer | None = None
        self._tls: Tls | None = None
        self._transaction: _Transaction | None = None
        self._errors = 0
        self._unknown = 0
        self._junk = 0
        self._closing = False
        self._draining = False
        self.idle = True

    @property
    def descriptor(self) -> int:
        """The number of its file; -1: it is closed."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        return sock.fileno() if sock is not None else -1

    # --- the connection ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peername = transport.get_extra_info("peername")
        self.ip = peer_ip(peername[0] if peername else "0.0.0.0")  # noqa: S104 - a stand-in, never bound
        self.limits = self._settings.limits_for(self.ip)
        self._origin = self.ip
        if transport.get_extra_info("ssl_object") is not None:
            self._note_tls(transport)
        now = self.loop.time()
        self._session_deadline = now + self.limits.session_timeout
        self._deadline = now + self.limits.command_timeout
        if self._trust.proxy:
            self._expect_proxy(now)
        self._look_again(now)
        if (refused := self._refuse_stranger() or self._admit(self)) is not None:
            self.say(refused)
            self._flush()
            self._transport.close()
            return
        if not self._trust.proxy:
            self._ask()
        self._task = self.loop.create_task(self.converse())

    def _expect_proxy(self, now: float) -> None:
        self._deadline, self._late = now + PROXY_TIMEOUT, reply.NO_PROXY_HEADER
        # They are the proxy's clients, and each is counted as itself as soon as it is known.
        most = self.limits.sessions
        self.limits = replace(self.limits, sessions_per_address=most, sessions_per_network=most)

    def _refuse_stranger(self) -> Reply | None:
        """Whoever comes past the proxy to a port for proxies could say to be anybody."""
        if not self._trust.proxy or within(self.ip, self._trust.proxy):
            return None
        self._journal.event("proxy.refused", ip=str(self.ip), reason="not a proxy of ours")
        return reply.NOT_A_PROXY

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._unread.messages and self._transport is not None:
            self._unread.spoken(self._transport)
        if len(self._buffer) > self._high_water and not self._reading_paused and self._transport is not None:
            self._transport.pause_reading()
            self._reading_paused = True
        self._wake()

    def eof_received(self) -> bool:
        self._eof = True
        if self._unread.messages and self._transport is not None:
            self._unread.ended(self._transport, parting=self._parting)
        self._wake()
        # A client may close its side behind the final dot and still read our answer (RFC 9293 half-close); TLS cannot.
        return self._tls is None

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()
        self._wake()
        if self._task is None:
            self._on_end(self)

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    def _check_deadline(self) -> None:
        """One timer a session: it looks whether the earliest deadline has passed, and goes back to sleep if not."""
        now = self.loop.time()
        if now < min(self._deadline, self._session_deadline):
            self._look_again(now)
            return
        # While a message is being delivered the client waits for us, not we for it.
        if not self.idle and now < self._session_deadline:
            self._deadline = now + self.limits.command_timeout
            self._look_again(now)
            return
        self._journal.event("session.timeout", ip=str(self.ip), reason=self._late.text)
        self.hang_up(self._late if now < self._session_deadline else reply.TIMED_OUT)

    def _look_again(self, now: float) -> None:
        # A deadline may come nearer without touching the timer, which would cost every message something.
        due = min(self._deadline, self._session_deadline, now + min(_LOOK_AGAIN, self.limits.data_grace or _LOOK_AGAIN))
        self._timer = self.loop.call_at(due, self._check_deadline)

    def hang_up(self, last: Reply) -> None:
        """Say ``last`` and close, from outside the conversation (time out, shutdown)."""
        if self._transport is None or self._gone or self._parting:
            return
        self.say(last)
        self._flush()
        self._transport.close()
        self._eof = True
        self._wake()

    def drain(self) -> None:
        """End this session as soon as no message is on its way through it."""
        self._draining = True
        if self.idle and self._transaction is None:
            self.hang_up(reply.SHUTTING_DOWN)

    async def _more(self) -> None:
        """Wait until more octets are there. Raises _Closed when none will come."""
        if self._gone or self._eof:
            raise _Closed
        self._flush()
        if self._reading_paused and self._transport is not None:
            self._transport.resume_reading()
            self._reading_paused = False
        self._wakeup = self.loop.create_future()
        self.idle = True
        try:
            await self._wakeup
        finally:
            self._wakeup = None
            self.idle = False

    def say(self, answer: Reply) -> None:
        """Queue a reply. The replies to one pipelined group leave in one segment (RFC 2920 section 3.2)."""
        self._out.append(f"{answer}\r\n".encode("ascii", "replace"))

    async def push(self, status: str | bytes) -> None:
        """aiosmtpd's way to answer: one line without its CRLF."""
        self._out.append((status.encode("ascii", "replace") if isinstance(status, str) else status) + b"\r\n")

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self._gone:
            if self._unread.messages:
                # First, as an answer to it may be here as soon as it is written.
                self._unread.leaves(self._transport, buffered=bool(self._buffer))
            self._transport.write(b"".join(self._out))
        self._out.clear()

    async def _part(self) -> None:
        """Where QUIT came along with the final dot (Postfix), only the client's own end tells whether it has read the answer:
        wait a moment for it. Under TLS one side cannot close alone, and nobody waits."""
        transport = self._transport
        if not self._unread.messages or transport is None or self._gone or self._eof or not transport.can_write_eof():
            return
        self._parting = True
        self._wakeup = self.loop.create_future()
        with suppress(OSError):  # a timeout is one, and so is a client that is gone
            transport.write_eof()
            async with asyncio.timeout(_PARTING):
                await self._wakeup

    # --- the conversation --------------------------------------------------------------------------------------------

    async def converse(self) -> None:
        """From the greeting to the end of the connection."""
        try:
            if self._trust.proxy:
                await self._introduce()
            if self._tls is None and await self._speaks_first():
                self._over_limit.tell("greet_delay", self.ip, self.loop.time())
                self._end_with(reply.EARLY_TALKER)
            else:
                self.say(self._greeting())
            while not self._closing:
                line = await self._line()
                if line is not None:
                    await self._obey(line)
                if self._draining and self._transaction is None and not self._closing:
                    self._end_with(reply.SHUTTING_DOWN)
        except _Closed:
            pass
        except Exception as fault:  # noqa: BLE001 - whatever it is, the peer hears 451 and never what it was
            self._fault("session", fault)
            self.say(reply.FAULT)
        finally:
            self._forget()
            self._flush()
            if self._timer is not None:
                self._timer.cancel()
            try:
                await self._part()
            finally:
                if self._transport is not None:
                    self._transport.close()
                self._on_end(self)

    def _greeting(self) -> Reply:
        return Reply(220, None, f"{self._settings.hostname} ESMTP")

    async def _introduce(self) -> None:
        """The proxy says whose connection it is, before anything else is said. Raises _Closed when it does not."""
        try:
            while (said := parse_proxy(bytes(self._buffer))) is None:
                await self._more()
        except ProxyError as error:
            self._journal.event("proxy.refused", ip=str(self.ip), reason=str(error))
            self.say(reply.NO_PROXY_HEADER)
            raise _Closed from error
        del self._buffer[: said.size]
        if not self._is_from(said.ip or self.ip):
            raise _Closed
        self._origin = self.ip
        self._deadline, self._late = self.loop.time() + self.limits.command_timeout, reply.TIMED_OUT

    def _is_from(self, ip: IPv4Address | IPv6Address) -> bool:
        """It is another's connection, and counts as theirs; False: there is no room for them, and they were told."""
        self._on_end(self)
        self.ip = ip
        self.limits = self._settings.limits_for(ip)
        refused = self._admit(self)
        if refused is not None:
            self._end_with(refused)
        else:
            self._ask()
        return refused is None

    def _ask(self) -> Awaitable[Caller] | None:
        """About the client, in the background and once; ``None``: nobody is asked."""
        client = self._forwarded.ip or self.ip
        if self._settings.callers is None:
            return None
        if self._asked is None or self._asked[0] != client:
            self._asked = client, self._settings.callers.look_up(client)
        return self._asked[1]

    async def _caller(self) -> Caller | None:
        """What was found out about it."""
        asked, named = self._ask(), self._ask_name()
        if asked is None:
            return None
        caller = await asyncio.shield(asked)
        helo = await asyncio.shield(named) if named is not None else None
        return caller if helo is None else replace(caller, helo=helo)

    def _ask_name(self) -> Awaitable[HeloCheck | None] | None:
        """About what it calls itself, in the background and once; ``None``: nobody is asked, or it has not said."""
        if self._settings.callers is None or self._peer is None:
            return None
        peer = self._forwarded.applied(self._peer)
        if self._asked_name is None or self._asked_name[0] != peer:
            self._asked_name = peer, self._settings.callers.look_up_helo(peer)
        return self._asked_name[1]

    async def _speaks_first(self) -> bool:
        # RFC 5321 section 3.1: the server speaks first. Whoever does not wait for it hears nobody, and is no mail server.
        if not self._buffer and self.limits.greet_delay:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.limits.greet_delay):
                    await self._more()
        return bool(self._buffer)

    def _fault(self, where: str, fault: Exception) -> None:
        self._journal.event("fault", where=where, kind=type(fault).__name__, detail=str(fault))

    async def _line(self, limit: int = MAX_COMMAND, too_long: Reply = reply.LINE_TOO_LONG) -> bytes | None:
        """The next command line without its CRLF; ``None``: it was answered here."""
        self._deadline, self._late = self.loop.time() + self.limits.command_timeout, reply.TIMED_OUT
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            # RFC 5321 section 4.5.3.1.9: too long is said, not suffered. What comes behind it cannot be told apart.
            if len(self._buffer) > limit or self._buffer.startswith(b"\x16\x03"):
                self._end_with(too_long)
                return None
            searched = len(self._buffer)
            await self._more()
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        if len(line) > limit:
            self._refuse(too_long)
            return None
        if not line.endswith(b"\r\n"):
            # RFC 5321 section 2.3.8: commands end in CRLF. Whoever ends one in LF may be a message that we relay to ourselves.
            self._end_with(reply.BAD_LINE)
            return None
        line = line[:-2]
        if b"\r" in line:
            self._refuse(Reply(501, "5.5.2", "bare CR in a command"))
            return None
        return line

    async def _obey(self, line: bytes) -> None:
        if line.startswith(_HTTP):
            self._end_with(reply.NOT_SMTP)
            return
        verb, _, argument = line.partition(b" ")
        name = verb.decode("latin-1").upper()
        if name in _JUNK:
            self._junk += 1
            if self._junk > self.limits.junk_commands:
                self._over_limit.tell("junk_commands", self.ip, self.loop.time())
                self._end_with(reply.TOO_MANY_ERRORS)
                return
        method = self.commands.get(name)
        if method is None:
            self._refuse(reply.UNKNOWN_COMMAND if verb.isalpha() else Reply(500, "5.5.2", "syntax error"))
            return
        try:
            await method(self, argument.strip(b" "))
        except CommandError as error:
            self._refuse(error.reply)

    def _refuse(self, answer: Reply) -> None:
        """An error of the client's. Too many of them end the session (a scanner, or a peer out of step)."""
        self._errors += 1
        if self._errors >= self.limits.errors:
            self._over_limit.tell("errors", self.ip, self.loop.time())
            self._end_with(reply.TOO_MANY_ERRORS)
        else:
            self.say(answer)

    def _end_with(self, answer: Reply) -> None:
        self.say(answer)
        self._closing = True

    def _forget(self) -> None:
        """The transaction, and what was kept of its message."""
        self._transaction = None
        self._forwarded = NO_CLAIM
        self._settings.budget.give(self._taken)
        self._taken = 0

    def _keep(self, octets: int) -> bool:
        """Is there room for so many octets of this message, with those that it has already?"""
        if octets > self._taken:
            if not self._settings.budget.take(octets - self._taken, self.limits.in_flight):
                self._over_limit.tell("in_flight", self.ip, self.loop.time())
                return False
            self._taken = octets
        return True

    # --- commands ----------------------------------------------------------------------------------------------------

    async def smtp_HELO(self, argument: bytes) -> None:
        if self._is_early():
            return
        self._greet(argument, esmtp=False)
        self.say(Reply(250, None, self._settings.hostname))

    async def smtp_EHLO(self, argument: bytes) -> None:
        if self._is_early():
            return
        self._greet(argument, esmtp=True)
        lines = [self._settings.hostname, *self._keywords()]
        self._out += [f"250-{one}\r\n".encode() for one in lines[:-1]] + [f"250 {lines[-1]}\r\n".encode()]

    def _is_early(self) -> bool:
        # RFC 2920 section 3.1: EHLO ends a group, and before its answer nobody knows that there may be groups.
        if self._buffer:
            self._end_with(reply.EARLY_TALKER)
        return bool(self._buffer)

    def _keywords(self) -> list[str]:
        """What EHLO announces."""
        keywords = [
            "PIPELINING",
            f"SIZE {self.limits.message_size}",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "CHUNKING",
            "DSN",
        ]
        if self._tls is not None:
            # RFC 8689 section 2: where TLS is in use, and nowhere else.
            keywords.append("REQUIRETLS")
        elif self._settings.tls() is not None:
            keywords.append("STARTTLS")
        if within(self._origin, self._trust.xclient):
            keywords.append(" ".join(("XCLIENT", *XCLIENT)))
        if within(self._origin, self._trust.xforward):
            keywords.append(" ".join(("XFORWARD", *XFORWARD)))
        return keywords

    def _greet(self, argument: bytes, *, esmtp: bool) -> None:
        # RFC 5321 section 4.1.3: what has no name is called by its address.
        helo = parse_helo(argument, self._settings.lenient)
        # RFC 5321 section 4.1.4: a second EHLO is as good as RSET.
        self._forget()
        peer = Peer(self.ip, helo or _literal(self.ip), esmtp, self._tls, named=helo is not None)
        self._peer = self._claimed.applied(peer)
        self._ask_name()

    async def smtp_MAIL(self, argument: bytes) -> None:
        if self._peer is None:
            self._refuse(reply.HELO_FIRST)
        elif self._transaction is not None:
            self._refuse(reply.NESTED_MAIL)
        else:
            offered = self.offered | _OFFERED_IN_TLS if self._tls is not None else self.offered
            mail = parse_mail(
                argument, max_size=self.limits.message_size, offered=offered, lenient=self._settings.lenient
            )
            if (refused := self._refuse_sender(mail.sender)) is not None:
                self._refuse(refused)
                return
            if self._settings.budget.held + (mail.size or 0) > self.limits.in_flight:
                # RFC 1870 section 6.1: said before anything of the message has come.
                self._over_limit.tell("in_flight", self.ip, self.loop.time())
                self.say(reply.NO_ROOM)
                return
            self._transaction = _Transaction(mail, [], [])
            self.say(reply.SENDER_OK)

    def _refuse_sender(self, sender: Address | None) -> Reply | None:
        """On port 25 anybody may name any sender: whether it is true is found out from the message."""
        return None

    async def smtp_RCPT(self, argument: bytes) -> None:
        transaction = self._transaction
        if transaction is None:
            self._refuse(reply.MAIL_FIRST)
            return
        rcpt = parse_rcpt(
            argument,
            smtputf8=transaction.mail.smtputf8,
            postmaster_domain=self._settings.default_domain,
            offered=self.offered,
            lenient=self._settings.lenient,
        )
        if len(transaction.recipients) >= self.limits.recipients:
            self._over_limit.tell("recipients", self.ip, self.loop.time())
            self.say(reply.TOO_MANY_RECIPIENTS)
            return
        if any(one.address == rcpt.address for one in transaction.recipients):
            self.say(reply.RECIPIENT_OK)
            return
        asked, client = self.loop.time(), self._forwarded.ip or self.ip
        if self.counts_unknown and self._settings.unknowns.exhausted(client, asked, self.limits.unknown_per_hour):
            # Whoever it is for: a different answer to an address that exists would be what the client is after.
            self._over_limit.tell("unknown_per_hour", client, asked)
            self._end_with(reply.TOO_MANY_UNKNOWN)
            return
        if srs.is_srs(rcpt.address.local) and self._settings.guesses.exhausted(client, asked):
            self._journal.event("rcpt.guessing", ip=str(client))
            self._end_with(reply.TOO_MANY_GUESSES)
            return
        try:
            resolved = await self._acceptor.recipient(transaction.mail.sender, rcpt.address)
            if isinstance(resolved, ToAlias) and (caller := await self._caller()) is not None:
                resolved = screen_caller(resolved.alias, client, caller, self._settings.door) or resolved
        except Exception as fault:  # noqa: BLE001 - a fault of ours is 451, never a lost or refused recipient
            self._fault("recipient", fault)
            self.say(reply.FAULT)
            return
        if isinstance(resolved, Refuse):
            if resolved.forged:
                self._settings.guesses.note(client, asked)
            elif resolved.reply is reply.UNKNOWN_ALIAS:
                self._settings.unknowns.note(client, asked)
            if resolved.reply is reply.BAD_REVERSIBLE:
                # Forged, expired or unknown to the store: the time an answer takes does not tell which.
                blur = _BLUR * secrets.randbelow(1 << 16) / (1 << 16)
                await asyncio.sleep(asked + BAD_REVERSIBLE_AFTER + blur - self.loop.time())
            self._refuse_recipient(transaction, resolved)
            return
        reports = [isinstance(one, ToSender | ToNowhere) for one in (*transaction.resolved, resolved)]
        if len(reports) > 1 and any(reports):
            # Architecture decision 5: one DATA reply cannot tell a report's fate from another recipient's.
            self.say(reply.ONE_BOUNCE_AT_A_TIME)
            return
        transaction.recipients.append(Recipient(rcpt.address, rcpt.notify, rcpt.orcpt))
        transaction.resolved.append(resolved)
        self.say(reply.RECIPIENT_OK)

    def _refuse_recipient(self, transaction: _Transaction, refused: Refuse) -> None:
        transaction.refused += 1
        if refused.reply.code < 500:
            self._over_limit.tell_put_off(refused, self.ip, self.loop.time())
        else:
            self._journal.event("rcpt.refused", ip=str(self.ip), code=refused.reply.code, reason=refused.reason)
            self._unknown += 1
            if self._unknown > self.limits.unknown_recipients:
                self._over_limit.tell("unknown_recipients", self.ip, self.loop.time())
                self._end_with(reply.TOO_MANY_ERRORS)
                return
        self.say(refused.reply)

    async def smtp_DATA(self, argument: bytes) -> None:
        transaction = self._ready_for_data(argument)
        if transaction is None:
            return
        if transaction.chunks is not None:
            # RFC 3030 section 2: DATA and BDAT do not mix in one transaction.
            self._refuse(reply.BAD_SEQUENCE)
            return
        if self._buffer:
            # RFC 2920 section 3.1: DATA ends a pipelined group. Content ahead of the 354 is the mark of a smuggler.
            self._end_with(Reply(503, "5.5.0", "message sent before it was asked for"))
            return
        self.say(reply.GO_AHEAD)
        content = await self._read_to_dot()
        if isinstance(content, Reply):
            self._forget()
            self.say(content)
            return
        await self._finish(transaction, content)

    async def smtp_BDAT(self, argument: bytes) -> None:
        # RFC 3030 section 2. Whatever the answer, the octets that were announced follow and are read.
        size_text, _, last = argument.partition(b" ")
        if not (size_text.isdigit() and len(size_text) <= 12) or last.upper() not in (b"", b"LAST"):
            self._end_with(reply.BAD_ARGUMENT)
            return
        size = int(size_text)
        chunks = self._transaction.chunks if self._transaction is not None else None
        held = chunks.size if chunks is not None else 0
        if held + size > self.limits.message_size:
            self._forget()
            if not await self._skip(size):
                return
            self._refuse(reply.TOO_LARGE)
            return
        transaction = self._ready_for_data(b"")
        if transaction is None:
            # Said before the octets are here: a client that only tried need not send them.
            await self._skip(size)
            return
        if not self._keep(held + size):
            self._forget()
            if await self._skip(size):
                self.say(reply.NO_ROOM)
            return
        chunks = transaction.chunks = transaction.chunks or Incoming(stuffed=False, max_line=self._settings.max_line)
        await self._read_into(chunks, size)
        if last:
            await self._finish(transaction, chunks.finish())
        else:
            self.say(Reply(250, "2.0.0", f"{size} octets received"))

    def _ready_for_data(self, argument: bytes) -> _Transaction | None:
        if argument:
            self._refuse(reply.NO_ARGUMENT)
        elif self._transaction is None:
            self._refuse(reply.MAIL_FIRST)
        elif not self._transaction.recipients:
            self._refuse(reply.NO_VALID_RECIPIENTS if self._transaction.refused else reply.RCPT_FIRST)
        else:
            return self._transaction
        return None

    async def _read_to_dot(self) -> Content | BadOctets | Reply:
        """The message up to and with the CRLF before the final dot, or why it was not kept."""
        begun, taken, searched = self.loop.time(), 0, 0
        incoming: Incoming | None = None
        refused: Reply | BadOctets | None = None
        while (end := find_end(self._buffer, searched, begun=taken > 0)) < 0:
            here = len(self._buffer)
            if refused is None:
                refused = self._refuse_octets(taken + here - HIGH_WATER, taken + here)
            cut = 0
            # The end may be cut in two.
            if refused is not None:
                # Read to the end and thrown away, so that the client hears why.
                incoming, cut = None, max(0, here - 4)
                del self._buffer[:cut]
            elif here >= BLOCK:
                incoming = incoming or Incoming(stuffed=True, max_line=self._settings.max_line)
                cut = here - 4
                await self._settings.rounds.turn(cut)
                incoming.take(self._cut(cut))
                refused = incoming.refused
                if refused is not None:
                    self._give_back()
            taken += cut
            searched = here - cut
            if refused is not None and taken > self.limits.message_size + MAX_OVERRUN:
                self._end_with(refused if isinstance(refused, Reply) else refused.reply)
                raise _Closed
            if len(self._buffer) == searched:
                # Otherwise more came while others had their turn.
                await self._more_of_message(begun, taken + searched)
        if refused is None:
            refused = self._refuse_octets(taken + end, taken + end)
        content: Content | BadOctets | Reply
        if refused is not None:
            content = refused
            del self._buffer[:end]
        elif incoming is not None:
            await self._settings.rounds.turn(end)
            incoming.take(self._cut(end))
            content = incoming.finish()
        else:
            content = read_whole(self._cut(end), stuffed=True, max_line=self._settings.max_line)
        del self._buffer[:3]
        return content

    def _cut(self, size: int) -> bytes:
        """The first octets of what is here."""
        with memoryview(self._buffer) as view:
            octets = bytes(view[:size])
        del self._buffer[:size]
        return octets

    def _refuse_octets(self, size: int, here: int) -> Reply | None:
        """A message of ``size`` octets at least, of which ``here`` are here."""
        if size > self.limits.message_size:
            self._over_limit.tell("message_size", self.ip, self.loop.time())
            refused = reply.TOO_LARGE
        elif not self._keep(here):
            refused = reply.NO_ROOM
        else:
            return None
        self._give_back()
        return refused

    def _give_back(self) -> None:
        """Nothing of the message is kept any more."""
        self._settings.budget.give(self._taken)
        self._taken = 0

    async def _more_of_message(self, begun: float, received: int) -> None:
        """Wait for more of it, not longer than the whole may take, nor longer than its rate allows (``min_data_rate``)."""
        limits = self.limits
        self._deadline, self._late = begun + limits.data_timeout, reply.TIMED_OUT
        if limits.min_data_rate:
            slowest = begun + limits.data_grace + received / limits.min_data_rate
            if slowest < self._deadline:
                self._deadline, self._late = slowest, reply.TOO_SLOW
        self._high_water = HIGH_WATER
        try:
            await self._more()
        finally:
            self._high_water = HIGH_WATER_BETWEEN

    async def _read_into(self, chunks: Incoming, size: int) -> None:
        """The next ``size`` octets, as they come."""
        begun, read = self.loop.time(), 0
        while read < size:
            here = min(size - read, len(self._buffer))
            if here == size - read or here >= BLOCK:
                await self._settings.rounds.turn(here)
                chunks.take(self._cut(here))
                # More may have come while others had their turn.
                read += here
            else:
                await self._more_of_message(begun, read + len(self._buffer))

    async def _skip(self, size: int) -> bool:
        """Read and forget ``size`` octets; False: they are so many that the connection ends instead."""
        if size > self.limits.message_size + MAX_OVERRUN:
            self._end_with(reply.TOO_LARGE)
            return False
        begun, skipped = self.loop.time(), 0
        while skipped < size:
            if not self._buffer:
                await self._more_of_message(begun, skipped)
            taken = min(size - skipped, len(self._buffer))
            del self._buffer[:taken]
            skipped += taken
        return True

    async def _finish(self, transaction: _Transaction, content: Content | BadOctets) -> None:
        """The message is here in whole: its bytes are looked at, the pipeline answers."""
        self._transaction = None
        self._junk = 0
        try:
            await self._answer(transaction, content)
        finally:
            self._forget()

    async def _answer(self, transaction: _Transaction, content: Content | BadOctets) -> None:
        if isinstance(content, BadOctets):
            self._journal.event("data.refused", ip=str(self.ip), reason=content.reply.text)
            # What follows a message with a bare newline may be smuggled commands: they are not obeyed.
            self._end_with(content.reply)
            return
        if (over := self._refuse_header(content.header)) is not None:
            self.say(over)
            return
        envelope = self._envelope(transaction)
        if self._settings.callers is not None:
            envelope = replace(envelope, caller=await self._caller())
        first = transaction.resolved[0]
        alias = first.alias if isinstance(first, ToAlias) else None
        if alias is not None:
            await self._settings.turns.begin(alias, self.limits.alias_at_once)
        try:
            answer = await self._acceptor.accept(envelope, tuple(transaction.resolved), content)
        except Exception as fault:  # noqa: BLE001 - a fault of ours is 451: the sender keeps the message
            self._fault("accept", fault)
            answer = reply.FAULT
        finally:
            if alias is not None:
                self._settings.turns.end(alias)
        if answer.code < 300:
            self._settings.unknowns.forgive(envelope.peer.ip)
            if not (self._trust.proxy or self._claimed is not NO_CLAIM or self._eof):
                # Past a proxy, its own acknowledgement and end are what is seen here.
                self._unread.said(envelope.id)
        self.say(Reply(answer.code, answer.enhanced, f"{answer.text} ({envelope.id})"))

    def _refuse_header(self, header: bytes) -> Reply | None:
        refused = refuse_header(header, self.limits.header_size, self.limits.header_fields)
        if refused is not None:
            limit = "header_size" if refused is reply.HEADER_TOO_LARGE else "header_fields"
            self._over_limit.tell(limit, self.ip, self.loop.time())
            self._journal.event("data.refused", ip=str(self.ip), reason=refused.text)
        return refused

    def _envelope(self, transaction: _Transaction) -> Envelope:
        assert self._peer is not None
        mail = transaction.mail
        return Envelope(
            id=secrets.token_hex(8),
            peer=self._forwarded.applied(self._peer),
            sender=mail.sender,
            recipients=tuple(transaction.recipients),
            received_at=self._clock.now(),
            smtputf8=mail.smtputf8,
            body=mail.body or BodyKind.SEVEN_BIT,
            envid=mail.envid,
            ret=mail.ret,
            require_tls=mail.require_tls,
        )

    async def smtp_XCLIENT(self, argument: bytes) -> None:
        if not within(self._origin, self._trust.xclient):
            self._refuse(reply.UNKNOWN_COMMAND)
        elif self._transaction is not None:
            self._refuse(reply.BAD_SEQUENCE)
        elif not self._is_early():
            self._claimed = parse_claim(argument, XCLIENT)
            self._start_over()
            if self._is_from(self._claimed.ip or self.ip):
                # As if it had connected just now: it says EHLO next.
                self.say(self._greeting())

    def _start_over(self) -> None:
        """It is another client's session from here on."""
        self._peer = None
        self._forget()

    async def smtp_XFORWARD(self, argument: bytes) -> None:
        if not within(self._origin, self._trust.xforward):
            self._refuse(reply.UNKNOWN_COMMAND)
        elif self._transaction is not None:
            self._refuse(reply.BAD_SEQUENCE)
        else:
            self._forwarded = parse_claim(argument, XFORWARD).over(self._forwarded)
            self._ask()
            self._ask_name()
            self.say(reply.OK)

    async def smtp_RSET(self, argument: bytes) -> None:
        if argument:
            self._refuse(reply.NO_ARGUMENT)
            return
        self._forget()
        self.say(reply.OK)

    async def smtp_NOOP(self, argument: bytes) -> None:
        self.say(reply.OK)

    async def smtp_QUIT(self, argument: bytes) -> None:
        if argument:
            self._refuse(reply.NO_ARGUMENT)
            return
        self._end_with(reply.BYE)

    async def smtp_VRFY(self, argument: bytes) -> None:
        if not argument:
            self._refuse(reply.BAD_ARGUMENT)
            return
        self.say(reply.VRFY)

    async def smtp_EXPN(self, argument: bytes) -> None:  # type: ignore[override]  # bytes, not decoded text: see _obey
        self._refuse(reply.NOT_IMPLEMENTED)

    async def smtp_HELP(self, argument: bytes) -> None:
        self.say(reply.HELP)

    async def smtp_AUTH(self, argument: bytes) -> None:
        # Port 25 takes no credentials (RFC 4954 section 4 wants 503 where AUTH is not available); they are not logged either.
        self._refuse(reply.NO_AUTH)

    async def smtp_STARTTLS(self, argument: bytes) -> None:
        context = self._settings.tls()
        if argument:
            self._refuse(reply.NO_ARGUMENT)
        elif self._tls is not None:
            self._refuse(reply.TLS_ALREADY)
        elif context is None:
            self._refuse(reply.NOT_IMPLEMENTED)
        elif self._buffer:
            # RFC 3207 section 4.2: what was pipelined behind STARTTLS was sent in the clear, by whomever.
            self._end_with(reply.PIPELINED_TLS)
        elif not self._settings.shaking.begin(self.ip, self._settings.limits.handshakes):
            self._over_limit.tell("handshakes", self.ip, self.loop.time())
            self.say(reply.TLS_BUSY)
        else:
            try:
                await self._start_tls(context)
            finally:
                self._settings.shaking.end(self.ip)

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        assert self._transport is not None
        self.say(reply.START_TLS)
        self._flush()
        try:
            # The loop's own TLS costs a tenth of the memory that aiosmtpd's sslproto takes a connection.
            transport = await self.loop.start_tls(
                self._transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=self.limits.handshake_timeout,
            )
        except (OSError, ssl.SSLError, ConnectionError) as error:
            self._journal.event("tls.failed", ip=str(self.ip), reason=type(error).__name__)
            raise _Closed from error
        if transport is None:
            raise _Closed
        self._transport = transport
        # RFC 3207 section 4.2: everything learned before is forgotten. The buffer was empty before the handshake, and what
        # is in it now came through TLS.
        self._peer = None
        self._forget()
        self._note_tls(transport)

    def _note_tls(self, transport: asyncio.BaseTransport) -> None:
        cipher = transport.get_extra_info("cipher") or ("unknown", "unknown", 0)
        tls = transport.get_extra_info("ssl_object")
        self._tls = Tls((tls.version() if tls is not None else None) or cipher[1], cipher[0])


def commands_of(session: type[Session]) -> dict[str, _Method]:
    """Its ``smtp_X`` methods, and those of Session; what aiosmtpd has besides is not obeyed."""
    own = {name for one in (Session, session) for name in vars(one) if name.startswith("smtp_")}
    return {name.removeprefix("smtp_"): cast("Any", getattr(session, name)) for name in own}


Session.commands = commands_of(Session)


def _literal(ip: IPv4Address | IPv6Address) -> str:
    return f"[{ip}]" if ip.version == 4 else f"[IPv6:{ip}]"


def peer_ip(text: str) -> IPv4Address | IPv6Address:
    """The client's address; an IPv4 address that came through an IPv6 socket is IPv4 (RFC 4291 section 2.5.5.2)."""
    ip = ip_address(text.partition("%")[0])
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip
