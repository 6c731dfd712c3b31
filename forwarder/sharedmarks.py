"""Which forwards are under way in other workers? Marks in memory that all of them have, made before they are forked.

A next hop that forwards in session reports a failure of its own before it answers us, and the kernel may give its connection to
another worker, which knows nothing of the message. Refusing that report would lose it, so whoever sees a mark says 451, and
finds the message in the store when the report comes again. A mark costs a microsecond, and no trip.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable

__all__ = ["SharedMarks", "marks_for"]

#: Octets of a mark. Where two are alike by chance, a report is told to come again.
_SIZE = 8
#: Forwards that one worker may have under way and marked; what comes beyond is not.
_SLOTS = 8192
_NONE = bytes(_SIZE)


def marks_for(workers: int) -> mmap.mmap:
    """Memory for all of them; children have it too."""
    return mmap.mmap(-1, workers * _SLOTS * _SIZE)


class SharedMarks:
    """Those of the worker with this index; each writes to its own part only."""

    def __init__(self, memory: mmap.mmap, index: int) -> None:
        self._memory = memory
        self._begin = index * _SLOTS * _SIZE
        self._end = self._begin + _SLOTS * _SIZE
        # Whoever had this part before us has died.
        memory[self._begin : self._end] = bytes(_SLOTS * _SIZE)
        self._free = list(range(self._end - _SIZE, self._begin - _SIZE, -_SIZE))

    def put(self, names: Iterable[str]) -> list[int]:
        """These are under way. Returns what ``take`` wants."""
        slots = []
        for name in names:
            if self._free:
                slots.append(self._free.pop())
                self._memory[slots[-1] : slots[-1] + _SIZE] = _mark(name)
        return slots

    def take(self, slots: Iterable[int]) -> None:
        """They are under way no more."""
        for slot in slots:
            self._memory[slot : slot + _SIZE] = _NONE
            self._free.append(slot)

    def others_have(self, name: str) -> bool:
        """Is it under way in another worker?"""
        mark, at = _mark(name), -1
        while (at := self._memory.find(mark, at + 1)) >= 0:
            if at % _SIZE == 0 and not self._begin <= at < self._end:
                return True
        return False


def _mark(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_SIZE).digest()
