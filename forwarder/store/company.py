"""How long does a command that may wait do so, to leave with others? As long as the event loop has other work.

What a group of commands costs beside them (a write, a wake-up of the server, its write to its file and the fsync, a reply) is
more than what they cost. Under load the next message gets as far as its command within a few rounds of the loop; when nothing
else goes on nobody waits for longer than three empty rounds, some 30 us. Signatures wait for each other in the same way
(``forwarder.keys.multibuffer.waiting``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["gather_company"]

#: Rounds of the loop in which nobody came, after which those that are there wait no more; and seconds after which they do not
#: in any case: a loop that always has work, and always somebody new, would keep the first of them.
PATIENCE, LONGEST = 12, 0.01
#: And rounds in which nothing went on at all; seconds that such a one takes at most.
AT_REST, EMPTY = 3, 50e-6


async def gather_company(count: Callable[[], int], is_hurried: Callable[[], bool]) -> None:
    """Returns when those that are there should leave. ``count``: how many are. ``is_hurried``: is one of them in a hurry?"""
    seen, quiet, empty = count(), 0, 0
    began = looked = time.perf_counter()
    while quiet < PATIENCE and empty < AT_REST and looked - began < LONGEST and not is_hurried():
        await asyncio.sleep(0)
        now, there = time.perf_counter(), count()
        if there != seen:
            seen, quiet, empty = there, 0, 0
        else:
            quiet += 1
            empty += now - looked < EMPTY
        looked = now
