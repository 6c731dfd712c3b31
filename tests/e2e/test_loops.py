"""Forwarders that point at each other: three hops, and the sender hears of it once. Each is a process of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.chain import HOSTS, Chain, Hop, chain, message_of
from tests.waiting import until

SOON = "[queue]\nfirst_retry = 0.05\nmax_retry = 0.1\n"
ROUND = {
    1: 'there = ["back@f2.test"]\n',
    2: 'back = ["there@f1.test"]\n',
}


def messages(hop: Hop) -> int:
    return len(hop.named("message.received"))


async def send(row: Chain) -> str:
    data = row.parties["sender.test"].sign(message_of(1), "bob@sender.test", "there@f1.test")
    return await row.send(data, recipient="there@f1.test")


async def test_a_loop_ends_at_the_third_hop_and_its_sender_hears_one_no(tmp_path: Path) -> None:
    async with chain(tmp_path, running=(1, 2), aliases=ROUND) as row:
        answer = await send(row)
        assert answer.startswith("554 5.4.6")
        assert "f2.test" not in answer
        assert (messages(row.hops[1]), messages(row.hops[2])) == (2, 1)
        assert row.sender.waiting.empty()


@pytest.mark.parametrize("first", [1, 2])
async def test_a_loop_through_a_queue_ends_with_one_report(tmp_path: Path, first: int) -> None:
    held = f'[domains."f{first}.test"]\nhold = "always"\n{SOON}'
    aliases = {n: ROUND[n] + (held if n == first else "") for n in (1, 2)}
    async with chain(tmp_path, running=(1, 2), aliases=aliases) as row:
        assert (await send(row)).startswith("250")
        async with asyncio.timeout(30):
            report = await row.sender.waiting.get()
        assert report.recipients == ("bob@sender.test",)
        assert b"Status: 5.4.6" in report.data
        assert b"there@f1.test" in report.data
        assert not any(one in report.data for one in (b"back@", b"f2.test", HOSTS[2].encode()))
        await until(lambda: row.hops[first].named("queue.outcome"))
        assert messages(row.hops[1]) + messages(row.hops[2]) <= 6
        assert row.sender.waiting.empty()
