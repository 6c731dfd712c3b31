"""Where do the header fields of a message begin and end? RFC 5322 section 2.2, read from bytes and never printed again.

The split decides what every check hashes, what every signature covers and what the next hop reads, so there is exactly one
of it. What two readers could split in two ways is refused here, before anything vouches for it.
"""

from __future__ import annotations

import re

from forwarder.model import Content, Field, Message
from forwarder.octets import count

__all__ = [
    "MAX_FIELDS",
    "MAX_HEADER",
    "MAX_LINES",
    "MalformedMessage",
    "has_more_fields",
    "parse_content",
    "parse_message",
    "split_content",
    "unfold",
]

#: Octets of header, and fields, whatever the operator allows (``[limits]``): parsing is linear, so this bounds time and memory.
MAX_HEADER = 1024 * 1024
MAX_FIELDS = 5000
#: Lines of it. A megabyte of nothing but folds is one field, and splitting it takes 64 ms; so many take 4.
MAX_LINES = 20_000

# RFC 5322 section 2.2: a field name is printable US-ASCII except colon.
_NAME = re.compile(rb"[!-9;-~]+\Z")


#: All of a field, its name by itself. From the beginning of a line only: what is none is passed over at once.
_FIELD = re.compile(rb"^(?=([!-9;-~]+):)(.*\n(?:[ \t].*\n)*)", re.MULTILINE)


#: As ``Field(...)``, which is a function in Python that calls this one.
_field_of = tuple.__new__


class MalformedMessage(ValueError):
    """The header cannot be split in one way only. The text says why and may be shown to the client."""


def parse_message(raw: bytes) -> Message:
    """Split ``raw`` (CRLF line ends, no bare CR or LF) into a Message. Raises MalformedMessage."""
    return parse_content(split_content(raw))


def has_more_fields(header: bytes, most: int) -> bool:
    """Than so many, if it can be split at all: lines that go on nothing. In a fraction of the time that splitting takes."""
    lines = count(header, b"\n")
    return lines > most and lines - count(header, b"\n ") - count(header, b"\n\t") > most


def split_content(raw: bytes) -> Content:
    """Header and body."""
    if raw.startswith(b"\r\n"):
        return Content(b"", b"\r\n", raw[2:])
    end = raw.find(b"\r\n\r\n")
    return Content(raw, b"", b"") if end < 0 else Content(raw[: end + 2], b"\r\n", raw[end + 4 :])


def parse_content(content: Content) -> Message:
    """Split the header into fields. Raises MalformedMessage."""
    header = content.header
    # RFC 5322 section 3.5: a message may end with its header. A last line without CRLF would merge with ours.
    if not content.separator and header and not header.endswith(b"\r\n"):
        raise MalformedMessage("the message does not end with CRLF")
    if len(header) > MAX_HEADER:
        raise MalformedMessage(f"header larger than {MAX_HEADER} octets")
    if has_more_fields(header, MAX_FIELDS):
        raise MalformedMessage(f"more than {MAX_FIELDS} header fields")
    if count(header, b"\n") > MAX_LINES:
        raise MalformedMessage(f"more than {MAX_LINES} header lines")
    return Message(header, content.separator, content.body, _split_fields(header), content.body_hashes)


def _split_fields(header: bytes) -> tuple[Field, ...]:
    found = _FIELD.findall(header)
    # What is between two of them, or behind the last, is none: then it is looked at line by line, to say why. So is what has a
    # CR of its own, at which a line ends too.
    if sum([len(raw) for _, raw in found]) != len(header) or count(header, b"\r") != count(header, b"\r\n"):
        return _split_lines(header)
    return tuple([_field_of(Field, (name.lower(), raw)) for name, raw in found])


def _split_lines(header: bytes) -> tuple[Field, ...]:
    fields: list[Field] = []
    current: list[bytes] = []
    for line in header.splitlines(keepends=True):
        if line[0] in b" \t":
            if not current:
                # "Composition Kills" A9: readers disagree whether this belongs to a field.
                raise MalformedMessage("the header begins with white space")
            current.append(line)
        else:
            if current:
                fields.append(_field(current))
            current = [line]
    if current:
        fields.append(_field(current))
    return tuple(fields)


def _field(lines: list[bytes]) -> Field:
    name, colon, _ = lines[0].partition(b":")
    if not colon:
        raise MalformedMessage("a header line has no colon")
    if not _NAME.match(name):
        # RFC 5322 section 4.5 lets old mail put white space before the colon. Readers differ on whether "From :" is a From
        # field ("Composition Kills" A10), so such a message is refused, not guessed at.
        raise MalformedMessage("a header field name holds white space or an illegal character")
    return Field(name.lower(), lines[0] if len(lines) == 1 else b"".join(lines))


def unfold(value: bytes) -> bytes:
    """RFC 5322 section 2.2.3: a field body without its folds, and without white space at either end."""
    return value.replace(b"\r\n", b"").strip(b" \t")
