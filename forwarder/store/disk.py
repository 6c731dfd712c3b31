"""Is there room left where the embedded store writes? docs/reliability.md.

A store that cannot write ends itself, as it should (``appendfsync always``), and then nothing leaves the queue either: each
step of a delivery is a write. So the queue takes nothing new while there is little left, and the rest is for what is in it.
What was delivered gives its room back only when the store writes its file anew, which needs room too: that is asked for while
what lives in the store is small enough.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from forwarder.ports import Journal, StoreAway
from forwarder.store.client import Commands

__all__ = ["Disk"]

#: Seconds between two tries to make the file smaller, and between two events about it.
REWRITE_PAUSE = 60.0


class Disk:
    """Of the store's ``directory``. ``least``: octets below which it is short."""

    def __init__(self, directory: Path, client: Commands, *, least: int, journal: Journal) -> None:
        self._directory = directory
        self._client = client
        self._least = least
        self._journal = journal
        self._again = 0.0

    def is_short(self) -> bool:
        """Costs a look, no reading."""
        return self._least > 0 and self._free() < self._least

    async def relieve(self) -> None:
        """Tell the operator, and make the file smaller where that can work. Never raises."""
        now = asyncio.get_running_loop().time()
        if now < self._again:
            return
        self._again = now + REWRITE_PAUSE
        free = self._free()
        self._journal.event("store.disk_short", directory=str(self._directory), free=free, least=self._least)
        try:
            if await self._used() < free:
                await self._client.command("BGREWRITEAOF")
        except StoreAway:
            # Or it writes its file anew already.
            return

    def _free(self) -> int:
        try:
            found = os.statvfs(self._directory)
        except OSError:
            return self._least
        return found.f_bavail * found.f_frsize

    async def _used(self) -> int:
        """Octets in memory: as many as a new file has at most, about."""
        text = await self._client.command("INFO", "memory")
        lines = (line.partition(b":") for line in text.splitlines())
        return next((int(value) for name, _, value in lines if name == b"used_memory"), 0)
