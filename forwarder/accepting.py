"""How does one server follow another on the same sockets? Connections in clear text, none lost in between.

A server of asyncio's that is closed drops the connections that it has taken from the kernel and not yet made a protocol for.
So it is told first to take no more, and closed a moment later.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable

__all__ = ["BACKLOG", "GRACE", "Accepting"]

BACKLOG = 512
#: Seconds in which a connection that the loop has taken gets its protocol.
GRACE = 1.0


class Accepting:
    """What ``make`` makes meets those who connect."""

    def __init__(self, make: Callable[..., asyncio.Protocol]) -> None:
        self._make = make
        self._heir: Accepting | None = None
        self._servers: list[asyncio.Server] = []

    async def start(self, sock: socket.socket, *place: object) -> None:
        """Begin to accept on ``sock``, which is ours from now on. ``place`` is handed to ``make``, ours or the heir's."""
        loop = asyncio.get_running_loop()
        meet = functools.partial(self._meet, *place)
        self._servers.append(await loop.create_server(meet, sock=sock, backlog=BACKLOG))

    def _meet(self, *place: object) -> asyncio.Protocol:
        return self._make(*place) if self._heir is None else self._heir._meet(*place)

    def leave(self, heir: Accepting | None = None) -> None:
        """Accept nothing more. Whom we have taken all the same, or take because the loop is uvloop, the heir meets."""
        self._heir = heir
        loop = asyncio.get_running_loop()
        for server in self._servers:
            for sock in server.sockets:
                # As asyncio's loop listens; uvloop does so in its own way, and then nothing happens here.
                loop.remove_reader(sock.fileno())
        loop.call_later(GRACE, self.close)

    def close(self) -> None:
        """Now. Calling again does nothing."""
        self._heir = None
        while self._servers:
            self._servers.pop().close()
