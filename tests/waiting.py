"""Wait until something is so, for a bounded time: what a test waits for is outside, and does not call back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

STEP = 0.025


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Raises AssertionError when the time is over."""
    for _ in range(int(seconds / STEP)):
        if condition():
            return
        await asyncio.sleep(STEP)
    raise AssertionError("it never came to that")
