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

__all__ = [
    "ACCEPTED",
    "BOUNCE",
    "MAX_EVIDENCE",
    "Judgement",
    "Patience",
    "Scale",
    "accepted",
    "add_mail",
    "blocked",
    "faded",
    "failed",
    "is_due",
    "judge",
    "probed",
    "repeated",
    "set_by_hand",
    "slowed",
    "with_evidence",
]

#: Of each subject, the latest so many are kept.
MAX_EVIDENCE = 20
#: A score that is less is none.
LEAST = 0.05
#: Seconds in which what a provider thinks of us is half forgotten, and that it gets mail slowly for at most.
SLOW_HALF_LIFE = 86400.0
MAX_SLOW = 3600.0
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


#: How the evidence of reports begins, that of a next hop that takes mail before it knows whom for, and of mail that it took.
BOUNCE = "bounce: "
ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class Patience:
    """From which score on a destination gets no mail for a while, and none at all. Failures count once in ``spacing`` seconds:
    a server that does not know its own users for some minutes is no reason. A paused destination is probed after
    ``first_probe`` seconds, then after twice as long each time, up to ``max_probe``."""

    half_life: float = 7 * 86400.0
    pause_at: float = 5
    disable_at: float = 10
    spacing: float = 600
    first_probe: float = 3600
    max_probe: float = 86400


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


# --- destinations


def failed(subject: Subject, evidence: Evidence, patience: Patience) -> Callable[[Standing | None], Standing | None]:
    """A change that holds a failure against a destination, and pauses it where that is enough. Only what next hops refused us
    disables it: whoever got a message can write any number of reports about it."""

    def change(before: Standing | None) -> Standing | None:
        if evidence.weight <= 0 or (before is not None and _is_same_trouble(before, evidence, patience)):
            return before
        after = with_evidence(subject, evidence, patience.half_life)(before)
        if after.by_hand or after.measure is Measure.DISABLE:
            return after
        if after.measure is Measure.PAUSE:
            gone = _refused(after, evidence.at) >= patience.disable_at
            return _over(replace(after, measure=Measure.DISABLE, until=None, since=evidence.at)) if gone else after
        if after.score >= patience.pause_at:
            until = evidence.at + timedelta(seconds=patience.first_probe)
            return _over(replace(after, measure=Measure.PAUSE, until=until, since=evidence.at))
        return after

    return change


def accepted(now: datetime, message: str) -> Callable[[Standing | None], Standing | None]:
    """A change that counts in a destination's favour that its next hop took mail for it. That is proof only where refusals at
    the door were held against it; where reports came back, it is once no report of this follows until the next probe."""

    def change(before: Standing | None) -> Standing | None:
        if before is None or before.by_hand or before.measure is Measure.DISABLE:
            return before
        if not any(one.what.startswith(BOUNCE) for one in before.evidence):
            return None
        before = _without_refusals(before, now)
        if before.measure is None or before.evidence[-1].what == ACCEPTED:
            return before
        return with_evidence(before.subject, Evidence(now, ACCEPTED, 0.0, "", message), before.half_life)(before)

    return change


def _is_refusal(one: Evidence) -> bool:
    return one.weight > 0 and not one.what.startswith(BOUNCE)


def _refused(standing: Standing, now: datetime) -> float:
    """What of the score next hops said themselves, as it counts now."""
    ages = ((one.weight, max(0.0, (now - one.at).total_seconds())) for one in standing.evidence if _is_refusal(one))
    return math.fsum(weight * 0.5 ** (age / standing.half_life) for weight, age in ages)


def _without_refusals(standing: Standing, now: datetime) -> Standing:
    if not any(_is_refusal(one) for one in standing.evidence):
        return standing
    kept = tuple(one for one in standing.evidence if not _is_refusal(one))
    score, mail = faded(standing, now)
    score = max(0.0, score - _refused(standing, now))
    return _over(replace(standing, score=score, mail=mail, at=now, evidence=kept))


def is_due(standing: Standing, now: datetime) -> bool:
    """May one message go to a paused destination, to see?"""
    return standing.measure is Measure.PAUSE and standing.until is not None and now >= standing.until


def probed(now: datetime, patience: Patience) -> Callable[[Standing | None], Standing | None]:
    """A change by who wants to send a probe. It may, if it was the one who made the change; ``None``: the last probe arrived and
    nothing came back, so the pause is over."""

    def change(before: Standing | None) -> Standing | None:
        if before is None or before.by_hand or not is_due(before, now):
            return before
        if before.evidence[-1].what == ACCEPTED:
            return None
        paused_for = (now - (before.since or before.at)).total_seconds()
        pause = min(max(paused_for, patience.first_probe), patience.max_probe)
        return _over(replace(before, until=now + timedelta(seconds=pause)))

    return change


def slowed(subject: Subject, evidence: Evidence) -> Callable[[Standing | None], Standing]:
    """A change that slows mail to a provider down that blames us: for two minutes, then for twice as long with each complaint of
    its that has not faded, up to an hour."""

    def change(before: Standing | None) -> Standing:
        after = with_evidence(subject, evidence, SLOW_HALF_LIFE)(before)
        until = evidence.at + timedelta(seconds=min(60 * 2 ** min(after.score, 10.0), MAX_SLOW))
        return _over(replace(after, measure=Measure.SLOW, until=until, since=after.since or evidence.at))

    return change


def set_by_hand(
    subject: Subject, measure: Measure | None, reason: str, now: datetime, half_life: float
) -> Callable[[Standing | None], Standing | None]:
    """A change of the operator's; ``None`` as a measure: mail goes there again, and nothing is held against it."""
    if measure is None:
        return lambda _: None
    return blocked(subject, measure, reason, now, None, half_life)


def _is_same_trouble(standing: Standing, evidence: Evidence, patience: Patience) -> bool:
    counted = [one for one in standing.evidence if one.weight > 0]
    if any(one.message == evidence.message for one in counted):
        return True
    return bool(counted) and (evidence.at - counted[-1].at).total_seconds() < patience.spacing


# --- by hand


def blocked(
    subject: Subject, measure: Measure, reason: str, now: datetime, until: datetime | None, half_life: float
) -> Callable[[Standing | None], Standing]:
    """A change by the operator's hand."""

    def change(before: Standing | None) -> Standing:
        said = with_evidence(subject, Evidence(now, reason, 0.0), half_life)(before)
        return _over(replace(said, measure=measure, until=until, since=now, by_hand=True))

    return change


def _over(standing: Standing) -> Standing:
    """With the time from which on it may be forgotten."""
    over_at = standing.at
    if standing.score > LEAST:
        over_at += timedelta(seconds=standing.half_life * math.log2(standing.score / LEAST))
    if standing.measure is not None:
        over_at = max(over_at, standing.until or standing.at + _FOREVER)
    return replace(standing, over_at=over_at)
