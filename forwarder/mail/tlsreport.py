"""What does a report about TLS look like, and who wants one? RFC 8460: the record, the JSON, and the message around it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import unquote

from forwarder.mail.address import AddressError, parse_address, wire
from forwarder.mail.date import render_date
from forwarder.model import Address, TlsResult, TlsSession

__all__ = ["MAX_ADDRESSES", "ReportPlace", "Reporter", "build_json", "build_report", "pack", "parse_record"]

#: Addresses and places of one record that get a report.
MAX_ADDRESSES = 2

_VERSION = re.compile(rb"v=TLSRPTv1[ \t]*;")
# RFC 3986, as far as we go along: a host name, no user, and no port but HTTPS's own.
_HTTPS = re.compile(
    rb"//((?=[^/:]{1,253}(?:[:/]|\Z))[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})+)(?::443)?((?:/[A-Za-z0-9._~!$&'()*+=:@%/?-]{0,500})?)"
)


@dataclass(frozen=True, slots=True)
class Reporter:
    """``domain`` is who reports, and signs. ``sources``: the addresses that connections come from, where they are known."""

    domain: str
    hostname: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportPlace:
    """Where a report may be posted, by HTTPS at its own port."""

    host: str
    path: str


def parse_record(texts: Sequence[bytes]) -> tuple[Address | ReportPlace, ...]:
    """RFC 8460 section 3: where the TXT record wants reports sent to. Of several records none counts."""
    ours = [one for one in texts if _VERSION.match(one)]
    if len(ours) != 1:
        return ()
    fields = [one.strip(b" \t") for one in ours[0].split(b";")[1:]]
    found = next((one[4:] for one in fields if one.startswith(b"rua=")), b"")
    places = [_place(one.strip(b" \t")) for one in found.split(b",")]
    return tuple(dict.fromkeys(one for one in places if one is not None))[:MAX_ADDRESSES]


def _place(uri: bytes) -> Address | ReportPlace | None:
    scheme, _, rest = uri.partition(b":")
    if scheme.lower() == b"https":
        match = _HTTPS.fullmatch(rest)
        return ReportPlace(match[1].decode().lower(), match[2].decode() or "/") if match is not None else None
    if scheme.lower() != b"mailto":
        return None
    try:
        # RFC 6068: what follows a question mark are header fields, and nothing of ours.
        return parse_address(unquote(rest.partition(b"?")[0].decode("ascii"), errors="strict"))
    except (AddressError, UnicodeDecodeError):
        return None


# --- the report


def build_json(reporter: Reporter, domain: str, day: date, counts: Mapping[TlsSession, int]) -> bytes:
    """RFC 8460 section 4.4."""
    by_policy: dict[tuple[str, tuple[str, ...], tuple[str, ...]], dict[TlsSession, int]] = {}
    for session, count in counts.items():
        by_policy.setdefault((session.kind, session.policy, session.patterns), {})[session] = count
    start = datetime.combine(day, time(), UTC)
    report = {
        "organization-name": reporter.domain,
        "date-range": {
            "start-datetime": _instant(start),
            "end-datetime": _instant(start + timedelta(days=1, seconds=-1)),
        },
        "contact-info": f"postmaster@{reporter.domain}",
        "report-id": _report_id(reporter, domain, day),
        "policies": [_policy(reporter, domain, *key, sessions) for key, sessions in sorted(by_policy.items())],
    }
    return json.dumps(report, ensure_ascii=True, indent=1).encode()


def _policy(
    reporter: Reporter,
    domain: str,
    kind: str,
    policy: tuple[str, ...],
    patterns: tuple[str, ...],
    counts: Mapping[TlsSession, int],
) -> dict[str, Any]:
    said: dict[str, Any] = {"policy-type": kind, "policy-domain": domain}
    if policy:
        said["policy-string"] = list(policy)
    if patterns:
        said["mx-host"] = list(patterns)
    failed = {one: count for one, count in counts.items() if one.result is not TlsResult.SUCCESS}
    summary = {
        "total-successful-session-count": sum(counts.values()) - sum(failed.values()),
        "total-failure-session-count": sum(failed.values()),
    }
    details = [_failure(reporter, one, count) for one, count in failed.items()]
    return {"policy": said, "summary": summary, **({"failure-details": details} if details else {})}


def _failure(reporter: Reporter, session: TlsSession, count: int) -> dict[str, Any]:
    same_family = [one for one in reporter.sources if (":" in one) == (":" in session.address)]
    details = {
        "result-type": session.result.value,
        "sending-mta-ip": same_family[0] if same_family else "",
        "receiving-mx-hostname": session.host,
        "receiving-ip": session.address,
        "failed-session-count": count,
        "failure-reason-code": session.reason,
    }
    return {name: value for name, value in details.items() if value != ""}


def pack(report: bytes) -> bytes:
    """RFC 8460 section 5: application/tlsrpt+gzip; the same octets each time."""
    return gzip.compress(report, mtime=0)


def build_report(
    reporter: Reporter, to: Address, domain: str, day: date, counts: Mapping[TlsSession, int], *, now: datetime
) -> bytes:
    """RFC 8460 section 5.3: the whole message, to be signed."""
    report_id = _report_id(reporter, domain, day)
    start = int(datetime.combine(day, time(), UTC).timestamp())
    file = f"{reporter.domain}!{domain}!{start}!{start + 86399}.json.gz"
    packed = pack(build_json(reporter, domain, day, counts))
    boundary = "=_" + hashlib.sha256(packed).hexdigest()[:40]
    subject = f"Report Domain: {domain}\r\n\tSubmitter: {reporter.domain}\r\n\tReport-ID: <{report_id}>"
    text = (
        f"This is an aggregate TLS report (RFC 8460) of {reporter.domain} about connections to the mail hosts of\r\n"
        f"{domain} on {day.isoformat()} (UTC).\r\n"
    )
    lines = [
        f"From: TLS reports <postmaster@{reporter.domain}>",
        f"To: {wire(to).decode()}",
        f"Subject: {subject}",
        f"Date: {render_date(now)}",
        f"Message-ID: <{report_id}>",
        f"TLS-Report-Domain: {domain}",
        f"TLS-Report-Submitter: {reporter.domain}",
        # RFC 8689 section 4.2.2: a report about TLS that is broken must not need it.
        "TLS-Required: No",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type="tlsrpt";\r\n\tboundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        text,
        f"--{boundary}",
        "Content-Type: application/tlsrpt+gzip",
        "Content-Transfer-Encoding: base64",
        f'Content-Disposition: attachment;\r\n\tfilename="{file}"',
        "",
        base64.encodebytes(packed).decode().replace("\n", "\r\n").rstrip(),
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode()


def _report_id(reporter: Reporter, domain: str, day: date) -> str:
    """The same for the same report, so that two processes write one."""
    return f"{day.isoformat()}.{hashlib.sha256(domain.encode()).hexdigest()[:16]}@{reporter.hostname}"


def _instant(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
