"""Which forward is a report about? From what the report claims and what the state remembers to a ReturnBounce."""

from __future__ import annotations

from forwarder.mail.address import AddressError, parse_address
from forwarder.mail.dsn import Action, RecipientStatus, Report
from forwarder.model import Address, ReturnBounce
from forwarder.ports import Forwarded

__all__ = ["destinations", "evaluate_report", "worst_status"]

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


def evaluate_report(reversible: Address, sender: Address, known: Forwarded | None) -> ReturnBounce:
    """What the forward that the ledger found makes of a report. ``sender`` is what the reversible address stands for;
    it is authentic, so it goes before what the ledger remembers."""
    if known is None:
        return ReturnBounce(
            reversible, sender, None, None, "no message in the ledger matches; the address alone counts"
        )
    about = f"about message {known.envelope_id}"
    return ReturnBounce(reversible, sender, known.alias, known.destination, about, known.orcpt, known.envid)


def worst_status(report: Report, destination: Address | None) -> RecipientStatus:
    """What the report says of ``destination``; where it does not name it, the gravest of all."""

    def rank(one: RecipientStatus) -> tuple[bool, int]:
        named = (one.original_recipient, one.final_recipient)
        about = destination is not None and any(_same(text, destination) for text in named)
        return not about, _GRAVEST_FIRST.index(one.action)

    return min(report.recipients, key=rank)


def _same(text: str | None, address: Address) -> bool:
    return text is not None and text.casefold() == str(address).casefold()
