"""Killed, or hit by a fault of ours, at each named point of a message's way (forwarder/failpoints.py): what is lost or doubled?

Mail of every kind flows all the time: taken at once, held and then taken, held and then refused, refused by one of two. Every
message that was acknowledged must have arrived, or its sender must have a report, or an operator a dead letter.
``./scripts/faults points`` kills twenty times at each point; here each comes once.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from forwarder.failpoints import POINTS
from tests.faults.copies import count, dead_letters, name_of, settled, unflagged
from tests.faults.mta import Mta, beside
from tests.faults.service import LISTEN, SINK, SOURCE, Service, service
from tests.peers.smtp_sink import DEFAULT, Action, Received, SmtpSink
from tests.waiting import until

RUNS = int(os.environ.get("FAULT_POINT_RUNS", "0"))
#: Where the next hop may have the message and the program cannot know: one more copy a kill, on record. Nowhere else.
COPIES = {"K5", "K6", "K12"}
ALIASES = 'pair = ["dest@sink.test", "gone@sink.test"]'
REFUSED = b"550 5.1.1 nobody here\r\n"


def kind(name: str) -> int:
    """0: taken at once. 1: not at first. 2: not at first, and then refused. 3: for two, one of whom is refused."""
    return int(name[1:]) % 4


@dataclass
class Destination:
    """What the next hop says, by the kind of message."""

    seen: Counter[str] = field(default_factory=Counter)

    def dot(self, data: bytes) -> Action:
        name = name_of(data)
        self.seen[name] += 1
        if kind(name) in (1, 2) and self.seen[name] == 1:
            return b"451 4.2.0 not now\r\n"
        return REFUSED if kind(name) == 2 else DEFAULT

    def rcpt(self, argument: bytes) -> Action:
        return REFUSED if b"gone@" in argument else DEFAULT


@dataclass
class Run:
    """``sink`` is the destination, ``reports`` the server of those who sent: it gets the reports."""

    it: Service
    sink: SmtpSink
    reports: SmtpSink
    mta: Mta
    names: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)

    def missing(self) -> set[str]:
        """Messages that did not arrive, or whose sender was not told what of them did not; and no operator has them."""
        arrived, reported = count(self.sink.messages).keys(), count(self.reports.messages).keys()
        lost = {name for name in self.names if kind(name) != 2 and name not in arrived}
        lost |= {name for name in self.names if kind(name) in (2, 3) and name not in reported}
        return lost - set(self.dead) - self.mta.books.refused.keys()

    def extra(self) -> int:
        """Copies beyond the first, of messages and of reports."""
        return sum(sum(copies.values()) - len(copies) for copies in map(count, self.arrived()))

    def arrived(self) -> tuple[list[Received], list[Received]]:
        return self.sink.messages, self.reports.messages


@asynccontextmanager
async def mail_flows(folder: Path, *, senders: int) -> AsyncIterator[Run]:
    """Within the block; then it ends, and the queue runs empty. Nothing was started yet."""
    next_hop, over = Destination(), asyncio.Event()
    queue = "deliveries = 1" if senders == 1 else ""
    async with (
        service(folder, lease=1, aliases=ALIASES, queue=queue, start=False) as it,
        SmtpSink({"DOT": next_hop.dot, "RCPT": next_hop.rcpt}, host=SINK, port=it.port) as sink,
        SmtpSink(host=SOURCE, port=it.port) as reports,
    ):
        mta = Mta(LISTEN, it.port, SOURCE, workers=senders, recipient=recipient_of)
        run = Run(it, sink, reports, mta)
        async with beside(mta.send_until(over)) as sending:
            yield run
            over.set()
            run.names = await sending
        await settled(it)
        run.dead = await dead_letters(it)


def recipient_of(name: str) -> str:
    return "pair@fwd.test" if kind(name) == 3 else "alias@fwd.test"


async def strike(run: Run, points: Sequence[str]) -> None:
    """One life after the other, each ended at its point; then one that lasts."""
    for number, point in enumerate(points):
        await run.it.spawn(FORWARDER_FAILPOINT=f"{point}:{1 + number % 3 if point != 'K14' else 1}:kill")
        await run.it.died()
    await run.it.start()


def check(run: Run, title: str, extra: int) -> None:
    print(
        f"{title}: {run.it.kills} kills, {len(run.names)} messages, lost {len(run.missing())}, "
        f"extra copies {run.extra()}, dead letters {len(run.dead)}"
    )
    refused = run.mta.books.refused.keys()
    # In session, after a kill: then the sender's own server writes the report.
    assert {kind(one) for one in refused} <= {2}
    assert run.mta.books.acknowledged | refused == set(run.names)
    assert not run.missing()
    assert not unflagged(run.it, run.sink.messages)
    assert run.extra() <= extra


@pytest.mark.timeout(300)
async def test_killed_once_at_each_point_it_loses_nothing(tmp_path: Path) -> None:
    async with mail_flows(tmp_path, senders=3) as run:
        await strike(run, list(POINTS))
    check(run, "each point once", extra=len(POINTS))


@pytest.mark.skipif(not RUNS, reason="twenty kills at each point: scripts/faults points")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", POINTS)
async def test_killed_at_one_point_again_and_again_it_loses_nothing(point: str, tmp_path: Path) -> None:
    async with mail_flows(tmp_path, senders=1) as run:
        await strike(run, [point] * RUNS)
    # Another delivery may be at its dot just then: one of the queue's, while one in session is killed.
    check(run, point, extra=RUNS if point in COPIES else RUNS // 5)


@pytest.mark.timeout(180)
async def test_a_fault_of_ours_at_each_point_loses_nothing_and_refuses_nothing(tmp_path: Path) -> None:
    points = [one for one in POINTS if one != "K14"]
    async with mail_flows(tmp_path, senders=3) as run:
        await run.it.start(FORWARDER_FAILPOINT=",".join(f"{one}:raise" for one in points))
        await until(lambda: len(run.mta.books.acknowledged) >= 40, 30)
    check(run, "a fault at each point", extra=len(COPIES))
    # Two of the faults may have hit one message at its dot.
    assert len(run.dead) <= 1
    reached = {one["detail"].rpartition(" ")[2] for one in run.it.events("fault") if one["kind"] == "FailpointReached"}
    assert reached == set(points)
