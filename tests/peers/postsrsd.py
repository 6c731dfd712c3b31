"""PostSRSd of Debian: the program that most forwarders rewrite senders with, and that one may migrate from."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from forwarder.cli.demo_lab import free_port
from tests.peers.programs import find, needs
from tests.waiting import until

__all__ = ["PostSrsd", "needs_postsrsd", "run_postsrsd"]

needs_postsrsd = needs("postsrsd")


class PostSrsd:
    """Its two look-up tables, as Postfix asks them (tcp_table(5)): TCP ports of 127.0.0.1."""

    def __init__(self, forward: int, reverse: int, pid: int) -> None:
        self.forward = forward
        self.reverse = reverse
        self.pid = pid

    async def mint(self, sender: str) -> str:
        """The reversible address."""
        return await _ask(self.forward, sender)

    async def open(self, address: str) -> str:
        """The sender behind a reversible address."""
        return await _ask(self.reverse, address)


async def _ask(port: int, key: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"get {key}\n".encode())
        async with asyncio.timeout(30):
            code, _, answer = (await reader.readline()).decode().strip().partition(" ")
    finally:
        writer.close()
    assert code == "200", answer
    return answer


@asynccontextmanager
async def run_postsrsd(secret_file: Path, domain: str, *, days_ago: int = 0) -> AsyncIterator[PostSrsd]:
    """A daemon on loopback, whose clock may be behind."""
    forward, reverse = free_port("127.0.0.1"), free_port("127.0.0.1")
    program = find("postsrsd")
    assert program is not None
    command = [program, "-4", f"-s{secret_file}", f"-d{domain}", f"-f{forward}", f"-r{reverse}"]
    if days_ago:
        faketime = find("faketime")
        assert faketime is not None
        command = [faketime, "-f", f"-{days_ago}d", *command]
    process = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True)
    try:
        await until(lambda: _listens(forward) and _listens(reverse))
        yield PostSrsd(forward, reverse, process.pid)
    finally:
        # The group: faketime is a program of its own before this one, and dies alone.
        os.killpg(process.pid, signal.SIGTERM)
        await process.wait()


def _listens(port: int) -> bool:
    return f"0100007F:{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()
