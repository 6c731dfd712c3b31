"""store/queue.py and its scripts: every step whole, every lease one holder's, every octet counted, on Valkey and on Redis."""

from __future__ import annotations

import asyncio
import random
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import pytest

from forwarder.model import Address, BodyKind, Delivery, Envelope, Notice, Peer, Recipient, Tls, TlsWish
from forwarder.ports import Claim, Claimed, Forwarded, Held, QueueFull, StoreAway, Waiting
from forwarder.store.client import StoreClient
from forwarder.store.ledger import RedisLedger
from forwarder.store.queue import RedisQueue
from forwarder.store.queuerecords import open_held, seal_held
from forwarder.store.records import Names
from forwarder.store.server import EmbeddedStore
from tests.fakes import MemoryJournal
from tests.store.servers import BOUND

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
BOB, ALIAS, DEST = Address("bob", "sender.example"), Address("alias", "fwd.example"), Address("d", "dest.example")
BODY = b"body\r\n"
#: NOTIFY, ORCPT and ENVID.
ASKED = ("FAILURE", "rfc822;alias@fwd.example", "QQ314159")
ENVELOPE = Envelope(
    "e1",
    Peer(IPv4Address("192.0.2.1"), "mx.sender.example", tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
    BOB,
    (Recipient(ALIAS, "FAILURE", "rfc822;alias@fwd.example"),),
    NOW,
    smtputf8=True,
    body=BodyKind.EIGHT_BIT_MIME,
    envid="QQ314159",
    ret="HDRS",
)


def held(
    id: str = "e1.0",  # noqa: A002 - what Held calls it
    next_hop: str = "dest.example",
    *,
    body: bytes = BODY,
    head: bytes = b"Subject: x\r\n\r\n",
    recipients: int = 1,
) -> Held:
    destinations = tuple(Address(f"d{number}", next_hop) for number in range(recipients))
    reversible = Address("SRS0=x", "fwd.example")
    return Held(
        id=id,
        delivery=Delivery("e1", reversible, destinations, next_hop, (head, body), NOW + timedelta(days=5)),
        waiting=tuple(
            Waiting(ALIAS, bytes([number]) * 32, Forwarded(reversible, BOB, ALIAS, one, "<1@x>", "e1", NOW, *ASKED))
            for number, one in enumerate(destinations)
        ),
        envelope=ENVELOPE,
        report_to=BOB,
        srs_domain="fwd.example",
        header_at=0,
        queued_at=NOW,
    )


@pytest.fixture
def ledger(client: StoreClient, journal: MemoryJournal) -> RedisLedger:
    return RedisLedger(client, journal=journal)


@pytest.fixture
def queue(client: StoreClient, ledger: RedisLedger, journal: MemoryJournal) -> RedisQueue:
    return RedisQueue(client, ledger, journal=journal, max_body=1000, high_water=100_000)


@pytest.fixture
async def neighbour(server: EmbeddedStore, journal: MemoryJournal) -> AsyncIterator[RedisQueue]:
    """The queue of another worker, with its own connection."""
    client = StoreClient(server.url, journal=journal, timeout=BOUND)
    yield RedisQueue(client, RedisLedger(client, journal=journal), journal=journal, max_body=1000, high_water=100_000)
    await client.close()


async def claim(
    queue: RedisQueue, lease: str = "one", *, seconds: float = 60, limit: int = 10, each: int = 5
) -> list[Claimed]:
    return list(await queue.claim(lease, seconds=seconds, limit=limit, per_destination=each))


async def pass_time(client: StoreClient, seconds: float) -> None:
    """On the store's own clock: it answers when that time is over."""
    await client.command("BLPOP", "{fwd0}:nothing", str(seconds))


async def end_leases(client: StoreClient) -> None:
    """As if their time had passed."""
    for item in await client.command("ZRANGE", "{fwd0}:ql", 0, -1):
        await client.command("ZADD", "{fwd0}:ql", 0, item)


async def keys(client: StoreClient, kind: bytes) -> list[bytes]:
    return [one for one in await client.command("KEYS", "*") if b":%b:" % kind in one]


async def commands_run(client: StoreClient) -> int:
    """By clients and by scripts, since CONFIG RESETSTAT."""
    stats = (await client.command("INFO", "commandstats")).decode()
    return sum(int(line.split("calls=")[1].split(",")[0]) for line in stats.splitlines() if "calls=" in line)


async def octets_in_store(client: StoreClient) -> int:
    heads = [await client.command("HSTRLEN", one, "h") for one in await keys(client, b"qi")]
    bodies = [await client.command("HSTRLEN", one, "o") for one in await keys(client, b"qb")]
    return sum(heads) + sum(bodies)


# --- in and out -------------------------------------------------------------------------------------------------------


async def test_what_is_put_comes_out_as_it_was(queue: RedisQueue) -> None:
    one = held(recipients=3)
    await queue.put([one])
    assert await claim(queue) == [Claimed(one, dots=0)]


async def test_what_waits_is_nobodys_until_it_is_due(queue: RedisQueue) -> None:
    await queue.put([held()], delay=300)
    assert await claim(queue) == []
    due = await queue.next_due()
    assert due is not None
    assert 299 < due <= 300


async def test_nothing_is_left_of_what_was_settled(queue: RedisQueue, client: StoreClient) -> None:
    one = held()
    await queue.put([one])
    await claim(queue)
    assert await queue.settle(one, "one", left=None, delay=0, reports=())
    assert await keys(client, b"qi") == await keys(client, b"qb") == await keys(client, b"qw") == []
    assert await queue.held_octets() == 0
    assert await queue.next_due() is None


async def test_putting_twice_changes_nothing_while_it_waits_and_after_it_was_settled(queue: RedisQueue) -> None:
    one = held()
    await queue.put([one])
    await queue.put([one])
    assert len(await claim(queue)) == 1
    await queue.put([one])
    assert await claim(queue, "two") == []
    await queue.settle(one, "one", left=None, delay=0, reports=())
    await queue.put([one])
    assert await claim(queue, "three") == []


async def test_a_body_is_kept_once_for_all_that_carry_it(queue: RedisQueue, client: StoreClient) -> None:
    several = [held(f"e1.{number}", f"d{number}.example") for number in range(5)]
    await queue.put(several)
    assert len(await keys(client, b"qb")) == 1
    assert (
        await queue.held_octets() == await octets_in_store(client) == len(BODY) + 5 * len(several[0].delivery.data[0])
    )
    for one in await claim(queue):
        assert one.held.delivery.data[1] == BODY
        await queue.settle(one.held, "one", left=None, delay=0, reports=())
    assert await keys(client, b"qb") == []


async def test_what_is_queued_is_marked_in_the_ledger_in_the_same_step(queue: RedisQueue, ledger: RedisLedger) -> None:
    await queue.put([held()])
    assert await ledger.claim([bytes([0]) * 32], "retry") == [Claim.DELIVERED]


async def test_what_is_left_waits_for_its_time_and_reports_go_out_in_the_same_step(queue: RedisQueue) -> None:
    one = held(recipients=2)
    await queue.put([one])
    await claim(queue)
    left = replace(
        one,
        delivery=replace(one.delivery, recipients=one.delivery.recipients[:1], attempts=1),
        waiting=one.waiting[:1],
        maybe_dup=True,
    )
    report = held("e1.0.r0", "sender.example", body=b"report\r\n")
    assert await queue.settle(one, "one", left=left, delay=0.02, reports=[report])
    assert await queue.settle(one, "one", left=left, delay=0.02, reports=[report]) is False
    assert await claim(queue, "two") == [Claimed(report, dots=0)]
    due = await queue.next_due()
    assert due is not None
    await pass_time(queue._client, 0.03)
    assert await claim(queue, "three") == [Claimed(left, dots=0)]


# --- what cannot be held ----------------------------------------------------------------------------------------------


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
        assert await queue.drop(third.held.id)
    finally:
        await client.command("CONFIG", "SET", "maxmemory", "0")
    assert [one.held.id for one in await claim(queue, "two")] == ["r.0"]


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


# --- leases -----------------------------------------------------------------------------------------------------------


async def test_an_item_is_under_one_lease_at_a_time(queue: RedisQueue) -> None:
    await queue.put([held(f"e{number}.0", f"d{number}.example") for number in range(20)])
    first, second = await claim(queue, "one", limit=15), await claim(queue, "two", limit=15)
    ids = [one.held.id for one in (*first, *second)]
    assert (len(first), len(second), len(set(ids))) == (15, 5, 20)


async def test_of_workers_that_claim_at_once_none_gets_what_another_has(
    queue: RedisQueue, neighbour: RedisQueue
) -> None:
    await queue.put([held(f"e{number}.0", f"d{number % 7}.example") for number in range(100)])
    workers = [(one, f"{name}{turn}") for turn in range(20) for name, one in (("q", queue), ("n", neighbour))]
    answers = await asyncio.gather(*(claim(one, lease, limit=4, each=100) for one, lease in workers))
    ids = [one.held.id for answer in answers for one in answer]
    assert len(ids) == len(set(ids)) == 100
    assert all(len(answer) <= 4 for answer in answers)


async def test_dots_are_counted_over_leases_until_an_attempt_is_settled(queue: RedisQueue, client: StoreClient) -> None:
    one = held()
    await queue.put([one])
    for number in range(3):
        assert await claim(queue, f"lease{number}") == [Claimed(one, dots=number)]
        # At the dot with one host after the other it is one attempt still.
        assert await queue.mark_dot(one.id, f"lease{number}")
        assert await queue.mark_dot(one.id, f"lease{number}")
        await end_leases(client)
    # A crash before the dot forgets none of those before.
    assert await claim(queue, "early") == [Claimed(one, dots=3)]
    await end_leases(client)
    assert await claim(queue, "last") == [Claimed(one, dots=3)]
    await queue.settle(one, "last", left=one, delay=0)
    assert await claim(queue, "new") == [Claimed(one, dots=0)]


async def test_dead_letters_are_made_in_the_step_that_settles_however_full_it_is(
    client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    queue = RedisQueue(client, ledger, journal=journal, max_body=1000, high_water=30)
    one, letter = held(), held("e1.0.d0", head=b"x" * 100)
    await queue.put([one])
    await claim(queue)
    assert await queue.settle(one, "one", left=None, delay=0, dead=[(letter, "nobody may be told")])
    assert await claim(queue, "two") == []
    (dead,) = [item async for item in queue.list()]
    assert (dead.id, dead.dead) == ("e1.0.d0", "nobody may be told")
    assert await queue.held_octets() == await octets_in_store(client)


@pytest.mark.parametrize("dotted", [False, True])
async def test_a_lease_that_ran_out_is_somebody_elses_and_tells_of_the_dot(
    queue: RedisQueue, client: StoreClient, dotted: bool
) -> None:
    one = held()
    await queue.put([one])
    await claim(queue, "one")
    if dotted:
        assert await queue.mark_dot(one.id, "one")
    assert await claim(queue, "two") == []
    await end_leases(client)
    assert await claim(queue, "two") == [Claimed(one, dots=int(dotted))]
    assert await queue.mark_dot(one.id, "one") is False
    assert await queue.settle(one, "one", left=None, delay=0, reports=[held("r")]) is False
    assert await queue.bury(one, "one", "late") is False
    assert await queue.settle(one, "two", left=one, delay=0, reports=()) is True
    # The mark belonged to the lease.
    assert await claim(queue, "three") == [Claimed(one, dots=0)]


async def test_a_lease_that_is_renewed_goes_on_and_one_that_was_lost_does_not(
    queue: RedisQueue, client: StoreClient
) -> None:
    one = held()
    await queue.put([one])
    await claim(queue, "one")
    await end_leases(client)
    await queue.renew([one.id], "one", 60)
    await queue.renew([one.id], "another", 0)
    assert await claim(queue, "two") == []
    await end_leases(client)
    await claim(queue, "two")
    await queue.renew([one.id], "one", 600)
    await end_leases(client)
    assert len(await claim(queue, "three")) == 1


async def test_what_is_put_under_a_lease_belongs_to_the_attempt_that_goes_on(
    queue: RedisQueue, client: StoreClient
) -> None:
    one = held()
    await queue.put([one], lease="attempt", seconds=60)
    assert await claim(queue) == []
    assert await queue.mark_dot(one.id, "attempt")
    await end_leases(client)
    assert await claim(queue) == [Claimed(one, dots=1)]


# --- next hops --------------------------------------------------------------------------------------------------------


async def test_a_next_hop_with_a_mountain_of_mail_keeps_nobody_waiting(
    client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    queue = RedisQueue(client, ledger, journal=journal, max_body=1000, high_water=100_000_000)
    cost = []
    for mountain in (10, 10_000):
        await client.command("FLUSHALL")
        ledger._check_at = 0  # the salt is gone with it
        for start in range(0, mountain, 500):
            many = range(start, min(start + 500, mountain))
            await queue.put([held(f"m{number}.0", "dead.example") for number in many])
        await queue.put([held("other.0", "living.example")])
        await client.command("CONFIG", "RESETSTAT")
        claimed = await claim(queue, limit=4, each=2)
        hops = sorted(one.held.delivery.next_hop for one in claimed)
        assert hops == ["dead.example", "dead.example", "living.example"]
        cost.append(await commands_run(client))
    # The same commands on single items, whatever lies there.
    assert cost[0] == cost[1] < 100


async def test_next_hops_at_their_limit_hide_none_that_is_not(queue: RedisQueue) -> None:
    await queue.put([held(f"{hop}{number}.0", f"{hop}.example") for hop in "abc" for number in range(3)])
    assert len(await claim(queue, "one", each=1)) == 3
    await queue.put([held("d.0", "d.example")])
    # a, b and c are due, come first and may have no more: d is found all the same, with room for one.
    for hop in "abc":
        await queue.back_off(f"{hop}.example", 0)
    assert [one.held.id for one in await claim(queue, "two", limit=1, each=1)] == ["d.0"]


async def test_of_one_next_hop_no_more_than_so_many_are_under_way(queue: RedisQueue) -> None:
    await queue.put([held(f"m{number}.0") for number in range(10)])
    first = await claim(queue, "one", each=3)
    assert len(first) == 3
    assert await claim(queue, "two", each=3) == []
    await queue.settle(first[0].held, "one", left=None, delay=0, reports=())
    assert len(await claim(queue, "three", each=3)) == 1


async def test_a_next_hop_that_is_left_alone_is_left_alone_as_a_whole(queue: RedisQueue, client: StoreClient) -> None:
    await queue.put([held("m1.0"), held("m2.0")])
    (first,) = await claim(queue, limit=1)
    await queue.back_off("dest.example", 300)
    assert await claim(queue, "two") == []
    await queue.put([held("m3.0")])
    assert await claim(queue, "three") == []
    due = await queue.next_due()
    assert due is not None
    assert 50 < due <= 60.1  # the lease of the first ends before that
    await queue.settle(first.held, "one", left=None, delay=0, reports=())
    await queue.back_off("DEST.example", 0)
    assert len(await claim(queue, "four")) == 2


# --- dead letters and the operator ------------------------------------------------------------------------------------


async def test_a_dead_letter_is_seen_and_waits_for_the_operator(queue: RedisQueue) -> None:
    one, other = held(), held("e2.0", "other.example")
    await queue.put([one, other])
    await claim(queue)
    assert await queue.bury(one, "one", "nobody may be told")
    assert await claim(queue, "two") == []
    (dead,) = [item async for item in queue.list(dead=True)]
    assert (dead.id, dead.dead, dead.due_in, dead.leased) == ("e1.0", "nobody may be told", None, False)
    (leased,) = [item async for item in queue.list() if item.dead is None]
    assert (leased.id, leased.leased) == ("e2.0", True)
    assert await queue.drop(leased.id) is None
    assert await queue.retry(dead.id) is True
    assert await claim(queue, "three") == [Claimed(one, dots=0)]
    assert [item async for item in queue.list(dead=True)] == []


async def test_an_operator_reads_drops_and_hurries(queue: RedisQueue) -> None:
    one = held()
    await queue.put([one], delay=300)
    assert await queue.read(one.id) == one
    assert await queue.read("nothing") is None
    assert await queue.retry(one.id) is True
    assert await claim(queue) == [Claimed(one, dots=0)]
    await queue.settle(one, "one", left=one, delay=300, reports=())
    assert await queue.drop(one.id) is True
    assert await queue.drop(one.id) is False
    assert await queue.held_octets() == 0


async def test_a_long_list_comes_in_pages(queue: RedisQueue) -> None:
    await queue.put([held(f"m{number}.0", f"d{number}.example") for number in range(450)])
    ids = [one.id async for one in queue.list()]
    assert (len(ids), len(set(ids))) == (450, 450)


# --- damage -----------------------------------------------------------------------------------------------------------


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
    assert await queue.drop(dead.id) is True
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
    assert [await queue.drop(one.id) for one in dead] == [True, True]
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
        assert await queue.drop(id_)
    assert await keys(client, b"qi") == []
    assert await client.command("HLEN", "{fwd0}:qc") == await client.command("ZCARD", "{fwd0}:qd") == 0


async def test_a_damaged_body_heals_when_a_whole_one_comes(queue: RedisQueue, client: StoreClient) -> None:
    await queue.put([held("m1.0")])
    await client.command("HSET", *await keys(client, b"qb"), "o", b"bodx\r\n")
    await queue.put([held("m2.0"), held("m3.0")])
    assert len(await claim(queue)) == 3
    assert await queue.held_octets() == await octets_in_store(client)


#: Never changed: a release reads what an older one has put.
VERSION_1 = b64decode(
    """
    AaeGiVXoiUpf3AARpGUxLjCiZTGSxAZTUlMwPXjEC2Z3ZC5leGFtcGxlrGRlc3QuZXhhbXBsZdb/awrJSMKoOEJJVE1JTUUAkpaSxAJkMMQM
    ZGVzdC5leGFtcGxlksQFYWxpYXPEC2Z3ZC5leGFtcGxlxCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAJLEBlNSUzA9eMQLZndk
    LmV4YW1wbGWSxANib2LEDnNlbmRlci5leGFtcGxlxAU8MUB4PpaSxAJkMcQMZGVzdC5leGFtcGxlksQFYWxpYXPEC2Z3ZC5leGFtcGxlxCAB
    AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAZLEBlNSUzA9eMQLZndkLmV4YW1wbGWSxANib2LEDnNlbmRlci5leGFtcGxlxAU8MUB4
    PpmiZTGUqTE5Mi4wLjIuMbFteC5zZW5kZXIuZXhhbXBsZcOSp1RMU3YxLjO2VExTX0FFU18yNTZfR0NNX1NIQTM4NJLEA2JvYsQOc2VuZGVy
    LmV4YW1wbGWRk5LEBWFsaWFzxAtmd2QuZXhhbXBsZadGQUlMVVJFuHJmYzgyMjthbGlhc0Bmd2QuZXhhbXBsZdb/awQxyMOoOEJJVE1JTUWo
    UVEzMTQxNTmkSERSU5LEA2JvYsQOc2VuZGVyLmV4YW1wbGWrZndkLmV4YW1wbGUA1v9rBDHIw8QQJ5ienlhn4fh4mq0ADwk27cQQvz3lKuBT
    yH6Ek7syISOS0g==
    """
)


#: With what REQUIRETLS made of it.
VERSION_2 = b64decode(
    """
    AUovfAjoOWxr3AASpGUxLjCiZTGSxAZTUlMwPXjEC2Z3ZC5leGFtcGxlrGRlc3QuZXhhbXBsZdb/awrJSMKoOEJJVE1JTUUAkpaSxAJkMMQM
    ZGVzdC5leGFtcGxlksQFYWxpYXPEC2Z3ZC5leGFtcGxlxCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAJLEBlNSUzA9eMQLZndk
    LmV4YW1wbGWSxANib2LEDnNlbmRlci5leGFtcGxlxAU8MUB4PpaSxAJkMcQMZGVzdC5leGFtcGxlksQFYWxpYXPEC2Z3ZC5leGFtcGxlxCAB
    AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAZLEBlNSUzA9eMQLZndkLmV4YW1wbGWSxANib2LEDnNlbmRlci5leGFtcGxlxAU8MUB4
    PpqiZTGUqTE5Mi4wLjIuMbFteC5zZW5kZXIuZXhhbXBsZcOSp1RMU3YxLjO2VExTX0FFU18yNTZfR0NNX1NIQTM4NJLEA2JvYsQOc2VuZGVy
    LmV4YW1wbGWRk5LEBWFsaWFzxAtmd2QuZXhhbXBsZadGQUlMVVJFuHJmYzgyMjthbGlhc0Bmd2QuZXhhbXBsZdb/awQxyMOoOEJJVE1JTUWo
    UVEzMTQxNTmkSERSU8OSxANib2LEDnNlbmRlci5leGFtcGxlq2Z3ZC5leGFtcGxlANb/awQxyMPEECeYnp5YZ+H4eJqtAA8JNu3EEL895Srg
    U8h+hJO7MiEjktKocmVxdWlyZWQ=
    """
)


def test_a_record_of_version_1_is_read() -> None:
    expected = replace(held(recipients=2), maybe_dup=True)
    assert open_held(Names(b"s" * 32), b"name", VERSION_1, (b"Subject: x\r\n\r\n", BODY)) == expected


def test_a_record_of_version_2_is_read() -> None:
    first = replace(held(recipients=2), maybe_dup=True)
    asked, wished = replace(ENVELOPE, require_tls=True), replace(first.delivery, tls=TlsWish.REQUIRED)
    expected = replace(first, envelope=asked, delivery=wished)
    assert open_held(Names(b"s" * 32), b"name", VERSION_2, (b"Subject: x\r\n\r\n", BODY)) == expected


#: With what the next hop is asked to report, and whether the sender knows of the delay.
VERSION_3 = b64decode(
    """
    AbTvKUuXtgqh3AAVpGUxLjCiZTGSxAZTUlMwPXjEC2Z3ZC5leGFtcGxlrGRlc3QuZXhhbXBsZdb/awrJSMKoOEJJVE1JTUUAkpiSxAJkMMQMZG
    VzdC5leGFtcGxlksQFYWxpYXPEC2Z3ZC5leGFtcGxlxCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAJLEBlNSUzA9eMQLZndkLmV4
    YW1wbGWSxANib2LEDnNlbmRlci5leGFtcGxlxAU8MUB4PqdTVUNDRVNTuHJmYzgyMjthbGlhc0Bmd2QuZXhhbXBsZZiSxAJkMcQMZGVzdC5leG
    FtcGxlksQFYWxpYXPEC2Z3ZC5leGFtcGxlxCABAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAZLEBlNSUzA9eMQLZndkLmV4YW1wbGWS
    xANib2LEDnNlbmRlci5leGFtcGxlxAU8MUB4PsDAmqJlMZSpMTkyLjAuMi4xsW14LnNlbmRlci5leGFtcGxlw5KnVExTdjEuM7ZUTFNfQUVTXz
    I1Nl9HQ01fU0hBMzg0ksQDYm9ixA5zZW5kZXIuZXhhbXBsZZGTksQFYWxpYXPEC2Z3ZC5leGFtcGxlp0ZBSUxVUkW4cmZjODIyO2FsaWFzQGZ3
    ZC5leGFtcGxl1v9rBDHIw6g4QklUTUlNRahRUTMxNDE1OaRIRFJTwpLEA2JvYsQOc2VuZGVyLmV4YW1wbGWrZndkLmV4YW1wbGUA1v9rBDHIw8
    QQJ5ienlhn4fh4mq0ADwk27cQQvz3lKuBTyH6Ek7syISOS0qCoUVEzMTQxNTmkSERSU8M=
    """
)


def asking() -> Held:
    one = held(recipients=2)
    notices = (Notice("SUCCESS", "rfc822;alias@fwd.example"), Notice())
    delivery = replace(one.delivery, notices=notices, envid="QQ314159", ret="HDRS")
    return replace(one, delivery=delivery, maybe_dup=True, delay_told=True)


def test_a_record_of_version_3_is_read() -> None:
    assert open_held(Names(b"s" * 32), b"name", VERSION_3, (b"Subject: x\r\n\r\n", BODY)) == asking()
    assert seal_held(Names(b"s" * 32), b"name", asking()) == VERSION_3


def test_a_record_is_read_back_whole() -> None:
    names, one = Names(b"s" * 32), held(recipients=2)
    record = seal_held(names, b"name", one)
    assert open_held(names, b"name", record, (b"Subject: x\r\n\r\n", BODY)) == one
    assert open_held(names, b"another", record, (b"Subject: x\r\n\r\n", BODY)) is None
    assert open_held(names, b"name", record, (b"Subject: y\r\n\r\n", BODY)) is None


# --- the sums ---------------------------------------------------------------------------------------------------------


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
