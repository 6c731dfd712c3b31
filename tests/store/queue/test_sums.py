"""store/queue.py: is every sum exact after any run?"""

from __future__ import annotations

import random
from dataclasses import replace

from forwarder.ports import Claimed
from forwarder.store.client import StoreClient
from forwarder.store.queue import RedisQueue
from tests.store.queue.items import claim, held, keys, octets_in_store


async def test_every_sum_is_exact_after_any_run(queue: RedisQueue, client: StoreClient) -> None:
    rng, leases = random.Random(11), dict[str, Claimed]()
    for number in range(400):
        match rng.randrange(5):
            case 0 | 1:
                hop, body = f"d{rng.randrange(6)}.example", bytes([65 + rng.randrange(5)]) * 50
                await queue.put([held(f"m{rng.randrange(250)}.0", hop, body=body)], delay=rng.choice([0, 0, 60]))
            case 2:
                for one in await claim(queue, f"lease{number}", limit=3, each=2):
                    leases[one.held.id] = one
                    leases[one.held.id + "?"] = Claimed(replace(one.held, id=f"lease{number}"), dots=0)
            case 3 if leases:
                id_ = rng.choice([one for one in leases if not one.endswith("?")])
                one, lease = leases.pop(id_).held, leases.pop(id_ + "?").held.id
                left = one if rng.random() < 0.4 else None
                assert await queue.settle(one, lease, left=left, delay=rng.choice([0, 60]), reports=())
            case _:
                await queue.back_off(f"d{rng.randrange(6)}.example", rng.choice([0, 30]))
    assert await queue.held_octets() == await octets_in_store(client)
    under_lease = await client.command("ZCARD", "{fwd0}:ql")
    counts = await client.command("HGETALL", "{fwd0}:qc")
    assert under_lease == len(leases) // 2 == sum(map(int, counts[1::2]))
    waiting = sum([await client.command("ZCARD", one) for one in await keys(client, b"qw")])
    assert waiting + under_lease == len(await keys(client, b"qi")) == await client.command("ZCARD", "{fwd0}:qa")
    assert await client.command("ZCARD", "{fwd0}:qd") == len(await keys(client, b"qw"))
