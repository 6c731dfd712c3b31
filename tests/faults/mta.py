"""A sender like a real MTA: every message has a name of its own and is offered again until the answer is 250.

It keeps the books of a run: what was acknowledged, after how many tries, and what went wrong in between. A connection that breaks
is a try without an answer, like 4xx; a 5xx is kept as a refusal and not offered again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds for one answer, and between two tries of one message.
PATIENCE = 30.0
PAUSE = 0.1


@dataclass
class Books:
    """By Message-ID."""

    acknowledged: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    broken: int = 0
    deferred: int = 0
    #: Each final dot that was answered: when it was sent, and when the answer came (the loop's time).
    dots: list[tuple[float, float]] = field(default_factory=list)


class NotNow(Exception):
    """4xx."""


class Never(Exception):
    """5xx."""


@asynccontextmanager
async def beside(sending: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """It goes on while the block does what it does, and is over behind it. Where the block fails it is ended, and nothing of it
    goes on into the next test."""
    task = asyncio.create_task(sending)
    try:
        yield task
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _together(all_of: Iterable[Coroutine[Any, Any, None]]) -> None:
    """When one fails, so do the others."""
    async with asyncio.TaskGroup() as group:
        for one in all_of:
            group.create_task(one)


@dataclass
class Mta:
    """``workers`` messages at once, one a connection. ``recipient`` is an address, or gives that of a message by its name.
    ``others``: further MX hosts of the same preference. Each message begins at another one of them, and each further try of it
    is at the next (RFC 5321 section 5.1)."""

    host: str
    port: int
    source: str
    sender: str = "bob@sender.test"
    recipient: str | Callable[[str], str] = "alias@fwd.test"
    workers: int = 10
    others: tuple[str, ...] = ()
    books: Books = field(default_factory=Books)

    async def send_all(self, names: Iterable[str], body: bytes = b"Hello.\r\n") -> None:
        """Returns when each of them has its final answer."""
        waiting = iter(names)

        async def worker() -> None:
            for name in waiting:
                await self._send(name, body)

        await _together(worker() for _ in range(self.workers))

    async def send_until(self, over: asyncio.Event, body: bytes = b"Hello.\r\n") -> list[str]:
        """Messages ``m0``, ``m1``, ... until it is over and each of them has its final answer; their names."""
        names: list[str] = []

        async def worker() -> None:
            while not over.is_set():
                names.append(f"m{len(names)}")
                await self._send(names[-1], body)

        await _together(worker() for _ in range(self.workers))
        return names

    async def _send(self, name: str, body: bytes) -> None:
        books, hosts = self.books, (self.host, *self.others)
        first = len(books.tries)
        while True:
            host = hosts[(first + books.tries.get(name, 0)) % len(hosts)]
            books.tries[name] = books.tries.get(name, 0) + 1
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._offer(host, name, body)
                books.acknowledged.add(name)
                return
            except NotNow:
                books.deferred += 1
            except Never as never:
                books.refused[name] = str(never)
                return
            except (OSError, EOFError, TimeoutError):
                books.broken += 1
            await asyncio.sleep(PAUSE)

    async def _offer(self, host: str, name: str, body: bytes) -> None:
        recipient = self.recipient if isinstance(self.recipient, str) else self.recipient(name)
        rcpt = f"RCPT TO:<{recipient}>".encode()
        reader, writer = await asyncio.open_connection(host, self.port, local_addr=(self.source, 0))
        try:
            await _answer(reader)
            for command in (b"EHLO mx.sender.test", f"MAIL FROM:<{self.sender}>".encode(), rcpt, b"DATA"):
                writer.write(command + b"\r\n")
                await _answer(reader)
            writer.write(message(name, self.sender, recipient, body) + b".\r\n")
            began = asyncio.get_running_loop().time()
            try:
                await _answer(reader)
            finally:
                self.books.dots.append((began, asyncio.get_running_loop().time()))
            writer.write(b"QUIT\r\n")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> None:
    while True:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        if line[3:4] != b"-":
            break
    match line[:1]:
        case b"4":
            raise NotNow(line.decode("ascii", "replace").strip())
        case b"5":
            raise Never(line.decode("ascii", "replace").strip())
        case _:
            return


def message(name: str, sender: str, recipient: str, body: bytes) -> bytes:
    """``body`` must end with CRLF and hold no line that begins with a dot."""
    return (
        f"From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: {name}\r\nDate: Mon, 23 Nov 2026 12:30:00 +0000\r\n"
        f"Message-ID: <{name}@sender.test>\r\n\r\n{name}\r\n"
    ).encode() + body
