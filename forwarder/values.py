"""What is a value made of? A dataclass with slots that nobody changes: for the type checker always, and in tests really.

A frozen dataclass sets each of its fields by a call, and a message makes some seventy values with four fields each
(docs/decisions/0050-values-that-are-quick-to-make.md). ``value`` is for what each message makes; settings and the like are frozen
dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import EnumType
from typing import TypeVar, dataclass_transform, overload

__all__ = ["find_members_at_once", "freeze_values", "value"]

_T = TypeVar("_T")
_frozen = False


def freeze_values() -> None:
    """Those that are declared from now on raise FrozenInstanceError when they are written to, as the type checker says."""
    global _frozen  # noqa: PLW0603 - a class is declared once, with what holds then
    _frozen = True


def find_members_at_once() -> None:
    """A member of an enumeration costs what any attribute of a class does, as from Python 3.12 on. That of 3.11 has it in the
    class as well, and behind that a ``__getattr__`` which is never asked for one; but for its sake each look at a member takes
    the long way, 870 instructions and not 120, and a message takes a hundred."""
    if "__getattr__" in vars(EnumType):
        del EnumType.__getattr__  # type: ignore[attr-defined]


@overload
def value(cls: type[_T], /) -> type[_T]: ...


@overload
def value(*, eq: bool = True, order: bool = False) -> Callable[[type[_T]], type[_T]]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(
    cls: type[_T] | None = None, /, *, eq: bool = True, order: bool = False
) -> type[_T] | Callable[[type[_T]], type[_T]]:
    """``@dataclass(frozen=True, slots=True)``, quick to make. ``eq`` and ``order`` are the dataclass's own."""

    def make(made: type[_T]) -> type[_T]:
        if _frozen:
            return dataclass(made, frozen=True, slots=True, eq=eq, order=order)
        # What is compared by its fields is hashed by them too, where it has no better way.
        return dataclass(made, slots=True, eq=eq, order=order, unsafe_hash=eq and "__hash__" not in vars(made))

    return make if cls is None else make(cls)
