"""Runs the service in the foreground. SIGHUP: reload. SIGTERM or SIGINT: drain and stop; once more: end at once."""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forwarder import failpoints

if TYPE_CHECKING:
    from forwarder.app import App
    from forwarder.config import Settings
    from forwarder.telemetry import EventLog

__all__ = ["add_arguments", "run", "run_loop"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path("forwarder.toml"), help="the configuration file")
    parser.add_argument("--pretty", action="store_true", help="log for people instead of JSON lines")


def run(args: argparse.Namespace) -> int:
    from forwarder.app import App, SystemClock
    from forwarder.config import ConfigError, load
    from forwarder.secrecy import hide_memory
    from forwarder.telemetry import EventLog

    # Before anything secret is read.
    hide_memory()
    # Whatever it writes is nobody else's.
    os.umask(0o077)
    armed = os.environ.get("FORWARDER_FAILPOINT", "")
    try:
        failpoints.arm(armed)
    except ValueError as error:
        print(f"forwarder: FORWARDER_FAILPOINT: {error}", file=sys.stderr)
        return 1
    try:
        settings = load(args.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    log = EventLog(
        sys.stderr,
        SystemClock(),
        pretty=args.pretty or settings.log.format == "pretty",
        full_addresses=settings.log.full_addresses,
    )
    if armed:
        log.event("failpoint.armed", points=armed)
    _open_all_files()
    try:
        return run_loop(_serve(App(settings, log), log, functools.partial(load, args.config)))
    finally:
        log.flush()


def _open_all_files() -> None:
    """As many as the system lets us: its usual 1024 are for programs that use select()."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(app: App, log: EventLog, load: Callable[[], Settings]) -> int:
    from forwarder.app import StartError
    from forwarder.servicemanager import ServiceManager

    manager = ServiceManager(os.environ)
    loop = asyncio.get_running_loop()
    log.use_loop(loop)
    loop.set_exception_handler(functools.partial(_tell, log))
    stop, hup = asyncio.Event(), asyncio.Event()
    # Before the start: SIGHUP would end the program, and whoever stops it need not wait until it is up.
    loop.add_signal_handler(signal.SIGHUP, hup.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, number, stop, log)
    log.event("service.starting")
    try:
        if not await _unless(stop, app.start()):
            return 0
    except StartError as error:
        print(f"forwarder: {error}", file=sys.stderr)
        return 1
    manager.ready()
    watching = asyncio.create_task(manager.watch())
    while await _unless(stop, hup.wait()):
        hup.clear()
        manager.reloading()
        await _unless(stop, app.reload(load))
        manager.ready()
    manager.stopping()
    await app.stop()
    watching.cancel()
    return 0


def _tell(log: EventLog, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the event loop has to say goes where everything else does."""
    exception = context.get("exception")
    kind = type(exception).__name__ if exception is not None else None
    log.event("fault", where="loop", kind=kind, detail=f"{context.get('message')}: {exception or ''}")


def _stop(number: int, stop: asyncio.Event, log: EventLog) -> None:
    if stop.is_set():
        # Said twice. What is under way is as after a crash: nothing is lost.
        log.event("service.cut_short")
        log.flush()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    stop.set()


async def _unless(stop: asyncio.Event, what: Coroutine[Any, Any, Any]) -> bool:
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


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """On uvloop where it is installed: a quarter of the cost per received message, a tenth of the memory per TLS session."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)
