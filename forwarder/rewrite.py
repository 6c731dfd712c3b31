"""Which envelope does a forwarded message leave with? The sender becomes an address of ours, the recipients are grouped. And
where From has to become ours too, which address is it?

One Delivery is one alias's copy for one next hop: its recipients share a domain, so they travel in one transaction, and the
signature that is bound to them (mailkey rt=) names them only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import assert_never

from forwarder import srs
from forwarder.mail.address import parse_author
from forwarder.mail.author import replace_author
from forwarder.model import Address, Forward, Message, SenderForm
from forwarder.values import value

__all__ = ["Group", "Rewritten", "RewrittenAuthor", "group_by_next_hop", "rewrite_author", "rewrite_sender"]


#: Recipients of one Delivery: what every server must take in one transaction (RFC 5321 section 4.5.3.1.8).
MAX_RECIPIENTS = 100


@value
class Rewritten:
    """``sender`` for the next hop; ``token`` is what the store must hold before it is used (``None``: nothing)."""

    sender: Address | None
    token: str | None = None


@value
class RewrittenAuthor:
    """``message`` has an address of ours in From, by which answers reach ``author``; ``token`` as above."""

    message: Message
    author: Address
    token: str | None = None


@value
class Group:
    """Recipients of one domain."""

    next_hop: str
    recipients: tuple[Address, ...]


def rewrite_sender(
    sender: Address | None,
    forward: Forward,
    secrets: Sequence[bytes],
    today: date,
    is_srs_domain: Callable[[str], bool],
) -> Rewritten:
    """The envelope sender that this Forward leaves with."""
    domain = forward.srs_domain
    match forward.sender_form:
        case SenderForm.NULL:
            return Rewritten(None)
        case SenderForm.ONE_WAY:
            assert sender is not None
            return Rewritten(srs.encode_one_way(sender, domain, secrets, today))
        case SenderForm.REVERSIBLE:
            assert sender is not None
            if is_srs_domain(sender.domain) and srs.is_srs(sender.local):
                return _rewrite_our_own(sender, domain, secrets, today)
            encoded = srs.encode(sender, domain, secrets, today)
            return Rewritten(encoded.address, encoded.token)
        case _:
            assert_never(forward.sender_form)


def _rewrite_our_own(sender: Address, domain: str, secrets: Sequence[bytes], today: date) -> Rewritten:
    """An address that we minted comes back as a sender (an alias behind an alias): it stands for its own sender. Wrapped
    once more it would send reports to ourselves."""
    decoded = srs.decode(sender, secrets, today)
    match decoded:
        case srs.Reversed(original):
            encoded = srs.encode(original, domain, secrets, today)
            return Rewritten(encoded.address, encoded.token)
        case srs.Token() | srs.OneWay():
            return Rewritten(sender)
        case srs.WhyNot():
            return Rewritten(srs.encode_one_way(sender, domain, secrets, today))
        case _:
            assert_never(decoded)


def rewrite_author(
    message: Message, alias: Address, domain: str, secrets: Sequence[bytes], today: date
) -> RewrittenAuthor | None:
    """The message that came by ``alias`` as one from an address under ``domain``; ``None``: its From cannot be rewritten."""
    author = parse_author(message)
    if author is None:
        return None
    encoded = srs.encode_reply(author.address, domain, secrets, today)
    replaced = replace_author(message, encoded.address, alias)
    return RewrittenAuthor(replaced, author.address, encoded.token) if replaced is not None else None


def group_by_next_hop(targets: Sequence[Address]) -> tuple[Group, ...]:
    """Targets by domain, each in the order given; a domain with very many of them is several groups."""
    by_domain: dict[str, list[Address]] = {}
    for target in targets:
        by_domain.setdefault(target.domain, []).append(target)
    return tuple(
        Group(domain, tuple(recipients[at : at + MAX_RECIPIENTS]))
        for domain, recipients in by_domain.items()
        for at in range(0, len(recipients), MAX_RECIPIENTS)
    )
