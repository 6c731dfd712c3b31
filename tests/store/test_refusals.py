"""The contract of ports.Refusals, on every server that we support."""

from __future__ import annotations

import pytest

from forwarder.store.client import StoreClient
from forwarder.store.ledger import RedisLedger
from forwarder.store.refusals import REFUSED_FOR, RedisRefusals
from tests.fakes import MemoryJournal


@pytest.fixture
def refusals(ours: StoreClient, journal: MemoryJournal) -> RedisRefusals:
    return RedisRefusals(ours, RedisLedger(ours, journal=journal))


async def test_what_was_refused_is_known_for_these_two_only(refusals: RedisRefusals) -> None:
    assert not await refusals.was_refused("bank.example", "sink.example")
    await refusals.note_refusal("bank.example", "sink.example")
    assert await refusals.was_refused("Bank.Example", "sink.EXAMPLE")
    assert not await refusals.was_refused("bank.example", "other.example")
    assert not await refusals.was_refused("other.example", "sink.example")
    assert not await refusals.was_refused("sink.example", "bank.example")


async def test_it_is_forgotten_and_its_name_tells_nothing(refusals: RedisRefusals, client: StoreClient) -> None:
    await refusals.note_refusal("bank.example", "sink.example")
    (key,) = [one for one in await client.command("KEYS", "*") if one.startswith(b"{fwd0}:a:")]
    assert b"bank" not in key
    assert REFUSED_FOR - 5 <= await client.command("TTL", key) <= REFUSED_FOR
