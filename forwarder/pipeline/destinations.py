"""Which destinations get mail now, and what is learnt from those that do not take it? docs/decisions/0022

    fails now and then          counted, fades
    keeps failing               paused: its mail waits in the queue, or hears 451 where all that an alias leads to is paused;
                                now and then one message goes to see
    fails all through that      disabled: it gets nothing, and an alias that leads nowhere else is unknown

What blames us (our address, our authentication, our pace) is held against nobody's mailbox: it is an alarm, and the provider that
says so gets its mail by the queue and slowly for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forwarder import route
from forwarder.auth.suffix import registrable_domain
from forwarder.mail.reasons import Cause, Reason, Stage
from forwarder.mail.report import Action, RecipientStatus
from forwarder.model import Address, Deferred, Delivered, Failed, Queued, RecipientOutcome, Refuse
from forwarder.pipeline.doors import Doors, Settings
from forwarder.pipeline.pausenotice import PauseNotices
from forwarder.ports import Evidence, Forwarded, Measure, Standing, StoreAway, Subject, SubjectKind
from forwarder.slices import let_others, slices
from forwarder.smtp import reply
from forwarder.standing import BOUNCE, accepted, failed, is_due, probed, slowed

__all__ = [
    "BLAMES_US",
    "DISABLED",
    "PAUSED",
    "Destinations",
    "Sorted",
    "cause_of",
    "destination_subject",
    "provider_of",
]

#: Of the reason of a delivery that waits because its destination is paused.
PAUSED = "the destination is paused"
#: What a refusal says of us and not of the mailbox.
BLAMES_US = frozenset({Reason.AUTHENTICATION, Reason.BLOCKED_IP, Reason.RATE_LIMITED})
#: Of a recipient of the queue that gets no mail any more.
DISABLED = "the destination is disabled"
#: Seconds after which a delivery that waits for a destination asks again, at least and at most: it may have been resumed by then.
_LEAST, _LONGEST = 60.0, 1800.0
#: Seconds between two deliveries to a next hop that is slowed down.
_SLOW_PACE = 60.0
_GREYLISTED = ("greylist", "graylist", "grey listed", "gray listed", "grey-listed", "postgrey")
_ALWAYS_OPEN = frozenset({"postmaster", "abuse"})
_STAGES = {
    "MAIL refused": Stage.MAIL,
    "RCPT refused": Stage.RCPT,
    "DATA refused": Stage.DATA,
    "message refused": Stage.DATA,
}


@dataclass(frozen=True, slots=True)
class Sorted:
    """Destinations of a message: those that it goes to, those for which it waits, those that get none any more."""

    go: tuple[Address, ...]
    wait: frozenset[Address] = frozenset()
    gone: tuple[Address, ...] = ()


def destination_subject(destination: Address) -> Subject:
    """A destination, however it is spelled."""
    return Subject(SubjectKind.DESTINATION, str(destination).lower())


def provider_subject(name: str) -> Subject:
    """A provider by the domain of its mail hosts, or a next hop."""
    return Subject(SubjectKind.PROVIDER, name.lower())


def provider_of(peer: str | None) -> str | None:
    """The registrable domain of a mail host (``mx.example.org[192.0.2.1]:25``)."""
    host = (peer or "").partition("[")[0].strip().rstrip(".").lower()
    return registrable_domain(host) if "." in host else None


def cause_of(settings: Settings, outcome: Failed | Deferred) -> Cause:
    """Why, as the next hop's reply tells."""
    said = outcome.reply
    if said is None:
        return Cause(Reason.OTHER, False)
    return settings.reason_rules.classify(said.enhanced, str(said), outcome.peer, stage=_stage_of(outcome))


def _is_of_the_moment(cause: Cause, outcome: Failed | Deferred) -> bool:
    """A pace that is asked for by greylisting, of everybody who is new there, or by one mailbox that gets much (RFC 3463 section
    3.3): strangers bring about either, and nobody thinks badly of us."""
    said = outcome.reply
    if cause.reason is not Reason.RATE_LIMITED or said is None or not isinstance(outcome, Deferred):
        return False
    words = str(said).lower()
    return (said.enhanced or "").startswith("4.2.") or any(one in words for one in _GREYLISTED)


def _stage_of(outcome: Failed | Deferred) -> Stage | None:
    """``None``: nobody was asked, as the domain takes no mail."""
    return _STAGES.get(outcome.reason, Stage.CONNECT if outcome.peer is not None else None)


