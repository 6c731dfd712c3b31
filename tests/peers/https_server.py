"""A key host on loopback: real TLS, and octets in answer that no well-bred HTTP library would send."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

__all__ = ["HttpsServer", "response", "run_https_server"]


def response(body: bytes, status: str = "200 OK", content_type: str = "text/plain", **headers: str) -> bytes:
    """``headers`` with underscores for hyphens."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class HttpsServer:
    """``answer`` goes out; then ``repeat`` again and again, if not empty; then the connection stays open if ``hangs``.
    ``gate`` holds all answers back. ``requests`` is what came, ``asked`` that something did."""

    answer: bytes = b""
    repeat: bytes = b""
    hangs: bool = False
    port: int = 0
    requests: list[str] = field(default_factory=list)
    sent: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            self.asked.set()
            await self.gate.wait()
            writer.write(self.answer)
            await writer.drain()
            while self.repeat:
                writer.write(self.repeat)
                self.sent += len(self.repeat)
                await writer.drain()
            if self.hangs:
                await reader.read()
        finally:
            writer.transport.abort()


@asynccontextmanager
async def run_https_server(context: ssl.SSLContext, address: str = "127.0.0.1") -> AsyncIterator[HttpsServer]:
    """The server, listening at ``server.port`` while the context lasts."""
    server = HttpsServer()
    server.gate.set()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            await server.serve(reader, writer)
        tasks.discard(task)

    listening = await asyncio.start_server(serve, address, 0, ssl=context)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
