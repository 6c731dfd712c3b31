"""How does a client talk to us? The commands of one SMTP session: RFC 5321, 1870, 2034, 2920, 3030, 3207, 6152, 6531, 8689.

    smtp_MAIL/RCPT     the grammar is smtp.commands', the answer the acceptor's
    smtp_DATA/BDAT     the octets are edge.data's, the answer the acceptor's

How commands are read and replies leave is edge.conversation's.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any, ClassVar, cast

from forwarder import srs
from forwarder.edge.conversation import HIGH_WATER_BETWEEN, Closed, Conversation, Method, Transaction
from forwarder.edge.data import BLOCK, BadOctets, Incoming, find_end, read_whole, refuse_header
from forwarder.edge.trust import within
from forwarder.model import Address, BodyKind, Content, Envelope, Peer, Recipient, Refuse, Reply
from forwarder.route import ToAlias, ToNowhere, ToSender
from forwarder.screen import screen_caller
from forwarder.smtp import reply
from forwarder.smtp.commands import parse_helo, parse_mail, parse_rcpt
from forwarder.smtp.xclient import NO_CLAIM, XCLIENT, XFORWARD, parse_claim

__all__ = ["Session", "commands_of"]

#: Octets of a message that wait unread before the client is made to wait.
# What is there is looked at in one go, for every session that has some: this bounds how long the loop is held up.
HIGH_WATER = 128 * 1024
#: Octets beyond the size limit that are read and thrown away so that the client hears 552 and not a reset.
MAX_OVERRUN = 64 * 1024 * 1024
#: Seconds after which a reversible address that is not valid is refused: more than its MACs and the store take.
BAD_REVERSIBLE_AFTER = 0.05
#: Up to so many more, by chance: timers are not so exact that a tenth of a millisecond before them could not be measured.
_BLUR = 0.02
#: Parameters that are taken.
_OFFERED = frozenset({"SIZE", "8BITMIME", "SMTPUTF8", "DSN"})
_OFFERED_IN_TLS = frozenset({"REQUIRETLS"})


class Session(Conversation):
    """A conversation in which mail is sent. A subclass makes its own ``commands`` with ``commands_of``."""

    #: EHLO keywords whose parameters MAIL and RCPT take.
    offered: ClassVar[frozenset[str]] = _OFFERED
    #: Are recipients that do not exist held against the client's network?
    counts_unknown: ClassVar[bool] = True

    async def smtp_HELO(self, argument: bytes) -> None:
        if self._is_early():
            return
        self._greet(argument, esmtp=False)
        self.say(Reply(250, None, self._settings.hostname))

    async def smtp_EHLO(self, argument: bytes) -> None:
        if self._is_early():
            return
        self._greet(argument, esmtp=True)
        self._out.append(_announced(self._settings.hostname, *self._keywords()))

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
            self._transaction = Transaction(mail, [], [])
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
        if transaction.recipients and any(one.address == rcpt.address for one in transaction.recipients):
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
        if transaction.resolved and any(
            isinstance(one, ToSender | ToNowhere) for one in (*transaction.resolved, resolved)
        ):
            # Architecture decision 5: one DATA reply cannot tell a report's fate from another recipient's.
            self.say(reply.ONE_BOUNCE_AT_A_TIME)
            return
        transaction.recipients.append(Recipient(rcpt.address, rcpt.notify, rcpt.orcpt))
        transaction.resolved.append(resolved)
        self.say(reply.RECIPIENT_OK)

    def _refuse_recipient(self, transaction: Transaction, refused: Refuse) -> None:
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
        chunks = transaction.chunks = transaction.chunks or self._incoming(stuffed=False)
        await self._read_into(chunks, size)
        if last:
            await self._finish(transaction, chunks.finish())
        else:
            self.say(Reply(250, "2.0.0", f"{size} octets received"))

    def _ready_for_data(self, argument: bytes) -> Transaction | None:
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
        # Nothing of it is here before the 354.
        await self._more_of_message(begun, 0)
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
                incoming = incoming or self._incoming(stuffed=True)
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
                raise Closed
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

    async def _finish(self, transaction: Transaction, content: Content | BadOctets) -> None:
        """The message is here in whole: its bytes are looked at, the pipeline answers."""
        self._transaction = None
        self._junk = 0
        try:
            await self._answer(transaction, content)
        finally:
            self._forget()

    async def _answer(self, transaction: Transaction, content: Content | BadOctets) -> None:
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

    def _incoming(self, *, stuffed: bool) -> Incoming:
        most = self.limits.header_size, self.limits.header_fields
        return Incoming(stuffed=stuffed, max_line=self._settings.max_line, max_header=most)

    def _refuse_header(self, header: bytes) -> Reply | None:
        refused = refuse_header(header, self.limits.header_size, self.limits.header_fields)
        if refused is not None:
            limit = "header_size" if refused is reply.HEADER_TOO_LARGE else "header_fields"
            self._over_limit.tell(limit, self.ip, self.loop.time())
            self._journal.event("data.refused", ip=str(self.ip), reason=refused.text)
        return refused

    def _envelope(self, transaction: Transaction) -> Envelope:
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
            raise Closed from error
        if transport is None:
            raise Closed
        self._transport = transport
        # RFC 3207 section 4.2: everything learned before is forgotten. The buffer was empty before the handshake, and what
        # is in it now came through TLS.
        self._peer = None
        self._forget()
        self._note_tls(transport)


def commands_of(session: type[Session]) -> dict[str, Method]:
    """Its ``smtp_X`` methods, and those of Session; what aiosmtpd has besides is not obeyed."""
    own = {name for one in (Session, session) for name in vars(one) if name.startswith("smtp_")}
    return {name.removeprefix("smtp_"): cast("Any", getattr(session, name)) for name in own}


Session.commands = commands_of(Session)


@lru_cache(maxsize=64)
def _announced(*lines: str) -> bytes:
    """The answer to EHLO. Sessions of a listener say one of a few."""
    return "".join([f"250-{one}\r\n" for one in lines[:-1]] + [f"250 {lines[-1]}\r\n"]).encode()


def _literal(ip: IPv4Address | IPv6Address) -> str:
    return f"[{ip}]" if ip.version == 4 else f"[IPv6:{ip}]"
