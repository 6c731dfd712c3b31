"""The service's clock jumps while it runs: mail flows, nothing is tried or given up before its time, reversible addresses last.

Whether something is due is asked of the store, whose clock stays right here; timers run by a clock that cannot be set.
``./scripts/faults clock`` runs the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from forwarder.app import open_state
from forwarder.config import load
from forwarder.store.server import EmbeddedStore
from tests.fakes import MemoryJournal
from tests.faults.copies import count, name_of
from tests.faults.mta import Mta
from tests.faults.service import LISTEN, SINK, SOURCE, Service, service
from tests.peers.smtp_sink import DEFAULT, Action, SmtpSink
from tests.store.servers import running
from tests.waiting import until

FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
DAY = timedelta(days=1)
#: Held before the clock jumps; each is due in an hour.
HELD = 20
#: What the clock is off by, and whether an address that was made when it was right can still be written to.
JUMPS = [(DAY, True), (-DAY, True), (timedelta(hours=-1), True), (22 * DAY, False), (timedelta(0), True)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    """Not a child of the service, so that its clock is right."""
    with running(tmp_path / "store") as it:
        yield it


def not_now(data: bytes) -> Action:
    return b"451 4.2.0 not now\r\n" if name_of(data).startswith("m") else DEFAULT


async def answer_to(it: Service, recipient: str) -> bytes:
    """What a report for this address hears at RCPT."""
    reader, writer = await asyncio.open_connection(LISTEN, it.port, local_addr=(SOURCE, 0))
    try:
        commands = (b"", b"HELO mx.sink.test\r\n", b"MAIL FROM:<>\r\n", f"RCPT TO:<{recipient}>\r\n".encode())
        for command in commands:
            writer.write(command)
            line = await reader.readline()
        return line
    finally:
        writer.close()


async def due(it: Service) -> list[float]:
    """Seconds until each held message is tried again, by the store's clock."""
    async with open_state(load(it.folder / "forwarder.toml"), MemoryJournal()) as state:
        return [one.due_in or 0 async for one in state.queue.list() if one.dead is None]


def heard_one(it: Service, at: datetime) -> bool:
    """Did the service hear the last message then, give or take a minute by its clock?"""
    told = datetime.fromisoformat(it.events("message.received")[-1]["time"])
    return abs(told - at) < timedelta(minutes=1)


@pytest.mark.skipif(FAKETIME is None, reason="faketime is not installed: scripts/peers installs it")
@pytest.mark.timeout(180)
async def test_a_clock_that_jumps_neither_hurries_nor_ends_anything(tmp_path: Path, store: EmbeddedStore) -> None:
    offset = tmp_path / "offset"
    offset.write_text("+0")
    clock = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    async with (
        service(tmp_path, store=store.admin_url, retry=(3600, 7200), start=False) as it,
        SmtpSink({"DOT": not_now}, host=SINK, port=it.port) as sink,
    ):
        await it.start(**clock)
        mta = Mta(LISTEN, it.port, SOURCE)
        await mta.send_all([f"m{number}" for number in range(HELD)])
        await mta.send_all(["right"])
        address = sink.messages[-1].mail.partition(b"<")[2].partition(b">")[0].decode()
        assert address.startswith("SRS0=")
        asked = sink.verbs().count("DATA")
        for number, (jump, valid) in enumerate(JUMPS):
            offset.write_text(f"{jump.total_seconds():+.0f}")
            await mta.send_all([f"jump{number}"])
            await until(partial(heard_one, it, datetime.now(UTC) + jump))
            assert (await answer_to(it, address))[:3] == (b"250" if valid else b"550")
            left = await due(it)
            assert len(left) == HELD
            assert min(left) > 3000
            print(
                f"clock {jump.total_seconds() / 86400:+.2f} days: held {len(left)}, none tried, reports answered {valid}"
            )
        assert sink.verbs().count("DATA") == asked + len(JUMPS)
        assert set(count(sink.messages)) == {"right", *(f"jump{number}" for number in range(len(JUMPS)))}
        assert not it.events("queue.outcome")
        assert not it.events("fault")
