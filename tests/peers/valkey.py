"""A store of the operator's own: a Valkey on a TCP port that a test can kill, stop in its tracks, and give orders to."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forwarder.cli.demo_lab import free_port
from forwarder.ports import StoreAway
from forwarder.store.client import StoreClient
from forwarder.store.server import find_server
from tests.fakes import MemoryJournal

__all__ = ["Valkey", "stopped", "valkey"]

#: Seconds for it to start, a long file read included.
_START = 60


@dataclass
class Valkey:
    """``url`` is what the service is given. ``options`` beyond the usual ones, as in its file."""

    folder: Path
    port: int
    options: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    kills: int = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def pid(self) -> int:
        """Of the process that answers now."""
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        """Returns when it answers."""
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
        } | self.options
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self.process = await asyncio.create_subprocess_exec(
            find_server(), *words, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
        )
        async with asyncio.timeout(_START):
            while not await self._answers():
                assert self.process.returncode is None, "it ended"
                await asyncio.sleep(0.01)

    async def _answers(self) -> bool:
        try:
            return bool(await self.ask("PING") == b"PONG")
        except StoreAway:
            return False

    async def ask(self, *command: str) -> Any:
        """One command, over a connection of its own."""
        client = StoreClient(self.url, journal=MemoryJournal(), timeout=10)
        try:
            return await client.command(*command)
        finally:
            await client.close()

    async def is_primary(self) -> bool:
        """By its own word. ``False`` too where it hangs up, as on everybody in the moment in which it becomes one."""
        try:
            return bool((await self.ask("ROLE"))[0] == b"master")
        except StoreAway:
            return False

    async def kill(self) -> None:
        """-9, and gone when this returns."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        self.kills += 1


@asynccontextmanager
async def valkey(folder: Path, options: dict[str, str] | None = None) -> AsyncIterator[Valkey]:
    """Started; killed with the block."""
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - nothing to wait for
    it = Valkey(folder, free_port("127.0.0.1"), options or {})
    await it.start()
    try:
        yield it
    finally:
        await it.kill()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """It stands within the block, with its connections open; what it is asked now it does when it wakes."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
