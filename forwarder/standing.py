"""What follows from what is held against somebody? Scores that fade, and the measures that they lead to. docs/decisions/0022

A score is a sum of weights, each of which halves in every half-life. It is compared to thresholds, so a measure ends by itself
when the score has faded; what an operator sets ends when the operator said. Nothing here is ever certain: the weights are
small, one source alone counts less each time, and who sends much is judged by the share that was complained of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from forwarder.ports import Evidence, Measure, Standing, Subject

__all__ = ["MAX_EVIDENCE", "Judgement", "Scale", "add_mail", "blocked", "faded", "judge", "repeated", "with_evidence"]

#: Of each subject, the latest so many are kept.
MAX_EVIDENCE = 20
#: A score that is less is none.
LEAST = 0.05
_FOREVER = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Scale:
    """From which score on a sender's mail is slowed down, gets no way back, or is refused; and that only where the score is at
    least ``share`` of the messages. ``half_life`` in seconds."""

    half_life: float = 7 * 86400.0
    slow_at: float = 5
    one_way_at: float = 10
    refuse_at: float = 20
    share: float = 0.003


@dataclass(frozen=True, slots=True)
class Judgement:
    """``until``: when it ends if nothing more comes; ``None``: when the operator says so."""

    measure: Measure
    until: datetime | None
    by_hand: bool = False


def faded(standing: Standing, now: datetime) -> tuple[float, float]:
    """Score and messages as they count now. A clock that was put back makes nothing grow."""
    left = 0.5 ** (max(0.0, (now - standing.at).total_seconds()) / standing.half_life)
    return standing.score * left, standing.mail * left


def judge(standing: Standing | None, scale: Scale, now: datetime) -> Judgement | None:
    """What is to be done with mail of a sender that stands so."""
    if standing is None:
        return None
    if standing.measure is not None and (standing.until is None or now < standing.until):
        return Judgement(standing.measure, standing.until, standing.by_hand)
    score, mail = faded(standing, now)
    if score < scale.share * mail:
        return None
    for measure, least in (
        (Measure.REFUSE, scale.refuse_at),
        (Measure.ONE_WAY, scale.one_way_at),
        (Measure.SLOW, scale.slow_at),
    ):
        if score >= least:
            return Judgement(measure, now + timedelta(seconds=standing.half_life * math.log2(score / least)))
    return None


def repeated(standing: Standing | None, weight: float, source: str) -> float:
    """A weight that halves each time the same source speaks: all that one of them says comes to twice its first word."""
    if standing is None:
        return weight
    return weight * 0.5 ** sum(1 for one in standing.evidence if one.source == source)


def with_evidence(subject: Subject, evidence: Evidence, half_life: float) -> Callable[[Standing | None], Standing]:
    """A change that holds this against the subject."""

    def change(before: Standing | None) -> Standing:
        weight = repeated(before, evidence.weight, evidence.source) if evidence.source else evidence.weight
        counted = replace(evidence, weight=weight)
        if before is None:
            return _over(Standing(subject, weight, evidence.at, half_life, evidence.at, evidence=(counted,)))
        score, mail = faded(before, evidence.at)
        kept = (*before.evidence, counted)[-MAX_EVIDENCE:]
        return _over(
            replace(before, score=score + weight, mail=mail, at=evidence.at, half_life=half_life, evidence=kept)
        )

    return change


def add_mail(count: int, now: datetime) -> Callable[[Standing | None], Standing | None]:
    """A change that counts messages of a subject that has a standing."""

    def change(before: Standing | None) -> Standing | None:
        if before is None:
            return None
        score, mail = faded(before, now)
        return replace(before, score=score, mail=mail + count, at=now)

    return change


def blocked(
    subject: Subject, measure: Measure, reason: str, now: datetime, until: datetime | None, half_life: float
) -> Callable[[Standing | None], Standing]:
    """A change by the operator's hand."""

    def change(before: Standing | None) -> Standing:
        said = with_evidence(subject, Evidence(now, reason, 0.0), half_life)(before)
        return _over(replace(said, measure=measure, until=until, by_hand=True))

    return change


def _over(standing: Standing) -> Standing:
    """With the time from which on it may be forgotten."""
    over_at = standing.at
    if standing.score > LEAST:
        over_at += timedelta(seconds=standing.half_life * math.log2(standing.score / LEAST))
    if standing.measure is not None:
        over_at = max(over_at, standing.until or standing.at + _FOREVER)
    return replace(standing, over_at=over_at)
