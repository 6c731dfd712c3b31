"""Delivery reports as RFC 3461 promises them: what is asked for is told, once, to a verified sender, and nothing else is."""

from __future__ import annotations

import asyncio
import email
import email.policy
import smtplib
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import pytest

from forwarder.cli.demo_lab import FORWARDER, SENDER, SINK, Received
from forwarder.mail.dsn import parse_report
from forwarder.mail.header import parse_message
from forwarder.mail.report import Report
from tests.e2e.lab import MESSAGE, Lab, bounce_of, lab, vanish
from tests.e2e.test_queue import ALIASES, NO, NOT_NOW, OTHER, SOON, UNVERIFIED, ZONE
from tests.peers.smtp_sink import DEFAULT, SmtpSink
from tests.waiting import until

WITH_DSN = (b"PIPELINING", b"8BITMIME", b"SMTPUTF8", b"DSN")
HIDDEN = (b"secret", b"other.test", b"sink.test", b"hidden.destination", OTHER.encode(), SINK.encode())
ASKED = ("RET=HDRS", "ENVID=QQ+2B1")


@dataclass
class Told:
    """One report as the sender gets it."""

    raw: bytes
    report: Report
    parts: list[EmailMessage]

    @property
    def action(self) -> str:
        return str(self.report.recipients[0].action)

    @property
    def original(self) -> str | None:
        return self.report.recipients[0].original_recipient


def told(arrived: Received) -> Told:
    """Read it, and see that it is one of ours and tells nothing."""
    assert arrived.sender == ""
    assert arrived.recipients == ("bob@sender.test",)
    assert [one for one in HIDDEN if one in arrived.data.lower()] == []
    assert b"DKIM-Signature" in arrived.data
    report = parse_report(parse_message(arrived.data))
    assert report is not None
    parsed = email.message_from_bytes(arrived.data, policy=email.policy.SMTP)
    assert isinstance(parsed, EmailMessage)
    return Told(arrived.data, report, [one for one in parsed.iter_parts() if isinstance(one, EmailMessage)])


async def next_told(it: Lab) -> Told:
    return told(await it.next(it.sender))


async def ask(
    it: Lab,
    recipient: str,
    notify: str | None,
    *,
    orcpt: str | None = None,
    mail: Sequence[str] = ASKED,
    data: bytes | None = None,
    sender: str = "bob@sender.test",
    others: Sequence[str] = (),
) -> str:
    """Send as a client that knows RFC 3461; the reply to the final dot, which the service is not shown that anybody has read."""
    raw = data if data is not None else it.signed(recipients=(recipient, *others))
    options = [f"NOTIFY={notify}"] if notify else []
    options += [f"ORCPT={orcpt}"] if orcpt else []

    def talk() -> str:
        with smtplib.SMTP(FORWARDER, it.port, "mx.sender.test", 20, (SENDER, 0)) as client:
            client.ehlo()
            assert client.has_extn("dsn")
            assert client.mail(sender, list(mail))[0] == 250
            for one in (recipient, *others):
                assert client.rcpt(one, options)[0] == 250
            code, text = client.data(raw)
            vanish(client)
            return f"{code} {text.decode()}"

    return await asyncio.to_thread(talk)


# --- the next hop offers DSN


async def test_the_next_hop_is_asked_what_we_were_asked_and_its_report_is_made_anew(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES) as it,
        SmtpSink(extensions=WITH_DSN, host=OTHER, port=it.port) as other,
    ):
        assert (await ask(it, "held@fwd.test", "SUCCESS,FAILURE", orcpt="rfc822;old+2Bb@x.test")).startswith("250")
        (arrived,) = other.messages
        assert arrived.mail.endswith(b" RET=HDRS ENVID=QQ+2B1")
        assert arrived.rcpts == [b"TO:<secret@other.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;old+2Bb@x.test"]
        assert it.sender.waiting.empty(), "telling is the next hop's now"
        sender = arrived.mail.partition(b"<")[2].partition(b">")[0].decode()
        success = bounce_of(Received(OTHER, "mx.other.test", sender, ("secret@other.test",), arrived.data))
        success = success.replace(b"Action: failed", b"Action: delivered").replace(b"Status: 5.1.1", b"Status: 2.0.0")
        assert (await it.send(success, "", sender, SINK, "mx.sink.test")).startswith("250")
        report = await next_told(it)
        assert (report.action, report.original) == ("delivered", "old+b@x.test")
        assert report.report.original_envelope_id == "QQ+1"
        assert report.report.recipients[0].final_recipient == "held@fwd.test"


