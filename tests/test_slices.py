"""slices.py: ten thousand of something go by, and the loop with them."""

from __future__ import annotations

import asyncio

from forwarder.slices import let_others, slices


async def turns_of(many: list[int], most: int) -> list[tuple[int, list[int]]]:
    """Each slice, and in which turn of the loop it came."""
    turn, came = 0, list[tuple[int, list[int]]]()

    async def count() -> None:
        nonlocal turn
        while True:
            await asyncio.sleep(0)
            turn += 1

    counting = asyncio.create_task(count())
    await asyncio.sleep(0)
    for at, some in slices(many, most):
        if at:
            await let_others()
        came.append((turn, list(some)))
    counting.cancel()
    return came


async def test_the_loop_turns_between_two_slices() -> None:
    assert await turns_of([1, 2, 3, 4, 5], 2) == [(0, [1, 2]), (1, [3, 4]), (2, [5])]


async def test_few_come_at_once() -> None:
    assert await turns_of([1, 2], 2) == [(0, [1, 2])]


async def test_of_nothing_there_is_no_slice() -> None:
    assert await turns_of([], 2) == []
