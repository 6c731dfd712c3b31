"""What does its sender ask of the way a message takes? RFC 8689: MAIL's REQUIRETLS, or the TLS-Required field of its header."""

from __future__ import annotations

import re

from forwarder.model import Envelope, Message, TlsWish

__all__ = ["tls_wish"]

_NO = re.compile(rb"[ \t\r\n]*no[ \t\r\n]*\Z", re.IGNORECASE)


def tls_wish(envelope: Envelope, message: Message) -> TlsWish:
    """The forwarded copy is a new message to the standard, and has the same wish (section 6)."""
    if envelope.require_tls:
        # Section 3: then the field is ignored.
        return TlsWish.REQUIRED
    fields = message.all(b"tls-required")
    # Section 3: "No" is all that it can say. What says two things says nothing.
    return TlsWish.INDIFFERENT if fields and all(_NO.match(one.value) for one in fields) else TlsWish.NONE
