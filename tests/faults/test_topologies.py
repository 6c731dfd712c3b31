"""The primary of a cluster, or of sentinels, is killed while mail flows and its replica lags: nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.crc import key_slot

from tests.faults.service import service
from tests.faults.test_store import RUN, Fault, run
from tests.peers.topologies import cluster, sentinels
from tests.peers.valkey import Valkey, stopped
from tests.waiting import HASTY


def dies_while_others_lag(primary: Valkey, *replicas: Valkey) -> Fault:
    """The first stands still, and wakes up when it is dead; the fault is over when one has taken over."""

    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        with stopped(replicas[0].pid()):
            await asyncio.sleep(0.3)  # the lag itself
            await primary.kill()
        async with asyncio.timeout(30):
            while not any([await one.is_primary() for one in replicas]):  # noqa: ASYNC110 - a server tells nobody
                await asyncio.sleep(0.05)
        yield

    return fault


@pytest.mark.timeout(RUN)
async def test_a_primary_of_a_cluster_dies_and_mail_flows(tmp_path: Path) -> None:
    async with cluster(tmp_path / "store") as nodes, service(tmp_path, store_timeout=HASTY, store=nodes.url) as it:
        owner = await nodes.owner(key_slot(b"fwd0"))
        await run(it, [("dead", dies_while_others_lag(nodes.servers[owner], nodes.servers[owner + 3]))])


@pytest.mark.timeout(RUN)
async def test_a_primary_that_sentinels_watch_dies_and_mail_flows(tmp_path: Path) -> None:
    async with sentinels(tmp_path / "store") as store, service(tmp_path, store_timeout=HASTY, store=store.url) as it:
        await run(it, [("dead", dies_while_others_lag(*store.servers))])
