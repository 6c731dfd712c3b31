"""forwarder/smtp/replyparser.py"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.model import Reply
from forwarder.smtp.replyparser import MAX_LINE, MAX_LINES, MAX_TEXT, BadReply, ReplyParser, ServerReply
from tests.cost import cost_of


def parse(*pieces: bytes) -> list[ServerReply | str]:
    """All replies, and "bad" where it stops being SMTP."""
    parser = ReplyParser()
    found: list[ServerReply | str] = []
    for piece in pieces:
        for reply in parser.feed(piece):
            if isinstance(reply, BadReply):
                return [*found, "bad"]
            found.append(reply)
    return found


def one(data: bytes) -> Reply:
    (reply,) = parse(data)
    assert isinstance(reply, ServerReply)
    return reply.reply


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        pytest.param(b"250 ok\r\n", Reply(250, None, "ok"), id="plain"),
        pytest.param(b"250 2.1.0 sender ok\r\n", Reply(250, "2.1.0", "sender ok"), id="enhanced"),
        pytest.param(b"250\r\n", Reply(250, None, ""), id="code alone"),
        pytest.param(b"250 \r\n", Reply(250, None, ""), id="no text"),
        pytest.param(b"550 5.1.1\r\n", Reply(550, "5.1.1", ""), id="enhanced code alone"),
        pytest.param(b"250 ok\n", Reply(250, None, "ok"), id="bare LF, as some servers end lines"),
        pytest.param(b"550 2.1.0 no\r\n", Reply(550, None, "2.1.0 no"), id="enhanced code of another class is text"),
        pytest.param(b"550 5.1.1.9 no\r\n", Reply(550, None, "5.1.1.9 no"), id="four numbers are text"),
        pytest.param(b"599 who knows\r\n", Reply(599, None, "who knows"), id="a code nobody has heard of"),
        pytest.param(b"550-5.7.1 a\r\n550 5.7.1 b\r\n", Reply(550, "5.7.1", "a b"), id="several lines"),
        pytest.param(b"550-a\r\n550-\r\n550 b\r\n", Reply(550, None, "a b"), id="an empty line between"),
        pytest.param(b"250-a\r\n251 b\r\n", Reply(251, None, "a b"), id="codes of one class: the last counts"),
        pytest.param(
            b"550 x\x1b[31m\x00\x7f\xff\ty\rz\r\n", Reply(550, None, "x?[31m??? y?z"), id="control characters"
        ),
    ],
)
def test_a_reply_is_read(data: bytes, reply: Reply) -> None:
    assert one(data) == reply


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n", id="HTTP"),
        pytest.param(b"\x16\x03\x01\x00\r\n", id="TLS"),
        pytest.param(b"\r\n", id="empty line"),
        pytest.param(b"25 ok\r\n", id="two digits"),
        pytest.param(b"2500 ok\r\n", id="four digits"),
        pytest.param(b"150 ok\r\n", id="no class 1 in SMTP"),
        pytest.param(b"650 ok\r\n", id="no class 6"),
        pytest.param(b" 250 ok\r\n", id="leading space"),
        pytest.param("٢٥٠ ok\r\n".encode(), id="digits that are not ASCII"),
        pytest.param(b"250-yes\r\n550 no\r\n", id="lines that contradict each other"),
        pytest.param(b"250-yes\r\nand no\r\n", id="a line without a code"),
        pytest.param(b"250 " + b"x" * MAX_LINE + b"\r\n", id="line too long"),
        pytest.param(b"x" * (MAX_LINE + 1), id="no line end at all"),
        pytest.param(b"250-x\r\n" * (MAX_LINES + 1), id="too many lines"),
    ],
)
def test_what_is_no_reply_is_bad(data: bytes) -> None:
    assert parse(data) == ["bad"]


def test_what_came_before_the_rubbish_counts() -> None:
    assert parse(b"250 ok\r\n550 no\r\nrubbish\r\n") == [*parse(b"250 ok\r\n"), *parse(b"550 no\r\n"), "bad"]


def test_text_is_kept_up_to_a_limit() -> None:
    assert len(one(b"550 " + b"x" * 4000 + b"\r\n").text) == MAX_TEXT
    assert len(one((b"550-" + b"x" * 500 + b"\r\n") * 50 + b"550 x\r\n").text) == MAX_TEXT


@pytest.mark.parametrize(
    "data", [b"2" * 1_000_000, b"\n" * 1_000_000, b"250-x\r\n" * 100_000, b"250-\r\n" * 99 + b"x" * 900_000]
)
def test_megabytes_of_anything_are_given_up_on_at_once(data: bytes) -> None:
    def give_up(_: int) -> None:
        assert isinstance(ReplyParser().feed(data)[-1], BadReply)

    assert cost_of(give_up, 0.1) < 0.1


def test_pending_tells_of_bytes_and_of_lines() -> None:
    parser = ReplyParser()
    parser.feed(b"220 go\r\n")
    assert not parser.pending
    parser.feed(b"250-and")
    assert parser.pending
    parser.feed(b" more\r\n")
    assert parser.pending, "a line of a reply that is not complete"
    parser.feed(b"250 all\r\n")
    assert not parser.pending


_TEXT = st.binary(max_size=30).map(lambda text: text.replace(b"\n", b""))
_LINES = st.tuples(
    st.integers(100, 699), st.sampled_from([b" ", b"-", b""]), _TEXT, st.sampled_from([b"\r\n", b"\n"])
).map(lambda line: b"%d%b%b%b" % line)


@given(st.lists(st.one_of(_LINES, st.binary(max_size=8)), max_size=8).map(b"".join), st.data())
def test_whole_in_halves_and_byte_by_byte_are_the_same(data: bytes, draw: st.DataObject) -> None:
    whole = parse(data)
    half = draw.draw(st.integers(0, len(data)))
    assert parse(data[:half], data[half:]) == whole
    assert parse(*(data[at : at + 1] for at in range(len(data)))) == whole


@given(st.lists(_LINES, max_size=8).map(b"".join))
def test_what_comes_out_is_printable_and_bounded(data: bytes) -> None:
    for reply in parse(data):
        if isinstance(reply, ServerReply):
            assert reply.reply.text.isprintable()
            assert reply.reply.text.isascii()
            assert 200 <= reply.reply.code <= 599
            assert len(reply.reply.text) <= MAX_TEXT
