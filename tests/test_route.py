"""route.py: where a recipient leads, and what a verdict means for a message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from ipaddress import IPv4Address

import pytest

from forwarder import srs
from forwarder.auth.verify import replayed
from forwarder.model import (
    Address,
    ArcCheck,
    DkimCheck,
    DmarcCheck,
    Envelope,
    Forward,
    FromRewrite,
    Keep,
    MailkeyCheck,
    Peer,
    Refuse,
    Result,
    SenderForm,
    SpfCheck,
    Verdict,
)
from forwarder.ports import (
    AliasFound,
    Claim,
    DirectoryAnswer,
    Forwarded,
    MailboxFound,
    NoSuchAlias,
    NotOurDomain,
    StoreAway,
)
from forwarder.route import Action, FromWish, Policy, ToAlias, ToMailbox, ToNowhere, ToSender, decide, resolve
from forwarder.smtp import reply

SECRETS = [b"the secret of this test"]
TODAY = date(2026, 11, 23)
BOB = Address("bob", "sender.example")
LONG = Address("x" * 60, "sender.example")
ALIAS = Address("alias", "fwd.example")
DEST = Address("dest", "sink.example")


class Directory:
    """alias@ and postmaster@fwd.example."""

    async def look_up(self, address: Address) -> DirectoryAnswer:
        if address.domain != "fwd.example":
            return NotOurDomain()
        if address.local == "away":
            raise StoreAway("test")
        return {"alias": AliasFound(ALIAS, (DEST,)), "postmaster": MailboxFound(address, "postmaster")}.get(
            address.local, NoSuchAlias()
        )

    def is_ours(self, domain: str) -> bool:
        return domain == "fwd.example"

    def srs_domain(self, domain: str) -> str:
        return domain

    def is_srs_domain(self, domain: str) -> bool:
        return domain == "fwd.example"


@dataclass
class Tokens:
    """A ledger that knows tokens only."""

    known: dict[str, Address] = field(default_factory=dict)
    away: bool = False

    async def look_up_token(self, token: str) -> Address | None:
        if self.away:
            raise StoreAway("test")
        return self.known.get(token)

    async def put_token(self, token: str, sender: Address) -> None:
        self.known[token] = sender

    async def claim(self, fingerprints: Sequence[bytes], attempt: str) -> Sequence[Claim]:
        raise NotImplementedError

    async def settle(
        self, attempt: str, delivered: Sequence[bytes], released: Sequence[bytes], forwards: Sequence[Forwarded]
    ) -> None:
        raise NotImplementedError

    async def find_forward(
        self, reversible: Address, message_id: str | None, destinations: Sequence[Address]
    ) -> Forwarded | None:
        raise NotImplementedError

    async def remembers_since(self) -> date:
        raise NotImplementedError

    async def spend_bounce(self, reversible: Address, message_id: str | None) -> bool:
        raise NotImplementedError

    async def refund_bounce(self, reversible: Address, message_id: str | None) -> None:
        raise NotImplementedError


async def resolved(recipient: Address, sender: Address | None = BOB, ledger: Tokens | None = None) -> object:
    return await resolve(
        recipient, sender, directory=Directory(), ledger=ledger or Tokens(), secrets=SECRETS, today=TODAY
    )


async def test_an_alias_leads_to_its_targets() -> None:
    assert await resolved(ALIAS) == ToAlias(ALIAS, (DEST,), "fwd.example")
    assert await resolved(Address("postmaster", "fwd.example")) == ToMailbox(
        Address("postmaster", "fwd.example"), "postmaster"
    )


@pytest.mark.parametrize(
    ("recipient", "expected"),
    [
        (Address("nobody", "fwd.example"), reply.UNKNOWN_ALIAS),
        (Address("x", "elsewhere.example"), reply.RELAYING_DENIED),
        (Address("away", "fwd.example"), reply.STATE_AWAY),
    ],
    ids=str,
)
async def test_the_rest_is_refused_early(recipient: Address, expected: object) -> None:
    answer = await resolved(recipient)
    assert isinstance(answer, Refuse)
    assert answer.reply == expected


async def test_a_reversible_address_leads_to_its_sender_for_the_null_sender_only() -> None:
    address = srs.encode(BOB, "fwd.example", SECRETS, TODAY).address
    assert await resolved(address, None) == ToSender(address, BOB)
    answer = await resolved(address, BOB)
    assert isinstance(answer, Refuse)
    assert answer.reply == reply.REVERSIBLE_TAKES_REPORTS_ONLY


async def test_an_opaque_address_needs_the_store() -> None:
    encoded = srs.encode(LONG, "fwd.example", SECRETS, TODAY)
    assert encoded.token is not None
    assert await resolved(encoded.address, None, Tokens({encoded.token: LONG})) == ToSender(encoded.address, LONG)
    unknown, away = await resolved(encoded.address, None), await resolved(encoded.address, None, Tokens(away=True))
    assert isinstance(unknown, Refuse)
    assert isinstance(away, Refuse)
    assert (unknown.reply, away.reply) == (reply.BAD_REVERSIBLE, reply.STATE_AWAY)


async def test_a_one_way_address_is_taken_and_leads_nowhere() -> None:
    address = srs.encode_one_way(BOB, "fwd.example", SECRETS, TODAY)
    assert await resolved(address, None) == ToNowhere(address)


@pytest.mark.parametrize("why", ["forged", "expired", "malformed"])
async def test_every_bad_reversible_address_hears_the_same(why: str) -> None:
    good = srs.encode(BOB, "fwd.example", SECRETS, TODAY).address
    bad = {
        "forged": replace(good, local=good.local.replace("=bob", "=rob")),
        "expired": srs.encode(BOB, "fwd.example", SECRETS, date(2026, 10, 1)).address,
        "malformed": replace(good, local="SRS0=x"),
    }[why]
    answer = await resolved(bad, None)
    assert isinstance(answer, Refuse)
    assert answer.reply == reply.BAD_REVERSIBLE


# --- decide ------------------------------------------------------------------------------------------------------------

CLEAN = Verdict(
    mailkey=MailkeyCheck(Result.NONE, "sender.example"),
    spf=SpfCheck(Result.PASS, "sender.example"),
    spf_helo=SpfCheck(Result.NONE),
    dkim=(),
    arc=ArcCheck(Result.NONE),
    dmarc=DmarcCheck(Result.NONE, "sender.example"),
    sender_verified_by="spf",
)
UNVERIFIED = replace(CLEAN, spf=SpfCheck(Result.NONE), sender_verified_by=None)
SPF_FAIL = replace(UNVERIFIED, spf=SpfCheck(Result.FAIL, "sender.example"))
SPF_TEMPERROR = replace(UNVERIFIED, spf=SpfCheck(Result.TEMPERROR, "sender.example"))
QUARANTINE = replace(CLEAN, dmarc=DmarcCheck(Result.FAIL, "sender.example", policy="reject", applied="quarantine"))
DMARC_FAIL = replace(CLEAN, dmarc=DmarcCheck(Result.FAIL, "sender.example", policy="reject", applied="reject"))


def mailkey(result: Result, policy: str | None) -> Verdict:
    return replace(CLEAN, mailkey=MailkeyCheck(result, "sender.example", policy=policy, reason="test"))


def replayed_under(policy: str | None) -> Verdict:
    """Its DKIM-Signature came along; the client is a stranger."""
    passed = MailkeyCheck(Result.PASS, "sender.example", "sender.example", policy=policy)
    dkim = (DkimCheck(Result.PASS, "sender.example"),)
    return replayed(replace(SPF_FAIL, mailkey=passed, dkim=dkim, sender_verified_by="mailkey"), BOB, "seen")


REPLAYED = replayed_under("all")


def decided(verdict: Verdict, policy: Policy | None = None, sender: Address | None = BOB) -> Forward | Keep | Refuse:
    envelope = Envelope("id", Peer(IPv4Address("192.0.2.1"), "h"), sender, (), datetime(2026, 11, 23, tzinfo=UTC))
    return decide(ToAlias(ALIAS, (DEST,), "fwd.example"), envelope, verdict, policy or Policy())


@pytest.mark.parametrize(
    ("verdict", "policy", "expected"),
    [
        pytest.param(CLEAN, Policy(), SenderForm.REVERSIBLE, id="verified"),
        pytest.param(UNVERIFIED, Policy(), SenderForm.ONE_WAY, id="nobody vouches"),
        pytest.param(UNVERIFIED, Policy(unauthenticated=Action.ACCEPT), SenderForm.ONE_WAY, id="accept is no way back"),
        pytest.param(UNVERIFIED, Policy(unauthenticated=Action.REJECT), "550 5.7.26", id="unauthenticated refused"),
        pytest.param(
            replace(UNVERIFIED, dkim=(DkimCheck(Result.PASS, "other.example"),)),
            Policy(unauthenticated=Action.REJECT),
            SenderForm.ONE_WAY,
            id="a foreign signature is authentication, not of the sender",
        ),
        pytest.param(mailkey(Result.FAIL, "all"), Policy(), "550 5.7.1", id="mailkey o=all"),
        pytest.param(mailkey(Result.PERMERROR, "all"), Policy(), "550 5.7.1", id="mailkey permerror o=all"),
        pytest.param(mailkey(Result.FAIL, "some"), Policy(), SenderForm.ONE_WAY, id="mailkey o=some"),
        pytest.param(mailkey(Result.PERMERROR, None), Policy(), SenderForm.ONE_WAY, id="mailkey record unreadable"),
        pytest.param(mailkey(Result.FAIL, "test"), Policy(), SenderForm.REVERSIBLE, id="mailkey o=test"),
        pytest.param(
            mailkey(Result.POLICY, "all"), Policy(), SenderForm.REVERSIBLE, id="mailkey replayed, spf vouches"
        ),
        pytest.param(REPLAYED, Policy(), "550 5.7.1", id="mailkey replayed, o=all"),
        pytest.param(replayed_under("some"), Policy(), SenderForm.ONE_WAY, id="mailkey replayed, o=some"),
        pytest.param(replayed_under(None), Policy(), SenderForm.ONE_WAY, id="mailkey replayed, a parent's"),
        pytest.param(
            replayed_under("test"), Policy(), SenderForm.REVERSIBLE, id="mailkey replayed, o=test changes nothing"
        ),
        pytest.param(mailkey(Result.TEMPERROR, None), Policy(), "451 4.7.5", id="mailkey temperror"),
        pytest.param(DMARC_FAIL, Policy(), "550 5.7.1", id="dmarc reject"),
        pytest.param(DMARC_FAIL, Policy(dmarc_reject=Action.TAG), SenderForm.REVERSIBLE, id="dmarc tag"),
        pytest.param(DMARC_FAIL, Policy(dmarc_reject=Action.ONE_WAY), SenderForm.ONE_WAY, id="dmarc one-way"),
        pytest.param(QUARANTINE, Policy(), SenderForm.REVERSIBLE, id="dmarc in test mode"),
        pytest.param(QUARANTINE, Policy(dmarc_quarantine=Action.REJECT), "550 5.7.1", id="dmarc quarantine refused"),
        pytest.param(QUARANTINE, Policy(dmarc_quarantine=Action.ONE_WAY), SenderForm.ONE_WAY, id="quarantine one-way"),
        pytest.param(SPF_FAIL, Policy(), SenderForm.ONE_WAY, id="spf fail is a mark"),
        pytest.param(SPF_FAIL, Policy(spf_fail=Action.REJECT), "550 5.7.23", id="spf fail refused"),
        pytest.param(
            replace(SPF_FAIL, dmarc=DmarcCheck(Result.PASS, "author.example")),
            Policy(spf_fail=Action.REJECT, unauthenticated=Action.REJECT),
            SenderForm.ONE_WAY,
            id="spf fail of what dmarc vouches for: the ordinary forward",
        ),
        pytest.param(
            replace(CLEAN, spf=SpfCheck(Result.FAIL), sender_verified_by="mailkey"),
            Policy(spf_fail=Action.REJECT),
            SenderForm.REVERSIBLE,
            id="spf fail of what a mailkey vouches for",
        ),
        pytest.param(SPF_TEMPERROR, Policy(), SenderForm.ONE_WAY, id="spf temperror that decides nothing"),
        pytest.param(SPF_TEMPERROR, Policy(spf_fail=Action.REJECT), "451 4.7.5", id="spf temperror that would decide"),
        pytest.param(
            SPF_TEMPERROR, Policy(unauthenticated=Action.REJECT), "451 4.7.5", id="nothing passed and one check is open"
        ),
        pytest.param(
            SPF_TEMPERROR,
            Policy(spf_fail=Action.REJECT, temperror=Action.TAG),
            SenderForm.ONE_WAY,
            id="temperrors are waived",
        ),
        pytest.param(
            replace(mailkey(Result.TEMPERROR, None), dmarc=DMARC_FAIL.dmarc),
            Policy(),
            "550 5.7.1",
            id="what refuses for good wins over what is not known yet",
        ),
        pytest.param(
            replace(CLEAN, dmarc=DmarcCheck(Result.TEMPERROR, policy="none", applied="none")),
            Policy(),
            SenderForm.REVERSIBLE,
            id="dmarc temperror under p=none decides nothing",
        ),
        pytest.param(replace(CLEAN, dmarc=DmarcCheck(Result.TEMPERROR)), Policy(), "451 4.7.5", id="dmarc temperror"),
        pytest.param(
            replace(CLEAN, dmarc=DmarcCheck(Result.TEMPERROR)),
            Policy(dmarc_reject=Action.TAG),
            SenderForm.REVERSIBLE,
            id="a temperror that decides nothing",
        ),
    ],
)
def test_what_a_verdict_means(verdict: Verdict, policy: Policy, expected: SenderForm | str) -> None:
    route = decided(verdict, policy)
    if isinstance(expected, str):
        assert isinstance(route, Refuse)
        assert str(route.reply).startswith(expected)
    else:
        assert isinstance(route, Forward)
        assert route.sender_form is expected


def test_the_null_sender_stays_null_whatever_is_found() -> None:
    route = decided(UNVERIFIED, sender=None)
    assert isinstance(route, Forward)
    assert route.sender_form is SenderForm.NULL


# --- From --------------------------------------------------------------------------------------------------------------


def passed(
    applied: str, signed_by: str | None = None, aligned_by: str = "spf:sender.example", policy: str = "reject"
) -> DmarcCheck:
    return DmarcCheck(
        Result.PASS, "sender.example", policy=policy, applied=applied, aligned_by=aligned_by, signed_by=signed_by
    )


NOTHING, LATER, KNOWN, NOW = FromRewrite.NEVER, FromRewrite.IF_REFUSED, FromRewrite.IF_KNOWN, FromRewrite.AT_ONCE


@pytest.mark.parametrize(
    ("check", "never", "auto", "always"),
    [
        pytest.param(passed("reject"), NOTHING, KNOWN, NOW, id="p=reject, SPF alone"),
        pytest.param(passed("reject", "sender.example"), NOTHING, LATER, NOW, id="p=reject, signed"),
        pytest.param(passed("quarantine"), NOTHING, NOW, NOW, id="p=quarantine, SPF alone"),
        pytest.param(passed("quarantine", "sender.example"), NOTHING, LATER, NOW, id="p=quarantine, signed"),
        pytest.param(passed("none"), NOTHING, NOTHING, NOW, id="p=none, or t=y"),
        pytest.param(passed("none", None, "arc:list.example"), NOTHING, KNOWN, NOW, id="restored, p=reject"),
        pytest.param(
            passed("none", None, "arc:list.example", "none"), NOTHING, NOTHING, NOW, id="restored, and needless"
        ),
        pytest.param(DmarcCheck(Result.NONE, "sender.example"), NOTHING, NOTHING, NOW, id="no policy"),
        pytest.param(DMARC_FAIL.dmarc, NOTHING, NOTHING, NOTHING, id="forged"),
        pytest.param(DmarcCheck(Result.TEMPERROR), NOTHING, NOTHING, NOTHING, id="maybe forged"),
        pytest.param(DmarcCheck(Result.PERMERROR), NOTHING, NOTHING, NOTHING, id="several authors"),
    ],
)
def test_when_from_is_rewritten(check: DmarcCheck, never: FromRewrite, auto: FromRewrite, always: FromRewrite) -> None:
    routes = [
        decided(replace(CLEAN, dmarc=check), Policy(Action.TAG, Action.TAG, from_rewrite=one)) for one in FromWish
    ]
    found = [one.from_rewrite if isinstance(one, Forward) else NOTHING for one in routes]
    assert found == [never, auto, always]
    assert all(isinstance(one, Refuse) or (isinstance(one, Forward) and one.from_reason) for one in routes)


# --- answers -----------------------------------------------------------------------------------------------------------


def answer_to(author: Address) -> srs.Encoded:
    return srs.encode_reply(author, "fwd.example", SECRETS, TODAY)


async def test_an_answer_leads_to_the_author() -> None:
    to = answer_to(BOB).address
    assert await resolved(to, DEST) == ToAlias(to, (BOB,), "fwd.example", answer=True)


async def test_an_answer_to_an_opaque_author_asks_the_store() -> None:
    encoded = answer_to(LONG)
    assert encoded.token is not None
    found = await resolved(encoded.address, DEST, Tokens({encoded.token: LONG}))
    assert found == ToAlias(encoded.address, (LONG,), "fwd.example", answer=True)
    for ledger, expected in ((Tokens(), "550 5.1.1"), (Tokens(away=True), "451 4.3.0")):
        refused = await resolved(encoded.address, DEST, ledger)
        assert isinstance(refused, Refuse)
        assert str(refused.reply).startswith(expected)


@pytest.mark.parametrize(
    ("local", "sender", "expected", "forged"),
    [
        pytest.param(answer_to(BOB).address.local + "x", DEST, "550 5.1.1", True, id="changed"),
        pytest.param("reply=guess", DEST, "550 5.1.1", True, id="guessed"),
        pytest.param(
            srs.encode_reply(BOB, "fwd.example", SECRETS, date(2026, 10, 1)).address.local,
            DEST,
            "550 5.1.1",
            False,
            id="expired",
        ),
        pytest.param(answer_to(BOB).address.local, None, "550 5.7.1", False, id="a report"),
    ],
)
async def test_what_leads_to_no_author(local: str, sender: Address | None, expected: str, *, forged: bool) -> None:
    refused = await resolved(Address(local, "fwd.example"), sender)
    assert isinstance(refused, Refuse)
    assert (str(refused.reply)[:9], refused.forged) == (expected, forged)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [(CLEAN, SenderForm.REVERSIBLE), (UNVERIFIED, None), (mailkey(Result.FAIL, "some"), None), (DMARC_FAIL, None)],
)
def test_only_a_verified_sender_answers(verdict: Verdict, expected: SenderForm | None) -> None:
    envelope = Envelope("id", Peer(IPv4Address("192.0.2.1"), "h"), DEST, (), datetime(2026, 11, 23, tzinfo=UTC))
    found = decide(ToAlias(answer_to(BOB).address, (BOB,), "fwd.example", answer=True), envelope, verdict, Policy())
    if expected is None:
        assert isinstance(found, Refuse)
    else:
        assert isinstance(found, Forward)
        assert (found.sender_form, found.from_rewrite) == (expected, FromRewrite.NEVER)
