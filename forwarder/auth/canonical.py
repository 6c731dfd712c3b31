"""Which octets does a signature cover? RFC 6376 section 3.4, the simple and the relaxed form of fields and bodies.

The theory of the relaxed body: a regular expression over it runs at 60 MB/s, slower by far than the hash that follows,
while ``forwarder.octets`` looks at memory speed for the white space that has to go, of which most text has none. So runs
of it are replaced, not matched, in pieces that end at a line end and stay in the processor's cache; the blank lines at
the end are counted, not stripped one by one. A piece is copied a few times, the body never. A body that still arrives
is hashed as it does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Literal

from forwarder.kept import Kept
from forwarder.model import Message
from forwarder.octets import find

__all__ = ["BodyHash", "Form", "body_hash", "body_size", "relax_field", "relaxed_body", "relaxed_field", "simple_body"]

Form = Literal["simple", "relaxed"]

_CRLF = b"\r\n"
# One octet is looked for as a number: for the octet itself Python takes an exception to find out that it is none.
_TAB, _SPACE = b"\t "
# What bytes.split() takes for white space and RFC 5234 WSP does not.
_CR, _LF, _VT, _FF = b"\r\n\x0b\x0c"
#: Octets of body that are made relaxed at a time: the piece and its copies fit into a second-level cache.
_PIECE = 1 << 15
# Long runs first: each pass then shortens a run to a small part of it, so that a body of blanks takes a handful of
# passes.
_RUNS = (b" " * 64, b" " * 8, b"  ")
#: Octets of a field whose relaxed form is kept, and how many: that bounds the memory to 2 MB whatever strangers send.
_KEPT_FIELD = 1024
_KEPT_FIELDS = 1024


# --- fields -----------------------------------------------------------------------------------------------------------


def relax_field(raw: bytes) -> bytes:
    """RFC 6376 section 3.4.2: one whole field, its name and CRLF included."""
    name, _, value = raw.partition(b":")
    value = value.replace(_CRLF, b"")
    if _CR in value or _LF in value or _VT in value or _FF in value:
        value = re.sub(rb"[ \t]+", b" ", value).strip(b" ")
    else:
        value = b" ".join(value.split())
    return b"%b:%b\r\n" % (name.rstrip(b" \t").lower(), value)


_relaxed = Kept(relax_field, most=_KEPT_FIELDS, longest=_KEPT_FIELD)
#: The same for the fields of a message, each of which every check and every signature asks for.
relaxed_field = _relaxed.__getitem__


# --- bodies -----------------------------------------------------------------------------------------------------------


def body_hash(message: Message, form: Form) -> bytes:
    """SHA-256 of the canonical body: one pass for each form, however many checks and signatures ask."""
    return _measured(message, form)[:32]


def body_size(message: Message, form: Form) -> int:
    """Octets of the canonical body, which is what ``l=`` counts (RFC 6376 section 3.5); of the same pass."""
    return int.from_bytes(_measured(message, form)[32:], "big")


def _measured(message: Message, form: Form) -> bytes:
    """The digest and behind it the size, as ``message.body_hashes`` keeps them."""
    key = (form, None)
    if (known := message.body_hashes.get(key)) is not None:
        return known
    if form == "relaxed" and len(message.body) <= _PIECE:
        whole = _relax_whole(message.body)
        measured = sha256(whole).digest() + len(whole).to_bytes(8, "big")
    else:
        one = BodyHash(form)
        one.update(message.body)
        measured = one.finish()
    message.body_hashes[key] = measured
    return measured


def _relax_whole(body: bytes) -> bytes:
    """Of a body that is one piece."""
    text, _ = _cut_blank_lines(_relax(body))
    return text + _CRLF if text else b""


class BodyHash:
    """The hash of a canonical body that comes in chunks, wherever they are cut."""

    __slots__ = ("_body", "_hasher", "_size")

    def __init__(self, form: Form) -> None:
        self._hasher, self._size = sha256(), 0
        self._body = _BODIES[form](self._take)

    def update(self, chunk: bytes) -> None:
        """The next octets of the body."""
        self._body.update(chunk)

    def finish(self) -> bytes:
        """The body has ended. 32 octets of digest, eight of size."""
        self._body.finish()
        return self._hasher.digest() + self._size.to_bytes(8, "big")

    def _take(self, piece: bytes) -> None:
        self._hasher.update(piece)
        self._size += len(piece)


def simple_body(body: bytes) -> bytes:
    """RFC 6376 section 3.4.3."""
    return _whole("simple", body)


def relaxed_body(body: bytes) -> bytes:
    """RFC 6376 section 3.4.4."""
    return _whole("relaxed", body)


def _whole(form: Form, body: bytes) -> bytes:
    pieces: list[bytes] = []
    one = _BODIES[form](pieces.append)
    one.update(body)
    one.finish()
    return b"".join(pieces)


class _Body:
    """A body on its way into a canonical form, which ``take`` is given piece by piece. ``_rest`` is what cannot be judged
    before more is there; ``_line_ends`` are those at the end so far: they count only once it is known that text follows."""

    __slots__ = ("_line_ends", "_rest", "_take", "_text")

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self._take = take
        self._rest = b""
        self._line_ends = 0
        self._text = False

    def _give(self, piece: bytes) -> None:
        text, blank = _cut_blank_lines(piece)
        if text:
            while self._line_ends:
                some = min(self._line_ends, _PIECE)
                self._take(_CRLF * some)
                self._line_ends -= some
            self._take(text)
            self._text = True
        self._line_ends += blank


class _SimpleBody(_Body):
    __slots__ = ()

    def update(self, chunk: bytes) -> None:
        if self._rest:
            chunk = self._rest + chunk
        self._rest = b""
        if chunk.endswith(b"\r"):
            self._rest, chunk = chunk[-1:], chunk[:-1]
        self._give(chunk)

    def finish(self) -> None:
        self._give(self._rest)
        # No body at all is one empty line; a last line without an end gets one.
        self._take(_CRLF)


class _RelaxedBody(_Body):
    __slots__ = ()

    def update(self, chunk: bytes) -> None:
        if self._rest:
            chunk = self._rest + chunk
        # A piece ends behind a line end, so that no run of white space is cut in two.
        last = chunk.rfind(_CRLF) + 2
        if last < 2:
            self._rest = chunk
            return
        self._rest = chunk[last:]
        start = 0
        while start < last:
            cut = chunk.find(_CRLF, start + _PIECE, last)
            end = last if cut < 0 else cut + 2
            self._give(_relax(chunk[start:end]))
            start = end

    def finish(self) -> None:
        if self._rest:
            self._give(_relax(self._rest))
        if self._text:
            self._take(_CRLF)


def _relax(piece: bytes) -> bytes:
    """White space at line ends gone, every other run of it one space."""
    if _TAB in piece:
        piece = piece.replace(b"\t", b" ")
    # An attachment in base64 holds no space at all.
    if _SPACE not in piece:
        return piece
    if find(piece, b"  ") >= 0:
        piece = piece.replace(b"  ", b" ")
        if find(piece, b"  ") >= 0:
            for run in _RUNS:
                while find(piece, run) >= 0:
                    piece = piece.replace(run, b" ")
    if find(piece, b" \r\n") >= 0:
        piece = piece.replace(b" \r\n", _CRLF)
    # The last line of the body may have no line end.
    return piece.removesuffix(b" ")


def _cut_blank_lines(text: bytes) -> tuple[bytes, int]:
    """The text without the line ends at its end, and how many they were."""
    cut = text.rstrip(_CRLF)
    size = len(text) - len(cut)
    if text.endswith(_CRLF * (size // 2)) and not size % 2:
        return cut, size // 2
    # A bare CR or LF among them is text. The edge refuses such mail; a file given to the command line may hold it.
    end = len(text)
    while text.endswith(_CRLF, 0, end):
        end -= 2
    return text[:end], (len(text) - end) // 2


_BODIES: dict[Form, type[_SimpleBody | _RelaxedBody]] = {"simple": _SimpleBody, "relaxed": _RelaxedBody}
