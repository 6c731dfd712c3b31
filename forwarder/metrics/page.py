"""What does a scrape show? The numbers of all workers, and beside them what the store holds.

Text as Prometheus reads it (exposition format 0.0.4), written by prometheus_client.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from forwarder.metrics.files import pids_in
from forwarder.ports import QueueSize

__all__ = ["CONTENT_TYPE", "Seen", "render"]

CONTENT_TYPE = CONTENT_TYPE_LATEST


@dataclass(frozen=True, slots=True)
class Seen:
    """What is looked up for each scrape. ``queue`` is ``None`` while the store does not say. ``build`` are labels."""

    queue: QueueSize | None
    build: Mapping[str, str]


class _Looked:
    """A collector of what was looked up."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("forwarder_build_info", "What runs here.", labels=list(self._seen.build))
        build.add_metric(list(self._seen.build.values()), 1)
        yield build
        queue = self._seen.queue
        if queue is None:
            return
        items = GaugeMetricFamily("forwarder_queue_items", "Deliveries in the queue.", labels=["state"])
        items.add_metric(["waiting"], queue.waiting)
        items.add_metric(["under_way"], queue.under_way)
        yield items
        yield GaugeMetricFamily("forwarder_queue_bytes", "Octets held, bodies once.", value=queue.octets)
        yield GaugeMetricFamily(
            "forwarder_queue_oldest_seconds", "How long the oldest has been in the queue.", value=queue.oldest
        )
        yield GaugeMetricFamily("forwarder_dead_letters", "Dead letters that the operator has.", value=queue.dead)


def render(folder: Path, seen: Seen) -> bytes:
    """The page. Reads the files of all workers: for a thread. Raises OSError, ValueError."""
    for pid in pids_in(folder):
        if not _is_alive(pid):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]  # the library has few types
    registry = CollectorRegistry(auto_describe=False)
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]  # as above
    registry.register(_Looked(seen))
    page: bytes = generate_latest(registry)
    return page


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
