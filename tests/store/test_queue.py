"""store/queue.py and its scripts: every step whole, every lease one holder's, every octet counted, on Valkey and on Redis."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import Any

import pytest

from forwarder.model import Address, BodyKind, Delivery, Envelope, Notice, Peer, Recipient, SecondForm, Tls, TlsWish
from forwarder.ports import Claim, Claimed, Forwarded, Held, QueueFull, StoreAway, Waiting
from forwarder.store.client import StoreClient
from forwarder.store.disk import Disk
from forwarder.store.ledger import RedisLedger
from forwarder.store.queue import Brought, Carried, Did, Do, Pace, RedisQueue
from forwarder.store.queuefile import LineError, build_line, parse_line
from forwarder.store.queuerecords import open_held, seal_held
from forwarder.store.records import Names
from forwarder.store.server import EmbeddedStore
from tests.fakes import MemoryJournal
from tests.store.servers import BOUND

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
BOB, ALIAS = Address("bob", "sender.example"), Address("alias", "fwd.example")
BODY = b"body\r\n"
#: NOTIFY, ORCPT and ENVID.
ASKED = ("FAILURE", "rfc822;alias@fwd.example", "QQ314159")
CLIENT = "192.0.2.1"
ENVELOPE = Envelope(
    "e1",
    Peer(IPv4Address(CLIENT), "mx.sender.example", tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
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
            Waiting(
                ALIAS, bytes([number]) * 32, Forwarded(reversible, BOB, ALIAS, one, "<1@x>", "e1", NOW, *ASKED, CLIENT)
            )
            for number, one in enumerate(destinations)
        ),
        envelope=ENVELOPE,
        report_to=BOB,
        srs_domain="fwd.example",
        header_at=0,
        queued_at=NOW,
    )


@pytest.fixture
def ledger(ours: StoreClient, journal: MemoryJournal) -> RedisLedger:
    return RedisLedger(ours, journal=journal)


@pytest.fixture
def queue(ours: StoreClient, ledger: RedisLedger, journal: MemoryJournal) -> RedisQueue:
    return RedisQueue(ours, ledger, journal=journal, max_body=1000, high_water=100_000)


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


async def store_time(client: StoreClient) -> float:
    seconds, micros = await client.command("TIME")
    return int(seconds) + int(micros) / 1e6


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


async def test_what_was_delivered_is_remembered_in_the_same_step_whoever_has_the_lease(
    queue: RedisQueue, ledger: RedisLedger
) -> None:
    one, other = held(), held("e2.0")
    await queue.put([one, other])
    await claim(queue)
    for each, lease, ours in ((one, "one", True), (other, "lost", False)):
        (waiting,) = each.waiting
        assert waiting.forwarded is not None
        forwarded = replace(waiting.forwarded, message_id=f"<{each.id}@x>")
        assert await queue.settle(each, lease, left=None, delay=0, forwards=[forwarded]) is ours
        assert await ledger.find_forward(forwarded.reversible, forwarded.message_id, []) == forwarded


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


async def test_what_is_left_waits_for_its_time_and_reports_go_out_in_the_same_step(
    queue: RedisQueue, client: StoreClient
) -> None:
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
    assert await queue.settle(one, "one", left=left, delay=0.3, reports=[report])
    # Asked again after a lost answer, the answer is the same, and nothing is done twice.
    assert await queue.settle(one, "one", left=left, delay=0.3, reports=[report])
    assert await claim(queue, "two") == [Claimed(report, dots=0)]
    due = await queue.next_due()
    assert due is not None
    await pass_time(client, 0.31)
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


@pytest.mark.parametrize("at", [-1, 4], ids=["the item's part", "the shard's part"])
async def test_an_item_whose_name_among_the_leases_was_damaged_is_free_when_no_lease_is_left(
    queue: RedisQueue, client: StoreClient, at: int
) -> None:
    one = held("m1.0")
    await queue.put([one])
    assert await claim(queue, "dead") == [Claimed(one, dots=0)]
    [name] = await client.command("ZRANGE", "{fwd0}:ql", 0, -1)
    damaged = bytearray(name)
    damaged[at] ^= 1
    await client.command("ZREM", "{fwd0}:ql", name)
    await client.command("ZADD", "{fwd0}:ql", 0, bytes(damaged))
    # The first look takes what is there for nobody's, or for somebody else's.
    found = [*await claim(queue, "one"), *await claim(queue, "two")]
    assert found == [Claimed(one, dots=0)]
    assert await client.command("HLEN", "{fwd0}:qc") == await client.command("HLEN", "{fwd0}:qh") == 1


@pytest.mark.parametrize("settled", [True, False], ids=["settled", "lease over"])
async def test_what_is_left_of_an_item_whose_next_hop_nobody_knows_any_more_is_the_operators(
    queue: RedisQueue, client: StoreClient, settled: bool
) -> None:
    one, report = held("m1.0"), held("r1.0", "b.example")
    await queue.put([one])
    await claim(queue)
    [name] = await client.command("ZRANGE", "{fwd0}:ql", 0, -1)
    await client.command("HSET", name, "d", "no name")
    await client.command("DEL", "{fwd0}:qh")
    if settled:
        assert await queue.settle(one, "one", left=one, delay=0, reports=[report])
        assert [each.held.id for each in await claim(queue, "two")] == [report.id]
    else:
        await end_leases(client)
        assert await claim(queue, "two") == []
    (dead,) = [item async for item in queue.list(dead=True)]
    assert dead.id == one.id


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
    # The first to claim of a store sends it the script.
    await claim(queue, "first", limit=0)
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
    assert await queue.do(leased.id, Do.DROP) is Did.BUSY
    assert await queue.do(dead.id, Do.RETRY) is Did.DONE
    assert await claim(queue, "three") == [Claimed(one, dots=0)]
    assert [item async for item in queue.list(dead=True)] == []


async def test_an_operator_reads_drops_and_hurries(queue: RedisQueue) -> None:
    one = held()
    await queue.put([one], delay=300)
    assert await queue.read(one.id) == one
    assert await queue.read("nothing") is None
    assert await queue.do(one.id, Do.RETRY) is Did.DONE
    assert await claim(queue) == [Claimed(one, dots=0)]
    await queue.settle(one, "one", left=one, delay=300, reports=())
    assert await queue.do(one.id, Do.DROP) is Did.DONE
    assert await queue.do(one.id, Do.DROP) is Did.MISSING
    assert await queue.held_octets() == 0


async def test_a_long_list_comes_in_pages(queue: RedisQueue) -> None:
    await queue.put([held(f"m{number}.0", f"d{number}.example") for number in range(450)])
    ids = [one.id async for one in queue.list()]
    assert (len(ids), len(set(ids))) == (450, 450)


async def test_what_is_on_hold_stays_and_is_nobodys_turn_until_it_is_released(queue: RedisQueue) -> None:
    one = held()
    await queue.put([one])
    assert await queue.do(one.id, Do.HOLD) is Did.DONE
    assert await queue.do(one.id, Do.HOLD) is Did.HELD
    assert await claim(queue) == []
    assert await queue.next_due() is None
    (listed,) = [item async for item in queue.list()]
    assert (listed.on_hold, listed.due_in, listed.dead) == (True, None, None)
    assert await queue.do(one.id, Do.RETRY) is Did.HELD
    assert await queue.do(one.id, Do.RELEASE) is Did.DONE
    assert await queue.do(one.id, Do.RELEASE) is Did.FREE
    assert await claim(queue) == [Claimed(one, dots=0)]


@pytest.mark.parametrize("ends", ["settled", "lease over"])
async def test_what_is_under_way_is_on_hold_when_its_attempt_ends_without_a_result(
    queue: RedisQueue, client: StoreClient, ends: str
) -> None:
    one = held()
    await queue.put([one])
    await claim(queue, "one")
    assert await queue.do(one.id, Do.HOLD) is Did.LATER
    if ends == "settled":
        assert await queue.settle(one, "one", left=one, delay=0)
    else:
        await end_leases(client)
    assert await claim(queue, "two") == []
    assert [item.on_hold async for item in queue.list()] == [True]
    assert await queue.do(one.id, Do.RELEASE) is Did.DONE
    assert len(await claim(queue, "three")) == 1


async def test_what_is_under_way_and_then_delivered_is_gone_hold_or_not(queue: RedisQueue, client: StoreClient) -> None:
    one = held()
    await queue.put([one])
    await claim(queue, "one")
    await queue.do(one.id, Do.HOLD)
    assert await queue.settle(one, "one", left=None, delay=0)
    assert await keys(client, b"qi") == await keys(client, b"qw") == []


async def test_a_hold_of_one_does_not_keep_the_others_of_its_next_hop(queue: RedisQueue) -> None:
    await queue.put([held("m1.0"), held("m2.0")])
    await queue.do("m1.0", Do.HOLD)
    assert [one.held.id for one in await claim(queue)] == ["m2.0"]


async def test_a_dead_letter_is_not_put_on_hold(queue: RedisQueue) -> None:
    one = held()
    await queue.put([one])
    await claim(queue, "one")
    await queue.bury(one, "one", "no way")
    assert await queue.do(one.id, Do.HOLD) is Did.DEAD
    assert await queue.do(one.id, Do.RELEASE) is Did.DEAD
    assert await queue.do("nothing", Do.HOLD) is Did.MISSING


@pytest.mark.parametrize("state", ["waiting", "on hold", "dead", "next hop left alone"])
async def test_what_is_given_up_is_the_workers_at_once(queue: RedisQueue, state: str) -> None:
    one = held()
    await queue.put([one], delay=300)
    match state:
        case "on hold":
            await queue.do(one.id, Do.HOLD)
        case "dead":
            await queue.do(one.id, Do.RETRY)
            await claim(queue, "one")
            await queue.bury(one, "one", "no way")
        case "next hop left alone":
            await queue.back_off("dest.example", 300)
    assert await queue.do(one.id, Do.RETURN) is Did.DONE
    assert [item.given_up async for item in queue.list()] == [True]
    assert await claim(queue, "two") == [Claimed(one, dots=0, given_up=True)]
    assert await queue.settle(one, "two", left=None, delay=0)
    assert await queue.next_due() is None


# --- a lost answer ----------------------------------------------------------------------------------------------------


async def everything(client: StoreClient) -> dict[bytes, object]:
    """All that the store holds; of what counts down only that it is there."""
    found: dict[bytes, object] = {}
    for name in await client.command("KEYS", "*"):
        kind = await client.command("TYPE", name)
        match kind:
            case b"string":
                found[name] = await client.command("GET", name)
            case b"hash":
                values = await client.command("HGETALL", name)
                found[name] = dict(zip(values[::2], values[1::2], strict=True))
            case b"list":
                found[name] = await client.command("LRANGE", name, 0, -1)
            case _:
                found[name] = sorted(await client.command("ZRANGE", name, 0, -1))
    return found


Step = Callable[[RedisQueue], Awaitable[object]]
_ONE, _REPORT = held("m1.0"), held("r1.0", "sender.example", body=b"report\r\n")
_LETTER = held("m1.0.d0")


@pytest.mark.parametrize(
    ("under_lease", "step"),
    [
        pytest.param(False, lambda queue: queue.put([held("m3.0"), held("m4.0")], delay=60), id="put"),
        pytest.param(False, lambda queue: queue.put([held("m3.0")], lease="mine", seconds=60), id="put under a lease"),
        pytest.param(False, lambda queue: claim(queue, "mine", limit=1), id="claim"),
        pytest.param(True, lambda queue: queue.mark_dot("m1.0", "mine"), id="mark"),
        pytest.param(True, lambda queue: queue.renew(["m1.0"], "mine", 60), id="renew"),
        pytest.param(True, lambda queue: queue.settle(_ONE, "mine", left=None, delay=0), id="settle done"),
        pytest.param(True, lambda queue: queue.settle(_ONE, "mine", left=_ONE, delay=60), id="settle left"),
        pytest.param(
            True,
            lambda queue: queue.settle(_ONE, "mine", left=None, delay=0, reports=[_REPORT], dead=[(_LETTER, "no")]),
            id="settle with report and dead letter",
        ),
        pytest.param(True, lambda queue: queue.bury(_ONE, "mine", "no way"), id="bury"),
        pytest.param(False, lambda queue: queue.back_off("dest.example", 0), id="back off"),
        *(
            pytest.param(False, lambda queue, what=what: queue.do("m1.0", what, "op"), id=what.value)
            for what in Do
            if what is not Do.RELEASE
        ),
        pytest.param(True, lambda queue: queue.do("m1.0", Do.HOLD, "op"), id="hold under way"),
        pytest.param(False, lambda queue: queue.take(["m1.0", "m2.0"], "mine", 60), id="take"),
        pytest.param(True, lambda queue: queue.carried_away(["m1.0"], "mine"), id="carried away"),
    ],
)
async def test_a_step_that_is_asked_for_again_is_done_once_and_answered_the_same(
    queue: RedisQueue, client: StoreClient, under_lease: bool, step: Step
) -> None:
    if under_lease:
        await queue.put([_ONE], lease="mine", seconds=60)
        await queue.put([held("m2.0", "other.example")])
    else:
        await queue.put([_ONE, held("m2.0", "other.example")])
    first = await step(queue)
    after = await everything(client)
    assert await step(queue) == first
    assert await everything(client) == after


async def test_a_release_that_is_asked_for_again_is_done_once(queue: RedisQueue) -> None:
    await queue.put([held()])
    await queue.do("e1.0", Do.HOLD)
    assert await queue.do("e1.0", Do.RELEASE, "op") is Did.DONE
    assert await queue.do("e1.0", Do.RELEASE, "op") is Did.DONE
    assert len(await claim(queue)) == 1


async def test_a_claim_whose_answer_was_lost_is_given_what_it_still_has(queue: RedisQueue, client: StoreClient) -> None:
    several = [held(f"m{number}.0", f"d{number}.example") for number in range(3)]
    await queue.put(several)
    first = await claim(queue, "one", limit=2)
    await queue.settle(first[0].held, "one", left=None, delay=0)
    assert await claim(queue, "one", limit=2) == first[1:]
    await end_leases(client)
    # The lease is over: what it had may be another's now.
    assert len(await claim(queue, "two")) == 2


async def test_a_claim_that_a_store_carries_out_when_it_wakes_is_given_to_who_asks_again(
    queue: RedisQueue, server: EmbeddedStore, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    one = held()
    await queue.put([one])
    assert server.pid is not None
    client = StoreClient(server.url, journal=journal, timeout=1)
    hasty = RedisQueue(client, ledger, journal=journal, max_body=1000, high_water=100_000)
    assert await claim(hasty, "warm", limit=0) == []
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreAway):
            await claim(hasty, "mine")
    finally:
        os.kill(server.pid, signal.SIGCONT)
    # It was carried out behind our back: nobody else is given it.
    assert await claim(queue, "another") == []
    assert await claim(queue, "mine") == [Claimed(one, dots=0)]
    await client.close()


# --- a pace -----------------------------------------------------------------------------------------------------------


def paced(client: StoreClient, ledger: RedisLedger, journal: MemoryJournal, **settings: Any) -> RedisQueue:
    return RedisQueue(client, ledger, journal=journal, max_body=1000, high_water=100_000, **settings)


async def test_a_next_hop_with_a_pace_gets_one_after_the_other_and_others_do_not_wait(
    client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    queue = paced(client, ledger, journal, paces={"slow.example": Pace(5, per_minute=60)})
    await queue.put([held(f"s{number}.0", "slow.example") for number in range(3)])
    await queue.put([held(f"f{number}.0", "fast.example") for number in range(3)])
    hops = sorted(one.held.delivery.next_hop for one in await claim(queue, "one"))
    assert hops == ["fast.example"] * 3 + ["slow.example"]
    due = await queue.next_due()
    assert due is not None
    # Nobody looks before its second is over.
    assert 0.1 < due <= 1
    assert await claim(queue, "two") == []
    await pass_time(client, due)
    assert len(await claim(queue, "three")) == 1
    assert await claim(queue, "four") == []


async def test_whoever_has_a_pace_is_known_in_any_spelling(
    client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    queue = paced(client, ledger, journal, paces={"xn--bcher-kva.example": Pace(5, 60), "quick.example": Pace(5)})
    assert [queue.is_paced(one) for one in ("Bücher.example", "XN--BCHER-KVA.example")] == [True, True]
    assert [queue.is_paced(one) for one in ("quick.example", "other.example", "sub.quick.example")] == [False] * 3
    await queue.put([held("m1.0", "bücher.example"), held("m2.0", "bücher.example")])
    assert len(await claim(queue)) == 1
    assert paced(client, ledger, journal, per_minute=1).is_paced("any.example")


async def test_an_empty_queue_in_between_does_not_quicken_the_pace(
    client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    queue = paced(client, ledger, journal, per_minute=60)
    for number in range(3):
        one = held(f"s{number}.0")
        await queue.put([one])
        claimed = await claim(queue, f"lease{number}")
        assert len(claimed) == (1 if number == 0 else 0)
        if claimed:
            await queue.settle(one, f"lease{number}", left=None, delay=0)


async def test_a_high_pace_is_given_in_helpings_and_is_not_exceeded(
    client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    queue = paced(client, ledger, journal, per_minute=1200)
    await queue.put([held(f"m{number}.0") for number in range(100)])
    began = await store_time(client)
    first = await claim(queue, "one", limit=100, each=100)
    # What a second holds may go at once: 20, and the one that is always free.
    assert 20 <= len(first) <= 21
    due = await queue.next_due()
    assert due is not None
    assert due > 0.15
    await pass_time(client, 0.5)
    second = await claim(queue, "two", limit=100, each=100)
    assert 10 <= len(second) <= 1 + 20 * (await store_time(client) - began)


async def test_a_next_hop_may_have_fewer_deliveries_at_once(
    client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    queue = paced(client, ledger, journal, paces={"slow.example": Pace(2), "quick.example": Pace(7)})
    for hop in ("slow", "quick", "other"):
        await queue.put([held(f"{hop}{number}.0", f"{hop}.example") for number in range(9)])
    hops = [one.held.delivery.next_hop for one in await claim(queue, "one", limit=50, each=5)]
    assert [hops.count(f"{hop}.example") for hop in ("slow", "quick", "other")] == [2, 7, 5]


# --- from one store to another ----------------------------------------------------------------------------------------


async def carried(queue: RedisQueue, id: str = "e1.0", lease: str = "") -> Carried:  # noqa: A002 - what Held calls it
    (one,) = (await queue.take([id], lease, 60)).values()
    assert isinstance(one, Carried)
    return one


async def wiped(client: StoreClient, ledger: RedisLedger) -> None:
    """Another store, as far as anybody can tell: with a salt of its own."""
    await client.command("FLUSHALL")
    ledger._names, ledger._check_at = None, 0


async def test_what_is_carried_to_another_store_is_there_as_it_was(
    queue: RedisQueue, client: StoreClient, ledger: RedisLedger
) -> None:
    one = held(recipients=3)
    await queue.put([one], delay=300)
    taken = await carried(queue)
    assert (taken.held, taken.dots, taken.dead, taken.on_hold) == (one, 0, None, False)
    assert 299 < taken.due_in <= 300
    await wiped(client, ledger)
    assert await queue.bring(taken) is Brought.DONE
    assert await queue.bring(taken) is Brought.KNOWN
    due = await queue.next_due()
    assert due is not None
    assert 299 < due <= 300
    assert await queue.read(one.id) == one
    # A sender that comes back to the new host gets no second copy.
    assert await ledger.claim([bytes([0]) * 32], "retry") == [Claim.DELIVERED]


@pytest.mark.parametrize("state", ["dead", "on hold", "given up", "dotted"])
async def test_every_state_comes_along(queue: RedisQueue, client: StoreClient, ledger: RedisLedger, state: str) -> None:
    one = held()
    await queue.put([one])
    match state:
        case "dead":
            await claim(queue, "one")
            await queue.bury(one, "one", "nobody may be told")
            await client.command("ZINCRBY", "{fwd0}:qx", -3_600_000, *await keys(client, b"qi"))
        case "on hold":
            await queue.do(one.id, Do.HOLD)
        case "given up":
            await queue.do(one.id, Do.RETURN)
        case _:
            await claim(queue, "one")
            await queue.mark_dot(one.id, "one")
            await end_leases(client)
            await claim(queue, "two", limit=0)
    taken = await carried(queue)
    await wiped(client, ledger)
    assert await queue.bring(taken) is Brought.DONE
    (listed,) = [item async for item in queue.list()]
    assert listed.dead == ("nobody may be told" if state == "dead" else None)
    assert (listed.on_hold, listed.given_up) == (state == "on hold", state == "given up")
    if state == "dead":
        assert 3590 < (await carried(queue)).dead_for < 3700
    expected = {"dotted": [Claimed(one, 1)], "given up": [Claimed(one, 0, given_up=True)]}
    assert await claim(queue, "three") == expected.get(state, [])


async def test_what_was_delivered_meanwhile_is_not_brought_back(queue: RedisQueue, client: StoreClient) -> None:
    one = held()
    await queue.put([one])
    taken = await carried(queue)
    await claim(queue)
    await queue.settle(one, "one", left=None, delay=0)
    assert await queue.bring(taken) is Brought.KNOWN
    await client.command("DEL", *await keys(client, b"qt"))
    assert await queue.bring(taken) is Brought.DELIVERED
    assert await keys(client, b"qi") == []


async def test_what_was_delivered_days_ago_is_not_brought_back_either(
    queue: RedisQueue, client: StoreClient, ledger: RedisLedger
) -> None:
    one = held(recipients=2)
    await queue.put([one])
    taken = await carried(queue)
    await claim(queue)
    assert one.waiting[0].forwarded is not None
    await ledger.settle("one", [], [], [one.waiting[0].forwarded])
    await queue.settle(one, "one", left=None, delay=0)
    # The marks are gone after two days; what a bounce is matched against stays for ten.
    await client.command("DEL", *await keys(client, b"qt"), *await keys(client, b"c"))
    assert await queue.bring(taken) is Brought.DONE
    (again,) = await claim(queue, "two")
    assert again.held.delivery.recipients == one.delivery.recipients[1:]
    assert again.held.waiting == one.waiting[1:]


async def test_what_is_carried_away_is_gone_and_may_come_back(
    queue: RedisQueue, client: StoreClient, ledger: RedisLedger
) -> None:
    one = held()
    await queue.put([one])
    taken = await carried(queue, lease="mine")
    assert await claim(queue) == []
    assert await queue.carried_away([one.id], "mine") == [True]
    assert await keys(client, b"qi") == await keys(client, b"qb") == await keys(client, b"qw") == []
    assert await queue.held_octets() == 0
    # The sender's retry still makes no second copy: who has it has it.
    assert await ledger.claim([bytes([0]) * 32], "retry") == [Claim.DELIVERED]
    assert await queue.bring(taken) is Brought.DONE
    assert await queue.bring(taken) is Brought.KNOWN
    assert await claim(queue, "two") == [Claimed(one, dots=0)]
    await queue.settle(one, "two", left=None, delay=0)
    await client.command("DEL", *await keys(client, b"qt"))
    assert await queue.bring(taken) is Brought.DELIVERED


async def test_what_a_lease_lost_is_not_removed(queue: RedisQueue, client: StoreClient) -> None:
    one = held()
    await queue.put([one])
    await carried(queue, lease="mine")
    await end_leases(client)
    assert len(await claim(queue)) == 1
    assert await queue.carried_away([one.id], "mine") == [False]
    assert await queue.read(one.id) == one


@pytest.mark.parametrize("state", ["on hold", "dead"])
async def test_whom_an_exporter_leaves_behind_is_what_it_was(
    queue: RedisQueue, client: StoreClient, state: str
) -> None:
    one = held()
    await queue.put([one])
    if state == "dead":
        await claim(queue, "one")
        await queue.bury(one, "one", "no way")
    else:
        await queue.do(one.id, Do.HOLD)
    await carried(queue, lease="mine")
    await end_leases(client)
    assert await claim(queue, "two") == []
    (listed,) = [item async for item in queue.list()]
    assert (listed.leased, listed.on_hold, listed.dead is not None) == (False, state == "on hold", state == "dead")


async def test_what_is_under_way_or_missing_is_not_taken(queue: RedisQueue) -> None:
    await queue.put([held("m1.0"), held("m2.0")])
    await claim(queue, limit=1)
    taken = await queue.take(["nothing", "m1.0", "m2.0", "nor this"], "mine", 60)
    assert sorted(map(str, taken)) == ["m1.0", "m2.0", "nothing"]
    assert {Did.BUSY, Did.MISSING} == {one for one in taken.values() if isinstance(one, Did)}
    assert await queue.take(["nor this"], "mine", 60) == {"nor this": Did.MISSING}


async def test_what_is_under_way_in_a_session_is_not_brought_in(
    queue: RedisQueue, client: StoreClient, ledger: RedisLedger
) -> None:
    one = held(recipients=2)
    await queue.put([one])
    taken = await carried(queue)
    await wiped(client, ledger)
    await ledger.claim([one.waiting[1].fingerprint], "a session")
    assert await queue.bring(taken) is Brought.BUSY
    await ledger.settle("a session", [], [one.waiting[1].fingerprint], [])
    assert await ledger.claim([one.waiting[0].fingerprint], "another") == [Claim.FRESH]


async def test_what_finds_no_room_is_not_brought_in_and_claims_nothing(
    queue: RedisQueue, server: EmbeddedStore, client: StoreClient, ledger: RedisLedger, journal: MemoryJournal
) -> None:
    one = held()
    await queue.put([one])
    taken = await carried(queue)
    await wiped(client, ledger)
    with pytest.raises(QueueFull):
        await RedisQueue(client, ledger, journal=journal, max_body=1000, high_water=10).bring(taken)
    with pytest.raises(QueueFull):
        await RedisQueue(client, ledger, journal=journal, max_body=2, high_water=1000).bring(taken)
    disk = Disk(server.directory, client, least=1 << 80, journal=journal)
    with pytest.raises(QueueFull, match="disk"):
        await RedisQueue(client, ledger, journal=journal, max_body=1000, high_water=1000, disk=disk).bring(taken)
    assert await keys(client, b"qi") == []
    assert await ledger.claim([one.waiting[0].fingerprint], "retry") == [Claim.FRESH]


def test_a_line_of_a_file_is_read_back_whole() -> None:
    one = Carried(held(recipients=2), 60, 1, "why", 3600, on_hold=True, given_up=True)
    assert parse_line(build_line(one, NOW), NOW) == replace(one, due_in=0)
    waiting = Carried(held(), due_in=60)
    assert parse_line(build_line(waiting, NOW), NOW + timedelta(seconds=20)) == replace(waiting, due_in=40)


def test_whatever_is_changed_in_a_line_is_noticed() -> None:
    line = build_line(Carried(held()), NOW)
    about = line.index(b'"about"'), line.index(b'"due_at"')
    rng = random.Random(3)
    for _ in range(500):
        changed, at = bytearray(line), rng.randrange(len(line) - 1)
        changed[at] ^= 1 << rng.randrange(7)
        if about[0] <= at < about[1]:
            continue
        with pytest.raises(LineError):
            parse_line(bytes(changed), NOW)


@pytest.mark.parametrize("text", [b"", b"\n", b"{}", b"[]", b"\xff", b'{"format":1}', b"x" * 1000])
def test_what_is_no_line_is_said_so(text: bytes) -> None:
    with pytest.raises(LineError):
        parse_line(text, NOW)


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


#: With the other form that it may be tried in.
VERSION_4 = b64decode(
    """
    Ad0c6PkAjHW03AAWpGUxLjCiZTGSxAZTUlMwPXjEC2Z3ZC5leGFtcGxlrGRlc3QuZXhhbXBsZdb/awrJSMKoOEJJVE1JTUUAkpiSxAJkMMQMZGVz
    dC5leGFtcGxlksQFYWxpYXPEC2Z3ZC5leGFtcGxlxCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAJLEBlNSUzA9eMQLZndkLmV4YW1w
    bGWSxANib2LEDnNlbmRlci5leGFtcGxlxAU8MUB4PqdTVUNDRVNTuHJmYzgyMjthbGlhc0Bmd2QuZXhhbXBsZZiSxAJkMcQMZGVzdC5leGFtcGxl
    ksQFYWxpYXPEC2Z3ZC5leGFtcGxlxCABAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAZLEBlNSUzA9eMQLZndkLmV4YW1wbGWSxANib2LE
    DnNlbmRlci5leGFtcGxlxAU8MUB4PsDAmqJlMZSpMTkyLjAuMi4xsW14LnNlbmRlci5leGFtcGxlw5KnVExTdjEuM7ZUTFNfQUVTXzI1Nl9HQ01f
    U0hBMzg0ksQDYm9ixA5zZW5kZXIuZXhhbXBsZZGTksQFYWxpYXPEC2Z3ZC5leGFtcGxlp0ZBSUxVUkW4cmZjODIyO2FsaWFzQGZ3ZC5leGFtcGxl
    1v9rBDHIw6g4QklUTUlNRahRUTMxNDE1OaRIRFJTwpLEA2JvYsQOc2VuZGVyLmV4YW1wbGWrZndkLmV4YW1wbGUA1v9rBDHIw8QQJ5ienlhn4fh4
    mq0ADwk27cQQvz3lKuBTyH6Ek7syISOS0qCoUVEzMTQxNTmkSERSU8OSxA5hdXRob3IuZXhhbXBsZcM=
    """
)


def rewritable() -> Held:
    one = asking()
    second = SecondForm(one.waiting[0].alias, one.srs_domain, "author.example", one.header_at, ask=True)
    return replace(one, delivery=replace(one.delivery, second=second))


def test_a_record_of_version_4_is_read() -> None:
    assert open_held(Names(b"s" * 32), b"name", VERSION_4, (b"Subject: x\r\n\r\n", BODY)) == rewritable()
    assert seal_held(Names(b"s" * 32), b"name", rewritable()) == VERSION_4


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
