"""Which senders are a client's own? Every spelling that somebody might try."""

from __future__ import annotations

import pytest

from forwarder.mail.address import AddressError, FromHeader, parse_address
from forwarder.model import Identity, Refuse
from forwarder.ownership import canonical_owner, owns, refuse_author, refuse_sender


def identity(*owners: str, null_sender: bool = False) -> Identity:
    return Identity("alice", frozenset(canonical_owner(one) for one in owners), null_sender)


@pytest.mark.parametrize(
    ("owner", "address", "expected"),
    [
        ("example.org", "bob@example.org", True),
        ("Example.ORG", "Bob@EXAMPLE.org", True),
        ("example.org", "bob@sub.example.org", False),
        ("example.org", "bob@badexample.org", False),
        ("example.org", "bob@org", False),
        ("example.org", '"bob@example.org"@evil.test', False),
        ("*.example.org", "bob@sub.example.org", True),
        ("*.example.org", "bob@a.b.example.org", True),
        ("*.example.org", "bob@example.org", False),
        ("*.example.org", "bob@badexample.org", False),
        ("bob@example.org", "BOB@example.org", True),
        ("bob@example.org", '"bob"@example.org', True),
        ("bob@example.org", '"b\\ob"@example.org', True),
        ("bob@example.org", "bob+tag@example.org", False),
        ("bob@example.org", '"bob "@example.org', False),
        ("kim@example.org", "\u212aim@example.org", False),
        ("bücher.example", "bob@xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "bob@BÜCHER.example", True),
        ("example.org", "bob@[192.0.2.1]", False),
    ],
)
def test_an_owner_owns_what_it_says_and_nothing_that_looks_like_it(owner: str, address: str, expected: bool) -> None:
    assert owns(identity(owner), parse_address(address)) is expected


@pytest.mark.parametrize(
    "owner",
    ["*", "*@*", "@example.org", "*@example.org", "*.com", "*.co.uk", "", "[192.0.2.1]", "a b", "*.*.example.org"],
)
def test_no_owner_opens_the_door_for_everybody(owner: str) -> None:
    with pytest.raises(AddressError):
        canonical_owner(owner)


def test_the_null_sender_is_for_those_who_were_given_it() -> None:
    assert isinstance(refuse_sender(identity("example.org"), None), Refuse)
    assert refuse_sender(identity("example.org", null_sender=True), None) is None


def test_every_author_must_be_the_clients_and_there_must_be_one() -> None:
    mine, other = parse_address("bob@example.org"), parse_address("bob@evil.test")
    assert refuse_author(identity("example.org"), FromHeader((mine,))) is None
    assert isinstance(refuse_author(identity("example.org"), FromHeader((mine, other))), Refuse)
    assert isinstance(refuse_author(identity("example.org"), FromHeader(())), Refuse)
