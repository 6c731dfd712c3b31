"""How much of a header is split at all?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.mail.header import (
    MAX_FIELDS,
    MAX_HEADER,
    MAX_LINES,
    MalformedMessage,
    _split_fields,
    _split_lines,
    parse_message,
)
from forwarder.model import Field

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


def split(header: bytes, splitter: Callable[[bytes], tuple[Field, ...]]) -> tuple[Field, ...] | str:
    try:
        return splitter(header)
    except MalformedMessage as error:
        return str(error)


@given(
    st.lists(
        st.sampled_from(
            [b"x", b"X-Y", b":", b" ", b"\t", b"\r\n", b"\n", b"\r", b"a: b\r\n", b"\r\n ", b"\xff", b"\x0b"]
        )
    ),
    st.sampled_from([b"", b"\r\n"]),
)
def test_the_pattern_splits_as_the_lines_do(pieces: list[bytes], end: bytes) -> None:
    header = b"".join(pieces) + end
    assert split(header, _split_fields) == split(header, _split_lines)
