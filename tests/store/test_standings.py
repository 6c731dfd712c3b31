"""The contract of ports.Standings, on every server that we support."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from forwarder.ports import Evidence, Measure, StoreAway, Subject, SubjectKind
from forwarder.standing import with_evidence
from forwarder.store import standings as module
from forwarder.store.client import StoreClient
from forwarder.store.ledger import RedisLedger
from forwarder.store.records import Names, open_standing, seal_standing
from forwarder.store.server import EmbeddedStore
from forwarder.store.standings import RedisStandings
from tests.fakes import FixedClock, MemoryJournal
from tests.store.servers import BOUND

CLOCK = FixedClock()
NOW = CLOCK.now()
BAD = Subject(SubjectKind.DOMAIN, "bad.test")
WEEK = 7 * 86400.0
COMPLAINT = with_evidence(BAD, Evidence(NOW, "complaint: abuse", 1.0, "dest@sink.test", "e1"), WEEK)


def made(client: StoreClient, journal: MemoryJournal, clock: FixedClock = CLOCK) -> RedisStandings:
    return RedisStandings(client, RedisLedger(client, journal=journal), clock, journal)


@pytest.fixture
def standings(ours: StoreClient, journal: MemoryJournal) -> RedisStandings:
    return made(ours, journal)


@pytest.fixture
async def neighbour(server: EmbeddedStore, journal: MemoryJournal) -> AsyncIterator[RedisStandings]:
    """Those of another worker."""
    client = StoreClient(server.url, journal=journal, timeout=BOUND)
    yield made(client, journal)
    await client.close()


def test_a_standing_comes_back_as_it_was() -> None:
    names = Names(b"s" * 32)
    whole = replace(COMPLAINT(None), mail=3.5, measure=Measure.REFUSE, until=NOW + timedelta(days=1), by_hand=True)

    assert open_standing(names, b"name", seal_standing(names, b"name", whole)) == whole
    assert open_standing(names, b"other", seal_standing(names, b"name", whole)) is None


async def test_a_change_is_seen_at_once_here_and_soon_elsewhere(
    standings: RedisStandings, neighbour: RedisStandings
) -> None:
    before, after = await standings.change(BAD, COMPLAINT)
    assert before is None
    assert after == standings.look_up(BAD)
    assert neighbour.look_up(BAD) is None

    await neighbour.refresh()

    assert neighbour.look_up(BAD) == after
    assert len(neighbour) == 1


async def test_of_many_changes_at_once_none_is_lost(standings: RedisStandings, neighbour: RedisStandings) -> None:
    await asyncio.gather(*(one.change(BAD, COMPLAINT) for _ in range(5) for one in (standings, neighbour)))

    [standing] = await standings.all()
    assert len(standing.evidence) == 10


async def test_where_nothing_changed_nothing_is_read(
    standings: RedisStandings, neighbour: RedisStandings, client: StoreClient
) -> None:
    await standings.change(BAD, COMPLAINT)
    await neighbour.refresh()
    await client.command("CONFIG", "RESETSTAT")
    await neighbour.refresh()

    assert b"hgetall" not in (await client.command("INFO", "commandstats")).lower()


async def test_a_wiped_store_is_noticed(standings: RedisStandings, client: StoreClient) -> None:
    await standings.change(BAD, COMPLAINT)
    await standings.refresh()
    await client.command("FLUSHALL")
    await standings.refresh()

    assert standings.look_up(BAD) is None


async def test_a_standing_is_forgotten_by_a_change_and_when_it_is_over(
    client: StoreClient, journal: MemoryJournal
) -> None:
    clock = FixedClock()
    standings = made(client, journal, clock)
    await standings.change(BAD, COMPLAINT)
    await standings.change(BAD, lambda _: None)
    assert await standings.all() == []

    _, after = await standings.change(BAD, COMPLAINT)
    assert after is not None
    clock.time = after.over_at + timedelta(seconds=1)
    await standings.flush()
    assert await standings.all() == []
    assert standings.look_up(BAD) is None


async def test_mail_is_counted_for_those_with_a_standing_only(standings: RedisStandings) -> None:
    await standings.change(BAD, COMPLAINT)
    for _ in range(7):
        standings.count_mail(BAD)
        standings.count_mail(Subject(SubjectKind.DOMAIN, "good.test"))
    await standings.flush()

    [standing] = await standings.all()
    assert standing.mail == 7


async def test_a_turn_comes_once_in_its_time(standings: RedisStandings) -> None:
    other = Subject(SubjectKind.DOMAIN, "other.test")

    turns = [standings.take_turn(one, 3600) for one in (BAD, BAD, other)]

    assert turns == [True, False, True]


async def test_beyond_a_bound_nobody_new_is_remembered_and_it_is_told(
    standings: RedisStandings, journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SUBJECTS", 1)
    await standings.change(BAD, COMPLAINT)
    other = Subject(SubjectKind.DOMAIN, "other.test")
    await standings.change(other, with_evidence(other, COMPLAINT(None).evidence[0], WEEK))

    assert [one.subject for one in await standings.all()] == [BAD]
    assert len(journal.named("standing.full")) == 1


async def test_damage_is_no_standing_and_is_told(
    standings: RedisStandings, client: StoreClient, journal: MemoryJournal
) -> None:
    await standings.change(BAD, COMPLAINT)
    [key] = [one for one in await client.command("KEYS", "*") if b":u:" in one]
    [field, _] = await client.command("HGETALL", key)
    await client.command("HSET", key, field, b"rubbish")

    assert await standings.all() == []
    assert journal.named("store_value_unreadable") == [{"kind": "standing"}]
    _, after = await standings.change(BAD, COMPLAINT)
    assert after is not None
    assert len(after.evidence) == 1


async def test_names_cannot_be_read_in_keys_and_all_expires(standings: RedisStandings, client: StoreClient) -> None:
    await standings.change(BAD, COMPLAINT)

    for key in await client.command("KEYS", "*"):
        assert b"bad" not in key
        assert await client.command("TTL", key) > 0


async def test_with_the_store_away_the_table_still_answers(standings: RedisStandings, ours: StoreClient) -> None:
    _, after = await standings.change(BAD, COMPLAINT)
    await ours.close()

    with pytest.raises(StoreAway):
        await standings.change(BAD, COMPLAINT)
    assert standings.look_up(BAD) == after
