"""Over which octets does a signature field sign? RFC 6376 sections 3.7 and 5.4.

DKIM-Signature, ARC-Message-Signature and Mailkey-Signature differ in tags and rules, not in this. The digest of the
header is what the key signs; the field itself goes in last, with its own ``b=`` empty.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import TypeVar

from forwarder.auth.canonical import Form, relaxed_field
from forwarder.auth.template import fold_list
from forwarder.model import Field
from forwarder.ports import SigningKey
from forwarder.values import value

__all__ = [
    "OVERSIGNED",
    "SIGNED_IF_PRESENT",
    "FieldIndex",
    "Selected",
    "Signing",
    "header_digest",
    "index_fields",
    "select_fields",
    "select_ours",
    "sign_now",
    "sign_together",
    "unsigned_field",
]

T = TypeVar("T")

#: The fields of each name, from the top (``Message.named``).
FieldIndex = Mapping[bytes, Sequence[Field]]

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

# Two patterns, as a search that begins with a literal is ten times faster than one with a choice.
_B_TAG = re.compile(rb";[ \t\r\n]*b[ \t\r\n]*=")
_B_TAG_FIRST = re.compile(rb"[^:]*:[ \t\r\n]*b[ \t\r\n]*=")

_CRLF = b"\r\n"

# --- what is signed ---------------------------------------------------------------------------------------------------


def index_fields(fields: Iterable[Field]) -> FieldIndex:
    """Of a header that is not a message's."""
    index: dict[bytes, list[Field]] = {}
    for one in fields:
        index.setdefault(one.name, []).append(one)
    return index


def header_digest(index: FieldIndex, names: Iterable[bytes], form: Form, own: Field) -> bytes:
    """SHA-256 over the fields that ``names`` (h=) selects and over ``own``, the field under verification, without its signature.
    The signer could not see it, so no name selects it."""
    selected = _select(index, names, own)
    if form == "relaxed":
        # Whether b= is emptied before or after makes no difference, and the field is signed by ARC as it is.
        field = unsigned_field(relaxed_field(own.raw))
        selected = list(map(relaxed_field, selected))
    else:
        field = unsigned_field(own.raw)
    # RFC 6376 section 3.7: the signature field goes last and without its CRLF.
    selected.append(field.removesuffix(_CRLF))
    return sha256(b"".join(selected)).digest()


def _select(index: FieldIndex, names: Iterable[bytes], own: Field | None) -> list[bytes]:
    # RFC 6376 section 5.4.2: equal names select from the bottom up; one more than there are selects nothing.
    selected: list[bytes] = []
    left: dict[bytes, int] = {}
    for name in names:
        if name not in index:
            continue
        instances = index[name]
        at = left.get(name, len(instances)) - 1
        if own is not None:
            while at >= 0 and instances[at].raw is own.raw:
                at -= 1
        left[name] = at
        if at >= 0:
            selected.append(instances[at].raw)
    return selected


def unsigned_field(raw: bytes) -> bytes:
    """The field with the value of ``b=`` and the white space around it deleted (RFC 6376 section 3.7)."""
    tag = _B_TAG.search(raw) or _B_TAG_FIRST.match(raw)
    if tag is None:
        return raw
    end = raw.find(b";", tag.end())
    return raw[: tag.end()] + (raw[end:] if end >= 0 else b"")


# --- what we sign -----------------------------------------------------------------------------------------------------


@value
class Selected:
    """What a signature of ours signs of the header: the value of h=, in lines, and the octets it selects, in relaxed form. Chosen
    once a message, for all of our signatures on it."""

    names: bytes
    octets: bytes
    #: The names one by one, and how many of them, and of the octets, are those of ``OVERSIGNED``.
    chosen: tuple[bytes, ...]
    oversigned: tuple[int, int]

    def with_signatures(self, relaxed: Sequence[bytes]) -> Selected:
        """The same of the header with our DKIM-Signature on top, where all of that name are signed. ``relaxed``: what they are,
        from the bottom up."""
        names, octets = self.oversigned
        chosen = self.chosen[:names] + (b"dkim-signature",) * len(relaxed) + self.chosen[names:]
        joined = b"".join((self.octets[:octets], *relaxed, self.octets[octets:]))
        return Selected(_fold_names(chosen), joined, chosen, self.oversigned)


def select_fields(fields: Iterable[Field], headers: Sequence[bytes] | None = None) -> Selected:
    """The h= that we choose, or ``headers``, one of the caller's own."""
    index = index_fields(fields)
    if headers is None:
        return select_ours(index)
    names = tuple(name.lower() for name in headers)
    octets = b"".join(map(relaxed_field, _select(index, names, None)))
    return Selected(_fold_names(names), octets, names, (0, 0))


def select_ours(index: FieldIndex, also: tuple[bytes, ...] = ()) -> Selected:
    """The h= that we choose: what readers see and what binds the body, each once more than it occurs; the rest, and ``also``, as
    it is."""
    names: list[bytes] = []
    relaxed: list[bytes] = []
    for name in OVERSIGNED:
        names.append(name)
        if name not in index:
            continue
        found = index[name]
        # RFC 6376 section 5.4.2: from the bottom up. Most names stand once.
        for one in found if len(found) == 1 else reversed(found):
            names.append(name)
            relaxed.append(relaxed_field(one.raw))
    octets = b"".join(relaxed)
    oversigned = len(names), len(octets)
    rest = [name for name in index if name in SIGNED_IF_PRESENT or name in also]
    if rest:
        relaxed = [octets]
        for name in rest:
            for one in reversed(index[name]):
                names.append(name)
                relaxed.append(relaxed_field(one.raw))
        octets = b"".join(relaxed)
    chosen = tuple(names)
    return Selected(_fold_names(chosen), octets, chosen, oversigned)


@lru_cache(maxsize=128)
def _fold_names(names: tuple[bytes, ...]) -> bytes:
    """The value of h=. Most mail has one of a few sets of fields, so it is remembered."""
    return fold_list(names, b":")


# --- who makes the signatures -----------------------------------------------------------------------------------------


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
