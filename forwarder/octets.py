"""Where do these few octets stand in those many, and how often? At the speed of memory; docs/decisions/0040.

CPython looks for several octets one place after the other: 2 ms a megabyte of text where the first of them is frequent, as a
space is, and it is done for each message several times. StringZilla compares 16 to 64 places at once.
"""

from __future__ import annotations

from typing import Protocol

import stringzilla  # type: ignore[import-not-found]  # a library in C, without type hints

__all__ = ["Octets", "count", "find"]

Octets = bytes | bytearray | memoryview


class _Find(Protocol):
    def __call__(self, text: Octets, what: bytes, start: int = 0, /) -> int: ...


class _Count(Protocol):
    def __call__(self, text: Octets, what: bytes, /) -> int: ...


#: As ``bytes.find`` and ``bytes.count`` have it. Nothing is around them: that would cost a small message more than they do.
find: _Find = stringzilla.find
count: _Count = stringzilla.count
