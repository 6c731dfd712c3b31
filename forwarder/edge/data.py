"""Where does the message end, and is it one that can be passed on? RFC 5321 sections 2.3.8, 4.1.1.4, 4.5.2, 4.5.3.1.

Only CRLF.CRLF ends a message. A bare CR, a bare LF or a NUL anywhere in it is refused, never repaired: whoever repairs becomes
the "service A" of SMTP smuggling (SEC Consult, 2023). Works on blocks: no line is looked at alone.

What is small is looked at when it is there in whole (``read_whole``). What is large is looked at as it comes, block by block
(``Incoming``): the event loop is held up by a block at a time, the body is kept once, its hashes are ready with its last octet.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from forwarder.auth.ahead import HashedAhead
from forwarder.mail.header import MAX_FIELDS, MAX_HEADER, has_more_fields, split_content
from forwarder.model import Content, Reply
from forwarder.octets import find
from forwarder.smtp import reply
from forwarder.smtp.stuffing import NewlineCheck, has_bare_newline, has_dot_line

__all__ = [
    "BLOCK",
    "MAX_LINE",
    "STANDARD_LINE",
    "BadOctets",
    "Incoming",
    "find_end",
    "read_whole",
    "refuse_bytes",
    "refuse_header",
    "unstuff",
]

#: Octets from which on a message is looked at before all of it is here.
BLOCK = 64 * 1024

#: Octets of one line. RFC 5321 section 4.5.3.1.6 says 1,000; real mail is longer, cutting it would break signatures, and
#: what passes this bound is harmless to relay as it is.
MAX_LINE = 64 * 1024
#: The same where nothing longer than the standard has is taken.
STANDARD_LINE = 1000
#: As much of a header as can be read at all.
_ANY_HEADER = MAX_HEADER, MAX_FIELDS

_END = b"\r\n.\r\n"


@dataclass(frozen=True, slots=True)
class BadOctets:
    """No message of SMTP, and why. What follows it may be smuggled."""

    reply: Reply


def find_end(data: bytes | bytearray, start: int, *, begun: bool = False) -> int:
    """Index behind the last octet of the message (its final CRLF included), or -1. The five octets ``CRLF . CRLF`` begin
    two before the returned index. ``start``: what lies before it was searched already; ``begun``: ``data`` does not begin it."""
    # The CRLF of the DATA command itself counts as the first of the five (RFC 5321 section 4.1.1.4).
    if not begun and data.startswith(b".\r\n"):
        return 0
    at = find(data, _END, max(0, start - len(_END) + 1))
    return -1 if at < 0 else at + 2


def unstuff(data: bytes) -> bytes:
    """RFC 5321 section 4.5.2: take away the first dot of each line that begins with one."""
    if has_dot_line(data):
        data = data.replace(b"\r\n.", b"\r\n")
    return data[1:] if data.startswith(b".") else data


def refuse_bytes(data: bytes, max_line: int = MAX_LINE) -> Reply | None:
    """Why these octets, without dots for transparency, are no message of SMTP, or ``None``."""
    if 0 in data:
        return reply.NUL_IN_MESSAGE
    if has_bare_newline(data):
        return reply.BARE_NEWLINE
    if _has_long_line(data, max_line):
        return reply.LINE_IN_MESSAGE_TOO_LONG
    return None


def read_whole(raw: bytes, *, stuffed: bool, max_line: int = MAX_LINE) -> Content | BadOctets:
    """A message that is here."""
    # RFC 5321 section 4.5.3.1.6: the dot for transparency does not count for the length of its line.
    data = unstuff(raw) if stuffed else raw
    refused = refuse_bytes(data, max_line)
    return BadOctets(refused) if refused is not None else split_content(data)


def refuse_header(header: bytes, max_size: int, max_fields: int) -> Reply | None:
    """Before any of it is looked at closer; ``None``: neither its octets nor its fields are too many."""
    if len(header) > max_size:
        return reply.HEADER_TOO_LARGE
    return reply.TOO_MANY_FIELDS if has_more_fields(header, max_fields) else None


class Incoming:
    """A message as it comes, in blocks that are cut anywhere. ``refused`` says that it is none, as soon as that is known: then
    the rest need not be given. A header beyond ``max_header``, octets and fields, is not looked into: ``refuse_header`` refuses
    the message once it is here."""

    def __init__(self, *, stuffed: bool, max_line: int = MAX_LINE, max_header: tuple[int, int] = _ANY_HEADER) -> None:
        self.size = 0
        self.refused: BadOctets | None = None
        self._stuffed = stuffed
        self._newlines = NewlineCheck()
        self._max_line = max_line
        self._max_header = max_header
        self._line = 0
        self._tail = b"\r\n"
        self._head = bytearray()
        self._body: BytesIO | None = None
        self._ahead: HashedAhead | None = None

    def take(self, block: bytes) -> None:
        """The next octets, as they came."""
        self.size += len(block)
        if self.refused is not None or not block:
            return
        refused = self._refuse(block)
        if refused is not None:
            self._spoil(refused)
            return
        if self._stuffed:
            block = self._unstuff(block)
        if self._is_long(block):
            self._spoil(reply.LINE_IN_MESSAGE_TOO_LONG)
            return
        if self._body is None:
            block = self._split(block)
        if self._body is not None:
            # Grows in place, and gives its one copy away at the end.
            self._body.write(block)
        if self._ahead is not None:
            self._ahead.update(block)

    def finish(self) -> Content | BadOctets:
        """That was all."""
        if self.refused is None and self._newlines.is_bare_at_end():
            self._spoil(reply.BARE_NEWLINE)
        if self.refused is not None:
            return self.refused
        if self._body is None:
            return split_content(bytes(self._head))
        hashes = self._ahead.finish() if self._ahead is not None else {}
        return Content(bytes(self._head), b"\r\n", self._body.getvalue(), hashes)

    def _spoil(self, refused: Reply) -> None:
        self.refused = BadOctets(refused)
        self._head, self._body, self._ahead = bytearray(), None, None

    def _refuse(self, block: bytes) -> Reply | None:
        if 0 in block:
            return reply.NUL_IN_MESSAGE
        if self._newlines.is_bare(block):
            return reply.BARE_NEWLINE
        return None

    def _is_long(self, block: bytes) -> bool:
        """Has a line of it, or one that goes on over many blocks, become too long?"""
        first, last = block.find(b"\n"), block.rfind(b"\n")
        begun = self._line + (len(block) if first < 0 else first + 1)
        self._line = begun if last < 0 else len(block) - last - 1
        return begun > self._max_line or _has_long_line(block, self._max_line)

    def _unstuff(self, block: bytes) -> bytes:
        """As ``unstuff``; a line may begin where a block ends."""
        tail, self._tail = self._tail, block[-2:] if len(block) > 1 else self._tail[-1:] + block
        if has_dot_line(block):
            block = block.replace(b"\r\n.", b"\r\n")
        if tail == b"\r\n" and block.startswith(b"."):
            return block[1:]
        if tail.endswith(b"\r") and block.startswith(b"\n."):
            return b"\n" + block[2:]
        return block

    def _split(self, block: bytes) -> bytes:
        """Header from body, where the empty line has come; what is left of the block is body."""
        searched = max(0, len(self._head) - 3)
        self._head += block
        end = 0 if self._head.startswith(b"\r\n") else self._head.find(b"\r\n\r\n", searched) + 2
        if end == 1:
            return b""
        body = bytes(self._head[end + 2 :])
        del self._head[end:]
        header = bytes(self._head)
        self._body = BytesIO()
        # A megabyte of folds takes 64 ms to read into, and the loop stands still meanwhile.
        self._ahead = HashedAhead(header) if refuse_header(header, *self._max_header) is None else None
        return body


def _has_long_line(data: bytes, max_line: int) -> bool:
    """Jumps from line end to line end in steps of ``max_line``, so that a megabyte takes 16 looks."""
    at = 0
    while len(data) - at > max_line:
        end = data.rfind(b"\n", at, at + max_line)
        if end < 0:
            return True
        at = end + 1
    return False
