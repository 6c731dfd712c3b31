"""From is rewritten when, and only when, it is needed: through the running service, with dkimpy and our own DMARC as readers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import dkim
import pytest
from aiosmtpd.smtp import SMTP, Session
from aiosmtpd.smtp import Envelope as SmtpEnvelope

from forwarder.app import make_resolver
from forwarder.auth.verify import verify
from forwarder.cli.demo_lab import SENDER, SINK, Received, Receiver
from forwarder.config import load
from forwarder.mail.address import parse_from
from forwarder.mail.header import parse_message
from forwarder.model import Address, Envelope, Message, Peer, Recipient, Result, Verdict
from forwarder.ports import Resolver
from forwarder.store.client import StoreClient
from tests.e2e.lab import MESSAGE, Lab, lab, store_of
from tests.e2e.signing import signed
from tests.e2e.test_store_away import until_250
from tests.peers.smtp_sink import DEFAULT, SmtpSink
from tests.waiting import HASTY

#: As Gmail words it, with the codes on each line.
GMAIL = (
    "550-5.7.26 Unauthenticated email from sender.test is not accepted due to domain's\r\n"
    "550-5.7.26 DMARC policy. Please contact the administrator of sender.test domain\r\n"
    "550 5.7.26 if this was a legitimate mail. abc123-20020a17 - gsmtp"
)
QUARANTINE = {"_dmarc.sender.test": {"TXT": ["v=DMARC1; p=quarantine"]}}
NO_POLICY = {"_dmarc.sender.test": {"TXT": ["v=DMARC1; p=none"]}}


def refuse_senders_from(
    it: Lab, answer: str = GMAIL, *, refuses: Callable[[Message], bool] | None = None
) -> list[bytes]:
    """From now on the sink refuses what is from sender.test. Returns what it has refused, as it comes."""
    take, refused = Receiver.handle_DATA, list[bytes]()
    wanted = refuses or (lambda message: author_of(message).domain == "sender.test")

    async def handle_data(server: SMTP, session: Session, envelope: SmtpEnvelope) -> str:
        content = envelope.content or b""
        assert isinstance(content, bytes)
        if wanted(parse_message(content)):
            refused.append(content)
            return answer
        return await take(it.sink, server, session, envelope)

    it.sink.handle_DATA = handle_data  # type: ignore[method-assign]
    return refused


def author_of(message: Message) -> Address:
    author = parse_from(message).author
    assert author is not None
    return author


def numbered(number: int) -> bytes:
    return MESSAGE.replace(b"<one@", b"<%d@" % number)


def at_risk(it: Lab, raw: bytes = MESSAGE) -> bytes:
    """Its sender is beyond doubt here, and its author at the next hop is not: no DKIM."""
    mailkey, now = it.keys.mailkey("sender.test"), it.app.clock.now()
    return signed(raw, "bob@sender.test", ("alias@fwd.test",), mailkey=mailkey, dkim=(), now=now)


async def verdict_at_sink(it: Lab, arrived: Received) -> Verdict:
    """What the destination finds."""
    resolver = make_resolver(load(it.folder / "forwarder.toml"))
    try:
        return await _verdict(it, arrived, resolver)
    finally:
        await resolver.aclose()


async def _verdict(it: Lab, arrived: Received, resolver: Resolver) -> Verdict:
    message = parse_message(arrived.data)
    local, _, domain = arrived.sender.rpartition("@")
    return await verify(
        resolver,
        Envelope(
            id="at-sink",
            peer=Peer(ip_address(arrived.ip), arrived.helo),
            sender=Address(local, domain),
            recipients=(Recipient(Address(*arrived.recipients[0].rsplit("@", 1))),),
            received_at=it.app.clock.now(),
        ),
        message,
        parse_from(message),
        receiver="mx.sink.test",
        now=it.app.clock.now(),
    )


async def test_what_is_refused_for_dmarc_is_taken_at_the_second_try_in_the_same_session(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        refused = refuse_senders_from(it)
        assert (await it.send(at_risk(it))).startswith("250 2.0.0 delivered")
        arrived = await it.next(it.sink)
        assert len(refused) == 1
        message = parse_message(arrived.data)
        author = author_of(message)
        assert author.domain == "fwd.test"
        assert message.all(b"from")[0].raw.startswith(b'From: "Bob via alias"\r\n <reply=')
        assert message.all(b"x-original-from")[0].raw == b"X-Original-From: Bob <bob@sender.test>\r\n"
        assert message.all(b"reply-to")[0].raw == b"Reply-To: Bob <bob@sender.test>\r\n"
        assert message.body == parse_message(MESSAGE).body
        (event,) = it.events("from.rewritten")
        assert (event["reason"], event["next_hop"]) == ("refused now", "sink.test")


async def test_the_next_message_goes_with_another_from_at_once(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        refused, first = refuse_senders_from(it), 0
        while not it.events("from.refused"):  # a store on a busy machine may be away for a moment
            first += 1
            assert (await it.send(at_risk(it, numbered(first)))).startswith("250")
            assert author_of(parse_message((await it.next(it.sink)).data)).domain == "fwd.test"
        assert len(refused) == first
        assert (await it.send(at_risk(it, numbered(first + 1)))).startswith("250")
        assert author_of(parse_message((await it.next(it.sink)).data)).domain == "fwd.test"
        assert len(refused) == first
        assert [one["reason"] for one in it.events("from.rewritten")] == [*["refused now"] * first, "refused before"]
        (told,) = it.events("from.refused")
        assert (told["author_domain"], told["provider"]) == ("sender.test", "sink.test")


async def test_nobody_says_in_the_name_of_another_provider_what_it_refuses(tmp_path: Path) -> None:
    """Whose domain names a large provider's host first and its own behind it speaks for itself."""
    zone = {
        "evil.test": {"MX": ["5 mx.victim.test.", "10 mx.evil.test."]},
        "mx.victim.test": {"A": ["127.0.0.66"]},
        "mx.evil.test": {"A": ["127.0.0.51"]},
    }
    async with (
        lab(tmp_path, zone=zone, aliases='held = ["anybody@evil.test"]') as it,
        SmtpSink({"DOT": [GMAIL.encode() + b"\r\n", DEFAULT]}, host="127.0.0.51", port=it.port) as evil,
    ):
        mailkey, now = it.keys.mailkey("sender.test"), it.app.clock.now()
        raw = signed(MESSAGE, "bob@sender.test", ("held@fwd.test",), mailkey=mailkey, dkim=(), now=now)
        assert (await it.send(raw, recipient="held@fwd.test")).startswith("250")
        assert len(evil.messages) == 1
        assert it.events("from.rewritten")
        assert it.events("from.refused") == []


