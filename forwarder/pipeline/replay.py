"""Is a signature used for more recipients than its sender can have meant? docs/mailkey.md section 10.

A mailkey signature without rt= is good for any recipient, so whoever has the message can send it to others. Only such
signatures are counted: the common ones, which are bound, cost no trip to the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from forwarder import route
from forwarder.auth.mailkey.signature import EXPIRY_GRACE
from forwarder.auth.verify import replayed
from forwarder.model import Envelope, Verdict
from forwarder.pipeline.doors import Doors, Settings
from forwarder.ports import StoreAway

__all__ = ["count_replays"]


async def count_replays(
    envelope: Envelope,
    resolved: Sequence[route.Resolved],
    verdict: Verdict,
    settings: Settings,
    doors: Doors,
    now: datetime,
) -> Verdict:
    """The verdict, or the same with a mailkey that no longer vouches. The sender's retry counts once. With the store away
    nothing is counted: what the signature says holds."""
    signature, most = verdict.mailkey.open, settings.replay_recipients
    if signature is None or most == 0:
        return verdict
    # An alias is one recipient however it is spelled: else the owner of one address could use the count up with his own tags,
    # and have the same message refused for everybody else.
    recipients = [
        one.alias if isinstance(one, route.ToAlias | route.ToMailbox) else to.address
        for to, one in zip(envelope.recipients, resolved, strict=True)
    ]
    seconds = signature.expires_at + EXPIRY_GRACE - int(now.timestamp())
    try:
        within = await doors.ledger.count_recipients(signature.digest, recipients, most=most, seconds=seconds)
    except StoreAway as away:
        doors.journal.event("ledger.away", id=envelope.id, step="replay", reason=str(away))
        return verdict
    if within:
        return verdict
    doors.journal.event("mailkey.replayed", id=envelope.id, domain=verdict.mailkey.domain, most=most)
    return replayed(verdict, envelope.sender, f"signature seen for more than {most} recipients")
