"""Is a value the same, whether or not it is frozen?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, field, replace
from enum import Enum, EnumType, StrEnum

import pytest

import forwarder.app  # noqa: F401 - with all that the service is made of, libraries too
from forwarder import values
from forwarder.model import Reply
from forwarder.values import value


@pytest.fixture(params=[False, True], ids=["quick to make", "frozen"])
def frozen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(values, "_frozen", request.param)
    return bool(request.param)


@pytest.mark.usefixtures("frozen")
def test_what_is_compared_by_its_fields_is_hashed_by_them():
    @value
    class Pair:
        one: str
        other: int = 0

    assert Pair("a", 1) == Pair("a", 1) != Pair("a", 2)
    assert hash(Pair("a", 1)) == hash(Pair("a", 1))
    assert {Pair("a"): "found"}[replace(Pair("b"), one="a")] == "found"
    assert not hasattr(Pair("a"), "__dict__")


@pytest.mark.usefixtures("frozen")
def test_a_hash_of_its_own_is_kept():
    @value
    class Marked:
        mark: bytes
        rest: list[int]

        def __hash__(self) -> int:
            return hash(self.mark)

    assert hash(Marked(b"m", [1])) == hash(b"m")


@pytest.mark.usefixtures("frozen")
def test_what_is_not_compared_is_itself_only():
    @value(eq=False)
    class Large:
        octets: bytes
        known: dict[str, int] = field(default_factory=dict)

    one = Large(b"x")
    assert one != Large(b"x")
    assert {one: "found"}.get(one) == "found"


@pytest.mark.usefixtures("frozen")
def test_an_order_is_that_of_the_fields():
    @value(order=True)
    class Place:
        row: int
        seat: int

    assert sorted([Place(2, 1), Place(1, 2), Place(1, 1)]) == [Place(1, 1), Place(1, 2), Place(2, 1)]


def test_who_writes_to_one_is_caught_in_tests():
    with pytest.raises(FrozenInstanceError):
        Reply(250, None, "ok").text = "no"  # type: ignore[misc]


def _enumerations(base: EnumType) -> Iterator[EnumType]:
    for one in type.__subclasses__(base):
        yield one
        yield from _enumerations(one)


def test_members_of_enumerations_are_found_in_their_class():
    """Of ours, and of the libraries that the service has loaded: nobody needs what Python 3.11 would ask behind that."""
    assert not hasattr(EnumType, "__getattr__")
    every = set(_enumerations(Enum))
    assert len(every) > 50
    for one in every:
        for name, member in one.__members__.items():
            assert getattr(one, name) is member


def test_a_member_may_be_named_as_what_each_member_has():
    class Asked(StrEnum):
        name = "what it is called"
        NONE = ""

    assert Asked.name is Asked("what it is called")
    assert Asked.NONE.name == "NONE"
    with pytest.raises(AttributeError):
        _ = Asked.value
