"""seal.py: what an edited message is sealed with, once more."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address

import pytest

from forwarder import rewrite, seal
from forwarder.auth.arc import build_arc_set, verify_arc
from forwarder.auth.canonical import body_hash
from forwarder.auth.dkim import verify_dkim
from forwarder.auth.signed import sign_now
from forwarder.mail.header import parse_message
from forwarder.model import (
    Address,
    ArcCheck,
    DmarcCheck,
    Envelope,
    Field,
    MailkeyCheck,
    Message,
    Peer,
    Recipient,
    Result,
    SpfCheck,
    Verdict,
)
from forwarder.ports import Legacy, SigningKey
from tests.auth.signers import rsa, zone
from tests.fakes import FakeResolver

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
ALIAS = Address("team", "fwd.example")
OURS, LIST = rsa("fwd.example"), rsa("list.example", number=1)
RESOLVER = FakeResolver(zone(OURS, LIST))
RAW = b"From: Bob <bob@author.example>\r\nTo: team@fwd.example\r\nSubject: x\r\nMessage-ID: <1@x>\r\n\r\nbody\r\n"
ENVELOPE = Envelope(
    "id", Peer(IPv4Address("192.0.2.1"), "h"), Address("bob", "author.example"), (Recipient(ALIAS),), NOW
)


@dataclass
class Ring:
    """Keys of ours."""

    sealing: SigningKey | None = OURS
    signing: list[SigningKey] = field(default_factory=lambda: [OURS])

    def mailkey(self, domain: str) -> SigningKey | None:
        return None

    def dkim(self, domain: str) -> list[SigningKey]:
        return self.signing

    def arc(self) -> SigningKey | None:
        return self.sealing

    def srs_secrets(self) -> list[bytes]:
        return [b"the secret of this test"]

    def srs_legacies(self) -> list[Legacy]:
        return []


def verdict(arc: ArcCheck) -> Verdict:
    none = SpfCheck(Result.NONE)
    return Verdict(MailkeyCheck(Result.NONE), none, none, (), arc, DmarcCheck(Result.NONE), None)


def sealed_before(raw: bytes = RAW) -> Message:
    """As a list that seals hands it on."""
    message = parse_message(raw)
    added = sign_now(
        build_arc_set(
            message.fields,
            body_hash(message, "relaxed"),
            ArcCheck(Result.NONE),
            authres_value=b"list.example; none",
            key=LIST,
            now=NOW,
        )
    )
    assert added is not None
    return parse_message(b"".join(added) + raw)


def edited(message: Message) -> Message:
    found = rewrite.rewrite_author(message, ALIAS, "fwd.example", Ring().srs_secrets(), NOW.date())
    assert found is not None
    return found.message


def twice(message: Message, arc: ArcCheck, ring: Ring) -> tuple[Message, Message]:
    """As it is sealed, and as it is sealed once more with another From."""
    once = sign_now(
        seal.seal_message(
            message,
            ENVELOPE,
            verdict(arc),
            ALIAS,
            srs_domain="fwd.example",
            names=seal.Names("mx", "mx"),
            keys=ring,
            now=NOW,
        )
    )
    again = sign_now(seal.seal_edited(once.prefix, edited(message), srs_domain="fwd.example", keys=ring, now=NOW))
    return parse_message(b"".join(once.chunks)), parse_message(b"".join(again.chunks))


@pytest.mark.parametrize("before", [parse_message(RAW), sealed_before()], ids=["new", "sealed"])
async def test_dkim_and_the_chain_hold_over_the_edited_message(before: Message) -> None:
    arc = await verify_arc(RESOLVER, before, now=NOW)
    once, again = twice(before, arc, Ring())
    for message in (once, again):
        found = await verify_arc(RESOLVER, message, now=NOW)
        assert (found.result, found.sets) == (Result.PASS, arc.sets + 1)
        assert [one.result for one in await verify_dkim(RESOLVER, message, author_domain="fwd.example", now=NOW)] == [
            Result.PASS
        ]
    assert [one.name for one in once.fields if one.name != b"from"] == [
        one.name for one in again.fields if one.name not in (b"from", b"x-original-from", b"reply-to")
    ]


async def test_a_chain_that_had_failed_is_still_said_to() -> None:
    broken = sealed_before().header.replace(b"Subject: x", b"Subject: y")
    before = parse_message(broken + b"\r\nbody\r\n")
    arc = await verify_arc(RESOLVER, before, now=NOW)
    assert arc.result is Result.FAIL
    for message in twice(before, arc, Ring()):
        seals = message.all(b"arc-seal")
        assert len(seals) == 2
        assert b"cv=fail" in seals[0].raw
        assert b"i=2;" in seals[0].raw


@pytest.mark.parametrize(
    ("arc", "ring"),
    [
        pytest.param(ArcCheck(Result.TEMPERROR), Ring(), id="nobody knew what the chain was"),
        pytest.param(ArcCheck(Result.NONE), Ring(sealing=None), id="no key"),
    ],
)
def test_what_was_not_sealed_is_not_sealed_the_second_time(arc: ArcCheck, ring: Ring) -> None:
    for message in twice(parse_message(RAW), arc, ring):
        assert not message.all(b"arc-seal")


def test_the_same_message_is_sealed_the_same_again() -> None:
    message = parse_message(RAW)
    once = sign_now(
        seal.seal_message(
            message,
            ENVELOPE,
            verdict(ArcCheck(Result.NONE)),
            ALIAS,
            srs_domain="fwd.example",
            names=seal.Names("mx", "mx"),
            keys=Ring(),
            now=NOW,
        )
    )
    again = sign_now(seal.seal_edited(once.prefix, replace(message), srs_domain="fwd.example", keys=Ring(), now=NOW))
    assert again.chunks == once.chunks
    assert Field(b"from", b"From: Bob <bob@author.example>\r\n") in again.message.fields
