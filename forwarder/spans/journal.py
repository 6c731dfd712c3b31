"""Which spans do the events of a message make? ``ports.Journal`` in front of the log: one trace a message.

    message.received ─ verify ─ message.verified ─ route ─ route.* ─ seal ─ message.sealed
    message.received ─ message, around them all ─ message.answered
    deliver: relay.* tells how long it took, delivery.outcome for whom

An attempt of the queue, perhaps days later and in another process, is a trace of its own that points to the message's (a link).
Nobody has to remember anything for it: the ids of a message's trace and of its first span are made from the message's id.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from forwarder.ports import Journal
from forwarder.telemetry import clean

__all__ = ["Context", "Span", "SpanJournal"]

#: Messages that are watched at once, and attempts of the queue. One that a fault ended never says so, and is forgotten here.
MAX_OPEN = 4096
#: Events of one message that are told with its first span.
MAX_NOTES = 50

_ROUTES = frozenset({"route.forward", "route.refuse", "route.discard", "route.return_bounce"})
_RELAYED = frozenset({"relay.sent", "relay.deferred", "relay.failed"})

_Fields = Mapping[str, Any]
Attributes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Context:
    """A span, from outside. 128 and 64 bits, none of them all zeros."""

    trace: int
    span: int


@dataclass(frozen=True, slots=True)
class Span:
    """Times are nanoseconds of the Unix epoch. ``parent``: ``None`` for the first of a trace. ``failed``: why, if it did."""

    name: str
    context: Context
    parent: Context | None
    began: int
    ended: int
    attributes: Attributes
    kind: str = "internal"
    failed: str | None = None
    notes: tuple[tuple[str, int, Attributes], ...] = ()
    link: Context | None = None


class _Open:
    """A message whose sender waits."""

    __slots__ = ("attributes", "began", "context", "last", "notes", "relayed")

    def __init__(self, context: Context, began: int, attributes: Attributes) -> None:
        self.context = context
        self.began = self.last = began
        self.attributes = attributes
        self.notes: list[tuple[str, int, Attributes]] = []
        self.relayed: dict[str | None, _Attempt] = {}


@dataclass(frozen=True, slots=True)
class _Attempt:
    began: int
    ended: int
    tls: str | None


class SpanJournal:
    """Belongs to one event loop."""

    def __init__(
        self,
        journal: Journal,
        tell: Callable[[Span], None],
        now: Callable[[], int],
        *,
        share: float = 1.0,
        full_addresses: bool = False,
    ) -> None:
        """``tell`` gets each span when it has ended. ``share``: of the messages, with all that follows from one, by its id."""
        self._journal = journal
        self._tell = tell
        self._now = now
        self._bound = int(share * 2**64)
        self._full = full_addresses
        self._open: dict[str, _Open] = {}
        self._attempts: dict[str, dict[str | None, _Attempt]] = {}
        #: The attempt of the queue that is being told, destination by destination.
        self._told: tuple[tuple[str, int], Context, dict[str | None, _Attempt]] | None = None

    def event(self, name: str, /, **fields: Any) -> None:
        """See ``ports.Journal``."""
        self._journal.event(name, **fields)
        id_ = fields.get("id")
        if isinstance(id_, str):
            try:
                self._take(name, id_, fields)
            except Exception as fault:  # noqa: BLE001 - mail does not end over a span
                self._journal.event("fault", where="spans", kind=type(fault).__name__, detail=str(fault))

    def _take(self, name: str, id_: str, fields: _Fields) -> None:
        one = self._open.get(id_)
        if name in {"message.received", "message.submitted"}:
            self._begin(id_, fields)
        elif name in _RELAYED:
            self._relayed(id_, one, fields)
        elif name == "queue.outcome":
            self._tried_again(id_, fields)
        elif one is None:
            return
        elif name == "message.verified":
            self._stage("verify", one, fields)
        elif name in _ROUTES:
            self._stage("route", one, fields)
        elif name == "message.sealed":
            self._stage("seal", one, fields)
        elif name == "delivery.outcome":
            self._delivered(one, fields)
        elif name == "message.answered":
            self._end(id_, one, fields)
        elif len(one.notes) < MAX_NOTES:
            one.notes.append((name, self._now(), self._attributes(fields)))

    def _is_watched(self, message: Context) -> bool:
        """Is it of the share? The same for all that follows from a message, wherever it happens."""
        return message.trace >> 64 < self._bound

    # --- a message

    def _begin(self, id_: str, fields: _Fields) -> None:
        context = context_of(id_)
        if not self._is_watched(context):
            return
        if len(self._open) >= MAX_OPEN:
            del self._open[next(iter(self._open))]
        self._open[id_] = _Open(context, self._now(), self._attributes(fields, "id"))

    def _stage(self, name: str, one: _Open, fields: _Fields) -> None:
        now = self._now()
        self._tell(Span(name, _child(one.context), one.context, one.last, now, self._attributes(fields)))
        one.last = now

    def _delivered(self, one: _Open, fields: _Fields) -> None:
        attempt = one.relayed.get(fields["peer"]) or _Attempt(one.last, self._now(), None)
        self._tell(self._deliver(one.context, attempt, fields))

    def _end(self, id_: str, one: _Open, fields: _Fields) -> None:
        del self._open[id_]
        attributes = one.attributes | self._attributes(fields)
        notes = tuple(one.notes)
        self._tell(Span("message", one.context, None, one.began, self._now(), attributes, "server", notes=notes))

    # --- next hops

    def _relayed(self, id_: str, one: _Open | None, fields: _Fields) -> None:
        now = self._now()
        attempt = _Attempt(now - int(fields["took"] * 1e9), now, fields["tls"])
        if one is not None:
            one.relayed[fields["peer"]] = attempt
            return
        if not self._is_watched(context_of(id_)):
            return
        if id_ not in self._attempts and len(self._attempts) >= MAX_OPEN:
            del self._attempts[next(iter(self._attempts))]
        self._attempts.setdefault(id_, {})[fields["peer"]] = attempt

    def _tried_again(self, id_: str, fields: _Fields) -> None:
        """One trace an attempt, one span in it for each destination."""
        message, which = context_of(id_), (str(fields["item"]), int(fields["attempt"]))
        if self._told is None or self._told[0] != which:
            attempts = self._attempts.pop(id_, {})
            self._told = (which, Context(secrets.randbits(128) | 1, secrets.randbits(64) | 1), attempts)
            if self._is_watched(message):
                now = self._now()
                began = min((one.began for one in attempts.values()), default=now)
                attributes = self._attributes(
                    {key: fields[key] for key in ("id", "item", "attempt", "maybe_dup")}, "id"
                )
                self._tell(Span("queue.attempt", self._told[1], None, began, now, attributes, link=message))
        if self._is_watched(message):
            now = self._now()
            attempt = self._told[2].get(fields["peer"]) or _Attempt(now, now, None)
            self._tell(self._deliver(self._told[1], attempt, fields))

    def _deliver(self, parent: Context, attempt: _Attempt, fields: _Fields) -> Span:
        attributes = self._attributes(fields)
        if attempt.tls is not None:
            attributes["mail.tls"] = attempt.tls
        failed = attributes.get("mail.text", "") if fields["outcome"] == "failed" else None
        return Span("deliver", _child(parent), parent, attempt.began, attempt.ended, attributes, "client", failed)

    def _attributes(self, fields: _Fields, *also: str) -> Attributes:
        """Addresses in them are shown as the log shows them. The message's id is told once a trace."""
        return {
            f"mail.{key}": clean(value, key, self._full)
            for key, value in fields.items()
            if value is not None and (key != "id" or "id" in also)
        }


def context_of(id_: str) -> Context:
    """Of the first span of a message's trace."""
    digest = hashlib.sha256(b"trace of a message\0" + id_.encode()).digest()
    return Context(int.from_bytes(digest[:16], "big") or 1, int.from_bytes(digest[16:24], "big") or 1)


def _child(parent: Context) -> Context:
    return Context(parent.trace, secrets.randbits(64) or 1)
