"""Who is still shaking hands? Connections in TLS from the first octet, from accept until their handshake is done.

A server of asyncio's learns of such a connection only after its handshake: until then nobody could count it. Here we accept
ourselves, so that connections are counted from then on.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable

__all__ = ["Handshakes"]

#: Seconds until we accept again when the host has no file left for us.
_PAUSE = 0.5
#: Connections taken in one turn of the loop.
_AT_ONCE = 64


class Handshakes:
    """Those of one server. ``full``: whether this connection is one too many; ``seconds`` bounds a handshake;
    ``running``: where they are counted, with those of other servers if need be."""

    def __init__(
        self,
        seconds: float,
        full: Callable[[socket.socket], bool],
        running: set[asyncio.Task[None]] | None = None,
        done: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``done`` hears the address of each for which ``full`` was not true, when its handshake is over."""
        self._seconds = seconds
        self._full = full
        self._done = done
        self._everybodys = running if running is not None else set()
        self._running: set[asyncio.Task[None]] = set()
        self._sockets: list[socket.socket] = []

    def __len__(self) -> int:
        return len(self._everybodys)

    def accept(self, sock: socket.socket, make: Callable[[], asyncio.Protocol], context: ssl.SSLContext) -> None:
        """Begin to accept on ``sock``, which is ours from now on. What ``make`` makes gets a connection that speaks TLS."""
        sock.setblocking(False)
        self._sockets.append(sock)
        self._listen(sock, make, context)

    def _listen(self, sock: socket.socket, make: Callable[[], asyncio.Protocol], context: ssl.SSLContext) -> None:
        if sock in self._sockets:
            asyncio.get_running_loop().add_reader(sock, self._accept, sock, make, context)

    # No coroutine: who stops accepting in the middle of a sock_accept may lose the connection that it just got.
    def _accept(self, sock: socket.socket, make: Callable[[], asyncio.Protocol], context: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_AT_ONCE):
            try:
                client, address = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                loop.remove_reader(sock)
                loop.call_later(_PAUSE, self._listen, sock, make, context)
                return
            if self._full(client):
                client.close()
                continue
            client.setblocking(False)
            task = loop.create_task(self._shake(client, make, context))
            for running in (self._running, self._everybodys):
                running.add(task)
                task.add_done_callback(running.discard)
            task.add_done_callback(functools.partial(self._over, client, address[0]))

    def _over(self, client: socket.socket, host: str, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            # Perhaps before it took its first step, and then nobody else has the connection.
            client.close()
        self._done(host)

    async def _shake(
        self, client: socket.socket, make: Callable[[], asyncio.Protocol], context: ssl.SSLContext
    ) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                make, client, ssl=context, ssl_handshake_timeout=self._seconds
            )
        except OSError:
            return  # broken, too late, or gone: it is the client's

    def leave(self) -> None:
        """Accept nothing more; the handshakes that are under way go on."""
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        self._sockets.clear()

    async def ended(self) -> None:
        """When none is under way any more."""
        while self._running:
            await asyncio.wait(set(self._running))

    def close(self) -> None:
        """Accept nothing more, and end the handshakes that are under way."""
        self.leave()
        for task in self._running:
            task.cancel()