async def test_a_sender_that_asks_nothing_costs_the_next_hop_its_header_only(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES) as it,
        SmtpSink(extensions=WITH_DSN, host=OTHER, port=it.port) as other,
    ):
        assert (await ask(it, "held@fwd.test", None, mail=())).startswith("250")
        (arrived,) = other.messages
        assert arrived.mail.endswith(b" RET=HDRS")
        assert arrived.rcpts == [b"TO:<secret@other.test>"]


async def test_whom_the_sender_meant_is_told_where_it_spelled_the_alias_in_its_own_way(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES) as it,
        SmtpSink(extensions=WITH_DSN, host=OTHER, port=it.port) as other,
    ):
        assert (await ask(it, "Held+x@fwd.test", "NEVER")).startswith("250")
        assert other.messages[0].rcpts == [b"TO:<secret@other.test> NOTIFY=NEVER ORCPT=rfc822;Held+2Bx@fwd.test"]


async def test_a_sender_that_nobody_verified_is_promised_nothing(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE | UNVERIFIED, aliases=ALIASES) as it,
        SmtpSink(extensions=WITH_DSN, host=OTHER, port=it.port) as other,
    ):
        for recipient in ("held@fwd.test", "alias@fwd.test", "both@fwd.test", "postmaster@fwd.test"):
            assert (await ask(it, recipient, "SUCCESS", data=MESSAGE)).startswith("250")
        assert other.messages[0].rcpts == [b"TO:<secret@other.test>"]
        assert not it.journal.named("queue.put")
        assert it.sender.waiting.empty()


# --- the next hop does not


async def test_a_next_hop_without_dsn_makes_us_say_relayed_and_only_once(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES) as it, SmtpSink(host=OTHER, port=it.port) as other:
        sent = it.signed(recipients=("held@fwd.test",))
        assert (await ask(it, "held@fwd.test", "SUCCESS", data=sent)).startswith("250")
        assert other.messages[0].rcpts == [b"TO:<secret@other.test>"]
        report = await next_told(it)
        assert (report.action, report.original) == ("relayed", "held@fwd.test")
        assert report.report.original_envelope_id == "QQ+1"
        assert b"Subject: hello" in report.raw
        assert b"Hello." not in report.raw
        # The sender that lost our answer comes back.
        assert (await ask(it, "held@fwd.test", "SUCCESS", data=sent)).startswith("250")
        assert len(it.journal.named("queue.put")) == 1


@pytest.mark.parametrize("notify", [None, "FAILURE", "FAILURE,DELAY", "NEVER"])
async def test_who_does_not_ask_for_success_hears_of_none(tmp_path: Path, notify: str | None) -> None:
    async with lab(tmp_path) as it:
        assert (await ask(it, "both@fwd.test", notify)).startswith("250")
        assert not it.journal.named("queue.put")


async def test_a_bounce_from_a_next_hop_without_dsn_ends_here_where_the_sender_wants_none(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        assert (await ask(it, "alias@fwd.test", "NEVER")).startswith("250")
        assert (await it.bounce(await it.next(it.sink))).startswith("250")
        assert it.journal.named("route.discard")
        assert it.sender.waiting.empty()


async def test_what_waited_is_relayed_too(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=SOON) as it,
        SmtpSink({"DOT": [NOT_NOW, DEFAULT]}, host=OTHER, port=it.port),
    ):
        assert (await ask(it, "held@fwd.test", "SUCCESS,FAILURE")).startswith("250 2.0.0 accepted")
        report = await next_told(it)
        assert (report.action, report.original) == ("relayed", "held@fwd.test")


