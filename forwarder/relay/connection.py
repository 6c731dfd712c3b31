"""What happens on one connection to a next hop? ``smtp.client`` over a socket: connect, STARTTLS, send, QUIT, and time-outs.

A Connection is an asyncio Protocol: bytes go to the client as they come, its events wait in line for the one coroutine that
uses the connection. Nothing here raises for what the network or the peer does: ``open_connection`` gives a NoSession,
``send`` a Broken. Whatever else ends a coroutine here (a cancelled attempt) takes the connection with it, as nobody could
know what its next reply belongs to.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address
from typing import cast

from forwarder.failpoints import reach
from forwarder.model import Reply, Tls, TlsResult
from forwarder.relay.certificate import certificate_fault
from forwarder.relay.mx import LOOP, Target
from forwarder.relay.settings import RelaySettings, Timeouts
from forwarder.relay.tls import Dane, NoTls, TlsPolicy, Verified, client_context
from forwarder.smtp.client import (
    Broken,
    Closed,
    Event,
    Extensions,
    Finished,
    GoAhead,
    LoggedIn,
    LoginRefused,
    Mail,
    Phase,
    Ready,
    Refused,
    SmtpClient,
    StartTls,
    TlsRefused,
    last_chunk,
)
from forwarder.smtp.login import Login, choose_mechanism
from forwarder.smtp.stuffing import stuff, stuffed

__all__ = ["BeforeDot", "Connection", "NoSession", "open_connection"]

#: Awaited when the next hop is ready for the message, before its first octet goes out.
BeforeDot = Callable[[], Awaitable[None]]

#: Octets handed to the transport at once; for each such block the next hop has ``Timeouts.block``.
BLOCK = 256 * 1024
_NEVER = math.inf
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


_NO_OFFER = TlsResult.NOT_SUPPORTED
#: openssl-verification-options(1), X509_V_ERR_...: not yet valid, expired; issuers that are unknown, missing or not trusted.
_VERIFY_CODES = dict.fromkeys((9, 10), TlsResult.EXPIRED) | dict.fromkeys(
    (2, 18, 19, 20, 21, 27), TlsResult.NOT_TRUSTED
)


@dataclass(frozen=True, slots=True)
class NoSession:
    """This host could not be used. ``reached``: there was a TCP connection. ``tls_failed``: and it broke over TLS.
    ``login_failed``: it does not know us, which is ours to set right; so there is no ``reply``, whatever it said. ``ours``: we
    had no file or port left, which says nothing about the host. ``tls`` is how TLS went, ``None`` where it never came to that."""

    reason: str
    reply: Reply | None = None
    reached: bool = True
    ours: bool = False
    tls_failed: bool = False
    login_failed: bool = False
    tls: TlsResult | None = None


# RFC 5321 section 5.1: not by its address, which may be one that we do not know as ours.
_OURSELVES = NoSession("the host goes by our own name", LOOP)


async def open_connection(target: Target, policy: TlsPolicy, settings: RelaySettings) -> Connection | NoSession:
    """Connect, be greeted, start TLS as far as ``policy`` asks and the host goes along, and log in where we have a login."""
    loop = asyncio.get_running_loop()
    connection = Connection(loop, target, settings)
    source = next((str(one) for one in settings.sources if one.version == ip_address(target.address).version), None)
    try:
        async with asyncio.timeout(settings.timeouts.connect):
            # TCP_NODELAY is what both event loops set.
            await loop.create_connection(
                lambda: connection, target.address, target.port, local_addr=(source, 0) if source else None
            )
    except TimeoutError:
        return NoSession("connection timed out", reached=False)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "no connection"
        return NoSession(reason, reached=False, ours=error.errno in _OURS)
    try:
        failure = await connection.greet(policy)
        if failure is None and not settings.smarthost and connection.is_ourselves:
            failure = _OURSELVES
        if failure is None and settings.smarthost_login is not None:
            failure = await connection.log_in(settings.smarthost_login)
    except BaseException:
        connection.abort()
        raise
    if failure is not None:
        connection.close()
        return failure
    return connection


class Connection(asyncio.Protocol):
    """One SMTP session, used by one coroutine at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: Target, settings: RelaySettings) -> None:
        self._loop = loop
        self._client = SmtpClient(settings.hostname, implicit_tls=settings.smarthost_implicit)
        self._hostname = settings.hostname.lower().rstrip(".")
        self._timeouts = settings.timeouts
        self._seconds = _seconds_by_phase(settings.timeouts)
        self._transport: asyncio.Transport | None = None
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._message: Sequence[bytes] | None = None
        self._chunked = False
        self._paused = False
        self._closing = False
        self._deadline = _NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER
        self.target = target
        self.policy: TlsPolicy = NoTls()
        self.tls: Tls | None = None
        self.opened_at = self.idle_since = loop.time()
        self.messages = 0
        #: Done when the socket is gone.
        self.gone: asyncio.Future[None] = loop.create_future()

    @property
    def usable(self) -> bool:
        """Greeted, nothing under way, and alive as far as anyone knows."""
        return not self._closing and self._client.phase is Phase.IDLE

    @property
    def is_ourselves(self) -> bool:
        """Does it go by our own name?"""
        return self._client.server_name.lower().rstrip(".") == self._hostname

    @property
    def extensions(self) -> Extensions:
        """What the next hop offers."""
        return self._client.extensions

    # --- what the coroutine does

    async def greet(self, policy: TlsPolicy) -> NoSession | None:
        """From the greeting to the last EHLO; ``None``: now ``send``."""
        self.policy = policy
        if self._client.phase is Phase.TLS:
            return await self._start_tls(policy)
        self._arm()
        event = await self._event()
        if not isinstance(event, Ready):
            return _no_session(event)
        if isinstance(policy, NoTls):
            return None
        if not event.extensions.starttls:
            return NoSession("TLS is required and not offered", tls=_NO_OFFER) if policy.required else None
        self._client.start_tls()
        self._flush()
        event = await self._event()
        if isinstance(event, TlsRefused):
            # RFC 3207 section 4: whether to go on without it is for the client to decide. A 5xx is not about the message.
            reason = f"TLS is required and refused: {event.reply.code}"
            return NoSession(reason, tls=_NO_OFFER) if policy.required else None
        if not isinstance(event, StartTls):
            return _no_session(event)
        return await self._start_tls(policy)

    async def log_in(self, login: Login) -> NoSession | None:
        """AUTH (RFC 4954); ``None``: done. A password leaves this host over TLS with a verified certificate only."""
        verified = self.tls is not None and self.policy.verified
        if not (verified or ip_address(self.target.address).is_loopback):
            return NoSession("no login without verified TLS", login_failed=True)
        if choose_mechanism(self.extensions.auth) is None:
            return NoSession("neither AUTH PLAIN nor LOGIN is offered", login_failed=True)
        self._client.log_in(login)
        self._flush()
        event = await self._event()
        match event:
            case LoggedIn():
                return None
            case LoginRefused(reply):
                # Its text may be what we sent.
                return NoSession(
                    f"the login was refused: {reply.code} {reply.enhanced or ''}".rstrip(), login_failed=True
                )
            case _:
                return replace(_no_session(event), reply=None, login_failed=True)

    async def send(
        self, mail: Mail, chunks: Sequence[bytes], before_dot: BeforeDot | None = None, *, may_be_dead: bool = False
    ) -> Finished | Broken:
        """One transaction. Where ``mail`` has a head, that is the first of ``chunks``. ``may_be_dead``: a first answer that does
        not come at once is taken for a connection that is gone, which a firewall's end of patience tells nobody."""
        try:
            self.messages += 1
            self._chunked = bool(mail.head)
            self._client.begin(mail)
            if before_dot is None and mail.size <= BLOCK:
                # Then the message goes out as soon as the 354 is there, without waking anybody.
                self._message = chunks
            self._flush(self._timeouts.reused if may_be_dead else _NEVER)
            event = await self._event()
            self._message = None
            if isinstance(event, GoAhead):
                if before_dot is not None:
                    await before_dot()
                event = await self._send_message(chunks)
        except BaseException:
            self.abort()
            raise
        assert isinstance(event, (Finished, Broken)), "nothing else ends a transaction"
        return event

    def close(self) -> None:
        """QUIT where that can be said, and go; ``gone`` tells when."""
        if self._closing:
            return
        if self._client.phase is not Phase.IDLE:
            self.abort()
            return
        self._closing = True
        self._client.quit()
        self._flush()

    def cut(self, reason: str) -> Broken | None:
        """How far the transaction got that its ``send`` was cancelled in; ``None``: it had not begun."""
        finished = next((one for one in self._events if isinstance(one, Finished)), None)
        broken = next((one for one in self._client.lost(reason) if isinstance(one, Broken)), None)
        if finished is not None:
            # All had been answered in that very moment, and nobody read it any more.
            return Broken(Phase.END, reason, answers=finished.answers, dot_sent=True)
        return broken if broken is not None and broken.answers else None

    def abort(self) -> None:
        """Go now."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    async def _start_tls(self, policy: TlsPolicy) -> NoSession | None:
        if self._events:
            # Bytes came in clear behind the reply to STARTTLS.
            return _no_session(self._events.popleft())
        assert self._transport is not None
        # RFC 7672 section 8.1: the name under which the records are.
        host = policy.base if isinstance(policy, Dane) else self.target.host
        try:
            transport = await self._loop.start_tls(
                self._transport,
                self,
                client_context(policy),
                server_hostname=None if host.startswith("[") else host,
                ssl_handshake_timeout=self._timeouts.tls,
            )
        except (OSError, ValueError) as error:
            return _handshake_failure(error)
        if transport is None:
            return NoSession("TLS handshake failed: connection closed", tls_failed=True, tls=TlsResult.FAILURE)
        self._transport = transport
        session: ssl.SSLObject = transport.get_extra_info("ssl_object")
        cipher = session.cipher()
        self.tls = Tls(session.version() or "", cipher[0] if cipher else "")
        if fault := certificate_fault(policy, session):
            result = TlsResult.HOST_MISMATCH if isinstance(policy, Verified) else TlsResult.FAILURE
            return NoSession(fault, tls_failed=True, tls=result)
        self._client.tls_started()
        self._flush()
        event = await self._event()
        if isinstance(event, Ready):
            return None
        # In TLS 1.3 our side is done before the server has made up its mind: a close here is a failed handshake too.
        failure = _no_session(event)
        lost = failure.reply is None
        return NoSession(failure.reason, failure.reply, tls_failed=lost, tls=TlsResult.FAILURE if lost else None)

    async def _send_message(self, chunks: Sequence[bytes]) -> Event:
        if sum(map(len, chunks)) <= BLOCK:
            pieces = self._pieces(chunks)
        else:
            # The last block goes with the end: behind a chunk there is no dot, and its last octet may deliver the message.
            pieces = []
            for block in self._blocks(chunks):
                for piece in pieces:
                    event = await self._write_block(piece)
                    if event is not None:
                        return event
                pieces = [block]
        if not self._events:
            self._write_end(pieces)
            self._arm()
        return await self._event()

    def _blocks(self, chunks: Sequence[bytes]) -> Iterator[bytes | memoryview]:
        """A large message, block by block: dots are stuffed as it leaves, and the loop is held up by one block at a time."""
        if self._chunked:
            return _cut(self._pieces(chunks))
        return stuffed(map(bytes, _cut(chunks)))

    def _pieces(self, chunks: Sequence[bytes]) -> list[bytes | memoryview]:
        """What is still to be written of the message."""
        if not self._chunked:
            return [*stuff(chunks)]
        rest = chunks[1:]
        return [last_chunk(sum(map(len, rest))), *rest]

    def _write_end(self, pieces: list[bytes | memoryview]) -> None:
        """What there is of the message, and the final dot."""
        assert self._transport is not None
        reach("K4")
        if not self._transport.is_closing():
            pieces.append(self._client.finish_message())
            self._transport.writelines(pieces)

    async def _write_block(self, block: bytes | memoryview) -> Event | None:
        """An event: the server did not want to hear all of it."""
        assert self._transport is not None
        if not self._events:
            if self._transport.is_closing():
                return await self._event()
            self._transport.write(block)
            # RFC 5321 section 4.5.3.2.5.
            self._arm(self._timeouts.block)
            # Once in any case: let the loop read what the server may have to say.
            await asyncio.sleep(0)
            while self._paused and not self._events:
                await self._wait()
            self._arm()
        return self._events.popleft() if self._events else None

    # --- events and time

    async def _event(self) -> Event:
        while not self._events:
            await self._wait()
        return self._events.popleft()

    def _wait(self) -> asyncio.Future[None]:
        """Until there is an event, or the transport takes more."""
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _put(self, event: Event) -> None:
        if isinstance(event, (Broken, Closed)):
            self._drop()
        self._events.append(event)
        self._wake()

    def _drop(self) -> None:
        self._closing = True
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()

    def _flush(self, most: float = _NEVER) -> None:
        if output := self._client.take_output():
            assert self._transport is not None
            if not self._transport.is_closing():
                self._transport.write(output)
        self._arm(most)

    def _arm(self, most: float = _NEVER) -> None:
        """Give the peer as long as it has for what is owed now, and ``most`` seconds. The timer is let run out and looked at
        then: far cheaper than a new one for each reply."""
        self._deadline = deadline = self._loop.time() + min(self._seconds[self._client.phase], most)
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline
            self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, _NEVER
        if self._deadline == _NEVER:
            return
        if self._deadline > self._loop.time():
            self._timer_at = self._deadline
            self._timer = self._loop.call_at(self._deadline, self._on_timer)
            return
        for event in self._client.lost(f"timed out: {self._client.phase.value}"):
            self._put(event)
        self.abort()

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of it.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        client = self._client
        if client.phase is Phase.END:
            reach("K5")
        replies = client.replies
        for event in client.receive_data(data):
            if self._message is not None and isinstance(event, GoAhead) and client.phase is Phase.BODY:
                message, self._message = self._message, None
                self._write_end(self._pieces(message))
            else:
                self._put(event)
        if client.replies != replies or client.over:
            self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for event in self._client.lost("connection lost" if exc else "connection closed"):
            self._put(event)
        if not self.gone.done():
            self.gone.set_result(None)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()


def _handshake_failure(error: OSError | ValueError) -> NoSession:
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"TLS certificate is not valid: {error.verify_message}"
        return NoSession(reason, tls_failed=True, tls=_VERIFY_CODES.get(error.verify_code, TlsResult.FAILURE))
    reason = f"TLS handshake failed: {getattr(error, 'reason', None) or type(error).__name__}"
    return NoSession(reason, tls_failed=True, tls=TlsResult.FAILURE)


def _no_session(event: Event) -> NoSession:
    match event:
        case Refused(phase, reply):
            return NoSession(f"refused: {phase.value}", reply)
        case Broken(phase, reason, reply):
            return NoSession(f"{reason} ({phase.value})", reply)
        case _:
            return NoSession("unexpected reply")


def _cut(pieces: Sequence[bytes | memoryview]) -> Iterator[memoryview]:
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), BLOCK):
            yield view[start : start + BLOCK]


@lru_cache(maxsize=16)
def _seconds_by_phase(timeouts: Timeouts) -> dict[Phase, float]:
    return dict.fromkeys(Phase, _NEVER) | {
        Phase.GREETING: timeouts.greeting,
        Phase.EHLO: timeouts.ehlo,
        Phase.HELO: timeouts.ehlo,
        Phase.STARTTLS: timeouts.ehlo,
        Phase.AUTH: timeouts.ehlo,
        Phase.RSET: timeouts.mail,
        Phase.MAIL: timeouts.mail,
        Phase.RCPT: timeouts.rcpt,
        Phase.DATA: timeouts.data,
        Phase.END: timeouts.dot,
        Phase.NO_MESSAGE: timeouts.dot,
        Phase.QUIT: timeouts.quit,
        Phase.OVER: timeouts.quit,
    }
