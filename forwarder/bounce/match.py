"""Which forward is a report about? From what the report claims and what the state remembers to a ReturnBounce.

The reversible address that a report came to is authentic. That the report is about a message of ours is shown by what it tells
of it: each step is evidence of its own, and the operator chooses how much of it a report needs (docs/decisions/0021).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import StrEnum
from typing import assert_never

from forwarder.mail.address import AddressError, parse_address
from forwarder.mail.dsn import Action, RecipientStatus, Report, unxtext
from forwarder.model import Address, ReturnBounce
from forwarder.ports import Forwarded

__all__ = ["Evidence", "Matching", "destinations", "evaluate_report", "is_enough", "worst_status"]


class Evidence(StrEnum):
    """What a report and the forward that the state remembers have in common, beyond the reversible address."""

    MESSAGE_ID = "message-id"
    #: The sender's ENVID, or the id under which our own Received field in what is returned names the transaction.
    ENVELOPE_ID = "envelope-id"
    RECIPIENT = "recipient"


class Matching(StrEnum):
    """What a report must have in common with a message of ours. ``STRICT``: the message; ``KNOWN``: that, or a destination that
    got something from this reversible address; ``LENIENT``: nothing, the reversible address is enough."""

    STRICT = "strict"
    KNOWN = "known"
    LENIENT = "lenient"


_GRAVEST_FIRST = (Action.FAILED, Action.DELAYED, Action.EXPANDED, Action.RELAYED, Action.DELIVERED)


def destinations(report: Report) -> tuple[Address, ...]:
    """The addresses that a report names, those it was sent to first, each once."""
    claimed = [one.original_recipient for one in report.recipients] + [one.final_recipient for one in report.recipients]
    found: dict[Address, None] = {}
    for text in claimed:
        try:
            found[parse_address(text or "")] = None
        except AddressError:
            continue
    return tuple(found)


def evaluate_report(reversible: Address, sender: Address, known: Forwarded | None, report: Report) -> ReturnBounce:
    """What the forward that the ledger found makes of a report. ``sender`` is what the reversible address stands for;
    it is authentic, so it goes before what the ledger remembers."""
    if known is None:
        return ReturnBounce(reversible, sender, None, None, "no message in the ledger matches")
    return ReturnBounce(
        reversible,
        sender,
        known.alias,
        known.destination,
        f"about message {known.envelope_id}",
        known.orcpt,
        known.envid,
        tuple(_evidence(known, report)),
        known.envelope_id,
    )


def is_enough(matching: Matching, evidence: Collection[str]) -> bool:
    """Does this show that a report is about a message of ours?"""
    match matching:
        case Matching.STRICT:
            return Evidence.MESSAGE_ID in evidence or Evidence.ENVELOPE_ID in evidence
        case Matching.KNOWN:
            return bool(evidence)
        case Matching.LENIENT:
            return True
        case _:
            assert_never(matching)


def _evidence(known: Forwarded, report: Report) -> Iterator[Evidence]:
    if known.message_id is not None and known.message_id == report.message_id:
        yield Evidence.MESSAGE_ID
    told = known.envid is not None and report.original_envelope_id == unxtext(known.envid)
    # Every message has an id of ours that nobody can guess (build_received).
    if told or f" id {known.envelope_id} ".encode() in b" %b " % b" ".join(report.returned_header.split()):
        yield Evidence.ENVELOPE_ID
    named = {str(one).casefold() for one in destinations(report)}
    if named & {str(known.destination).casefold(), str(known.alias).casefold()}:
        yield Evidence.RECIPIENT


def worst_status(report: Report, destination: Address | None) -> RecipientStatus:
    """What the report says of ``destination``; where it does not name it, the gravest of all."""

    def rank(one: RecipientStatus) -> tuple[bool, int]:
        named = (one.original_recipient, one.final_recipient)
        about = destination is not None and any(_same(text, destination) for text in named)
        return not about, _GRAVEST_FIRST.index(one.action)

    return min(report.recipients, key=rank)


def _same(text: str | None, address: Address) -> bool:
    return text is not None and text.casefold() == str(address).casefold()
