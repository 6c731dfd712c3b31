"""How often is the DNS asked for the keys of one message? Once a name, within a budget, and anew before a signature
fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from forwarder.ports import Answer, Resolver

__all__ = ["STALE", "TxtLookups"]

T = TypeVar("T")

#: Seconds. A record that has lain in a cache for longer is asked for past the cache before a signature is called bad:
#: the key may have been replaced. Younger ones are not, so that forged mail does not become a stream of questions.
STALE = 60


class TxtLookups(Generic[T]):
    """The TXT records that one message needs, as what ``evaluate`` makes of an answer.

    ``limit`` bounds the questions, a second one for the same name included; beyond it every answer is ``exhausted``.
    """

    def __init__(self, resolver: Resolver, evaluate: Callable[[Answer[bytes]], T], *, limit: int, exhausted: T) -> None:
        self._resolver = resolver
        self._evaluate = evaluate
        self._left = limit
        self._exhausted = exhausted
        self._found: dict[str, tuple[T, int]] = {}

    async def look_up(self, name: str) -> T:
        """What the resolver knows, from its cache or not."""
        if name not in self._found:
            if not self._left:
                return self._exhausted
            self._left -= 1
            answer = await self._resolver.txt(name)
            self._found[name] = self._evaluate(answer), answer.age
        return self._found[name][0]

    async def look_up_again(self, name: str) -> T | None:
        """What the DNS says now, if ``look_up`` gave something old and this is something else; ``None`` otherwise."""
        before, age = self._found.get(name, (None, 0))
        if age <= STALE or not self._left:
            return None
        self._left -= 1
        now = self._evaluate(await self._resolver.txt(name, fresh=True))
        self._found[name] = now, 0
        return None if now == before else now
