"""Does mail for one alias leave room for mail for others, and is none of it kept waiting for long?"""

from __future__ import annotations

import asyncio

import pytest

from forwarder.edge import turns
from forwarder.edge.turns import Turns
from forwarder.model import Address
from tests.edge.test_session import HEADER, RecordingAcceptor, edge
from tests.waiting import until

AT_ONCE = 2
BOMBED, OTHER = Address("bombed", "fwd.example"), Address("other", "fwd.example")


async def seen(order: Turns, alias: Address) -> None:
    """One message that came and went."""
    await order.begin(alias, AT_ONCE)
    order.end(alias)


def begun(order: Turns, alias: Address, count: int) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(order.begin(alias, AT_ONCE)) for _ in range(count)]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody goes ahead because his time is over: a test that ends has not waited."""
    monkeypatch.setattr(turns, "PATIENCE", 3600)


@pytest.mark.usefixtures("long")
async def test_an_alias_that_is_alone_has_all_there_is() -> None:
    order = Turns()
    await seen(order, BOMBED)
    async with asyncio.timeout(20):
        await asyncio.gather(*begun(order, BOMBED, 20 * AT_ONCE))


@pytest.mark.usefixtures("long")
async def test_without_turns_nobody_waits() -> None:
    order = Turns()
    await seen(order, OTHER)
    async with asyncio.timeout(20):
        await asyncio.gather(*(order.begin(BOMBED, 0) for _ in range(20)))


@pytest.mark.usefixtures("long")
async def test_beside_others_its_messages_take_turns_in_order_and_the_others_do_not_wait() -> None:
    order = Turns()
    await seen(order, OTHER)
    tasks = begun(order, BOMBED, AT_ONCE + 3)
    await settle()
    assert [one.done() for one in tasks] == [True] * AT_ONCE + [False] * 3
    async with asyncio.timeout(20):
        await asyncio.gather(*begun(order, OTHER, AT_ONCE))
    for number in range(AT_ONCE, AT_ONCE + 3):
        order.end(BOMBED)
        await settle()
        assert [one.done() for one in tasks] == [True] * (number + 1) + [False] * (AT_ONCE + 2 - number)
    for _ in range(AT_ONCE):
        order.end(BOMBED)
        order.end(OTHER)
    assert (order._inside, order._waiting) == ({}, {})


async def test_who_has_waited_long_enough_goes_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.02)
    order = Turns()
    await seen(order, OTHER)
    async with asyncio.timeout(30):
        # None of them ends: whatever they wait for outside does not answer.
        await asyncio.gather(*begun(order, BOMBED, 5 * AT_ONCE))
    for _ in range(5 * AT_ONCE):
        order.end(BOMBED)
    assert (order._inside, order._waiting) == ({}, {})


@pytest.mark.parametrize("has_its_turn", [False, True])
async def test_a_turn_of_one_that_is_gone_is_the_next_ones(*, has_its_turn: bool) -> None:
    order = Turns()
    await seen(order, OTHER)
    tasks = begun(order, BOMBED, AT_ONCE + 2)
    await settle()
    if has_its_turn:
        order.end(BOMBED)
    tasks[AT_ONCE].cancel()
    await settle()
    if not has_its_turn:
        order.end(BOMBED)
        await settle()
    assert tasks[AT_ONCE].cancelled()
    assert tasks[-1].done()
    for _ in range(AT_ONCE):
        order.end(BOMBED)
    assert (order._inside, order._waiting) == ({}, {})


async def test_a_bomb_in_session_waits_for_its_turn_and_mail_to_another_alias_overtakes_it() -> None:
    acceptor = RecordingAcceptor(hold=asyncio.Event())
    async with edge(acceptor, alias_at_once=AT_ONCE) as (client, it):
        clients = [client, *[await it.connect() for _ in range(AT_ONCE + 1)]]
        # Somebody else is there.
        acceptor.hold, held = None, acceptor.hold
        other = await it.connect()
        await other.ready(rcpt=b"<other@fwd.example>")
        assert (await other.data(HEADER + b"x\r\n.\r\n")).startswith("250")
        acceptor.hold = held
        for one in clients:
            await one.ready()
            assert (await one.say(b"DATA\r\n")).startswith("354")
            one.writer.write(HEADER + b"x\r\n.\r\n")
        alias = Address("alias", "fwd.example")
        await until(lambda: len(it.settings.turns._waiting.get(alias, ())) == 2)
        assert it.settings.turns._inside[alias] == AT_ONCE
        acceptor.hold = None
        await other.ready(rcpt=b"<other@fwd.example>")
        assert (await other.data(HEADER + b"x\r\n.\r\n")).startswith("250")
        held.set()
        for one in clients:
            assert (await one.answer()).startswith("250")
        assert it.settings.turns._inside == {}
