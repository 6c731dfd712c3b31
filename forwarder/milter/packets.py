"""What is one packet of the milter protocol, and what does a filter's say?

A packet is four octets of length (of what follows, big endian), one letter, and what belongs to it; strings end with NUL.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

__all__ = [
    "ACTIONS",
    "CHUNK",
    "LEADING_SPACE",
    "MAX_PACKET",
    "VERSION",
    "AddField",
    "BadPacket",
    "Negotiated",
    "PacketParser",
    "QuarantineIt",
    "Response",
    "SayInstead",
    "Step",
    "Undone",
    "Word",
    "offer",
    "parse_response",
    "render",
    "strings",
]

VERSION = 6
#: Octets of body in one packet (MILTER_CHUNK_SIZE).
CHUNK = 65535
#: Octets of one packet of a filter's: a body that it would put in the place of ours comes in chunks.
MAX_PACKET = 1 << 20
#: SMFIF_*: add fields, change the body, add and remove recipients, change fields, quarantine, change the sender, add recipients
#: with parameters. All of it is offered, as libmilter ends the session where a filter misses one; what is asked for is another
#: matter (``Undone``).
ACTIONS = 0xFF

_HEAD = struct.Struct("!IB")
_LENGTH = struct.Struct("!I")
_NEGOTIATION = struct.Struct("!III")


class BadPacket(Exception):
    """Not this protocol, in words that hold nothing of what came."""


class Step(Enum):
    """SMFIP_*: what a filter can do without. ``skip``: it need not be told; ``silent``: it will not answer."""

    CONNECT = (0x1, 0x1000)
    HELO = (0x2, 0x2000)
    MAIL = (0x4, 0x4000)
    RCPT = (0x8, 0x8000)
    DATA = (0x200, 0x10000)
    HEADER = (0x20, 0x80)
    END_OF_HEADER = (0x40, 0x40000)
    BODY = (0x10, 0x80000)

    @property
    def skip(self) -> int:
        """The flag that says so."""
        return self.value[0]

    @property
    def silent(self) -> int:
        """The flag that says so."""
        return self.value[1]


#: SMFIP_SKIP: it may have enough of the body. SMFIP_HDR_LEADSPC: it wants values with the space behind the colon.
MAY_SKIP = 0x400
LEADING_SPACE = 0x100000
#: Every step that may be left out or not answered, and the two above.
STEPS = MAY_SKIP | LEADING_SPACE
for _step in Step:
    STEPS |= _step.skip | _step.silent


class Word(Enum):
    """Answers without anything behind them."""

    CONTINUE = ord("c")
    ACCEPT = ord("a")
    REJECT = ord("r")
    TEMPFAIL = ord("t")
    DISCARD = ord("d")
    SKIP = ord("s")
    PROGRESS = ord("p")
    CONNECTION_FAILED = ord("f")
    SHUTDOWN = ord("4")


@dataclass(frozen=True, slots=True)
class Negotiated:
    """SMFIC_OPTNEG as it comes back: the version it speaks, and its flags for actions and steps."""

    version: int
    actions: int
    steps: int


@dataclass(frozen=True, slots=True)
class SayInstead:
    """SMFIR_REPLYCODE: the whole reply it wants given, with its code."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class AddField:
    """A field that it wants on the message: added, inserted, or in the place of another."""

    name: str
    value: bytes


@dataclass(frozen=True, slots=True)
class QuarantineIt:
    """Put it aside; the end of the message is still to be answered."""

    reason: str


@dataclass(frozen=True, slots=True)
class Undone:
    """A change that is never made: which."""

    what: str


Response = Word | Negotiated | SayInstead | AddField | QuarantineIt | Undone

_WORDS = frozenset(one.value for one in Word)
_UNDONE = {
    ord("+"): "add a recipient",
    ord("2"): "add a recipient",
    ord("-"): "remove a recipient",
    ord("b"): "replace the body",
    ord("e"): "change the sender",
    ord("l"): "choose macros",
}


def render(letter: str, *parts: bytes | memoryview) -> tuple[bytes | memoryview, ...]:
    """The chunks of one packet; a large part is not copied."""
    return (_HEAD.pack(1 + sum(map(len, parts)), ord(letter)), *parts)


def strings(*values: bytes) -> bytes:
    """Each with its NUL."""
    return b"".join(one.replace(b"\0", b"") + b"\0" for one in values)


class PacketParser:
    """Packets out of a stream that comes in any pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(letter, what is behind it) of each packet that is complete. Raises BadPacket."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if not 0 < length <= MAX_PACKET:
                raise BadPacket(f"a packet of {length} octets")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            packet = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield packet[0], packet[1:]


def parse_response(letter: int, data: bytes) -> Response:
    """What a filter says. Raises BadPacket."""
    if letter in _WORDS:
        return Word(letter)
    if letter in _UNDONE:
        return Undone(_UNDONE[letter])
    match chr(letter):
        case "O":
            if len(data) < _NEGOTIATION.size:
                raise BadPacket("a negotiation that is too short")
            return Negotiated(*_NEGOTIATION.unpack_from(data))
        case "y":
            return _reply(data)
        case "h":
            return _field(data)
        case "i":
            return _field(data[4:])
        case "m":
            found = _field(data[4:])
            return found if found.value else Undone("remove a header field")
        case "q":
            return QuarantineIt(_text(data))
        case _:
            raise BadPacket("an answer of an unknown kind")


def _reply(data: bytes) -> SayInstead:
    if len(data) < 4 or not data[:3].isdigit() or data[:1] not in b"45":
        raise BadPacket("a reply without a code")
    return SayInstead(int(data[:3]), _text(data[4:]))


def _field(data: bytes) -> AddField:
    parts = data.split(b"\0")
    if len(parts) < 3 or not parts[0]:
        raise BadPacket("a header field without a name or an end")
    try:
        return AddField(parts[0].decode("ascii"), parts[1])
    except UnicodeDecodeError:
        raise BadPacket("a header field whose name is not ASCII") from None


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0][:1000].decode("utf-8", "replace")


def offer() -> tuple[bytes | memoryview, ...]:
    """SMFIC_OPTNEG: what we speak, what we offer, and what we can leave out."""
    return render("O", _NEGOTIATION.pack(VERSION, ACTIONS, STEPS))
