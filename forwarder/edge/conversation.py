"""How do octets become commands, and replies octets? The connection of one SMTP session, its time and its limits; what each
command means is session's.

    Conversation.converse   reads a command line, calls ``smtp_<COMMAND>``, collects the replies of a pipelined group

It subclasses aiosmtpd's SMTP and keeps its shape (``smtp_X`` methods, ``push``), but not its session loop: that turns a
handler's fault into a permanent 500, cancels a delivery when the client hangs up, and obeys commands that end in a bare LF
(docs/decisions/0002-edge.md).

A client that hangs up never cancels anything: the connection ends, ``converse`` goes on to the end of its command, and a
message whose last octet arrived is delivered all the same.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, ClassVar, Protocol, cast

from aiosmtpd.smtp import SMTP

from forwarder.edge.budget import Budget
from forwarder.edge.data import MAX_LINE, STANDARD_LINE, Incoming
from forwarder.edge.guesses import Guesses
from forwarder.edge.limits import Limits
from forwarder.edge.overlimit import OverLimit
from forwarder.edge.proxy import ProxyError, parse_proxy
from forwarder.edge.shaking import Shaking
from forwarder.edge.trust import NOBODY, Trust, within
from forwarder.edge.turns import Turns
from forwarder.edge.unread import Unread
from forwarder.kept import Kept
from forwarder.model import Address, Caller, Content, Envelope, HeloCheck, Peer, Recipient, Refuse, Reply, Tls
from forwarder.ports import Callers, Clock, Journal
from forwarder.rounds import Rounds
from forwarder.route import Resolved
from forwarder.screen import Door
from forwarder.smtp import reply
from forwarder.smtp.commands import CommandError, MailCommand
from forwarder.smtp.lenient import STANDARD, Lenient
from forwarder.smtp.xclient import NO_CLAIM

__all__ = [
    "HIGH_WATER_BETWEEN",
    "Acceptor",
    "Closed",
    "Conversation",
    "EdgeSettings",
    "Method",
    "Transaction",
    "peer_ip",
]

Method = Callable[[Any, bytes], Awaitable[None]]
#: Octets of a command line: RFC 5321 section 4.5.3.1.4 says 512, the extensions we offer add to it (RFC 1870, 3461, 6531).
MAX_COMMAND = 2048
#: Octets that wait unread before the client is made to wait, between messages, where they count for nobody.
HIGH_WATER_BETWEEN = 64 * 1024
#: Seconds until a timer looks again whether a deadline came nearer meanwhile.
_LOOK_AGAIN = 5.0
#: Seconds that a client has to close its side behind QUIT, where that tells whether it has read what it sent QUIT along with.
_PARTING = 1.0
#: Seconds for a proxy to say whose connection it is; it does so at once.
PROXY_TIMEOUT = 5.0
_HTTP = (b"GET ", b"POST ", b"HEAD ", b"PUT ", b"OPTIONS ", b"CONNECT ", b"DELETE ", b"PRI ")
#: As a number: to look for one octet as octets costs an exception within Python.
_CR = 0x0D
#: Clients that are remembered, and characters of an address: an IPv6 address and its zone.
_MAX_CLIENTS, _MAX_CLIENT = 4096, 64
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
    #: What the kernel calls a client: its address, and its limits. Whoever comes comes again.
    clients: Kept[str, tuple[IPv4Address | IPv6Address, Limits]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        clients = Kept(self._client, most=_MAX_CLIENTS, longest=_MAX_CLIENT)
        object.__setattr__(self, "clients", clients)

    def _client(self, text: str) -> tuple[IPv4Address | IPv6Address, Limits]:
        ip = peer_ip(text)
        return ip, self.limits_for(ip)

    @property
    def max_line(self) -> int:
        """Octets of one line of a message, with its CRLF."""
        return MAX_LINE if self.lenient.long_lines else STANDARD_LINE

    def limits_for(self, ip: IPv4Address | IPv6Address) -> Limits:
        """Of a client that comes from there."""
        return next((limits for network, limits in self.networks if ip in network), self.limits)


@dataclass(slots=True)
class Transaction:
    """What MAIL and RCPT have said of the message that is to come, and what BDAT has brought of it."""

    mail: MailCommand
    recipients: list[Recipient]
    resolved: list[Resolved]
    refused: int = 0
    chunks: Incoming | None = None


class Closed(Exception):
    """The connection is gone; there is nobody to answer."""


class Conversation(SMTP):
    """One connection: octets in, replies out, in time. Made by the server for each client; ``on_end`` is called once when it
    is over."""

    #: What is obeyed, by the command's name.
    commands: ClassVar[dict[str, Method]] = {}

    # What an ordinary session leaves as it is, or sets when it comes to it. Here, as each connection would set all of it.
    _transport: asyncio.Transport | None = None
    #: The number of its file.
    descriptor = -1
    _wakeup: asyncio.Future[None] | None = None
    _eof = False
    _gone = False
    _reading_paused = False
    _parting = False
    #: Octets of the budget that are ours.
    _taken = 0
    _high_water = HIGH_WATER_BETWEEN
    #: What is asked about a client, and about which.
    _asked: tuple[IPv4Address | IPv6Address, Awaitable[Caller]] | None = None
    _asked_name: tuple[Peer, Awaitable[HeloCheck | None]] | None = None
    _deadline = 0.0
    #: What is said when it has passed.
    _late = reply.TIMED_OUT
    _session_deadline = 0.0
    _timer: asyncio.TimerHandle | None = None
    _task: asyncio.Task[None] | None = None
    ip: IPv4Address | IPv6Address = IPv4Address(0)
    #: Where XCLIENT and XFORWARD come from, whoever the client is by them.
    _origin = ip
    #: What is said of the client, by XCLIENT until it is said anew, and by XFORWARD of one message.
    _claimed = NO_CLAIM
    _forwarded = NO_CLAIM
    _peer: Peer | None = None
    _tls: Tls | None = None
    _transaction: Transaction | None = None
    _errors = 0
    _unknown = 0
    _junk = 0
    _closing = False
    _draining = False
    idle = True

    def __init__(
        self,
        settings: EdgeSettings,
        acceptor: Acceptor,
        clock: Clock,
        journal: Journal,
        *,
        loop: asyncio.AbstractEventLoop,
        admit: Callable[[Conversation], Reply | None],
        on_end: Callable[[Conversation], None],
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
        self._buffer = bytearray()
        self._out: list[bytes] = []

    # --- the connection ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.descriptor = transport.get_extra_info("socket").fileno()
        self._unread = Unread(self._acceptor.heard, self.descriptor)
        peername = transport.get_extra_info("peername")
        self.ip, self.limits = self._settings.clients[peername[0] if peername else "0.0.0.0"]  # noqa: S104 - never bound
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

    def _note_tls(self, transport: asyncio.BaseTransport) -> None:
        cipher = transport.get_extra_info("cipher") or ("unknown", "unknown", 0)
        tls = transport.get_extra_info("ssl_object")
        self._tls = Tls((tls.version() if tls is not None else None) or cipher[1], cipher[0])

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
        """Wait until more octets are there. Raises Closed when none will come."""
        if self._gone or self._eof:
            raise Closed
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
        if not self._out:
            return
        if self._transport is not None and not self._gone:
            if self._unread.messages:
                # First, as an answer to it may be here as soon as it is written.
                self._unread.leaves(buffered=bool(self._buffer))
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
        except Closed:
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
        """The proxy says whose connection it is, before anything else is said. Raises Closed when it does not."""
        try:
            while (said := parse_proxy(bytes(self._buffer))) is None:
                await self._more()
        except ProxyError as error:
            self._journal.event("proxy.refused", ip=str(self.ip), reason=str(error))
            self.say(reply.NO_PROXY_HEADER)
            raise Closed from error
        del self._buffer[: said.size]
        if not self._is_from(said.ip or self.ip):
            raise Closed
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
        if self._forwarded.ip is not None and self._forwarded.helo is None:
            # XFORWARD has named the client and not yet what it said: the name that is here is the relay's own.
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
        buffer = self._buffer
        end = buffer.find(b"\n")
        if end < 0:
            self._deadline, self._late = self.loop.time() + self.limits.command_timeout, reply.TIMED_OUT
        while end < 0:
            # RFC 5321 section 4.5.3.1.9: too long is said, not suffered. What comes behind it cannot be told apart.
            searched = len(buffer)
            if searched and (searched > limit or buffer.startswith(b"\x16\x03")):
                self._end_with(too_long)
                return None
            await self._more()
            end = buffer.find(b"\n", searched)
        line = bytes(buffer[: end + 1])
        del buffer[: end + 1]
        if end >= limit:
            self._refuse(too_long)
            return None
        if not line.endswith(b"\r\n"):
            # RFC 5321 section 2.3.8: commands end in CRLF. Whoever ends one in LF may be a message that we relay to ourselves.
            self._end_with(reply.BAD_LINE)
            return None
        line = line[:-2]
        if _CR in line:
            self._refuse(Reply(501, "5.5.2", "bare CR in a command"))
            return None
        return line

    async def _obey(self, line: bytes) -> None:
        verb, _, argument = line.partition(b" ")
        name = verb.decode("latin-1").upper()
        if name in _JUNK:
            self._junk += 1
            if self._junk > self.limits.junk_commands:
                self._over_limit.tell("junk_commands", self.ip, self.loop.time())
                self._end_with(reply.TOO_MANY_ERRORS)
                return
        method = self.commands.get(name)
        if method is None and line.startswith(_HTTP):
            self._end_with(reply.NOT_SMTP)
            return
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
        if self._taken:
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


def peer_ip(text: str) -> IPv4Address | IPv6Address:
    """The client's address; an IPv4 address that came through an IPv6 socket is IPv4 (RFC 4291 section 2.5.5.2)."""
    ip = ip_address(text.partition("%")[0])
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip
