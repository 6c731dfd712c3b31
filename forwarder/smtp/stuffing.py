"""How does a message go behind DATA? RFC 5321 section 4.5.2: a dot before each line that begins with one, CRLF at the end.

The message comes in chunks and leaves in chunks. A chunk without such a line, which is nearly every one, is passed on as the
same object; a dot at a chunk's beginning becomes a chunk of its own. Only CRLF ends a line here, as the reader at the other
end must have it too (RFC 5321 section 2.3.8): what holds a bare CR or LF is not to be sent, and ``has_bare_newline`` finds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from forwarder.octets import count, find

__all__ = ["NewlineCheck", "has_bare_newline", "has_dot_line", "stuff", "stuffed"]


def stuff(chunks: Iterable[bytes]) -> list[bytes]:
    """The chunks as they go over the wire, up to and without the final ``.`` line; an empty message stays empty."""
    return [*stuffed(chunks)]


def stuffed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same, one after the other as they are asked for."""
    tail, anything = b"\r\n", False
    for whole in chunks:
        chunk = whole
        if not chunk:
            continue
        anything = True
        if chunk[0] == 0x2E and tail == b"\r\n":
            yield b"."
        elif tail[-1] == 0x0D and chunk.startswith(b"\n."):
            # The line end lies across two chunks.
            yield b"\n."
            chunk = chunk[1:]
        yield chunk.replace(b"\r\n.", b"\r\n..") if has_dot_line(chunk) else chunk
        tail = whole[-2:] if len(whole) > 1 else tail[-1:] + whole
    if anything and tail != b"\r\n":
        # RFC 5321 section 4.1.1.4: the dot that ends the message begins a line, so the last line is ended first.
        yield b"\n" if tail[-1] == 0x0D else b"\r\n"


def has_dot_line(chunk: bytes | bytearray) -> bool:
    """Is there a line that begins with a dot, behind a CRLF?"""
    return find(chunk, b"\r\n.") >= 0


def has_bare_newline(text: bytes) -> bool:
    """Is there a CR or LF outside a CRLF?"""
    return not count(text, b"\r") == count(text, b"\n") == count(text, b"\r\n")


class NewlineCheck:
    """The same of a text that comes in chunks, wherever they are cut."""

    __slots__ = ("_bare", "_open")

    def __init__(self) -> None:
        self._bare = False
        #: A CR at the end of what came, of which nobody knows yet what follows.
        self._open = False

    def is_bare(self, chunk: bytes) -> bool:
        """In what has come until now."""
        if not chunk:
            return self._bare
        returns, feeds, pairs = count(chunk, b"\r"), count(chunk, b"\n"), count(chunk, b"\r\n")
        if self._open:
            if chunk.startswith(b"\n"):
                feeds -= 1
            else:
                self._bare = True
        self._open = chunk.endswith(b"\r")
        if returns - self._open != pairs or feeds != pairs:
            self._bare = True
        return self._bare

    def is_bare_at_end(self) -> bool:
        """Nothing more comes: a CR at the very end stands alone."""
        return self._bare or self._open
