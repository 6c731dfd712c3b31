"""Whom does a bounce concern, and what may the original sender read of it? match, routes, hide, note, compose, letter."""

from __future__ import annotations

from forwarder.bounce.compose import compose_delay, compose_failure, compose_return, compose_success
from forwarder.bounce.hide import scrub
from forwarder.bounce.letter import (
    Letter,
    Letters,
    compose_answer,
    compose_digest,
    compose_owner,
    compose_pause,
    standard_letters,
)
from forwarder.bounce.match import Evidence, Matching, destinations, evaluate_report, is_enough, worst_status
from forwarder.bounce.note import compose_note
from forwarder.bounce.routes import Kind, Routing, Target, Way, kind_of

__all__ = [
    "Evidence",
    "Kind",
    "Letter",
    "Letters",
    "Matching",
    "Routing",
    "Target",
    "Way",
    "compose_answer",
    "compose_delay",
    "compose_digest",
    "compose_failure",
    "compose_note",
    "compose_owner",
    "compose_pause",
    "compose_return",
    "compose_success",
    "destinations",
    "evaluate_report",
    "is_enough",
    "kind_of",
    "scrub",
    "standard_letters",
    "worst_status",
]
