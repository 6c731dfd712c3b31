"""What is under way in this process, and which of it do others have? For reports that come before the answer they are about, and
for what the store was away to hear of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain
from typing import Protocol

from forwarder.dispatch.plans import Fate, Plan
from forwarder.heard import Heard
from forwarder.model import Address, Outcome
from forwarder.ports import Begun, Forwarded
from forwarder.unsettled import Unsettled

__all__ = ["Attempt", "Late", "Marks", "Put", "UnderWay", "begun_of"]


class Put(Enum):
    """Does the queue have it?"""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, eq=False)
class Late:
    """What the ledger missed: the arguments of ``Ledger.settle``."""

    attempt: str
    delivered: Sequence[bytes]
    released: Sequence[bytes]
    forwards: Sequence[Forwarded]


@dataclass(slots=True, eq=False)
class Attempt:
    """A plan under way. ``ended`` is told when it is no more. ``outcome`` is there once the relay is done; ``handed`` once the
    session stopped waiting: it tells whether the queue has it."""

    plan: Plan
    attempt: str
    recorded: bool
    began: float
    ended: Callable[[], None]
    outcome: Outcome | None = None
    handed: asyncio.Future[Put] | None = None
    task: asyncio.Task[tuple[Fate, ...]] | None = field(default=None, repr=False)


class Marks(Protocol):
    """Names of forwards that are under way, seen by all workers: sharedmarks."""

    def put(self, names: Iterable[str]) -> list[int]:
        """These are. Returns what ``take`` wants."""

    def take(self, slots: Iterable[int]) -> None:
        """They are no more."""

    def others_have(self, name: str) -> bool:
        """Is it under way in another worker?"""


class UnderWay:
    """Forwards whose attempt has not ended, in session or from the queue. The ledger knows what was delivered; a next hop that
    forwards in session reports one of its own failures before it answers us. And what this process did that the store does not
    know yet, and what their senders know. Of this process only: one for all its dispatchers. ``marks`` tell the other workers;
    ``None``: there are none."""

    def __init__(self, marks: Marks | None = None) -> None:
        self._marks = marks
        self._forwards: dict[object, Sequence[Forwarded | None]] = {}
        #: Of the dispatchers that share this: those before and after a reload.
        self.attempts: set[Attempt] = set()
        self.unsettled = Unsettled()
        self.heard = Heard()
        #: In the order in which the ledger missed them.
        self.late: dict[Late, None] = {}

    def during(self, forwards: Sequence[Forwarded | None]) -> AbstractContextManager[None]:
        """They are under way within the context."""
        return _During(self._forwards, self._marks, forwards)

    def is_elsewhere(self, reversible: Address, message_id: str | None) -> bool:
        """Has another worker a message under way that a report with this Message-ID could be about?"""
        return self._marks is not None and self._marks.others_have(_name(reversible, message_id))

    def find(self, reversible: Address, message_id: str | None, destinations: Sequence[Address]) -> Forwarded | None:
        """The one that a report is about. By all three, as nothing else is certain before the end."""
        if message_id is None:
            return None
        named = {str(one).casefold() for one in destinations}
        return next(
            (
                one
                for forwards in chain(self._forwards.values(), (late.forwards for late in self.late))
                for one in forwards
                if one is not None
                and one.message_id == message_id
                and str(one.reversible).casefold() == str(reversible).casefold()
                and str(one.destination).casefold() in named
            ),
            None,
        )


class _During(AbstractContextManager[None]):
    # No generator of contextlib's: that takes three times as long, for each message.
    __slots__ = ("_all", "_forwards", "_marks", "_slots")

    def __init__(
        self,
        all_: dict[object, Sequence[Forwarded | None]],
        marks: Marks | None,
        forwards: Sequence[Forwarded | None],
    ) -> None:
        self._all = all_
        self._marks = marks
        self._forwards = forwards
        self._slots: list[int] = []

    def __enter__(self) -> None:
        self._all[self] = self._forwards
        if self._marks is not None:
            self._slots = self._marks.put(_name(one.reversible, one.message_id) for one in self._forwards if one)

    def __exit__(self, *_: object) -> None:
        del self._all[self]
        if self._marks is not None:
            self._marks.take(self._slots)


def _name(reversible: Address, message_id: str | None) -> str:
    return f"{str(reversible).casefold()} {message_id or ''}"


def begun_of(forwards: Iterable[Forwarded | None]) -> list[Begun]:
    """What a report of one of them could be about before it is on record."""
    return [(one.reversible, one.message_id) for one in forwards if one is not None]
