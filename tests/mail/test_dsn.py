"""Delivery reports: what is read out of theirs, and what ours look like."""

from __future__ import annotations

import email
import email.message
import email.policy
import time
from base64 import b64encode
from datetime import UTC, datetime
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.mail.dsn import (
    MAX_RETURNING_WHOLE,
    Action,
    Reason,
    RecipientReport,
    RecipientStatus,
    build_dsn,
    parse_report,
)
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.mail.mime import parse_content_type, walk_parts
from forwarder.mail.oldbounce import is_auto_reply
from forwarder.model import Address
from tests.fakes import message

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
ALIAS = Address("alias", "fwd.test")
BOB = Address("bob", "sender.test")

REPORT = """\
From: MAILER-DAEMON@mx.sink.test
Subject: Undelivered
Auto-Submitted: auto-replied
Content-Type: multipart/report; (x) report-type=delivery-status;
\tboundary="b1 (x)"

preamble
--b1 (x)
Content-Type: text/plain

It failed.
--b1 (x)
Content-Type: {status_type}
{encoding}
{status}
--b1 (x)
Content-Type: {returned_type}

Received: from a by b; x
Subject: Hello
Message-ID:
 <1@sender.test>

Body.
--b1 (x)--
epilogue
"""
STATUS = """\
Reporting-MTA: dns; mx.sink.test
Original-Envelope-Id: Q+1

Original-Recipient: rfc822;dest@sink.test
Final-Recipient: RFC822; <deep@store.test>
Action: Failed (permanent)
Status: 5.01.1 (no such user)
Remote-MTA: dns; store.test
Diagnostic-Code: smtp; 550 5.1.1
 no such user

Final-Recipient: rfc822; other@sink.test
Action: delayed
Status: 4.4.1
"""


def report(
    status: str = STATUS,
    status_type: str = "message/delivery-status",
    encoding: str = "",
    returned_type: str = "message/rfc822",
) -> str:
    return REPORT.format(status=status, status_type=status_type, encoding=encoding, returned_type=returned_type)


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("returned_type", ["message/rfc822", "text/rfc822-headers", "message/global-headers"])
@pytest.mark.parametrize("status_type", ["message/delivery-status", "MESSAGE/Global-Delivery-Status; charset=utf-8"])
def test_a_report_is_read(status_type: str, returned_type: str) -> None:
    found = parse_report(message(report(status_type=status_type, returned_type=returned_type)))
    assert found is not None
    assert found.recipients == (
        RecipientStatus(
            Action.FAILED,
            "dest@sink.test",
            "deep@store.test",
            "5.1.1",
            "550 5.1.1 no such user",
            "store.test",
            Reason.UNKNOWN_USER,
            hard=True,
        ),
        RecipientStatus(Action.DELAYED, None, "other@sink.test", "4.4.1", reason=Reason.EXPIRED),
    )
    assert (found.reporting_mta, found.original_envelope_id) == ("mx.sink.test", "Q+1")
    assert found.returned_header == (
        b"Received: from a by b; x\r\nSubject: Hello\r\nMessage-ID:\r\n <1@sender.test>\r\n"
    )
    assert found.message_id == "<1@sender.test>"


def test_encoded_parts_are_decoded() -> None:
    quoted = STATUS.replace("dest@", "dest=40").replace("no such", "no =\nsuch")
    plain = parse_report(message(report()))
    assert parse_report(message(report(quoted, encoding="Content-Transfer-Encoding: quoted-printable\n"))) == plain
    coded = email.message.EmailMessage(policy=email.policy.SMTP)
    coded.set_content(STATUS.encode(), maintype="message", subtype="x", cte="base64")
    encoding = "Content-Transfer-Encoding: base64\n"
    assert parse_report(message(report(str(coded.get_payload()), encoding=encoding))) == plain


def test_groups_are_told_apart_without_empty_lines_and_in_any_order() -> None:
    status = (
        "Reporting-MTA: x\nFinal-Recipient: rfc822; a@b.test\nAction: failed\nOriginal-Recipient: rfc822; c@d.test\n"
        "Final-Recipient: rfc822; c@d.test\nAction: relayed\nStatus: 2.1.9\n"
    )
    found = parse_report(message(report(status)))
    assert found is not None
    assert [(one.final_recipient, one.action) for one in found.recipients] == [
        ("a@b.test", Action.FAILED),
        ("c@d.test", Action.RELAYED),
    ]


@pytest.mark.parametrize(
    ("action", "status", "expected"),
    [
        ("failure", "5.1.1", Action.FAILED),
        ("", "4.2.2", Action.DELAYED),
        ("", "2.0.0", Action.DELIVERED),
        ("", "nonsense", Action.FAILED),
        ("EXPANDED", "2.0.0", Action.EXPANDED),
    ],
)
def test_an_action_that_is_missing_is_told_by_the_status(action: str, status: str, expected: Action) -> None:
    found = parse_report(message(report(f"Final-Recipient: rfc822; a@b.test\nAction: {action}\nStatus: {status}\n")))
    assert found is not None
    assert found.recipients[0].action is expected


