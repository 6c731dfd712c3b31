"""store/queue.py: what is not held, and is all that is there still let out?"""

from __future__ import annotations

import asyncio

import pytest

from forwarder.ports import QueueFull, StoreAway
from forwarder.store.client import StoreClient
from forwarder.store.disk import Disk
from forwarder.store.ledger import RedisLedger
from forwarder.store.queue import Did, Do, RedisQueue
from forwarder.store.server import EmbeddedStore
from tests.fakes import MemoryJournal
from tests.store.queue.items import claim, held, keys, octets_in_store
from tests.store.servers import BOUND


async def test_a_body_that_is_too_large_is_refused(queue: RedisQueue, client: StoreClient) -> None:
    with pytest.raises(QueueFull):
        await queue.put([held(), held("e1.1", body=b"x" * 1001)])
    assert await keys(client, b"qi") == []


async def test_a_store_without_memory_takes_nothing_in_and_still_lets_everything_out(
    queue: RedisQueue, client: StoreClient
) -> None:
    several = [held(f"e{number}.0", f"d{number}.example") for number in range(3)]
    await queue.put(several)
    await client.command("CONFIG", "SET", "maxmemory", "100000")
    try:
        with pytest.raises(StoreAway, match="OOM"):
            await queue.put([held("e9.0"), held("e9.1")])
        assert len(await keys(client, b"qi")) == 3
        first, second, third = await claim(queue)
        assert await queue.mark_dot(first.held.id, "one")
        await queue.renew([first.held.id], "one", 60)
        assert await queue.settle(first.held, "one", left=None, delay=0, reports=[held("r.0", "sender.example")])
        assert await queue.settle(second.held, "one", left=second.held, delay=60, reports=())
        assert await queue.bury(third.held, "one", "no way")
        assert await queue.do(third.held.id, Do.DROP) is Did.DONE
    finally:
        await client.command("CONFIG", "SET", "maxmemory", "0")
    assert [one.held.id for one in await claim(queue, "two")] == ["r.0"]


async def test_a_disk_that_is_short_takes_nothing_in_and_the_file_is_made_smaller(
    client: StoreClient, server: EmbeddedStore, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    # No file system has as much.
    disk = Disk(server.directory, client, least=1 << 80, journal=journal)
    queue = RedisQueue(client, ledger, journal=journal, max_body=1000, high_water=10**6, disk=disk)
    before = await rewrites(client)
    for _ in range(2):
        with pytest.raises(QueueFull, match="disk"):
            await queue.put([held()])
    assert len(journal.named("store.disk_short")) == 1
    async with asyncio.timeout(BOUND):
        while await rewrites(client) == before:  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.01)
    roomy = Disk(server.directory, client, least=1, journal=journal)
    await RedisQueue(client, ledger, journal=journal, max_body=1000, high_water=10**6, disk=roomy).put([held()])


async def rewrites(client: StoreClient) -> bytes:
    """How often the store has written its file anew."""
    text = await client.command("INFO", "persistence")
    return bytes(next(one for one in text.splitlines() if one.startswith(b"aof_rewrites:")))


async def test_over_the_high_water_mark_it_is_all_or_nothing(
    client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    queue = RedisQueue(client, ledger, journal=journal, max_body=1000, high_water=900)
    await queue.put([held(body=b"x" * 500)])
    with pytest.raises(QueueFull):
        await queue.put([held("e2.0", body=b"y" * 100), held("e2.1", body=b"z" * 300)])
    assert await queue.held_octets() == await octets_in_store(client)
    assert len(await keys(client, b"qi")) == 1
    # The same body once more costs its head only.
    await queue.put([held("e3.0", body=b"x" * 500)])
    # And what is in there already can be put again, however full it is.
    await queue.put([held("e3.0", body=b"x" * 500)])
