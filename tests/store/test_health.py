from __future__ import annotations

import pytest

from forwarder.ports import StoreAway
from forwarder.store.client import StoreClient
from forwarder.store.health import examine_store
from tests.fakes import MemoryJournal


async def test_our_own_server_is_fit(client: StoreClient) -> None:
    assert await examine_store(client) == []


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "volatile-ttl", "allkeys-random"])
async def test_a_store_that_evicts_is_not_to_be_started_on(client: StoreClient, policy: str) -> None:
    await client.command("CONFIG", "SET", "maxmemory-policy", policy)
    try:
        [finding] = await examine_store(client)
    finally:
        await client.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert finding.fatal
    assert policy in finding.text
    assert "noeviction" in finding.text


@pytest.mark.parametrize(
    ("setting", "value", "good", "word"),
    [("appendonly", "no", "yes", "appendonly yes"), ("appendfsync", "everysec", "always", "appendfsync always")],
)
async def test_a_store_that_may_forget_is_warned_about(
    client: StoreClient, setting: str, value: str, good: str, word: str
) -> None:
    await client.command("CONFIG", "SET", setting, value)
    try:
        [finding] = await examine_store(client)
    finally:
        await client.command("CONFIG", "SET", setting, good)
    assert not finding.fatal
    assert word in finding.text


async def test_a_replica_is_not_to_be_started_on(client: StoreClient) -> None:
    await client.command("REPLICAOF", "127.0.0.1", "1")
    try:
        findings = await examine_store(client)
    finally:
        await client.command("REPLICAOF", "NO", "ONE")
    assert [one.fatal for one in findings if "replica" in one.text] == [True]


async def test_a_server_that_forbids_config_can_be_examined(client: StoreClient) -> None:
    await client.command("ACL", "SETUSER", "default", "-config")
    try:
        assert await examine_store(client) == []
    finally:
        await client.command("ACL", "SETUSER", "default", "+@all")


async def test_a_store_that_is_away_is_not_called_fit(tmp_path_factory: pytest.TempPathFactory) -> None:
    client = StoreClient(f"unix://{tmp_path_factory.mktemp('none')}/s", journal=MemoryJournal())
    with pytest.raises(StoreAway):
        await examine_store(client)
    await client.close()