async def test_what_was_rewritten_passes_as_ours(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        refuse_senders_from(it)
        assert (await it.send(at_risk(it))).startswith("250")
        arrived = await it.next(it.sink)
        texts = {f"{name}.": "".join(types.get("TXT", [])).encode() for name, types in it.records.items()}
        checker = dkim.DKIM(arrived.data)
        assert checker.verify(dnsfunc=lambda name, timeout=5: texts.get(name.decode()))
        assert (checker.domain, b"from" in [one.lower() for one in checker.include_headers or ()]) == (
            b"fwd.test",
            True,
        )
        found = await verdict_at_sink(it, arrived)
        assert (found.dmarc.result, found.dmarc.domain, found.dmarc.signed_by) == (Result.PASS, "fwd.test", "fwd.test")
        assert (found.arc.result, found.arc.sets) == (Result.PASS, 1)
        assert found.mailkey.result is Result.PASS
        assert found.mailkey.bound


async def test_our_trace_stays_as_it_was(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        refused = refuse_senders_from(it)
        assert (await it.send(at_risk(it))).startswith("250")
        first, second = parse_message(refused[0]), parse_message((await it.next(it.sink)).data)
        for name in (b"authentication-results", b"delivered-to", b"received", b"subject", b"date", b"message-id"):
            assert first.all(name) == second.all(name)
        assert [one.name for one in first.fields if one.name != b"from"] == [
            one.name for one in second.fields if one.name not in (b"from", b"x-original-from", b"reply-to")
        ]


async def test_a_refusal_that_another_from_does_not_change_is_the_answer_and_not_remembered(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        refused = refuse_senders_from(it, refuses=lambda _: True)
        assert (await it.send(at_risk(it))).startswith("550 5.7.26")
        assert [author_of(parse_message(one)).domain for one in refused] == ["sender.test", "fwd.test"]
        assert it.events("from.refused") == []


@pytest.mark.parametrize(
    "answer", ["550 5.1.1 user unknown", "550 5.7.1 spam", "451 4.7.26 unauthenticated mail, DMARC"]
)
async def test_other_refusals_are_not_answered_with_another_from(tmp_path: Path, answer: str) -> None:
    async with lab(tmp_path, relay='hold = "never"') as it:
        refused = refuse_senders_from(it, answer)
        assert (await it.send(at_risk(it)))[0] == answer[0]
        assert len(refused) == 1
        assert it.events("from.rewritten") == []


async def test_a_signature_that_survives_is_tried_first_each_time(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        refused = refuse_senders_from(it)
        for number in (1, 2):
            assert (await it.send(it.signed(numbered(number)))).startswith("250")
            assert author_of(parse_message((await it.next(it.sink)).data)).domain == "fwd.test"
        assert len(refused) == 2


async def test_mail_under_quarantine_goes_with_another_from_as_nobody_would_refuse_it(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=QUARANTINE) as it:
        for raw, domain in ((at_risk(it, numbered(1)), "fwd.test"), (it.signed(numbered(2)), "sender.test")):
            assert (await it.send(raw)).startswith("250")
            assert author_of(parse_message((await it.next(it.sink)).data)).domain == domain


async def test_who_asks_for_nothing_keeps_its_from(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=NO_POLICY) as it:
        refused = refuse_senders_from(it)
        assert (await it.send(at_risk(it))).startswith("550 5.7.26")
        assert len(refused) == 1


async def test_an_operator_may_want_it_never(tmp_path: Path) -> None:
    async with lab(tmp_path, extra='[policy]\nfrom_rewrite = "never"') as it:
        refused = refuse_senders_from(it)
        assert (await it.send(at_risk(it))).startswith("550 5.7.26")
        assert len(refused) == 1


async def test_an_operator_may_want_it_always_for_a_domain(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=NO_POLICY, extra='[domains."fwd.test".policy]\nfrom_rewrite = "always"') as it:
        assert (await it.send(it.signed())).startswith("250")
        arrived = await it.next(it.sink)
        assert author_of(parse_message(arrived.data)).domain == "fwd.test"
        found = await verdict_at_sink(it, arrived)
        assert (found.dmarc.result, found.dmarc.domain) == (Result.PASS, "fwd.test")


async def test_what_waits_in_the_queue_is_tried_in_both_forms_too(tmp_path: Path) -> None:
    async with lab(tmp_path, relay="in_session = 0") as it:
        refused = refuse_senders_from(it)
        assert (await it.send(at_risk(it))).startswith("250")
        arrived = await it.next(it.sink)
        assert author_of(parse_message(arrived.data)).domain == "fwd.test"
        assert len(refused) == 1
        assert (await verdict_at_sink(it, arrived)).dmarc.result is Result.PASS


async def answered(it: Lab, answer: bytes, sender: str, to: str) -> str:
    return await it.send(answer, sender, to, SINK, "mx.sink.test")


SPF = {"sink.test": {"MX": ["10 mx.sink.test."], "TXT": [f"v=spf1 ip4:{SINK} -all"]}}
ANSWER = b"From: Dest <dest@sink.test>\r\nMessage-ID: <a@sink.test>\r\nSubject: Re\r\n\r\nyes\r\n"


async def test_an_answer_is_forwarded_to_the_author(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=SPF) as it:
        refuse_senders_from(it)
        assert (await it.send(at_risk(it))).startswith("250")
        author = str(author_of(parse_message((await it.next(it.sink)).data)))
        assert (await answered(it, ANSWER, "dest@sink.test", author)).startswith("250")
        arrived = await it.next(it.sender)
        assert arrived.recipients == ("bob@sender.test",)
        assert arrived.sender.startswith("SRS0=")
        assert author_of(parse_message(arrived.data)) == Address("dest", "sink.test")


async def test_a_reply_address_is_no_open_relay(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=SPF, extra="[bounces]\nper_message = 2") as it:
        refuse_senders_from(it)
        assert (await it.send(at_risk(it))).startswith("250")
        author = str(author_of(parse_message((await it.next(it.sink)).data)))
        forged = author.replace("=sender.test=", "=victim.test=")
        assert (await answered(it, ANSWER, "dest@sink.test", forged)).startswith("550 5.1.1")
        assert (await answered(it, ANSWER, "", author)).startswith("550 5.7.1")
        assert (await it.send(ANSWER, "x@unknown.test", author, SENDER, "x.unknown.test")).startswith("550 5.7.26")
        codes = [(await answered(it, ANSWER + b"%d\r\n" % one, "dest@sink.test", author))[:3] for one in range(3)]
        assert codes == ["250", "250", "450"]


async def test_the_store_may_be_asked_for_mail_at_risk_only(tmp_path: Path) -> None:
    async with lab(tmp_path) as it, store_of(it) as store:
        before = await exists_calls(store)
        assert (await it.send(it.signed(numbered(1)))).startswith("250")
        await it.next(it.sink)
        assert await exists_calls(store) == before
        assert (await it.send(at_risk(it, numbered(2)))).startswith("250")
        await it.next(it.sink)
        assert await exists_calls(store) == before + 1


async def exists_calls(store: StoreClient) -> int:
    told = (await store.command("INFO", "commandstats")).decode()
    found = [line for line in told.splitlines() if line.startswith("cmdstat_exists:")]
    return int(found[0].partition("calls=")[2].partition(",")[0]) if found else 0


async def test_only_who_refused_it_gets_the_other_form(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        asked = list[str]()

        async def handle_rcpt(
            server: SMTP, session: Session, envelope: SmtpEnvelope, address: str, options: list[str]
        ) -> str:
            asked.append(address)
            if address == "two@sink.test" and asked.count(address) == 1:
                return GMAIL
            envelope.rcpt_tos.append(address)
            return "250 2.1.5 OK"

        it.sink.handle_RCPT = handle_rcpt  # type: ignore[attr-defined]
        raw = signed(
            MESSAGE,
            "bob@sender.test",
            ("both@fwd.test",),
            mailkey=it.keys.mailkey("sender.test"),
            now=it.app.clock.now(),
        )
        await until_250(lambda: it.send(raw, recipient="both@fwd.test"))
        first, second = await it.next(it.sink), await it.next(it.sink)
        assert (first.recipients, second.recipients) == (("one@sink.test",), ("two@sink.test",))
        assert author_of(parse_message(first.data)).domain == "sender.test"
        assert author_of(parse_message(second.data)).domain == "fwd.test"
        assert (await verdict_at_sink(it, second)).mailkey.result is Result.PASS


async def test_with_the_store_away_it_is_refused_and_taken_all_the_same(tmp_path: Path) -> None:
    async with lab(tmp_path, store_timeout=HASTY) as it:
        pid = it.app.store_pid
        assert pid is not None
        refused = refuse_senders_from(it)
        os.kill(pid, signal.SIGSTOP)
        try:
            for number in (1, 2):
                assert (await it.send(at_risk(it, numbered(number)))).startswith("250")
                assert author_of(parse_message((await it.next(it.sink)).data)).domain == "fwd.test"
        finally:
            os.kill(pid, signal.SIGCONT)
        assert len(refused) == 2
        assert it.events("from.refused") == []


LONG = b"a-very-long-name-that-does-not-fit-into-a-reply-address"


async def test_an_author_that_does_not_fit_into_the_address_is_kept_in_the_store(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=SPF) as it:
        refuse_senders_from(it)
        raw = at_risk(it, MESSAGE.replace(b"Bob <bob@", b"Bob <" + LONG + b"@"))
        await until_250(lambda: it.send(raw))
        author = author_of(parse_message((await it.next(it.sink)).data))
        assert "=-=" in author.local
        await until_250(lambda: answered(it, ANSWER, "dest@sink.test", str(author)))
        assert (await it.next(it.sender)).recipients == (f"{LONG.decode()}@sender.test",)


async def test_an_author_that_cannot_be_kept_keeps_its_from(tmp_path: Path) -> None:
    async with lab(tmp_path, store_timeout=HASTY) as it:
        pid = it.app.store_pid
        assert pid is not None
        refused = refuse_senders_from(it)
        os.kill(pid, signal.SIGSTOP)
        try:
            raw = at_risk(it, MESSAGE.replace(b"Bob <bob@", b"Bob <" + LONG + b"@"))
            assert (await it.send(raw)).startswith("550 5.7.26")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert len(refused) == 1


async def test_a_bounce_of_what_was_rewritten_finds_its_way_and_names_nobody(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        refuse_senders_from(it)
        assert (await it.send(at_risk(it))).startswith("250")
        arrived = await it.next(it.sink)
        assert (await it.bounce(arrived)).startswith("250")
        report = await it.next(it.sender)
        assert report.recipients == ("bob@sender.test",)
        assert b"sink.test" not in report.data


async def test_mail_from_the_null_sender_climbs_too_and_keeps_it(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        refused = refuse_senders_from(it)
        mailkey, now = it.keys.mailkey("sender.test"), it.app.clock.now()
        raw = signed(MESSAGE, "", ("alias@fwd.test",), mailkey=mailkey, now=now)
        assert (await it.send(raw, "")).startswith("250")
        arrived = await it.next(it.sink)
        assert (arrived.sender, len(refused)) == ("", 1)
        assert author_of(parse_message(arrived.data)).domain == "fwd.test"
