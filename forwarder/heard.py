"""Has the sender heard that we have its message? Then the same octets from it are another message; docs/decisions/0036.

Of this process only, and for as long as there is room: what is not known here counts as a repetition, which is answered 250 and
not delivered again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

__all__ = ["MAX_AWAITED", "MAX_HEARD", "MAX_OF_ONE", "Heard"]

#: Fingerprints whose 250 was read (4 MB); the oldest is forgotten first.
MAX_HEARD = 20_000
#: Messages whose 250 may be read yet.
MAX_AWAITED = 2_000
#: Destinations of one message: what goes to more is a list's, and is a repetition whoever sends it.
MAX_OF_ONE = 32


class Heard:
    """How often the 250 for a fingerprint was read."""

    def __init__(self) -> None:
        self._times: dict[bytes, int] = {}
        self._awaited: dict[str, tuple[bytes, ...]] = {}

    def distinguish(self, message: str, fingerprints: Iterable[bytes]) -> list[bytes]:
        """What stands for these in the ledger, 32 octets each: another one each time after ``read(message)``, the id of ours."""
        plain = tuple(fingerprints)
        if len(plain) > MAX_OF_ONE:
            return list(plain)
        self._awaited[message] = (*self._awaited.get(message, ()), *plain)
        if len(self._awaited) > MAX_AWAITED:
            del self._awaited[next(iter(self._awaited))]
        return [self._with_count(one) for one in plain]

    def _with_count(self, fingerprint: bytes) -> bytes:
        times = self._times.get(fingerprint)
        return hashlib.sha256(fingerprint + times.to_bytes(4, "big")).digest() if times else fingerprint

    def read(self, message: str) -> None:
        """Its sender knows that we have it."""
        for one in self._awaited.pop(message, ()):
            self._times[one] = self._times.pop(one, 0) + 1
        while len(self._times) > MAX_HEARD:
            del self._times[next(iter(self._times))]
