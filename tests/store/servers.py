"""Real servers for the store's tests: our own Valkey, and the Redis 7.0 of the system where there is one."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forwarder.store.client import StoreClient
from forwarder.store.server import EmbeddedStore, find_server
from tests.fakes import MemoryJournal

SYSTEM_REDIS = Path("/usr/bin/redis-server")

#: Seconds within which anything that a test waits for must have happened.
BOUND = 20


class TellingJournal(MemoryJournal):
    """Lets a test wait for an event instead of sleeping."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    def event(self, name: str, /, **fields: Any) -> None:
        super().event(name, **fields)
        self._changed.set()

    async def wait_for(self, name: str, count: int = 1) -> dict[str, Any]:
        async with asyncio.timeout(BOUND):
            while len(self.named(name)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.named(name)[count - 1]


@contextmanager
def running(state_dir: Path, binary: Path | None = None) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore(state_dir, journal=MemoryJournal(), binary=binary or find_server())
    asyncio.run(store.start())
    try:
        yield store
    finally:
        asyncio.run(store.stop())


async def empty(server: EmbeddedStore) -> None:
    """By somebody with more rights than the program's."""
    admin = StoreClient(server.admin_url, journal=MemoryJournal(), timeout=BOUND)
    try:
        await admin.command("FLUSHALL")
    finally:
        await admin.close()


def wait_until_gone(pid: int) -> None:
    """Return when the process has ended; fails after a bounded time."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        assert poll.poll(BOUND * 1000), f"process {pid} lives on"
    finally:
        os.close(handle)
