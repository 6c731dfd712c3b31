"""rounds.py: whoever has work there gets its turn, and no round of the loop holds many of them."""

from __future__ import annotations

import asyncio

from forwarder.rounds import Rounds


async def look(rounds: Rounds, count: int, name: str, seen: list[str], times: int = 1) -> None:
    for _ in range(times):
        await rounds.turn(count)
        seen.append(name)


async def passed(rounds: int) -> None:
    """A turn that was waited for begins in the round behind the one that gave it."""
    for _ in range(rounds):
        await asyncio.sleep(0)


async def test_a_round_holds_what_it_may_and_one_block_more() -> None:
    rounds, seen = Rounds(100), list[str]()
    tasks = [asyncio.create_task(look(rounds, 40, str(one), seen)) for one in range(9)]
    most = 0
    while len(seen) < 9:
        before = len(seen)
        await asyncio.sleep(0)
        most = max(most, len(seen) - before)
    assert most == 3
    assert seen == [str(one) for one in range(9)], "in the order of asking"
    await asyncio.gather(*tasks)


async def test_one_alone_waits_for_nobody() -> None:
    rounds, seen = Rounds(100), list[str]()
    await look(rounds, 90, "a", seen)
    await passed(2)
    await look(rounds, 500, "a", seen)
    assert seen == ["a", "a"]


async def test_one_that_has_much_does_not_keep_others_waiting() -> None:
    rounds, seen = Rounds(100), list[str]()
    large = asyncio.create_task(look(rounds, 100, "large", seen, times=20))
    await passed(3)
    await look(rounds, 10, "other", seen)
    assert seen.count("large") < 8
    await large


async def test_who_gives_up_holds_up_nobody() -> None:
    rounds, seen = Rounds(100), list[str]()
    tasks = [asyncio.create_task(look(rounds, 100, name, seen)) for name in "abcd"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert seen == ["a", "d"]
    await asyncio.wait_for(rounds.turn(100), 30)
