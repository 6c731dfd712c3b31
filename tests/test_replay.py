"""Which messages are counted, and what becomes of the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from ipaddress import IPv4Address
from typing import Any

import pytest

from forwarder.model import (
    Address,
    ArcCheck,
    DkimCheck,
    DmarcCheck,
    Envelope,
    MailkeyCheck,
    OpenSignature,
    Peer,
    Recipient,
    Result,
    SpfCheck,
    Verdict,
)
from forwarder.pipeline.doors import Doors, Settings
from forwarder.pipeline.replay import count_replays
from forwarder.ports import StoreAway
from forwarder.route import Policy, ToAlias
from forwarder.seal import Names
from tests.fakes import FixedClock, MemoryJournal

NOW = FixedClock().now()
OPEN = OpenSignature(b"d" * 32, int((NOW + timedelta(hours=1)).timestamp()))
BOB = Address("bob", "sender.test")
TO, TAGGED = Address("alias", "fwd.test"), Address("Alias+tag", "fwd.test")
VERDICT = Verdict(
    mailkey=MailkeyCheck(Result.PASS, "sender.test", "sender.test", policy="all", open=OPEN),
    spf=SpfCheck(Result.FAIL, "sender.test"),
    spf_helo=SpfCheck(Result.NONE),
    dkim=(DkimCheck(Result.PASS, "sender.test"),),
    arc=ArcCheck(Result.NONE),
    dmarc=DmarcCheck(Result.PASS, "sender.test"),
    sender_verified_by="mailkey",
)


@dataclass
class Counts:
    """A ledger that answers as it is told and remembers what it was asked."""

    answer: bool | None = True
    asked: list[tuple[bytes, list[Address], int, int]] = field(default_factory=list)

    async def count_recipients(
        self, signature: bytes, recipients: Sequence[Address], *, most: int, seconds: int
    ) -> bool:
        self.asked.append((signature, list(recipients), most, seconds))
        if self.answer is None:
            raise StoreAway("test")
        return self.answer


async def counted(verdict: Verdict, ledger: Counts, journal: MemoryJournal | None = None, most: int = 25) -> Verdict:
    outside: Any = None
    doors = Doors(
        directory=outside,
        resolver=outside,
        ledger=ledger,  # type: ignore[arg-type]
        mailboxes=outside,
        keys=outside,
        clock=FixedClock(NOW),
        journal=journal or MemoryJournal(),
    )
    envelope = Envelope("id", Peer(IPv4Address("192.0.2.1"), "h"), BOB, (Recipient(TAGGED),), NOW)
    settings = Settings(Names("mx.fwd.test", "mx.fwd.test"), Policy(), replay_recipients=most)
    return await count_replays(envelope, [ToAlias(TO, (BOB,), "fwd.test")], verdict, settings, doors, NOW)


@pytest.mark.parametrize(
    "mailkey",
    [
        MailkeyCheck(Result.PASS, "sender.test", "sender.test", policy="all", bound=True),
        MailkeyCheck(Result.NONE, "sender.test"),
        MailkeyCheck(Result.FAIL, "sender.test", policy="some"),
    ],
    ids=["bound", "none", "fail"],
)
async def test_what_is_bound_or_did_not_pass_costs_no_trip_to_the_store(mailkey: MailkeyCheck) -> None:
    ledger, verdict = Counts(), replace(VERDICT, mailkey=mailkey)
    assert await counted(verdict, ledger) is verdict
    assert ledger.asked == []


async def test_counting_can_be_switched_off() -> None:
    ledger = Counts()
    assert await counted(VERDICT, ledger, most=0) is VERDICT
    assert ledger.asked == []


async def test_a_signature_is_counted_until_its_end_and_the_grace() -> None:
    ledger = Counts()
    assert await counted(VERDICT, ledger) is VERDICT
    assert ledger.asked == [(OPEN.digest, [TO], 25, 3600 + 300)]


@pytest.mark.parametrize(
    ("policy", "spf", "want"),
    [
        ("all", Result.FAIL, None),
        ("some", Result.FAIL, None),
        (None, Result.FAIL, None),
        ("all", Result.PASS, "spf"),
        ("test", Result.FAIL, "dkim"),
    ],
)
async def test_a_replayed_signature_vouches_for_nobody_and_what_came_with_it_does_not_either(
    policy: str | None, spf: Result, want: str | None
) -> None:
    mailkey = replace(VERDICT.mailkey, policy=policy)
    journal = MemoryJournal()
    verdict = replace(VERDICT, mailkey=mailkey, spf=SpfCheck(spf, "sender.test"))
    found = await counted(verdict, Counts(False), journal, 7)
    assert found.mailkey.result is Result.POLICY
    assert found.mailkey.reason == "signature seen for more than 7 recipients"
    assert found.sender_verified_by == want
    assert journal.named("mailkey.replayed") == [{"id": "id", "domain": "sender.test", "most": 7}]


async def test_with_the_store_away_what_the_signature_says_holds() -> None:
    journal = MemoryJournal()
    assert await counted(VERDICT, Counts(None), journal) is VERDICT
    assert [one["step"] for one in journal.named("ledger.away")] == ["replay"]
