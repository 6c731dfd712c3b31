"""The store is killed, stands still, writes nothing, has no memory, has no disk, while mail flows: nothing is lost, and what
finishes in session does not even notice.

Two senders at once: eight messages at a time go to a destination that takes them, so they need no store and must hear 250 at
the first try; two at a time to one that defers each of them at first, so they have to be held, and hear 451 while that
cannot be. ``./scripts/faults store`` runs the full measure; here a short form of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest

from tests.faults.copies import count, name_of, settled, unflagged
from tests.faults.mta import Mta, beside
from tests.faults.service import LISTEN, SINK, SOURCE, Service, service
from tests.faults.test_kills import BODY, all_there
from tests.peers.chaos import ChaosProxy, Weather
from tests.peers.disk import MB, leave, small_disk
from tests.peers.smtp_sink import DEFAULT, Action, SmtpSink
from tests.peers.valkey import Valkey, stopped, valkey
from tests.waiting import HASTY, until

#: Messages that finish in session, at least; more where the faults last longer. A quarter as many have to be held.
MESSAGES = int(os.environ.get("FAULT_STORE_MESSAGES", "120"))
#: How often the store is killed, and for how many seconds it stands still; other faults last a third of that.
KILLS = int(os.environ.get("FAULT_STORE_KILLS", "2"))
SECONDS = float(os.environ.get("FAULT_STORE_SECONDS", "0.4"))
RUN = 100 + MESSAGES / 10 + KILLS * 10 + SECONDS * 20
#: Seconds until the final dot is answered while the store is away. Half of the answers come as without a fault in the same run:
#: what is on top is less than the store's time limit (0.25), since a store that is known to be away is not waited for. And 99 of
#: 100 within these, since nobody waits for the queue's limit (5), or for second tries of a library's (15). A machine that stands
#: still for a second is no fault of ours.
AT_ONCE, BOUND = 0.125, 3.0
#: Messages that are answered between two faults, and within each, at least: many more than are under way when it begins.
BETWEEN, ENOUGH = 10, 60

Fault = Callable[[], AbstractAsyncContextManager[None]]


@dataclass
class Window:
    """From when until when what was wrong; the loop's time."""

    what: str
    began: float
    ended: float


@dataclass
class Account:
    """What a run came to."""

    quick: Mta
    held: Mta
    windows: list[Window] = field(default_factory=list)

    def waits(self, what: str) -> list[float]:
        """Seconds that each answer to a dot took which was sent while this was wrong, in order."""
        windows = [one for one in self.windows if one.what == what]
        dots = self.quick.books.dots + self.held.books.dots
        return sorted(ended - began for began, ended in dots if any(one.began <= began < one.ended for one in windows))

    def usual(self) -> float:
        """The median of those without a fault."""
        dots = self.quick.books.dots + self.held.books.dots
        return median(
            ended - began
            for began, ended in dots
            if not any(one.began <= ended and began < one.ended for one in self.windows)
        )


def once_deferred() -> Action:
    """A destination that takes what is called q... at once, and everything else at the second try."""
    seen: set[str] = set()

    def answer(data: bytes) -> Action:
        name = name_of(data)
        if name.startswith("q") or name in seen:
            return DEFAULT
        seen.add(name)
        return b"451 4.2.0 not now\r\n"

    return answer  # type: ignore[return-value]  # DEFAULT is an action, and performed as one


def names_until(over: asyncio.Event, first: str, least: int, used: set[str]) -> Iterator[str]:
    """So many names, and more until it is over; ``used`` tells which were given."""
    while len(used) < least or not over.is_set():
        used.add(f"{first}{len(used)}")
        yield f"{first}{len(used) - 1}"


