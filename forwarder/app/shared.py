"""Which parts outlive a reload? Those that the new settings make the same: their caches and connections are worth keeping."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

__all__ = ["Shared", "share"]

T = TypeVar("T")


class Shared(Generic[T]):
    """A part, what it was made from, and how many have it. Whoever lets go of it last closes it."""

    def __init__(self, part: T, made_from: object, close: Callable[[T], Awaitable[None]]) -> None:
        self.part = part
        self.made_from = made_from
        self._close = close
        self._holders = 1

    def hold(self) -> Shared[T]:
        """One more has it."""
        self._holders += 1
        return self

    async def let_go(self) -> None:
        """One less has it."""
        self._holders -= 1
        if self._holders == 0:
            await self._close(self.part)


async def _leave_open(_: object) -> None:
    """There is nothing to close."""


def share(
    before: Shared[T] | None,
    made_from: object,
    make: Callable[[], T],
    close: Callable[[T], Awaitable[None]] = _leave_open,
) -> Shared[T]:
    """The part from before where it was made from the same; ``None`` is the same as nothing."""
    if before is not None and made_from is not None and before.made_from == made_from:
        return before.hold()
    return Shared(make(), made_from, close)
