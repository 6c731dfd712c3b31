"""Where do we listen, and how do we stop? The listening sockets and the sessions on them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress

from forwarder.accepting import BACKLOG, GRACE, Accepting
from forwarder.edge.conversation import Acceptor, EdgeSettings, peer_ip
from forwarder.edge.limits import uses_others_files
from forwarder.edge.overlimit import OverLimit
from forwarder.edge.seats import Seats
from forwarder.edge.session import Session
from forwarder.edge.trust import NOBODY, Trust
from forwarder.handshakes import Handshakes
from forwarder.model import Reply
from forwarder.ports import Clock, Journal
from forwarder.smtp import reply

__all__ = ["EdgeServer", "bind", "hang_up", "turn_away"]


def bind(address: str, *, reuse_port: bool = False, listen: bool = True) -> socket.socket:
    """A listening socket on "ip:port" or "[ip6]:port"; with ``reuse_port`` one of several, among which the kernel spreads those
    who connect (SO_REUSEPORT). Raises OSError."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, int(port)))
        if listen:
            sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def turn_away(sock: socket.socket) -> None:
    """421 for those who are connected, and whom nobody has taken: closing the socket would break their connection."""
    hang_up(sock, f"{reply.SHUTTING_DOWN}\r\n".encode())


def hang_up(sock: socket.socket, last_words: bytes = b"") -> None:
    """The same for those who would not understand 421."""
    sock.setblocking(False)
    for _ in range(BACKLOG):
        try:
            client, _ = sock.accept()
        except OSError:
            return
        with client, suppress(OSError):
            client.setblocking(False)
            client.send(last_words)


class EdgeServer:
    """Accepts clients on sockets that are bound already. All its sessions have the same settings, to their end."""

    def __init__(
        self,
        settings: EdgeSettings,
        acceptor: Acceptor,
        clock: Clock,
        journal: Journal,
        *,
        session: Callable[..., Session] = Session,
        seats: Seats | None = None,
    ) -> None:
        """``session``: what speaks to each client (a submission listener has its own). ``seats``: shared with other servers."""
        self._session = session
        self._settings = settings
        self._acceptor = acceptor
        self._clock = clock
        self._journal = journal
        self._sessions: set[Session] = set()
        self._seats = seats or Seats()
        self._over_limit = OverLimit(journal)
        self._handshakes = Handshakes(
            settings.limits.handshake_timeout,
            self._full,
            self._seats.handshakes,
            lambda host: settings.shaking.end(peer_ip(host)),
        )
        self._accepting = Accepting(self._new_session)
        #: By the address of a listening socket.
        self._trusts: dict[object, Trust] = {}
        self._draining = False
        self._empty = asyncio.Event()

    async def start(
        self, sockets: Sequence[socket.socket], *, tls: ssl.SSLContext | None = None, trust: Trust = NOBODY
    ) -> None:
        """Begin to accept; with ``tls``, clients that speak TLS from the first octet (RFC 8314 section 3.3). ``trust``: who may
        say who the client is, in clear text only."""
        for sock in sockets:
            if tls is not None:
                self._handshakes.accept(sock, self._new_session, tls)
            else:
                place = sock.getsockname()
                self._trusts[place] = trust
                await self._accepting.start(sock, place)

    def _new_session(self, place: object = None) -> Session:
        return self._session(
            self._settings,
            self._acceptor,
            self._clock,
            self._journal,
            loop=asyncio.get_running_loop(),
            admit=self._admit,
            on_end=self._ended,
            over_limit=self._over_limit,
            trust=self._trusts.get(place, NOBODY),
        )

    def __len__(self) -> int:
        return len(self._sessions)

    def _full(self, sock: socket.socket) -> bool:
        if self._draining or uses_others_files(sock.fileno()):
            return True
        limits, loop = self._settings.limits, asyncio.get_running_loop()
        try:
            ip = peer_ip(sock.getpeername()[0])
        except OSError:
            return True  # it is gone already
        if len(self._seats.sessions) + len(self._handshakes) >= limits.sessions:
            self._over_limit.tell("sessions", ip, loop.time())
            return True
        if not self._settings.shaking.begin(ip, limits.handshakes):
            self._over_limit.tell("handshakes", ip, loop.time())
            return True
        return False

    def _admit(self, session: Session) -> Reply | None:
        if self._draining:
            return reply.SHUTTING_DOWN
        over = "open files" if uses_others_files(session.descriptor) else self._seats.take(session)
        if over is not None:
            self._over_limit.tell(over, session.ip, session.loop.time())
            return reply.TOO_MANY_SESSIONS
        self._sessions.add(session)
        return None

    def _ended(self, session: Session) -> None:
        self._sessions.discard(session)
        self._seats.give(session)
        if not self._sessions:
            self._empty.set()

    def leave(self, heir: EdgeServer | None = None) -> None:
        """Accept nothing more. Whoever is connected stays, and hears nothing of it; ``heir`` has whoever comes."""
        self._accepting.leave(heir._accepting if heir is not None else None)
        self._handshakes.leave()

    async def ended(self) -> None:
        """When the last session is over, after ``leave``."""
        await asyncio.sleep(GRACE)
        await self._handshakes.ended()
        while self._sessions:
            self._empty.clear()
            await self._empty.wait()

    def hurry(self) -> None:
        """421 between two messages, for everyone who is connected, and for who still comes."""
        self._draining = True
        for session in list(self._sessions):
            session.drain()

    async def drain(self, seconds: float) -> None:
        """Stop accepting, tell idle clients 421, let transactions that run finish, and end the rest after ``seconds``."""
        self._draining = True
        self.leave()
        self._handshakes.close()
        self.hurry()
        if self._sessions:
            self._empty.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._empty.wait()
            except TimeoutError:
                self._journal.event("drain.timeout", sessions=len(self._sessions))
                for session in list(self._sessions):
                    session.hang_up(reply.SHUTTING_DOWN)
        self._accepting.close()
