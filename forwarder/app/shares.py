"""What of a limit has each of several workers? The kernel spreads those who connect evenly, so each has its part, rounded up.

What one client may is a part as well: its connections are spread like everybody's. docs/decisions/0032 says what this is worth.
"""

from __future__ import annotations

from dataclasses import replace

from forwarder.edge.limits import Limits

__all__ = ["limits_of_one", "part_of"]


def part_of(whole: int, workers: int) -> int:
    """Never less than 1."""
    return max(1, -(-whole // workers))


def limits_of_one(limits: Limits, workers: int) -> Limits:
    """Of one worker. A message of the largest size always fits, whatever that makes of all of them."""
    return replace(
        limits,
        sessions=part_of(limits.sessions, workers),
        sessions_per_address=part_of(limits.sessions_per_address, workers),
        sessions_per_network=part_of(limits.sessions_per_network, workers),
        in_flight=max(limits.message_size, part_of(limits.in_flight, workers)),
        handshakes=part_of(limits.handshakes, workers),
        unknown_per_hour=part_of(limits.unknown_per_hour, workers),
        forged_reversible=part_of(limits.forged_reversible, workers),
    )
