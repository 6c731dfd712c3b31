"""Who keeps the embedded store while several workers use it? A child of its own: it starts the store and starts it again.

It ends when nobody needs the store any more, which it learns from a pipe that supervisor and workers hold open, and nobody
writes to: whoever dies and however, workers that finish what is under way have the store until they are done.
"""

from __future__ import annotations

import asyncio
import functools

from forwarder.app import Material, StartError, keep_store
from forwarder.app.running import run_loop, tell_of_loop, unless
from forwarder.supervisor.channel import Channel
from forwarder.telemetry import EventLog

__all__ = ["run_storekeeper"]


def run_storekeeper(material: Material, channel: Channel, needed: int, log: EventLog) -> int:
    """``needed``: the reading end of the pipe. Returns the exit code."""
    try:
        return run_loop(_keep(material, channel, needed, log))
    finally:
        log.flush()


async def _keep(material: Material, channel: Channel, needed: int, log: EventLog) -> int:
    loop = asyncio.get_running_loop()
    log.use_loop(loop)
    loop.set_exception_handler(functools.partial(tell_of_loop, log))
    over = asyncio.Event()
    loop.add_reader(needed, over.set)
    try:
        await unless(over, _store(material, channel, log))
    except StartError as error:
        channel.send({"is": "failed", "reason": str(error)})
        return 1
    finally:
        loop.remove_reader(needed)
    return 0


async def _store(material: Material, channel: Channel, log: EventLog) -> None:
    async with keep_store(material.settings, log):
        channel.send({"is": "ready"})
        await asyncio.get_running_loop().create_future()
