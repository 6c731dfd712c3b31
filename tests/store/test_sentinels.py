"""A store whose primary changes: sentinels say which one it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from forwarder.ports import StoreAway
from forwarder.store.client import StoreUrlError, describe_url
from forwarder.store.cluster import make_client
from tests.fakes import MemoryJournal
from tests.peers.topologies import sentinels
from tests.peers.valkey import stopped
from tests.store.test_cluster import told

KEY = b"{fwd0}:key"


async def test_a_primary_killed_while_its_replicas_lag_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    async with sentinels(tmp_path, replicas=2) as store:
        client = make_client(store.url, journal=MemoryJournal())
        primary, one, other = store.servers
        try:
            stranger = make_client(store.url.replace("/mail", "/other"), journal=MemoryJournal())
            with pytest.raises(StoreAway, match="no primary of other"):
                await stranger.command("GET", KEY)
            await stranger.close()
            await told(client, KEY, "acknowledged")
            with stopped(one.pid()), stopped(other.pid()):
                with pytest.raises(StoreAway, match="0 of 1 replicas have the write"):
                    await client.command("SET", KEY, "not acknowledged")
                await primary.kill()
            assert await told(client, b"{fwd0}:other", "back") < 10
            assert await client.command("GET", KEY) in (b"acknowledged", b"not acknowledged")
        finally:
            await client.close()


async def test_a_primary_that_was_only_away_is_not_written_to_when_it_comes_back(tmp_path: Path) -> None:
    """It wakes up with our connection open and takes itself for the primary still, until sentinels tell it."""
    async with sentinels(tmp_path, replicas=2) as store:
        client = make_client(store.url, journal=MemoryJournal())
        primary, *replicas = store.servers
        try:
            await told(client, KEY, "before")
            with stopped(primary.pid()):
                with pytest.raises(StoreAway, match="timeout"):
                    await client.command("SET", KEY, "to nobody")
                assert await told(client, b"{fwd0}:other", "meanwhile") < 10
            assert (await primary.ask("ROLE"))[0] == b"master"
            await told(client, KEY, "after")
            assert await primary.ask("GET", KEY.decode()) != b"after"
            assert [await one.ask("GET", KEY.decode()) for one in replicas].count(b"after") == 2
        finally:
            await client.close()


async def test_where_no_sentinel_answers_the_store_is_away() -> None:
    client = make_client("redis+sentinel://127.0.0.1:1,127.0.0.1:2/mail", journal=MemoryJournal())
    with pytest.raises(StoreAway, match="no primary of mail: sentinels name nobody"):
        await client.command("GET", KEY)
    await client.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://h:1",
        "redis+sentinel:///mail",
        "redis+sentinel://h:1/mail/x",
        "redis+sentinel://h:hunter2/mail",
        "redis+sentinel://:pa/hunter2@h:1/mail",
        "redis+sentinel://h:1/mail?socket_timeout=9",
    ],
)
def test_a_url_of_sentinels_that_cannot_be_used_is_refused_in_words_without_its_password(url: str) -> None:
    with pytest.raises(StoreUrlError, match=r"^store: ") as caught:
        make_client(url, journal=MemoryJournal())
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis+sentinel://u:hunter2@h:1,[2001:db8::1]/mail?sentinel_password=hunter2", "h:1,[2001:db8::1]:26379/mail"),
        ("rediss+cluster://:hunter2@a,b:7", "a:6379,b:7"),
    ],
)
def test_a_url_of_several_is_shown_without_passwords(url: str, shown: str) -> None:
    assert describe_url(url) == f"{url.partition(':')[0]}://{shown}"
