"""Wait until something is so, for a bounded time: what a test waits for is outside, and does not call back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from forwarder.store.client import DEFAULT_TIMEOUT

STEP = 0.025
#: ``store_timeout`` where a test is not about a store that takes its time: the disk of a busy machine stands still for half a
#: second now and then. And where it is, what the program has by itself.
PATIENT, HASTY = 5.0, DEFAULT_TIMEOUT


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Raises AssertionError when the time is over."""
    for _ in range(int(seconds / STEP)):
        if condition():
            return
        await asyncio.sleep(STEP)
    raise AssertionError("it never came to that")
