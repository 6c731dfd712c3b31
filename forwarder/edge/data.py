"""Where does the message end, and is it one that can be passed on? RFC 5321 sections 2.3.8, 4.1.1.4, 4.5.2, 4.5.3.1.

Only CRLF.CRLF ends a message. A bare CR, a bare LF or a NUL anywhere in it is refused, never repaired: whoever repairs becomes
the "service A" of SMTP smuggling (SEC Consult, 2023). Works on blocks: no line is looked at alone.
"""

from __future__ import annotations

from forwarder.model import Reply
from forwarder.smtp import reply

__all__ = ["MAX_LINE", "find_end", "refuse_bytes", "unstuff"]

#: Octets of one line. RFC 5321 section 4.5.3.1.6 says 1,000; real mail is longer, cutting it would break signatures, and
#: what passes this bound is harmless to relay as it is.
MAX_LINE = 64 * 1024

_END = b"\r\n.\r\n"


def find_end(data: bytes | bytearray, start: int) -> int:
    """Index behind the last octet of the message (its final CRLF included), or -1. The five octets ``CRLF . CRLF`` begin
    two before the returned index. ``start``: what lies before it was searched already."""
    # The CRLF of the DATA command itself counts as the first of the five (RFC 5321 section 4.1.1.4).
    if data.startswith(b".\r\n"):
        return 0
    at = data.find(_END, max(0, start - len(_END) + 1))
    return -1 if at < 0 else at + 2


def unstuff(data: bytes) -> bytes:
    """RFC 5321 section 4.5.2: take away the first dot of each line that begins with one."""
    if b"\r\n." in data:
        data = data.replace(b"\r\n.", b"\r\n")
    return data[1:] if data.startswith(b".") else data


def refuse_bytes(data: bytes) -> Reply | None:
    """Why these octets are no message of SMTP, or ``None``."""
    if b"\0" in data:
        return reply.NUL_IN_MESSAGE
    lines = data.count(b"\r\n")
    if data.count(b"\n") != lines or data.count(b"\r") != lines:
        return reply.BARE_NEWLINE
    if _has_long_line(data):
        return reply.LINE_IN_MESSAGE_TOO_LONG
    return None


def _has_long_line(data: bytes) -> bool:
    """Jumps from line end to line end in steps of MAX_LINE, so that a megabyte takes 16 looks."""
    at = 0
    while len(data) - at > MAX_LINE:
        end = data.rfind(b"\n", at, at + MAX_LINE)
        if end < 0:
            return True
        at = end + 1
    return False
