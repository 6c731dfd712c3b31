"""A network between two programs that misbehaves: it cuts the stream into slices, drags, breaks off, or falls silent.

async with ChaosProxy(("127.0.0.1", 6379)) as net: ...          # connect to net.port
net.weather = lambda: Weather(slice=1)                          # for connections from now on
net.lose_reply_to(b"octets of it")                              # and everything is down from then on
net.up()                                                        # fair weather again
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

__all__ = ["ChaosProxy", "Weather"]


@dataclass(frozen=True)
class Weather:
    """Of one connection. Seconds that all takes on its way; octets at a time, with so many seconds between two; after so many
    octets in both directions together it is reset, or silent for ever with both ends open."""

    delay: float = 0
    slice: int = 65536
    pause: float = 0
    reset_after: int | None = None
    silent_after: int | None = None


@dataclass
class ChaosProxy:
    upstream: tuple[str, int]
    host: str = "127.0.0.1"
    port: int = 0
    weather: Callable[[], Weather] = Weather
    connections: int = 0
    #: Connections that were reset or fell silent because the weather said so.
    broken: int = 0
    is_down: bool = False
    _loses: bytes | None = None
    _links: set[_Link] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def lose_reply_to(self, question: bytes) -> None:
        """What has these octets in it reaches the upstream; what is said to it gets lost, and the network goes down with it."""
        self._loses = question

    def down(self) -> None:
        """Every connection is reset, and no other is taken, until ``up``."""
        self.is_down = True
        self.reset_all()

    def reset_all(self) -> None:
        """Whoever is connected has to come again."""
        for link in list(self._links):
            link.reset()

    def up(self) -> None:
        self.is_down, self._loses = False, None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.is_down:
            writer.close()
            return
        try:
            upstream = await asyncio.open_connection(*self.upstream)
        except OSError:
            writer.close()
            return
        link = _Link(self, self.weather(), (reader, writer), upstream)
        self._links.add(link)
        task = asyncio.ensure_future(link.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._links.discard(link))


_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One connection, both ways."""

    def __init__(self, proxy: ChaosProxy, weather: Weather, client: _Stream, server: _Stream) -> None:
        self._proxy = proxy
        self._weather = weather
        self._client, self._server = client, server
        self._passed = 0
        self._silent = False
        self._loses = False

    async def run(self) -> None:
        ways = (
            self._copy(self._client[0], self._server[1], is_reply=False),
            self._copy(self._server[0], self._client[1], is_reply=True),
        )
        try:
            await asyncio.gather(*ways)
        finally:
            self._client[1].close()
            self._server[1].close()

    def reset(self) -> None:
        for _, writer in (self._client, self._server):
            sock: socket.socket = writer.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reply: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if is_reply and self._loses:
                    self._proxy.down()
                    return
                question = self._proxy._loses
                self._loses = self._loses or (question is not None and question in data)
                if self._weather.delay:
                    await asyncio.sleep(self._weather.delay)
                for at in range(0, len(data), self._weather.slice):
                    piece = data[at : at + self._weather.slice]
                    if not self._may_pass(len(piece)):
                        break
                    writer.write(piece)
                    await writer.drain()
                    # Slices leave one by one: TCP_NODELAY is set, and the loop gets a turn in between.
                    await asyncio.sleep(self._weather.pause)
            if not self._silent and not writer.is_closing():
                writer.write_eof()

    def _may_pass(self, octets: int) -> bool:
        """False: what the weather had in store has come."""
        self._passed += octets
        reset, silent = self._weather.reset_after, self._weather.silent_after
        if silent is not None and self._passed > silent:
            self._proxy.broken += not self._silent
            self._silent = True
        if reset is not None and self._passed > reset:
            self._proxy.broken += 1
            self.reset()
            return False
        return not self._silent
