"""What does the sender hear? Fates of destinations as one SMTP reply, without a trace of who is behind the alias."""

from __future__ import annotations

from collections.abc import Sequence

from forwarder import bounce
from forwarder.dispatch import BUSY, STILL_UNDER_WAY, Fate
from forwarder.model import (
    Deferred,
    Delivered,
    Failed,
    Queued,
    Reply,
)
from forwarder.ports import (
    Claim,
)
from forwarder.smtp import reply

__all__ = ["accepted_reply", "deferred_reply", "failed_reply", "known", "scrubbed", "set_aside_reply"]


#: That attempt has seen to its reports, too.
_DELIVERED_BEFORE = Delivered("ledger", Reply(250, "2.0.0", "delivered by an earlier attempt"), dsn=True)
_UNDER_WAY = Deferred(BUSY)


def known(claim: Claim) -> Delivered | Deferred:
    """What the ledger already knows of a destination."""
    return _DELIVERED_BEFORE if claim is Claim.DELIVERED else _UNDER_WAY


def accepted_reply(taken: Sequence[Fate]) -> Reply:
    """All of it is delivered, or some of it is ours to deliver."""
    return reply.QUEUED if any(isinstance(one.outcome, Queued) for one in taken) else reply.DELIVERED


def set_aside_reply(fates: Sequence[Fate]) -> Reply:
    """Nothing was tried: it lies here, or could not be put aside."""
    deferred = [one for one in fates if isinstance(one.outcome, Deferred)]
    return deferred_reply(deferred[0]) if deferred else reply.SET_ASIDE


def deferred_reply(fate: Fate) -> Reply:
    assert isinstance(fate.outcome, Deferred)
    if fate.outcome.reason == BUSY:
        return reply.BUSY
    if fate.outcome.reason == STILL_UNDER_WAY or fate.outcome.reply is None:
        return reply.STILL_UNDER_WAY
    enhanced = fate.outcome.reply.enhanced
    return Reply(451, enhanced if enhanced and enhanced[0] == "4" else "4.0.0", scrubbed(fate))


def failed_reply(fate: Fate) -> Reply:
    assert isinstance(fate.outcome, Failed)
    code, enhanced = fate.outcome.reply.code, fate.outcome.reply.enhanced
    # RFC 5321 section 4.2.1: only the first digit is ours to rely on; a code that DATA may not answer with becomes 554.
    code = code if code in (550, 551, 552, 553, 554) else 554
    return Reply(code, enhanced if enhanced and enhanced[0] == "5" else "5.0.0", scrubbed(fate))


def scrubbed(fate: Fate) -> str:
    """What the next hop said, without a trace of who it is and of the address behind the alias."""
    assert not isinstance(fate.outcome, Queued)
    answer = fate.outcome.reply
    text = answer.text if answer is not None else "no answer from the next hop"
    return (
        bounce.scrub(text, hidden=fate.ticket.destination, alias=fate.ticket.alias, peer=fate.outcome.peer) or "refused"
    )
