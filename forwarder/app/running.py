"""How does a process run the event loop of the service, and what interrupts it?"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from forwarder.telemetry import EventLog

__all__ = ["cut_short", "freeze_what_stays", "open_all_files", "run_loop", "tell_of_loop", "unless"]

#: So many objects more than there were, and Python looks for cycles among the new ones. Its own 700 are what five messages leave
#: for their traces: docs/decisions/0037.
_NEW_OBJECTS = 10_000


def open_all_files() -> None:
    """As many as the system lets us: its usual 1024 are for programs that use select()."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """On uvloop where it is installed: a quarter of the cost per received message, a tenth of the memory per TLS session."""
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
    try:
        import uvloop  # noqa: PLC0415 - where it is installed
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


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
