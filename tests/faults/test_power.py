"""Power cuts: the disk under the embedded store forgets what was not synced, again and again, while mail is taken.

The queue comes first and the destination is not there, so that each 250 rests on the store alone; in the end the destination
comes, and whatever was acknowledged must arrive. ``./scripts/faults power`` makes twenty cuts; here one.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.copies import count, settled
from tests.faults.disks import Busy, Disk, disk, needs_disks
from tests.faults.mta import Mta, beside
from tests.faults.service import LISTEN, SINK, SOURCE, Service, service
from tests.peers.smtp_sink import SmtpSink
from tests.waiting import until

CUTS = int(os.environ.get("FAULT_CUTS", "1"))
#: Acknowledged between two cuts, at least.
EACH = int(os.environ.get("FAULT_CUT_EACH", "100"))
BODY = b"Hello.\r\n" * 40
RUN = 60 + CUTS * (20 + EACH / 30)


async def cut_off(it: Service, one: Disk) -> None:
    """The power goes with everything that runs; then it is back, and so is the program."""
    one.cut()
    await it.kill()
    await one.back()
    await it.start()


@needs_disks
@pytest.mark.timeout(RUN)
async def test_power_cuts_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    rng, over, discarded = random.Random(8), asyncio.Event(), 0
    async with (
        disk(tmp_path / "disk.img", tmp_path / "state", 100 + CUTS * EACH // 20) as one,
        service(tmp_path, relay="in_session = 0", queue="per_destination = 20") as it,
    ):
        control = one.at / "control"
        mta = Mta(LISTEN, it.port, SOURCE)
        async with beside(mta.send_until(over, BODY)) as sending:
            for number in range(CUTS):
                wanted = len(mta.books.acknowledged) + EACH * (1 + rng.random() / 5)
                await until(lambda: len(mta.books.acknowledged) >= wanted, RUN)  # noqa: B023 - waited for at once
                _write(control, b"%d" % number)
                try:
                    await cut_off(it, one)
                except Busy:
                    discarded += 1
                    break
                assert control.read_bytes() == b"%d" % number
            over.set()
            names = await sending
        async with SmtpSink(host=SINK, port=it.port) as sink:
            await until(lambda: len(sink.messages) >= len(names), RUN)
            await settled(it)
            copies = count(sink.messages)
        lost = mta.books.acknowledged - copies.keys()
        print(
            f"{it.kills} power cuts, {len(mta.books.acknowledged)} messages acknowledged: lost {len(lost)}, extra copies "
            f"{sum(copies.values()) - len(copies)}, discarded runs {discarded}, broken connections {mta.books.broken}"
        )
        assert not discarded
        assert not lost
        assert copies == Counter(names)


def _write(path: Path, octets: bytes) -> None:
    """Synced, as is its place in the directory."""
    with path.open("wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(path.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
