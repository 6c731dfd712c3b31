"""Runs the service in the foreground. SIGHUP: reload. SIGTERM or SIGINT: drain and stop; once more: end at once."""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from forwarder import failpoints

if TYPE_CHECKING:
    from forwarder.app import App, Load, Passed
    from forwarder.config import Settings
    from forwarder.telemetry import EventLog

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path("forwarder.toml"), help="the configuration file")
    parser.add_argument("--pretty", action="store_true", help="log for people instead of JSON lines")


def run(args: argparse.Namespace) -> int:
    from forwarder.app import App, Passed, StartError
    from forwarder.app.running import open_all_files, run_loop
    from forwarder.config import ConfigError, load
    from forwarder.largeblocks import map_large_blocks
    from forwarder.secrecy import hide_memory
    from forwarder.values import find_members_at_once

    # Before anything secret is read.
    hide_memory()
    map_large_blocks()
    find_members_at_once()
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
    workers = settings.workers or _cores()
    make_log = functools.partial(_make_log, settings, args.pretty, workers)
    log = make_log(None)
    if armed:
        log.event("failpoint.armed", points=armed)
    open_all_files()
    load_again = functools.partial(load, args.config)
    try:
        passed = Passed.from_environment(os.environ)
        if workers > 1:
            log.event("service.starting")
            _supervise(settings, workers, passed, load_again, make_log)
            return 0
        return run_loop(_serve(App(settings, log, passed=passed), log, load_again))
    except StartError as error:
        print(f"forwarder: {error}", file=sys.stderr)
        return 1
    finally:
        log.flush()


def _cores() -> int:
    """Those that we may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _make_log(settings: Settings, pretty: bool, workers: int, number: int | None) -> EventLog:
    """Of a worker, or of the one that starts them all."""
    from forwarder.app import SystemClock
    from forwarder.telemetry import EventLog

    return EventLog(
        sys.stderr,
        SystemClock(),
        pretty=pretty or settings.log.format == "pretty",
        full_addresses=settings.log.full_addresses,
        always={"worker": number} if number is not None else None,
        # POSIX: so many octets, written into a pipe at once, stay together.
        at_once=select.PIPE_BUF if workers > 1 else None,
    )


def _supervise(
    settings: Settings, workers: int, passed: Passed, load: Load, make_log: Callable[[int | None], EventLog]
) -> None:
    from forwarder.app import SystemClock, read_material
    from forwarder.servicemanager import ServiceManager
    from forwarder.supervisor import Service, supervise

    clock = SystemClock()
    material = read_material(settings, clock.now())
    supervise(Service(material, workers, passed, load, clock, make_log, ServiceManager(os.environ)))


async def _serve(app: App, log: EventLog, load: Load) -> int:
    from forwarder.app.running import freeze_what_stays, tell_of_loop, unless
    from forwarder.servicemanager import ServiceManager

    manager = ServiceManager(os.environ)
    loop = asyncio.get_running_loop()
    log.use_loop(loop)
    loop.set_exception_handler(functools.partial(tell_of_loop, log))
    stop, hup = asyncio.Event(), asyncio.Event()
    # Before the start: SIGHUP would end the program, and whoever stops it need not wait until it is up.
    loop.add_signal_handler(signal.SIGHUP, hup.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, number, stop, log)
    log.event("service.starting")
    if not await unless(stop, app.start()):
        return 0
    freeze_what_stays()
    manager.ready()
    watching = asyncio.create_task(manager.watch())
    while await unless(stop, hup.wait()):
        hup.clear()
        manager.reloading()
        await unless(stop, app.reload(load))
        freeze_what_stays()
        manager.ready()
    manager.stopping()
    await app.stop()
    watching.cancel()
    return 0


def _stop(number: int, stop: asyncio.Event, log: EventLog) -> None:
    from forwarder.app.running import cut_short

    if stop.is_set():
        cut_short(number, log, "service")
    stop.set()
