"""Where does each worker leave its numbers for the others? In files that prometheus_client's multiprocess mode reads.

Whoever is asked merges the files of all workers, so that any of them can answer for all. A file of a worker that has ended keeps
its counters, which must not fall; what its gauges said is taken out when somebody looks. The folder is emptied when the program
starts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from forwarder.metrics.tally import Counter, Family, Gauge, Histogram, Numbers, Ticks

if TYPE_CHECKING:
    from prometheus_client.mmap_dict import MmapedDict

__all__ = ["NumberFiles", "clear", "pids_in"]

#: Octets of one file. They are there before they are written to: a write into a mapped file for which the disk has no room would
#: end the process (SIGBUS). An entry takes some 200, all of them a fifth of this.
FILE_OCTETS = 256 * 1024
_ROOM_OF_ENTRY = 40

Values = dict[str, float]


def clear(folder: Path) -> None:
    """Make it, and empty it of the numbers of earlier runs. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink(missing_ok=True)


def pids_in(folder: Path) -> set[int]:
    """Of the workers whose gauges are there."""
    found = set()
    for file in folder.glob("gauge_*.db"):
        with suppress(ValueError):
            found.add(int(file.stem.rpartition("_")[2]))
    return found


class NumberFiles:
    """Of this process. Raises OSError where there is no room for them."""

    def __init__(self, folder: Path, numbers: Numbers, signatures: dict[tuple[str, str], Ticks]) -> None:
        self._folder = folder
        self._numbers = numbers
        self._signatures = signatures
        self._files: dict[str, _File] = {}

    def write(self) -> None:
        """What has changed since the last time. Half a millisecond."""
        for (kind, algorithm), ticks in self._signatures.items():
            self._numbers.signatures.values[kind, algorithm] = ticks.value
        now = time.time()
        for family in self._numbers:
            name, values = _values_of(family)
            if values:
                file = self._files.get(name)
                if file is None:
                    file = self._files[name] = _File(self._folder / f"{name}_{os.getpid()}.db")
                file.write(values, now)

    def close(self) -> None:
        """Counters stay for the others; what gauges said does not hold any more."""
        for name, file in self._files.items():
            file.close()
            if name.startswith("gauge"):
                file.path.unlink(missing_ok=True)
        self._files.clear()


class _File:
    def __init__(self, path: Path) -> None:
        # Imported where metrics are served, and nowhere else: 3 MB.
        from prometheus_client.mmap_dict import MmapedDict  # noqa: PLC0415

        self.path = path
        path.write_bytes(bytes(FILE_OCTETS))
        self._map: MmapedDict = MmapedDict(str(path))  # type: ignore[no-untyped-call]  # the library has few types
        self._written: Values = {}
        self._used = 64

    def write(self, values: Values, now: float) -> None:
        for key, value in values.items():
            if self._written.get(key) == value:
                continue
            if key not in self._written:
                self._used += len(key.encode()) + _ROOM_OF_ENTRY
                if self._used > FILE_OCTETS:
                    self._used = FILE_OCTETS
                    continue
            self._map.write_value(key, value, now)  # type: ignore[no-untyped-call]  # as above
            self._written[key] = value

    def close(self) -> None:
        self._map.close()  # type: ignore[no-untyped-call]  # as above


def _values_of(family: Family) -> tuple[str, Values]:
    """The file that a family is in, and its samples under their keys."""
    match family:
        case Counter():
            return "counter", _keyed(family, "_total", family.values.items())
        case Gauge():
            return f"gauge_{family.merge}", _keyed(family, "", family.values.items())
        case Histogram():
            return "histogram", _of_histogram(family)
    raise TypeError(type(family))


def _of_histogram(family: Histogram) -> Values:
    values = _keyed(family, "_sum", family.sums.items())
    bounds = [*map(str, family.bounds), "+Inf"]
    for labels, buckets in family.buckets.items():
        for bound, count in zip(bounds, buckets, strict=True):
            # Not cumulated: the library does that when it merges.
            values[_key(family, "_bucket", labels, bound)] = count
    return values


def _keyed(family: Family, suffix: str, items: Iterable[tuple[tuple[str, ...], float]]) -> Values:
    return {_key(family, suffix, labels): value for labels, value in items}


_keys: dict[tuple[str, str, tuple[str, ...], str], str] = {}


def _key(family: Family, suffix: str, labels: tuple[str, ...], bound: str = "") -> str:
    known = _keys.get((family.name, suffix, labels, bound))
    if known is None:
        from prometheus_client.mmap_dict import mmap_key  # noqa: PLC0415

        names, texts = list(family.labels), list(labels)
        if bound:
            names, texts = [*names, "le"], [*texts, bound]
        known = mmap_key(family.name, family.name + suffix, names, texts, family.help)
        _keys[family.name, suffix, labels, bound] = known
    return known
