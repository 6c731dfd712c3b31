"""Over which octets does a signature field sign, and how is one written? RFC 6376 sections 3.7 and 5.4.

DKIM-Signature, ARC-Message-Signature and Mailkey-Signature differ in tags and rules, not in this. The digest of the
header is what the key signs; the field itself goes in last, with its own ``b=`` empty.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import TypeVar

from forwarder.auth.canonical import Form, relax_field, relaxed_field
from forwarder.model import Field
from forwarder.ports import SigningKey

__all__ = [
    "OVERSIGNED",
    "SIGNED_IF_PRESENT",
    "FieldIndex",
    "OpenField",
    "Selected",
    "Signing",
    "Tag",
    "fold_base64",
    "fold_list",
    "header_digest",
    "index_fields",
    "open_field",
    "select_fields",
    "sign_field",
    "sign_now",
    "sign_together",
    "unsigned_field",
]

T = TypeVar("T")

FieldIndex = Mapping[bytes, Sequence[bytes]]

#: What is made with signatures, each of which is asked for: by which key, over which octets. Whoever runs it decides whether a
#: signature is made at once (``sign_now``), or with those of other messages (``sign_together``).
Signing = Generator[tuple[SigningKey, bytes], bytes, T]

#: Signed once more than they occur, so that nobody adds another one behind our back (RFC 6376 section 8.15).
OVERSIGNED = (
    b"from",
    b"to",
    b"cc",
    b"subject",
    b"date",
    b"message-id",
    b"reply-to",
    b"mime-version",
    b"content-type",
    b"content-transfer-encoding",
)
#: Signed as often as they occur (RFC 6376 section 5.4.1, RFC 8058 section 4).
SIGNED_IF_PRESENT = frozenset(
    {
        b"sender",
        b"in-reply-to",
        b"references",
        b"resent-date",
        b"resent-from",
        b"resent-sender",
        b"resent-to",
        b"resent-cc",
        b"resent-message-id",
        b"list-id",
        b"list-help",
        b"list-unsubscribe",
        b"list-unsubscribe-post",
        b"list-subscribe",
        b"list-post",
        b"list-owner",
        b"list-archive",
    }
)

#: RFC 5322 section 2.1.1 asks for lines of at most 78 octets.
_LINE = 78
#: Of a folded value: a space, a tag of two letters, its equals sign and a semicolon fit around it.
_VALUE_LINE = 72
# Two patterns, as a search that begins with a literal is ten times faster than one with a choice.
_B_TAG = re.compile(rb";[ \t\r\n]*b[ \t\r\n]*=")
_B_TAG_FIRST = re.compile(rb"[^:]*:[ \t\r\n]*b[ \t\r\n]*=")

#: Headers whose selection is remembered: of each message that is being signed its own, and that with our DKIM signatures.
_KEPT_SELECTIONS = 64

_CRLF = b"\r\n"
_FOLD = b"\r\n "

# --- what is signed ---------------------------------------------------------------------------------------------------


def index_fields(fields: Iterable[Field]) -> FieldIndex:
    """The raw fields of each name, from the top."""
    index: dict[bytes, list[bytes]] = {}
    for name, raw in fields:
        # Most names stand once.
        if name in index:
            index[name].append(raw)
        else:
            index[name] = [raw]
    return index


def header_digest(
    index: FieldIndex, names: Iterable[bytes], form: Form, field: bytes, own: Field | None = None
) -> bytes:
    """SHA-256 over the fields that ``names`` (h=) selects and over ``field``, the signature field without its
    signature.

    ``own`` is the field under verification: the signer could not see it, so no name selects it.
    """
    selected = _select(index, names, own)
    if form == "relaxed":
        selected = list(map(relaxed_field, selected))
        field = relax_field(field)
    # RFC 6376 section 3.7: the signature field goes last and without its CRLF.
    return sha256(b"".join(selected) + field.removesuffix(_CRLF)).digest()


def _select(index: FieldIndex, names: Iterable[bytes], own: Field | None) -> list[bytes]:
    # RFC 6376 section 5.4.2: equal names select from the bottom up; one more than there are selects nothing.
    selected: list[bytes] = []
    left: dict[bytes, list[bytes]] = {}
    for name in names:
        instances = left.get(name)
        if instances is None:
            instances = left[name] = list(index.get(name, ()))
            if own is not None and own.name == name:
                instances[:] = [raw for raw in instances if raw is not own.raw]
        if instances:
            selected.append(instances.pop())
    return selected


def unsigned_field(raw: bytes) -> bytes:
    """The field with the value of ``b=`` and the white space around it deleted (RFC 6376 section 3.7)."""
    tag = _B_TAG.search(raw) or _B_TAG_FIRST.match(raw)
    if tag is None:
        return raw
    end = raw.find(b";", tag.end())
    return raw[: tag.end()] + (raw[end:] if end >= 0 else b"")


# --- writing a signature ----------------------------------------------------------------------------------------------

#: A tag and its value, which may be folded.
Tag = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Selected:
    """What a signature of ours signs of the header: the value of h=, in lines, and the octets it selects, in relaxed form."""

    names: bytes
    octets: bytes


def select_fields(
    fields: Sequence[Field], headers: Sequence[bytes] | None = None, *, also: tuple[bytes, ...] = ()
) -> Selected:
    """The h= that we choose: what readers see and what binds the body, each once more than it occurs; the rest, and ``also``, as
    it is. Or ``headers``, an h= of the caller's own."""
    if headers is None:
        return _selected_by_us(tuple(fields), also)
    names = tuple(name.lower() for name in headers)
    raws = _select(index_fields(fields), names, None)
    return Selected(_fold_names(names), b"".join(map(relaxed_field, raws)))


