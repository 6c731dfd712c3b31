"""Complaints: what a feedback report says, who returned which message, and what strangers may put into one."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.mail.arf import MAX_SIGNERS, MAX_VALUES, Complaint, ComplaintKind, parse_complaint
from forwarder.mail.dsn import parse_report
from forwarder.mail.header import MalformedMessage, parse_message
from tests.fakes import message

ARF = """\
From: abuse@provider.test
Subject: complaint
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: text/plain

A user complains.
--b
Content-Type: message/feedback-report

{fields}
--b
Content-Type: {returned_type}

Return-Path: <SRS0=x@fwd.test>
Mailkey-Signature: v=1; d=fwd.test; rt=1
DKIM-Signature: v=1; a=rsa-sha256; s=rsa;
 d=Sender.test; bh=x; b=y
DKIM-Signature: v=1; a=rsa-sha256; c=simple/d=relaxed
ARC-Seal: i=1; cv=none; d=fwd.test; s=rsa; b=z
Message-ID: <1@sender.test>
To: "Alias, x" <alias@fwd.test>

Body.
--b--
"""
FIELDS = """\
Feedback-Type: Abuse
User-Agent: SomeGenerator/1.0
Version: 1
Original-Mail-From: <SRS0=x@fwd.test>
Original-Rcpt-To: <dest@provider.test>
Original-Rcpt-To: rfc822; other@provider.test
Original-Envelope-Id: Q1
Arrival-Date: Thu, 8 Mar 2026 14:00:00 EDT
Reporting-MTA: dns; mx.provider.test
Source-IP: 192.0.2.1
Incidents: 3
Authentication-Results: mx.provider.test;
               dkim=pass header.d=sender.test
