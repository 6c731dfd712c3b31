"""Which server do we write to? The one that the URL names, or the one that sentinels say is the primary.

Sentinels are asked whenever a connection is opened, all of them at once: after a fail-over some may still name the old primary,
and a host that is gone answers nobody. Whoever they name must say itself that it is the primary (ROLE) before it gets a command.

A primary that is cut off from the rest says so too, and takes writes that are lost with it. What is written there counts for
nothing, since no replica acknowledges it (``StoreClient``: WAIT), and then the connection is given up and sentinels are asked
anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from forwarder.store.url import Address, AnyConnection, ParsedUrl, StoreUrlError, parse_store_url, show

__all__ = ["PATIENCE", "Dial", "Opened", "ask_once", "make_dial"]

#: Seconds for which one sentinel, one server that it names, or one node of a cluster is waited for: less than for an answer, of
#: which that is a part where the connection has to be opened first.
PATIENCE = 0.2


@dataclass(frozen=True, slots=True)
class Opened:
    """``copies``: how many replicas must have a write, ``None``: as many as configured."""

    connection: AnyConnection
    copies: int | None = None


class Dial(Protocol):
    """Where a client's connection leads."""

    async def open(self) -> Opened:
        """A connection that can be written to. Raises redis-py's errors and OSError; cancelled, it leaves nothing open."""


def make_dial(url: str, timeout: float, patience: float, replicas: int, node: Address | None) -> Dial:
    """``patience``: seconds for one of several servers. ``node``: that one of the cluster. Raises StoreUrlError."""
    parsed = parse_store_url(url)
    if parsed.kind == "sentinel":
        return BySentinels(parsed, timeout, patience, replicas)
    if parsed.kind == "cluster" and node is None:
        raise StoreUrlError("store: a cluster is more than one server")
    return OneServer(parsed, timeout, node)


class OneServer:
    """That of the URL, or ``address`` of several."""

    def __init__(self, url: ParsedUrl, timeout: float, address: Address | None = None) -> None:
        self._connection = url.connection(address, timeout)

    async def open(self) -> Opened:
        """See ``Dial``."""
        await self._connection.connect()  # type: ignore[no-untyped-call]
        return Opened(self._connection)


class BySentinels:
    """The primary of the service. ``replicas``: how many must have a write; where sentinels know of fewer, all of those."""

    def __init__(self, url: ParsedUrl, timeout: float, patience: float, replicas: int) -> None:
        self._url = url
        self._timeout = timeout
        self._patience = patience
        self._replicas = replicas

    async def open(self) -> Opened:
        """See ``Dial``."""
        tried: set[Address] = set()
        async for address, known in self._named():
            if address in tried:
                continue
            tried.add(address)
            connection = self._url.connection(address, self._timeout)
            try:
                async with asyncio.timeout(self._patience):
                    await connection.connect()  # type: ignore[no-untyped-call]
                    role = await ask_on(connection, "ROLE")
                if role[0] == b"master":
                    return Opened(connection, min(self._replicas, max(known, len(role[2]))))
            except (RedisError, OSError):
                await hang_up(connection)
            except BaseException:
                await hang_up(connection)
                raise
            await hang_up(connection)
        named = ", ".join(sorted(map(show, tried))) or "nobody"
        raise RedisConnectionError(f"no primary of {self._url.service}: sentinels name {named}")

    async def _named(self) -> AsyncIterator[tuple[Address, int]]:
        """Whom sentinels name as primary and how many replicas of it they know, dead ones too, as they answer."""
        asking = [asyncio.ensure_future(self._ask(one)) for one in self._url.hosts]
        try:
            for answer in asyncio.as_completed(asking):
                found = await answer
                if found is not None:
                    yield found
        finally:
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, sentinel: Address) -> tuple[Address, int] | None:
        connection, service = self._url.sentinel_connection(sentinel, self._timeout), self._url.service
        try:
            async with asyncio.timeout(self._patience):
                await connection.connect()  # type: ignore[no-untyped-call]
                place = await ask_on(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
                if place is None:
                    return None
                replicas = await ask_on(connection, "SENTINEL", "REPLICAS", service)
            return (place[0].decode(), int(place[1])), len(replicas)
        except (RedisError, OSError, ValueError, LookupError):
            return None
        finally:
            await hang_up(connection)


async def ask_on(connection: AnyConnection, *command: str) -> Any:
    """One command on an open connection. Raises redis-py's errors."""
    await connection.send_command(*command, check_health=False)
    return await connection.read_response()


async def ask_once(connection: AnyConnection, *command: str, patience: float) -> Any:
    """One command, over a connection for it alone. ``None`` where nobody answers within ``patience`` seconds, or not that."""
    try:
        async with asyncio.timeout(patience):
            await connection.connect()  # type: ignore[no-untyped-call]
            return await ask_on(connection, *command)
    except (RedisError, OSError):
        return None
    finally:
        await hang_up(connection)


async def hang_up(connection: AnyConnection) -> None:
    """Whatever state it is in."""
    with suppress(Exception):
        await connection.disconnect(nowait=True)
