"""Which keys may sign? The loaded ones, with the look at the DNS that goes on beside them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from forwarder.app.parts import make_resolvers
from forwarder.config import Settings
from forwarder.keys import Keys
from forwarder.keys.usage import Usage
from forwarder.keys.watch import KeyWatch
from forwarder.ports import Clock, Journal

__all__ = ["WatchedKeys"]

#: Seconds that mail waits for the first look at the records of our keys.
KEY_LOOK = 3.0


class WatchedKeys:
    """``watch`` is ``None`` with keys.require_record = false: every key signs. Needs a running loop. Raises StartError."""

    def __init__(self, keys: Keys, settings: Settings, usage: Usage, clock: Clock, journal: Journal) -> None:
        self.keys = keys
        self._resolvers = make_resolvers(settings) if settings.keys.require_record else {}
        self.watch: KeyWatch | None = None
        if settings.keys.require_record:
            resolvers = list(self._resolvers.values())
            self.watch = KeyWatch(keys, resolvers, journal, clock, usage=usage, every=settings.keys.check_every)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Sign only with what the DNS shows; its first answer is waited for, for a moment. Calling again does nothing."""
        if self.watch is None or self._task is not None:
            return
        self._task = asyncio.create_task(self.watch.run())
        with suppress(TimeoutError):
            async with asyncio.timeout(KEY_LOOK):
                await self.watch.looked.wait()

    async def close(self) -> None:
        """Look no more. Safe to call at any time."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for one in self._resolvers.values():
            await one.aclose()
