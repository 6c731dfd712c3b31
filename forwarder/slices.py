"""How do ten thousand of something go by without holding up everybody else? Some at a time, and in between all else that is
ready has its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Generic, TypeVar

__all__ = ["A_SLICE", "in_slices", "let_others"]

#: Small things that are dealt with in one go. For a list's ten thousand each thing that is done to all takes up to 30 ms.
A_SLICE = 500

_T = TypeVar("_T")


class in_slices(Generic[_T]):  # noqa: N801 - it is called like a function
    """``async for``: all of them in their order, at most so many at a time. Up to ``most`` come at once, without a pause."""

    # No async generator: the loop keeps book of each of those, and an ordinary message goes through nine.
    __slots__ = ("_at", "_many", "_most")

    def __init__(self, many: Sequence[_T], most: int = A_SLICE) -> None:
        self._many = many
        self._most = most
        self._at = 0

    def __aiter__(self) -> in_slices[_T]:
        return self

    async def __anext__(self) -> Sequence[_T]:
        at, self._at = self._at, self._at + self._most
        if at >= len(self._many):
            raise StopAsyncIteration
        if at:
            await let_others()
        return self._many[at : at + self._most]


async def let_others() -> None:
    """Everything else that is ready has its turn."""
    await asyncio.sleep(0)
