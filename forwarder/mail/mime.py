"""What are the parts of a multipart message? RFC 2046 section 5.1 and RFC 2045, as far as a report needs them.

Every limit is fixed beforehand, nothing recurses, and nothing that is found is trusted: a report comes from a stranger.
Forwarded mail is never looked at in this way.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from string import ascii_letters, digits

from forwarder.mail.charset import decode_text
from forwarder.model import Message

__all__ = ["Part", "decode_words", "decoded", "parse_content_type", "parse_fields", "walk_parts"]

#: Octets of body that are looked at. A report's own words and the header it returns fit many times over; the rest of a
#: returned message is of no interest.
MAX_BODY = 256 * 1024
#: Parts within parts, parts in all, and fields of one part. Reports have three parts and one level.
MAX_DEPTH = 5
MAX_PARTS = 50
MAX_FIELDS = 1000

#: Characters of one field that are kept.
_MAX_VALUE = 4096

_NOT_BASE64 = bytes(set(range(256)) - set(f"{ascii_letters}{digits}+/".encode()))
_TYPE = re.compile(r"\s*([A-Za-z0-9!#$&^_.+-]+)\s*/\s*([A-Za-z0-9!#$&^_.+-]+)")
_PARAMETER = re.compile(r';\s*([A-Za-z0-9!#$&^_.+*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))')
_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*")|\([^()]*\)')
_ENCODED_WORD = re.compile(r"=\?([A-Za-z0-9_.:*-]{1,60})\?([BbQq])\?([^?\s]{0,1000})\?=(?:\s+(?==\?))?")


@dataclass(frozen=True, slots=True)
class Part:
    """A leaf: ``content_type`` in lower case, ``fields`` by lower-case name (the first of a name counts), ``body`` as
    it stands."""

    content_type: str
    fields: dict[str, str]
    body: bytes


def walk_parts(message: Message) -> Iterator[Part]:
    """The leaves of a message, in order. A message without parts is one leaf."""
    fields: dict[str, str] = {}
    for field in message.fields:
        fields.setdefault(field.name.decode("ascii", "replace"), _text(field.value))
    pending = [(0, fields, message.body[:MAX_BODY])]
    count = 0
    while pending:
        depth, fields, body = pending.pop()
        kind, parameters = parse_content_type(fields.get("content-type", ""))
        boundary = parameters.get("boundary", "")
        if kind.startswith("multipart/") and boundary and depth < MAX_DEPTH:
            inner = [_split_part(raw) for raw in _split_multipart(body, boundary.encode("utf-8", "surrogateescape"))]
            pending.extend((depth + 1, *one) for one in reversed(inner))
            continue
        yield Part(kind, fields, body)
        count += 1
        if count == MAX_PARTS:
            return


def parse_content_type(value: str) -> tuple[str, dict[str, str]]:
    """``("multipart/report", {"report-type": ...})``, type and names in lower case; text/plain where unreadable (RFC
    2045 section 5.2)."""
    value = _COMMENT.sub(lambda match: match[1] or "", value)
    match = _TYPE.match(value)
    if match is None:
        return "text/plain", {}
    parameters: dict[str, str] = {}
    for name, quoted, bare in _PARAMETER.findall(value, match.end()):
        parameters.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted else bare)
    return f"{match[1]}/{match[2]}".lower(), parameters


def parse_fields(header: bytes) -> list[tuple[str, str]]:
    """The fields of a header in a part, names in lower case, unfolded; what is no field is skipped."""
    found: list[tuple[str, str]] = []
    for line in header.splitlines():
        if line[:1] in (b" ", b"\t"):
            if found and len(found[-1][1]) < _MAX_VALUE:
                found[-1] = (found[-1][0], f"{found[-1][1]} {_text(line)}")
            continue
        name, colon, value = line.partition(b":")
        if colon and name.strip() and b" " not in name.strip():
            found.append((name.strip().decode("ascii", "replace").lower(), _text(value)))
            if len(found) == MAX_FIELDS:
                break
    return found


def decoded(part: Part) -> bytes:
    """The body without its Content-Transfer-Encoding (RFC 2045 section 6)."""
    encoding = part.fields.get("content-transfer-encoding", "").strip().lower()
    if encoding == "base64":
        # What was cut off at MAX_BODY, or never was base64, costs its last octets only.
        letters = part.body.translate(None, _NOT_BASE64)
        return binascii.a2b_base64(letters[: len(letters) // 4 * 4])
    if encoding == "quoted-printable":
        return binascii.a2b_qp(part.body)
    return part.body


def decode_words(value: str) -> str:
    """A field's words without their encoding (RFC 2047), those that cannot be decoded as they are."""
    return _ENCODED_WORD.sub(lambda match: _decode_word(match[1], match[2], match[3]) or match[0], value)


def _decode_word(charset: str, encoding: str, text: str) -> str | None:
    coded = text.encode("ascii", "replace")
    try:
        raw = binascii.a2b_base64(coded) if encoding in "Bb" else binascii.a2b_qp(coded, header=True)
    except ValueError:
        return None
    return decode_text(raw, charset)


def _split_multipart(body: bytes, boundary: bytes) -> list[bytes]:
    """RFC 2046 section 5.1.1: what stands between the delimiter lines; the last part may lack its closing delimiter."""
    delimiter = re.compile(rb"--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\r?\n|\Z)")
    parts: list[bytes] = []
    start: int | None = None
    for match in delimiter.finditer(body):
        # Looked at here: a pattern that begins with the line end is tried at every octet.
        end = match.start()
        if end and body[end - 1] != 0x0A:
            continue
        if start is not None:
            # The line end before it is part of the delimiter.
            end -= 1
            parts.append(body[start : end - 1 if body[end - 1 : end] == b"\r" and end > start else end])
        start = match.end()
        if match[1] or len(parts) == MAX_PARTS:
            return parts
    if start is not None:
        parts.append(body[start:])
    return parts


def _split_part(raw: bytes) -> tuple[dict[str, str], bytes]:
    """The header and the body of a part; it begins with the line end of its delimiter."""
    raw = raw.removeprefix(b"\r").removeprefix(b"\n")
    if raw[:1] == b"\n" or raw[:2] == b"\r\n":
        return {}, raw[1:] if raw[:1] == b"\n" else raw[2:]
    end = re.search(rb"\r?\n\r?\n", raw)
    header, body = (raw[: end.start()], raw[end.end() :]) if end else (raw, b"")
    fields: dict[str, str] = {}
    for name, value in parse_fields(header):
        fields.setdefault(name, value)
    return fields, body


def _text(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return text.replace("\r\n", "").strip(" \t\r\n")[:_MAX_VALUE]
