"""How do ten thousand of something go by without holding up everybody else? Some at a time, and in between all else that is
ready has its turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

__all__ = ["A_SLICE", "in_slices", "let_others"]

#: Small things that are dealt with in one go. For a list's ten thousand each thing that is done to all takes up to 30 ms.
A_SLICE = 500

_T = TypeVar("_T")


async def in_slices(many: Sequence[_T], most: int = A_SLICE) -> AsyncIterator[Sequence[_T]]:
    """All of them in their order, at most so many at a time. Up to ``most`` come at once, without a pause."""
    for at in range(0, len(many), most):
        if at:
            await let_others()
        yield many[at : at + most]


async def let_others() -> None:
    """Everything else that is ready has its turn."""
    await asyncio.sleep(0)
