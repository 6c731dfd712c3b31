"""A coroutine that was run up to its first wait goes on as if it had been awaited all along."""

from __future__ import annotations

import asyncio

import pytest

from forwarder.begun import begin


async def test_what_does_not_wait_is_at_its_end_at_once() -> None:
    told: list[str] = []

    async def steps() -> None:
        told.append("done")

    assert begin(steps()) is None
    assert told == ["done"]


async def test_what_waits_goes_on_where_it_waited() -> None:
    told: list[object] = []
    first: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    second: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def steps() -> None:
        told.append("begun")
        told.append(await first)
        told.append(await second)

    rest = begin(steps())
    assert rest is not None
    assert told == ["begun"]
    loop = asyncio.get_running_loop()
    loop.call_soon(first.set_result, "first")
    loop.call_soon(lambda: loop.call_soon(second.set_result, "second"))
    async with asyncio.timeout(5):
        await rest
    assert told == ["begun", "first", "second"]


async def test_what_it_raises_is_raised_before_its_first_wait_and_behind_it() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def at_once() -> None:
        raise KeyError("at once")

    async def later() -> None:
        await future
        raise KeyError("later")

    with pytest.raises(KeyError, match="at once"):
        begin(at_once())
    rest = begin(later())
    assert rest is not None
    future.set_result(None)
    with pytest.raises(KeyError, match="later"):
        await rest


async def test_a_deadline_cuts_it_off_and_what_it_has_open_is_closed() -> None:
    told: list[str] = []

    async def steps() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            told.append("closed")

    rest = begin(steps())
    assert rest is not None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await rest
    assert told == ["closed"]


async def test_it_may_outlive_a_cancellation_as_any_coroutine() -> None:
    told: list[str] = []
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def steps() -> None:
        try:
            await future
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            told.append("cleaned up")

    async def awaiting() -> None:
        rest = begin(steps())
        assert rest is not None
        await rest

    task = asyncio.create_task(awaiting())
    await asyncio.sleep(0)
    task.cancel()
    await task
    assert told == ["cleaned up"]


async def test_one_that_is_dropped_while_it_waits_is_closed() -> None:
    told: list[str] = []

    async def steps() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            told.append("closed")

    async def awaiting() -> None:
        rest = begin(steps())
        assert rest is not None
        await rest

    outer = awaiting()
    outer.send(None)
    outer.close()
    assert told == ["closed"]
