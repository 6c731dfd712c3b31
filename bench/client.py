"""A sending mail server that can be told to hang up in the middle."""

from __future__ import annotations

import asyncio
from contextlib import suppress

__all__ = ["Client", "Gone"]

_TIMEOUT = 60


class Gone(Exception):
    """The connection is over."""


class Client:
    """One connection, which is opened when it is needed."""

    def __init__(self, target: tuple[str, int], source: str, helo: str) -> None:
        self._target = target
        self._source = source
        self._helo = helo
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, sender: str, recipient: str, data: bytes, *, cut: int | None = None) -> str:
        """The last reply. ``data`` is stuffed and lacks its last line end. ``cut``: hang up after so many octets of it.
        Raises Gone."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await self._send(sender, recipient, data, cut)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.close()
            raise Gone(str(error)) from error

    async def _send(self, sender: str, recipient: str, data: bytes, cut: int | None) -> str:
        reader, writer = self._streams or await self._connect()
        writer.write(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
        replies = [await _reply(reader) for _ in range(3)]
        if not replies[2].startswith("354"):
            self.close()
            return next((one for one in replies if one[:1] in "45"), replies[2])
        if cut is not None:
            writer.write(data[:cut])
            await writer.drain()
            raise OSError("cut off")
        writer.writelines((data, b"\r\n.\r\n"))
        return await _reply(reader)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = self._streams = await asyncio.open_connection(*self._target, local_addr=(self._source, 0))
        await _reply(reader)
        writer.write(f"EHLO {self._helo}\r\n".encode())
        await _reply(reader)
        return reader, writer

    async def quit(self) -> None:
        """In good order: QUIT, and the server's end. The next message gets a new connection."""
        if self._streams is None:
            return
        reader, writer = self._streams
        self._streams = None
        writer.write(b"QUIT\r\n")
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_TIMEOUT):
                await reader.read()
        writer.close()

    def close(self) -> None:
        """Without a word. The next message gets a new connection."""
        if self._streams is not None:
            self._streams[1].transport.abort()
        self._streams = None


async def _reply(reader: asyncio.StreamReader) -> str:
    while True:
        line = (await reader.readuntil(b"\n")).decode("ascii", "replace")
        if line[3:4] != "-":
            return line.strip()