def test_a_utf8_recipient_is_unescaped() -> None:
    found = parse_report(message(report("Final-Recipient: utf-8; d\\x{F6}st@sink.test\nAction: failed\n")))
    assert found is not None
    assert found.recipients[0].final_recipient == "döst@sink.test"


def test_a_report_is_found_behind_broken_boundaries_and_wrappers() -> None:
    broken = report().replace('boundary="b1 (x)"', 'boundary="other"')
    wrapped = (
        "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: message/rfc822\n\n" + report() + "\n--o--\n"
    )
    for text in (broken, wrapped):
        found = parse_report(message("From: x@y.test\n" + text))
        assert found is not None
        assert found.recipients[0].final_recipient == "deep@store.test"
        assert found.message_id == "<1@sender.test>"


RECEIPT = (
    "From: a@b.test\nContent-Type: multipart/report; report-type=disposition-notification; boundary=x\n\n"
    "--x\nContent-Type: message/disposition-notification\n\nFinal-Recipient: rfc822; a@b.test\n--x--\n"
)


@pytest.mark.parametrize(
    "text",
    [
        "From: a@b.test\n\nHello",
        "From: a@b.test\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\nundeliverable <a@b.test>\n--x--\n",
        "From: a@b.test\nAuto-Submitted: auto-replied\nSubject: Out of office\n\nI am away: c@d.test",
        "From: a@b.test\nSubject: Re: Undelivered mail\n\n> could not be delivered to <c@d.test>\nWhat is this?",
        "From: a@b.test\nSubject: Fwd: failure notice\n\n<c@d.test>:\n550 no\n",
        RECEIPT,
    ],
)
def test_what_is_no_report_is_none(text: str) -> None:
    assert parse_report(message(text)) is None


def test_answers_of_people_are_told_from_reports_of_systems() -> None:
    assert is_auto_reply(message("From: a@b.test\nAuto-Submitted: auto-replied (vacation)\n\n"))
    assert is_auto_reply(message("From: a@b.test\nSubject: Automatic reply: Hello\n\n"))
    assert is_auto_reply(
        message("From: a@b.test\nContent-Type: multipart/report; report-type=disposition-notification\n\n")
    )
    assert is_auto_reply(message("From: a@b.test\nSubject: Abwesenheitsnotiz: Hallo\n\n"))
    assert is_auto_reply(message("From: a@b.test\nSubject: =?utf-8?q?R=C3=A9ponse_automatique?= : x\n\n"))
    assert not is_auto_reply(message(report()))
    assert not is_auto_reply(message("From: MAILER-DAEMON@b.test\nAuto-Submitted: auto-replied\n\n"))
    assert not is_auto_reply(message("From: a@b.test\nAuto-Submitted: auto-replied\nX-Failed-Recipients: c@d.test\n\n"))
    assert not is_auto_reply(message("From: a@b.test\n\n"))


# --- before RFC 3464 --------------------------------------------------------------------------------------------------

QMAIL = """\
From: MAILER-DAEMON@mx.sink.test
To: SRS0=x@fwd.test
Subject: failure notice

Hi, this is the mail program at mx.sink.test. I could not deliver your message.

<dest@sink.test>:
192.0.2.9 does not like recipient.
Remote host said: 550 5.2.2 mailbox full

--- Below this line is a copy of the message.

Return-Path: <SRS0=x@fwd.test>
Received: from a by b; x
Message-ID: <1@sender.test>
From: bob@sender.test

Body.
"""
EXIM = """\
From: Mail Delivery System <Mailer-Daemon@mx.sink.test>
To: SRS0=x@fwd.test
X-Failed-Recipients: dest@sink.test,
  other@sink.test
Auto-Submitted: auto-replied
Subject: Warning: message delayed 24 hours

A message that you sent has not yet been delivered to dest@sink.test
"""


def test_a_report_in_plain_words_is_read() -> None:
    found = parse_report(message(QMAIL))
    assert found is not None
    status = RecipientStatus(
        Action.FAILED, None, "dest@sink.test", "5.2.2", "550 5.2.2 mailbox full", reason=Reason.MAILBOX_FULL
    )
    assert found.recipients == (status,)
    assert found.message_id == "<1@sender.test>"


def test_failed_recipients_in_the_header_are_read() -> None:
    found = parse_report(message(EXIM))
    assert found is not None
    assert [(one.final_recipient, one.action) for one in found.recipients] == [
        ("dest@sink.test", Action.DELAYED),
        ("other@sink.test", Action.DELAYED),
    ]


