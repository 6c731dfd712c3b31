"""The disk is full, or no file may grow, or the log goes nowhere: mail flows, what has to wait hears 4xx, and nothing is lost."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

from tests.faults.copies import settled, unflagged
from tests.faults.mta import Mta, beside
from tests.faults.service import LISTEN, SINK, SOURCE, Service, service
from tests.faults.test_kills import BODY, all_there
from tests.faults.test_store import once_deferred, pid_of
from tests.peers.disk import MB, leave, small_disk
from tests.peers.smtp_sink import SmtpSink
from tests.waiting import until

SIZE, MIN_FREE = 8 * MB, 4 * MB


def mta(it: Service, workers: int = 4) -> Mta:
    return Mta(LISTEN, it.port, SOURCE, workers=workers)


async def send_in_session(it: Service, first: str) -> None:
    """Each hears 250 at its first try."""
    one = mta(it)
    await one.send_all([f"q{first}{number}" for number in range(10)], BODY)
    assert one.books.deferred == one.books.broken == 0
    assert len(one.books.acknowledged) == 10


def names(first: str) -> list[str]:
    """Of messages that have to wait."""
    return [f"{first}{number}" for number in range(6)]


async def test_a_disk_that_fills_up_takes_nothing_new_lets_out_what_waits_and_then_mail_waits_again(
    tmp_path: Path,
) -> None:
    """F6."""
    with small_disk(tmp_path / "state", SIZE) as state:
        async with (
            service(tmp_path, queue=f"min_free = {MIN_FREE}") as it,
            SmtpSink({"DOT": once_deferred()}, host=SINK, port=it.port) as sink,
        ):
            early, short, full = (mta(it) for _ in range(3))
            await early.send_all(names("early"), BODY)
            ballast = leave(state, MIN_FREE - MB)
            await send_in_session(it, "short")
            await short.send_all(names("short"), BODY)
            assert short.books.deferred >= len(names("short"))
            # What was in the queue is delivered although the disk is short.
            await settled(it)
            await all_there(sink, names("early"))
            assert it.events("store.disk_short")
            assert not it.events("store_died")
            # To the last octet: the store ends whenever it has to write.
            ballast.unlink()
            ballast = leave(state, 0)
            await send_in_session(it, "full")
            async with beside(full.send_all(names("full"), BODY)):
                await until(lambda: full.books.deferred >= len(names("full")) and it.events("store_died"))
                ballast.unlink()
            assert not any(one.books.refused for one in (early, short, full))
            await send_until_held(it)
            await all_there(sink, [*names("early"), *names("short"), *names("full")])
            await settled(it)
            assert not unflagged(it, sink.messages)


async def send_until_held(it: Service) -> None:
    """Mail waits here again, as soon as the store is found to be back."""
    before = len(it.events("queue.put"))
    for turn in range(100):
        await mta(it).send_all([f"again{turn}"], BODY)
        if len(it.events("queue.put")) > before:
            return
    raise AssertionError("nothing is held")


async def test_files_that_may_not_grow_lose_nothing(tmp_path: Path) -> None:
    """F8: a limit on the size of files, of the program's log too."""

    async with service(tmp_path) as it, SmtpSink({"DOT": once_deferred()}, host=SINK, port=it.port) as sink:
        early, late = mta(it), mta(it)
        await early.send_all(names("early"), BODY)
        assert it.process is not None
        for pid in (it.process.pid, pid_of(it)):
            _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, most))
        await send_in_session(it, "small")
        async with beside(late.send_all(names("late"), BODY)):
            await until(lambda: late.books.deferred >= len(names("late")))
            # Its next life is without the limit.
            await it.kill()
            await it.start()
        assert not late.books.refused
        await all_there(sink, [*names("early"), *names("late")])
        await settled(it)


async def test_a_log_that_goes_nowhere_stops_no_mail(tmp_path: Path) -> None:
    """F7."""
    (tmp_path / "log.0").symlink_to("/dev/full")
    async with service(tmp_path) as it, SmtpSink(host=SINK, port=it.port) as sink:
        await send_in_session(it, "unheard")
        assert len(sink.messages) == 10
        assert it.process is not None
        it.process.terminate()
        async with asyncio.timeout(20):
            assert await it.process.wait() == 0
