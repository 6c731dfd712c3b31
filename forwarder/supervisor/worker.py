"""What does a worker do? It serves as one process of the service would, and does what its supervisor tells it.

SIGTERM lets it finish what is under way and end, once more ends it at once; the supervisor starts another in its place. Where the
supervisor is gone it does the same: nobody serves who is not looked after.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import socket
from dataclasses import dataclass

from forwarder.app import App, Inherited, Load, Material, StartError
from forwarder.app.running import cut_short, run_loop, tell_of_loop, unless
from forwarder.app.sockets import Key, Listening
from forwarder.sharedmarks import SharedMarks
from forwarder.supervisor.channel import Channel, Packet
from forwarder.telemetry import EventLog

__all__ = ["Work", "run_worker"]


@dataclass(slots=True)
class Work:
    """What one of ``workers`` begins with."""

    material: Material
    workers: int
    mail: dict[Key, socket.socket]
    web: dict[Key, socket.socket]
    metrics: dict[Key, socket.socket]
    marks: SharedMarks
    load: Load
    channel: Channel
    log: EventLog


def run_worker(work: Work) -> int:
    """Returns the exit code."""
    try:
        return run_loop(_Worker(work).run())
    finally:
        work.log.flush()


class _Worker:
    def __init__(self, work: Work) -> None:
        self._work = work
        self._app = App(
            work.material.settings,
            work.log,
            inherited=Inherited(
                work.material,
                work.workers,
                lambda key: Listening(work.mail.pop(key), shared=True),
                lambda key: Listening(work.web.pop(key), shared=True),
                lambda key: Listening(work.metrics.pop(key), shared=True),
                work.marks,
            ),
        )
        self._stop = asyncio.Event()
        self._inbox: asyncio.Queue[Packet] = asyncio.Queue()
        self._code = 0

    async def run(self) -> int:
        work, loop = self._work, asyncio.get_running_loop()
        work.log.use_loop(loop)
        loop.set_exception_handler(functools.partial(tell_of_loop, work.log))
        loop.add_signal_handler(signal.SIGTERM, self._terminate)
        loop.add_reader(work.channel.fileno(), self._hear)
        try:
            if not await unless(self._stop, self._app.start()):
                return 0
        except StartError as error:
            work.channel.send({"is": "failed", "reason": str(error)})
            return 1
        work.channel.send({"is": "ready"})
        while await unless(self._stop, self._do_next()):
            pass
        await self._app.stop()
        return self._code

    def _terminate(self) -> None:
        if self._stop.is_set():
            cut_short(signal.SIGTERM, self._work.log, "worker")
        self._stop.set()

    def _hear(self) -> None:
        channel = self._work.channel
        while True:
            try:
                packet = channel.receive()
            except BlockingIOError:
                return
            if packet is None:
                asyncio.get_running_loop().remove_reader(channel.fileno())
                if not self._stop.is_set():
                    self._work.log.event("worker.orphaned")
                self._stop.set()
                return
            match packet.words["do"]:
                case "ping":
                    channel.send({"is": "alive"})
                case "stop":
                    self._stop.set()
                case _:
                    self._inbox.put_nowait(packet)

    async def _do_next(self) -> None:
        packet = await self._inbox.get()
        try:
            match packet.words["do"]:
                case "prepare":
                    self._take(packet)
                    digest = await self._app.prepare(self._work.load)
                    answer = {"is": "prepared", "digest": digest}
                case "commit":
                    await self._app.commit()
                    answer = {"is": "committed"}
                case _:
                    await self._app.abandon()
                    return
        except StartError as error:
            answer = {"is": "refused", "reason": str(error)}
            if packet.words["do"] == "commit":
                # The others have it. Whoever is started in our place begins with it.
                self._code = 1
                self._stop.set()
        self._work.channel.send(answer)

    def _take(self, packet: Packet) -> None:
        """The sockets that a reload opened; what an earlier one left is not used any more."""
        keys = [(kind, (address, number)) for kind in ("mail", "web") for address, number in packet.words[kind]]
        for table in (self._work.mail, self._work.web):
            while table:
                table.popitem()[1].close()
        for (kind, key), sock in zip(keys, packet.sockets, strict=True):
            (self._work.mail if kind == "mail" else self._work.web)[key] = sock
