"""rewrite.py: the envelope that a forwarded message leaves with."""

from __future__ import annotations

from datetime import date

import pytest

from forwarder import srs
from forwarder.model import Address, Forward, SenderForm
from forwarder.rewrite import Group, Rewritten, group_by_next_hop, rewrite_sender

SECRETS = [b"the secret of this test"]
TODAY = date(2026, 11, 23)
ALIAS = Address("alias", "fwd.example")
BOB = Address("bob", "sender.example")


def forward(form: SenderForm) -> Forward:
    return Forward(ALIAS, (Address("dest", "sink.example"),), "fwd.example", form, "test")


def rewritten(sender: Address | None, form: SenderForm) -> Rewritten:
    return rewrite_sender(sender, forward(form), SECRETS, TODAY, lambda domain: domain in ("fwd.example", "b.example"))


def test_the_null_sender_stays_null() -> None:
    assert rewritten(None, SenderForm.NULL) == Rewritten(None)


def test_a_reversible_sender_comes_back() -> None:
    address = rewritten(BOB, SenderForm.REVERSIBLE).sender
    assert address is not None
    assert srs.decode(address, SECRETS, TODAY) == srs.Reversed(BOB)


def test_a_one_way_sender_leads_nowhere() -> None:
    address = rewritten(BOB, SenderForm.ONE_WAY).sender
    assert address is not None
    assert srs.decode(address, SECRETS, TODAY) == srs.OneWay()


@pytest.mark.parametrize("minted_under", ["fwd.example", "b.example"])
def test_our_own_address_is_unwrapped_not_wrapped_twice(minted_under: str) -> None:
    once = srs.encode(BOB, minted_under, SECRETS, TODAY).address
    again = rewritten(once, SenderForm.REVERSIBLE).sender
    assert again is not None
    assert srs.decode(again, SECRETS, TODAY) == srs.Reversed(BOB)


def test_our_own_opaque_address_stays_as_it_is() -> None:
    opaque = srs.encode(Address("x" * 60, "sender.example"), "fwd.example", SECRETS, TODAY).address
    assert rewritten(opaque, SenderForm.REVERSIBLE) == Rewritten(opaque)


def test_a_forged_address_of_ours_gets_no_way_back() -> None:
    forged = Address("SRS0=AAAAAAAAAAAAAA=JM=victim.example=user", "fwd.example")
    address = rewritten(forged, SenderForm.REVERSIBLE).sender
    assert address is not None
    assert srs.decode(address, SECRETS, TODAY) == srs.OneWay()


def test_recipients_of_one_domain_travel_together() -> None:
    a, b, c = Address("a", "one.example"), Address("b", "two.example"), Address("c", "one.example")
    assert group_by_next_hop((a, b, c)) == (Group("one.example", (a, c)), Group("two.example", (b,)))


def test_very_many_recipients_of_one_domain_are_several_groups() -> None:
    many = tuple(Address(f"r{number}", "one.example") for number in range(250))
    groups = group_by_next_hop(many)
    assert [len(one.recipients) for one in groups] == [100, 100, 50]
    assert tuple(address for one in groups for address in one.recipients) == many
