"""How does a process of the service run? Starts, takes up another configuration, drains, stops.

App(settings, journal)     nothing is opened yet
await start()              store, keys, sockets: raises StartError with one sentence for the operator
await reload(load)         whoever connects from then on has the new settings; if they cannot be used, all stays as it was
await prepare(load)        the first half of it: all that can fail
await commit()             the second half; or ``await abandon()``
await stop()               no new sessions, messages on their way finish, then everything is closed

One of several workers (``supervisor``) has from its parent what it serves, the sockets and the store, and reloads by halves, so
that all of them do or none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date

from forwarder import __version__, https
from forwarder.app.activation import Passed
from forwarder.app.clock import SystemClock
from forwarder.app.errors import StartError
from forwarder.app.generation import Generation, Ground
from forwarder.app.measuring import Look, Measuring
from forwarder.app.parts import Material, key_state, read_material
from forwarder.app.reading import Load, digest_of, read_again
from forwarder.app.sockets import Key, Listening, Sockets, Table, name_of, open_here
from forwarder.app.state import Store
from forwarder.config import Settings
from forwarder.dispatch import Marks, UnderWay
from forwarder.edge.server import turn_away
from forwarder.keys.usage import Usage
from forwarder.keys.watch import KeyWatch
from forwarder.mailbox import MailboxFiles
from forwarder.ports import Journal, StoreAway
from forwarder.relay.tls import forget_roots
from forwarder.spans import Exporter, ExportSettings, SpanJournal
from forwarder.store.standings import RedisStandings
from forwarder.tlsrpt import TlsTally
from forwarder.tracing import TRIPS, Tracing

__all__ = ["DRAIN", "App", "Inherited"]

#: Seconds that messages on their way get when the program stops (systemd's default for a stop is 90).
DRAIN = 30.0
#: Earlier configurations that may have sessions left. Of the oldest, sessions are ended between two messages.
MAX_FADING = 16


@dataclass(frozen=True, slots=True)
class Inherited:
    """What one of ``workers`` has from its parent: what it serves first, and where it listens then and later."""

    material: Material
    workers: int
    open_mail: Callable[[Key], Listening]
    open_web: Callable[[Key], Listening]
    open_metrics: Callable[[Key], Listening]
    marks: Marks


@dataclass(frozen=True, slots=True)
class _Prepared:
    """All but accepting is done."""

    generation: Generation
    mail: Table
    web: Table


class App:
    """One process of the service."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        *,
        passed: Passed | None = None,
        inherited: Inherited | None = None,
    ) -> None:
        """``passed``: sockets of the service manager's. ``inherited``: this is one of several workers."""
        self._settings = settings
        self.clock = SystemClock()
        self._passed = passed or Passed()
        self._inherited = inherited
        #: Whose start and stop the journal tells of.
        self._who = "service" if inherited is None else "worker"
        here, alone = open_here(self._passed), inherited is None
        self._measuring: Measuring | None = None
        if settings.metrics.listen:
            open_one = here if inherited is None else inherited.open_metrics
            self._measuring = Measuring(settings, journal, self._look, open_one, alone=alone)
        self._journal: Journal = self._measuring.journal if self._measuring is not None else journal
        self._spans: Exporter | None = None
        if settings.otel.endpoint:
            export = ExportSettings(settings.otel.endpoint, instance=settings.hostname, version=__version__)
            self._spans = Exporter(export, self._journal)
            self._journal = SpanJournal(
                self._journal,
                self._spans.tell,
                time.time_ns,
                share=settings.otel.share,
                full_addresses=settings.log.full_addresses,
            )
        self._store = Store(settings, self._journal, kept=not alone)
        self._mail = Sockets(here if inherited is None else inherited.open_mail)
        self._web = Sockets(here if inherited is None else inherited.open_web)
        self._ground: Ground | None = None
        self._generation: Generation | None = None
        self._prepared: _Prepared | None = None
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
        settings, inherited = self._settings, self._inherited
        material = read_material(settings, self.clock.now()) if inherited is None else inherited.material
        if self._measuring is not None:
            await self._measuring.listen()
        if self._spans is not None:
            try:
                self._spans.start()
            except ImportError as error:
                raise StartError(
                    f'otel.endpoint needs more: pip install "mailkey-forwarder[otel]" ({error})'
                ) from error
            except ValueError as error:
                # The exporter reads OTEL_EXPORTER_OTLP_* of the environment by itself.
                raise StartError(f"otel: {error}") from error
        await self._store.open()
        if self._measuring is not None:
            self._measuring.start(self._store)
        if settings.trace.keep:
            traces = self._store.traces(settings)
            # Where each trip goes to many servers, and takes from each a little, fewer of them cost less.
            trips = 1 if traces.is_spread else TRIPS
            self.tracing = Tracing(self._journal, traces, self.clock, trips)
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
            workers=1 if inherited is None else inherited.workers,
            under_way=UnderWay(inherited.marks if inherited is not None else None),
        )
        await self._switch(await self._prepare(material))
        self._journal.event(
            f"{self._who}.ready", hostname=settings.hostname, listen=list(self.addresses), web=list(self.web_addresses)
        )
        if unused := self._passed.unused((*settings.listen_addresses, *settings.web.listen, *settings.metrics.listen)):
            self._journal.event("socket.unused", addresses=unused)

    async def _prepare(self, material: Material) -> _Prepared:
        """Raises StartError, and then whatever serves goes on."""
        settings = material.settings
        self._unless_stopping()
        assert self._ground is not None
        mail = self._mail.bind(settings.listen_addresses)
        web: Table = {}
        generation: Generation | None = None
        try:
            web = self._web.bind(settings.web.listen)
            names = [name_of(one.sock) for one in mail.values()]
            generation = Generation(material, names, self._ground, self._generation)
            await generation.keys.start()
            self._unless_stopping()
        except BaseException:
            await self._discard(generation, mail, web)
            raise
        return _Prepared(generation, mail, web)

    async def _switch(self, prepared: _Prepared) -> None:
        """From now on this is what serves. Raises StartError, and then whatever served goes on."""
        generation, mail, web, before = prepared.generation, prepared.mail, prepared.web, self._generation
        try:
            await generation.start([one.sock.dup() for one in mail.values()], [one.sock.dup() for one in web.values()])
        except BaseException:
            await self._discard(generation, mail, web)
            raise
        self._generation, self._settings = generation, generation.settings
        forget_roots()
        https.forget_roots()
        if before is not None:
            before.leave(generation)
            self._fading[before] = asyncio.create_task(self._fade(before))
            for one in [one for one in self._fading if one.sessions][:-MAX_FADING]:
                one.hurry()
        self._mail.adopt(mail)
        self._web.adopt(web)
        self.addresses = tuple(name_of(one.sock) for one in self._mail.bound)
        self.web_addresses = tuple(name_of(one.sock) for one in self._web.bound)

    async def _discard(self, generation: Generation | None, mail: Table, web: Table) -> None:
        self._mail.discard(mail)
        self._web.discard(web)
        if generation is not None:
            await generation.drain(0)
            await generation.close()

    def _unless_stopping(self) -> None:
        if self._stopping:
            raise StartError("the service is stopping")

    # --- another configuration

    async def reload(self, load: Load) -> bool:
        """Read all of it anew: settings by ``load``, keys, secrets, credentials, certificates. False: something in it cannot be
        used, nothing has changed, and the journal says what it is."""
        async with self._one_at_a_time:
            try:
                waiting = await self._read(load)
                await self.commit()
            except StartError as error:
                self._journal.event("service.reload_refused", reason=str(error), kept="the configuration from before")
                return False
            self._journal.event(
                "service.reloaded",
                listen=list(self.addresses),
                web=list(self.web_addresses),
                restart_needed=waiting or None,
                sessions_before=len(self._fading),
            )
            return True

    async def prepare(self, load: Load) -> str:
        """The first half of a reload, all that can fail. A digest of what was read: equal where the same was. Raises StartError,
        and then nothing has changed."""
        async with self._one_at_a_time:
            await self.abandon()
            await self._read(load)
            assert self._prepared is not None
            return await asyncio.to_thread(digest_of, self._prepared.generation.material)

    async def _read(self, load: Load) -> list[str]:
        """What waits for a restart."""
        if self._stopping or self._generation is None:
            raise StartError("the service is not running")
        try:
            # Reading the names of many aliases takes seconds: on a thread, mail goes on.
            material, waiting = await asyncio.to_thread(read_again, self._settings, load, self.clock.now())
            self._prepared = await self._prepare(material)
        except StartError:
            raise
        except Exception as fault:
            # Whatever it is, what serves goes on.
            self._journal.event("fault", where="reload", kind=type(fault).__name__, detail=str(fault))
            raise StartError("a fault of ours") from fault
        return waiting

    async def commit(self) -> None:
        """The second half. Raises StartError where nothing is prepared, or it cannot be."""
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            raise StartError("nothing is prepared")
        try:
            self._unless_stopping()
            await self._switch(prepared)
        except StartError:
            raise
        except Exception as fault:
            self._journal.event("fault", where="reload", kind=type(fault).__name__, detail=str(fault))
            raise StartError("a fault of ours") from fault

    async def abandon(self) -> None:
        """What was prepared will not be used. Safe to call at any time."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            await self._discard(prepared.generation, prepared.mail, prepared.web)

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
            self._journal.event(f"{self._who}.stopping", seconds=seconds)
        self._stopping = True
        await self.abandon()
        generations = [*self._fading, *([self._generation] if self._generation is not None else [])]
        for generation in generations:
            generation.leave()
        for one, listening in zip(self._settings.listen, self._mail.bound, strict=False):
            # Whoever waits on a shared one, others take.
            if one.tls != "implicit" and not listening.shared:
                turn_away(listening.sock)
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
        if self._spans is not None:
            await self._spans.stop()
        if self._measuring is not None:
            await self._measuring.stop()
        await self._store.close()
        self._journal.event(f"{self._who}.stopped")
