"""The mark by which we know our own: made by nobody else, of no other message, and found wherever a host has put it."""

from __future__ import annotations

import pytest

from forwarder.loopmark import bears_mark, make_mark
from forwarder.model import Address, Message
from forwarder.screen import screen_loop
from tests.cost import cost_of
from tests.fakes import message

OLD, NEW, OTHERS = b"o" * 32, b"n" * 32, b"x" * 32
ALIAS, OTHER = Address("Alias", "fwd.test"), Address("other", "fwd.test")
ORIGINAL = message("From: bob@sender.test\nDate: Mon, 23 Nov 2026 12:30:00 +0000\nMessage-ID: <1@sender.test>\n\nx\n")
MARK = make_mark(NEW, ALIAS, ORIGINAL)


def marked(field: str, mark: str = MARK, original: Message = ORIGINAL) -> Message:
    return message(f"{field}{mark}; x\n".encode() + original.header)


def test_it_is_an_atom_of_16_characters() -> None:
    assert len(MARK) == 16
    assert MARK.isalnum()


@pytest.mark.parametrize(
    "field",
    [
        pytest.param("Received: by mx.fwd.test with ESMTP id 01JDX\n\t(mark ", id="as we put it"),
        pytest.param("X-Received: by mx.fwd.test\n\tid 01JDX (mark\n\t", id="renamed and folded"),
    ],
)
def test_a_message_that_was_here_is_known_by_it(field: str) -> None:
    again = marked(field)
    assert bears_mark(again, ALIAS, [NEW])
    assert bears_mark(again, Address("alias", "fwd.test"), [NEW]), "in any case of the local part"
    assert screen_loop(again, [OTHER, ALIAS], [NEW]) is not None


def test_the_secret_may_have_been_rotated_since() -> None:
    assert bears_mark(marked("Received: (mark ", make_mark(OLD, ALIAS, ORIGINAL)), ALIAS, [NEW, OLD])


def test_a_mark_on_the_way_to_another_alias_is_no_loop() -> None:
    assert screen_loop(marked("Received: (mark "), [OTHER], [NEW]) is None


def test_a_mark_copied_into_another_message_is_worth_nothing() -> None:
    other = message("From: eve@sender.test\nMessage-ID: <2@sender.test>\n\nx\n")
    assert screen_loop(marked("Received: (mark ", original=other), [ALIAS], [NEW]) is None


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(make_mark(OTHERS, ALIAS, ORIGINAL), id="another forwarder's secret"),
        pytest.param(MARK[:-1] + ("A" if MARK[-1] != "A" else "B"), id="a digit off"),
        pytest.param(MARK[:-1], id="cut"),
        pytest.param("", id="none"),
    ],
)
def test_nobody_else_can_make_one(forged: str) -> None:
    assert screen_loop(marked("Received: (mark ", forged), [ALIAS], [NEW]) is None


def test_without_a_message_id_date_and_author_name_the_message() -> None:
    def of(date: str, author: str = "bob@sender.test") -> Message:
        return message(f"From: {author}\nDate: {date}\n\nx\n")

    mark = make_mark(NEW, ALIAS, of("Mon, 23 Nov 2026 12:30:00 +0000"))
    folded = "Mon, 23 Nov 2026\n 12:30:00 +0000"
    assert bears_mark(marked("Received: (mark ", mark, of(folded)), ALIAS, [NEW])
    assert not bears_mark(marked("Received: (mark ", mark, of("Mon, 23 Nov 2026 12:30:01 +0000")), ALIAS, [NEW])
    assert not bears_mark(marked("Received: (mark ", mark, of(folded, "eve@sender.test")), ALIAS, [NEW])


def test_it_costs_microseconds() -> None:
    def a_thousand(_: int) -> None:
        for _ in range(1000):
            make_mark(NEW, ALIAS, ORIGINAL)
            bears_mark(ORIGINAL, ALIAS, [NEW])

    assert cost_of(a_thousand, 0.2) < 0.2