async def run(it: Service, faults: Sequence[tuple[str, Fault]]) -> None:
    """Mail flows, one fault after the other comes and goes, and in the end everything has arrived once."""
    quick: set[str] = set()
    held: set[str] = set()
    over = asyncio.Event()
    async with SmtpSink({"DOT": once_deferred()}, host=SINK, port=it.port) as sink:
        account = Account(Mta(LISTEN, it.port, SOURCE, workers=8), Mta(LISTEN, it.port, SOURCE, workers=2))
        async with (
            beside(account.quick.send_all(names_until(over, "q", MESSAGES, quick), BODY)),
            beside(account.held.send_all(names_until(over, "h", MESSAGES // 4, held), BODY)),
        ):
            await bring(faults, account)
            over.set()
        await all_there(sink, [*quick, *held])
        await settled(it)
        check(it, account, sink, quick, held)


async def bring(faults: Sequence[tuple[str, Fault]], account: Account) -> None:
    loop, taken = asyncio.get_running_loop(), account.quick.books.acknowledged
    for number, (what, fault) in enumerate(faults):
        target = max(MESSAGES * (number + 0.5) / (len(faults) + 1), len(taken) + BETWEEN)
        await until(lambda: len(taken) >= target, RUN)  # noqa: B023 - waited for at once
        began, enough = loop.time(), len(taken) + ENOUGH
        seconds = 0 if what == KILLED else SECONDS if what == STILL else SECONDS / 3
        async with fault():
            await until(lambda: loop.time() > began + seconds and len(taken) >= enough, RUN)  # noqa: B023 - the same
        account.windows.append(Window(what, began, loop.time()))


def check(it: Service, account: Account, sink: SmtpSink, quick: set[str], held: set[str]) -> None:
    copies = count(sink.messages)
    extra = sum(copies.values()) - len(copies)
    flagged = sum(one.get("maybe_dup", False) for one in it.events("queue.outcome"))
    reports = [one for one in sink.messages if one.mail.startswith(b"FROM:<>")]
    print(
        f"\n{len(quick)} + {len(held)} messages: lost {len((quick | held) - copies.keys())}, extra copies {extra}, on record "
        f"{flagged}, dead letters {len(it.events('queue.dead'))}, reports {len(reports)}; 451 to what finishes in session "
        f"{account.quick.books.deferred}, to what has to wait {account.held.books.deferred}"
    )
    for what in dict.fromkeys(one.what for one in account.windows):
        waits, times = account.waits(what), [one for one in account.windows if one.what == what]
        print(
            f"  {what}, {len(times)} times, {sum(one.ended - one.began for one in times):.1f} s: {len(waits)} answers, "
            f"median {waits[len(waits) // 2]:.3f} s, p99 {waits[len(waits) * 99 // 100]:.3f} s, most {waits[-1]:.3f} s"
        )
    assert it.events("fault") == []
    assert account.quick.books.acknowledged == quick
    assert account.held.books.acknowledged == held
    assert not account.quick.books.refused
    assert not account.held.books.refused
    assert account.quick.books.deferred == account.quick.books.broken == 0
    assert not (quick | held) - copies.keys()
    assert not unflagged(it, sink.messages)
    assert not reports
    for what in {one.what for one in account.windows}:
        waits = account.waits(what)
        assert waits[len(waits) * 99 // 100] < BOUND, what
        assert median(waits) < 2 * account.usual() + AT_ONCE, what


# --- the embedded store

KILLED, STILL = "killed", "standing still"


def pid_of(it: Service) -> int:
    return int(it.events("store_started")[-1]["pid"])


def dies(it: Service) -> Fault:
    """kill -9; the service starts it again."""

    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        started = len(it.events("store_started"))
        os.kill(pid_of(it), signal.SIGKILL)
        yield
        await until(lambda: len(it.events("store_started")) > started)

    return fault


def stands_still(pid: Callable[[], int]) -> Fault:
    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        with stopped(pid()):
            yield

    return fault


@pytest.mark.timeout(RUN)
async def test_the_embedded_store_fails_in_every_way_and_mail_flows(tmp_path: Path) -> None:
    async with service(tmp_path, store_timeout=HASTY) as it:
        faults = [*[(KILLED, dies(it))] * KILLS, (STILL, stands_still(lambda: pid_of(it)))]
        await run(it, faults)


def is_full(disk: Path) -> Fault:
    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        ballast = leave(disk, 0)
        yield
        ballast.unlink()

    return fault


needs_time = pytest.mark.skipif(
    "FAULT_STORE_MESSAGES" not in os.environ, reason="test_disk.py has the short form; scripts/faults store"
)


@needs_time
@pytest.mark.timeout(RUN)
async def test_the_embedded_stores_disk_is_full_and_mail_flows(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state", 256 * MB) as disk:
        async with service(tmp_path, store_timeout=HASTY) as it:
            await run(it, [("without a disk", is_full(disk))] * 3)


# --- a store of the operator's


def orders(store: Valkey, begin: str, end: str) -> Fault:
    """What it is told to be of no use for a while."""

    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        await store.ask(*begin.split())
        yield
        await store.ask(*end.split())

    return fault


def is_gone(store: Valkey) -> Fault:
    """kill -9; somebody starts it again."""

    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        await store.kill()
        yield
        await store.start()

    return fault


def is_behind_a_bad_network(net: ChaosProxy, rng: random.Random) -> Fault:
    """Streams in slices, reset or silent after some octets."""

    def changing() -> Weather:
        octets = rng.randrange(20_000)
        match rng.choice(("slices", "reset", "silent")):
            case "slices":
                return Weather(slice=rng.randrange(1, 100))
            case "reset":
                return Weather(reset_after=octets)
            case _:
                return Weather(silent_after=octets)

    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        net.weather = changing
        net.reset_all()
        yield
        net.weather = Weather
        net.reset_all()

    return fault


@pytest.mark.timeout(RUN)
async def test_a_store_of_ones_own_fails_in_every_way_and_mail_flows(tmp_path: Path) -> None:
    async with (
        valkey(tmp_path / "valkey") as store,
        ChaosProxy(("127.0.0.1", store.port)) as net,
        service(tmp_path, store_timeout=HASTY, store=f"redis://127.0.0.1:{net.port}") as it,
    ):
        no, set_ = ("CONFIG SET min-replicas-to-write", "CONFIG SET maxmemory")
        faults = [
            *[(KILLED, is_gone(store))] * KILLS,
            ("gone", is_gone(store)),
            (STILL, stands_still(store.pid)),
            ("read-only", orders(store, "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")),
            ("without its replicas", orders(store, f"{no} 1", f"{no} 0")),
            ("without memory", orders(store, f"{set_} 1", f"{set_} 0")),
            ("behind a bad network", is_behind_a_bad_network(net, random.Random(7))),
        ]
        await run(it, faults)


@needs_time
@pytest.mark.timeout(RUN)
async def test_the_disk_of_a_store_of_ones_own_is_full_and_mail_flows(tmp_path: Path) -> None:
    """With ``appendfsync everysec`` the server does not end, but refuses every write (MISCONF)."""
    with small_disk(tmp_path / "valkey", 256 * MB) as disk:
        async with valkey(disk) as store, service(tmp_path, store_timeout=HASTY, store=store.url) as it:
            await store.ask("CONFIG", "SET", "appendfsync", "everysec")
            await run(it, [("without a disk", is_full(disk))] * 3)
            assert any("MISCONF" in one["reason"] for one in it.events("store_refused"))
