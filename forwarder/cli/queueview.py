"""How are items of the queue shown? Facts for programs, tables for people."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from forwarder.ports import Held
from forwarder.store.queue import Listed

__all__ = ["COLUMNS", "DEAD_COLUMNS", "NextHop", "Progress", "Table", "counted", "facts", "plain", "row"]

COLUMNS = ("ID", "QUEUED", "TRIES", "NEXT", "OCTETS", "SENDER", "RECIPIENT")
DEAD_COLUMNS = ("ID", "QUEUED", "TRIES", "OCTETS", "SENDER", "RECIPIENT", "WHY")
#: Rows that the widths of a table are measured by; longer ones that come later stick out.
_MEASURED = 200
#: Ages that a summary tells apart, seconds.
_AGES = {"<5m": 300, "<1h": 3600, "<6h": 21600, "<1d": 86400, "<3d": 259200}
_OLDER = ">3d"


# --- one item ---------------------------------------------------------------------------------------------------------


def facts(one: Listed) -> dict[str, Any]:
    """All that a listing knows of it."""
    found: dict[str, Any] = {"id": one.id, "state": _state(one), "due_in": one.due_in, "octets": one.octets}
    return found | _of(one.held) | ({"reason": one.dead} if one.dead is not None else {})


def _state(one: Listed) -> str:
    if one.dead is not None:
        return "dead"
    if one.leased:
        return "under way"
    return "on hold" if one.on_hold else "given up" if one.given_up else "waiting"


def _of(held: Held | None) -> dict[str, Any]:
    if held is None:
        return {"damaged": True}
    return {
        "message": held.envelope.id,
        "next_hop": held.delivery.next_hop,
        "sender": str(held.delivery.sender or "<>"),
        "from": str(held.envelope.sender or "<>"),
        "recipients": [str(one) for one in held.delivery.recipients],
        "for": sorted({str(one.alias) for one in held.waiting}),
        "attempts": held.delivery.attempts,
        "maybe_dup": held.maybe_dup,
        "queued_at": held.queued_at,
        "expires_at": held.delivery.expires_at,
        "report_to": str(held.report_to) if held.report_to is not None else None,
    }


def row(one: Listed) -> tuple[str, ...]:
    """Its cells, as ``COLUMNS`` or ``DEAD_COLUMNS`` names them."""
    state, octets = _state(one), str(one.octets)
    if one.held is None:
        queued_at = tries = sender = ""
        recipients = "damaged in the store"
    else:
        held = one.held
        queued_at, tries = f"{held.queued_at:%Y-%m-%d %H:%M}", str(held.delivery.attempts)
        sender, recipients = str(held.envelope.sender or "<>"), str(held.delivery.recipients[0])
        if len(held.delivery.recipients) > 1:
            recipients += f" and {len(held.delivery.recipients) - 1} more"
    if one.dead is not None:
        return (one.id, queued_at, tries, octets, sender, recipients, one.dead)
    due = f"in {_seconds(one.due_in or 0)}" if state == "waiting" else state
    return (one.id, queued_at, tries, due, octets, sender, recipients)


# --- many, by next hop ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class NextHop:
    """What waits for one next hop. ``due_in``: seconds until the first of it is due."""

    total: int = 0
    under_way: int = 0
    on_hold: int = 0
    octets: int = 0
    oldest: datetime | None = None
    due_in: float | None = None
    ages: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*_AGES, _OLDER), 0))

    COLUMNS = ("NEXT HOP", "TOTAL", "UNDER WAY", "ON HOLD", *_AGES, _OLDER, "OCTETS", "NEXT")

    def add(self, one: Listed, now: datetime) -> None:
        """Count it."""
        self.total += 1
        self.under_way += one.leased
        self.on_hold += one.on_hold
        self.octets += one.octets
        if one.due_in is not None:
            self.due_in = one.due_in if self.due_in is None else min(self.due_in, one.due_in)
        if one.held is not None:
            queued_at = one.held.queued_at
            self.oldest = queued_at if self.oldest is None else min(self.oldest, queued_at)
            age = (now - queued_at).total_seconds()
            self.ages[next((name for name, limit in _AGES.items() if age < limit), _OLDER)] += 1

    def row(self, name: str) -> tuple[str, ...]:
        due = "" if self.due_in is None else f"in {_seconds(self.due_in)}"
        counts = (self.total, self.under_way, self.on_hold, *self.ages.values(), self.octets)
        return (name, *map(str, counts), due)

    def facts(self, name: str) -> dict[str, Any]:
        return {
            "next_hop": name,
            "total": self.total,
            "under_way": self.under_way,
            "on_hold": self.on_hold,
            "octets": self.octets,
            "oldest": self.oldest,
            "due_in": self.due_in,
            "ages": self.ages,
        }


# --- for people -------------------------------------------------------------------------------------------------------


class Table:
    """Prints rows under a header; nothing where there are none. The first rows decide how wide a column is."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._first: list[tuple[str, ...]] = []
        self._widths: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._widths:
            self._begin()

    def add(self, cells: Sequence[str]) -> None:
        cells = tuple(plain(one) for one in cells)
        if self._widths:
            self._print(cells)
            return
        self._first.append(cells)
        if len(self._first) == _MEASURED:
            self._begin()

    def _begin(self) -> None:
        if not self._first:
            return
        rows = [tuple(self._columns), *self._first]
        self._widths = [max(len(one[index]) for one in rows) for index in range(len(self._columns))]
        for cells in rows:
            self._print(cells)

    def _print(self, cells: Sequence[str]) -> None:
        # Numbers stand at the right.
        padded = [
            one.rjust(width) if one.isdecimal() else one.ljust(width)
            for one, width in zip(cells, self._widths, strict=True)
        ]
        print("  ".join(padded).rstrip())


class Progress:
    """A line that counts, on a terminal; elsewhere nothing."""

    def __init__(self, total: int | None, what: str) -> None:
        self._total, self._what = total, what
        self._done, self._shown = 0, time.monotonic()
        self._is_visible = False

    def step(self, count: int = 1) -> None:
        self._done += count
        now = time.monotonic()
        # What is over within a moment needs none.
        if sys.stderr.isatty() and now - self._shown > 0.5:
            of = f" of {self._total}" if self._total is not None else ""
            print(f"\r{self._done}{of} {self._what}", end="", file=sys.stderr, flush=True)
            self._shown, self._is_visible = now, True

    def end(self) -> None:
        if self._is_visible:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def counted(total: int | None, what: str) -> Iterator[Progress]:
    """Progress for as long as the block runs."""
    progress = Progress(total, what)
    try:
        yield progress
    finally:
        progress.end()


def plain(value: object) -> str:
    """What strangers wrote does not reach the terminal as they wrote it."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if text.isprintable() else ascii(text)


def _seconds(count: float) -> str:
    if count <= 0:
        return "0 s"
    return f"{count:.0f} s" if count < 120 else f"{count / 60:.0f} min" if count < 7200 else f"{count / 3600:.1f} h"
