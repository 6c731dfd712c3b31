"""What does the program tell, and to whom? Events as one JSON object a line, or as text for people.

An event is a name and fields. Addresses are written in part ("b***@sender.example") unless ``full_addresses`` is on; message
bodies, keys and secrets are never passed in. Whatever a stranger sent is escaped by the encoder: no control octet reaches the
log or a terminal. What is told waits a moment, and is written out and handed over in one go; it is bounded, and what does not fit
is dropped, and the next line that is written tells how many were (``log.lost``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

import msgspec

from forwarder.model import Address
from forwarder.ports import Clock

__all__ = ["EventLog", "SilentJournal", "clean", "redact"]

#: Lines that wait for a slow reader before new ones are dropped.
MAX_BACKLOG = 10_000
#: Seconds for which a line of ``_ORDINARY`` waits for others. To write many in one go takes far less time: what a line needs is
#: in the processor's caches then. A process that is killed leaves such lines of its last moment unsaid.
PAUSE = 0.05
#: What every message has. All else is written at once, with what waits: an operator may look for it, and a second copy is on
#: record by it.
_ORDINARY = frozenset(
    {
        *("message.received", "message.verified", "route.forward", "relay.sent", "delivery.outcome"),
        "message.answered",
    }
)
#: For numbers and spans only. When a message was sealed is told by ``relay.sent``, which is that much later as it ``took``, or by
#: ``queue.put``; and ``forwarder explain`` tells what is added.
_UNWRITTEN = frozenset({"message.sealed"})
#: Characters of one text field; a hostile EHLO name or reply cannot fill a disk.
MAX_FIELD = 1000

#: Fields whose text looks like an address and is none.
_NO_ADDRESS = frozenset({"message_id"})
# Only where a word begins: a long one that is no address is read once.
_MAILBOX = re.compile(
    r"""(?:"(?=[^"@\r\n]{1,100}"@)([^"@])[^"@]{0,99}"|(?<![^\s<>()\[\]:;,"'])([^\s<>()\[\]:;,"'@])[^\s<>()\[\]:;,"'@]{0,255})@(?=[^\s@])"""
)

_encoder = msgspec.json.Encoder()
#: In nanoseconds.
_SECOND, _MILLISECOND = 1_000_000_000, 1_000_000
#: How a time ends, by its millisecond.
_MILLISECONDS = tuple(f".{number:03}+00:00" for number in range(1000))


class _Loop(Protocol):
    def call_soon(self, callback: Callable[[], object], /) -> object: ...

    def call_later(self, delay: float, callback: Callable[[], object], /) -> object: ...


class SilentJournal:
    """ports.Journal for a command that prints what it has to say."""

    def event(self, name: str, /, **fields: Any) -> None:
        return


class EventLog:
    """ports.Journal on a text stream."""

    def __init__(
        self,
        stream: TextIO,
        clock: Clock,
        *,
        pretty: bool = False,
        full_addresses: bool = False,
        loop: _Loop | None = None,
        always: Mapping[str, Any] | None = None,
        at_once: int | None = None,
    ) -> None:
        """``always``: fields of every event. ``at_once``: octets that are written whole although others write to the same stream;
        ``None``: nobody else does."""
        self._always = dict(always or {})
        self._at_once = at_once
        self._stream = stream
        self._clock = clock
        self._form: _Form = _Pretty() if pretty else _Json()
        self._full = full_addresses
        self._loop = loop
        #: When, its name, its fields.
        self._told: list[tuple[int, str, dict[str, Any]]] = []
        self._soon = self._later = False
        #: Lines that nobody has, and nobody was told of.
        self._lost = 0

    def use_loop(self, loop: _Loop) -> None:
        """From now on lines are written once a turn of this loop, and those of every message up to ``PAUSE`` later. ``flush``
        when it has ended."""
        self._loop = loop

    def event(self, name: str, /, **fields: Any) -> None:
        """Write one event. Never raises for a stream that is gone."""
        if name in _UNWRITTEN:
            return
        if len(self._told) >= MAX_BACKLOG:
            self._lost += 1
            return
        self._told.append((self._clock.nanoseconds(), name, fields))
        if self._loop is None:
            self.flush()
        elif name in _ORDINARY:
            if not self._later:
                self._later = True
                self._loop.call_later(PAUSE, self._flush_later)
        elif not self._soon:
            self._soon = True
            self._loop.call_soon(self._flush_soon)

    def _flush_later(self) -> None:
        self._later = False
        self.flush()

    def _flush_soon(self) -> None:
        self._soon = False
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._told:
            return
        told, self._told = self._told, []
        lines: list[bytes] = []
        if self._lost:
            told.append((self._clock.nanoseconds(), "log.lost", {"lines": self._lost}))
            self._lost = 0
        for one in told:
            try:
                lines.append(self._line(*one))
            except Exception:  # noqa: BLE001 - the others' lines must not be lost for one that nobody can write
                self._lost += 1
        try:
            for octets in [b"".join(lines)] if self._at_once is None else _pieces(lines, self._at_once):
                self._stream.write(octets.decode())
                self._stream.flush()
        except (OSError, ValueError):
            # A full disk or a closed pipe under the log must not stop the mail.
            self._lost += sum(fields["lines"] if name == "log.lost" else 1 for _, name, fields in told)

    def _line(self, at: int, name: str, fields: dict[str, Any]) -> bytes:
        said = self._form.begin(at, name)
        said.update(self._always)
        for key, value in fields.items():
            if isinstance(value, str) and "@" not in value and len(value) <= MAX_FIELD and value.isprintable():
                # Most are such, and a message tells of forty.
                said[key] = value
            elif value is not None:
                said[key] = value if type(value) is int else clean(value, key, self._full)
        return self._form.line(said)


def _pieces(lines: Iterable[bytes], most: int) -> Iterator[bytes]:
    """As many lines together as have ``most`` octets; a longer one by itself."""
    piece: list[bytes] = []
    octets = 0
    for line in lines:
        if piece and octets + len(line) > most:
            yield b"".join(piece)
            piece, octets = [], 0
        piece.append(line)
        octets += len(line)
    if piece:
        yield b"".join(piece)


def clean(value: Any, key: str, full: bool) -> Any:
    """The value of a field as it may be told outside: short, printable, with addresses in part unless ``full``."""
    if isinstance(value, Address):
        return str(value) if full else _redacted(value)
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        value = value if len(value) <= MAX_FIELD else value[:MAX_FIELD] + "…"
        value = value if full else redact(key, value)
        # JSON leaves DEL, C1 controls (0x9B opens a terminal sequence) and bidi marks as they are.
        return value if value.isprintable() else ascii(value)[1:-1]
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [clean(one, key, full) for one in value[:100]]
    return str(value)[:MAX_FIELD]


def redact(key: str, text: str) -> str:
    """A field of an event with the addresses in it in part: next hops name their recipient in what they say."""
    if "@" not in text or key in _NO_ADDRESS:
        return text
    return _MAILBOX.sub(lambda match: f"{match[1] or match[2]}***@", text)


def _redacted(address: Address) -> str:
    return f"{address.local[:1]}***@{address.domain}"


class _Form(Protocol):
    def begin(self, at: int, name: str) -> dict[str, Any]:
        """What a line has ahead of its fields, by their names. ``at``: Unix time in nanoseconds."""

    def line(self, said: dict[str, Any]) -> bytes:
        """All of it, written."""


class _Json:
    """One object a line. A second is written once: to write a time costs five times as much as all the rest of a line."""

    def __init__(self) -> None:
        self._second = 0
        self._written = "1970-01-01T00:00:00"

    def begin(self, at: int, name: str) -> dict[str, Any]:
        since = at - self._second
        if not 0 <= since < _SECOND:
            since = at % _SECOND
            self._second = at - since
            self._written = f"{datetime.fromtimestamp(self._second // _SECOND, UTC):%Y-%m-%dT%H:%M:%S}"
        return {"time": self._written + _MILLISECONDS[since // _MILLISECOND], "event": name}

    def line(self, said: dict[str, Any]) -> bytes:
        return _encoder.encode(said) + b"\n"


class _Pretty:
    def begin(self, at: int, name: str) -> dict[str, Any]:
        return {"time": f"{datetime.fromtimestamp(at // _SECOND, UTC):%H:%M:%S}", "event": name}

    def line(self, said: dict[str, Any]) -> bytes:
        time, name, *fields = said.items()
        parts = " ".join(f"{key}={_shown(value)}" for key, value in fields)
        return f"{time[1]} {name[1]:<20} {parts}\n".encode()


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else _encoder.encode(value).decode()
    if text.isprintable() and " " not in text and text:
        return text
    return ascii(text)
