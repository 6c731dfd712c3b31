"""docs/mailkey.md: every row of the table of results, and what a stranger may try."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.auth.canonical import body_hash, relaxed_body, relaxed_field
from forwarder.auth.mailkey import MailkeyRecord, build_mailkey_signature, parse_mailkey_record, verify_mailkey
from forwarder.auth.mailkey.record import MalformedRecord, NoRecord, evaluate_answer
from forwarder.auth.mailkey.verify import MAX_FIELDS
from forwarder.auth.signed import sign_now
from forwarder.auth.tags import parse_tags
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.model import Address, MailkeyCheck, Result
from forwarder.ports import Answer, DnsStatus, KeyHost, KeyText, NoKeyText, Resolver
from tests.auth.signers import NOW, AgingResolver, Signer, cpu_seconds, ed25519, ed25519_key, rsa, run
from tests.fakes import FakeResolver, Zone

SENDER = Address("bob", "sender.example")
RCPT = Address("alice", "fwd.example")
RAW = b"From: bob@sender.example\r\nTo: alice@fwd.example\r\nSubject: hello\r\n\r\nHi Alice.\r\n"
KEY = ed25519("sender.example", "")
NAMED = ed25519("sender.example", "k2611", number=1)
BIG = rsa("sender.example", "")


def zone(*signers: Signer, policy: str = "all") -> Zone:
    """The records of these keys; the policy stands in each, and counts where it should."""
    return {one.mailkey_name: {"TXT": [f"{one.mailkey_record}; o={policy}"]} for one in signers}


def sign(
    signer: Signer = KEY,
    *,
    raw: bytes = RAW,
    sender: Address | None = SENDER,
    recipients: Sequence[Address] = (),
    drop: str = "",
    more: Mapping[str, str] | None = None,
    **changes: str,
) -> bytes:
    """A Mailkey-Signature made by the text of the specification, not by the code under test."""
    message = parse_message(raw)
    path = f"<{sender}>" if sender else "<>"
    tags = {
        "v": "1",
        "a": signer.algorithm,
        "d": signer.domain,
        "s": signer.selector,
        "t": str(int(NOW.timestamp())),
        "x": str(int(NOW.timestamp()) + 7 * 86400),
        "mf": b64encode(path.encode()).decode(),
        "h": "from:from:to:to:subject:subject",
        "bh": b64encode(sha256(relaxed_body(message.body)).digest()).decode(),
    }
    tags |= changes | dict(more or {})
    if recipients:
        items = [sha256(f"{tags['t']}:{tags['bh']}:{one}".encode()).digest()[:16] for one in recipients]
        tags["rt"] = ",".join(b64encode(item).decode() for item in items)
    tags = {name: value for name, value in tags.items() if name not in drop.split() and (name != "s" or value)}
    unsigned = f"Mailkey-Signature: {'; '.join(f'{name}={value}' for name, value in tags.items())};\r\n b=".encode()
    covered = [one.raw for name in (b"from", b"to", b"subject") for one in message.all(name)]
    data = b"".join(map(relaxed_field, covered)) + relaxed_field(unsigned + b"\r\n")[:-2]
    return unsigned + b64encode(signer.sign(data)) + b"\r\n"


def verify(
    raw: bytes,
    resolver: Resolver | Zone,
    *,
    sender: Address | None = SENDER,
    helo: str = "mx.sender.example",
    recipients: Sequence[Address] = (RCPT,),
    seconds: float = 0,
    key_host: KeyHost | None = None,
) -> MailkeyCheck:
    return run(
        verify_mailkey(
            FakeResolver(resolver) if isinstance(resolver, Mapping) else resolver,
            parse_message(raw),
            sender=sender,
            helo=helo,
            recipients=recipients,
            now=NOW + timedelta(seconds=seconds),
            is_public_suffix=lambda domain: domain in ("example", "co.example"),
            key_host=key_host,
        )
    )


def found(check: MailkeyCheck) -> tuple[Result, str | None]:
    return check.result, check.reason


# --- pass -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signer", [KEY, NAMED, BIG], ids=["unnamed", "named", "rsa"])
@pytest.mark.parametrize("policy", ["all", "some", "test"])
def test_a_right_signature_passes_under_every_policy(signer: Signer, policy: str) -> None:
    records = {**zone(KEY, policy=policy), **zone(signer, policy=policy)}
    check = verify(sign(signer) + RAW, records)
    want = MailkeyCheck(Result.PASS, "sender.example", "sender.example", signer.selector or None, policy)
    assert replace(check, open=None) == want
    assert check.open is not None, "it has no rt="


def test_a_recipient_that_is_bound_passes() -> None:
    other = Address("carol", "fwd.example")
    check = verify(sign(recipients=[other, RCPT]) + RAW, zone(KEY))
    assert (check.result, check.bound) == (Result.PASS, True)


def test_the_policy_is_that_of_the_domain_not_of_the_named_key() -> None:
    records = {**zone(KEY, policy="some"), **zone(NAMED, policy="test")}
    assert verify(sign(NAMED) + RAW, records).policy == "some"


def test_the_null_sender_is_answered_for_by_the_ehlo_domain() -> None:
    signer = ed25519("mx.sender.example", "")
    check = verify(sign(signer, sender=None) + RAW, zone(signer), sender=None)
    assert (check.result, check.domain) == (Result.PASS, "mx.sender.example")


def test_a_parent_may_sign_for_its_subdomain() -> None:
    sender = Address("bob", "news.sender.example")
    own = ed25519("news.sender.example", "", number=2)
    check = verify(sign(sender=sender) + RAW, {**zone(own, policy="some"), **zone(KEY)}, sender=sender)
    assert (check.result, check.domain, check.signer, check.policy) == (
        Result.PASS,
        "news.sender.example",
        "sender.example",
        "some",
    )


def test_a_parent_may_sign_for_a_subdomain_without_a_record() -> None:
    sender = Address("bob", "news.sender.example")
    check = verify(sign(sender=sender) + RAW, zone(KEY), sender=sender)
    assert (check.result, check.signer, check.policy) == (Result.PASS, "sender.example", None)


def test_an_internationalized_sender_is_bound_in_a_labels() -> None:
    signer = Signer("xn--bcher-kva.example", "", ed25519_key())
    sender = Address("jürgen", "bücher.example")
    field = sign(signer, sender=Address("jürgen", "xn--bcher-kva.example"))
    check = verify(field + RAW, zone(signer), sender=sender)
    assert (check.result, check.domain) == (Result.PASS, "xn--bcher-kva.example")


def test_history_of_earlier_hops_is_skipped() -> None:
    earlier = ed25519("first.example", "", number=3)
    resolver = FakeResolver(zone(KEY))
    check = verify(sign() + sign(earlier, sender=Address("x", "first.example")) + RAW, resolver)
    assert check.result is Result.PASS
    assert resolver.queries == [("mailkey.sender.example", "TXT")]


def test_malformed_history_is_skipped_too() -> None:
    assert verify(sign() + b"Mailkey-Signature: d=first.example; v=9\r\n" + RAW, zone(KEY)).result is Result.PASS
    assert verify(b"Mailkey-Signature: d=first.example; v=9\r\n" + RAW, zone(KEY, policy="some")).result is Result.NONE


def test_one_good_signature_among_bad_ones_is_enough() -> None:
    raw = sign(t="1") + sign(ed25519("sender.example", "", number=9)) + b"Mailkey-Signature: ?\r\n" + sign() + RAW
    assert verify(raw, zone(KEY)).result is Result.PASS


# --- none -------------------------------------------------------------------------------------------------------------


def test_no_record_is_none_and_was_asked_for_although_nothing_is_signed() -> None:
    resolver = FakeResolver()
    assert verify(RAW, resolver) == MailkeyCheck(Result.NONE, "sender.example", reason="no mailkey record")
    assert resolver.queries == [("mailkey.sender.example", "TXT")]


def test_a_signature_without_a_record_is_none_and_asks_for_no_key() -> None:
    resolver = FakeResolver(zone(NAMED))
    assert verify(sign(NAMED) + RAW, resolver).result is Result.NONE
    assert resolver.queries == [("mailkey.sender.example", "TXT")]


@pytest.mark.parametrize(
    "text",
    ["v=spf1 -all", "v=mailkey2; p=", "V=mailkey1; p=", "v=mailkey1x; p=", "k=rsa; v=mailkey1; p=", "", "mailkey1"],
)
def test_what_does_not_begin_as_a_mailkey_is_none(text: str) -> None:
    """A wildcard TXT record does no harm."""
    assert verify(RAW, {"mailkey.sender.example": {"TXT": [text]}}).result is Result.NONE


@pytest.mark.parametrize("policy", ["some", "test"])
def test_unsigned_is_none_where_not_all_is_signed(policy: str) -> None:
    check = verify(RAW, zone(KEY, policy=policy))
    assert check == MailkeyCheck(Result.NONE, "sender.example", policy=policy, reason="not signed")


@pytest.mark.parametrize("helo", ["[192.0.2.1]", "", "not a\tname", "a" * 300])
def test_a_greeting_that_is_no_domain_has_no_mailkey(helo: str) -> None:
    resolver = FakeResolver()
    check = verify(RAW, resolver, sender=None, helo=helo)
    assert found(check) == (Result.NONE, "no domain that could have a mailkey")
    assert resolver.queries == []


@pytest.mark.parametrize("domain", ["[192.0.2.1]", "[IPv6:2001:db8::1]", "\u2024.example", "", "a..b"])
def test_a_sender_without_a_domain_name_has_no_mailkey(domain: str) -> None:
    assert verify(RAW, FakeResolver(), sender=Address("a", domain)).result is Result.NONE


def test_a_recipient_without_a_domain_name_is_not_bound() -> None:
    check = verify(sign(recipients=[RCPT]) + RAW, zone(KEY), recipients=[Address("a", "\u2024.example")])
    assert check.bound is False


def test_a_bad_signature_of_a_parent_says_nothing_of_a_domain_that_asks_for_none() -> None:
    sender = Address("bob", "news.sender.example")
    check = verify(sign(sender=sender) + RAW + b"more\r\n", zone(KEY), sender=sender)
    assert found(check) == (Result.NONE, "no mailkey record; body hash does not match")


def test_a_key_at_an_https_key_host_alone_is_none_for_what_is_signed() -> None:
    records = {"mailkey.sender.example": {"TXT": ["v=mailkey1; u=https; o=all"]}}
    assert found(verify(sign() + RAW, records)) == (Result.NONE, "the key is at the https key host alone")
    assert found(verify(RAW, records)) == (Result.FAIL, "not signed")


# --- the key host over HTTPS ------------------------------------------------------------------------------------------

AT_KEY_HOST = {"mailkey.sender.example": {"TXT": ["v=mailkey1; u=https; o=all"]}}


class FakeKeyHost:
    """``texts``: what the first request gives, and what each later one."""

    def __init__(self, *texts: KeyText | NoKeyText) -> None:
        self.texts = list(texts)
        self.asked: list[tuple[str, str | None, bool]] = []

    async def fetch(self, domain: str, selector: str | None, *, fresh: bool = False) -> KeyText | NoKeyText:
        self.asked.append((domain, selector, fresh))
        return self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]


def test_a_key_at_the_key_host_verifies_under_the_policy_of_the_txt_record() -> None:
    host = FakeKeyHost(KeyText(f"{KEY.mailkey_record}; o=test\r\n".encode()))
    check = verify(sign() + RAW, AT_KEY_HOST, key_host=host)
    assert (check.result, check.policy) == (Result.PASS, "all")
    assert host.asked == [("sender.example", None, False)]


def test_a_named_key_is_at_the_key_host_where_the_record_at_its_own_name_says_so() -> None:
    host = FakeKeyHost(KeyText(NAMED.mailkey_record.encode()))
    records = {**zone(KEY), NAMED.mailkey_name: {"TXT": ["v=mailkey1; u=https"]}}
    assert verify(sign(NAMED) + RAW, records, key_host=host).result is Result.PASS
    assert host.asked == [("sender.example", "k2611", False)]
    assert found(verify(sign(NAMED) + RAW, AT_KEY_HOST, key_host=host)) == (Result.PERMERROR, "unknown key")


@pytest.mark.parametrize("record", [f"{KEY.mailkey_record}", f"{KEY.mailkey_record}; u=https", "v=mailkey1; p="])
def test_a_txt_record_with_a_key_is_enough(record: str) -> None:
    host = FakeKeyHost(NoKeyText("not to be asked", temporary=True))
    verify(sign() + RAW, {"mailkey.sender.example": {"TXT": [record]}}, key_host=host)
    assert not host.asked


@pytest.mark.parametrize("raw", [RAW, sign() + RAW + b"more\r\n", sign(mf="PD4=") + RAW])
def test_no_key_host_is_asked_where_no_key_is_needed(raw: bytes) -> None:
    host = FakeKeyHost(NoKeyText("not to be asked", temporary=True))
    assert verify(raw, AT_KEY_HOST, key_host=host).result is Result.FAIL
    assert not host.asked


@pytest.mark.parametrize(
    ("text", "result", "reason"),
    [
        (NoKeyText("key host: status 503", temporary=True), Result.TEMPERROR, "key host: status 503"),
        (NoKeyText("key host: no such key (404)", temporary=False), Result.PERMERROR, "key host: no such key (404)"),
        (KeyText(b"<html>"), Result.PERMERROR, "mailkey record: the key host serves something else"),
        (KeyText(b""), Result.PERMERROR, "mailkey record: the key host serves something else"),
        (KeyText(b"v=mailkey1; u=https"), Result.PERMERROR, "mailkey record: p= is missing"),
        (KeyText(b"v=mailkey1; p="), Result.PERMERROR, "mailkey revoked"),
        (KeyText(BIG.mailkey_record.encode()), Result.PERMERROR, "the key is not for this algorithm"),
        (KeyText(NAMED.mailkey_record.encode()), Result.FAIL, "signature does not match"),
        (KeyText(b"v=mailkey1; p=AAAA\r\nv=mailkey1; p=AAAA"), Result.PERMERROR, None),
    ],
)
def test_what_the_key_host_says_decides_as_a_txt_record_would(
    text: KeyText | NoKeyText, result: Result, reason: str | None
) -> None:
    check = verify(sign() + RAW, AT_KEY_HOST, key_host=FakeKeyHost(text))
    assert check.result is result
    assert reason is None or check.reason == reason


def test_an_old_text_is_asked_for_once_more_before_a_signature_fails() -> None:
    old = KeyText(NAMED.mailkey_record.encode(), age=61)
    host = FakeKeyHost(old, KeyText(KEY.mailkey_record.encode()))
    assert verify(sign() + RAW, AT_KEY_HOST, key_host=host).result is Result.PASS
    assert [fresh for _, _, fresh in host.asked] == [False, True]
    host = FakeKeyHost(old)
    assert verify(sign() + RAW, AT_KEY_HOST, key_host=host).result is Result.FAIL
    assert len(host.asked) == 2


# --- fail -------------------------------------------------------------------------------------------------------------


def test_unsigned_fails_where_all_is_signed() -> None:
    check = verify(RAW, zone(KEY))
    assert check == MailkeyCheck(Result.FAIL, "sender.example", policy="all", reason="not signed")


@pytest.mark.parametrize("policy", ["all", "some", "test"])
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (sign() + RAW + b"more\r\n", "body hash does not match"),
        (sign() + RAW.replace(b"hello", b"HELLO"), "signature does not match"),
        (sign() + b"Subject: two\r\n" + RAW, "signature does not match"),
        (sign(ed25519("sender.example", "", number=9)) + RAW, "signature does not match"),
        (sign(sender=Address("mallory", "sender.example")) + RAW, "signed for another MAIL FROM"),
        (sign(sender=Address("Bob", "sender.example")) + RAW, "signed for another MAIL FROM"),
        (sign(sender=Address('"bob"', "sender.example")) + RAW, "signed for another MAIL FROM"),
        (sign(sender=None) + RAW, "signed for another MAIL FROM"),
    ],
)
def test_a_wrong_signature_fails_under_every_policy(raw: bytes, reason: str, policy: str) -> None:
    check = verify(raw, zone(KEY, policy=policy))
    assert (*found(check), check.policy) == (Result.FAIL, reason, policy)


DAY = 86400


@pytest.mark.parametrize(
    ("seconds", "result", "reason"),
    [
        (7 * DAY + 300, Result.PASS, None),
        (7 * DAY + 301, Result.FAIL, "mailkey signature expired"),
        (-DAY, Result.PASS, None),
        (-DAY - 1, Result.FAIL, "mailkey signature from the future"),
    ],
)
def test_a_signature_has_its_time(seconds: int, result: Result, reason: str | None) -> None:
    assert found(verify(sign() + RAW, zone(KEY), seconds=seconds)) == (result, reason)


@pytest.mark.parametrize(("policy", "result"), [("all", Result.FAIL), ("some", Result.NONE), ("test", Result.NONE)])
def test_a_recipient_that_is_not_bound_was_not_sent_to_by_the_signer(policy: str, result: Result) -> None:
    replayed = Address("victim", "other.example")
    check = verify(sign(recipients=[RCPT]) + RAW, zone(KEY, policy=policy), recipients=[RCPT, replayed])
    assert (*found(check), check.bound) == (result, "not signed for this recipient", False)


def test_a_public_suffix_is_no_parent() -> None:
    suffix = ed25519("co.example", "")
    sender = Address("bob", "sender.co.example")
    own = ed25519("sender.co.example", "", number=2)
    assert found(verify(sign(suffix, sender=sender) + RAW, zone(suffix, own), sender=sender)) == (
        Result.FAIL,
        "not signed",
    )


def test_a_child_or_a_neighbour_is_no_parent() -> None:
    for domain in ("mail.sender.example", "xsender.example", "ender.example"):
        signer = ed25519(domain, "")
        assert found(verify(sign(signer) + RAW, zone(KEY, signer))) == (Result.FAIL, "not signed")


# --- permerror --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (sign(v="2"), "v= is not 1"),
        (sign(drop="v"), "v= is missing"),
        (sign(a="rsa-sha1"), "unknown a="),
        (sign(drop="d"), "d= is missing"),
        (sign(s="two.labels"), "s= is not one label"),
        (sign(drop="mf"), "mf= is missing"),
        (sign(mf="?"), "mf= is no base64"),
        (sign(drop="t"), "t= is missing"),
        (sign(drop="x"), "x= is missing"),
        (sign(t="now"), "t= is no number"),
        (sign(x="0"), "x= is not within 14 days after t="),
        (sign(x=str(int(NOW.timestamp()) + 14 * DAY + 1)), "x= is not within 14 days after t="),
        (sign(drop="h"), "h= is missing"),
        (sign(h="to:subject"), "h= does not name From"),
        (sign(drop="bh"), "bh= is missing"),
        (sign(c="relaxed/relaxed"), "c= does not exist in a mailkey"),
        (sign(l="3"), "l= does not exist in a mailkey"),
        (sign(i="@sender.example"), "i= does not exist in a mailkey"),
        (sign(q="dns/txt"), "q= does not exist in a mailkey"),
        (sign(rt=""), "rt= is empty"),
        (sign(rt="AAAA"), "rt= is no list of 16 octets each"),
        (sign(rt="?"), "rt= is no list of 16 octets each"),
        (sign().replace(b"v=1", b"v=1; v=1"), "v= twice"),
        (b"Mailkey-Signature: nonsense\r\n", "a malformed tag"),
    ],
)
def test_a_malformed_field_is_a_permerror(field: bytes, reason: str) -> None:
    assert found(verify(field + RAW, zone(KEY, policy="some"))) == (Result.PERMERROR, reason)


@pytest.mark.parametrize(
    ("text", "policy", "reason"),
    [
        ("v=mailkey1", "all", "mailkey record: p= is missing"),
        ("v=mailkey1; o=some", "some", "mailkey record: p= is missing"),
        ("v=mailkey1; o=test; p=***", "test", "mailkey record: p= is no base64"),
        (f"v=mailkey1; o=maybe; p={KEY.public}", "all", "mailkey record: unknown o="),
        (f"v=mailkey1; o=test; o=some; p={KEY.public}", "some", "mailkey record: o= twice"),
        (f"v=mailkey1; p={KEY.public}; nonsense", "all", "mailkey record: a malformed tag"),
        ("v=mailkey1; p=" + "A" * 9000, "all", "mailkey record too large"),
    ],
)
def test_a_malformed_record_is_a_permerror_with_the_policy_that_can_be_read(
    text: str, policy: str, reason: str
) -> None:
    check = verify(sign() + RAW, {"mailkey.sender.example": {"TXT": [text]}})
    assert (*found(check), check.policy) == (Result.PERMERROR, reason, policy)


def test_several_records_are_a_permerror_in_any_order() -> None:
    texts = [f"{KEY.mailkey_record}; o=test", f"{NAMED.mailkey_record}; o=some"]
    for records in (texts, texts[::-1]):
        check = verify(sign() + RAW, {"mailkey.sender.example": {"TXT": ["v=spf1 -all", *records]}})
        assert (*found(check), check.policy) == (Result.PERMERROR, "several mailkey records", "some")


def test_the_same_record_twice_is_one() -> None:
    records: Zone = {"mailkey.sender.example": {"TXT": [KEY.mailkey_record, KEY.mailkey_record]}}
    assert verify(sign() + RAW, records).result is Result.PASS


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("v=mailkey1; p=", "mailkey revoked"),
        (f"v=mailkey1; k=rsa; p={rsa(bits=1024).public}", "RSA key of 1024 bits, 2048 to 4096 are taken"),
        (f"v=mailkey1; k=dsa; p={KEY.public}", "unknown k="),
        ("v=mailkey1; p=" + b64encode(bytes(32)).decode(), "ed25519 key is a point of small order"),
        (f"v=mailkey1; k=rsa; p={BIG.public}", "the key is not for this algorithm"),
    ],
)
def test_a_key_that_cannot_be_used_is_a_permerror(text: str, reason: str) -> None:
    check = verify(sign() + RAW, {"mailkey.sender.example": {"TXT": [text]}})
    assert (*found(check), check.policy) == (Result.PERMERROR, reason, "all")


def test_a_revoked_unnamed_key_does_not_hinder_a_named_one() -> None:
    records: Zone = {"mailkey.sender.example": {"TXT": ["v=mailkey1; p="]}, **zone(NAMED)}
    assert verify(sign(NAMED) + RAW, records).result is Result.PASS


def test_a_name_without_a_key_is_a_permerror() -> None:
    assert found(verify(sign(NAMED) + RAW, zone(KEY))) == (Result.PERMERROR, "unknown key")


# --- temperror --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [RAW, sign() + RAW], ids=["unsigned", "signed"])
@pytest.mark.parametrize("fault", ["SERVFAIL", "TIMEOUT"])
def test_a_dns_that_does_not_answer_is_never_none(raw: bytes, fault: str) -> None:
    assert verify(raw, {"mailkey.sender.example": {"TXT": fault}}).result is Result.TEMPERROR


def test_nor_is_one_that_does_not_answer_for_a_named_key() -> None:
    records: Zone = {**zone(KEY, policy="some"), NAMED.mailkey_name: {"TXT": "SERVFAIL"}}
    assert verify(sign(t="1") + sign(NAMED) + RAW, records).result is Result.TEMPERROR
    assert verify(sign(NAMED) + sign() + RAW, records).result is Result.PASS


# --- limits -----------------------------------------------------------------------------------------------------------


def test_five_fields_are_looked_at() -> None:
    noise = sign(sender=Address("x", "sender.example"))
    assert verify(noise * (MAX_FIELDS - 1) + sign() + RAW, zone(KEY)).result is Result.PASS
    assert verify(noise * MAX_FIELDS + sign() + RAW, zone(KEY)).result is Result.FAIL


def test_two_keys_are_fetched() -> None:
    signers = [ed25519("sender.example", f"k{number}", number=number) for number in range(3)]
    resolver = FakeResolver({**zone(KEY), **zone(signers[2])})
    check = verify(b"".join(map(sign, signers)) + RAW, resolver)
    assert found(check) == (Result.PERMERROR, "unknown key")
    assert len(resolver.queries) == 3


def test_a_key_that_is_known_is_used_however_many_others_are_named_above() -> None:
    signers = [ed25519("sender.example", f"k{number}", number=number) for number in range(3)]
    resolver = FakeResolver(zone(KEY))
    assert verify(b"".join(map(sign, signers)) + sign() + RAW, resolver).result is Result.PASS
    assert len(resolver.queries) == 3


def test_hostile_fields_are_bounded() -> None:
    fields = sign(recipients=[Address(f"r{number}", "fwd.example") for number in range(5000)])
    fields += sign(more={f"x{number}": "y" for number in range(5000)})
    raw = fields + b"".join(sign(KEY) for _ in range(100)) + RAW + b"\r\n" * 200_000
    check, seconds = cpu_seconds(
        verify_mailkey(
            FakeResolver(zone(KEY)),
            parse_message(raw),
            sender=SENDER,
            helo="x",
            recipients=[Address(f"r{number}", "fwd.example") for number in range(1000)],
            now=NOW,
            is_public_suffix=lambda domain: False,
        )
    )
    assert check.result is Result.PASS
    assert seconds < 0.25


def test_a_replaced_key_is_found_by_a_fresh_look_up_with_its_policy() -> None:
    resolver = AgingResolver(zone(ed25519("sender.example", "", number=9)), zone(KEY, policy="some"), age=61)
    check = verify(sign() + RAW, resolver)
    assert (check.result, check.policy) == (Result.PASS, "some")
    assert resolver.fresh_queries == ["mailkey.sender.example"]


def test_an_old_record_that_is_still_there_is_asked_for_once() -> None:
    resolver = AgingResolver(zone(KEY), zone(KEY), age=61)
    forged = sign(ed25519("sender.example", "", number=9))
    assert verify(forged * 3 + RAW, resolver).result is Result.FAIL
    assert resolver.fresh_queries == ["mailkey.sender.example"]


def test_unsigned_mail_costs_no_fresh_look_up() -> None:
    resolver = AgingResolver(zone(KEY), {}, age=3600)
    assert verify(RAW, resolver).result is Result.FAIL
    assert resolver.fresh_queries == []


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_message_never_raises_and_never_passes_with_other_text(data: st.DataObject) -> None:
    damaged = bytearray(sign(recipients=[RCPT]) + RAW)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        message = parse_message(bytes(damaged))
    except MalformedMessage:
        return
    check = verify(bytes(damaged), zone(KEY))
    if check.result is Result.PASS:
        assert relaxed_body(message.body) == relaxed_body(parse_message(RAW).body)


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "policy", "kind"),
    [
        (f"v=mailkey1; p={KEY.public}", "all", "ed25519"),
        (f"v=mailkey1;k=ed25519;p={KEY.public};o=all", "all", "ed25519"),
        (f" v = mailkey1 ; o = some; n=hello there; k=rsa; p={BIG.public};", "some", "rsa"),
        (f"v=mailkey1; o=test; u=https; p={KEY.public}; later=1", "test", "ed25519"),
    ],
)
def test_a_record_gives_its_key_and_policy(text: str, policy: str, kind: str) -> None:
    record = parse_mailkey_record(text.encode())
    assert isinstance(record, MailkeyRecord)
    assert (record.policy, record.kind, record.problem) == (policy, kind, None)
    assert record.key is not None


@given(st.binary(max_size=100))
def test_octets_give_a_record_or_a_reason(text: bytes) -> None:
    record = parse_mailkey_record(b"v=mailkey1;" + text)
    assert record is not None
    if isinstance(record, MalformedRecord):
        assert record.reason.isprintable()
        assert record.policy in ("all", "some", "test")


def test_answers_without_a_mailkey() -> None:
    assert evaluate_answer(Answer(DnsStatus.NXDOMAIN)) == NoRecord()
    assert evaluate_answer(Answer(DnsStatus.NODATA)) == NoRecord()
    assert evaluate_answer(Answer(DnsStatus.OK, (b"v=spf1 -all",))) == NoRecord()
    assert evaluate_answer(Answer(DnsStatus.TEMPERROR)) == NoRecord(temporary=True)


# --- signing ----------------------------------------------------------------------------------------------------------


def build(
    signer: Signer, raw: bytes = RAW, sender: Address | None = SENDER, recipients: Sequence[Address] = (RCPT,)
) -> bytes:
    message = parse_message(raw)
    return sign_now(
        build_mailkey_signature(
            message.fields, body_hash(message, "relaxed"), signer, sender=sender, recipients=recipients, now=NOW
        )
    )


@pytest.mark.parametrize("signer", [KEY, NAMED, BIG], ids=["unnamed", "named", "rsa"])
@pytest.mark.parametrize(
    ("sender", "recipients"),
    [
        (SENDER, [RCPT]),
        (SENDER, []),
        (SENDER, [Address(f"r{number}", "fwd.example") for number in range(100)]),
        (Address("SRS0=" + "x" * 59, "sender.example"), [RCPT]),
        (Address('"a b"', "sender.example"), [Address("ü", "bücher.example")]),
        (None, [RCPT]),
    ],
)
def test_what_we_sign_verifies(signer: Signer, sender: Address | None, recipients: list[Address]) -> None:
    field = build(signer, sender=sender, recipients=recipients)
    check = verify(
        field + RAW,
        {**zone(KEY), **zone(signer)},
        sender=sender,
        helo="sender.example",
        recipients=recipients or [RCPT],
    )
    assert (check.result, check.bound) == (Result.PASS, True if recipients else None)


def test_the_tags_are_those_of_the_specification() -> None:
    tags = parse_tags(build(NAMED)[len("Mailkey-Signature:") :])
    assert list(tags) == [b"v", b"a", b"d", b"s", b"t", b"x", b"mf", b"rt", b"h", b"bh", b"b"]
    assert b64decode(tags[b"mf"]) == b"<bob@sender.example>"
    assert int(tags[b"x"]) - int(tags[b"t"]) == 7 * DAY
    assert b"s" not in parse_tags(build(KEY)[len("Mailkey-Signature:") :])
    binding = sha256(tags[b"t"] + b":" + tags[b"bh"] + b":alice@fwd.example").digest()[:16]
    assert b64decode(tags[b"rt"]) == binding


def test_the_null_sender_is_bound_as_such() -> None:
    assert b64decode(parse_tags(build(KEY, sender=None)[len("Mailkey-Signature:") :])[b"mf"]) == b"<>"


def test_without_recipients_there_is_no_rt() -> None:
    assert b"rt" not in parse_tags(build(KEY, recipients=())[len("Mailkey-Signature:") :])


def test_lines_are_short_and_folded_where_nothing_is_cut() -> None:
    field = build(
        BIG, sender=Address("x" * 64, "sender.example"), recipients=[Address(f"r{n}", "b.example") for n in range(9)]
    )
    assert all(len(line) <= 78 for line in field.split(b"\r\n"))
    assert not re.search(rb"\r\n(?![ \t])", field[:-2])


@pytest.mark.parametrize("name", ["From", "To", "Cc", "Subject", "Date", "Reply-To", "Content-Type"])
def test_nobody_can_put_one_more_of_these_on_top(name: str) -> None:
    raw = f"{name}: added\r\n".encode() + build(KEY) + RAW
    assert found(verify(raw, zone(KEY))) == (Result.FAIL, "signature does not match")


def test_a_chain_of_forwarders_verifies_hop_by_hop() -> None:
    """Each signs over its own sender and leaves the signatures below alone."""
    hops = [Signer(f"hop{number}.example", "", ed25519_key(number)) for number in range(3)]
    raw = RAW
    for hop in hops:
        sender = Address("SRS0=x", hop.domain)
        raw = build(hop, raw, sender) + b"Received: by " + hop.domain.encode() + b"; now\r\n" + raw
        check = verify(raw, zone(*hops), sender=sender)
        assert (check.result, check.signer) == (Result.PASS, hop.domain)
