"""What is known so far about each recipient? The ledger of one attempt, while it goes from host to host.

A recipient is pending while another host may still do better: nobody was asked yet, or those who were said "not now". What a
host said about a recipient outranks what kept other hosts from saying anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from forwarder.mail.address import AddressError, wire
from forwarder.model import (
    BodyKind,
    Deferred,
    Delivered,
    Delivery,
    Failed,
    Outcome,
    RecipientOutcome,
    Reply,
    Tls,
    TlsWish,
)
from forwarder.relay.connection import NoSession
from forwarder.relay.mx import Target
from forwarder.smtp.client import Answer, Broken, Extensions, Finished, Mail, Phase
from forwarder.smtp.commands import render_mail_dsn, render_rcpt_dsn
from forwarder.smtp.stuffing import has_bare_newline

__all__ = ["MAYBE_DELIVERED", "OUT_OF_TIME", "Attempt"]

#: How the reason of a Deferred begins when the message was sent to its final dot and no answer was read: the next hop may
#: have it, and the next attempt may make a second copy.
MAYBE_DELIVERED = "no answer after the final dot"

#: Octets of a message from which on it goes in chunks to who offers CHUNKING, and of the first of them, which is sent before
#: anybody knows whether a recipient is accepted.
CHUNKED_FROM = 64 * 1024
_MAX_HEAD = 64 * 1024

#: Why nobody else is asked.
OUT_OF_TIME = "the attempt took too long"

_TOO_LARGE = Failed("larger than SIZE", Reply(552, "5.3.4", "the message is larger than the next hop takes"))
_NEEDS_8BITMIME = Failed(
    "8BITMIME not offered", Reply(554, "5.6.3", "the message holds 8-bit text and the next hop takes 7-bit mail only")
)
_NEEDS_SMTPUTF8 = Failed(
    "SMTPUTF8 not offered", Reply(553, "5.6.7", "the message needs SMTPUTF8 and the next hop does not offer it")
)
_BAD_SENDER = Failed("address cannot be encoded", Reply(553, "5.1.7", "the sender's address cannot be sent"))
_BAD_RECIPIENT = Failed("address cannot be encoded", Reply(553, "5.1.3", "the recipient's address cannot be sent"))
# The edge lets no bare CR or LF in, so it was we who added it: a fault of ours, and a way to smuggle mail if sent.
_BROKEN_LINES = Deferred("a bare CR or LF in what was added to the message")

#: RFC 4954 section 6, RFC 3207 section 4: a smarthost wants us to log in, or otherwise than we do. The mail is not at fault.
_WANTS_LOGIN = frozenset({530, 534, 535, 538})

_REASONS = {
    Phase.MAIL: "MAIL refused",
    Phase.RCPT: "RCPT refused",
    Phase.DATA: "DATA refused",
    Phase.END: "message refused",
}


class Attempt:
    """``pending`` are the indexes of the recipients that are still to be asked for."""

    def __init__(self, delivery: Delivery, *, by_smarthost: bool = False) -> None:
        self.delivery = delivery
        self._by_smarthost = by_smarthost
        self.pending = list(range(len(delivery.recipients)))
        #: Hosts that took or refused a transaction.
        self.sessions = 0
        #: What makes it, while it lasts.
        self.task: asyncio.Task[object] | None = None
        #: How the connection to each such host was protected.
        self.tls: dict[str, Tls | None] = {}
        self._results: list[RecipientOutcome | None] = [None] * len(delivery.recipients)
        self._delivered: Delivered | None = None
        #: The last host that could not be used, and the last one that wants no mail at all.
        self._unusable: Deferred | None = None
        self._refused: Failed | None = None
        self._size = sum(map(len, delivery.data))
        self._sender = b"<>"
        self._paths: list[bytes] = []
        self._dsn = render_mail_dsn(delivery.ret, delivery.envid)
        self._notices = [render_rcpt_dsn(one.notify, one.orcpt) for one in delivery.notices]
        #: Does the host that is asked offer DSN?
        self._offers_dsn = False
        self._head = _head_of(delivery.data, self._size)
        if len(delivery.data) > 1 and _has_broken_lines(delivery.data):
            self.settle_all(_BROKEN_LINES)
        else:
            self._encode_addresses()

    def outcome(self) -> Outcome:
        """What became of it, in the Delivery's order."""
        # RFC 5321 section 5.1, RFC 7504 section 4: a host that takes no mail is the domain's answer if all hosts say so.
        otherwise = self._unusable or self._refused or Deferred("no host was asked")
        results = [one or otherwise for one in self._results]
        return Outcome(tuple(zip(self.delivery.recipients, results, strict=True)))

    def mail(self, asked: Sequence[int], extensions: Extensions) -> Mail:
        """The transaction for these recipients with a server that offers ``extensions``."""
        paths = tuple([self._paths[index] for index in asked])
        return Mail(
            self._sender,
            paths,
            self._size,
            # What is 8-bit is declared so even if the client forgot to (RFC 6152 section 3).
            eight_bit=self.delivery.body is BodyKind.EIGHT_BIT_MIME or self._is_eight_bit(),
            smtputf8=self.delivery.smtputf8 or not (self._sender.isascii() and all(map(bytes.isascii, paths))),
            require_tls=self.delivery.tls is TlsWish.REQUIRED,
            dsn=self._dsn,
            notices=tuple([self._notices[index] for index in asked]) if self._notices else (),
            head=self._head if extensions.chunking else b"",
        )

    def avoid_chunks(self) -> None:
        """For a server that does not understand its own offer."""
        self._head = b""

    def settle_all(self, result: Deferred | Failed) -> None:
        """The same for everyone who is pending."""
        for index in list(self.pending):
            self._settle(index, result)

    def settle_misfits(self, extensions: Extensions) -> None:
        """Fail what this next hop cannot take. The message is never changed to fit."""
        self._offers_dsn, self._delivered = extensions.dsn, None
        if extensions.size and self._size > extensions.size:
            # RFC 1870 section 6.1.
            self.settle_all(_TOO_LARGE)
        if not extensions.eight_bit and self.delivery.body is BodyKind.EIGHT_BIT_MIME and self._is_eight_bit():
            # RFC 6152 section 3. 8-bit text that was never declared goes on as it came: it was wrong before us, every
            # receiver takes it, and a bounce would help nobody.
            self.settle_all(_NEEDS_8BITMIME)
        if not extensions.smtputf8:
            # RFC 6531 section 3.2: where a part of it really is internationalized. Clients ask for SMTPUTF8 for mail that
            # needs none.
            if not self._sender.isascii() or (self.delivery.smtputf8 and not _header(self.delivery.data).isascii()):
                self.settle_all(_NEEDS_SMTPUTF8)
            for index in [one for one in self.pending if not self._paths[one].isascii()]:
                self._settle(index, _NEEDS_SMTPUTF8)

    def no_session(self, target: Target, failure: NoSession) -> None:
        """This host was of no use to anyone."""
        peer = target.peer if failure.reached else None
        reply = failure.reply
        if reply is not None and reply.code // 100 == 5:
            self._refused = Failed(failure.reason, reply, peer)
        elif reply is not None or self._unusable is None or self._unusable.reply is None:
            self._unusable = Deferred(failure.reason, peer, reply)

    def not_all_known(self, trouble: str) -> None:
        """There may be other hosts: what these say of themselves is not the domain's answer."""
        self._unusable = Deferred(trouble)

    def finished(self, target: Target, asked: Sequence[int], ended: Finished) -> list[int]:
        """Take down the answers. Returns whom to ask for in another transaction at once: with somebody accepted, those who
        were too many (RFC 5321 section 4.5.3.1.10, in the code of today and that of RFC 821)."""
        again: list[int] = []
        if len(asked) > 1 and any(one.reply.code // 100 == 2 for one in ended.answers):
            again = [index for index, one in zip(asked, ended.answers, strict=True) if _is_too_many(one)]
        for index, answer in zip(asked, ended.answers, strict=True):
            self._take(index, target, answer, too_many=index in again)
        return again

    def broken(self, target: Target, asked: Sequence[int], ended: Broken) -> None:
        """Take down the answers that came before the connection went."""
        self.answered(target, asked, ended.answers)
        silent = [index for index, answer in zip(asked, ended.answers, strict=True) if answer is None]
        if ended.dot_sent:
            for index in silent:
                self._settle(index, Deferred(f"{MAYBE_DELIVERED}: {ended.reason}", target.peer, maybe_delivered=True))
        elif silent:
            self.no_session(target, NoSession(f"{ended.reason} ({ended.phase.value})", ended.reply))

    def stop(self) -> None:
        """It takes too long."""
        assert self.task is not None
        self.task.cancel()

    def out_of_time(self) -> None:
        """There may be more hosts, but no time for them: what these say of themselves is not the domain's answer."""
        self._unusable = Deferred(OUT_OF_TIME)

    def answered(self, target: Target, asked: Sequence[int], answers: Sequence[Answer | None]) -> None:
        """Take down what there is; ``None``: no answer."""
        for index, answer in zip(asked, answers, strict=True):
            if answer is not None:
                self._take(index, target, answer)

    # --- one recipient

    def _take(self, index: int, target: Target, answer: Answer, too_many: bool = False) -> None:
        phase, reply = answer
        match reply.code // 100:
            case 2:
                if self._delivered is None or self._delivered.reply is not reply:
                    # The answer to the final dot is one for all recipients, of whom there may be many.
                    self._delivered = Delivered(target.peer, reply, self._offers_dsn and bool(self._notices))
                self._settle(index, self._delivered)
            case 5 if not (too_many or (self._by_smarthost and reply.code in _WANTS_LOGIN)):
                self._settle(index, Failed(_REASONS[phase], reply, target.peer))
            case _:
                # Still pending: another host may take it.
                self._results[index] = Deferred(_REASONS[phase], target.peer, reply)

    def _settle(self, index: int, result: RecipientOutcome) -> None:
        self._results[index] = result
        self.pending.remove(index)

    # --- the message

    def _encode_addresses(self) -> None:
        try:
            self._sender = wire(self.delivery.sender)
        except AddressError:
            self.settle_all(_BAD_SENDER)
            return
        for index, address in enumerate(self.delivery.recipients):
            try:
                self._paths.append(wire(address))
            except AddressError:
                self._paths.append(b"")
                self._settle(index, _BAD_RECIPIENT)

    def _is_eight_bit(self) -> bool:
        return not all(map(bytes.isascii, self.delivery.data))


def _head_of(chunks: Sequence[bytes], size: int) -> bytes:
    """What goes ahead where the message goes in chunks; empty: it goes behind DATA (docs/decisions/0013-bdat.md)."""
    fits = size >= CHUNKED_FROM and len(chunks) > 1 and len(chunks[0]) <= _MAX_HEAD
    return chunks[0] if fits else b""


def _is_too_many(answer: Answer) -> bool:
    # A full mailbox says 452 or 552 too, but then with a code of its own (RFC 3463 section 3.3).
    reply = answer.reply
    return answer.phase is Phase.RCPT and reply.code in (452, 552) and reply.enhanced in (None, "4.5.3", "5.5.3")


def _header(chunks: Sequence[bytes]) -> bytes:
    return b"".join(chunks).partition(b"\r\n\r\n")[0]


def _has_broken_lines(chunks: Sequence[bytes]) -> bool:
    """The header, that is: the body is one chunk, the last, and was looked at when it came in."""
    head = b"".join(chunks[:-1])
    return has_bare_newline(head.removesuffix(b"\r") if chunks[-1].startswith(b"\n") else head)
