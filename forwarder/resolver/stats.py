"""How much did the resolver work? Counters for telemetry and for ``dns_queries`` of ``forwarder authenticate``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ResolverStats"]


@dataclass(slots=True)
class ResolverStats:
    """``queries`` were sent (retries and TCP included); the others count look-ups, by how they were answered."""

    queries: int = 0
    hits: int = 0
    misses: int = 0
    stale: int = 0
    failures: int = 0