# --- hostile ----------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.binary(max_size=500) | st.text('-b1()\n: ;="/abcmultipart', max_size=300).map(str.encode))
def test_no_body_raises(body: bytes) -> None:
    body = body.replace(b"\r", b"").replace(b"\n", b"\r\n")
    for head in (
        b"From: MAILER-DAEMON@x.test\r\nSubject: failed\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b",
        b"Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\n",
        b"Content-Type: message/delivery-status\r\nContent-Transfer-Encoding: base64\r\n\r\n",
        b"Content-Type: ",
    ):
        try:
            parsed = parse_message(head + body)
        except MalformedMessage:
            continue
        parse_report(parsed)
        is_auto_reply(parsed)


_BOMBS = {
    "dashes": "-" * 600_000,
    "boundaries": "--b\n" * 100_000,
    "addresses": "a@b." * 100_000,
    "fields": "A: b\n" * 100_000,
    "folds": "A: b\n" + " c\n" * 100_000,
    "recipients": "Final-Recipient: rfc822; a@b.test\n" * 20_000,
    "types": "Content-Type: message/delivery-status\n" * 20_000,
    "spaces": " " * 600_000,
    "letters": "a" * 600_000,
}


@pytest.mark.parametrize("bomb", _BOMBS)
@pytest.mark.parametrize("kind", ["text/plain", "text/html", "multipart/report; boundary=b", "message/delivery-status"])
def test_a_bomb_costs_little(bomb: str, kind: str) -> None:
    parsed = message(f"From: MAILER-DAEMON@x.test\nContent-Type: {kind}\n\n{_BOMBS[bomb]}")
    started = time.process_time()
    parse_report(parsed)
    assert time.process_time() - started < 0.5


def test_parts_within_parts_end_at_a_depth() -> None:
    levels = "".join(f"--x{n}\nContent-Type: multipart/mixed; boundary=x{n + 1}\n\n" for n in range(2000))
    parsed = message("Content-Type: multipart/mixed; boundary=x0\n\n" + levels)
    assert len(list(walk_parts(parsed))) == 1


def test_the_number_of_parts_and_recipients_is_bounded() -> None:
    parsed = message("Content-Type: multipart/mixed; boundary=b\n\n" + "--b\n\nx\n" * 5000)
    assert len(list(walk_parts(parsed))) <= 51
    found = parse_report(message(report("Final-Recipient: rfc822; a@b.test\nAction: failed\n\n" * 1000)))
    assert found is not None
    assert len(found.recipients) == 100


def test_content_types_are_read_as_they_come() -> None:
    assert parse_content_type('Text / Plain (x) ; Charset = "a\\"b;" (y); b=c') == (
        "text/plain",
        {"charset": 'a"b;', "b": "c"},
    )
    assert parse_content_type("rubbish") == ("text/plain", {})


# --- writing ----------------------------------------------------------------------------------------------------------


def ours(**changes: object) -> bytes:
    line = RecipientReport(ALIAS, Action.FAILED, "5.1.1", "550 5.1.1 " + "no such user " * 10, "rfc822;Al+2Bias@x.test")
    arguments: dict[str, object] = {
        "id": "01JDX",
        "hostname": "mx.fwd.test",
        "to": BOB,
        "subject": "Undelivered mail",
        "text": "First line.\n\nLast line.",
        "recipients": [line],
        "returned_header": b"From: bob@sender.test\r\nSubject: x\r\n",
        "now": NOW,
        "envelope_id": "Q+2B1",
        "arrived_at": NOW,
        "references": "<1@sender.test>",
    }
    return build_dsn(**(arguments | changes))  # type: ignore[arg-type]


def test_our_report_is_a_report_for_every_reader() -> None:
    raw = ours()
    assert raw.isascii()
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert max(map(len, raw.splitlines())) <= 78
    parsed = email.message_from_bytes(raw, policy=email.policy.default)
    assert parsed.get_content_type() == "multipart/report"
    assert parsed["auto-submitted"] == "auto-replied"
    assert parsed["from"].addresses[0].addr_spec == "MAILER-DAEMON@mx.fwd.test"
    assert parsed["to"] == "bob@sender.test"
    assert parsed["references"] == "<1@sender.test>"
    assert parsed["date"].datetime == NOW
    assert not parsed.defects
    text, status, returned = parsed.iter_parts()
    assert text.get_content().splitlines() == ["First line.", "", "Last line."]
    about, recipient = cast("list[email.message.Message]", status.get_payload())
    assert dict(about.items()) == {
        "Original-Envelope-Id": "Q+1",
        "Reporting-MTA": "dns; mx.fwd.test",
        "Arrival-Date": "Mon, 23 Nov 2026 12:30:00 +0000",
    }
    assert recipient["original-recipient"] == "rfc822; Al+ias@x.test"
    assert recipient["final-recipient"] == "rfc822; alias@fwd.test"
    assert (recipient["action"], recipient["status"]) == ("failed", "5.1.1")
    assert returned.get_content_type() == "text/rfc822-headers"


