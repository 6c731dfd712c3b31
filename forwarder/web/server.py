"""How does the program speak HTTP? Listening sockets, TLS, and what one connection may take; what is said is the other files'.

``listen`` takes the routes of every part (today ``wellknown``; health, metrics and an API beside it later).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterable, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from forwarder.accepting import Accepting
from forwarder.handshakes import Handshakes
from forwarder.ports import Journal

__all__ = ["CONNECTION_SECONDS", "MAX_CONNECTIONS", "WebServer"]

#: Connections at a time; more are closed at once.
MAX_CONNECTIONS = 100
#: Seconds of a connection, whatever happens on it: aiohttp waits for a request as long as it takes.
CONNECTION_SECONDS = 30.0
_HANDSHAKE_SECONDS = 5.0
#: Octets of a request line, of one field, and of a body.
_MAX_LINE = 2048
_MAX_BODY = 1024

# aiohttp would write what strangers send into the log; what we want told goes to the journal.
_SILENT = logging.getLogger("forwarder.web.silent")
_SILENT.disabled = True


class WebServer:
    """Serves ``routes`` on sockets that are bound already; with ``tls`` in TLS alone."""

    def __init__(
        self,
        routes: Iterable[web.RouteDef],
        tls: ssl.SSLContext | None,
        journal: Journal,
        *,
        lifetime: float = CONNECTION_SECONDS,
    ) -> None:
        app = web.Application(client_max_size=_MAX_BODY, middlewares=[_tell_faults(journal)])
        app.add_routes(routes)
        app.on_response_prepare.append(_say_less)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_SILENT,
            handle_signals=False,
            keepalive_timeout=5.0,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
        )
        self._tls = tls
        self._lifetime = lifetime
        self._handshakes = Handshakes(_HANDSHAKE_SECONDS, self._full)
        self._accepting = Accepting(self._admit)

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Begin to accept."""
        await self._runner.setup()
        for sock in sockets:
            if self._tls is not None:
                self._handshakes.accept(sock, self._admit, self._tls)
            else:
                await self._accepting.start(sock)

    def _full(self, _: socket.socket) -> bool:
        server = self._runner.server
        return server is None or len(server.connections) + len(self._handshakes) >= MAX_CONNECTIONS

    def _admit(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or len(server.connections) >= MAX_CONNECTIONS:
            return _Closed()
        handler = server()
        asyncio.get_running_loop().call_later(self._lifetime, handler.force_close)
        return handler

    def leave(self, heir: WebServer | None = None) -> None:
        """Accept nothing more; what is open ends by itself, within its lifetime. ``heir`` has whoever comes."""
        self._accepting.leave(heir._accepting if heir is not None else None)
        self._handshakes.leave()

    async def stop(self) -> None:
        """Accept nothing more and close what is open."""
        self.leave()
        self._accepting.close()
        self._handshakes.close()
        await self._runner.cleanup()


class _Closed(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _tell_faults(journal: Journal) -> Middleware:
    @web.middleware
    async def tell(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours: told, and 500
            journal.event("web.fault", error=f"{type(error).__name__}: {error}"[:200])
            return web.Response(status=500, text="a fault on our side\n")

    return tell


async def _say_less(_: web.Request, response: web.StreamResponse) -> None:
    """No version of what we run on."""
    response.headers.popall("Server", None)
    response.headers["X-Content-Type-Options"] = "nosniff"
