"""Does a client that nobody vouches for come back, as a mail server does? RFC 6647.

Decided at the final dot and not at RCPT: only then it is known whether a check vouches for the sender, and such mail never
waits. A network that has come back once is not asked to again.
"""

from __future__ import annotations

from collections.abc import Sequence

from forwarder.model import Address, Envelope, Refuse, Verdict
from forwarder.pipeline.doors import Doors, Settings
from forwarder.pipeline.reputation import sender_subject
from forwarder.ports import StoreAway
from forwarder.screen import ALWAYS_OPEN
from forwarder.smtp import reply

__all__ = ["greylist"]


async def greylist(
    envelope: Envelope, verdict: Verdict, aliases: Sequence[Address], settings: Settings, doors: Doors
) -> Refuse | None:
    """``None``: it passes. With the store away everybody does: nobody could be remembered as having come."""
    greylisting, ip = settings.greylisting, envelope.peer.ip
    if greylisting is None or doors.greylist is None or verdict.sender_verified_by is not None:
        return None
    if all(one.local.lower() in ALWAYS_OPEN for one in aliases) or any(ip in one for one in greylisting.skip):
        return None
    if greylisting.from_score and (envelope.caller is None or envelope.caller.score < greylisting.from_score):
        return None
    network = sender_subject(None, False, ip).name
    try:
        seconds = await doors.greylist.wait(network, envelope.sender, aliases, greylisting.rule)
    except StoreAway as away:
        doors.journal.event("ledger.away", id=envelope.id, step="greylist", reason=str(away))
        return None
    if not seconds:
        return None
    return Refuse(reply.greylisted(seconds), f"greylist: {network} is not known, {seconds:.0f} s left")
