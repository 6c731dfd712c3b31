"""kept.py: what was made of a text is made once, within bounds."""

from __future__ import annotations

from forwarder.kept import Kept


def test_it_is_made_once() -> None:
    made: list[str] = []

    def upper(text: str) -> str:
        made.append(text)
        return text.upper()

    look_up = Kept(upper, most=2, longest=3).__getitem__
    assert [look_up("a"), look_up("b"), look_up("a")] == ["A", "B", "A"]
    assert made == ["a", "b"]


def test_of_too_many_none_is_left_but_the_latest() -> None:
    kept = Kept(str.upper, most=2, longest=3)
    assert [kept[one] for one in ("a", "b", "c")] == ["A", "B", "C"]
    assert dict(kept) == {"c": "C"}


def test_what_is_long_is_made_each_time() -> None:
    kept = Kept(len, most=2, longest=3)
    assert (kept[b"long"], kept[b"not"]) == (4, 3)
    assert dict(kept) == {b"not": 3}