Reported-Domain: Sender.test
Reported-Uri: http://sender.test/a
Reported-Uri: mailto:x@sender.test
Removal-Recipient: dest@provider.test
"""


def arf(fields: str = FIELDS, returned_type: str = "message/rfc822") -> str:
    return ARF.format(fields=fields, returned_type=returned_type)


def complaint(text: str) -> Complaint:
    found = parse_complaint(message(text))
    assert found is not None
    return found


@pytest.mark.parametrize("returned_type", ["message/rfc822", "text/rfc822-headers", "message/global-headers"])
def test_a_complaint_is_read_with_the_message_it_is_about(returned_type: str) -> None:
    found = complaint(arf(returned_type=returned_type))
    assert found.returned_header.startswith(b"Return-Path")
    assert found == Complaint(
        ComplaintKind.ABUSE,
        recipients=("dest@provider.test", "other@provider.test"),
        mail_from="SRS0=x@fwd.test",
        envelope_id="Q1",
        source_ip="192.0.2.1",
        arrived_at=datetime(2026, 3, 8, 18, tzinfo=UTC),
        incidents=3,
        user_agent="SomeGenerator/1.0",
        version="1",
        reporting_mta="mx.provider.test",
        reported_domains=("sender.test",),
        reported_uris=("http://sender.test/a", "mailto:x@sender.test"),
        removal_recipients=("dest@provider.test",),
        authentication_results=("mx.provider.test; dkim=pass header.d=sender.test",),
        returned_header=found.returned_header,
        message_id="<1@sender.test>",
        return_path="SRS0=x@fwd.test",
        signers=("sender.test", "fwd.test"),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fraud", ComplaintKind.FRAUD),
        ("virus; x", ComplaintKind.VIRUS),
        ("not-spam", ComplaintKind.NOT_SPAM),
        ("opt-out-list", ComplaintKind.OPT_OUT),
        ("auth-failure", ComplaintKind.AUTH_FAILURE),
        ("x-something", ComplaintKind.OTHER),
        ("", ComplaintKind.OTHER),
    ],
)
def test_kinds_are_told_apart(text: str, expected: ComplaintKind) -> None:
    assert complaint(arf(f"Feedback-Type: {text}\n")).kind is expected


def test_a_report_of_failed_authentication_is_read() -> None:
    found = complaint(
        arf("Feedback-Type: auth-failure\nAuth-Failure: Signature\nDelivery-Result: policy\nDKIM-Domain: a.test\n")
    )
    assert (found.auth_failure, found.delivery_result, found.dkim_domain) == ("signature", "policy", "a.test")


def test_who_got_it_is_read_from_the_returned_header_where_nothing_else_says_so() -> None:
    assert complaint(arf("Feedback-Type: abuse\n")).recipients == ("alias@fwd.test",)


@pytest.mark.parametrize(
    "field",
    ["Source-IP: 999.1.1.1", "Source-IP: here", "Arrival-Date: soon", "Arrival-Date: Thu, 99 Foo 2026", "Incidents: x"],
)
def test_what_is_unreadable_is_not_said(field: str) -> None:
    found = complaint(arf(f"Feedback-Type: abuse\n{field}\n"))
    assert (found.source_ip, found.arrived_at, found.incidents) == (None, None, 1)


def test_an_ipv6_source_is_read() -> None:
    assert complaint(arf("Source-IP: 2001:DB8::1\n")).source_ip == "2001:db8::1"


def test_what_microsoft_returns_is_a_complaint() -> None:
    found = complaint(
        "From: <staff@hotmail.com>\nSubject: complaint about message from 192.0.2.7\n"
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\n"
        "X-HmXmrOriginalRecipient: dest@hotmail.test\nMessage-ID: <1@sender.test>\n\nBody\n--b--\n"
    )
    assert (found.kind, found.recipients, found.source_ip, found.message_id) == (
        ComplaintKind.ABUSE,
        ("dest@hotmail.test",),
        "192.0.2.7",
        "<1@sender.test>",
    )


def test_apple_s_unsubscribing_is_an_opt_out() -> None:
    found = complaint("From: Dest <dest@icloud.test>\nX-Apple-Unsubscribe: true\n\nunsubscribe\n")
    assert (found.kind, found.recipients) == (ComplaintKind.OPT_OUT, ("dest@icloud.test",))


@pytest.mark.parametrize(
    "text",
    [
        "From: a@b.test\n\nFeedback-Type: abuse\n",
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\nFrom: a@b.test\n\nx\n--b--\n",
        "Content-Type: message/delivery-status\n\nFinal-Recipient: rfc822; a@b.test\nAction: failed\n",
    ],
)
def test_other_mail_is_no_complaint(text: str) -> None:
    assert parse_complaint(message(text)) is None


def test_a_complaint_is_no_failed_delivery() -> None:
    assert parse_report(message(arf().replace("abuse@provider.test", "MAILER-DAEMON@provider.test"))) is None


def test_what_is_kept_of_a_complaint_is_bounded() -> None:
    fields = "".join(f"Original-Rcpt-To: a{n}@b.test\nReported-Uri: {'u' * 2000}\n" for n in range(60))
    signed = "".join(f"DKIM-Signature: d=d{n}.test\n" for n in range(60))
    found = complaint(arf(fields).replace("Return-Path", signed + "Return-Path"))
    assert len(found.recipients) == len(found.reported_uris) == MAX_VALUES
    assert max(map(len, found.reported_uris)) == 1000
    assert len(found.signers) == MAX_SIGNERS
    assert complaint(arf("Incidents: 999999999\n")).incidents == 1_000_000


@settings(max_examples=300)
@given(
    st.binary(max_size=300) | st.text("-b\n: ;=<>@.dD0123456789Incidets", max_size=300).map(str.encode), st.booleans()
)
def test_no_complaint_raises(noise: bytes, in_report: bool) -> None:
    noise = noise.replace(b"\r", b"").replace(b"\n", b"\r\n")
    before, behind = arf().replace("\n", "\r\n").encode().split(b"User-Agent" if in_report else b"ARC-Seal", 1)
    try:
        parsed = parse_message(before + noise + behind)
    except MalformedMessage:
        return
    parse_complaint(parsed)


@pytest.mark.parametrize(
    "word", ["Source-IP: 1.1.", "<", "a@b.", ":", "d=", "d= a", "; ", "Original-Rcpt-To: <a@b.test>\n", " "]
)
def test_no_complaint_costs_much(word: str) -> None:
    for text in (arf(word * (300_000 // len(word))), arf().replace("Return-Path", word * (300_000 // len(word)))):
        parsed = message(text)
        started = time.process_time()
        parse_complaint(parsed)
        assert time.process_time() - started < 0.25
