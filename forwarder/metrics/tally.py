"""What is counted, under which names? The numbers of one process, as plain Python.

prometheus_client's own values cost 1 to 3 us each time one changes (a lock, a process id, two writes into a mapped file), and a
message changes some thirty of them. These cost a tenth of that; ``files`` hands them to prometheus_client once a second. The
names follow Prometheus' conventions: seconds and bytes, ``_total`` behind what only grows.

No label ever holds what a stranger chose: each is a word of ours or of a standard, a reply code, or a name on a short list.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from enum import StrEnum
from itertools import count

__all__ = ["MAX_SERIES", "Counter", "Family", "Gauge", "Histogram", "Merge", "Numbers"]

#: Different label values of one family; the rest is counted together. None comes near it: this is for the day when one does.
MAX_SERIES = 200
OTHER = "other"

Labels = tuple[str, ...]

#: Seconds: from what a look into a dictionary takes to how long a sender waits.
_STAGES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0)
_QUICK = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Merge(StrEnum):
    """What several workers' values of a gauge come to; those of a dead worker are left out."""

    SUM = "livesum"
    LEAST = "livemin"


class Family:
    """One name. ``labels`` are the names of its labels, ``help`` is one short line."""

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:  # noqa: A002 - Prometheus' word
        self.name = name
        self.help = help
        self.labels = labels


class Counter(Family):
    """What only grows. Its samples bear ``_total``."""

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:  # noqa: A002
        super().__init__(name, help, labels)
        self.values: dict[Labels, float] = {}

    def add(self, *labels: str, by: float = 1) -> None:
        """``labels`` in the order of their names."""
        try:
            self.values[labels] += by
        except KeyError:
            if len(self.values) >= MAX_SERIES:
                labels = (OTHER,) * len(labels)
            self.values[labels] = self.values.get(labels, 0) + by


class Gauge(Family):
    """What goes up and down."""

    def __init__(self, name: str, help: str, labels: Labels = (), merge: Merge = Merge.SUM) -> None:  # noqa: A002
        super().__init__(name, help, labels)
        self.merge = merge
        self.values: dict[Labels, float] = {}

    def set(self, *labels: str, to: float) -> None:
        """``labels`` in the order of their names."""
        self.values[labels] = to


class Histogram(Family):
    """How long something takes. ``bounds``: upper ends of the buckets, in seconds; one more is for what takes longer."""

    def __init__(self, name: str, help: str, labels: Labels = (), bounds: tuple[float, ...] = _STAGES) -> None:  # noqa: A002
        super().__init__(name, help, labels)
        self.bounds = bounds
        self.buckets: dict[Labels, list[int]] = {}
        self.sums: dict[Labels, float] = {}

    def observe(self, seconds: float, *labels: str) -> None:
        """``labels`` in the order of their names."""
        try:
            self.sums[labels] += seconds
        except KeyError:
            if len(self.sums) >= MAX_SERIES:
                labels = (OTHER,) * len(labels)
            self.sums[labels] = self.sums.get(labels, 0.0) + seconds
            self.buckets.setdefault(labels, [0] * (len(self.bounds) + 1))
        self.buckets[labels][bisect_left(self.bounds, seconds)] += 1


class Ticks:
    """A count that several threads may add to."""

    def __init__(self) -> None:
        self._ticks = count()
        self._looks = 0

    def tick(self) -> None:
        """One more."""
        next(self._ticks)

    @property
    def value(self) -> int:
        """How many so far. Looking takes a tick of its own, which is left out."""
        self._looks += 1
        return next(self._ticks) - self._looks + 1


class Numbers:
    """Every family there is."""

    def __init__(self) -> None:
        self.messages = Counter("forwarder_messages", "Messages by what became of them in session.", ("outcome",))
        self.received_bytes = Counter("forwarder_received_bytes", "Octets of messages as received.")
        self.received_tls = Counter("forwarder_received_tls", "Messages by the TLS they came over.", ("version",))
        self.replies = Counter("forwarder_replies", "Replies to final dots, and refusals at RCPT.", ("stage", "code"))
        self.checks = Counter("forwarder_checks", "Results of checks of incoming mail.", ("method", "result"))
        self.content = Counter("forwarder_content_checks", "Answers of content filters.", ("filter", "action"))
        self.content_failed = Counter("forwarder_content_failures", "Content filters that failed.", ("filter",))
        self.content_took = Histogram("forwarder_content_seconds", "How long content filters take.", ("filter",))
        self.vouched = Counter("forwarder_sender_verified", "Messages by the check that vouches.", ("by",))
        self.recipients = Counter(
            "forwarder_recipients", "Destinations by what became of them.", ("attempt", "outcome")
        )
        self.attempts = Counter(
            "forwarder_attempts", "Recipients offered to next hops.", ("provider", "result", "code_class")
        )
        self.sent_tls = Counter("forwarder_sent_tls", "Recipients sent, by the TLS they went over.", ("version",))
        self.connections = Counter("forwarder_relay_connections", "Connections to next hops.", ("result",))
        self.signatures = Counter("forwarder_signatures", "Signatures made.", ("kind", "algorithm"))
        self.batches = Counter("forwarder_signature_batches", "RSA signatures made at once, by how many.", ("size",))
        self.limits = Counter("forwarder_limits_over", "Clients that came upon a limit.", ("limit",))
        self.rates = Counter("forwarder_rates_over", "Messages over a rate.", ("kind",))
        self.spans_dropped = Counter("forwarder_spans_dropped", "Spans that no collector has.")
        self.events = Counter("forwarder_events", "Events in the log.", ("event",))
        self.stages = Histogram("forwarder_stage_seconds", "How long a stage of a message takes.", ("stage",))
        self.store = Histogram("forwarder_store_seconds", "How long the store takes.", ("operation",), _QUICK)
        self.store_failed = Counter("forwarder_store_failures", "Questions the store left unanswered.", ("operation",))
        self.loop_lag = Histogram("forwarder_loop_lag_seconds", "How late the event loop is.", (), _QUICK)
        self.store_up = Gauge("forwarder_store_up", "1: the store answers.", (), Merge.LEAST)
        self.sessions = Gauge("forwarder_sessions", "Clients that are connected.", ("listener",))
        self.in_flight = Gauge("forwarder_in_flight_bytes", "Octets of messages on their way in.")
        self.under_way = Gauge("forwarder_attempts_under_way", "Attempts that run in session.")
        self.pool = Gauge("forwarder_relay_pool", "Connections to next hops.", ("state",))
        self.pool_used = Counter("forwarder_relay_pool_used", "Connections taken up.", ("how",))
        self.cache = Counter("forwarder_cache", "Look-ups in caches.", ("cache", "result"))
        self.cache_size = Gauge("forwarder_cache_entries", "Entries of caches.", ("cache",))
        self.dns_queries = Counter("forwarder_dns_queries", "Questions sent to name servers.")
        self.workers = Gauge("forwarder_workers", "Processes that serve.")

    def __iter__(self) -> Iterator[Family]:
        return iter(vars(self).values())
