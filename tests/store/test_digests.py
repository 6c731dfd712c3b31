"""The contract of ports.Digests, on every server that we support."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from forwarder.model import Address, Finding
from forwarder.store import digests as module
from forwarder.store.client import StoreClient
from forwarder.store.digests import MAX_FINDINGS, RedisDigests
from forwarder.store.ledger import RedisLedger
from tests.fakes import MemoryJournal

DAY = date(2026, 11, 23)
OLGA, OTTO = Address("olga", "owners.test"), Address("otto", "owners.test")
AT = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
FOUND = Finding(AT, "alias@fwd.test", "bob@sender.test", "d\udce9st@sink.test", "hard", "5.1.1", "550 no such user")


@pytest.fixture
def digests(ours: StoreClient, journal: MemoryJournal) -> RedisDigests:
    return RedisDigests(ours, RedisLedger(ours, journal=journal), journal=journal)


async def test_what_was_put_in_is_there_once_in_order_and_per_owner_and_day(digests: RedisDigests) -> None:
    later = replace(FOUND, at=AT.replace(hour=13))
    await digests.add_finding(DAY, OLGA, "2", later)
    await digests.add_finding(DAY, OLGA, "1", FOUND)
    await digests.add_finding(DAY, OLGA, "1", FOUND)
    await digests.add_finding(DAY, OTTO, "1", later)
    await digests.add_finding(date(2026, 11, 24), OTTO, "3", FOUND)
    assert await digests.owners(DAY) == [OLGA, OTTO]
    assert await digests.findings(DAY, OLGA) == ([FOUND, later], 2)
    assert await digests.findings(DAY, OTTO) == ([later], 1)


async def test_who_has_read_is_not_asked_again(digests: RedisDigests) -> None:
    await digests.add_finding(DAY, OLGA, "1", FOUND)
    await digests.mark_read(DAY, OLGA)
    assert await digests.owners(DAY) == []


async def test_beyond_some_number_they_are_counted_only(digests: RedisDigests) -> None:
    for number in range(MAX_FINDINGS + 5):
        await digests.add_finding(DAY, OLGA, str(number), FOUND)
    found, count = await digests.findings(DAY, OLGA)
    assert (len(found), count) == (MAX_FINDINGS, MAX_FINDINGS + 5)


async def test_beyond_some_owners_it_is_on_record(
    digests: RedisDigests, journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_OWNERS", 1)
    await digests.add_finding(DAY, OLGA, "1", FOUND)
    await digests.add_finding(DAY, OTTO, "1", FOUND)
    assert await digests.owners(DAY) == [OLGA]
    assert len(journal.named("digest.left_out")) == 1


async def test_every_key_expires_and_what_is_damaged_is_left_out(
    digests: RedisDigests, client: StoreClient, journal: MemoryJournal
) -> None:
    await digests.add_finding(DAY, OLGA, "1", FOUND)
    await digests.add_finding(DAY, OLGA, "2", replace(FOUND, said="x" * 5000))
    await digests.mark_read(DAY, OLGA)
    for name in await client.command("KEYS", "*"):
        assert 0 < await client.command("TTL", name) <= 400 * 86400
        if b":g:" in name:
            fields = await client.command("HKEYS", name)
            await client.command("HSET", name, next(one for one in fields if one), "rubbish")
    found, count = await digests.findings(DAY, OLGA)
    assert (len(found), count) == (1, 2)
    assert journal.named("store_value_unreadable")
