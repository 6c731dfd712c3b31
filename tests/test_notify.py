"""What a sender asks for, and what of it the next hop hears: RFC 3461 section 4 and 5.2.7."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address

import pytest

from forwarder import notify
from forwarder.model import Address, Envelope, Notice, Peer, Recipient
from forwarder.smtp.commands import parse_rcpt

ALIAS, TEAM = Address("alias", "fwd.test"), Address("team", "fwd.test")
PLAIN = Envelope(
    "e1",
    Peer(IPv4Address("192.0.2.1"), "mx.sender.test"),
    Address("bob", "sender.test"),
    (Recipient(Address("Alias+x", "fwd.test")), Recipient(TEAM)),
    datetime(2026, 11, 23, 12, 30, tzinfo=UTC),
)


def asking(said: str | None, orcpt: str | None = None) -> Envelope:
    return replace(PLAIN, recipients=(Recipient(ALIAS, said, orcpt),))


def test_a_sender_that_says_nothing_asks_for_nothing() -> None:
    assert not notify.asks(PLAIN)
    assert notify.by_alias(PLAIN, [ALIAS, TEAM]) is PLAIN, "and costs nothing"
    assert notify.for_next_hop(PLAIN, TEAM, alone=True) == Notice()


@pytest.mark.parametrize(
    "envelope",
    [replace(PLAIN, envid="Q"), replace(PLAIN, ret="HDRS"), asking("NEVER"), asking(None, "rfc822;a@b.test")],
    ids=["ENVID", "RET", "NOTIFY", "ORCPT"],
)
def test_any_parameter_asks(envelope: Envelope) -> None:
    assert notify.asks(envelope)


def test_recipients_are_named_as_their_aliases_and_orcpt_keeps_whom_the_sender_meant() -> None:
    named = notify.by_alias(replace(PLAIN, envid="Q"), [ALIAS, TEAM])
    assert named.recipients == (
        Recipient(ALIAS, None, "rfc822;Alias+2Bx@fwd.test"),
        Recipient(TEAM, None, "rfc822;team@fwd.test"),
    )


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (Address("a=b", "fwd.test"), "rfc822;a+3Db@fwd.test"),
        (Address("a", "b\xfccher.test"), "rfc822;a@xn--bcher-kva.test"),
        (Address("j\xfcr+x", "b\xfccher.test"), r"utf-8;j\x{FC}r\x{2B}x@b\x{FC}cher.test"),
    ],
)
def test_an_orcpt_of_ours_is_one_that_we_would_take(address: Address, expected: str) -> None:
    envelope = replace(PLAIN, recipients=(Recipient(address, "NEVER"),))
    (one,) = notify.by_alias(envelope, [ALIAS]).recipients
    assert one.orcpt == expected
    command = f"TO:<a@b.test> ORCPT={expected}".encode("ascii")
    assert parse_rcpt(command, smtputf8=False, postmaster_domain="x", offered=frozenset({"DSN"})).orcpt == expected


@pytest.mark.parametrize(
    ("said", "failure", "success", "delay"),
    [
        (None, True, False, None),
        ("NEVER", False, False, False),
        ("success,Failure", True, True, False),
        ("DELAY", False, False, True),
    ],
)
def test_what_is_wanted(said: str | None, failure: bool, success: bool, delay: bool | None) -> None:
    envelope = asking(said)
    assert notify.wants_failure(envelope, ALIAS) is failure
    assert notify.wants_success(envelope, ALIAS) is success
    assert notify.wants_delay(envelope, ALIAS) is delay


@pytest.mark.parametrize(
    ("said", "alone", "several"),
    [
        (None, Notice(None, "rfc822;o@x.test"), Notice()),
        ("NEVER", Notice("NEVER", "rfc822;o@x.test"), Notice("NEVER")),
        ("SUCCESS", Notice("SUCCESS", "rfc822;o@x.test"), Notice("NEVER")),
        ("success,FAILURE,delay", Notice("success,FAILURE,delay", "rfc822;o@x.test"), Notice("FAILURE,DELAY")),
    ],
)
def test_what_the_next_hop_is_asked(said: str | None, alone: Notice, several: Notice) -> None:
    envelope = asking(said, "rfc822;o@x.test")
    assert notify.for_next_hop(envelope, ALIAS, alone=True) == alone
    assert notify.for_next_hop(envelope, ALIAS, alone=False) == several


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (None, {"failed", "delayed", "delivered", "relayed", "expanded"}),
        ("NEVER", set()),
        ("FAILURE", {"failed"}),
        ("delay", {"delayed"}),
        ("SUCCESS", {"delivered", "relayed", "expanded"}),
    ],
)
def test_what_may_go_on_of_what_comes_back(said: str | None, told: set[str]) -> None:
    actions = {"failed", "delayed", "delivered", "relayed", "expanded"}
    assert {one for one in actions if notify.may_tell(said, one)} == told
