"""How does the service run? Builds every adapter, starts, drains, stops.

App(settings, journal)     nothing is opened yet
await start()              store, keys, sockets: raises StartError with one sentence for the operator
await stop()               no new sessions, messages on their way finish, then everything is closed
"""

from __future__ import annotations

import asyncio
import functools
import random
from contextlib import suppress
from typing import TYPE_CHECKING

from forwarder.app.clock import SystemClock
from forwarder.app.errors import StartError
from forwarder.app.parts import (
    key_state,
    limits_of,
    load_keys,
    load_note,
    make_clients,
    make_key_host,
    make_resolver,
    make_resolvers,
    make_tls,
    make_web_tls,
    pipeline_settings,
    published,
    relay_settings,
    submission_settings,
)
from forwarder.app.sockets import bind_all, name_of
from forwarder.app.state import Store
from forwarder.auth.suffix import is_public_suffix
from forwarder.config import Settings
from forwarder.directory import StaticDirectory
from forwarder.dispatch import Dispatcher, UnderWay
from forwarder.edge.guesses import Guesses
from forwarder.edge.server import EdgeServer
from forwarder.edge.session import EdgeSettings
from forwarder.edge.submission import Clients, SubmissionSession
from forwarder.keyhost import KeyHostClient
from forwarder.keys import KeyFileError, Keys
from forwarder.keys.watch import KeyWatch
from forwarder.mailbox import MailboxFiles
from forwarder.pipeline import Doors, Pipeline
from forwarder.pipeline.aftermath import Aftermath
from forwarder.pipeline.submission import Submission
from forwarder.ports import Journal
from forwarder.relay import SmtpRelay
from forwarder.retry import Schedule
from forwarder.worker import Worker, WorkerSettings

if TYPE_CHECKING:
    from forwarder.web.server import WebServer

__all__ = ["App"]

#: Seconds that messages on their way get when the program stops (systemd's default for a stop is 90).
DRAIN = 30.0
#: Seconds that the listener waits for the first look at the records of our keys.
KEY_LOOK = 3.0


