"""Which events count as what? ``ports.Journal`` in front of the log: most numbers are told there already.

Stage timings too: the time between two events of one message is how long that part of its life took. So the core needs no clock
for them, and what is not watched costs nothing.

    message.received ─ verify ─ message.verified ─ decide ─ route.forward ─ seal ─ message.sealed ─ deliver ─ relay.* ─ record ─
    delivery.outcome;  message.received ─ total ─ message.answered

``seal`` holds the claim in the ledger as well, which ``forwarder_store_seconds`` shows by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from forwarder.metrics.providers import Providers
from forwarder.metrics.tally import Numbers
from forwarder.ports import Journal

__all__ = ["CountingJournal"]

#: Messages whose stages are timed at once. One that a fault ended never says so, and is forgotten here.
MAX_OPEN = 4096
#: Reply codes of SMTP (RFC 5321 section 4.2.3 and its registry); a next hop may invent others.
_CODES = frozenset(
    {"250", "251", "252", "421", "450", "451", "452", "454", "455", "458", "459", "500", "501", "502", "503", "504"}
    | {"521", "523", "530", "534", "535", "538", "550", "551", "552", "553", "554", "555", "556"}
)
#: What says most of what became of a message, first.
_RANK = ("returned", "discarded", "queued", "delivered", "kept")

_Fields = Mapping[str, Any]


class _Open:
    """A message whose sender waits. Times are seconds of the monotonic clock; 0: not yet."""

    __slots__ = ("began", "forwarded", "outcomes", "relayed", "sealed", "verified")

    def __init__(self, began: float) -> None:
        self.began = began
        self.verified = self.forwarded = self.sealed = self.relayed = 0.0
        self.outcomes: set[str] = set()


class CountingJournal:
    """Belongs to one event loop."""

    def __init__(
        self, journal: Journal, numbers: Numbers, providers: Providers, monotonic: Callable[[], float]
    ) -> None:
        self._journal = journal
        self._numbers = numbers
        self._providers = providers
        self._now = monotonic
        self._open: dict[str, _Open] = {}
        self._handlers: dict[str, Callable[[_Fields], None]] = {
            "message.received": self._received,
            "message.submitted": self._received,
            "message.verified": self._verified,
            "content.checked": self._filtered,
            "route.forward": self._forwarded,
            "route.return_bounce": self._returned,
            "route.discard": self._discarded,
            "message.sealed": self._sealed,
            "relay.sent": self._sent,
            "relay.deferred": self._not_now,
            "relay.failed": self._never,
            "relay.connect": self._connected,
            "relay.login": self._connected,
            "delivery.outcome": self._delivered,
            "queue.outcome": self._from_queue,
            "mailbox.kept": self._kept,
            "message.answered": self._answered,
            "rcpt.refused": self._recipient_refused,
            "data.refused": self._octets_refused,
            "limits.over": self._over_limit,
            "rates.over": self._over_rate,
            "spans.dropped": self._spans_dropped,
        }

    def event(self, name: str, /, **fields: Any) -> None:
        """See ``ports.Journal``."""
        self._journal.event(name, **fields)
        self._numbers.events.add(name)
        handler = self._handlers.get(name)
        if handler is not None:
            try:
                handler(fields)
            except Exception:  # noqa: BLE001 - mail does not end over a number
                self._numbers.events.add("metrics.fault")

    # --- the life of one message

    def _received(self, fields: _Fields) -> None:
        self._numbers.received_bytes.add(by=fields["size"])
        self._numbers.received_tls.add(fields.get("tls") or "none")
        if len(self._open) >= MAX_OPEN:
            del self._open[next(iter(self._open))]
        self._open[fields["id"]] = _Open(self._now())

    def _verified(self, fields: _Fields) -> None:
        checks = self._numbers.checks
        for method in ("mailkey", "spf", "arc", "dmarc"):
            checks.add(method, str(fields[method] or "none"))
        for one in fields["dkim"] or ("none",):
            checks.add("dkim", one.partition(" ")[0])
        self._numbers.vouched.add(str(fields["sender_verified_by"] or "none"))
        one = self._open.get(fields["id"])
        if one is not None:
            one.verified = self._now()
            self._numbers.stages.observe(one.verified - one.began, "verify")

    def _filtered(self, fields: _Fields) -> None:
        # Its own word may be anything; the operator's name for it, and what follows, are not.
        name = str(fields["filter"])
        self._numbers.content.add(name, str(fields["action"]))
        self._numbers.content_took.observe(fields["ms"] / 1000, name)
        if fields["failure"] is not None:
            self._numbers.content_failed.add(name)

    def _forwarded(self, fields: _Fields) -> None:
        one = self._open.get(fields["id"])
        if one is not None:
            now = self._now()
            if one.verified and not one.forwarded:
                self._numbers.stages.observe(now - one.verified, "decide")
            one.forwarded = now

    def _returned(self, fields: _Fields) -> None:
        self._note(fields, "returned")

    def _discarded(self, fields: _Fields) -> None:
        self._note(fields, "discarded")

    def _kept(self, fields: _Fields) -> None:
        self._note(fields, "kept")

    def _note(self, fields: _Fields, outcome: str) -> None:
        one = self._open.get(fields["id"])
        if one is not None:
            one.outcomes.add(outcome)

    def _sealed(self, fields: _Fields) -> None:
        one = self._open.get(fields["id"])
        if one is not None:
            now = self._now()
            # Several aliases are sealed one after the other.
            if one.forwarded or one.sealed:
                self._numbers.stages.observe(now - (one.sealed or one.forwarded), "seal")
            one.sealed = now

    def _delivered(self, fields: _Fields) -> None:
        outcome = str(fields["outcome"])
        self._numbers.recipients.add("session", outcome, by=_recipients(fields))
        one = self._open.get(fields["id"])
        if one is not None:
            one.outcomes.add(outcome)
            if one.relayed:
                self._numbers.stages.observe(self._now() - one.relayed, "record")
                one.relayed = 0.0

    def _answered(self, fields: _Fields) -> None:
        code = str(fields["code"])
        self._numbers.replies.add("data", _code(code))
        one = self._open.pop(fields["id"], None)
        if code.startswith("2"):
            outcomes = one.outcomes if one is not None else ()
            self._numbers.messages.add(next((word for word in _RANK if word in outcomes), "accepted"))
        else:
            self._numbers.messages.add("refused" if code.startswith("5") else "deferred")
        if one is not None:
            self._numbers.stages.observe(self._now() - one.began, "total")

    # --- next hops

    def _sent(self, fields: _Fields) -> None:
        self._tried("sent", fields)
        self._numbers.sent_tls.add(fields["tls"] or "none", by=fields["recipients"])

    def _not_now(self, fields: _Fields) -> None:
        self._tried("deferred", fields)

    def _never(self, fields: _Fields) -> None:
        self._tried("failed", fields)

    def _tried(self, result: str, fields: _Fields) -> None:
        provider, code = self._providers.name(fields["peer"]), fields["code"]
        self._numbers.attempts.add(provider, result, _class(code), by=fields["recipients"])
        one = self._open.get(fields["id"])
        if one is not None and one.sealed:
            one.relayed = self._now()
            self._numbers.stages.observe(one.relayed - one.sealed, "deliver")

    def _connected(self, fields: _Fields) -> None:
        self._numbers.connections.add("failed" if fields.get("error") else "opened")

    def _from_queue(self, fields: _Fields) -> None:
        self._numbers.recipients.add("queue", str(fields["outcome"]), by=_recipients(fields))

    # --- who is turned away

    def _recipient_refused(self, fields: _Fields) -> None:
        # Those that are told to wait are told like those over a limit.
        self._numbers.replies.add("rcpt", _code(str(fields["code"])), by=1 + fields.get("others", 0))

    def _octets_refused(self, fields: _Fields) -> None:
        self._numbers.messages.add("refused")

    def _over_limit(self, fields: _Fields) -> None:
        # One event a second for each limit speaks for those that were not told.
        self._numbers.limits.add(str(fields["limit"]), by=1 + fields["others"])

    def _over_rate(self, fields: _Fields) -> None:
        self._numbers.rates.add(str(fields["kind"]), by=1 + fields["others"])

    def _spans_dropped(self, fields: _Fields) -> None:
        self._numbers.spans_dropped.add(by=fields["count"])


def _recipients(fields: _Fields) -> int:
    """An event speaks for one destination, or for several that had the same."""
    several = fields.get("destinations")
    return len(several) if several else 1


def _code(code: str) -> str:
    return code if code in _CODES else f"{code[:1]}xx"


def _class(code: int | None) -> str:
    return f"{str(code)[:1]}xx" if code else "none"
