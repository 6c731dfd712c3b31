"""timelimit.py: many have one timer, and each its time."""

from __future__ import annotations

import asyncio

from forwarder.timelimit import TimeLimit


def given(seconds: float) -> tuple[TimeLimit[str], list[str], asyncio.Event]:
    """A limit, what took longer, and when something did."""
    over, came = list[str](), asyncio.Event()

    def note(one: str) -> None:
        over.append(one)
        came.set()

    return TimeLimit(seconds, note), over, came


async def test_what_takes_longer_is_over_once_in_the_order_in_which_it_began() -> None:
    limit, over, came = given(0.02)
    loop = asyncio.get_running_loop()
    for one in ("a", "b", "c"):
        limit.begin(one, loop)
    assert limit.end("b")
    await came.wait()
    await asyncio.sleep(0)
    assert over == ["a", "c"]
    assert not limit.end("a")
    assert not limit.end("c")


async def test_who_begins_later_has_as_much_time() -> None:
    limit, over, came = given(0.03)
    shorter, _, came_first = given(0.01)
    loop = asyncio.get_running_loop()
    limit.begin("a", loop)
    shorter.begin("a", loop)
    await came_first.wait()
    limit.end("a")
    began = loop.time()
    limit.begin("b", loop)
    await came.wait()
    assert over == ["b"]
    assert loop.time() - began >= 0.025


async def test_all_are_cut_short_and_who_begins_behind_that_has_no_time() -> None:
    limit, over, came = given(600)
    loop = asyncio.get_running_loop()
    limit.begin("a", loop)
    limit.cut(0.01)
    limit.begin("b", loop)
    await came.wait()
    assert over == ["a", "b"]
    came.clear()
    limit.begin("c", loop)
    await came.wait()
    assert over == ["a", "b", "c"]


async def test_what_ends_in_time_starts_no_timer_each() -> None:
    limit, _, _ = given(600)
    timers = []
    loop = asyncio.get_running_loop()
    call_at = loop.call_at

    def counted(*args: object) -> asyncio.TimerHandle:
        timers.append(args)
        return call_at(*args)  # type: ignore[arg-type]

    loop.call_at = counted  # type: ignore[method-assign, assignment]
    for number in range(100):
        limit.begin(str(number), loop)
        limit.end(str(number))
    assert len(timers) == 1
