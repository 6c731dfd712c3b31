"""A cluster of three primaries and three replicas as one store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from forwarder.ports import StoreAway, StoreUntouched
from forwarder.store.client import Elsewhere, StoreUrlError, load_script
from forwarder.store.cluster import ClusterClient, make_client
from forwarder.store.dial import PATIENCE
from tests.fakes import MemoryJournal
from tests.peers.chaos import ChaosProxy, Weather
from tests.peers.topologies import Cluster, cluster
from tests.peers.valkey import stopped
from tests.store.servers import BOUND


async def told(client: ClusterClient, key: bytes, value: str) -> float:
    """Say it until it is taken; the seconds that it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(BOUND):
        while True:
            try:
                await client.command("SET", key, value)
            except StoreAway:
                await asyncio.sleep(0.05)
            else:
                return loop.time() - began


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path) as it:
        yield it


async def test_keys_go_to_their_nodes_and_slots_may_move(nodes: Cluster) -> None:
    client = make_client(nodes.url, journal=MemoryJournal(), timeout=2)
    assert isinstance(client, ClusterClient)
    try:
        assert len(await client.primaries()) == 3
        keys = [b"{tag%d}:key" % number for number in range(30)]
        await asyncio.gather(*(client.command("SET", key, key) for key in keys))
        assert await asyncio.gather(*(client.command("GET", key) for key in keys)) == keys
        await _moves(nodes, client)
    finally:
        await client.close()


async def _moves(nodes: Cluster, client: ClusterClient) -> None:
    slot = key_slot(b"tag0")
    before = await nodes.owner(slot)
    after = (before + 1) % 3
    old, new = nodes.servers[before], nodes.servers[after]
    old_id, new_id = [(await one.ask("CLUSTER", "MYID")).decode() for one in (old, new)]
    await new.ask("CLUSTER", "SETSLOT", str(slot), "IMPORTING", old_id)
    await old.ask("CLUSTER", "SETSLOT", str(slot), "MIGRATING", new_id)
    # What is there is answered there; what is not goes where the slot goes: a command, and a script that nobody there knows.
    assert await client.command("GET", b"{tag0}:key") == b"{tag0}:key"
    await client.command("SET", b"{tag0}:new", "1")
    assert await client.run(load_script("replay"), [b"{tag0}:r:new"], (5, 100, b"one")) == [1, 0]
    assert await new.ask("CLUSTER", "COUNTKEYSINSLOT", str(slot)) == 2
    # A script that names its tag only would find one half here and one there.
    with pytest.raises(StoreUntouched, match="is being moved"):
        await client.run(load_script("queue_next", behind=("queue_common",)), [b"{tag0}"])
    await old.ask("MIGRATE", "127.0.0.1", str(new.port), "{tag0}:key", "0", "5000")
    for one in (new, old, nodes.servers[(after + 1) % 3]):
        await one.ask("CLUSTER", "SETSLOT", str(slot), "NODE", new_id)
    assert await client.command("GET", b"{tag0}:key") == b"{tag0}:key"
    assert await client.run(load_script("queue_next", behind=("queue_common",)), [b"{tag0}"]) == -1


async def test_a_primary_killed_while_its_replica_lags_costs_nothing_that_was_acknowledged(nodes: Cluster) -> None:
    client = make_client(nodes.url, journal=MemoryJournal())
    assert isinstance(client, ClusterClient)
    key = b"{tag1}:key"
    owner = await nodes.owner(key_slot(b"tag1"))
    primary, replica = nodes.servers[owner], nodes.servers[owner + 3]
    try:
        await told(client, key, "acknowledged")
        with stopped(replica.pid()):
            with pytest.raises(StoreAway, match="0 of 1 replicas have the write"):
                await client.command("SET", key, "not acknowledged")
            await primary.kill()
        assert await asyncio.wait_for(_read(client, key), BOUND) in (b"acknowledged", b"not acknowledged")
        # Nobody is there to have a copy, and none is waited for; when somebody is, it must have it.
        assert await told(client, key, "by itself") < 10
        await primary.start()
        await told(client, key, "with a copy")
        [node] = [one for one in await client.primaries() if one.where.endswith(f":{replica.port}")]
        async with asyncio.timeout(BOUND):
            while node.replicas == 0:
                await told(client, key, "with a copy")
        with stopped(primary.pid()), pytest.raises(StoreAway, match="0 of 1 replicas have the write"):
            await client.command("SET", key, "not acknowledged")
    finally:
        await client.close()


async def _read(client: ClusterClient, key: bytes) -> bytes:
    while True:
        try:
            value: bytes = await client.command("GET", key)
        except StoreAway:
            await asyncio.sleep(0.05)
        else:
            return value


async def test_a_node_that_is_asked_for_the_map_has_the_time_that_it_was_given(nodes: Cluster) -> None:
    slow = Weather(delay=PATIENCE)
    async with ChaosProxy(("127.0.0.1", nodes.servers[0].port), weather=lambda: slow) as net:
        url = f"redis+cluster://127.0.0.1:{net.port}"
        hasty = make_client(url, journal=MemoryJournal(), timeout=BOUND)
        patient = make_client(url, journal=MemoryJournal(), timeout=BOUND, patience=BOUND)
        try:
            with pytest.raises(StoreAway, match="does not answer"):
                await hasty.command("GET", b"{tag}:key")
            assert await patient.command("GET", b"{tag}:key") is None
        finally:
            await hasty.close()
            await patient.close()


async def test_who_gives_up_while_the_map_is_awaited_is_let_go() -> None:
    """At a stop, or when a time is up."""
    asked = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    host, port = silent.sockets[0].getsockname()
    client = ClusterClient(f"redis+cluster://{host}:{port}", journal=MemoryJournal(), patience=BOUND)
    caller = asyncio.ensure_future(client.command("GET", b"{tag0}:key"))
    try:
        await asked.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
    finally:
        await client.close()
        silent.close()


async def test_what_a_command_behind_asking_is_answered_counts_and_not_what_asking_is(nodes: Cluster) -> None:
    slot = key_slot(b"tag0")
    before = await nodes.owner(slot)
    old, new = nodes.servers[before], nodes.servers[(before + 1) % 3]
    old_id, new_id = [(await one.ask("CLUSTER", "MYID")).decode() for one in (old, new)]
    await new.ask("CLUSTER", "SETSLOT", str(slot), "IMPORTING", old_id)
    await old.ask("CLUSTER", "SETSLOT", str(slot), "MIGRATING", new_id)
    for one in nodes.servers:
        await one.ask("ACL", "SETUSER", "default", "-asking")
    client = ClusterClient(nodes.url, journal=MemoryJournal(), timeout=2)
    try:
        # Without ASKING the slot is still elsewhere.
        with pytest.raises(Elsewhere):
            await client.command("GET", b"{tag0}:new")
    finally:
        await client.close()


async def test_where_no_node_answers_the_store_is_away(tmp_path: Path) -> None:
    client = make_client("redis+cluster://127.0.0.1:1,127.0.0.1:2", journal=MemoryJournal())
    with pytest.raises(StoreAway, match="does not answer"):
        await client.command("GET", b"{tag}:key")
    await client.close()


@pytest.mark.parametrize("url", ["redis+cluster://", "redis+cluster://h:1/3", "redis+cluster://:pa/ss@h:1"])
def test_a_url_of_a_cluster_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(StoreUrlError, match=r"^store: "):
        make_client(url, journal=MemoryJournal())
