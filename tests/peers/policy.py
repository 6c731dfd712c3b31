"""A policy server for Postfix (its SMTPD_POLICY_README): a function decides about each recipient."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

__all__ = ["policy_server"]


@asynccontextmanager
async def policy_server(decide: Callable[[dict[str, str]], str]) -> AsyncIterator[str]:
    """What ``check_policy_service`` wants as its address. ``decide`` gets the attributes and gives an action as in access(5)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attributes: dict[str, str] = {}
        while line := (await reader.readline()).decode("utf-8", "replace"):
            name, equals, value = line.rstrip("\n").partition("=")
            if equals:
                attributes[name] = value
                continue
            writer.write(f"action={decide(attributes)}\n\n".encode())
            attributes = {}
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"inet:127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
