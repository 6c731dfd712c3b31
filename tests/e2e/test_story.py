"""One message there, its bounce back: every part real, every claim of the design checked at the far end."""

from __future__ import annotations

import asyncio
import base64
import smtplib
from pathlib import Path

import dkim
import pytest

from forwarder.cli.demo_lab import FORWARDER, SENDER, Received
from forwarder.mail.header import parse_message
from forwarder.model import Message
from tests.e2e.lab import MESSAGE, Lab, age_store, bounce_of, lab

HIDDEN = (b"hidden.destination", b"sink.test", b"127.0.0.50")


def dns_of(it: Lab):  # type: ignore[no-untyped-def]
    def look_up(name: bytes, timeout: int = 5) -> bytes:
        return it.records.get(name.decode().rstrip("."), {}).get("TXT", [""])[0].encode()

    return look_up


def added(arrived: Received, sent: bytes) -> Message:
    """What we put in front."""
    assert arrived.data.endswith(sent)
    return parse_message(arrived.data[: len(arrived.data) - len(sent)])


async def test_a_message_goes_out_and_its_bounce_comes_home(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        sent = it.signed()
        assert (await it.send(sent)).startswith("250 2.0.0")
        arrived = await it.next(it.sink)
        ours = added(arrived, sent)
        assert arrived.recipients == ("hidden.destination@sink.test",)
        assert arrived.ip == "127.0.0.25"
        assert arrived.sender.startswith("SRS0=")
        assert arrived.sender.endswith("=sender.test=bob@fwd.test")
        assert [one.name.decode() for one in ours.fields] == [
            "mailkey-signature",
            "arc-seal",
            "arc-message-signature",
            "arc-authentication-results",
            "dkim-signature",
            "dkim-signature",
            "authentication-results",
            "delivered-to",
            "received",
        ]
        results = b" ".join(ours.all(b"authentication-results")[0].value.split())
        for found in (b"mailkey=pass", b"spf=pass", b"dkim=pass", b"arc=none", b"dmarc=pass", b"policy.rcpt=bound"):
            assert found in results, results
        assert all(dkim.verify(arrived.data, dnsfunc=dns_of(it)) for _ in [0])
        verifier = dkim.DKIM(arrived.data)
        assert [verifier.verify(index, dnsfunc=dns_of(it)) for index in range(3)] == [True, True, True]
        assert dkim.arc_verify(arrived.data, dnsfunc=dns_of(it))[0] == b"pass"

        assert (await it.bounce(arrived)).startswith("250 2.0.0")
        home = await it.next(it.sender)
        assert home.sender == ""
        assert home.recipients == ("bob@sender.test",)
        assert b"Final-Recipient: rfc822; alias@fwd.test" in home.data
        assert b"Status: 5.1.1" in home.data
        assert b"<one@sender.test>" in home.data
        assert b"Auto-Submitted: auto-replied" in home.data
        lowered = home.data.lower() + base64.b64decode(b"")
        assert not any(one in lowered for one in HIDDEN)
        assert dkim.verify(home.data, dnsfunc=dns_of(it))
        assert home.data.startswith(b"Mailkey-Signature:")


async def test_a_long_sender_goes_by_an_opaque_address_and_comes_home_all_the_same(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        sender = "bob.with.a.very.long.local.part.that.fits.nowhere@sender.test"
        sent = it.signed(sender=sender)
        assert (await it.send(sent, sender)).startswith("250")
        arrived = await it.next(it.sink)
        assert b"very.long" not in arrived.sender.encode()
        assert (await it.bounce(arrived)).startswith("250")
        assert (await it.next(it.sender)).recipients == (sender,)


async def test_a_bounce_is_never_answered_by_a_bounce_nor_passed_on_twice(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        await it.send(it.signed())
        arrived = await it.next(it.sink)
        report = bounce_of(arrived)
        assert (await it.bounce(arrived, data=report)).startswith("250")
        assert (await it.bounce(arrived, data=report)).startswith("250")
        await it.next(it.sender)
        assert it.sender.waiting.empty()


@pytest.mark.parametrize("what", ["forged", "not null", "unknown message", "no report"])
async def test_what_is_no_report_of_ours_is_refused(tmp_path: Path, what: str) -> None:
    async with lab(tmp_path) as it:
        await it.send(it.signed())
        arrived = await it.next(it.sink)
        match what:
            case "forged":
                wrong = arrived.sender[:7] + ("A" if arrived.sender[7] != "A" else "B") + arrived.sender[8:]
                answer = await it.send(bounce_of(arrived), "", wrong)
            case "not null":
                answer = await it.send(bounce_of(arrived), "x@sink.test", arrived.sender)
            case "unknown message":
                await age_store(it)
                other = bounce_of(arrived).replace(b"<one@sender.test>", b"<other@sender.test>")
                answer = await it.bounce(arrived, data=other.replace(b"hidden.destination@", b"nobody@"))
            case _:
                answer = await it.bounce(arrived, data=b"From: x@sink.test\r\nSubject: I am away\r\n\r\nAway.\r\n")
        assert answer.startswith("550")
        assert it.sender.waiting.empty()


async def test_a_bounce_of_a_message_that_nobody_vouched_for_ends_here(tmp_path: Path) -> None:
    zone = {
        "sender.test": {"MX": ["10 mx.sender.test."]},
        "_dmarc.sender.test": {},
        "mailkey.sender.test": {},
        "mx.sender.test": {"A": ["127.0.0.10"]},
    }
    async with lab(tmp_path, zone=zone) as it:
        assert (await it.send(MESSAGE)).startswith("250")
        arrived = await it.next(it.sink)
        assert arrived.sender.startswith("SRS0=")
        assert "bob" not in arrived.sender
        assert (await it.bounce(arrived)).startswith("250")
        assert it.sender.waiting.empty()
        assert it.journal.named("route.discard")


async def test_a_forged_sender_is_refused_with_the_cause(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        answer = await it.send(MESSAGE, source="127.0.0.66")
        assert answer.startswith("550 5.7.1 mailkey of sender.test")
    async with lab(tmp_path / "b", zone={"mailkey.sender.test": {}}) as it:
        answer = await it.send(MESSAGE, source="127.0.0.66")
        assert answer.startswith("550 5.7.1 DMARC")


async def test_forged_results_under_our_name_are_taken_out_and_others_stay(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        forged = b"Authentication-Results: mx.fwd.test; dkim=pass header.d=bank.example\r\n"
        other = b"Authentication-Results: mx.other.test; spf=none\r\n"
        await it.send(it.signed(forged + other + MESSAGE))
        arrived = await it.next(it.sink)
        assert b"bank.example" not in arrived.data
        assert other in arrived.data
        assert arrived.data.endswith(MESSAGE)
        assert dkim.DKIM(arrived.data).verify(0, dnsfunc=dns_of(it))


async def test_a_message_that_has_been_here_is_a_loop(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        await it.send(it.signed())
        arrived = await it.next(it.sink)
        assert (await it.send(arrived.data, "", source="127.0.0.50", helo="mx.sink.test")).startswith("554 5.4.6")


def without(raw: bytes, *names: bytes) -> bytes:
    """As a forwarder leaves it that takes these fields out."""
    message = parse_message(raw)
    kept = b"".join(one.raw for one in message.fields if one.name not in names)
    return kept + message.separator + message.body


async def test_a_loop_through_a_forwarder_that_strips_our_fields_is_refused_all_the_same(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        await it.send(it.signed())
        arrived = await it.next(it.sink)
        again = without(arrived.data, b"delivered-to")
        refused = await it.send(again, "", source="127.0.0.50", helo="mx.sink.test")
        assert refused.startswith("554 5.4.6")
        assert it.sink.waiting.empty()


async def test_a_mark_in_somebody_elses_message_stops_nothing(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        await it.send(it.signed())
        received = parse_message((await it.next(it.sink)).data).first(b"received")
        assert received is not None
        stolen = received.raw + MESSAGE.replace(b"<one@", b"<two@")
        assert (await it.send(it.signed(stolen))).startswith("250")
        assert stolen in (await it.next(it.sink)).data


async def test_two_recipients_of_one_domain_travel_together(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        assert (await it.send(it.signed(recipients=("both@fwd.test",)), recipient="both@fwd.test")).startswith("250")
        arrived = await it.next(it.sink)
        assert set(arrived.recipients) == {"one@sink.test", "two@sink.test"}
        assert it.sink.waiting.empty()


async def test_postmaster_without_an_admin_is_kept_in_a_mailbox(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        sent = it.signed(recipients=("postmaster@fwd.test",))
        assert (await it.send(sent, recipient="postmaster@fwd.test")).startswith("250")
        kept = (it.folder / "state" / "mail" / "postmaster").read_bytes()
        assert b"Subject: hello" in kept
        assert it.sink.waiting.empty()


async def test_an_alias_that_is_named_in_several_spellings_gets_one_copy(tmp_path: Path) -> None:
    spellings = [f"{one}@fwd.test" for one in ("alias", "ALIAS", "alias+x", "alias+y")]

    def send_to_all(it: Lab) -> str:
        with smtplib.SMTP(FORWARDER, it.port, "mx.sender.test", 20, (SENDER, 0)) as client:
            client.ehlo()
            client.mail("bob@sender.test")
            for spelling in spellings:
                assert client.rcpt(spelling)[0] == 250
            return str(client.data(it.signed(recipients=tuple(spellings)))[0])

    async with lab(tmp_path) as it:
        assert await asyncio.to_thread(send_to_all, it) == "250"
        assert (await it.next(it.sink)).recipients == ("hidden.destination@sink.test",)
        assert it.sink.waiting.empty()
