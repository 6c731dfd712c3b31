"""forwarder/mail/tlsreport.py: who wants a report about TLS, and what it says."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, date, datetime
from email import message_from_bytes, policy

import pytest

from forwarder.mail.tlsreport import MAX_ADDRESSES, Reporter, ReportPlace, build_json, build_report, parse_record
from forwarder.model import Address, TlsResult, TlsSession

US = Reporter("fwd.test", "mx.fwd.test", ("192.0.2.1", "2001:db8::1"))
DAY = date(2026, 11, 23)
NOW = datetime(2026, 11, 24, 1, tzinfo=UTC)
POLICY = ("version: STSv1", "mode: testing", "mx: *.a.test", "max_age: 86400")


@pytest.mark.parametrize(
    ("texts", "addresses"),
    [
        ([b"v=TLSRPTv1; rua=mailto:r@a.test"], ["r@a.test"]),
        ([b"v=TLSRPTv1;rua=mailto:r@a.test;"], ["r@a.test"]),
        ([b"v=TLSRPTv1; x=y; rua=https://a.test/r, mailto:r@a.test , MAILTO:s@b.test"], ["a.test/r", "r@a.test"]),
        ([b"v=TLSRPTv1; rua=mailto:r%2Bx@a.test?subject=hi"], ["r+x@a.test"]),
        ([b"v=TLSRPTv1; rua=mailto:r@a.test,mailto:r@a.test"], ["r@a.test"]),
        ([b"v=spf1 -all", b"v=TLSRPTv1; rua=mailto:r@a.test"], ["r@a.test"]),
        ([b"v=TLSRPTv1; rua=mailto:r@a.test"] * 2, []),
        ([b"v=TLSRPTv1; rua=https://A.test/r?x=1"], ["a.test/r?x=1"]),
        ([b"v=TLSRPTv1; rua=https://a.test:443"], ["a.test/"]),
        ([b"v=TLSRPTv1; rua=https://a.test:25/"], []),
        ([b"v=TLSRPTv1; rua=https://user@a.test/"], []),
        ([b"v=TLSRPTv1; rua=https://localhost/"], []),
        ([b"v=TLSRPTv1; rua=https://[::1]/"], []),
        ([b"v=TLSRPTv1; rua=https://a.test/ b"], []),
        ([b"v=TLSRPTv1; rua=https://a.test/\r\nx"], []),
        ([b"v=TLSRPTv1; rua=http://a.test/r"], []),
        ([b"v=TLSRPTv1; rua=mailto:"], []),
        ([b"v=TLSRPTv1; rua=mailto:r@a.test%0d%0aBcc:x@b.test"], []),
        ([b"v=TLSRPTv1; rua=mailto:\xff@a.test"], []),
        ([b"v=TLSRPTv1"], []),
        ([b"v=TLSRPTv2; rua=mailto:r@a.test"], []),
        ([], []),
    ],
)
def test_the_record_says_who_wants_one(texts: list[bytes], addresses: list[str]) -> None:
    found = [f"{one.host}{one.path}" if isinstance(one, ReportPlace) else str(one) for one in parse_record(texts)]
    assert found == addresses


def test_a_few_addresses_get_one() -> None:
    many = b"v=TLSRPTv1; rua=" + b",".join(b"mailto:r%d@a.test" % number for number in range(50))
    assert len(parse_record([many])) == MAX_ADDRESSES


COUNTS = {
    TlsSession("a.test", "sts", POLICY, ("*.a.test",)): 5,
    TlsSession("a.test", "sts", POLICY, ("*.a.test",), TlsResult.EXPIRED, "mx.a.test", "198.51.100.1", "it is old"): 2,
    TlsSession("a.test", "sts", POLICY, ("*.a.test",), TlsResult.HOST_MISMATCH, "mx.a.test", "2001:db8::9"): 1,
    TlsSession("a.test", "no-policy-found"): 7,
}


def test_the_report_counts_by_policy() -> None:
    report = json.loads(build_json(US, "a.test", DAY, COUNTS))
    assert report["organization-name"] == "fwd.test"
    assert report["date-range"] == {
        "start-datetime": "2026-11-23T00:00:00Z",
        "end-datetime": "2026-11-23T23:59:59Z",
    }
    assert report["contact-info"] == "postmaster@fwd.test"
    none, sts = report["policies"]
    assert none == {
        "policy": {"policy-type": "no-policy-found", "policy-domain": "a.test"},
        "summary": {"total-successful-session-count": 7, "total-failure-session-count": 0},
    }
    assert sts["policy"] == {
        "policy-type": "sts",
        "policy-domain": "a.test",
        "policy-string": list(POLICY),
        "mx-host": ["*.a.test"],
    }
    assert sts["summary"] == {"total-successful-session-count": 5, "total-failure-session-count": 3}
    assert sts["failure-details"] == [
        {
            "result-type": "certificate-expired",
            "sending-mta-ip": "192.0.2.1",
            "receiving-mx-hostname": "mx.a.test",
            "receiving-ip": "198.51.100.1",
            "failed-session-count": 2,
            "failure-reason-code": "it is old",
        },
        {
            "result-type": "certificate-host-mismatch",
            "sending-mta-ip": "2001:db8::1",
            "receiving-mx-hostname": "mx.a.test",
            "receiving-ip": "2001:db8::9",
            "failed-session-count": 1,
        },
    ]


def test_the_message_is_what_the_rfc_shows() -> None:
    raw = build_report(US, Address("r", "a.test"), "a.test", DAY, COUNTS, now=NOW)
    message = message_from_bytes(raw, policy=policy.default)
    assert raw.count(b"\n") == raw.count(b"\r\n")
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert (message["From"], message["To"]) == ("TLS reports <postmaster@fwd.test>", "r@a.test")
    assert message["Subject"].startswith("Report Domain: a.test\tSubmitter: fwd.test\tReport-ID: <2026-11-23.")
    assert (message["TLS-Report-Domain"], message["TLS-Report-Submitter"]) == ("a.test", "fwd.test")
    assert message["TLS-Required"] == "No"
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "tlsrpt"
    text, report = message.iter_parts()
    assert text.get_content_type() == "text/plain"
    assert report.get_content_type() == "application/tlsrpt+gzip"
    assert report.get_filename() == "fwd.test!a.test!1795392000!1795478399.json.gz"
    assert gzip.decompress(report.get_content()) == build_json(US, "a.test", DAY, COUNTS)


def test_the_same_report_is_the_same_whoever_writes_it() -> None:
    first, second = (build_report(US, Address("r", "a.test"), "a.test", DAY, COUNTS, now=NOW) for _ in range(2))
    assert first == second
