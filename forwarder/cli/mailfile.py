"""Which messages are in this file? One message, or an mbox (RFC 4155 appendix A), one after the other and bounded.

A file whose first octets are ``From `` is an mbox: no header can begin like that. A message ends before the next line
that begins so and follows an empty one; that empty line belongs to the mbox, not to the message.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

__all__ = ["MAX_MESSAGE", "Stored", "open_mail", "stored_messages"]

#: Octets of one message in memory.
MAX_MESSAGE = 64 * 1024 * 1024
#: Octets read at a time; a longer line comes in pieces.
_MAX_PIECE = 64 * 1024

_FROM = b"From "
_EMPTY = (b"\n", b"\r\n")
# mboxrd quotes From, >From, >>From...; mboxo quotes From alone. Taking one ">" off undoes both.
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Stored:
    """``before`` and ``after`` are the mbox's own lines, empty for a message by itself; ``raw`` is what stands between
    them, ``None`` where that is larger than MAX_MESSAGE."""

    before: bytes
    raw: bytes | None
    after: bytes

    @property
    def message(self) -> bytes:
        """The message as it was before the mbox quoted it."""
        raw = self.raw or b""
        return _QUOTED.sub(rb"\1", raw) if self.before else raw


@contextlib.contextmanager
def open_mail(path: str | None) -> Iterator[BinaryIO]:
    """A file for reading; standard input for ``None`` and ``-``. Raises OSError."""
    if path in (None, "-"):
        yield sys.stdin.buffer
    else:
        with Path(str(path)).open("rb") as file:
            yield file


def stored_messages(file: BinaryIO) -> Iterator[Stored]:
    """What is in the file, in order; an empty file has none. Holds one message at a time."""
    line = file.readline(_MAX_PIECE)
    if line.startswith(_FROM):
        yield from _mbox(file, line)
    elif line:
        rest = file.read(MAX_MESSAGE + 1)
        yield Stored(b"", line + rest if len(rest) <= MAX_MESSAGE else None, b"")


def _mbox(file: BinaryIO, before: bytes) -> Iterator[Stored]:
    lines: list[bytes] = []
    size, previous = 0, b""
    # A From_ line of more than one piece: its rest is still the mbox's.
    while not before.endswith(b"\n") and (piece := file.readline(_MAX_PIECE)):
        before = (before + piece)[:_MAX_PIECE]
    while line := file.readline(_MAX_PIECE):
        if line.startswith(_FROM) and previous in (b"", *_EMPTY):
            yield _stored(before, lines, size)
            before, lines, size, previous = line, [], 0, b""
            continue
        size += len(line)
        if size <= MAX_MESSAGE:
            lines.append(line)
        # A piece that does not end a line has no line begin after it.
        previous = line if line.endswith(b"\n") else b"..."
    yield _stored(before, lines, size)


def _stored(before: bytes, lines: list[bytes], size: int) -> Stored:
    after = lines.pop() if lines and lines[-1] in _EMPTY and len(lines) > 1 else b""
    return Stored(before, b"".join(lines) if size <= MAX_MESSAGE else None, after)
