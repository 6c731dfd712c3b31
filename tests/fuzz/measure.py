"""Does one input keep every promise? No exception, no broken promise, no hang, and no more time than it may cost."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tests.fuzz.target import Target

__all__ = ["MAX_CPU", "MAX_WAIT", "Finding", "Measure", "examine"]

#: Seconds of CPU that one input may cost, and seconds until it has to be done.
MAX_CPU = 0.25
MAX_WAIT = 1.0
#: Seconds until an input that does not end is given up.
_GIVE_UP = 10.0
#: What took too long is tried so often: another program, or a collection of garbage, may have been in between.
_TRIES = 4


class Hang(Exception):
    """It did not end."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and the input that shows it."""

    target: str
    data: bytes
    what: str

    @property
    def place(self) -> str:
        """The same for findings that are likely to have one cause."""
        lines = [one for one in self.what.splitlines() if one.startswith("  File ")]
        return lines[-1] if lines else "time"


@dataclass(slots=True)
class Measure:
    """Of many inputs: how many, and the most CPU that one took, in seconds."""

    inputs: int = 0
    slowest: float = 0.0
    slowest_data: bytes = b""


def examine(target: Target, data: bytes, measure: Measure) -> Finding | None:
    """Run it, and again where it seemed slow."""
    cpu = wait = float("inf")
    for _ in range(_TRIES):
        began, cpu_began = time.monotonic(), time.process_time()
        try:
            with _given_up():
                target.run(data)
        except Exception:  # noqa: BLE001 - whatever it is, it is what we are looking for
            return Finding(target.name, data, traceback.format_exc())
        cpu = min(cpu, time.process_time() - cpu_began)
        wait = min(wait, time.monotonic() - began)
        if cpu <= MAX_CPU and wait <= MAX_WAIT:
            break
    measure.inputs += 1
    if cpu > measure.slowest:
        measure.slowest, measure.slowest_data = cpu, data
    if cpu > MAX_CPU or wait > MAX_WAIT:
        return Finding(target.name, data, f"{cpu:.3f} s of CPU, {wait:.3f} s in all")
    return None


@contextmanager
def _given_up() -> Iterator[None]:
    def give_up(number: int, frame: FrameType | None) -> None:
        raise Hang(f"no end after {_GIVE_UP:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, _GIVE_UP)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