def test_our_report_is_read_by_ourselves() -> None:
    found = parse_report(parse_message(ours()))
    assert found is not None
    assert found.recipients == (
        RecipientStatus(
            Action.FAILED,
            "Al+ias@x.test",
            "alias@fwd.test",
            "5.1.1",
            ("550 5.1.1 " + "no such user " * 10).strip(),
            reason=Reason.UNKNOWN_USER,
            hard=True,
        ),
    )
    assert found.returned_header == b"From: bob@sender.test\r\nSubject: x\r\n"


def test_a_utf8_alias_is_escaped_so_that_the_report_stays_ascii() -> None:
    raw = ours(recipients=[RecipientReport(Address("älias+x", "bücher.test"), Action.DELAYED, "4.0.0")])
    assert raw.isascii()
    assert rb"Final-Recipient: utf-8; \x{E4}lias\x{2B}x@b\x{FC}cher.test" in raw
    found = parse_report(parse_message(raw))
    assert found is not None
    assert found.recipients[0].final_recipient == "älias+x@bücher.test"


def test_a_header_that_is_not_ascii_is_returned_encoded() -> None:
    header = "Subject: Grüße\r\nMessage-ID: <1@x>\r\n".encode()
    raw = ours(returned_header=header)
    assert raw.isascii()
    found = parse_report(parse_message(raw))
    assert found is not None
    assert found.returned_header == header


def test_a_large_header_is_cut_and_long_lines_end() -> None:
    raw = ours(returned_header=b"X: " + b"y" * 2000 + b"\r\n" + b"A: b\r\n" * 20_000)
    assert len(raw) < 40_000
    assert max(map(len, raw.splitlines())) <= 998


def third_part(raw: bytes) -> email.message.Message:
    parts = email.message_from_bytes(raw, policy=email.policy.SMTP).get_payload()
    return cast(email.message.Message, cast(list[object], parts)[2])


def test_a_whole_message_is_returned_byte_for_byte() -> None:
    sent = b"Subject: x\r\n\r\nHello.\r\n--=_fake\r\n.\r\n"
    raw = ours(returned_message=sent)
    assert third_part(raw).get_content_type() == "message/rfc822"
    assert b"Content-Type: message/rfc822\r\n\r\n" + sent + b"\r\n--=_" in raw


@pytest.mark.parametrize(
    "body", [pytest.param("Grüße\r\n".encode(), id="8-bit"), pytest.param(b"x" * 999 + b"\r\n", id="a long line")]
)
def test_what_not_every_server_would_take_is_returned_encoded(body: bytes) -> None:
    raw = ours(returned_message=b"Subject: x\r\n\r\n" + body)
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    found = third_part(raw)
    assert found.get_content_type() == "message/global"
    assert b"".join(raw.partition(b"base64\r\n\r\n")[2].partition(b"\r\n--")[0].split()) == b64encode(
        b"Subject: x\r\n\r\n" + body
    )


def test_a_message_beyond_a_mebibyte_is_returned_by_its_header_only() -> None:
    line = b"x" * 62 + b"\r\n"
    fits = b"Subject: x" + b"x" * 48 + b"\r\n\r\n\r\n" + line * (1024 * 16 - 1)
    assert len(fits) == MAX_RETURNING_WHOLE
    assert third_part(ours(returned_message=fits)).get_content_type() == "message/rfc822"
    assert third_part(ours(returned_message=fits + b"\r\n")).get_content_type() == "text/rfc822-headers"


def test_until_when_a_delayed_message_is_tried_is_told() -> None:
    one = RecipientReport(ALIAS, Action.DELAYED, "4.4.1", retry_until=NOW)
    raw = ours(recipients=[one])
    assert b"Action: delayed\r\nStatus: 4.4.1\r\nWill-Retry-Until: Mon, 23 Nov 2026 12:30:00 +0000\r\n" in raw
    found = parse_report(parse_message(raw))
    assert found is not None
    assert [(one.action, one.status) for one in found.recipients] == [(Action.DELAYED, "4.4.1")]


def test_no_header_is_no_third_part() -> None:
    parsed = email.message_from_bytes(ours(returned_header=b""))
    assert [one.get_content_type() for one in parsed.get_payload()] == ["text/plain", "message/delivery-status"]  # type: ignore[union-attr]


def test_the_same_report_is_written_the_same_way() -> None:
    assert ours() == ours()
    assert ours() != ours(id="other")
