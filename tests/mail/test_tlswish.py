"""forwarder/mail/tlswish.py: RFC 8689 sections 3 and 4.1."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from forwarder.mail.header import parse_message
from forwarder.mail.tlswish import tls_wish
from forwarder.model import Envelope, Peer, TlsWish

ENVELOPE = Envelope("e1", Peer(ip_address("192.0.2.1"), "c.test"), None, (), datetime(2026, 11, 27, tzinfo=UTC))


@pytest.mark.parametrize(
    ("fields", "wish"),
    [
        (b"", TlsWish.NONE),
        (b"TLS-Required: No\r\n", TlsWish.INDIFFERENT),
        (b"tls-required:\r\n no \r\n", TlsWish.INDIFFERENT),
        (b"TLS-Required: No\r\nTLS-Required: No\r\n", TlsWish.INDIFFERENT),
        (b"TLS-Required: Yes\r\n", TlsWish.NONE),
        (b"TLS-Required: No, really\r\n", TlsWish.NONE),
        (b"TLS-Required:\r\n", TlsWish.NONE),
        (b"TLS-Required: No\r\nTLS-Required: Yes\r\n", TlsWish.NONE),
    ],
)
def test_a_field_that_says_no_says_that_its_sender_does_not_care(fields: bytes, wish: TlsWish) -> None:
    message = parse_message(b"From: a@a.test\r\n" + fields + b"\r\nx\r\n")
    assert tls_wish(ENVELOPE, message) is wish
    assert tls_wish(replace(ENVELOPE, require_tls=True), message) is TlsWish.REQUIRED
