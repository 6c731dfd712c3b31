"""How does the service run? Starts, takes up another configuration, drains, stops.

App(settings, journal)     nothing is opened yet
await start()              store, keys, sockets: raises StartError with one sentence for the operator
await reload(load)         whoever connects from then on has the new settings; if they cannot be used, all stays as it was
await stop()               no new sessions, messages on their way finish, then everything is closed
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import date

from forwarder import https
from forwarder.app.clock import SystemClock
from forwarder.app.errors import StartError
from forwarder.app.generation import Generation, Ground
from forwarder.app.measuring import Look, Measuring
from forwarder.app.parts import Material, key_state, read_material
from forwarder.app.sockets import Sockets, Table, name_of
from forwarder.app.state import Store
from forwarder.config import ConfigError, Settings
from forwarder.edge.server import turn_away
from forwarder.keys.usage import Usage
from forwarder.keys.watch import KeyWatch
from forwarder.mailbox import MailboxFiles
from forwarder.ports import Journal, StoreAway
from forwarder.relay.tls import forget_roots
from forwarder.store.standings import RedisStandings
from forwarder.tlsrpt import TlsTally
from forwarder.tracing import Tracing

__all__ = ["App"]

#: Seconds that messages on their way get when the program stops (systemd's default for a stop is 90).
DRAIN = 30.0
#: What is opened or begun once and for all: a change of it counts at the next start.
_AT_START = ("state_dir", "store", "store_password_file", "store_insecure", "workers", "log", "trace", "metrics")
#: Earlier configurations that may have sessions left. Of the oldest, sessions are ended between two messages.
MAX_FADING = 16


class App:
    """One process of the service."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        self._settings = settings
        self._measuring = Measuring(settings, journal, self._look) if settings.metrics.listen else None
        self._journal = self._measuring.journal if self._measuring is not None else journal
        self.clock = SystemClock()
        self._store = Store(settings, self._journal)
        self._mail = Sockets()
        self._web = Sockets()
        self._ground: Ground | None = None
        self._generation: Generation | None = None
        self._fading: dict[Generation, asyncio.Task[None]] = {}
        #: Once started; ``None`` with trace.keep = 0.
        self.tracing: Tracing | None = None
        self._one_at_a_time = asyncio.Lock()
        self._stopping = False
        #: Where we listen, once started: "ip:port".
        self.addresses: tuple[str, ...] = ()
        self.web_addresses: tuple[str, ...] = ()

    @property
    def metrics_addresses(self) -> tuple[str, ...]:
        """Where numbers are served, once started."""
        return self._measuring.addresses if self._measuring is not None else ()

    @property
    def store_pid(self) -> int | None:
        """The process of the embedded store, once started; ``None`` where there is none."""
        return self._store.pid

    @property
    def key_watch(self) -> KeyWatch | None:
        """Once started; ``None`` with keys.require_record = false."""
        return self._generation.keys.watch if self._generation is not None else None

    @property
    def standings(self) -> RedisStandings | None:
        """What is held against whom, once started."""
        return self._ground.standings if self._ground is not None else None

    def wake_queue(self) -> None:
        """Look at the queue now: another process made something due."""
        if self._generation is not None:
            self._generation.worker.wake()

    async def report_tls(self, day: date) -> bool:
        """Send the TLS reports of this day now, to those that ask for them and have not had theirs. Raises StoreAway."""
        reports = self._generation.reports if self._generation is not None else None
        return reports is not None and await reports.report(day)

    async def send_digests(self, day: date) -> None:
        """To owners of aliases who have not had theirs of this day, now. Raises StoreAway."""
        if self._generation is not None:
            await self._generation.digests.send(day)

    def _look(self) -> Look:
        """What there is to measure just now."""
        generations = [*self._fading, *([self._generation] if self._generation is not None else [])]
        return Look(self._ground, generations, is_stopping=self._stopping, is_listening=bool(self.addresses))

    # --- start

    async def start(self) -> None:
        """Open everything and begin to listen. Raises StartError; what was opened by then is closed again."""
        try:
            await self._start()
        except BaseException:
            await self.stop(0)
            raise

    async def _start(self) -> None:
        settings = self._settings
        material = read_material(settings, self.clock.now())
        if self._measuring is not None:
            await self._measuring.listen()
        await self._store.open()
        if self._measuring is not None:
            self._measuring.start(self._store)
        if settings.trace.keep:
            self.tracing = Tracing(self._journal, self._store.traces(settings), self.clock)
            self._journal = self.tracing
        self._ground = Ground(
            store=self._store,
            mailboxes=MailboxFiles(settings.state_dir / "mail", self.clock),
            usage=Usage(key_state(settings)),
            clock=self.clock,
            journal=self._journal,
            standings=self._store.standings(self._store.ledger(settings), self.clock),
            tally=TlsTally(self._store.tls_counts(self._store.ledger(settings)), self.clock, self._journal),
            counted=self._measuring.counted if self._measuring is not None else None,
        )
        await self._take_over(material)
        self._journal.event(
            "service.ready", hostname=settings.hostname, listen=list(self.addresses), web=list(self.web_addresses)
        )

    async def _take_over(self, material: Material) -> None:
        """From now on this is what serves. Raises StartError, and then whatever served goes on."""
        settings, before = material.settings, self._generation
        self._unless_stopping()
        assert self._ground is not None
        mail = self._mail.bind(settings.listen_addresses)
        web: Table = {}
        generation: Generation | None = None
        try:
            web = self._web.bind(settings.web.listen)
            generation = Generation(material, [name_of(one) for one in mail.values()], self._ground, before)
            await generation.keys.start()
            self._unless_stopping()
            await generation.start([one.dup() for one in mail.values()], [one.dup() for one in web.values()])
        except BaseException:
            self._mail.discard(mail)
            self._web.discard(web)
            if generation is not None:
                await generation.drain(0)
                await generation.close()
            raise
        self._generation, self._settings = generation, settings
        forget_roots()
        https.forget_roots()
        if before is not None:
            before.leave(generation)
            self._fading[before] = asyncio.create_task(self._fade(before))
            for one in [one for one in self._fading if one.sessions][:-MAX_FADING]:
                one.hurry()
        self._mail.adopt(mail)
        self._web.adopt(web)
        self.addresses = tuple(name_of(one) for one in self._mail.bound)
        self.web_addresses = tuple(name_of(one) for one in self._web.bound)

    def _unless_stopping(self) -> None:
        if self._stopping:
            raise StartError("the service is stopping")

    # --- another configuration

    async def reload(self, load: Callable[[], Settings]) -> bool:
        """Read all of it anew: settings by ``load``, keys, secrets, credentials, certificates. False: something in it cannot be
        used, nothing has changed, and the journal says what it is."""
        async with self._one_at_a_time:
            if self._stopping or self._generation is None:
                return False
            try:
                wanted = await asyncio.to_thread(load)
                # Reading the names of many aliases takes seconds: on a thread, mail goes on.
                settings, waiting = self._keep_what_stays(wanted)
                await self._take_over(await asyncio.to_thread(read_material, settings, self.clock.now()))
            except ConfigError as error:
                self._refuse("; ".join(str(error).splitlines()))
            except StartError as error:
                self._refuse(str(error))
            except Exception as fault:  # noqa: BLE001 - whatever it is, what serves goes on
                self._journal.event("fault", where="reload", kind=type(fault).__name__, detail=str(fault))
                self._refuse("a fault of ours")
            else:
                self._journal.event(
                    "service.reloaded",
                    listen=list(self.addresses),
                    web=list(self.web_addresses),
                    restart_needed=waiting or None,
                    sessions_before=len(self._fading),
                )
                return True
            return False

    def _keep_what_stays(self, wanted: Settings) -> tuple[Settings, list[str]]:
        """The settings that can count now, and the names of those that wait for a restart."""
        now = self._settings
        waiting = [name for name in _AT_START if getattr(wanted, name) != getattr(now, name)]
        return wanted.model_copy(update={name: getattr(now, name) for name in waiting}), waiting

    def _refuse(self, reason: str) -> None:
        self._journal.event("service.reload_refused", reason=reason, kept="the configuration from before")

    async def _fade(self, generation: Generation) -> None:
        try:
            await generation.fade()
            await generation.close()
        finally:
            self._fading.pop(generation, None)

    # --- stop

    async def stop(self, seconds: float = DRAIN) -> None:
        """Take nothing new, finish what is under way within ``seconds``, close everything. Safe to call at any time."""
        if not self._stopping and self._generation is not None:
            self._journal.event("service.stopping", seconds=seconds)
        self._stopping = True
        generations = [*self._fading, *([self._generation] if self._generation is not None else [])]
        for generation in generations:
            generation.leave()
        for one, sock in zip(self._settings.listen, self._mail.bound, strict=False):
            if one.tls != "implicit":
                turn_away(sock)
        self._mail.close()
        self._web.close()
        await asyncio.gather(*(one.drain(seconds) for one in generations))
        for task in list(self._fading.values()):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for generation in generations:
            await generation.close()
        if self._ground is not None:
            await self._ground.tally.flush()
            with suppress(StoreAway):
                await self._ground.standings.flush()
        if self.tracing is not None:
            await self.tracing.close()
        if self._measuring is not None:
            await self._measuring.stop()
        await self._store.close()
        self._journal.event("service.stopped")
