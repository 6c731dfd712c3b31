"""Stores of several servers on loopback: a primary with replicas and sentinels that watch it, and a cluster.

Everything is quick: who does not answer for ``DOWN`` milliseconds is taken for dead. ``Valkey`` kills, stops and asks each.
"""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forwarder.cli.demo_lab import free_port
from forwarder.ports import StoreAway
from forwarder.store.server import find_server
from tests.peers.valkey import Valkey

__all__ = ["DOWN", "Cluster", "Sentinels", "cluster", "sentinels"]

#: Milliseconds without an answer until a server is taken for dead.
DOWN = 1000
SERVICE = "mail"
_STEP = 0.05
_BOUND = 30.0


@dataclass
class Sentinels:
    """``servers``: the primary at first, then its replicas."""

    servers: list[Valkey]
    ports: list[int]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{one}' for one in self.ports)}/{SERVICE}"


@dataclass
class Cluster:
    """Three primaries at first, then the replica of each, in the same order."""

    servers: list[Valkey]
    replica_of: dict[int, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{one.port}' for one in self.servers[:3])}"

    async def owner(self, slot: int) -> int:
        """Which of the servers has a slot, by what the first that lives says."""
        shards = await self._ask_any("CLUSTER", "SLOTS")
        port = next(one[2][1] for one in shards if one[0] <= slot <= one[1])
        return next(number for number, one in enumerate(self.servers) if one.port == port)

    async def _ask_any(self, *command: str) -> Any:
        living = next(one for one in self.servers if one.process is not None and one.process.returncode is None)
        return await living.ask(*command)


@asynccontextmanager
async def sentinels(folder: Path, *, replicas: int = 2) -> AsyncIterator[Sentinels]:
    """Ready when it begins: every replica is in step, and three sentinels know of each other and of all of them."""
    async with AsyncExitStack() as stack:
        servers = [await _server(stack, folder / "server0", {})]
        # So that a replica which was stopped for a while, and a primary that comes back, are in step again at once.
        lead = servers[0].port
        for number in range(replicas):
            options = {"replicaof": f"127.0.0.1 {lead}", "repl-diskless-sync-delay": "0"}
            servers.append(await _server(stack, folder / f"server{number + 1}", options))
        ports = [await _sentinel(stack, folder / f"sentinel{number}", lead) for number in range(3)]
        it = Sentinels(servers, ports)
        await _until(lambda: _has_replicas(servers[0], replicas))
        for port in ports:
            await _until(lambda port=port: _sentinel_is_ready(port, replicas))  # type: ignore[misc]
        yield it


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    """Three primaries with a replica each; ready when it begins."""
    async with AsyncExitStack() as stack:
        servers = []
        for number in range(6):
            options = {
                "cluster-enabled": "yes",
                "cluster-port": str(free_port("127.0.0.1")),
                "cluster-node-timeout": str(DOWN),
                "repl-diskless-sync-delay": "0",
            }
            servers.append(await _server(stack, folder / f"node{number}", options))
        ids = [(await one.ask("CLUSTER", "MYID")).decode() for one in servers]
        bounds = (0, 5461, 10923, 16384)
        for number, one in enumerate(servers):
            await one.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
            if number < 3:
                await one.ask("CLUSTER", "ADDSLOTSRANGE", str(bounds[number]), str(bounds[number + 1] - 1))
            else:
                bus = one.options["cluster-port"]
                await servers[0].ask("CLUSTER", "MEET", "127.0.0.1", str(one.port), bus)
        for one in servers[1:3]:
            await servers[0].ask("CLUSTER", "MEET", "127.0.0.1", str(one.port), one.options["cluster-port"])
        for number in range(3, 6):
            await _until(lambda number=number: _knows(servers[number], ids[number - 3]))  # type: ignore[misc]
            await servers[number].ask("CLUSTER", "REPLICATE", ids[number - 3])
        for number, one in enumerate(servers):
            await _until(lambda one=one: _is_ok(one))  # type: ignore[misc]
            if number < 3:
                await _until(lambda one=one: _has_replicas(one, 1))  # type: ignore[misc]
        yield Cluster(servers)


async def _server(stack: AsyncExitStack, folder: Path, options: dict[str, str]) -> Valkey:
    os.makedirs(folder)  # noqa: PTH103 - nothing to wait for
    it = Valkey(folder, free_port("127.0.0.1"), options)
    stack.push_async_callback(it.kill)
    await it.start()
    return it


async def _sentinel(stack: AsyncExitStack, folder: Path, lead: int) -> int:
    os.makedirs(folder)  # noqa: PTH103 - nothing to wait for
    port = free_port("127.0.0.1")
    (folder / "sentinel.conf").write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor {SERVICE} 127.0.0.1 {lead} 2\n"
        f"sentinel down-after-milliseconds {SERVICE} {DOWN}\nsentinel failover-timeout {SERVICE} {6 * DOWN}\n"
    )
    process = await asyncio.create_subprocess_exec(
        find_server(), str(folder / "sentinel.conf"), "--sentinel", stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
    )

    async def kill() -> None:
        if process.returncode is None:
            process.kill()
        await process.wait()

    stack.push_async_callback(kill)
    return port


async def _until(condition: Any) -> None:
    async with asyncio.timeout(_BOUND):
        while True:
            try:
                if await condition():
                    return
            except (StoreAway, LookupError):
                pass
            await asyncio.sleep(_STEP)


async def _has_replicas(server: Valkey, count: int) -> bool:
    return sum(b"state=online" in line for line in (await server.ask("INFO", "replication")).splitlines()) >= count


async def _sentinel_is_ready(port: int, replicas: int) -> bool:
    [facts] = await Valkey(Path(), port).ask("SENTINEL", "MASTERS")
    told = _pairs(facts)
    return int(told[b"num-slaves"]) >= replicas and int(told[b"num-other-sentinels"]) == 2


async def _knows(server: Valkey, id: str) -> bool:  # noqa: A002 - what the cluster calls it
    return id in (await server.ask("CLUSTER", "NODES")).decode()


async def _is_ok(server: Valkey) -> bool:
    info = (await server.ask("CLUSTER", "INFO")).decode()
    return "cluster_state:ok" in info and "cluster_known_nodes:6" in info and "cluster_size:3" in info


def _pairs(flat: Sequence[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
