"""Bounces and complaints that Amazon SES writes in JSON."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from forwarder.mail.arf import ComplaintKind, parse_complaint
from forwarder.mail.dsn import Action, Reason, RecipientStatus, parse_report
from forwarder.model import Message
from tests.fakes import message

BOUNCE: dict[str, Any] = {
    "notificationType": "Bounce",
    "bounce": {
        "bounceType": "Permanent",
        "bouncedRecipients": [
            {
                "emailAddress": "dest@sink.test",
                "status": "5.1.1",
                "action": "failed",
                "diagnosticCode": "smtp; 550 5.1.1 user unknown",
            },
            {"emailAddress": "other@sink.test", "action": "delayed"},
        ],
        "reportingMTA": "dsn; mx.ses.test",
    },
    "mail": {"messageId": "ses-1", "commonHeaders": {"messageId": "<1@sender.test>"}},
}
COMPLAINT: dict[str, Any] = {
    "notificationType": "Complaint",
    "complaint": {
        "complainedRecipients": [{"emailAddress": "dest@sink.test"}],
        "complaintFeedbackType": "abuse",
        "userAgent": "SES",
    },
    "mail": {"source": "bob@sender.test", "sourceIp": "192.0.2.1", "commonHeaders": {"messageId": "<1@sender.test>"}},
}


def notice(body: str) -> Message:
    return message(f"From: no-reply@sns.test\nSubject: AWS Notification Message\nContent-Type: text/plain\n\n{body}")


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_bounce_is_read(wrapped: bool) -> None:
    text = json.dumps(BOUNCE)
    text = json.dumps({"Type": "Notification", "Message": text}) if wrapped else text
    text = text[:300] + "\n " + text[300:] + "\n\n--\nTo unsubscribe, click here"
    found = parse_report(notice(text))
    assert found is not None
    assert found.recipients == (
        RecipientStatus(
            Action.FAILED,
            None,
            "dest@sink.test",
            "5.1.1",
            "550 5.1.1 user unknown",
            reason=Reason.UNKNOWN_USER,
            hard=True,
        ),
        RecipientStatus(Action.DELAYED, None, "other@sink.test", "4.0.0"),
    )
    assert (found.reporting_mta, found.message_id) == ("mx.ses.test", "<1@sender.test>")
    assert parse_complaint(notice(text)) is None


def test_a_complaint_is_read() -> None:
    found = parse_complaint(notice(json.dumps(COMPLAINT)))
    assert found is not None
    assert (found.kind, found.recipients, found.mail_from) == (
        ComplaintKind.ABUSE,
        ("dest@sink.test",),
        "bob@sender.test",
    )
    assert (found.source_ip, found.message_id, found.user_agent) == ("192.0.2.1", "<1@sender.test>", "SES")
    assert parse_report(notice(json.dumps(COMPLAINT))) is None


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[]",
        "{}",
        '{"Message": 1}',
        '{"Message": "x"}',
        '{"notificationType": "Bounce"}',
        '{"notificationType": "Bounce", "bounce": []}',
        '{"notificationType": "Bounce", "bounce": {"bouncedRecipients": {}}}',
        '{"notificationType": "Bounce", "bounce": {"bouncedRecipients": [1, {"emailAddress": 1}, {}]}}',
        '{"notificationType": "Complaint", "complaint": 1}',
        '{"notificationType": "Delivery", "delivery": {"recipients": ["a@b.test"]}}',
        '{"a":' * 10_000,
        '{"a":' + "[" * 60_000,
    ],
)
def test_other_json_is_nothing(body: str) -> None:
    parsed = notice(body)
    started = time.process_time()
    assert parse_report(parsed) is None
    assert parse_complaint(parsed) is None
    assert time.process_time() - started < 0.25


def test_what_is_kept_is_bounded() -> None:
    many = [{"emailAddress": f"a{number}@b.test", "diagnosticCode": "x" * 5000} for number in range(8)] * 10
    bounce = {"notificationType": "Bounce", "bounce": {"bouncedRecipients": many[:10]}}
    found = parse_report(notice(json.dumps(bounce)))
    assert found is not None
    assert max(len(one.diagnostic or "") for one in found.recipients) == 1000
    short = [{"emailAddress": f"a{number}@b.test"} for number in range(500)]
    found = parse_report(notice(json.dumps({"notificationType": "Bounce", "bounce": {"bouncedRecipients": short}})))
    assert found is not None
    assert len(found.recipients) == 50
