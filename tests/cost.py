"""What does it cost? Processor time of this process, which a busy machine leaves nearly alone."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Runs of which the least counts.
TRIES = 3


def cost_of(run: Callable[[int], object], bound: float) -> float:
    """Seconds of CPU: of the first run that is within the bound, or the least of three. What collects garbage of other tests, and
    a machine that gives the processor to somebody else, adds to one of them; what the code costs, it costs each time. ``run``
    gets the number of the run, to make another text of it: nothing shall be remembered from the one before."""
    least = float("inf")
    for number in range(TRIES):
        began = time.process_time()
        run(number)
        least = min(least, time.process_time() - began)
        if least < bound:
            break
    return least
