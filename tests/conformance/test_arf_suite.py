"""Complaints of many feedback loops: recognised, told apart, and with the recipient they are about."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from forwarder.mail.arf import Complaint, ComplaintKind, parse_complaint
from forwarder.mail.dsn import parse_report
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.model import Message
from tests.suites import suite

#: What the suite says where no recipient is named.
_NOBODY = "undisclosed-recipient-in-headers@libsisimai.org.invalid"


def _load(file: Path) -> Message:
    raw = file.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    if raw.startswith(b"From "):
        raw = raw.partition(b"\r\n")[2]
    return parse_message(raw)


def _complaint(file: Path) -> Complaint:
    found = parse_complaint(_load(file))
    assert found is not None, file.name
    return found


def test_the_reports_of_email_arf_are_read() -> None:
    folder = suite("arf-email-arf")
    files = sorted(folder.glob("*.msg"))
    assert len(files) == 3
    kinds = [_complaint(one).kind for one in files]
    assert kinds == [ComplaintKind.ABUSE, ComplaintKind.OPT_OUT, ComplaintKind.ABUSE]
    full = _complaint(folder / "example2.msg")
    assert (full.mail_from, full.recipients) == ("somespammer@example.net", ("user@example.com",))


def test_feedback_loops_are_read_with_kind_and_recipients() -> None:
    folder = suite("arf-sisimai")
    for name, expected in json.loads((folder / "expected.json").read_text()).items():
        found = _complaint(folder / "messages" / name)
        labels = expected["sisimai"]
        assert found.kind == labels[0]["feedbacktype"], name
        assert [one.lower() for one in found.recipients] == [
            one["recipient"] for one in labels if one["recipient"] != _NOBODY
        ], name
        # A Message-ID without angle brackets is none for the suite.
        if labels[0].get("messageid"):
            assert found.message_id is not None, name
            assert found.message_id.strip("<>") == labels[0]["messageid"], name


def test_no_complaint_is_a_failed_delivery() -> None:
    folder = suite("arf-sisimai")
    for file in sorted((folder / "messages").iterdir()):
        assert parse_report(_load(file)) is None, file.name


def test_no_bounce_is_a_complaint() -> None:
    folder = suite("bounces-sisimai")
    expected = json.loads((folder / "expected.json").read_text())
    for file in sorted((folder / "messages").iterdir()):
        if {one["reason"] for one in expected[file.name]["sisimai"]} & {"feedback"}:
            continue
        try:
            assert parse_complaint(_load(file)) is None, file.name
        except MalformedMessage:
            continue


_KINDS = {"Abuse": ComplaintKind.ABUSE, "AuthFailure": ComplaintKind.AUTH_FAILURE, "Fraud": ComplaintKind.FRAUD}


@pytest.mark.parametrize("number", ["001", "002", "003", "004", "005"])
def test_each_field_of_stalwart_s_reports_is_read(number: str) -> None:
    folder = suite("arf-stalwart")
    file = folder / f"{number}.eml"
    if not file.exists():
        pytest.skip(f"{file.name} is not in this half of the suite")
    wanted: dict[str, Any] = json.loads(file.with_suffix(".json").read_text())
    found = _complaint(file)
    assert found.kind is _KINDS[wanted["feedback_type"]]
    arrival = wanted["arrival_date"]
    assert found.arrived_at == (datetime.fromtimestamp(arrival, UTC) if arrival else None)
    assert [" ".join(one.split()) for one in wanted["authentication_results"]] == list(found.authentication_results)
    assert found.incidents == wanted["incidents"]
    assert found.envelope_id == wanted["original_envelope_id"]
    assert (found.mail_from or "") == (wanted["original_mail_from"] or "").strip("<>")
    assert found.reported_domains == tuple(wanted["reported_domain"])
    assert found.reported_uris == tuple(wanted["reported_uri"])
    assert found.reporting_mta == wanted["reporting_mta"]
    assert found.source_ip == wanted["source_ip"]
    assert found.user_agent == wanted["user_agent"]
    assert found.dkim_domain == wanted["dkim_domain"]
    if wanted["original_rcpt_to"]:
        assert found.recipients == (wanted["original_rcpt_to"].strip("<>"),)
    if wanted["auth_failure"] != "Unspecified":
        assert found.auth_failure == wanted["auth_failure"].lower()
