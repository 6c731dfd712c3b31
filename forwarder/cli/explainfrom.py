"""With which From would this message leave for each next hop, and why? What was refused before is read from the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from forwarder import rewrite
from forwarder.app import StartError, open_state
from forwarder.config import Settings
from forwarder.model import Forward, FromRewrite, Message, Verdict
from forwarder.pipeline.ladder import lookup_provider
from forwarder.ports import KeyRing, Resolver, StoreAway
from forwarder.telemetry import SilentJournal

__all__ = ["From", "explain_from"]


@dataclass(frozen=True, slots=True)
class From:
    """``first`` is the message as it goes to the first next hop where its From is rewritten at once; ``next_hops`` is what to
    show."""

    first: rewrite.RewrittenAuthor | None
    next_hops: list[dict[str, str]]


async def explain_from(
    settings: Settings,
    forward: Forward,
    verdict: Verdict,
    message: Message,
    resolver: Resolver,
    keys: KeyRing,
    now: datetime,
) -> From:
    """Nothing is stored, and what is not to be rewritten is not looked up."""
    if forward.from_rewrite is FromRewrite.NEVER:
        return From(None, [])
    other = None
    if keys.dkim(forward.srs_domain):
        other = rewrite.rewrite_author(message, forward.alias, forward.srs_domain, keys.srs_secrets(), now.date())
    hops = list(dict.fromkeys(group.next_hop for group in rewrite.group_by_next_hop(forward.targets)))
    smarthost = bool(settings.relay.smarthost)
    providers = [await lookup_provider(resolver, one, by_smarthost=smarthost) for one in hops]
    if other is None:
        why = "its From cannot be rewritten, or no key signs for the domain that it would be of"
        told = [("kept", why)] * len(hops)
    elif forward.from_rewrite is FromRewrite.AT_ONCE:
        told = [("rewritten", "at once")] * len(hops)
    elif forward.from_rewrite is FromRewrite.IF_REFUSED or verdict.dmarc.domain is None:
        told = [("kept", "rewritten if that is refused")] * len(hops)
    else:
        told = [_told(one) for one in await _were_refused(settings, verdict.dmarc.domain, providers)]
    shown = [
        {"next_hop": hop, "provider": provider, "from": form, "because": why}
        for hop, provider, (form, why) in zip(hops, providers, told, strict=True)
    ]
    return From(other if told and told[0][0] == "rewritten" else None, shown)


def _told(refused: bool | None) -> tuple[str, str]:
    match refused:
        case True:
            return "rewritten", "this provider has refused such mail"
        case False:
            return "kept", "rewritten if that is refused, as it has not been yet"
        case None:
            return (
                "kept",
                "rewritten if that is refused; whether it was before is not known, as the store cannot be asked",
            )


async def _were_refused(settings: Settings, author_domain: str, providers: Sequence[str]) -> Sequence[bool | None]:
    """``None``: nobody knows."""
    if settings.store == "embedded" and not settings.state_dir.is_dir():
        return [False] * len(providers)
    try:
        async with open_state(settings, SilentJournal()) as state:
            return [await state.refusals.was_refused(author_domain, one) for one in providers]
    except (StartError, StoreAway):
        return [None] * len(providers)
