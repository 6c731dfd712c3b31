"""How does a process run the event loop of the service, and what interrupts it?"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from forwarder.telemetry import EventLog

__all__ = [
    "cut_short",
    "freeze_what_stays",
    "is_collection_due",
    "open_all_files",
    "run_loop",
    "tell_of_loop",
    "unless",
]

#: So many objects more than there were, and Python looks for cycles among the new ones. Its own 700 are what five messages leave
#: for their traces: docs/decisions/0037. The fourth such run looks at what the three before it left as well. It never looks at
#: everything by itself: docs/decisions/0043.
_NEW_OBJECTS, _RUNS, _NEVER = 10_000, 2, 1_000_000_000
#: Runs of the second kind until one over everything is due, which waits until the process rests; and until it waits no longer.
_DUE, _OVERDUE = 40, 400
#: Seconds between two looks whether it is; and the share of them that a process at rest is busy for.
_LOOK, _AT_REST = 1.0, 0.1


def open_all_files() -> None:
    """As many as the system lets us: its usual 1024 are for programs that use select()."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """On uvloop where it is installed: a tenth of the memory per TLS session. A message costs the same (docs/performance.md)."""
    gc.set_threshold(_NEW_OBJECTS, _RUNS, _NEVER)
    try:
        import uvloop  # noqa: PLC0415 - where it is installed
    except ImportError:
        return asyncio.run(_beside_collector(main))
    return uvloop.run(_beside_collector(main))


async def _beside_collector(main: Coroutine[Any, Any, int]) -> int:
    collecting = asyncio.create_task(_collect_at_rest())
    try:
        return await main
    finally:
        collecting.cancel()


async def _collect_at_rest() -> None:
    while True:
        # Of all threads: one that reads a new configuration makes a million objects, which are not looked through half made.
        before = time.process_time()
        await asyncio.sleep(_LOOK)
        if is_collection_due(gc.get_count()[2], (time.process_time() - before) / _LOOK):
            gc.collect()


def is_collection_due(runs: int, busy: float) -> bool:
    """Is it time to look for cycles among all that is not frozen, which may hold the loop for 50 ms? ``runs``: those of the
    second kind since the last time; ``busy``: the share of the last second that the process was at work. The longer it is
    due, the less rest it waits for."""
    waited = (runs - _DUE) / (_OVERDUE - _DUE)
    return runs >= _OVERDUE or (runs >= _DUE and busy < _AT_REST + waited)


def freeze_what_stays() -> None:
    """What serves now is no garbage, and is not searched for any until this is called again."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def tell_of_loop(log: EventLog, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the event loop has to say goes where everything else does."""
    exception = context.get("exception")
    kind = type(exception).__name__ if exception is not None else None
    log.event("fault", where="loop", kind=kind, detail=f"{context.get('message')}: {exception or ''}")


def cut_short(number: int, log: EventLog, who: str) -> None:
    """Told twice to stop. What is under way is as after a crash: nothing is lost."""
    log.event(f"{who}.cut_short")
    log.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


async def unless(stop: asyncio.Event, what: Coroutine[Any, Any, Any]) -> bool:
    """Do it, unless it is time to stop: then it is cancelled. True: it is done."""
    doing, stopping = asyncio.ensure_future(what), asyncio.ensure_future(stop.wait())
    await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not doing.done():
        doing.cancel()
        with suppress(asyncio.CancelledError):
            await doing
        return False
    await doing
    return True
