"""forwarder/smtp/stuffing.py"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.smtp.stuffing import has_bare_newline, stuff

_PIECES = st.sampled_from([b".", b"..", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"a", b"text ", b"\xe9", b"\r", b"\n"])
_MESSAGES = st.lists(_PIECES, max_size=30).map(b"".join)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted(cut % (len(data) + 1) for cut in cuts)
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def read_back(wire: bytes) -> bytes:
    """What RFC 5321 section 4.5.2 has a receiver do, line by line."""
    lines = wire.split(b"\r\n")
    end = lines.index(b".")
    assert lines[end + 1 :] == [b""], "nothing is left behind the final dot"
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:end])


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (b"", b""),
        (b"\r\n", b"\r\n"),
        (b"a", b"a\r\n"),
        (b"a\r\n", b"a\r\n"),
        (b".", b"..\r\n"),
        (b".\r\n", b"..\r\n"),
        (b"..\r\n", b"...\r\n"),
        (b"a.b\r\n.\r\n.c\r\n", b"a.b\r\n..\r\n..c\r\n"),
        (b"\r\n.\r\n.\r\n", b"\r\n..\r\n..\r\n"),
    ],
)
def test_a_dot_goes_before_each_line_that_begins_with_one(message: bytes, wire: bytes) -> None:
    assert b"".join(stuff([message])) == wire


@given(_MESSAGES, st.lists(st.integers(0, 200), max_size=6))
def test_where_the_chunks_are_cut_makes_no_difference(message: bytes, cuts: list[int]) -> None:
    assert b"".join(stuff(split(message, cuts))) == b"".join(stuff([message]))


@given(_MESSAGES, st.lists(st.integers(0, 200), max_size=6))
def test_a_receiver_reads_back_what_was_sent(message: bytes, cuts: list[int]) -> None:
    ended = (
        message
        if not message or message.endswith(b"\r\n")
        else message + (b"\n" if message.endswith(b"\r") else b"\r\n")
    )
    assert read_back(b"".join(stuff(split(message, cuts))) + b".\r\n") == ended


@given(st.lists(st.tuples(_PIECES, st.sampled_from([1, 700, 1500])), max_size=8))
def test_in_a_long_chunk_every_dot_line_is_found(parts: list[tuple[bytes, int]]) -> None:
    chunk = b"".join(piece * times for piece, times in parts)
    assert b"".join(stuff([b"x", chunk, b"\r\n"])) == (b"x" + chunk + b"\r\n").replace(b"\r\n.", b"\r\n..")


def test_a_chunk_without_such_a_line_is_passed_on_as_it_is() -> None:
    header, body = b"A: b\r\n\r\n", b"x.\r\n" * 1000
    assert [one is other for one, other in zip(stuff([header, body]), [header, body], strict=True)] == [True, True]


def test_a_dot_at_the_beginning_of_a_chunk_does_not_copy_it() -> None:
    body = b".x\r\n" + b"y\r\n" * 1000
    assert stuff([b"A: b\r\n\r\n", body])[-1] is body


@given(st.lists(st.sampled_from([b"a", b"\r\n", b"\r", b"\n"]), max_size=20).map(b"".join))
def test_a_bare_newline_is_found(text: bytes) -> None:
    expected = b"\r" in text.replace(b"\r\n", b"") or b"\n" in text.replace(b"\r\n", b"")
    assert has_bare_newline(text) == expected