class App:
    """One process of the service."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal
        self.clock = SystemClock()
        self._store = Store(settings, journal)
        self._relay: SmtpRelay | None = None
        self._worker: Worker | None = None
        self._work: asyncio.Task[None] | None = None
        self._renewals: asyncio.Task[None] | None = None
        self._dispatcher: Dispatcher | None = None
        self._edges: list[EdgeServer] = []
        self._clients: Clients | None = None
        self._key_host: KeyHostClient | None = None
        self._web: WebServer | None = None
        self._key_task: asyncio.Task[None] | None = None
        #: Once started; ``None`` with keys.require_record = false.
        self.key_watch: KeyWatch | None = None
        #: Where we listen, once started: "ip:port".
        self.addresses: tuple[str, ...] = ()
        self.web_addresses: tuple[str, ...] = ()

    @property
    def store_pid(self) -> int | None:
        """The process of the embedded store, once started; ``None`` where there is none."""
        return self._store.pid

    def wake_queue(self) -> None:
        """Look at the queue now: another process made something due."""
        if self._worker is not None:
            self._worker.wake()

    async def start(self) -> None:
        """Open everything and begin to listen. Raises StartError; what was opened by then is closed again."""
        try:
            await self._start()
        except BaseException:
            await self.stop(0)
            raise

    async def _start(self) -> None:
        settings = self._settings
        try:
            keys = load_keys(settings)
            self._clients = clients = make_clients(settings)
        except KeyFileError as error:
            raise StartError(str(error)) from error
        note = load_note(settings)
        # The suffix list takes a tenth of a second to read: not while the first sender waits.
        is_public_suffix("example")
        await self._store.open()
        ledger = self._store.ledger(settings)
        resolver = make_resolver(settings)
        await self._watch_keys(keys)
        await self._serve_web(keys)
        sockets = bind_all(settings.listen_addresses)
        self.addresses = tuple(name_of(one) for one in sockets)
        self._relay = SmtpRelay(resolver, relay_settings(settings, self.addresses), self._journal, random.Random())
        directory = StaticDirectory.from_settings(settings)
        self._key_host = make_key_host(settings, resolver, self._journal)
        doors = Doors(
            directory=directory,
            resolver=resolver,
            ledger=ledger,
            mailboxes=MailboxFiles(settings.state_dir / "mail", self.clock),
            keys=keys,
            clock=self.clock,
            journal=self._journal,
            key_host=self._key_host,
        )
        queue = self._store.queue(settings, ledger)
        told = pipeline_settings(settings, note)
        aftermath = Aftermath(
            told,
            doors,
            queue,
            Schedule(settings.queue.first_retry, settings.queue.max_retry),
            random.random,
        )
        under_way = UnderWay()
        self._worker = Worker(
            queue,
            self._relay,
            aftermath,
            self._journal,
            WorkerSettings(settings.queue.deliveries, settings.queue.per_destination, settings.queue.lease),
            under_way,
        )
        self._dispatcher = Dispatcher(
            self._relay,
            ledger,
            self._journal,
            in_session=settings.relay.in_session,
            lease=settings.queue.lease,
            queue=queue,
            settler=aftermath,
            wake=self._worker.wake,
            under_way=under_way,
        )
        pipeline = Pipeline(told, doors, self._dispatcher)
        context = make_tls(settings, self.clock.now())
        edge = EdgeSettings(
            hostname=settings.hostname,
            limits=limits_of(settings),
            tls=lambda: context,
            default_domain=settings.srs.domain,
            guesses=Guesses(settings.limits.forged_reversible),
        )
        submission = Submission(told, submission_settings(settings, self.addresses), doors, self._dispatcher, pipeline)
        user_session = functools.partial(SubmissionSession, clients=clients)
        # A count of sessions each, so that strangers on port 25 never keep users out.
        inbound = EdgeServer(edge, pipeline, self.clock, self._journal)
        users = EdgeServer(edge, submission, self.clock, self._journal, session=user_session)
        self._edges = [inbound, users]
        for one, sock in zip(settings.listen, sockets, strict=True):
            server = users if one.submission else inbound
            await server.start([sock], tls=context if one.tls == "implicit" else None)
        self._work = asyncio.create_task(self._worker.run())
        self._renewals = asyncio.create_task(self._dispatcher.renew())
        self._journal.event(
            "service.ready", hostname=settings.hostname, listen=list(self.addresses), web=list(self.web_addresses)
        )

    async def _watch_keys(self, keys: Keys) -> None:
        """Sign only with what the DNS shows; the listener waits a moment for the first look."""
        settings = self._settings
        if not settings.keys.require_record:
            return
        self.key_watch = KeyWatch(
            keys,
            list(make_resolvers(settings).values()),
            self._journal,
            self.clock,
            state=key_state(settings),
            every=settings.keys.check_every,
        )
        self._key_task = asyncio.create_task(self.key_watch.run())
        await asyncio.wait({asyncio.create_task(self.key_watch.looked.wait())}, timeout=KEY_LOOK)

    async def _serve_web(self, keys: Keys) -> None:
        web = self._settings.web
        if not web.listen:
            return
        # aiohttp takes long to import.
        from forwarder.web.server import WebServer  # noqa: PLC0415
        from forwarder.web.wellknown import mailkey_routes  # noqa: PLC0415

        tls = make_web_tls(self._settings)
        sockets = bind_all(web.listen)
        self.web_addresses = tuple(name_of(one) for one in sockets)
        self._web = WebServer(mailkey_routes(lambda: published(keys)), tls, self._journal)
        await self._web.start(sockets)

    async def stop(self, seconds: float = DRAIN) -> None:
        """Take nothing new, finish what is under way within ``seconds``, close everything. Safe to call at any time."""
        await asyncio.gather(*(one.drain(seconds) for one in self._edges))
        if self._clients is not None and self._clients.authenticator is not None:
            self._clients.authenticator.close()
        if self._worker is not None:
            left = await self._worker.stop(seconds)
            if left:
                self._journal.event("drain.timeout", queued=left)
        if self._work is not None:
            await self._work
        if self._dispatcher is not None:
            left = await self._dispatcher.finish(seconds)
            if left:
                self._journal.event("drain.timeout", deliveries=left)
        if self._renewals is not None:
            self._renewals.cancel()
        if self._relay is not None:
            await self._relay.close()
        if self._web is not None:
            await self._web.stop()
        if self._key_host is not None:
            await self._key_host.aclose()
        if self._key_task is not None:
            self._key_task.cancel()
            with suppress(asyncio.CancelledError):
                await self._key_task
        await self._store.close()
        self._journal.event("service.stopped")
