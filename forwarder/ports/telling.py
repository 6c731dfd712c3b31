"""What is told: the time, the journal, and the lives of messages?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from forwarder.model import (
    Address,
)

__all__ = ["MAX_AMONG", "Clock", "Journal", "TraceEvent", "Traced", "Traces"]


class TraceEvent(NamedTuple):
    """What the journal was told at ``at`` (Unix time); ``fields`` are addresses, text, numbers, ``None``, or lists of these."""

    at: float
    name: str
    fields: dict[str, Any]


#: Addresses named among many that lead to a message, about.
MAX_AMONG = 100


@dataclass(slots=True)
class Traced:
    """Part of a message's life, or all of it. ``dropped`` says how many events are missing. Of what could be kept in part only:
    ``leads`` are names of events that are kept, and do not lead to it yet; those in ``found`` lead to it already."""

    id: str
    events: list[TraceEvent] = field(default_factory=list)
    dropped: int = 0
    leads: tuple[str, ...] = ()
    found: frozenset[str] = frozenset()

    def found_by(self) -> list[str]:
        """The addresses (lower case), Message-IDs and queue items that shall lead to it, each once; what is named among many, as
        the destinations of a list are, comes last, and of it only the first MAX_AMONG."""
        alone: dict[str, None] = dict.fromkeys(self.leads)
        among: dict[str, None] = {}
        for event in self.events:
            for name, value in event.fields.items():
                kind = type(value)
                # Text is most of them, and most of that leads nowhere.
                if kind is str:
                    if name in _FOUND_BY:
                        alone[value] = None
                elif kind is Address:
                    alone[str(value).lower()] = None
                elif (kind is list or kind is tuple) and len(among) < MAX_AMONG:
                    for one in value:
                        if type(one) is Address:
                            among[str(one).lower()] = None
        return [one for one in alone | among if one not in self.found] if self.found else list(alone | among)


_FOUND_BY = frozenset({"message_id", "item", "about"})


class Traces(Protocol):
    """The lives of messages. Every method raises StoreAway."""

    async def append(self, lives: Sequence[Traced], *, last: bool = False) -> Sequence[Traced]:
        """These events come behind those that are kept already. Where they lie at several servers and some of these are away:
        what is left of them, to be given again; of all the others nothing is missing. A server that was silent is not asked for
        a while, unless it is the ``last`` time."""

    async def find(self, name: str) -> Sequence[str]:
        """Ids of the messages that an address (lower case), a Message-ID or a queue item leads to, the latest first."""

    async def read(self, id: str) -> Traced | None:  # noqa: A002 - what the envelope calls it
        """``None``: nothing is kept of it, or no more."""


class Clock(Protocol):
    """What time is it?"""

    def now(self) -> datetime:
        """Aware, UTC."""

    def nanoseconds(self) -> int:
        """The same as Unix time, for who only notes it: far cheaper."""


class Journal(Protocol):
    """Where events go: one name and fields; the message id in every one that is about a message."""

    def event(self, name: str, /, **fields: Any) -> None:
        """Never raises, never blocks. Bytes and hostile text are escaped by the journal, secrets are not passed."""