class Destinations:
    """Without standings (``Doors``) all of them get all their mail. What is asked for each message is asked of memory."""

    def __init__(self, settings: Settings, doors: Doors) -> None:
        self._settings = settings
        self._doors = doors
        self._notices = PauseNotices(settings, doors)

    # --- who gets mail

    def at_rcpt(self, resolved: route.ToAlias) -> Refuse | None:
        """An alias that leads nowhere now, or nowhere any more. Nothing of the destination is told."""
        standings = self._doors.standings
        if not standings or resolved.alias.local.lower() in _ALWAYS_OPEN:
            return None
        found: list[Standing] = []
        for target in resolved.targets:
            standing = standings.look_up(destination_subject(target))
            if standing is None or standing.measure is None:
                return None
            found.append(standing)
        now = self._doors.clock.now()
        if all(one.measure is Measure.DISABLE for one in found):
            return Refuse(reply.UNKNOWN_ALIAS, "all its destinations are disabled")
        if any(is_due(one, now) for one in found):
            return None
        return Refuse(reply.PAUSED_ALIAS, "all its destinations are paused")

    async def sort(self, targets: Sequence[Address], id: str) -> Sorted:  # noqa: A002 - of the message
        """Where this message goes. One of those that are paused and due for a probe may be among them: the first who asks gets
        it, in whatever process."""
        standings = self._doors.standings
        if not standings:
            return Sorted(tuple(targets))
        wait: set[Address] = set()
        gone: dict[Address, None] = {}
        for at, some in slices(targets):
            if at:
                await let_others()
            for target in some:
                standing = standings.look_up(destination_subject(target))
                if standing is None or standing.measure is None:
                    continue
                if standing.measure is Measure.DISABLE:
                    gone[target] = None
                elif not await self._may_probe(standing, id):
                    wait.add(target)
        # All of them only where it was not refused at RCPT: postmaster's mail is not thrown away.
        if not gone or len(gone) == len(targets):
            return Sorted(tuple(targets), frozenset(wait))
        return Sorted(tuple([one for one in targets if one not in gone]), frozenset(wait), tuple(gone))

    def are_disabled(self, destinations: Sequence[Address]) -> bool:
        """All of them."""
        return self._all_are(Measure.DISABLE, destinations)

    def are_paused(self, destinations: Sequence[Address]) -> bool:
        """All of them; one of them may be due for a probe."""
        return self._all_are(Measure.PAUSE, destinations)

    def _all_are(self, measure: Measure, destinations: Sequence[Address]) -> bool:
        standings = self._doors.standings
        if not standings:
            return False
        found = (standings.look_up(destination_subject(one)) for one in destinations)
        return all(one is not None and one.measure is measure for one in found)

    def pause_of(self, destinations: Sequence[Address]) -> float:
        """Seconds for which a delivery to these waits, until the first of them is probed."""
        standings, now = self._doors.standings, self._doors.clock.now()
        assert standings is not None
        found = [standings.look_up(destination_subject(one)) for one in destinations]
        due = [(one.until - now).total_seconds() for one in found if one is not None and one.until is not None]
        return min(max(min(due, default=_LONGEST), _LEAST), _LONGEST)

    async def may_probe(self, destinations: Sequence[Address], id: str) -> bool:  # noqa: A002 - of the message
        """May what waits for these go? One that is not paused goes in any case."""
        standings = self._doors.standings
        if not standings:
            return True
        found = [standings.look_up(destination_subject(one)) for one in destinations]
        paused = [one for one in found if one is not None and one.measure is Measure.PAUSE]
        if len(paused) < len(found):
            return True
        return any([await self._may_probe(one, id) for one in paused])

    async def _may_probe(self, standing: Standing, id: str) -> bool:  # noqa: A002 - of the message
        standings, now = self._doors.standings, self._doors.clock.now()
        assert standings is not None
        if not is_due(standing, now):
            return False
        try:
            before, after = await standings.change(standing.subject, probed(now, self._settings.patience))
        except StoreAway:
            return False
        if before is None or after == before:
            return before is None
        name = "destination.probed" if after is not None else "destination.resumed"
        self._doors.journal.event(name, id=id, destination=standing.subject.name)
        return True

    # --- what is learnt

    def teaches(self, outcome: RecipientOutcome | Queued) -> bool:
        """Is anything to be learnt? Not from what was delivered while nothing is held against anybody, as nearly always."""
        return bool(self._doors.standings) or not isinstance(outcome, Delivered)

    async def learn(self, id: str, alias: Address, destination: Address, outcome: RecipientOutcome | Queued) -> None:  # noqa: A002
        """From an attempt. Never raises."""
        if isinstance(outcome, Queued) or self._doors.standings is None:
            return
        if isinstance(outcome, Delivered):
            await self._accepted(id, destination)
            return
        cause = cause_of(self._settings, outcome)
        if _is_of_the_moment(cause, outcome):
            return
        if cause.reason in BLAMES_US:
            await self._blame(id, destination.domain, outcome, cause)
        elif isinstance(outcome, Failed) and _stage_of(outcome) not in (Stage.CONNECT, Stage.MAIL):
            # What is refused before it is named says nothing of the mailbox.
            what = f"refused: {cause.reason} {outcome.reply.enhanced or outcome.reply.code}"
            await self._failed(id, alias, destination, what, cause)

    async def learn_report(self, id: str, known: Forwarded, said: RecipientStatus) -> None:  # noqa: A002 - of the report
        """From a report that was matched. Never raises."""
        if self._doors.standings is None or said.action is not Action.FAILED:
            return
        cause = Cause(said.reason, said.hard)
        if cause.reason in BLAMES_US:
            # Whoever was sent a message can write a report about it: it slows nobody's mail down.
            self._doors.journal.event(
                "alarm.reported",
                id=id,
                reason=str(cause.reason),
                next_hop=known.destination.domain,
                peer=said.remote_mta,
                text=(said.diagnostic or "")[:200],
            )
        else:
            what = f"{BOUNCE}{cause.reason} {said.status or ''}".rstrip()
            await self._failed(known.envelope_id, known.alias, known.destination, what, cause)

    async def _accepted(self, id: str, destination: Address) -> None:  # noqa: A002 - of the message
        standings = self._doors.standings
        if not standings:
            return
        subject = destination_subject(destination)
        if standings.look_up(subject) is None:
            return
        try:
            before, after = await standings.change(subject, accepted(self._doors.clock.now(), id))
        except StoreAway as away:
            self._doors.journal.event("standings.away", id=id, step="accepted", reason=str(away))
            return
        if before is not None and after is None and before.measure is Measure.PAUSE:
            self._doors.journal.event("destination.resumed", id=id, destination=destination)

    async def _failed(self, id: str, alias: Address, destination: Address, what: str, cause: Cause) -> None:  # noqa: A002
        standings, weight = self._doors.standings, self._weight(cause)
        assert standings is not None
        # Who gets a report of ours, or what a user submits, is nobody's destination.
        if not weight or not self._doors.directory.is_ours(alias.domain):
            return
        evidence = Evidence(self._doors.clock.now(), what, weight, "", id)
        try:
            change = failed(destination_subject(destination), evidence, self._settings.patience)
            before, after = await standings.change(destination_subject(destination), change)
        except StoreAway as away:
            self._doors.journal.event("standings.away", id=id, step="failed", reason=str(away))
            return
        if after is None or after == before:
            return
        self._doors.journal.event(
            "destination.failed", id=id, alias=alias, destination=destination, what=what, score=round(after.score, 2)
        )
        if after.measure is not None and (before is None or before.measure is not after.measure):
            name = "destination.paused" if after.measure is Measure.PAUSE else "destination.disabled"
            self._doors.journal.event(name, id=id, alias=alias, destination=destination, what=what, until=after.until)
            await self._notices.tell(alias, after, id)

    def _weight(self, cause: Cause) -> float:
        return self._settings.hard_weight if cause.hard else self._settings.weights.get(cause.reason, 0.0)

    # --- what blames us

    def is_slowed(self, next_hop: str) -> bool:
        """Its mail goes by the queue, and slowly."""
        return self._slow_for(next_hop) > 0

    def slow_pause(self, next_hop: str) -> float:
        """Seconds for which a delivery waits because its next hop is slowed down; 0: it may go. One a minute may."""
        left = self._slow_for(next_hop)
        standings = self._doors.standings
        if not left or standings is None or standings.take_turn(provider_subject(next_hop), _SLOW_PACE):
            return 0
        return min(max(left, _LEAST), _LONGEST)

    def _slow_for(self, next_hop: str) -> float:
        standings = self._doors.standings
        found = standings.look_up(provider_subject(next_hop)) if standings else None
        if found is None or found.measure is not Measure.SLOW or found.until is None:
            return 0
        return max(0.0, (found.until - self._doors.clock.now()).total_seconds())

    async def _blame(self, id: str, next_hop: str, outcome: Failed | Deferred, cause: Cause) -> None:  # noqa: A002
        """On record against the provider, and its mail goes slowly. A provider that refuses a thousand messages says one
        thing: it is written down once a minute."""
        standings, now = self._doors.standings, self._doors.clock.now()
        assert standings is not None
        said = str(outcome.reply)[:200]
        provider = provider_of(outcome.peer) or next_hop
        for name in dict.fromkeys((provider, next_hop)):
            subject = provider_subject(name)
            if not standings.take_turn(Subject(SubjectKind.PROVIDER, f"{cause.reason} {subject.name}"), _SLOW_PACE):
                continue
            try:
                before, after = await standings.change(
                    subject, slowed(subject, Evidence(now, f"{cause.reason}: {said}", 1.0, "", id))
                )
            except StoreAway as away:
                self._doors.journal.event("standings.away", id=id, step="alarm", reason=str(away))
                return
            if name == provider and after is not None:
                is_new = before is None or before.until is None or before.until <= now
                self._doors.journal.event(
                    "alarm" if is_new else "alarm.again",
                    id=id,
                    provider=subject.name,
                    reason=str(cause.reason),
                    next_hop=next_hop,
                    peer=outcome.peer,
                    text=said,
                    slow_until=after.until,
                )
