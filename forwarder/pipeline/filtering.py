"""What do content filters make of a message, and what does it mean for it? Asked last, and only about what would be taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from forwarder import content
from forwarder.auth.covered import covered_fields
from forwarder.dispatch import Hold
from forwarder.model import Address, ContentAction, ContentCheck, Discard, Envelope, Field, Message, Refuse, Verdict
from forwarder.pipeline.doors import ContentPolicy, Doors, Settings
from forwarder.screen import ALWAYS_OPEN
from forwarder.smtp import reply
from forwarder.values import value

__all__ = ["Filtered", "conclude", "filter_message", "filter_submitted", "is_asked"]


@value
class Filtered:
    """It passes: ``message`` without fields that were forged in a filter's name, ``added`` what is put on it. ``one_way`` and
    ``quarantine`` are reasons; ``None``: it is not."""

    message: Message
    added: Sequence[Field] = ()
    one_way: str | None = None
    quarantine: str | None = None


async def filter_message(
    envelope: Envelope,
    message: Message,
    verdict: Verdict,
    aliases: Sequence[Address],
    settings: Settings,
    doors: Doors,
) -> Filtered | Refuse | Discard:
    """Mail for ``aliases``. Nobody is asked where there is no filter."""
    asked, filters = settings.content, doors.filters
    if asked is None or filters is None or not is_asked(envelope, aliases, asked):
        return Filtered(message)
    checks = await filters.check(envelope, message, aliases)
    _tell(envelope, asked.rules, checks, doors)
    holds = {settings.domain_holds.get(one.domain, settings.hold) for one in aliases}
    return conclude(message, verdict, asked, checks, may_hold=Hold.NEVER not in holds)


def is_asked(envelope: Envelope, aliases: Sequence[Address], asked: ContentPolicy) -> bool:
    """Is this mail that filters are asked about?"""
    if any(envelope.peer.ip in one for one in asked.skip):
        return False
    return asked.postmaster or any(one.local.lower() not in ALWAYS_OPEN for one in aliases)


def conclude(
    message: Message, verdict: Verdict, asked: ContentPolicy, checks: Sequence[ContentCheck], *, may_hold: bool
) -> Filtered | Refuse | Discard:
    """What follows from what they said. ``may_hold``: mail may be kept here."""
    judged = content.judge(asked.rules, checks)
    action = judged.action
    if action is ContentAction.QUARANTINE and not may_hold:
        # It cannot be put aside.
        action = ContentAction.REJECT
    match action:
        case ContentAction.REJECT:
            return Refuse(reply.content_refused(judged.by), judged.reason)
        case ContentAction.TEMPFAIL:
            return Refuse(reply.content_later(judged.by), judged.reason)
        case ContentAction.DISCARD:
            return Discard(judged.reason)
        case ContentAction.ACCEPT | ContentAction.TAG | ContentAction.ONE_WAY | ContentAction.QUARANTINE:
            pass
        case _:
            assert_never(action)
    covered = covered_fields(message, verdict)
    return Filtered(
        content.forged_removed(message, asked.rules, covered),
        content.added_fields(asked.rules, checks, covered),
        judged.reason if action is ContentAction.ONE_WAY else None,
        f"quarantine, {judged.reason}" if action is ContentAction.QUARANTINE else None,
    )


async def filter_submitted(
    envelope: Envelope, message: Message, recipients: Sequence[Address], settings: Settings, doors: Doors
) -> Refuse | None:
    """A user's own mail, where the operator wants it looked at. The user is there to hear of it: what would be put aside or
    dropped is refused, and nothing is put on it."""
    asked, filters = settings.content, doors.filters
    if asked is None or filters is None or not asked.submission:
        return None
    checks = await filters.check(envelope, message, recipients)
    judged = content.judge(asked.rules, checks)
    _tell(envelope, asked.rules, checks, doors)
    match judged.action:
        case ContentAction.REJECT | ContentAction.DISCARD | ContentAction.QUARANTINE:
            return Refuse(reply.content_refused(judged.by), judged.reason)
        case ContentAction.TEMPFAIL:
            return Refuse(reply.content_later(judged.by), judged.reason)
        case ContentAction.ACCEPT | ContentAction.TAG | ContentAction.ONE_WAY:
            return None
        case _:
            assert_never(judged.action)


def _tell(
    envelope: Envelope, rules: Sequence[content.ContentRule], checks: Sequence[ContentCheck], doors: Doors
) -> None:
    for rule, one in zip(rules, checks, strict=True):
        doors.journal.event(
            "content.checked",
            id=envelope.id,
            filter=one.filter,
            score=one.score,
            said=one.action or None,
            action=rule.decide(one).value,
            ms=one.milliseconds,
            text=one.said or None,
            failure=one.failure,
            undone=list(one.undone) or None,
        )
