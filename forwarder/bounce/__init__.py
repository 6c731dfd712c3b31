"""Whom does a bounce concern, and what may the original sender read of it? match, hide, compose."""

from __future__ import annotations

from forwarder.bounce.compose import compose_failure, compose_return, wants_failure_report
from forwarder.bounce.hide import scrub
from forwarder.bounce.match import destinations, evaluate_report

__all__ = ["compose_failure", "compose_return", "destinations", "evaluate_report", "scrub", "wants_failure_report"]
