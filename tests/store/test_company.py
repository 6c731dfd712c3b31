"""Do commands leave together while there is work, and does nobody wait in vain? With a real server, which counts reads."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from forwarder.store import company
from forwarder.store.client import Script, StoreClient

_TEXT = b"#!lua\nreturn redis.call('INCR', 'n')"
INCREMENT = Script("increment", _TEXT, hashlib.sha1(_TEXT, usedforsecurity=False).hexdigest())


async def reads(client: StoreClient) -> int:
    """How often the server has read something."""
    stats: bytes = await client.command("INFO", "stats")
    return int(stats.split(b"total_reads_processed:")[1].split(b"\r\n")[0])


async def after(rounds: int, client: StoreClient, *, at_once: bool = False) -> int:
    """The answer, asked for so many rounds of the loop later."""
    for _ in range(rounds):
        await asyncio.sleep(0)
    return int(await client.run(INCREMENT, (), (), at_once=at_once))


async def test_who_comes_while_the_loop_has_work_leaves_with_those_before(
    client: StoreClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await after(0, client)
    # No round is an empty one, and none is late.
    monkeypatch.setattr(company, "EMPTY", 0.0)
    monkeypatch.setattr(company, "LONGEST", 1000.0)
    before = await reads(client)

    answers = await asyncio.gather(*(after(rounds, client) for rounds in (0, 8, 16)))

    assert sorted(answers) == [2, 3, 4]
    assert await reads(client) - before == 2, "one for the three, one for the question"


async def test_what_must_be_on_record_at_once_takes_those_that_wait_along(
    client: StoreClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await after(0, client)
    monkeypatch.setattr(company, "EMPTY", 0.0)
    monkeypatch.setattr(company, "LONGEST", 1000.0)
    # For ever, but for who is in a hurry.
    monkeypatch.setattr(company, "PATIENCE", 10**9)

    async with asyncio.timeout(20):
        answers = await asyncio.gather(after(0, client), after(3, client, at_once=True))

    assert sorted(answers) == [2, 3]


async def test_who_is_alone_waits_for_three_empty_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(company, "EMPTY", 1000.0)
    rounds = 0
    leaving = asyncio.ensure_future(company.gather_company(lambda: 1, lambda: False))
    while not leaving.done():
        rounds += 1
        await asyncio.sleep(0)
    assert 3 <= rounds <= 5


async def test_nobody_waits_for_ever_however_many_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(company, "LONGEST", 0.0)
    many = iter(range(10**9))
    async with asyncio.timeout(20):
        await company.gather_company(lambda: next(many), lambda: False)
