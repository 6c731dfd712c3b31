"""How much of what happens here? Numbers for Prometheus, merged over all workers.

tally       the numbers themselves: plain integers in memory
journal     events of the journal, counted
signing     signatures, counted
providers   who runs this mail host? One of a short list
files       where each worker leaves its numbers for the others, once a second
page        what a scrape shows: all workers' numbers, and what the store holds
"""

from __future__ import annotations

from forwarder.metrics.files import NumberFiles, clear
from forwarder.metrics.journal import CountingJournal
from forwarder.metrics.signing import CountedKeys
from forwarder.metrics.tally import Counter, Family, Gauge, Histogram, Merge, Numbers

__all__ = [
    "CountedKeys",
    "Counter",
    "CountingJournal",
    "Family",
    "Gauge",
    "Histogram",
    "Merge",
    "NumberFiles",
    "Numbers",
    "clear",
]
