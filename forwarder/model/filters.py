"""What did content filters find, and what is done about it?"""

from __future__ import annotations

from enum import StrEnum

from forwarder.values import value


class ContentAction(StrEnum):
    """What is done about a message because of what it contains. ``tag``: it is forwarded with fields that say so."""

    ACCEPT = "accept"
    TAG = "tag"
    ONE_WAY = "one-way"
    QUARANTINE = "quarantine"
    DISCARD = "discard"
    TEMPFAIL = "tempfail"
    REJECT = "reject"


@value
class ContentCheck:
    """What one content filter said: facts, no advice. ``action`` is its own word (``"add header"``, ``"reject"``), empty where it
    could not be asked: then ``failure`` says why. ``score`` and ``required`` are ``None`` where it has none. ``fields`` are
    header fields that it wants on it, value as it came; ``undone`` names what it wanted changed and is never changed here;
    ``said`` is its text, for the log only. ``milliseconds``: how long it took."""

    filter: str
    action: str = ""
    score: float | None = None
    required: float | None = None
    symbols: tuple[str, ...] = ()
    fields: tuple[tuple[str, bytes], ...] = ()
    undone: tuple[str, ...] = ()
    said: str = ""
    failure: str | None = None
    milliseconds: float = 0
