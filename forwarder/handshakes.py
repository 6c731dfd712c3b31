"""Who is still shaking hands? Connections in TLS from the first octet, from accept until their handshake is done.

A server of asyncio's learns of such a connection only after its handshake: until then nobody could count it. Here we accept
ourselves, so that connections are counted from then on.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

__all__ = ["Handshakes"]

#: Seconds until we accept again when the host has no file left for us.
_PAUSE = 0.5


class Handshakes:
    """Those of one server. ``full``: whether one more connection would be too many; ``seconds`` bounds a handshake."""

    def __init__(self, seconds: float, full: Callable[[], bool]) -> None:
        self._seconds = seconds
        self._full = full
        self._running: set[asyncio.Task[None]] = set()
        self._accepting: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._running)

    def accept(self, sock: socket.socket, make: Callable[[], asyncio.Protocol], context: ssl.SSLContext) -> None:
        """Begin to accept on ``sock``, which is ours from now on. What ``make`` makes gets a connection that speaks TLS."""
        sock.setblocking(False)
        self._accepting.append(asyncio.get_running_loop().create_task(self._accept(sock, make, context)))

    async def _accept(self, sock: socket.socket, make: Callable[[], asyncio.Protocol], context: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        with sock:
            while True:
                try:
                    client, _ = await loop.sock_accept(sock)
                except OSError:
                    await asyncio.sleep(_PAUSE)
                    continue
                if self._full():
                    client.close()
                    continue
                task = loop.create_task(self._shake(client, make, context))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _shake(
        self, client: socket.socket, make: Callable[[], asyncio.Protocol], context: ssl.SSLContext
    ) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                make, client, ssl=context, ssl_handshake_timeout=self._seconds
            )
        except OSError:
            return  # broken, too late, or gone: it is the client's

    def close(self) -> None:
        """Accept nothing more, and end the handshakes that are under way."""
        for task in (*self._accepting, *self._running):
            task.cancel()
