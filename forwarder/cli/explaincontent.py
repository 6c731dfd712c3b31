"""What do content filters make of the message of ``forwarder explain``, and what follows?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from forwarder.app import content_policy, load_filter_passwords, make_filters
from forwarder.config import Settings
from forwarder.model import Address, ContentCheck, Discard, Envelope, Message, Refuse, Verdict
from forwarder.pipeline.filtering import Filtered, conclude, is_asked

__all__ = ["ExplainedContent", "explain_content"]


@dataclass(frozen=True, slots=True)
class ExplainedContent:
    """``told`` is what to show of the filters, ``ended`` what to show where the message goes no further for them."""

    filtered: Filtered
    told: dict[str, Any] = field(default_factory=dict)
    ended: dict[str, Any] | None = None


async def explain_content(
    settings: Settings, envelope: Envelope, message: Message, verdict: Verdict, alias: Address, *, ask: bool
) -> ExplainedContent:
    """``ask``: without it nobody is asked, and it is only shown who would be."""
    asked, filtered = content_policy(settings), Filtered(message)
    filters = make_filters(settings, load_filter_passwords(settings) if ask else [None] * len(settings.content.rspamd))
    if asked is None or filters is None:
        return ExplainedContent(filtered)
    names = [one.name for one in asked.rules]
    if not is_asked(envelope, [alias], asked):
        return ExplainedContent(filtered, _shown([(one, "not asked about this mail") for one in names]))
    if not ask:
        return ExplainedContent(filtered, _shown([(one, "would be asked: --filters asks it") for one in names]))
    try:
        checks = await filters.check(envelope, message, [alias])
    finally:
        await filters.aclose()
    told = _shown([(one.filter, _said(one)) for one in checks])
    domain = settings.domains.get(alias.domain)
    hold = (domain.hold if domain is not None else None) or settings.relay.hold
    found = conclude(message, verdict, asked, checks, may_hold=hold != "never")
    match found:
        case Refuse(reply, reason):
            return ExplainedContent(filtered, told, {"route": "refuse", "reply": str(reply), "reason": reason})
        case Discard(reason):
            return ExplainedContent(filtered, told, {"route": "discard", "reason": reason})
        case Filtered():
            return ExplainedContent(found, told)


def _shown(found: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {"content": [{"filter": name, "found": text} for name, text in found]}


def _said(check: ContentCheck) -> str:
    if check.failure is not None:
        return f"failed: {check.failure}"
    parts = [check.action]
    parts += [f"score {check.score:g}"] if check.score is not None else []
    parts += [f"would {one} (never done)" for one in check.undone]
    return f"{', '.join(parts)} ({check.milliseconds:g} ms)"
