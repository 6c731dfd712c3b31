"""What did the server say? RFC 5321 section 4.2 replies, from bytes in pieces of any size, whatever they hold.

What comes out is safe to keep: printable ASCII of bounded length, one ``Reply`` for however many lines. Codes are never a
closed set: a code that nobody has heard of means what its first digit says (RFC 5321 section 4.2.1). What is no reply at all
is a BadReply, behind the replies that came before it; the connection is then of no further use.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from forwarder.model import Reply
from forwarder.values import value

__all__ = ["MAX_LINE", "MAX_LINES", "MAX_TEXT", "BadReply", "ReplyParser", "ServerReply"]

#: Octets of one line. RFC 5321 section 4.5.3.1.5 allows 512; servers that explain themselves send more.
MAX_LINE = 4096
#: Lines of one reply. EHLO replies have a dozen.
MAX_LINES = 100
#: Characters kept of a line, and of the text of a reply.
MAX_TEXT = 1000

# RFC 5321 section 4.2: code, and a space or a hyphen before the text; "250" alone is to be taken too.
_LINE = re.compile(rb"([2-5][0-9]{2})(?:[ -]([^\n]*)|\r?)\Z")
# RFC 2034 section 3, RFC 3463 section 2.
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |\Z)")
_PRINTABLE = bytes(octet if 0x20 <= octet <= 0x7E else 0x20 if octet == 0x09 else 0x3F for octet in range(256))


@value
class ServerReply:
    """``reply`` is the whole of it; ``lines`` the text line by line, which only EHLO needs."""

    reply: Reply
    lines: tuple[str, ...]


@value
class BadReply:
    """This is no SMTP reply, and nothing behind it will be one. ``reason`` quotes nothing."""

    reason: str


class ReplyParser:
    """``feed`` takes bytes as they come and gives the replies that they complete."""

    __slots__ = ("_lines", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []

    @property
    def pending(self) -> bool:
        """Is there the beginning of a reply?"""
        return bool(self._rest or self._lines)

    def feed(self, data: bytes) -> list[ServerReply | BadReply]:
        """A BadReply is the last, and then the parser is not to be fed again."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        found: list[ServerReply | BadReply] = []
        for line in lines:
            more = line[3:4] == b"-"
            if more or self._lines:
                reply = self._add_line(line, more)
                if reply is None:
                    continue
            else:
                reply = _parse_single(line)
            found.append(reply)
            if type(reply) is BadReply:
                return found
        if len(self._rest) > MAX_LINE:
            found.append(BadReply("a reply line is too long"))
        return found

    def _add_line(self, line: bytes, more: bool) -> ServerReply | BadReply | None:
        self._lines.append(line)
        if len(self._lines) > MAX_LINES:
            return BadReply("a reply has too many lines")
        if more:
            return None if len(line) <= MAX_LINE else BadReply("a reply line is too long")
        lines, self._lines = self._lines, []
        return _parse_lines(lines)


@lru_cache(maxsize=512)
def _parse_single(line: bytes) -> ServerReply | BadReply:
    # Servers say the same few things again and again.
    parsed = _parse_line(line)
    if isinstance(parsed, BadReply):
        return parsed
    return ServerReply(Reply(parsed.code, parsed.enhanced, parsed.text), (parsed.whole,))


def _parse_lines(raw: list[bytes]) -> ServerReply | BadReply:
    lines: list[_Line] = []
    for one in raw:
        parsed = _parse_line(one)
        if isinstance(parsed, BadReply):
            return parsed
        lines.append(parsed)
    # RFC 5321 section 4.2.1: every line has the same code. Servers differ within a class, and the last line counts then;
    # what says yes in one line and no in the next says nothing.
    if len({line.code // 100 for line in lines}) > 1:
        return BadReply("the lines of a reply contradict each other")
    enhanced = next((line.enhanced for line in lines if line.enhanced), None)
    text = " ".join(line.text for line in lines if line.text)[:MAX_TEXT]
    return ServerReply(Reply(lines[-1].code, enhanced, text), tuple(line.whole for line in lines))


class _Line(NamedTuple):
    code: int
    enhanced: str | None
    text: str
    #: All that is behind the code, the enhanced code too.
    whole: str


def _parse_line(line: bytes) -> _Line | BadReply:
    if len(line) > MAX_LINE:
        return BadReply("a reply line is too long")
    match = _LINE.match(line)
    if match is None:
        return BadReply("that is no SMTP reply")
    raw = match[2]
    whole = "" if raw is None else raw[:MAX_TEXT].removesuffix(b"\r").translate(_PRINTABLE).decode("ascii").rstrip()
    enhanced = _ENHANCED.match(whole)
    # RFC 2034 section 4: its class is that of the code; otherwise it is text that looks like one.
    if enhanced and whole[0] == chr(line[0]):
        return _Line(int(match[1]), enhanced[1], whole[enhanced.end() :].lstrip(), whole)
    return _Line(int(match[1]), None, whole.lstrip(), whole)
