"""store/traces.py where the store is a cluster: the lives of messages are spread over its primaries."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path

import pytest
from redis.crc import key_slot

from forwarder.app.state import Store
from forwarder.cli.main import main
from forwarder.config import load
from forwarder.model import Address
from forwarder.ports import StoreAway, Traced, TraceEvent
from forwarder.store import traces as traces_module
from forwarder.store.acl import acl_line
from forwarder.store.cluster import SLOTS, ClusterClient, even_tags
from forwarder.store.ledger import RedisLedger
from forwarder.store.traces import CLUSTER_TAGS, RedisTraces
from forwarder.tracing import Tracing
from tests.fakes import FixedClock, MemoryJournal
from tests.peers.topologies import Cluster, cluster
from tests.peers.valkey import Valkey, stopped
from tests.store.servers import BOUND
from tests.store.test_acl import configured

BOB = Address("bob", "sender.example")
#: What the line of a release before had.
OLD_KEYS = "~{fwd0}*"
IDS = [f"m{number:02}" for number in range(60)]


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path / "cluster") as it:
        for one in it.servers:
            # Else the whole cluster says no as soon as one slot has nobody.
            await one.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        yield it


@asynccontextmanager
async def spread(
    nodes: Cluster, journal: MemoryJournal, user: str = "", patience: float = BOUND
) -> AsyncIterator[tuple[RedisTraces, RedisTraces]]:
    """The lives as we keep them, and as the release before did."""
    client, ledgers = (
        ClusterClient(
            nodes.url.replace("://", f"://{user}"), journal=journal, timeout=patience, pause=0, replicas=copies
        )
        for copies in (0, 1)
    )
    ledger = RedisLedger(ledgers, journal=journal)
    try:
        yield (
            RedisTraces(client, ledger, journal=journal, keep=3600, tags=CLUSTER_TAGS),
            RedisTraces(client, ledger, journal=journal, keep=3600),
        )
    finally:
        await client.close()
        await ledgers.close()


def part(id: str, at: float = 1.0) -> Traced:  # noqa: A002
    return Traced(id, [TraceEvent(at, "message.received", {"sender": BOB, "message_id": f"<{id}@x>"})])


def settings_in(folder: Path) -> Path:
    it = folder / "config"
    it.mkdir()
    return it


async def keys(server: Valkey, pattern: str = "*") -> list[str]:
    return [one.decode() for one in await server.ask("KEYS", pattern)]


async def lengths(servers: Sequence[Valkey]) -> Counter[int]:
    """How many lists there are of each length: the lives, and how many groups they have."""
    return Counter([await one.ask("LLEN", key) for one in servers for key in await keys(one, "*:l:*")])


async def home_of(nodes: Cluster) -> int:
    return await nodes.owner(key_slot(b"fwd0"))


async def times(traces: RedisTraces, id: str) -> list[float]:  # noqa: A002
    life = await traces.read(id)
    return [one.at for one in life.events] if life is not None else []


def test_the_tags_lie_evenly_and_are_what_they_were() -> None:
    """What lies in stores has them in its names."""
    assert (
        sha256(b"".join(CLUSTER_TAGS)).hexdigest() == "f449a34dd1faf604b4b42b90ce5760497ad016442ae75bce7b7ed173ab1439f1"
    )
    assert len(set(CLUSTER_TAGS)) == 128
    # An operator may give what has to lie together a primary of its own.
    assert key_slot(b"{fwd0}") not in map(key_slot, CLUSTER_TAGS)
    assert [key_slot(one) * 128 // SLOTS for one in CLUSTER_TAGS] == list(range(128))
    assert even_tags(3) == (b"{fwd1}", b"{fwd3}", b"{fwd2}")


async def test_every_primary_has_its_share_and_all_are_found_and_read_by_the_service_and_the_command(
    nodes: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(settings_in(tmp_path), f'store = "{nodes.url}"\nstore_timeout = 5\n')
    store = Store(load(config), MemoryJournal())
    await store.open()
    try:
        traces = store.traces(load(config))
        assert not await traces.append([part(id_) for id_ in IDS])
        for kind in "li":
            assert all([await keys(one, f"*:{kind}:*") for one in nodes.servers[:3]])
            assert not await keys(nodes.servers[await home_of(nodes)], f"{{fwd0}}:{kind}:*")
        assert await traces.find("bob@sender.example") == IDS[::-1]
        assert await traces.find("<m07@x>") == ["m07"]
        assert [await times(traces, id_) for id_ in IDS] == [[1.0]] * len(IDS)
    finally:
        await store.close()
    assert await asyncio.to_thread(main, ["trace", "m07@x", "--config", str(config)]) == 0
    assert "message.received" in capsys.readouterr().out


async def test_what_the_release_before_has_kept_is_found_and_read_before_what_is_new(nodes: Cluster) -> None:
    async with spread(nodes, MemoryJournal()) as (traces, before):
        await before.append([part("old"), part("both", at=2.0)])
        assert not await traces.append([part("both", at=3.0), part("new")])
        assert await traces.find("bob@sender.example") == ["new", "both", "old"]
        assert await traces.find("<old@x>") == ["old"]
        assert [await times(traces, one) for one in ("old", "both", "new")] == [[1.0], [2.0, 3.0], [1.0]]
        assert await before.read("new") is None


async def test_while_a_primary_is_dead_the_others_keep_theirs_once_and_it_gets_its_own_when_it_is_back(
    nodes: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(settings_in(tmp_path), f'store = "{nodes.url}"\n')
    home, journal = await home_of(nodes), MemoryJournal()
    dead = (home + 1) % 3
    others = [one for number, one in enumerate(nodes.servers[:3]) if number != dead]
    async with spread(nodes, journal) as (traces, before):
        await before.append([part(f"old{id_}") for id_ in IDS[:9]])
        await traces.append([part(f"new{id_}") for id_ in IDS[:9]])
        kept = sum((await lengths(others)).values())
        for one in (nodes.servers[dead + 3], nodes.servers[dead]):
            await one.kill()
        tracing = Tracing(journal, traces, FixedClock())
        for id_ in IDS:
            tracing.event("message.received", id=id_, sender=BOB, message_id=f"<{id_}@x>")
        for _ in range(3):
            await tracing.flush()
        of_others = await lengths(others)
        assert set(of_others) == {1}
        assert kept + 20 < of_others[1] < kept + len(IDS)
        # What leads to them is there once, too.
        indexes = [await one.ask("GET", key) for one in others for key in await keys(one, "*:i:*")]
        assert all(len(set(one.split())) == len(one.split()) for one in indexes)

        assert [await times(traces, f"old{id_}") for id_ in IDS[:9]] == [[1.0]] * 9
        with pytest.raises(StoreAway):
            assert [await times(traces, id_) for id_ in IDS]
        capsys.readouterr()
        assert (
            await asyncio.to_thread(main, ["trace", "bob@sender.example", "--limit", "99", "--config", str(config)])
            == 1
        )
        told = capsys.readouterr()
        assert told.out.count("message.received") >= 9
        assert "not all could be looked for" in told.err

        for one in (nodes.servers[dead], nodes.servers[dead + 3]):
            await one.start()
        async with asyncio.timeout(BOUND):
            while sorted(await _found(traces, "bob@sender.example"))[: len(IDS)] != IDS:
                await tracing.flush()
                await asyncio.sleep(0.05)
            while [await _found(traces, f"<{id_}@x>") for id_ in IDS] != [[id_] for id_ in IDS]:
                await tracing.flush()
                await asyncio.sleep(0.05)
        await tracing.close()
        assert await lengths(nodes.servers[:3]) == {1: len(IDS) + 18}
        assert not journal.named("trace.dropped")


async def _found(traces: RedisTraces, name: str) -> Sequence[str]:
    with suppress(StoreAway):
        return await traces.find(name)
    return ()


async def test_what_a_primary_has_and_its_replica_has_not_is_kept_and_not_kept_again(
    nodes: Cluster, tmp_path: Path
) -> None:
    config, journal = configured(settings_in(tmp_path), f'store = "{nodes.url}"\n'), MemoryJournal()
    store = Store(load(config), journal)
    await store.open()
    try:
        traces = store.traces(load(config))
        await traces.append([part("first")])
        tracing = Tracing(journal, traces, FixedClock())
        with stopped(nodes.servers[3 + (await home_of(nodes) + 1) % 3].pid()):
            for some in (IDS[:20], IDS[20:]):
                for id_ in some:
                    tracing.event("message.received", id=id_, sender=BOB)
                await tracing.flush()
            assert await lengths(nodes.servers[:3]) == {1: len(IDS) + 1}
            assert not store.is_away
            assert [await times(traces, id_) for id_ in IDS] == [[FixedClock().now().timestamp()]] * len(IDS)
            await tracing.close()
        assert await lengths(nodes.servers[:3]) == {1: len(IDS) + 1}
    finally:
        await store.close()
    assert not journal.named("trace.dropped")


async def test_a_primary_with_traces_only_that_is_dead_takes_no_node_out(nodes: Cluster, tmp_path: Path) -> None:
    config = configured(settings_in(tmp_path), f'store = "{nodes.url}"\n')
    store = Store(load(config), MemoryJournal())
    await store.open()
    try:
        traces, home = store.traces(load(config)), await home_of(nodes)
        await store.ping()
        for number in ((home + 1) % 3, (home + 1) % 3 + 3):
            await nodes.servers[number].kill()
        assert await traces.append([part(id_) for id_ in IDS])
        await store.ping()
        assert store.is_away
        for number in (home, home + 3):
            await nodes.servers[number].kill()
        with pytest.raises(StoreAway):
            await store.ping()
    finally:
        await store.close()


async def test_a_primary_that_is_silent_holds_up_one_trip_and_then_none_until_its_time_or_the_end(
    nodes: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces_module, "SILENT", 0.5)
    monkeypatch.setattr(traces_module, "ASIDE", 1e6)
    silent = (await home_of(nodes) + 1) % 3
    async with spread(nodes, MemoryJournal(), patience=1) as (traces, _):
        assert not await traces.append([part(id_) for id_ in IDS])
        await nodes.servers[silent + 3].kill()
        with stopped(nodes.servers[silent].pid()):
            assert await traces.append([part(id_, at=2.0) for id_ in IDS])
        # It answers again, and nobody asks.
        again = [part(id_, at=3.0) for id_ in IDS]
        left = await traces.append(again)
        assert left
        assert [one.id for one in await traces.append(again)] == [one.id for one in left]
        async with asyncio.timeout(BOUND):
            while left:
                left = await traces.append(left, last=True)
                await asyncio.sleep(0.05)
        assert not await traces.append([part(id_, at=4.0) for id_ in IDS])
        assert all(one[0] == 1.0 and one[-2:] == [3.0, 4.0] for one in [await times(traces, id_) for id_ in IDS])


@pytest.mark.parametrize("without", [(0, 1, 2, 3, 4, 5), (1, 4)], ids=["nowhere", "one has the old line"])
async def test_without_the_right_to_the_tags_all_lies_where_it_was_and_the_line_is_named(
    nodes: Cluster, without: tuple[int, ...]
) -> None:
    line = acl_line("guest", b"hunter2hunter2").split()[1:]
    old = [OLD_KEYS if one.startswith("~") else one for one in line]
    for number, one in enumerate(nodes.servers):
        await one.ask("ACL", "SETUSER", *(old if number in without else line))
    journal, home = MemoryJournal(), nodes.servers[await home_of(nodes)]
    async with spread(nodes, journal, "guest:hunter2hunter2@") as (traces, _):
        for _ in range(2):
            assert not await traces.append([part(id_) for id_ in IDS[:30]])
        [told] = journal.named("trace.not_spread")
        assert (told["keys"], told["see"]) == ("{fwd[0-9]*}*", "forwarder store acl")
        assert "NOPERM" in told["reason"]
        if len(without) == 6:
            assert len(await keys(home, "{fwd0}:l:*")) == 30
        assert set(await traces.find("bob@sender.example")) == set(IDS[:30])
        assert [await times(traces, id_) for id_ in IDS[:30]] == [[1.0, 1.0]] * 30
        assert await traces.read("nothing") is None
        assert await traces.find("nothing") == []
        assert not journal.named("trace.part_away")
        for one in nodes.servers:
            await one.ask("ACL", "SETUSER", *line)
    async with spread(nodes, journal, "guest:hunter2hunter2@") as (traces, _):
        before = len(await keys(home, "{fwd0}:l:*"))
        assert not await traces.append([part(id_) for id_ in IDS])
        assert len(await keys(home, "{fwd0}:l:*")) == before
        assert [await times(traces, id_) for id_ in IDS] == [[1.0] * 3] * 30 + [[1.0]] * 30
