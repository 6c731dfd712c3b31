"""How does a sender, a network or a destination stand with us?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from forwarder.values import value

__all__ = ["Evidence", "Measure", "Refusals", "Standing", "Standings", "Subject", "SubjectKind"]


class SubjectKind(StrEnum):
    """Of whom something is remembered: a sender's domain that a check vouched for, the network of a client that nothing vouched
    for, an alias of ours, a destination behind one, a provider (the domain of mail hosts) that says what it thinks of us."""

    DOMAIN = "domain"
    NETWORK = "network"
    ALIAS = "alias"
    DESTINATION = "destination"
    PROVIDER = "provider"


@value(order=True)
class Subject:
    """``name`` in lower case: a domain in A-labels, a network with its prefix, an address."""

    kind: SubjectKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


class Measure(StrEnum):
    """What is done about a subject. ``slow`` to ``refuse``: with mail from a sender; ``pause`` and ``disable``: with mail to a
    destination."""

    SLOW = "slow"
    ONE_WAY = "one-way"
    REFUSE = "refuse"
    PAUSE = "pause"
    DISABLE = "disable"


@value
class Evidence:
    """One thing that was held against a subject: what it was, how much it counted, who or what it came by, which message."""

    at: datetime
    what: str
    weight: float
    source: str = ""
    message: str = ""


@value
class Standing:
    """``score`` and ``mail`` (messages since the first evidence) are those of ``at``; they fade by half in each ``half_life``
    seconds. ``evidence`` holds the latest, oldest first. ``measure`` is one that was set (``by_hand`` by the operator), at
    ``since``, until ``until`` (``None``: for good); of a pause, that is when the destination is probed next. At ``over_at``
    nothing of it counts any more."""

    subject: Subject
    score: float
    at: datetime
    half_life: float
    over_at: datetime
    mail: float = 0
    evidence: tuple[Evidence, ...] = ()
    measure: Measure | None = None
    until: datetime | None = None
    by_hand: bool = False
    since: datetime | None = None


class Standings(Protocol):
    """How subjects stand. The answers are those of a table in memory, some seconds old; only a change asks the store."""

    def __len__(self) -> int:
        """Of how many something is remembered."""

    def look_up(self, subject: Subject) -> Standing | None:
        """``None``: nothing is held against it."""

    def count_mail(self, subject: Subject) -> None:
        """A message of a subject that has a standing: counted soon. Never waits."""

    def take_turn(self, subject: Subject, every: float) -> bool:
        """True at most once in ``every`` seconds for each subject, of this process."""

    async def change(
        self, subject: Subject, change: Callable[[Standing | None], Standing | None]
    ) -> tuple[Standing | None, Standing | None]:
        """Put what ``change`` makes of the standing in its place, in one step; it may be asked several times. ``None``: nothing
        is remembered any more. The standing before and after. Raises StoreAway."""


class Refusals(Protocol):
    """Which providers refuse whose mail for its authentication. Both raise ``StoreAway`` when the store is away."""

    async def was_refused(self, author_domain: str, provider: str) -> bool:
        """Did ``note_refusal`` tell of these two in the last weeks?"""

    async def note_refusal(self, author_domain: str, provider: str) -> None:
        """This provider refused mail from this domain as it was, and took it with another From."""
