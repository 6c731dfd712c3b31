"""How much of a header is split at all?"""

from __future__ import annotations

import pytest

from forwarder.mail.header import MAX_FIELDS, MAX_HEADER, MAX_LINES, MalformedMessage, parse_message

FROM = b"From: a@b.example\r\n"


@pytest.mark.parametrize(
    ("header", "most", "what"),
    [
        (b"X: y\r\n", MAX_FIELDS - 1, "header fields"),
        (b" \r\n", MAX_LINES - 1, "header lines"),
        (b" " + b"y" * 61 + b"\r\n", MAX_HEADER // 64 - 1, "octets"),
    ],
    ids=["fields", "folds", "octets"],
)
def test_a_header_is_split_up_to_its_bounds_and_refused_beyond(header: bytes, most: int, what: str) -> None:
    assert parse_message(FROM + header * most + b"\r\nx").body == b"x"
    with pytest.raises(MalformedMessage, match=what):
        parse_message(FROM + header * (most + 1) + b"\r\nx")
