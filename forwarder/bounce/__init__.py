"""Whom does a bounce concern, and what may the original sender read of it? match, hide, note, compose."""

from __future__ import annotations

from forwarder.bounce.compose import compose_delay, compose_failure, compose_return, compose_success
from forwarder.bounce.hide import scrub
from forwarder.bounce.match import Evidence, Matching, destinations, evaluate_report, is_enough, worst_status
from forwarder.bounce.note import compose_note

__all__ = [
    "Evidence",
    "Matching",
    "compose_delay",
    "compose_failure",
    "compose_note",
    "compose_return",
    "compose_success",
    "destinations",
    "evaluate_report",
    "is_enough",
    "scrub",
    "worst_status",
]
