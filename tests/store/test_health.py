from __future__ import annotations

import pytest

from forwarder.ports import StoreAway
from forwarder.store.client import StoreClient
from forwarder.store.health import examine_store, mended_in
from tests.fakes import MemoryJournal


async def test_our_own_server_is_fit(client: StoreClient) -> None:
    assert await examine_store(client, ours=True) == []


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "volatile-ttl", "allkeys-random"])
async def test_a_store_that_evicts_is_not_to_be_started_on(client: StoreClient, policy: str) -> None:
    await client.command("CONFIG", "SET", "maxmemory-policy", policy)
    try:
        [finding] = await examine_store(client, ours=True)
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
        [finding] = [one for one in await examine_store(client) if "CVE" not in one.text]
    finally:
        await client.command("CONFIG", "SET", setting, good)
    assert not finding.fatal
    assert word in finding.text


async def test_a_replica_is_not_to_be_started_on(client: StoreClient) -> None:
    await client.command("REPLICAOF", "127.0.0.1", "1")
    try:
        findings = await examine_store(client, ours=True)
    finally:
        await client.command("REPLICAOF", "NO", "ONE")
    assert [one.fatal for one in findings if "replica" in one.text] == [True]


async def test_a_server_that_forbids_config_can_be_examined(client: StoreClient) -> None:
    await client.command("ACL", "SETUSER", "default", "-config")
    try:
        assert await examine_store(client, ours=True) == []
    finally:
        await client.command("ACL", "SETUSER", "default", "+@all")


async def test_a_store_that_is_away_is_not_called_fit(tmp_path_factory: pytest.TempPathFactory) -> None:
    client = StoreClient(f"unix://{tmp_path_factory.mktemp('none')}/s", journal=MemoryJournal())
    with pytest.raises(StoreAway):
        await examine_store(client, ours=True)
    await client.close()


@pytest.mark.parametrize(
    ("told", "want"),
    [
        ({"redis_version": "7.0.15"}, "Redis 7.2.11"),
        ({"redis_version": "7.2.10"}, "Redis 7.2.11"),
        ({"redis_version": "7.2.11"}, None),
        ({"redis_version": "8.0.3"}, "Redis 8.0.4"),
        ({"redis_version": "8.1.9"}, "Redis 8.2.2"),
        ({"redis_version": "8.2.2"}, None),
        ({"redis_version": "8.4.0"}, None),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.5"}, "Valkey 8.0.6"),
        ({"redis_version": "7.2.4", "valkey_version": "8.1.4"}, None),
        ({"redis_version": "7.2.4", "valkey_version": "9.0.0"}, None),
        ({"redis_version": "who knows"}, "Redis 7.2.11"),
    ],
)
def test_a_release_whose_scripts_take_over_the_server_is_told(told: dict[str, str], want: str | None) -> None:
    assert mended_in(told) == want


async def test_a_shared_server_of_such_a_release_is_warned_about_and_used(client: StoreClient) -> None:
    facts = (await client.command("INFO", "server")).decode()
    version = facts.partition("redis_version:")[2].split()[0]
    findings = await examine_store(client)
    old = "valkey_version" not in facts and version.startswith("7.0.")
    assert [(one.fatal, "CVE-2025-49844" in one.text) for one in findings] == ([(False, True)] if old else [])
