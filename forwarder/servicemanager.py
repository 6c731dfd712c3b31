"""What does systemd want to hear from us? That we are ready, reload, stop, and that the event loop turns (sd_notify(3)).

It listens on the datagram socket that NOTIFY_SOCKET names. Nothing is said where there is none, and nothing waits for it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

__all__ = ["ServiceManager"]


class ServiceManager:
    """``environ`` is taken as it was at the start."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # Linux's namespace of names that are no files
            self._address = "\0" + self._address[1:]
        meant = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        told = environ.get("WATCHDOG_USEC", "") if meant else ""
        #: Seconds between two signs of life; half of what systemd grants (sd_watchdog_enabled(3)). ``None``: it wants none.
        self.every = int(told) / 2e6 if told.isdecimal() and int(told) > 0 else None

    def ready(self) -> None:
        """Mail is taken: after a start, and after a reload whatever came of it."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """Another configuration is read."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """What is under way ends."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """A sign of life. One that is owed and not given, and the service is started anew."""
        if self.every is not None:
            self._tell("WATCHDOG=1")

    async def watch(self) -> None:
        """Signs of life from within the event loop: one that is stuck gives none."""
        while self.every is not None:
            self.alive()
            await asyncio.sleep(self.every)

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
            told.setblocking(False)
            told.sendto(state.encode(), self._address)