async def test_what_waited_for_a_next_hop_with_dsn_is_asked_of_it(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=SOON) as it,
        SmtpSink({"DOT": [NOT_NOW, DEFAULT]}, extensions=WITH_DSN, host=OTHER, port=it.port) as other,
    ):
        assert (await ask(it, "held@fwd.test", "SUCCESS")).startswith("250 2.0.0 accepted")
        await until(lambda: other.messages)
        assert other.messages[0].rcpts == [b"TO:<secret@other.test> NOTIFY=SUCCESS ORCPT=rfc822;held@fwd.test"]
        assert other.messages[0].mail.endswith(b" RET=HDRS ENVID=QQ+2B1")
        await until(lambda: it.journal.named("queue.outcome"))
        assert it.journal.named("queue.outcome")[0]["reports"] == 0


# --- several targets


async def test_a_list_is_expanded_once_and_its_next_hops_are_not_asked_for_success(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=SOON) as it,
        SmtpSink(extensions=WITH_DSN, host=OTHER, port=it.port) as other,
    ):
        sent = it.signed(recipients=("six@fwd.test",))
        assert (await ask(it, "six@fwd.test", "SUCCESS,FAILURE", data=sent)).startswith("250")
        await until(lambda: len(other.messages) == 6)
        assert {b" ".join(one.rcpts[0].split()[1:]) for one in other.messages} == {b"NOTIFY=FAILURE"}
        report = await next_told(it)
        assert (report.action, report.original) == ("expanded", "six@fwd.test")
        assert report.report.recipients[0].final_recipient == "six@fwd.test"
        assert len(report.report.recipients) == 1
        assert (await ask(it, "six@fwd.test", "SUCCESS,FAILURE", data=sent)).startswith("250")
        await until(lambda: sum(one["outcome"] == "delivered" for one in it.journal.named("queue.outcome")) == 7)
        assert it.sender.waiting.empty()


async def test_of_success_alone_the_next_hops_of_a_list_are_left_with_never(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES) as it,
        SmtpSink(extensions=WITH_DSN, host=OTHER, port=it.port) as other,
    ):
        assert (await ask(it, "team@fwd.test", "SUCCESS")).startswith("250")
        assert other.messages[0].rcpts == [b"TO:<two@other.test> NOTIFY=NEVER"]
        assert (await next_told(it)).action == "expanded"


async def test_a_list_that_did_not_reach_all_is_no_success(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES) as it, SmtpSink({"RCPT": NO}, host=OTHER, port=it.port):
        assert (await ask(it, "team@fwd.test", "SUCCESS,FAILURE")).startswith("250")
        report = await next_told(it)
        assert (report.action, report.original) == ("failed", "team@fwd.test")
        assert it.sender.waiting.empty()


async def test_what_is_kept_here_is_delivered(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        assert (await ask(it, "postmaster@fwd.test", "SUCCESS")).startswith("250")
        assert (await next_told(it)).action == "delivered"


# --- what waits


@pytest.mark.parametrize(
    ("notify", "setting", "is_told"),
    [
        pytest.param("DELAY", "", True, id="asked"),
        pytest.param("SUCCESS,DELAY", "", True, id="asked with others"),
        pytest.param(None, "", False, id="nothing said"),
        pytest.param(None, "delay_report = 0.05\n", True, id="nothing said, the operator tells"),
        pytest.param("FAILURE", "delay_report = 0.05\n", False, id="others asked"),
        pytest.param("NEVER", "delay_report = 0.05\n", False, id="never"),
    ],
)
async def test_a_delay_is_told_once(tmp_path: Path, notify: str | None, setting: str, is_told: bool) -> None:
    script = {"DOT": [NOT_NOW] * 7 + [DEFAULT]}
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=SOON + setting) as it,
        SmtpSink(script, extensions=WITH_DSN, host=OTHER, port=it.port) as other,
    ):
        assert (await ask(it, "held@fwd.test", notify)).startswith("250 2.0.0 accepted")
        await until(lambda: other.messages)
        if is_told:
            report = await next_told(it)
            assert (report.action, report.original) == ("delayed", "held@fwd.test")
            assert report.report.recipients[0].status == "4.2.0"
            assert b"Will-Retry-Until: " in report.raw
        assert sum(one["reports"] for one in it.journal.named("queue.outcome")) == is_told
        assert it.sender.waiting.empty()


