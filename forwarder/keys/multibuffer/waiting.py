"""Whose signatures are made together? Those that are asked for before the event loop has nothing else to do.

Under load many messages are on their way, and the next one gets as far as its signature within a few rounds of the loop. When
nothing else goes on a signature waits for three empty rounds, which are some 30 us.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from forwarder.keys.multibuffer.library import LANES, Job, LaneKey, Lanes
from forwarder.ports import Journal

__all__ = ["Waiting", "agree", "find_least", "pad"]

#: Rounds of the loop in which nobody came, after which those that are there wait no more. With three 77 % of the batches of a
#: busy service were full, with twelve 92 %, with thirty as many.
PATIENCE = 12
#: And rounds in which nothing went on at all; seconds that such a one takes at most.
AT_REST, EMPTY = 3, 50e-6
#: RFC 8017 section 9.2, note 1: DigestInfo of SHA-256 up to the hash.
_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
_DIGEST = 32
#: What keys are tried with, and how often both ways are timed.
_TRIED, _TRIES = b"try", 5

Sign = Callable[[bytes], bytes]


def pad(data: bytes, octets: int) -> bytes:
    """EMSA-PKCS1-v1_5 of SHA-256 over ``data``, for a modulus of so many octets (RFC 8017 section 9.2)."""
    fill = octets - 3 - len(_DIGEST_INFO) - _DIGEST
    return b"".join((b"\x00\x01", b"\xff" * fill, b"\x00", _DIGEST_INFO, sha256(data).digest()))


@dataclass(slots=True, eq=False)
class _Asked:
    key: LaneKey
    sign: Sign
    data: bytes
    made: asyncio.Future[bytes]


class Waiting:
    """For keys of ``bits``. ``least``: how many signatures take longer one by one than together."""

    def __init__(self, lanes: Lanes, bits: int, least: int, journal: Journal) -> None:
        self._lanes = lanes
        self._bits = bits
        self._least = least
        self._journal = journal
        self._told = False
        self._asked: list[_Asked] = []
        self._looking = False
        self._seen = 0
        self._quiet = 0
        self._empty = 0
        self._looked = 0.0

    async def signature(self, key: LaneKey, sign: Sign, data: bytes) -> bytes:
        """PKCS #1 v1.5 over SHA-256 of ``data``. ``sign`` makes the same by itself."""
        loop = asyncio.get_running_loop()
        one = _Asked(key, sign, data, loop.create_future())
        self._asked.append(one)
        if len(self._asked) == LANES:
            self._make()
        elif not self._looking:
            self._looking, self._seen = True, len(self._asked)
            self._quiet, self._empty, self._looked = 0, 0, time.perf_counter()
            loop.call_soon(self._look)
        return await one.made

    def _look(self) -> None:
        """Once each round of the loop, while somebody waits."""
        now = time.perf_counter()
        if len(self._asked) != self._seen:
            self._seen, self._quiet, self._empty = len(self._asked), 0, 0
        else:
            self._quiet += 1
            self._empty += now - self._looked < EMPTY
        self._looked = now
        if self._asked and self._quiet < PATIENCE and self._empty < AT_REST:
            asyncio.get_running_loop().call_soon(self._look)
            return
        self._looking = False
        self._make()

    def _make(self) -> None:
        asked, self._asked = [one for one in self._asked if not one.made.done()], []
        if asked:
            self._lanes.sizes[len(asked)] = self._lanes.sizes.get(len(asked), 0) + 1
        if len(asked) >= self._least and not self._lanes.failed:
            made = self._make_together(asked)
            if made is not None:
                for one, signature in zip(asked, made, strict=True):
                    one.made.set_result(signature)
                return
        for one in asked:
            try:
                one.made.set_result(one.sign(one.data))
            except Exception as fault:  # noqa: BLE001 - whoever asked hears of it, and the others get theirs
                one.made.set_exception(fault)
        if self._lanes.failed and not self._told:
            self._told = True
            self._journal.event("multibuffer.failed", bits=self._bits)

    def _make_together(self, asked: list[_Asked]) -> list[bytes] | None:
        """``None``: a fault of the library's, of the machine's or of ours. Nobody has seen what was made, and it is not asked
        again."""
        try:
            made = self._lanes.sign([Job(one.key, pad(one.data, self._bits // 8)) for one in asked])
        except Exception:  # noqa: BLE001 - whoever waits here would wait for ever
            made = None
        self._lanes.failed = made is None
        return made


def agree(lanes: Lanes, key: LaneKey, sign: Sign) -> bool:
    """Does the library make with this key what the key makes?"""
    return lanes.sign([Job(key, pad(_TRIED, key.bits // 8))]) == [sign(_TRIED)]


def find_least(lanes: Lanes, key: LaneKey, sign: Sign) -> int | None:
    """How many signatures take longer one by one than together, by a clock; ``None``: even ``LANES`` do not."""
    job = Job(key, pad(_TRIED, key.bits // 8))
    together = min(_seconds(lambda: lanes.sign([job])) for _ in range(_TRIES))
    alone = min(_seconds(lambda: sign(_TRIED)) for _ in range(_TRIES))
    least = math.ceil(together / alone)
    return max(least, 2) if least <= LANES else None


def _seconds(make: Callable[[], object]) -> float:
    began = time.perf_counter()
    make()
    return time.perf_counter() - began