# DKIM's signatures and each next hop's mailkey select the same of a message.
@lru_cache(maxsize=_KEPT_SELECTIONS)
def _selected_by_us(fields: tuple[Field, ...], also: tuple[bytes, ...]) -> Selected:
    index = index_fields(fields)
    names: list[bytes] = []
    raws: list[bytes] = []
    for name in OVERSIGNED:
        found = index.get(name, ())
        names += [name] * (len(found) + 1)
        # RFC 6376 section 5.4.2: from the bottom up.
        raws += found[::-1]
    for name, found in index.items():
        if name in SIGNED_IF_PRESENT or name in also:
            names += [name] * len(found)
            raws += found[::-1]
    return Selected(_fold_names(tuple(names)), b"".join(map(relaxed_field, raws)))


@dataclass(frozen=True, slots=True)
class OpenField:
    """A signature field in two parts, between which its signature goes."""

    head: bytes
    tail: bytes

    @property
    def signed_form(self) -> bytes:
        """The last of what is signed: the field in relaxed form with an empty b=, without its CRLF."""
        return relax_field(self.head + self.tail + _CRLF)[:-2]

    def close(self, signature: bytes, *, folded: bool = True) -> bytes:
        """The whole field with its CRLF."""
        text = b64encode(signature)
        return b"".join((self.head, fold_base64(text) if folded else text, self.tail, _CRLF))


def open_field(name: bytes, before: Iterable[Tag], after: Iterable[Tag] = ()) -> OpenField:
    """``Name: tag=value; ... b=; tag=value``, with ``b=`` on a line of its own between ``before`` and ``after``."""
    tail = _write_tags(b"", after).removesuffix(b";")
    return OpenField(_write_tags(name + b":", before) + _FOLD + b"b=", b";" + _CRLF + tail if tail else b"")


def sign_field(selected: Selected, field: OpenField, key: SigningKey, *, folded: bool = True) -> Signing[bytes]:
    """The whole field, signed over what is ``selected``."""
    # A SigningKey hashes by itself, so it gets the octets and not their digest.
    signature = yield key, selected.octets + field.signed_form
    return field.close(signature, folded=folded)


def sign_now(steps: Signing[T]) -> T:
    """What ``steps`` make, every signature as it is asked for."""
    try:
        key, data = next(steps)
        while True:
            key, data = steps.send(key.sign(data))
    except StopIteration as made:
        found: T = made.value
        return found


async def sign_together(steps: Signing[T], *, wait: bool = True) -> T:
    """The same, where a key may have its signature made with those of others that are asked for meanwhile. Without ``wait``
    nothing else goes on meanwhile."""
    if not wait:
        return sign_now(steps)
    try:
        key, data = next(steps)
        while True:
            key, data = steps.send(await key.signature(data))
    except StopIteration as made:
        found: T = made.value
        return found


def _write_tags(line: bytes, tags: Iterable[Tag]) -> bytes:
    lines: list[bytes] = []
    for one in tags:
        piece = b" %b=%b;" % one
        # For "in" Python 3.11 makes an exception and drops it, each time.
        is_folded = piece.find(_CRLF) >= 0
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


def fold_base64(text: bytes) -> bytes:
    """A base64 value in lines."""
    return _FOLD.join([text[at : at + _VALUE_LINE] for at in range(0, len(text), _VALUE_LINE)])


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


@lru_cache(maxsize=128)
def _fold_names(names: tuple[bytes, ...]) -> bytes:
    """The value of h=. Most mail has one of a few sets of fields, so it is remembered."""
    return fold_list(names, b":")
