"""How does a user of ours hand us mail? The session of port 25 with AUTH before it: RFC 6409, RFC 4954, RFC 8314.

Nobody sends here without an identity, and no identity sends with a sender that it does not own: that is said at MAIL, with 553.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, ClassVar

from forwarder.edge.auth import MAX_EXCHANGE, Authenticator, Given, decode, parse_plain
from forwarder.edge.session import Session, commands_of
from forwarder.model import Address, Envelope, Identity, Reply
from forwarder.ownership import refuse_sender
from forwarder.smtp import reply

__all__ = ["Clients", "SubmissionSession"]

#: Wrong passwords before a session is ended.
MAX_FAILURES = 3
_USERNAME, _PASSWORD = Reply(334, None, "VXNlcm5hbWU6"), Reply(334, None, "UGFzc3dvcmQ6")
#: RFC 4954 section 4: an empty challenge, and the space stays.
_GO_ON = Reply(334, None, "")


@dataclass(frozen=True, slots=True)
class Clients:
    """Whom we know: by login, and by the network that it comes from (the first that fits). ``authenticator`` ``None``: there
    are no logins."""

    logins: Mapping[str, Identity]
    networks: Sequence[tuple[IPv4Network | IPv6Network, Identity]]
    authenticator: Authenticator | None

    def trusted(self, ip: IPv4Address | IPv6Address) -> Identity | None:
        """Who comes from there without a password."""
        return next((identity for network, identity in self.networks if ip in network), None)


class SubmissionSession(Session):
    """One connection of a user."""

    # RFC 4954 section 5: MAIL's AUTH= is taken, since AUTH is offered, and not believed.
    offered: ClassVar[frozenset[str]] = Session.offered | {"AUTH"}
    #: A user whose address book is old gathers no addresses.
    counts_unknown: ClassVar[bool] = False

    def __init__(self, *args: Any, clients: Clients, **more: Any) -> None:
        super().__init__(*args, **more)
        self._clients = clients
        self._login: Identity | None = None
        self._failures = 0

    @property
    def _identity(self) -> Identity | None:
        return self._login or self._clients.trusted(self.ip)

    def _keywords(self) -> list[str]:
        # RFC 4954 section 4: not offered where it would not be taken.
        offers = self._tls is not None and self._login is None and self._clients.authenticator is not None
        return [*super()._keywords(), *(["AUTH PLAIN LOGIN"] if offers else [])]

    def _refuse_sender(self, sender: Address | None) -> Reply | None:
        identity = self._identity
        if identity is None:
            return reply.AUTH_REQUIRED
        refused = refuse_sender(identity, sender)
        if refused is None:
            return None
        self._journal.event("submission.refused", ip=str(self.ip), client=identity.name, sender=sender or "<>")
        return refused.reply

    def _envelope(self, transaction: Any) -> Envelope:
        return replace(super()._envelope(transaction), identity=self._identity)

    def _start_over(self) -> None:
        # Who logged in was another.
        self._login = None
        super()._start_over()

    async def smtp_AUTH(self, argument: bytes) -> None:
        mechanism, _, initial = argument.partition(b" ")
        refused = self._refuse_auth(mechanism.upper())
        if refused is not None:
            self._refuse(refused)
            return
        given = await (self._plain if mechanism.upper() == b"PLAIN" else self._login_exchange)(initial)
        if given is not None:
            await self._check(given)

    def _refuse_auth(self, mechanism: bytes) -> Reply | None:
        if self._peer is None or not self._peer.esmtp:
            return reply.HELO_FIRST
        if self._login is not None:
            return reply.AUTH_ALREADY
        if self._transaction is not None:
            # RFC 4954 section 4: not within a transaction.
            return reply.BAD_SEQUENCE
        if self._clients.authenticator is None:
            return reply.NO_AUTH
        if self._tls is None:
            return reply.TLS_REQUIRED
        return None if mechanism in (b"PLAIN", b"LOGIN") else reply.AUTH_MECHANISM

    async def _plain(self, initial: bytes) -> Given | None:
        """What the client gives; ``None``: it was answered here."""
        message = await self._response(_GO_ON, initial)
        if message is None:
            return None
        given = parse_plain(message)
        if given is None:
            self._fail("malformed")
        return given

    async def _login_exchange(self, initial: bytes) -> Given | None:
        login = await self._response(_USERNAME, initial)
        password = await self._response(_PASSWORD, b"") if login is not None else None
        if login is None or password is None:
            return None
        try:
            return Given(login.decode(), password.decode())
        except UnicodeDecodeError:
            self._fail("malformed")
            return None

    async def _response(self, challenge: Reply, initial: bytes) -> bytes | None:
        """What the client answers, decoded; ``None``: it was answered here. ``initial`` came with the command."""
        line: bytes | None = initial
        if not initial:
            self.say(challenge)
            line = await self._line(MAX_EXCHANGE, reply.AUTH_LINE_TOO_LONG)
        if line is None:
            return None
        if line == b"*":
            self._refuse(reply.AUTH_CANCELLED)
            return None
        # RFC 4954 section 4: "=" is an initial response of no octets.
        message = b"" if initial == b"=" else decode(line)
        if message is None:
            self._refuse(reply.AUTH_NOT_BASE64)
        return message

    async def _check(self, given: Given) -> None:
        assert self._clients.authenticator is not None
        right = await self._clients.authenticator.check(given, self.ip)
        if right is None:
            self.say(reply.AUTH_BUSY)
        elif right and given.login in self._clients.logins:
            self._login = self._clients.logins[given.login]
            self._journal.event("submission.login", ip=str(self.ip), client=given.login)
            self.say(reply.AUTHENTICATED)
        else:
            # A login that we do not know may be a password typed into the wrong box.
            self._fail(given.login if given.login in self._clients.logins else "unknown login")

    def _fail(self, client: str) -> None:
        self._failures += 1
        self._journal.event("submission.login_failed", ip=str(self.ip), client=client, failures=self._failures)
        if self._failures >= MAX_FAILURES:
            self._end_with(reply.TOO_MANY_ERRORS)
        else:
            self.say(reply.AUTH_WRONG)


SubmissionSession.commands = commands_of(SubmissionSession)
