"""What does the supervisor do? Starts the store and the workers, starts them again, reloads all or none, stops all.

It waits in one place (``_turn``) and does one thing after another, so a child may be forked at any time. It reads the
configuration before its workers do, and keeps what serves: a worker that is started again begins with that, whatever the files
on the disk say by then.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from forwarder.app import DRAIN, Load, Material, Passed, StartError, SystemClock, clear_numbers, digest_of, read_again
from forwarder.edge.server import hang_up, turn_away
from forwarder.servicemanager import ServiceManager
from forwarder.sharedmarks import SharedMarks, marks_for
from forwarder.supervisor.channel import Channel, Packet
from forwarder.supervisor.children import fork, how_it_ended
from forwarder.supervisor.listeners import Listeners, Rows
from forwarder.supervisor.restarts import Restarts
from forwarder.supervisor.storekeeper import run_storekeeper
from forwarder.supervisor.worker import Work, run_worker
from forwarder.telemetry import EventLog

__all__ = ["Service", "supervise"]

#: Seconds between two questions whether a worker's event loop turns, and without an answer until it is killed.
TICK = 5.0
STUCK = 30.0
#: Questions that may be unanswered while systemd still hears that all is well.
LATE = 2
#: Seconds that all workers have to prepare a reload, and to take it up.
RELOAD = 120.0
#: Seconds after DRAIN in which a worker must have ended, and then the store (its own limit is 10).
MARGIN = 4.0
STORE_MARGIN = 15.0
#: Seconds of a pause before a restart from which on those who connect to the absent worker hear 421.
ABSENT = 1.0


@dataclass(frozen=True, slots=True)
class Service:
    """What is to be served, and how."""

    material: Material
    workers: int
    passed: Passed
    load: Load
    clock: SystemClock
    make_log: Callable[[int | None], EventLog]
    manager: ServiceManager


def supervise(service: Service) -> None:
    """Until it is told to stop. Raises StartError."""
    _Supervisor(service).run()


@dataclass(slots=True, eq=False)
class _Child:
    """A place that a process fills: a worker's (from 1), or the storekeeper's (0)."""

    number: int
    restarts: Restarts = field(default_factory=Restarts)
    pid: int = 0
    channel: Channel | None = None
    #: It serves.
    ready: bool = False
    #: Questions without an answer.
    unanswered: int = 0

    @property
    def name(self) -> str:
        """In events."""
        return "worker" if self.number else "storekeeper"


@dataclass(slots=True)
class _Reload:
    """One that is under way: whose answer is awaited, and what was said against it."""

    material: Material
    restart_needed: list[str]
    mail: Rows
    web: Rows
    digest: str
    waiting: set[int] = field(default_factory=set)
    against: list[str] = field(default_factory=list)
    committing: bool = False


class _Supervisor:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._material = service.material
        self._log = service.make_log(None)
        self._mail = Listeners(service.passed, service.workers, turn_away)
        self._web = Listeners(service.passed, service.workers, hang_up)
        #: They stay as they are until the end.
        self._metrics = Listeners(service.passed, service.workers, hang_up)
        self._listeners = (self._mail, self._web, self._metrics)
        self._workers = [_Child(number) for number in range(1, service.workers + 1)]
        embedded = self._material.settings.store == "embedded"
        self._keeper = _Child(0) if embedded else None
        self._children = [*self._workers, *([self._keeper] if self._keeper is not None else [])]
        self._marks = marks_for(service.workers)
        self._selector = selectors.DefaultSelector()
        #: What happens when: by name, so that it can be put off.
        self._due: dict[str, tuple[float, Callable[[], None]]] = {}
        self._reload: _Reload | None = None
        self._hup = False
        self._serving = False
        self._stopping = False
        self._over = False
        #: Why it could not start.
        self._failure: StartError | None = None
        #: The storekeeper reads its end until nobody holds the other.
        self._needed, self._need = os.pipe()
        self._signals, self._signalled = socket.socketpair()
        manager = service.manager
        self._tick_every = min(TICK, manager.every) if manager.every is not None else TICK

    # --- from start to end

    def run(self) -> None:
        _import_all()
        self._listen_to_signals()
        settings = self._material.settings
        self._mail.adopt(self._mail.open(settings.listen_addresses))
        self._web.adopt(self._web.open(settings.web.listen))
        self._metrics.adopt(self._metrics.open(settings.metrics.listen))
        if settings.metrics.listen:
            clear_numbers(settings)
        _share_memory()
        if self._keeper is not None:
            self._start(self._keeper)
        else:
            self._start_workers()
        while not self._over:
            self._turn()
        if self._failure is not None:
            raise self._failure

    def _listen_to_signals(self) -> None:
        for end in (self._signals, self._signalled):
            end.setblocking(False)
        signal.set_wakeup_fd(self._signalled.fileno())
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._selector.register(self._signals, selectors.EVENT_READ, self._take_signals)

    def _turn(self) -> None:
        until = min((at for at, _ in self._due.values()), default=None)
        wait = None if until is None else max(0.0, until - time.monotonic())
        for key, _ in self._selector.select(wait):
            key.data()
        now = time.monotonic()
        for name in [name for name, (at, _) in self._due.items() if at <= now]:
            if name in self._due:
                self._due.pop(name)[1]()
        if self._hup and self._serving and self._reload is None and not self._beginning():
            self._hup = False
            self._begin_reload()

    def _beginning(self) -> bool:
        """Some worker is about to serve: it would miss a reload."""
        return any(one.pid and not one.ready for one in self._workers)

    def _after(self, seconds: float, name: str, do: Callable[[], None]) -> None:
        self._due[name] = (time.monotonic() + seconds, do)

    def _take_signals(self) -> None:
        with suppress(BlockingIOError):
            for number in self._signals.recv(4096):
                match number:
                    case signal.SIGHUP:
                        self._hup = True
                    case signal.SIGTERM | signal.SIGINT if self._stopping:
                        self._cut_short(number)
                    case signal.SIGTERM | signal.SIGINT:
                        self._stop()
        self._look_after_children()

    # --- children

    def _start_workers(self) -> None:
        for one in self._workers:
            self._start(one)
        self._after(self._tick_every, "tick", self._tick)

    def _start(self, child: _Child) -> None:
        if self._stopping or child.pid:
            return
        if self._reload is not None:
            # It would begin with what is about to be replaced.
            self._after(0.1, f"start {child.number}", lambda: self._start(child))
            return
        self._send_nobody_away(child)
        ours, theirs = Channel.pair()
        child.restarts.born(time.monotonic())
        try:
            child.pid = fork(
                lambda: self._run(child, theirs),
                lambda: self._leave(child, ours),
                # A keeper ends when it is not needed any more, whoever says what.
                (signal.SIGHUP, signal.SIGINT) if child.number else (signal.SIGHUP, signal.SIGINT, signal.SIGTERM),
            )
        except OSError as error:
            ours.close()
            self._log.event(f"{child.name}.not_started", number=child.number or None, reason=str(error))
            self._again(child)
            return
        finally:
            theirs.close()
        child.channel, child.ready, child.unanswered = ours, False, 0
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._hear(child))

    def _run(self, child: _Child, channel: Channel) -> int:
        """In the child."""
        service, log = self._service, self._service.make_log(child.number or None)
        if not child.number:
            return run_storekeeper(self._material, channel, self._needed, log)
        index = child.number - 1
        return run_worker(
            Work(
                self._material,
                service.workers,
                self._mail.row_of(index),
                self._web.row_of(index),
                self._metrics.row_of(index),
                SharedMarks(self._marks, index),
                service.load,
                channel,
                log,
            )
        )

    def _leave(self, child: _Child, ours: Channel) -> None:
        """In the child: close what is its parent's, and others'."""
        self._selector.close()
        self._signals.close()
        self._signalled.close()
        for one in self._children:
            if one.channel is not None:
                one.channel.close()
        ours.close()
        index = child.number - 1
        for listeners in self._listeners:
            listeners.leave_all_but(index if child.number else None)
        os.close(self._need if not child.number else self._needed)

    def _look_after_children(self) -> None:
        for one in self._children:
            if not one.pid:
                continue
            pid, status = os.waitpid(one.pid, os.WNOHANG)
            if pid:
                # What it said last has come before.
                self._hear(one)
                self._ended(one, pid, how_it_ended(status))

    def _ended(self, child: _Child, pid: int, code: int) -> None:
        if child.channel is not None:
            self._unhear(child)
        was_ready, child.pid, child.ready = child.ready, 0, False
        if self._stopping:
            self._stop_further()
            return
        if not self._serving and not was_ready:
            who = f"worker {child.number}" if child.number else "the process that keeps the store"
            self._fail(f"{who} ended while it started (exit code {code})")
            return
        self._log.event(f"{child.name}.died", number=child.number or None, pid=pid, code=code)
        if self._reload is not None and child.number in self._reload.waiting:
            self._answered(child.number)
        self._again(child)

    def _again(self, child: _Child) -> None:
        pause = child.restarts.pause(time.monotonic())
        if pause >= ABSENT:
            self._log.event(
                f"{child.name}.keeps_dying", number=child.number or None, deaths=child.restarts.deaths, again_in=pause
            )
            for listeners in self._listeners if child.number else ():
                for sock, send_away in listeners.send_away(child.number - 1):
                    self._selector.register(sock, selectors.EVENT_READ, send_away)
        self._after(pause, f"start {child.number}", lambda: self._start(child))

    def _send_nobody_away(self, child: _Child) -> None:
        for listeners in self._listeners if child.number else ():
            for sock, _ in listeners.send_away(child.number - 1):
                with suppress(KeyError):
                    self._selector.unregister(sock)

    # --- what they say

    def _hear(self, child: _Child) -> None:
        while child.channel is not None:
            try:
                packet = child.channel.receive()
            except BlockingIOError:
                return
            if packet is None:
                # Its end comes with SIGCHLD.
                self._unhear(child)
                return
            child.unanswered = 0
            self._heed(child, packet)

    def _unhear(self, child: _Child) -> None:
        if child.channel is not None:
            self._selector.unregister(child.channel)
            child.channel.close()
            child.channel = None

    def _heed(self, child: _Child, packet: Packet) -> None:
        words = packet.words
        match words["is"]:
            case "ready":
                child.ready = True
                self._log.event(f"{child.name}.started", number=child.number or None, pid=child.pid)
                self._got_ready(child)
            case "failed" if self._serving:
                self._log.event(f"{child.name}.failed", number=child.number or None, reason=words["reason"])
            case "failed":
                self._fail(words["reason"])
            case "prepared" if words["digest"] == (self._reload.digest if self._reload is not None else ""):
                self._answered(child.number)
            case "prepared":
                self._answered(child.number, "the files have changed while they were read")
            case "committed":
                self._answered(child.number)
            case "refused":
                self._answered(child.number, words["reason"])
            case _:
                return  # alive

    def _got_ready(self, child: _Child) -> None:
        if self._serving or self._stopping:
            return
        if not child.number:
            self._start_workers()
        elif all(one.ready for one in self._workers):
            self._serving = True
            settings = self._material.settings
            self._log.event(
                "service.ready",
                hostname=settings.hostname,
                listen=list(self._mail.addresses),
                web=list(self._web.addresses),
                workers=len(self._workers),
            )
            if unused := self._service.passed.unused(
                (*settings.listen_addresses, *settings.web.listen, *settings.metrics.listen)
            ):
                self._log.event("socket.unused", addresses=unused)
            self._service.manager.ready()

    def _tick(self) -> None:
        """Does each event loop turn? systemd hears that all is well from nobody else."""
        up = [one for one in self._workers if one.pid]
        for one in up:
            if one.unanswered * self._tick_every >= STUCK:
                self._log.event("worker.stuck", number=one.number, pid=one.pid, seconds=STUCK)
                os.kill(one.pid, signal.SIGKILL)
            elif one.channel is not None:
                one.unanswered += 1
                one.channel.send({"do": "ping"})
        if self._serving and any(one.ready for one in up) and all(one.unanswered <= LATE for one in up):
            self._service.manager.alive()
        self._after(self._tick_every, "tick", self._tick)

    # --- another configuration

    def _begin_reload(self) -> None:
        service = self._service
        service.manager.reloading()
        try:
            material, waiting = read_again(self._material.settings, service.load, service.clock.now())
            mail = self._mail.open(material.settings.listen_addresses)
            try:
                web = self._web.open(material.settings.web.listen)
            except StartError:
                self._mail.discard(mail)
                raise
        except StartError as error:
            self._refuse(str(error))
            return
        except Exception as fault:  # noqa: BLE001 - whatever it is, what serves goes on
            self._log.event("fault", where="reload", kind=type(fault).__name__, detail=str(fault))
            self._refuse("a fault of ours")
            return
        self._reload = reload = _Reload(material, waiting, mail, web, digest_of(material))
        new = {"mail": self._mail.new(mail), "web": self._web.new(web)}
        for one in self._workers:
            if one.ready and one.channel is not None:
                rows = {"mail": mail, "web": web}
                sockets = [rows[kind][key][one.number - 1] for kind, keys in new.items() for key in keys]
                if one.channel.send({"do": "prepare", **new}, sockets):
                    reload.waiting.add(one.number)
        self._after(RELOAD, "reload", self._reload_takes_too_long)
        self._go_on()

    def _answered(self, number: int, against: str | None = None) -> None:
        reload = self._reload
        if reload is None or number not in reload.waiting:
            return
        reload.waiting.discard(number)
        if against is not None and not reload.committing:
            reload.against.append(f"worker {number}: {against}")
        self._go_on()

    def _go_on(self) -> None:
        """All prepare, then all take it up; or all give it up."""
        reload = self._reload
        if reload is None or reload.waiting:
            return
        if reload.against:
            self._give_up_reload(reload)
        elif reload.committing:
            self._end_reload(reload)
        else:
            reload.committing = True
            # Whoever dies from here on is started again with the new one.
            self._material = reload.material
            for one in self._workers:
                if one.ready and one.channel is not None and one.channel.send({"do": "commit"}):
                    reload.waiting.add(one.number)
            self._go_on()

    def _reload_takes_too_long(self) -> None:
        if self._reload is not None:
            late = sorted(self._reload.waiting)
            self._reload.against += [] if self._reload.committing else [f"worker {one} did not answer" for one in late]
            self._reload.waiting.clear()
            self._go_on()

    def _give_up_reload(self, reload: _Reload) -> None:
        self._mail.discard(reload.mail)
        self._web.discard(reload.web)
        for one in self._workers:
            if one.channel is not None:
                one.channel.send({"do": "abandon"})
        self._leave_reload()
        self._refuse("; ".join(reload.against))

    def _refuse(self, reason: str) -> None:
        self._log.event("service.reload_refused", reason=reason, kept="the configuration from before")
        self._service.manager.ready()

    def _end_reload(self, reload: _Reload) -> None:
        for one in self._workers:
            self._send_nobody_away(one)
        self._mail.adopt(reload.mail)
        self._web.adopt(reload.web)
        _share_memory()
        self._leave_reload()
        self._log.event(
            "service.reloaded",
            listen=list(self._mail.addresses),
            web=list(self._web.addresses),
            restart_needed=reload.restart_needed or None,
        )
        self._service.manager.ready()

    def _leave_reload(self) -> None:
        self._reload = None
        self._due.pop("reload", None)

    # --- stop

    def _fail(self, reason: str) -> None:
        """It cannot start."""
        if not self._stopping:
            self._failure = StartError(reason)
            self._stop()

    def _stop(self) -> None:
        if self._serving:
            self._log.event("service.stopping", seconds=DRAIN)
            self._service.manager.stopping()
        self._stopping, self._reload = True, None
        self._due.clear()
        for one in self._workers:
            self._send_nobody_away(one)
            if one.channel is not None:
                one.channel.send({"do": "stop"})
        # Whoever asks for numbers is answered to the end.
        for listeners in (self._mail, self._web):
            listeners.close()
        self._after(DRAIN + MARGIN, "kill", self._kill_workers)
        self._stop_further()

    def _stop_further(self) -> None:
        """The store, when the last worker is gone; then ourselves."""
        if any(one.pid for one in self._workers):
            return
        if self._need >= 0:
            os.close(self._need)
            self._need = -1
        if self._keeper is not None and self._keeper.pid:
            keeper = self._keeper.pid
            self._after(STORE_MARGIN, "kill", lambda: os.kill(keeper, signal.SIGKILL))
            return
        self._over = True
        if self._serving:
            self._log.event("service.stopped")

    def _kill_workers(self) -> None:
        left = [one for one in self._workers if one.pid]
        self._log.event("drain.timeout", workers=[one.number for one in left])
        for one in left:
            os.kill(one.pid, signal.SIGKILL)

    def _cut_short(self, number: int) -> None:
        """Told twice. What is under way is as after a crash: nothing is lost. The store ends in its own time."""
        self._log.event("service.cut_short")
        for one in self._workers:
            if one.pid:
                os.kill(one.pid, signal.SIGKILL)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _share_memory() -> None:
    """What is there now is looked through no more, and so stays shared with the children that are made from now on."""
    gc.collect()
    gc.freeze()


def _import_all() -> None:
    """What a worker would import later, each for itself and while mail waits."""
    import forwarder.https.client  # noqa: PLC0415
    import forwarder.web.server  # noqa: F401, PLC0415

    with suppress(ImportError):
        import uvloop  # noqa: F401, PLC0415
