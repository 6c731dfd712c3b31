"""Complaints about forwarded mail, and what becomes of the mail of those who are complained of. Through the running service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from forwarder.cli.demo_lab import SINK, Received
from forwarder.ports import Measure, Standing, Subject, SubjectKind
from forwarder.standing import blocked
from tests.e2e.lab import MESSAGE, Lab, lab

SENDER = Subject(SubjectKind.DOMAIN, "sender.test")
ALIAS = Subject(SubjectKind.ALIAS, "alias@fwd.test")
QUICK = "[complaints]\nslow_at = 0.5\none_way_at = 2\nrefuse_at = 3\n"


def complaint_of(
    arrived: Received, *, kind: str = "abuse", mail_from: str | None = None, header: bytes | None = None
) -> bytes:
    """A feedback report as RFC 5965 has it, from where the message arrived."""
    returned = arrived.data.partition(b"\r\n\r\n")[0] if header is None else header
    sender = arrived.sender if mail_from is None else mail_from
    return (
        (
            "From: fbl@mx.sink.test\r\nTo: abuse@fwd.test\r\nSubject: complaint\r\nMessage-ID: <c1@mx.sink.test>\r\n"
            "Date: Mon, 23 Nov 2026 12:40:00 +0000\r\nMIME-Version: 1.0\r\n"
            'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\r\n\r\n'
            "--b\r\nContent-Type: text/plain\r\n\r\nThis is a complaint.\r\n\r\n"
            f"--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: {kind}\r\nUser-Agent: x/1\r\nVersion: 1\r\n"
            f"Original-Mail-From: <{sender}>\r\nOriginal-Rcpt-To: <{arrived.recipients[0]}>\r\n\r\n"
            "--b\r\nContent-Type: message/rfc822\r\n\r\n"
        ).encode()
        + returned
        + b"\r\n\r\nHello.\r\n--b--\r\n"
    )


async def complain(it: Lab, data: bytes, to: str = "abuse@fwd.test") -> str:
    return await it.send(data, "fbl@mx.sink.test", to, SINK, "mx.sink.test")


async def forwarded(it: Lab, number: int = 0, **how: bool) -> Received:
    """One message more of the same sender."""
    raw = MESSAGE.replace(b"<one@", b"<m%d@" % number)
    assert (await it.send(it.signed(raw, **how) if how.get("mailkey", True) else raw)).startswith("250")
    return await it.next(it.sink)


def standing(it: Lab, subject: Subject) -> Standing | None:
    assert it.app.standings is not None
    return it.app.standings.look_up(subject)


def reasons(it: Lab) -> Sequence[str]:
    return [one["reason"] for one in it.events("complaint.not_counted")]


async def test_a_complaint_counts_against_the_sender_that_was_vouched_for_and_the_alias(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        arrived = await forwarded(it)
        assert (await complain(it, complaint_of(arrived))).startswith("250")

        for subject in (SENDER, ALIAS):
            found = standing(it, subject)
            assert found is not None, subject
            assert found.score == 1
            [evidence] = found.evidence
            assert evidence.what == "complaint: abuse"
            assert evidence.source == "hidden.destination@sink.test"
            assert evidence.message == it.events("message.received")[0]["id"]
        assert it.events("mailbox.kept"), "it is mail for abuse all the same"


async def test_a_complaint_that_comes_again_counts_once(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        arrived = await forwarded(it)
        for _ in range(3):
            await complain(it, complaint_of(arrived))

        found = standing(it, SENDER)
        assert found is not None
        assert found.score == 1
        assert reasons(it) == ["it came before"] * 2


async def test_an_alias_that_leads_to_the_feedback_loop_counts_too(tmp_path: Path) -> None:
    loop = '[complaints]\naddresses = ["loop@fwd.test"]\n'
    async with lab(tmp_path, aliases='loop = ["dest@sink.test"]', extra=loop) as it:
        arrived = await forwarded(it)
        # As Microsoft has it: no feedback report, so where it comes to must tell.
        head = b"X-HmXmrOriginalRecipient: <hidden.destination@sink.test>\r\nReturn-Path: <" + arrived.sender.encode()
        data = (
            b"From: staff@hotmail.test\r\nTo: loop@fwd.test\r\nSubject: complaint about message from 127.0.0.25\r\n"
            b"Date: Mon, 23 Nov 2026 12:40:00 +0000\r\nMessage-ID: <j1@x>\r\nMIME-Version: 1.0\r\n"
            b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n'
            + head
            + b">\r\n"
            + arrived.data.partition(b"\r\n\r\n")[0]
            + b"\r\n\r\n--b--\r\n"
        )
        assert (await complain(it, data, "loop@fwd.test")).startswith("250")

        found = standing(it, SENDER)
        assert found is not None
        assert found.score == 1


@pytest.mark.parametrize(
    "address", ["bob@sender.test", "SRS0=AAAAAAAAAAAAAA=AA=sender.test=bob@fwd.test", "", "not an address"]
)
async def test_a_complaint_in_which_nothing_of_ours_is_counts_against_nobody(tmp_path: Path, address: str) -> None:
    async with lab(tmp_path) as it:
        arrived = await forwarded(it)
        header = (
            b"Return-Path: <%b>\r\nFrom: Bob <bob@sender.test>\r\nMessage-ID: <m0@sender.test>\r\nSubject: hello"
            % (address.encode())
        )
        await complain(it, complaint_of(arrived, mail_from=address, header=header))

        assert standing(it, SENDER) is None
        assert standing(it, ALIAS) is None
        assert reasons(it) == ["nothing of ours is in it"]


async def test_without_the_return_address_our_mark_counts_for_the_alias_alone(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        arrived = await forwarded(it)
        await complain(it, complaint_of(arrived, mail_from=""))

        assert standing(it, SENDER) is None
        found = standing(it, ALIAS)
        assert found is not None
        assert found.score == 1


async def test_what_nobody_vouches_for_counts_against_the_client_and_not_the_domain_it_claims(tmp_path: Path) -> None:
    async with lab(tmp_path, extra='[policy]\ndmarc_reject = "tag"\n') as it:
        raw = MESSAGE.replace(b"bob@sender.test", b"bob@victim.test")
        assert (await it.send(raw, "bob@victim.test", source="127.0.0.77", helo="x.test")).startswith("250")
        arrived = await it.next(it.sink)
        await complain(it, complaint_of(arrived))

        assert standing(it, Subject(SubjectKind.DOMAIN, "victim.test")) is None
        found = standing(it, Subject(SubjectKind.NETWORK, "127.0.0.0/24"))
        assert found is not None
        assert found.score == 1


@pytest.mark.parametrize("kind", ["not-spam", "auth-failure"])
async def test_what_is_no_complaint_of_a_person_counts_for_nothing(tmp_path: Path, kind: str) -> None:
    async with lab(tmp_path) as it:
        arrived = await forwarded(it)
        await complain(it, complaint_of(arrived, kind=kind))

        assert standing(it, SENDER) is None
        assert reasons(it) == ["it counts for nothing"]


async def test_a_sender_that_is_complained_of_is_slowed_down_then_gets_no_way_back_then_is_refused(
    tmp_path: Path,
) -> None:
    async with lab(tmp_path, extra=QUICK) as it:
        assert it.app.standings is not None
        await complain(it, complaint_of(await forwarded(it, 0)))
        await forwarded(it, 1)
        slowed = await it.send(it.signed(MESSAGE.replace(b"<one@", b"<m2@")))
        assert slowed.startswith("451 4.7.1"), slowed

        await it.app.standings.change(SENDER, blocked(SENDER, Measure.ONE_WAY, "test", it.app.clock.now(), None, 1e6))
        arrived = await forwarded(it, 3)
        assert "=+=" in arrived.sender
        assert it.events("route.forward")[-1]["sender_form"] == "one-way"
        # It is still the sender's own, and a complaint of it finds that out.
        await complain(it, complaint_of(arrived))
        found = standing(it, SENDER)
        assert found is not None
        assert found.score > 1

        await it.app.standings.change(SENDER, blocked(SENDER, Measure.REFUSE, "test", it.app.clock.now(), None, 1e6))
        refused = await it.send(it.signed(MESSAGE.replace(b"<one@", b"<m4@")))
        assert refused.startswith("550 5.7.1"), refused
        assert "complaints" in refused
        assert [one["measure"] for one in it.events("reputation.changed")] == ["slow"]
        open_door = await it.send(it.signed(recipients=("postmaster@fwd.test",)), recipient="postmaster@fwd.test")
        assert open_door.startswith("250"), open_door
