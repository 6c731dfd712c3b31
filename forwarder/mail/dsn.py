"""What does a delivery report say, and how is one written? RFC 3464 in the frame of RFC 6522, with RFC 6533 for UTF-8.

Reading: whatever the report claims is a claim. It is bounded, decoded and put into fields; nothing of it is believed
here. Writing: always 7-bit, so that it can go to every server. The only 8-bit octets that can stand in it are those of
the recipient's own address, whose server takes them.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from forwarder.mail.address import ascii_domain, wire
from forwarder.mail.date import render_date
from forwarder.mail.explain import explain
from forwarder.mail.jsonnotice import parse_json_report
from forwarder.mail.mime import MAX_BODY, decoded, parse_fields, walk_parts
from forwarder.mail.notice import MAILBOX, NO_NOTICE, read_notice
from forwarder.mail.oldbounce import parse_old_report
from forwarder.mail.reasons import Rules, standard_rules
from forwarder.mail.report import Action, Reason, RecipientStatus, Report, header_of, message_id_in
from forwarder.model import Address, Message

__all__ = [
    "MAX_RETURNING",
    "MAX_RETURNING_WHOLE",
    "Action",
    "Reason",
    "RecipientReport",
    "RecipientStatus",
    "Report",
    "build_dsn",
    "original_recipient",
    "parse_report",
    "unxtext",
]

#: Recipients of one report that are read.
MAX_RECIPIENTS = 100
#: Octets of a header that we return. Postfix returns 50 KB of a message in all.
MAX_RETURNING = 32 * 1024
#: Octets of a whole message that we return where RET=FULL asks for it (RFC 3461 section 4.3).
MAX_RETURNING_WHOLE = 1024 * 1024
#: RFC 5322 section 2.1.1
_MAX_LINE = 998
_FOLD_AT = 78
_MAX_DIAGNOSTIC = 2000

_STATUS_TYPES = ("message/delivery-status", "message/global-delivery-status")
_MESSAGE_TYPES = ("message/rfc822", "message/global")
_HEADER_TYPES = ("text/rfc822-headers", "message/rfc822-headers", "message/global-headers", "text/rfc822-header")
_STATUS_CODE = re.compile(r"(?<![0-9.])([245])\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9.])")
_STATUS_LINE = re.compile(rb"^content-type:[ \t]*message/(?:global-)?delivery-status\b", re.IGNORECASE | re.MULTILINE)
_RETURNED_LINE = re.compile(
    rb"^content-type:[ \t]*(?:message/(?:rfc822|global)(?:-headers)?|text/rfc822-headers)\b",
    re.IGNORECASE | re.MULTILINE,
)
_EMPTY_LINE = re.compile(rb"\r?\n\r?\n")
_ANY_DELIMITER = re.compile(rb"\r?\n[ \t]*--")
_TYPED = re.compile(r"\s*([A-Za-z0-9.-]+)\s*;\s*(.*)\Z", re.DOTALL)
_ESCAPED = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")


# --- reading ----------------------------------------------------------------------------------------------------------


def parse_report(message: Message, rules: Rules | None = None) -> Report | None:
    """The delivery report in this message, in this format or an older one; ``None`` where it is none. ``rules`` tell why each
    delivery failed; ``None``: those of this package. Never raises."""
    rules = rules or standard_rules()
    found = parse_json_report(message)
    if found is not None:
        return explain(found, NO_NOTICE, rules)
    notice = read_notice(message)
    found = _parse_standard(message) or parse_old_report(message, notice)
    return explain(found, notice, rules) if found is not None else None


def _parse_standard(message: Message) -> Report | None:
    status = b""
    returned = b""
    for part in walk_parts(message):
        if not status and part.content_type in _STATUS_TYPES:
            status = decoded(part)
        elif not returned and part.content_type in _MESSAGE_TYPES + _HEADER_TYPES:
            returned = header_of(decoded(part))
    if not status:
        # Gateways rewrite boundaries or wrap the report into a part of their own.
        status, returned = _scan(message.body[:MAX_BODY])
    about, recipients = _parse_status(status)
    if not recipients:
        return None
    return Report(
        tuple(recipients),
        _typed(about.get("reporting-mta")),
        about.get("original-envelope-id"),
        returned,
        message_id_in(returned),
    )


def _scan(body: bytes) -> tuple[bytes, bytes]:
    """The status part and the returned header where no boundary leads to them: found by their Content-Type lines."""
    found = []
    at = 0
    for pattern in (_STATUS_LINE, _RETURNED_LINE):
        line = pattern.search(body, at)
        begin = _EMPTY_LINE.search(body, line.end()) if line else None
        if begin is None:
            found.append(b"")
            continue
        end = _ANY_DELIMITER.search(body, begin.end())
        at = end.start() if end else len(body)
        found.append(body[begin.end() : at])
    return found[0], header_of(found[1])


def _parse_status(body: bytes) -> tuple[dict[str, str], list[RecipientStatus]]:
    """RFC 3464 section 2.1: the fields about the message, then a group for each recipient.

    Groups are told apart by their fields, not by the empty lines, which some writers add and some leave out.
    """
    about: dict[str, str] = {}
    groups: list[dict[str, str]] = []
    for name, value in parse_fields(body):
        begins = name in ("original-recipient", "final-recipient")
        if begins and (not groups or name in groups[-1] or _is_complete(groups[-1])):
            if len(groups) == MAX_RECIPIENTS:
                break
            groups.append({})
        (groups[-1] if groups else about).setdefault(name, value)
    return about, [_recipient(group) for group in groups]


def _is_complete(group: dict[str, str]) -> bool:
    return "final-recipient" in group and "action" in group


def _recipient(group: dict[str, str]) -> RecipientStatus:
    code = _STATUS_CODE.search(group.get("status", ""))
    status = f"{code[1]}.{int(code[2])}.{int(code[3])}" if code else None
    word = re.match(r"[a-z]+", group.get("action", "").lower())
    try:
        action = Action(word[0] if word else "")
    except ValueError:
        # Some write "failure" or nothing. What is no delay and no success is a failure.
        action = {"4": Action.DELAYED, "2": Action.DELIVERED}.get(status[0] if status else "", Action.FAILED)
    # PowerMTA says in a word of its own what the reply means.
    said = [_typed(group.get("diagnostic-code")), group.get("x-powermta-bouncecategory")]
    diagnostic = " ".join(one if at == 0 else f"({one})" for at, one in enumerate(said) if one)
    return RecipientStatus(
        action,
        _mailbox(group.get("original-recipient")),
        _mailbox(group.get("final-recipient")),
        status,
        diagnostic[:_MAX_DIAGNOSTIC] or None,
        _typed(group.get("remote-mta")),
    )


def _typed(value: str | None) -> str | None:
    """RFC 3464 section 2.1.2: what stands behind ``type;``."""
    if value is None:
        return None
    match = _TYPED.match(value)
    return (match[2] if match else value).strip() or None


def _mailbox(value: str | None) -> str | None:
    text = _typed(value)
    if text is None:
        return None
    # RFC 6533 section 3: \x{HEX}
    text = _ESCAPED.sub(lambda match: chr(min(int(match[1], 16), 0x10FFFF)), text)
    # Exim names the pipe that failed, with the address it was for among its words.
    inner = re.search(rf"(?<![^\s\"])({MAILBOX})", text) if text[:2].lstrip('"').startswith("|") else None
    inner = inner or re.search(r"<([^<>]*)>", text)
    return (inner[1] if inner else text).strip() or None


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecipientReport:
    """What we say of one recipient. ``original_recipient`` is the ORCPT of the sender as it came (xtext);
    ``diagnostic`` is one line of printable ASCII; ``retry_until`` of what is delayed."""

    address: Address
    action: Action
    status: str
    diagnostic: str | None = None
    original_recipient: str | None = None
    retry_until: datetime | None = None


def build_dsn(
    *,
    id: str,  # noqa: A002 - what the envelope calls it
    hostname: str,
    to: Address,
    subject: str,
    text: str,
    recipients: Sequence[RecipientReport],
    returned_header: bytes,
    returned_message: bytes = b"",
    now: datetime,
    envelope_id: str | None = None,
    arrived_at: datetime | None = None,
    references: str | None = None,
) -> bytes:
    """The whole report, header and body. ``text`` is ASCII with ``\\n``; ``envelope_id`` is ENVID as it came (xtext);
    ``returned_header`` is the header to return, ``b""`` for none; ``returned_message`` is the whole message, and goes in its
    place where it is no larger than MAX_RETURNING_WHOLE; ``references`` is its Message-ID."""
    status = _status_part(hostname, recipients, envelope_id, arrived_at)
    parts = [
        _part("text/plain; charset=us-ascii", _lines(text)),
        _part("message/delivery-status", status),
    ]
    if returned_message and len(returned_message) <= MAX_RETURNING_WHOLE:
        parts.append(_whole_part(returned_message))
    elif returned_header:
        parts.append(_returned_part(returned_header))
    # Not random, and not to be guessed by who wrote what is returned: nobody can put a line into it that ends a part.
    boundary = "=_" + hashlib.sha256(b"\0".join((id.encode(), render_date(now).encode(), *parts))).hexdigest()[:40]
    fields = [
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: {wire(to).decode()}",
        f"Subject: {subject}",
        f"Date: {render_date(now)}",
        f"Message-ID: <{id}.{boundary[2:14]}@{hostname}>",
        *([f"References: {references}"] if references else []),
        # RFC 3834 section 5.1, RFC 3464 section 2
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"',
    ]
    head = "\r\n".join(fields).encode()
    delimiter = b"\r\n--" + boundary.encode()
    preamble = b"\r\n\r\nThis is a delivery report in MIME format.\r\n"
    return b"".join((head, preamble, *(delimiter + b"\r\n" + part for part in parts), delimiter + b"--\r\n"))


def _status_part(
    hostname: str, recipients: Sequence[RecipientReport], envelope_id: str | None, arrived_at: datetime | None
) -> bytes:
    groups = [[f"Reporting-MTA: dns; {hostname}"]]
    if envelope_id is not None:
        groups[0].insert(0, f"Original-Envelope-Id: {unxtext(envelope_id)}")
    if arrived_at is not None:
        groups[0].append(f"Arrival-Date: {render_date(arrived_at)}")
    for one in recipients:
        group = [f"Final-Recipient: {_typed_address(one.address)}", f"Action: {one.action}", f"Status: {one.status}"]
        if one.original_recipient is not None:
            kind, _, address = one.original_recipient.partition(";")
            # RFC 6533 section 3: the UTF-8 type keeps its escapes; the other is xtext and loses them.
            address = _escaped(address) if kind.lower() == "utf-8" else unxtext(address)
            group.insert(0, f"Original-Recipient: {kind}; {address}")
        if one.diagnostic:
            group.append(f"Diagnostic-Code: smtp; {one.diagnostic}")
        if one.retry_until is not None:
            group.append(f"Will-Retry-Until: {render_date(one.retry_until)}")
        groups.append(group)
    return b"\r\n".join(b"".join(_fold(line) + b"\r\n" for line in group) for group in groups)


def original_recipient(orcpt: str | None) -> str | None:
    """The address in an ORCPT, folded as ``str.casefold`` does."""
    if orcpt is None:
        return None
    text = _ESCAPED.sub(lambda match: chr(min(int(match[1], 16), 0x10FFFF)), orcpt.partition(";")[2])
    return _decoded_xtext(text).casefold()


def _typed_address(address: Address) -> str:
    if address.local.isascii():
        return f"rfc822; {address.local}@{ascii_domain(address.domain)}"
    text = "".join(f"\\x{{{ord(one):02X}}}" if one in "\\+=" else one for one in str(address))
    return f"utf-8; {_escaped(text)}"


def _escaped(text: str) -> str:
    """RFC 6533 section 3 utf-8-addr-xtext: the 7-bit form."""
    return "".join(one if one.isascii() else f"\\x{{{ord(one):X}}}" for one in text)


def unxtext(text: str) -> str:
    """RFC 3461 section 4; the grammar of the command allows printable characters only."""
    return "".join(one if " " <= one <= "~" else "?" for one in _decoded_xtext(text))


def _decoded_xtext(text: str) -> str:
    return re.sub(r"\+([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), text)


def _returned_part(header: bytes) -> bytes:
    """RFC 6522 section 4 text/rfc822-headers; RFC 6533 section 6 message/global-headers where it is not ASCII."""
    kept = []
    size = 0
    for line in header.splitlines():
        size += len(line) + 2
        if size > MAX_RETURNING:
            break
        kept.append(line[:_MAX_LINE])
    lines = b"\r\n".join((*kept, b""))
    if lines.isascii():
        return _part("text/rfc822-headers", lines)
    return _base64_part("message/global-headers", lines)


def _whole_part(message: bytes) -> bytes:
    """RFC 6522 section 3: message/rfc822, which has no encoding of its own (RFC 2046 section 5.2.1). What is not 7-bit or has
    endless lines could not go to every server so: it is message/global, which may be base64 (RFC 6532 section 3.7)."""
    if message.isascii() and all(len(line) <= _MAX_LINE for line in message.split(b"\r\n")):
        return _part("message/rfc822", message)
    return _base64_part("message/global", message)


def _base64_part(content_type: str, content: bytes) -> bytes:
    encoded = binascii.b2a_base64(content, newline=False)
    wrapped = b"".join(encoded[at : at + 76] + b"\r\n" for at in range(0, len(encoded), 76))
    return _part(content_type, wrapped, b"Content-Transfer-Encoding: base64\r\n")


def _part(content_type: str, body: bytes, more: bytes = b"") -> bytes:
    return f"Content-Type: {content_type}\r\n".encode() + more + b"\r\n" + body


def _lines(text: str) -> bytes:
    return "\r\n".join((*text.splitlines(), "")).encode("ascii", "replace")


def _fold(line: str) -> bytes:
    """Long diagnostics are folded at a space (RFC 3464 section 2.1.1)."""
    folded: list[str] = []
    while len(line) > _FOLD_AT and (cut := line.rfind(" ", 20, _FOLD_AT)) > 0:
        folded.append(line[:cut])
        line = line[cut:]
    return "\r\n".join((*folded, line)).encode("ascii", "replace")
