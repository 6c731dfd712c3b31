"""kill -9 of the whole program, again and again, while mail flows: nothing is lost, nothing damaged, each second copy on record.

The destination defers a fifth of the messages, so that session and queue are both at work. ``./scripts/faults kills`` runs
the full measure (10,000 messages, 100 kills); here a short form of it.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.copies import count, dead_letters, name_of, settled, unflagged
from tests.faults.mta import Mta, beside
from tests.faults.service import LISTEN, SINK, SOURCE, Service, service
from tests.peers.smtp_sink import DEFAULT, Action, SmtpSink
from tests.waiting import until

MESSAGES = int(os.environ.get("FAULT_MESSAGES", "150"))
KILLS = int(os.environ.get("FAULT_KILLS", "2"))
#: Seconds for the whole of it.
RUN = 60 + MESSAGES / 20 + KILLS * 10
BODY = b"Hello.\r\n" * 40


def moody(rng: random.Random) -> Action:
    """A destination that has a bad moment now and then."""

    def answer(_: bytes) -> Action:
        return b"451 4.2.0 not now\r\n" if rng.random() < 0.2 else DEFAULT

    return answer  # type: ignore[return-value]  # DEFAULT is an action, and performed as one


async def keep_killing(it: Service, sink: SmtpSink, rng: random.Random) -> int:
    """Spread over the run by how much has arrived. Returns how many messages had been sent to their dot and not been answered
    when the program died: the destination took them afterwards, and nobody can know."""
    unanswered = 0
    for number in range(KILLS):
        target = MESSAGES * (number + rng.random()) / (KILLS + 1)
        await until(lambda: len(sink.messages) >= target, RUN)  # noqa: B023 - waited for at once
        await asyncio.sleep(rng.random() * 0.05)
        before = len(sink.messages)
        await it.kill()
        # Then it has read whatever the dead program had sent.
        await sink.until_open(0)
        unanswered += len(sink.messages) - before
        await it.start()
    return unanswered


async def all_there(sink: SmtpSink, names: list[str]) -> None:
    await until(lambda: len({name_of(one.data) for one in sink.messages}) >= len(names), 60)


@pytest.mark.timeout(RUN)
async def test_killed_again_and_again_it_loses_nothing(tmp_path: Path) -> None:
    rng = random.Random(5)
    names = [f"m{number}" for number in range(MESSAGES)]
    async with service(tmp_path) as it, SmtpSink({"DOT": moody(rng)}, host=SINK, port=it.port) as sink:
        mta = Mta(LISTEN, it.port, SOURCE)
        async with beside(mta.send_all(names, BODY)):
            unanswered = await keep_killing(it, sink, rng)
        await settled(it)
        copies, dead = count(sink.messages), set(await dead_letters(it))

        assert mta.books.acknowledged == set(names)
        assert not mta.books.refused
        lost = set(names) - copies.keys() - dead
        damaged = [
            one
            for one in sink.messages
            if not one.data.endswith(b"\r\n\r\n" + name_of(one.data).encode() + b"\r\n" + BODY)
        ]
        extra = sum(copies.values()) - len(copies)
        flagged = len(it.events("queue.taken_over")) + len(it.events("claim.taken_over"))
        reports = len([one for one in sink.messages if one.mail.startswith(b"FROM:<>")])
        print(
            f"{MESSAGES} messages, {it.kills} kills: lost {len(lost)}, damaged {len(damaged)}, extra copies {extra}, "
            f"dots not answered before a kill {unanswered}, "
            f"on record as maybe a copy {flagged}, dead letters {len(dead)} (arrived: {len(dead & copies.keys())}), "
            f"reports {reports}, tries {sum(mta.books.tries.values())}, broken connections {mta.books.broken}"
        )
        assert not lost
        assert not damaged
        # A kill may leave a copy for each message that was between the next hop's answer and our record of it.
        assert not unflagged(it, sink.messages)
        assert extra <= it.kills * mta.workers
        # A message that was at its dot at two kills: nobody knows whether it has arrived, and an operator has it.
        assert len(dead) <= it.kills
        assert reports == 0


@pytest.mark.timeout(RUN)
async def test_without_a_kill_there_is_no_second_copy(tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(MESSAGES // 3)]
    async with service(tmp_path) as it, SmtpSink({"DOT": moody(random.Random(6))}, host=SINK, port=it.port) as sink:
        mta = Mta(LISTEN, it.port, SOURCE)
        await mta.send_all(names, BODY)
        await all_there(sink, names)
        await settled(it)
        assert count(sink.messages) == Counter(names)
        assert mta.books.deferred == mta.books.broken == 0
