"""What does a plain message of ours look like? Text, from the mail system, marked as automatic (RFC 3834)."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime

from forwarder.mail.address import wire
from forwarder.mail.date import render_date
from forwarder.model import Address

__all__ = ["MAX_SUBJECT", "build_letter"]

#: Characters of a subject.
MAX_SUBJECT = 200
#: RFC 5322 section 2.1.1
_MAX_LINE = 998
#: RFC 2047 section 2: an encoded word has 75 characters; so many octets fit into one with UTF-8 and base64.
_WORD = 45


def build_letter(
    to: Address,
    subject: str,
    text: str,
    *,
    hostname: str,
    id: str,  # noqa: A002 - what the envelope calls it
    now: datetime,
    automatic: str,
    references: str | None = None,
) -> bytes:
    """The whole message, 7-bit but for the recipient's own address. ``text`` has ``\\n``; ``automatic`` is the word of RFC 3834
    section 5.1: auto-generated, or auto-replied where it answers a message."""
    lines = [one[:_MAX_LINE] for one in text.strip("\n").split("\n")]
    body = "\r\n".join((*lines, "")).encode("utf-8", "replace")
    digest = hashlib.sha256(b"\0".join((id.encode(), render_date(now).encode(), body))).hexdigest()[:12]
    fields = [
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: {wire(to).decode()}",
        f"Subject: {_words(' '.join(subject.split())[:MAX_SUBJECT])}",
        f"Date: {render_date(now)}",
        f"Message-ID: <{id}.{digest}@{hostname}>",
        *([f"References: {references}"] if references else []),
        f"Auto-Submitted: {automatic}",
        "MIME-Version: 1.0",
    ]
    if body.isascii():
        fields.append("Content-Type: text/plain; charset=us-ascii")
    else:
        fields += ["Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: base64"]
        body = base64.encodebytes(body).replace(b"\n", b"\r\n")
    return "\r\n".join((*fields, "", "")).encode() + body


def _words(text: str) -> str:
    """RFC 2047 section 5: a subject that is not ASCII, in words of whole characters."""
    if text.isascii():
        return text
    words = [b""]
    for one in text:
        octets = one.encode("utf-8", "replace")
        if len(words[-1]) + len(octets) > _WORD:
            words.append(b"")
        words[-1] += octets
    return "\r\n ".join(f"=?utf-8?B?{base64.b64encode(one).decode()}?=" for one in words)
