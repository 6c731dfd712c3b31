"""store/queue.py: what follows from a damaged value, and whom does it touch?"""

from __future__ import annotations

import pytest

from forwarder.store.client import StoreClient
from forwarder.store.queue import Did, Do, RedisQueue
from tests.fakes import MemoryJournal
from tests.store.queue.items import BODY, claim, held, keys, octets_in_store, pass_time


@pytest.mark.parametrize(("kind", "field"), [(b"qi", "v"), (b"qi", "h"), (b"qb", "o")])
@pytest.mark.parametrize("at", [0, 5, -1])
async def test_a_flipped_octet_is_a_dead_letter_and_an_alarm(
    queue: RedisQueue, client: StoreClient, journal: MemoryJournal, kind: bytes, field: str, at: int
) -> None:
    await queue.put([held()])
    (name,) = await keys(client, kind)
    value = bytearray(await client.command("HGET", name, field))
    value[at] ^= 1
    await client.command("HSET", name, field, bytes(value))
    assert await claim(queue) == []
    assert [one["kind"] for one in journal.named("store_value_unreadable")] == ["queue"]
    (dead,) = [item async for item in queue.list(dead=True)]
    assert dead.dead == "damaged in the store"
    assert await queue.do(dead.id, Do.DROP) is Did.DONE
    assert await keys(client, b"qi") == []


async def test_a_body_that_is_gone_is_damage_too(queue: RedisQueue, client: StoreClient) -> None:
    await queue.put([held()])
    await client.command("DEL", *await keys(client, b"qb"))
    assert await claim(queue) == []
    assert len([item async for item in queue.list(dead=True)]) == 1


async def test_an_item_that_is_gone_is_an_alarm_and_takes_no_place_of_its_next_hop(
    queue: RedisQueue, client: StoreClient, journal: MemoryJournal
) -> None:
    await queue.put([held("m1.0"), held("m2.0")])
    await claim(queue, "one", limit=1, seconds=0.02)
    await client.command("DEL", *await keys(client, b"qi"))
    await pass_time(client, 0.04)
    assert await claim(queue, "two") == []
    assert len(journal.named("store_value_unreadable")) == 2
    assert await client.command("HLEN", "{fwd0}:qc") == await client.command("ZCARD", "{fwd0}:ql") == 0
    dead = [item async for item in queue.list(dead=True)]
    assert [await queue.do(one.id, Do.DROP) for one in dead] == [Did.DONE, Did.DONE]
    assert await keys(client, b"qi") == []


@pytest.mark.parametrize("field", ["d", "b", "n", "l", "x"])
async def test_a_flipped_octet_among_the_facts_loses_nothing_and_stops_nobody(
    queue: RedisQueue, client: StoreClient, field: str
) -> None:
    one = held("m1.0")
    await queue.put([one, held("m2.0", "other.example", body=b"other\r\n", head=b"Subject: y\r\n\r\n")])
    kind, known, whole = (b"qb", "o", BODY) if field == "n" else (b"qi", "h", one.delivery.data[0])
    (name,) = [each for each in await keys(client, kind) if await client.command("HGET", each, known) == whole]
    value = bytearray(await client.command("HGET", name, field)) or bytearray(b"\x00")
    value[-1] ^= 64
    await client.command("HSET", name, field, bytes(value))
    claimed = {each.held.id: each.held for each in await claim(queue)}
    dead = [each.id async for each in queue.list(dead=True)]
    assert sorted([*claimed, *dead]) == ["m1.0", "m2.0"]
    for each in claimed.values():
        assert each.delivery.data[1] in (BODY, b"other\r\n")
        assert await queue.settle(each, "one", left=None, delay=0, reports=())
    for id_ in dead:
        assert await queue.do(id_, Do.DROP) is Did.DONE
    assert await keys(client, b"qi") == []
    assert await client.command("HLEN", "{fwd0}:qc") == await client.command("ZCARD", "{fwd0}:qd") == 0


async def test_a_damaged_body_heals_when_a_whole_one_comes(queue: RedisQueue, client: StoreClient) -> None:
    await queue.put([held("m1.0")])
    await client.command("HSET", *await keys(client, b"qb"), "o", b"bodx\r\n")
    await queue.put([held("m2.0"), held("m3.0")])
    assert len(await claim(queue)) == 3
    assert await queue.held_octets() == await octets_in_store(client)
