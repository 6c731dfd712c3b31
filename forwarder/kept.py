"""What was made of a short text, for who asks again soon? As ``functools.lru_cache``, for what a message asks thirty times."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["Kept"]

_K = TypeVar("_K", str, bytes)
_V = TypeVar("_V")


class Kept(dict[_K, _V]):
    """``kept[text]`` is ``make(text)``. At most so many are kept, and of none that is longer: that bounds the memory whatever
    strangers send. When there is one more, all are forgotten: that costs less than to know which is the oldest."""

    # What is there is found by the dictionary itself. A function that looked at the length first, and then asked a cache, was
    # two calls more each time.
    __slots__ = ("_longest", "_make", "_most")

    def __init__(self, make: Callable[[_K], _V], *, most: int, longest: int) -> None:
        super().__init__()
        self._make: Callable[[_K], _V] = make
        self._most = most
        self._longest = longest

    def __missing__(self, text: _K) -> _V:
        made = self._make(text)
        if len(text) <= self._longest:
            if len(self) >= self._most:
                self.clear()
            self[text] = made
        return made
