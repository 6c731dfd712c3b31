from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from forwarder.store.client import StoreClient
from forwarder.store.server import EmbeddedStore
from tests.fakes import MemoryJournal
from tests.store.servers import BOUND, SYSTEM_REDIS, running


@pytest.fixture(scope="module", params=["valkey", "redis"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """A server for the module, of each kind."""
    binary: Path | None = None
    if request.param == "redis":
        if not SYSTEM_REDIS.exists():
            pytest.skip(f"{SYSTEM_REDIS} is not installed")
        binary = SYSTEM_REDIS
    with running(tmp_path_factory.mktemp("store"), binary) as store:
        yield store


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """A server of our own kind, for what does not depend on the kind."""
    with running(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
async def client(server: EmbeddedStore, journal: MemoryJournal) -> AsyncIterator[StoreClient]:
    """A client that may do all and has time to spare, on an empty server."""
    client = StoreClient(server.admin_url, journal=journal, timeout=BOUND)
    await client.command("FLUSHALL")
    yield client
    await client.close()


@pytest.fixture
async def ours(client: StoreClient, server: EmbeddedStore, journal: MemoryJournal) -> AsyncIterator[StoreClient]:
    """A client with the program's rights on the same server, which writes down what it refuses: nothing."""
    await client.command("ACL", "LOG", "RESET")
    narrow = StoreClient(server.url, journal=journal, timeout=BOUND)
    yield narrow
    await narrow.close()
    assert await client.command("ACL", "LOG") == []
