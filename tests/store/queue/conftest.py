from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from forwarder.store.client import StoreClient
from forwarder.store.ledger import RedisLedger
from forwarder.store.queue import RedisQueue
from forwarder.store.server import EmbeddedStore
from tests.fakes import MemoryJournal
from tests.store.servers import BOUND


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
