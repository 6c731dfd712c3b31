"""What of a signature field of ours is the same for every message? It is written once, with gaps for the rest.

How long its tags are decides which of them share a line, and what differs between two messages (t=, bh=, the signature) is as
long in one as in the other. So a field is laid out for a key, for the names in its h= and for the widths of its gaps; and in both
forms at once, as it leaves and as it is signed (relaxed, RFC 6376 section 3.4.2). For a message the gaps are filled.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from forwarder.auth.canonical import relax_field

__all__ = [
    "BODY_HASH",
    "KEPT_TEMPLATES",
    "Tag",
    "Template",
    "Written",
    "base64_lines",
    "encode_base64",
    "fold_list",
    "gap",
    "gaps",
    "lay_out",
]

#: Templates that each kind of signature keeps, of 2 KB: keys, times sets of names in h=, times widths.
KEPT_TEMPLATES = 256

#: Octets of a body hash, in base64.
BODY_HASH = 44

#: A tag and its value, which may be folded and may have gaps.
Tag = tuple[bytes, bytes]

#: RFC 5322 section 2.1.1 asks for lines of at most 78 octets.
_LINE = 78
#: Of a folded value: a space, a tag of two letters, its equals sign and a semicolon fit around it.
_VALUE_LINE = 72

_CRLF = b"\r\n"
_FOLD = b"\r\n "
# What no tag holds stands where a gap is.
_BLANK = b"\0"
_GAP = re.compile(rb"\0+")


class Written(NamedTuple):
    """A whole field with its CRLF, as it leaves and in relaxed form."""

    raw: bytes
    relaxed: bytes


@dataclass(frozen=True, slots=True)
class Template:
    """Two formats with the same gaps, one of which is the signature's."""

    raw: bytes
    relaxed: bytes

    def signed_form(self, before: Iterable[bytes], after: Iterable[bytes] = ()) -> bytes:
        """The last of what is signed: the field in relaxed form with an empty b=, without its CRLF. ``before`` and ``after`` b=
        fill the gaps there."""
        return self.relaxed % (*before, b"", *after)

    def close(
        self, signature: bytes, before: Iterable[bytes], after: Iterable[bytes] = (), *, folded: bool = True
    ) -> Written:
        """The field with its ``signature``, in lines or in one."""
        lines = base64_lines(signature) if folded else [encode_base64(signature)]
        return Written(
            self.raw % (*before, _FOLD.join(lines), *after), self.relaxed % (*before, b" ".join(lines), *after) + _CRLF
        )


def gap(width: int) -> bytes:
    """A value, or a part of one, that each message has of its own."""
    return _BLANK * width


def gaps(widths: Iterable[int]) -> bytes:
    """A folded value of which each line is a gap."""
    return _FOLD.join(map(gap, widths))


def lay_out(name: bytes, before: Iterable[Tag], after: Iterable[Tag] = ()) -> Template:
    """``Name: tag=value; ... b=; tag=value``, with ``b=`` on a line of its own between ``before`` and ``after``."""
    tail = _write_tags(b"", after).removesuffix(b";")
    raw = b"".join(
        (_write_tags(name + b":", before), _FOLD, b"b=", _BLANK, b";" + _CRLF + tail if tail else b"", _CRLF)
    )
    return Template(_as_format(raw), _as_format(relax_field(raw).removesuffix(_CRLF)))


def _as_format(text: bytes) -> bytes:
    return _GAP.sub(b"%b", text.replace(b"%", b"%%"))


def _write_tags(line: bytes, tags: Iterable[Tag]) -> bytes:
    lines: list[bytes] = []
    for one in tags:
        piece = b" %b=%b;" % one
        is_folded = _CRLF in piece
        if len(line) + len(piece) <= _LINE and not is_folded:
            line += piece
            continue
        if line:
            lines.append(line)
        line = piece
        if is_folded:
            lines.append(line)
            line = b""
    if line:
        lines.append(line)
    return _CRLF.join(lines)


def encode_base64(octets: bytes) -> bytes:
    """In one piece."""
    return b2a_base64(octets, newline=False)


def base64_lines(octets: bytes) -> list[bytes]:
    """The lines of a base64 value that is folded."""
    text = b2a_base64(octets, newline=False)
    return [text[at : at + _VALUE_LINE] for at in range(0, len(text), _VALUE_LINE)]


def fold_list(items: Iterable[bytes], separator: bytes) -> bytes:
    """A list value in lines, cut behind its separators."""
    lines: list[bytes] = []
    line = b""
    for item in items:
        if len(line) + len(item) >= _VALUE_LINE and line:
            lines.append(line)
            line = b""
        line += item + separator
    return _FOLD.join([*lines, line.removesuffix(separator)])
