"""How do ten thousand of something go by without holding up everybody else? Some at a time, and in between all else that is
ready has its turn:

    for at, some in slices(many):
        if at:
            await let_others()
        ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TypeVar

__all__ = ["A_SLICE", "let_others", "slices"]

#: Small things that are dealt with in one go. For a list's ten thousand each thing that is done to all takes up to 30 ms.
A_SLICE = 500

_T = TypeVar("_T")


def slices(many: Sequence[_T], most: int = A_SLICE) -> Iterable[tuple[int, Sequence[_T]]]:
    """All of them in their order, at most so many at a time, each time with the place of the first; of nothing there is none."""
    # Nothing that is awaited: an ordinary message goes through nine of these, each of one thing.
    if len(many) <= most:
        return ((0, many),) if many else ()
    return ((at, many[at : at + most]) for at in range(0, len(many), most))


async def let_others() -> None:
    """Everything else that is ready has its turn."""
    await asyncio.sleep(0)