async def test_a_message_that_waits_in_several_places_is_told_of_once(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=SOON) as it:
        sent = it.signed(recipients=("six@fwd.test", "held@fwd.test"))
        assert (await ask(it, "six@fwd.test", "DELAY", data=sent, others=("held@fwd.test",))).startswith("250")
        assert (await next_told(it)).action == "delayed"
        tries = lambda: [one for one in it.journal.named("queue.outcome") if one["outcome"] == "deferred"]  # noqa: E731
        await until(lambda: all(one["attempt"] >= 6 for one in tries()[-7:]))
        assert it.sender.waiting.empty()


async def test_a_delay_of_a_sender_that_nobody_verified_is_not_told(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE | UNVERIFIED, aliases=ALIASES, extra=SOON + "delay_report = 0.01\n") as it,
        SmtpSink({"DOT": [NOT_NOW] * 6 + [DEFAULT]}, host=OTHER, port=it.port) as other,
    ):
        assert (await ask(it, "held@fwd.test", "SUCCESS,DELAY,FAILURE", data=MESSAGE)).startswith("250 2.0.0 accepted")
        await until(lambda: other.messages)
        assert it.sender.waiting.empty()


# --- what failed


@pytest.mark.parametrize("in_session", [True, False])
async def test_never_is_never(tmp_path: Path, in_session: bool) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=SOON) as it,
        SmtpSink({"DOT": NO if in_session else [NOT_NOW, NO]}, host=OTHER, port=it.port),
    ):
        recipient = "team@fwd.test" if in_session else "held@fwd.test"
        assert (await ask(it, recipient, "NEVER")).startswith("250")
        if not in_session:
            await until(lambda: any(one["outcome"] == "failed" for one in it.journal.named("queue.outcome")))
        assert it.sender.waiting.empty()


async def test_a_sender_that_lost_our_answer_is_not_told_of_the_failure_again(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES) as it, SmtpSink({"RCPT": NO}, host=OTHER, port=it.port):
        sent = it.signed(recipients=("team@fwd.test",))
        for _ in range(2):
            assert (await ask(it, "team@fwd.test", None, mail=(), data=sent)).startswith("250")
        assert (await next_told(it)).action == "failed"
        assert it.sender.waiting.empty()


@pytest.mark.parametrize(
    ("in_session", "body", "kind"),
    [
        pytest.param(True, b"Hello.\r\n.dot\r\n", "message/rfc822", id="7-bit, in session"),
        pytest.param(False, b"Hello.\r\n.dot\r\n", "message/rfc822", id="7-bit"),
        pytest.param(True, "Grüße.\r\n".encode(), "message/global", id="8-bit, in session"),
        pytest.param(False, "Grüße.\r\n".encode(), "message/global", id="8-bit"),
        pytest.param(False, b"x" * 2000 + b"\r\n", "message/global", id="a long line"),
        pytest.param(False, b"x" * 70 + b"\r\n", "text/rfc822-headers", id="large"),
    ],
)
async def test_who_asks_for_the_whole_message_gets_what_it_sent(
    tmp_path: Path, in_session: bool, body: bytes, kind: str
) -> None:
    body = body * 16000 if kind.startswith("text") else body
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=SOON) as it,
        SmtpSink({"DOT": NO if in_session else [NOT_NOW, NO]}, host=OTHER, port=it.port),
    ):
        recipient = "team@fwd.test" if in_session else "held@fwd.test"
        sent = it.signed(MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + body, recipients=(recipient,))
        answer = await ask(it, recipient, "FAILURE", mail=("RET=FULL", "BODY=8BITMIME"), data=sent)
        assert answer.startswith("250")
        report = await next_told(it)
        assert report.action == "failed"
        part = report.parts[2]
        assert part.get_content_type() == kind
        if kind == "message/rfc822":
            assert sent in report.raw
        elif kind == "message/global":
            content = report.raw.partition(b"message/global\r\n")[2].partition(b"\r\n\r\n")[2].partition(b"\r\n--")[0]
            assert email.base64mime.decode(content.decode()) == sent
        else:
            assert b"x" * 70 not in report.raw


async def test_the_whole_message_goes_back_with_no_other_report(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES) as it, SmtpSink(host=OTHER, port=it.port):
        assert (await ask(it, "held@fwd.test", "SUCCESS", mail=("RET=FULL",))).startswith("250")
        report = await next_told(it)
        assert report.action == "relayed"
        assert b"Hello." not in report.raw
