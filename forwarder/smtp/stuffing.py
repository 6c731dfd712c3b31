"""How does a message go behind DATA? RFC 5321 section 4.5.2: a dot before each line that begins with one, CRLF at the end.

The message comes in chunks and leaves in chunks. A chunk without such a line, which is nearly every one, is passed on as the
same object; a dot at a chunk's beginning becomes a chunk of its own. Only CRLF ends a line here, as the reader at the other
end must have it too (RFC 5321 section 2.3.8): what holds a bare CR or LF is not to be sent, and ``has_bare_newline`` finds it.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["has_bare_newline", "stuff"]

_OTHER = bytes(octet for octet in range(256) if octet not in b"\r\n")


def stuff(chunks: Iterable[bytes]) -> list[bytes]:
    """The chunks as they go over the wire, up to and without the final ``.`` line; an empty message stays empty."""
    out: list[bytes] = []
    tail = b"\r\n"
    for whole in chunks:
        chunk = whole
        if not chunk:
            continue
        if chunk[0] == 0x2E and tail == b"\r\n":
            out.append(b".")
        elif tail[-1] == 0x0D and chunk.startswith(b"\n."):
            # The line end lies across two chunks.
            out.append(b"\n.")
            chunk = chunk[1:]
        out.append(chunk.replace(b"\r\n.", b"\r\n..") if _has_dot_line(chunk) else chunk)
        tail = whole[-2:] if len(whole) > 1 else tail[-1:] + whole
    if out and tail != b"\r\n":
        # RFC 5321 section 4.1.1.4: the dot that ends the message begins a line, so the last line is ended first.
        out.append(b"\n" if tail[-1] == 0x0D else b"\r\n")
    return out


def _has_dot_line(chunk: bytes) -> bool:
    # Base64, which is what large messages are made of, holds no dot, and looking for one octet is 30 times as fast as
    # looking for three. Where there are many dots, a few of them are looked at in vain.
    at = -1
    for _ in range(len(chunk) >> 10):
        at = chunk.find(b".", at + 1)
        if at < 0:
            return False
        if chunk[at - 2 : at] == b"\r\n":
            return True
    return chunk.find(b"\r\n.", at + 1) >= 0


def has_bare_newline(text: bytes) -> bool:
    """Is there a CR or LF outside a CRLF?"""
    # Every CRLF is one CR and one LF; one more of either stands alone. (Twice as fast as replacing or a pattern.)
    return len(text.translate(None, _OTHER)) != 2 * text.count(b"\r\n")
