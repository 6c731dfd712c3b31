"""What does a complaint say? Feedback reports (ARF: RFC 5965, as RFC 6650 uses them), reports of failed authentication in the
same frame (RFC 6591), and what Microsoft, Apple and Amazon send instead.

All of it is a claim of whoever sent it. It is bounded and put into fields; what of it concerns us is for others to find,
by our own signatures, the Message-ID and the addresses in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from ipaddress import ip_address
from typing import Any

from forwarder.mail.header import unfold
from forwarder.mail.jsonnotice import message_id_of, read_json_notice, rows_in, table_in, text_in
from forwarder.mail.mime import Part, decoded, parse_fields, walk_parts
from forwarder.mail.notice import MAILBOX
from forwarder.mail.report import header_of, message_id_in
from forwarder.model import Message

__all__ = ["Complaint", "ComplaintKind", "parse_complaint"]

#: Values that are kept of a field that may stand several times (RFC 5965 section 3.2).
MAX_VALUES = 50
#: Signatures of a returned header whose domains are kept.
MAX_SIGNERS = 20
#: Characters of one value that are kept.
_MAX_VALUE = 1000
#: RFC 5965 section 3.2: "Incidents" is a count; nobody reports more in one message.
_MAX_INCIDENTS = 1_000_000

_REPORT_TYPE = "message/feedback-report"
_MESSAGE_TYPES = ("message/rfc822", "message/global")
_HEADER_TYPES = ("text/rfc822-headers", "message/rfc822-headers", "message/global-headers", "text/rfc822-header")
#: Who is said to have signed what was returned (RFC 6376 section 3.5, RFC 8617 section 4.1.3, docs/mailkey.md).
_SIGNATURES = ("dkim-signature", "mailkey-signature", "arc-seal")
_DOMAIN_TAG = re.compile(r"(?:^|;)\s*d\s*=\s*([A-Za-z0-9_.\s-]{1,255}?)\s*(?:;|$)")
_MAILBOX = re.compile(MAILBOX)
_IP = re.compile(r"(?<![0-9A-Za-z.:])([0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f:]{3,39})(?![0-9A-Za-z.:])")


class ComplaintKind(StrEnum):
    """RFC 5965 section 7.3 and the registry that it opens."""

    ABUSE = "abuse"
    FRAUD = "fraud"
    VIRUS = "virus"
    NOT_SPAM = "not-spam"
    #: RFC 6591: no complaint of a person; a receiver could not authenticate the message.
    AUTH_FAILURE = "auth-failure"
    OPT_OUT = "opt-out"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Complaint:
    """What was found. Addresses and domains are text as it stands, without angle brackets; ``None`` and ``()``: not said.

    ``recipients``: who got the message. ``mail_from``: its envelope sender; ``return_path``: the same as the returned header
    has it. ``signers``: domains that signed the returned message, as it says itself.
    """

    kind: ComplaintKind
    recipients: tuple[str, ...] = ()
    mail_from: str | None = None
    envelope_id: str | None = None
    source_ip: str | None = None
    arrived_at: datetime | None = None
    incidents: int = 1
    user_agent: str | None = None
    version: str | None = None
    reporting_mta: str | None = None
    reported_domains: tuple[str, ...] = ()
    reported_uris: tuple[str, ...] = ()
    removal_recipients: tuple[str, ...] = ()
    authentication_results: tuple[str, ...] = ()
    #: RFC 6591 section 3.1
    auth_failure: str | None = None
    delivery_result: str | None = None
    dkim_domain: str | None = None
    returned_header: bytes = b""
    message_id: str | None = None
    return_path: str | None = None
    signers: tuple[str, ...] = ()


def parse_complaint(message: Message) -> Complaint | None:
    """The complaint in this message; ``None`` where it is none. Never raises."""
    report: Part | None = None
    returned = b""
    for part in walk_parts(message):
        if part.content_type == _REPORT_TYPE:
            report = report or part
        elif not returned and part.content_type in _MESSAGE_TYPES + _HEADER_TYPES:
            returned = header_of(decoded(part))
    header = _grouped(returned)
    if report is not None:
        return _of_report(_grouped(decoded(report)), header, returned)
    if "x-hmxmroriginalrecipient" in header:
        return _of_microsoft(message, header, returned)
    if _value(message, b"x-apple-unsubscribe").lower() == "true":
        return Complaint(ComplaintKind.OPT_OUT, tuple(_MAILBOX.findall(_value(message, b"from"))[:1]))
    return _of_json(read_json_notice(message, "Complaint"))


def _of_report(fields: dict[str, list[str]], header: dict[str, list[str]], returned: bytes) -> Complaint:
    """RFC 5965 section 3"""

    def first(*names: str) -> str | None:
        return next((fields[name][0] for name in names if fields.get(name, [""])[0]), None)

    recipients = tuple(_bare(one) for one in fields.get("original-rcpt-to", ()))
    return Complaint(
        kind=_kind(first("feedback-type") or ""),
        recipients=recipients or _addressee(header),
        mail_from=_bare_or_none(first("original-mail-from")),
        envelope_id=first("original-envelope-id"),
        source_ip=_ip(first("source-ip") or ""),
        # Received-Date: as the drafts had it.
        arrived_at=_date(first("arrival-date", "received-date") or ""),
        incidents=_incidents(first("incidents") or ""),
        user_agent=first("user-agent"),
        version=first("version"),
        reporting_mta=_typed(first("reporting-mta")),
        reported_domains=tuple(one.lower() for one in fields.get("reported-domain", ())),
        reported_uris=tuple(fields.get("reported-uri", ())),
        removal_recipients=tuple(_bare(one) for one in fields.get("removal-recipient", ())),
        authentication_results=tuple(fields.get("authentication-results", ())),
        auth_failure=_word(first("auth-failure")),
        delivery_result=_word(first("delivery-result")),
        dkim_domain=first("dkim-domain"),
        **_returned(header, returned),
    )


def _of_microsoft(message: Message, header: dict[str, list[str]], returned: bytes) -> Complaint:
    """The Junk Mail Reporting Program returns the message in its own words: who got it stands in its header, from where it came
    in the subject."""
    return Complaint(
        kind=ComplaintKind.ABUSE,
        recipients=tuple(_bare(one) for one in header["x-hmxmroriginalrecipient"]),
        mail_from=_bare_or_none(next(iter(header.get("x-sid-pra", ())), None)),
        source_ip=_ip(_value(message, b"subject")),
        **_returned(header, returned),
    )


def _of_json(notice: dict[str, Any]) -> Complaint | None:
    """Amazon SES, where it is told to write of complaints itself."""
    said = table_in(notice, "complaint")
    if not said:
        return None
    mail = table_in(notice, "mail")
    recipients = [text_in(one, "emailAddress") for one in rows_in(said, "complainedRecipients")]
    return Complaint(
        kind=_kind(text_in(said, "complaintFeedbackType") or ""),
        recipients=tuple(one for one in recipients if one),
        mail_from=text_in(mail, "source"),
        source_ip=_ip(text_in(mail, "sourceIp") or ""),
        user_agent=text_in(said, "userAgent"),
        message_id=message_id_of(notice),
    )


def _returned(header: dict[str, list[str]], returned: bytes) -> dict[str, Any]:
    return {
        "returned_header": returned,
        "message_id": message_id_in(returned),
        "return_path": _bare_or_none(next(iter(header.get("return-path", ())), None)),
        "signers": _signers(header),
    }


def _kind(text: str) -> ComplaintKind:
    """RFC 5965 section 3.1: one that is not known is "other"."""
    word = _word(text) or ""
    try:
        return ComplaintKind("opt-out" if word.startswith("opt-out") else word)
    except ValueError:
        return ComplaintKind.OTHER


def _signers(header: dict[str, list[str]]) -> tuple[str, ...]:
    domains: dict[str, None] = {}
    for name in _SIGNATURES:
        for value in header.get(name, ()):
            tag = _DOMAIN_TAG.search(value)
            if tag:
                domains["".join(tag[1].split()).lower()] = None
    return tuple(domains)[:MAX_SIGNERS]


def _addressee(header: dict[str, list[str]]) -> tuple[str, ...]:
    """Whom the returned message was for, where it names one address only."""
    found = _MAILBOX.findall(" ".join(header.get("to", ())))
    return (found[0],) if len(found) == 1 else ()


def _grouped(fields: bytes) -> dict[str, list[str]]:
    """Every value of each field, in order."""
    found: dict[str, list[str]] = {}
    for name, value in parse_fields(fields):
        values = found.setdefault(name, [])
        if len(values) < MAX_VALUES:
            values.append(" ".join(value.split())[:_MAX_VALUE])
    return found


def _bare(text: str) -> str:
    inner = re.search(r"<([^<>]*)>", text)
    return (inner[1] if inner else _typed(text) or "").strip()


def _bare_or_none(text: str | None) -> str | None:
    return _bare(text) if text is not None else None


def _typed(text: str | None) -> str | None:
    """RFC 3464 section 2.1.2: what stands behind ``type;``."""
    return text.rpartition(";")[2].strip() or None if text is not None else None


def _word(text: str | None) -> str | None:
    match = re.match(r"[A-Za-z0-9_-]{1,40}", text or "")
    return match[0].lower() if match else None


def _ip(text: str) -> str | None:
    for found in _IP.findall(text[:_MAX_VALUE]):
        try:
            return str(ip_address(found))
        except ValueError:
            continue
    return None


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
        # A date that names no zone is taken for one in UTC (RFC 5322 section 3.3, "-0000").
        return found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _incidents(text: str) -> int:
    count = re.match(r"[0-9]{1,9}", text)
    return min(max(int(count[0]), 1), _MAX_INCIDENTS) if count else 1


def _value(message: Message, name: bytes) -> str:
    field = message.first(name)
    return unfold(field.value).decode("latin-1")[:_MAX_VALUE] if field is not None else ""
