"""What serves one configuration? A generation: from start or a reload, until its last session and attempt are over.

Whoever connects gets the newest. A session, and so every message in it, stays with the generation that it began with; what
the queue holds goes to the newest. Parts that a reload does not change are shared (``shared``).
"""

from __future__ import annotations

import asyncio
import functools
import random
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from forwarder.app.content import make_filters
from forwarder.app.parts import (
    Material,
    door_of,
    lenient_of,
    limits_of,
    listening_at,
    make_callers,
    make_key_host,
    make_resolver,
    make_sts,
    network_limits_of,
    policy_hosts,
    published,
    submission_settings,
)
from forwarder.app.shared import Shared, share
from forwarder.app.shares import part_of
from forwarder.app.state import Store
from forwarder.app.watchedkeys import WatchedKeys
from forwarder.callers import DnsCallers
from forwarder.digests import START, DailyDigests
from forwarder.dispatch import ATTEMPT, Dispatcher, UnderWay
from forwarder.edge.budget import Budget
from forwarder.edge.conversation import EdgeSettings
from forwarder.edge.guesses import SITE, Guesses
from forwarder.edge.seats import Seats
from forwarder.edge.server import EdgeServer
from forwarder.edge.shaking import Shaking
from forwarder.edge.submission import SubmissionSession
from forwarder.edge.trust import Trust
from forwarder.edge.turns import Turns
from forwarder.filters import Filters
from forwarder.keyhost import KeyHostClient
from forwarder.keys.multibuffer import Lanes, LanesUnfit, MultibufferKeys
from forwarder.keys.usage import Usage
from forwarder.mail.tlsreport import Reporter
from forwarder.mtasts import StsClient
from forwarder.pipeline import Doors, Pipeline
from forwarder.pipeline import Settings as PipelineSettings
from forwarder.pipeline.aftermath import Aftermath
from forwarder.pipeline.digesting import Digesting
from forwarder.pipeline.ladder import Ladder
from forwarder.pipeline.submission import Allowance, Submission
from forwarder.pipeline.tlsreporting import TlsReporting
from forwarder.ports import Clock, Journal, KeyRing, Mailboxes, Queue, TlsLog
from forwarder.rates import RateMemory
from forwarder.relay import SmtpRelay
from forwarder.resolver import DnsResolver, ZoneResolver, system_nameservers
from forwarder.retry import Schedule
from forwarder.rounds import Rounds
from forwarder.store.ledger import RedisLedger
from forwarder.store.standings import RedisStandings
from forwarder.tlsrpt import JITTER, HttpsReports, TlsReports, TlsTally
from forwarder.worker import Worker, WorkerSettings

if TYPE_CHECKING:
    from forwarder.web.server import WebServer

__all__ = ["Generation", "Ground", "keep_running"]

#: Of the time that a stop has, the part in which a sender still waits for its next hop. After it the message is queued, and the
#: sender is answered.
PATIENCE = 0.8
#: Seconds until what ended by a fault of ours is begun again.
AFTER_FAULT = 1.0


@dataclass(frozen=True, slots=True)
class Ground:
    """What every generation of the process stands on."""

    store: Store
    mailboxes: Mailboxes
    usage: Usage
    clock: Clock
    journal: Journal
    tally: TlsTally
    standings: RedisStandings
    #: How many processes there are like this one.
    workers: int = 1
    under_way: UnderWay = field(default_factory=UnderWay)
    allowance: Allowance = field(default_factory=Allowance)
    #: A count of sessions each, so that strangers on port 25 never keep users out.
    inbound: Seats = field(default_factory=Seats)
    users: Seats = field(default_factory=Seats)
    budget: Budget = field(default_factory=Budget)
    rounds: Rounds = field(default_factory=Rounds)
    shaking: Shaking = field(default_factory=Shaking)
    turns: Turns = field(default_factory=Turns)
    rates: RateMemory = field(default_factory=RateMemory)
    #: Puts a count behind keys that sign; ``None``: nobody wants to know.
    counted: Callable[[KeyRing], KeyRing] | None = None


class Generation:
    """Needs a running loop. Raises StartError for what only shows when parts are made; then ``close`` it."""

    def __init__(
        self, material: Material, addresses: Sequence[str], ground: Ground, before: Generation | None = None
    ) -> None:
        """``addresses``: where we listen. ``before``: whose parts may be shared."""
        settings = self.settings = material.settings
        self._ground = ground
        self.material = material
        self._tasks: list[asyncio.Task[None]] = []
        self._web: WebServer | None = None
        self._callers: DnsCallers | None = None
        self._filters: Filters | None = None
        self._resolver = self._share_resolver(before)
        self._ring = self._share_keys(before)
        self._signing = self._share_signing(before)
        self._key_host = self._share_key_host(before)
        ledger = ground.store.ledger(settings)
        tls_log = ground.tally if settings.relay.tls_reports else None
        self._sts = self._share_sts(before, ledger, tls_log)
        relaying = listening_at(material.relaying, addresses)
        resolver, sts, journal = self._resolver.part, self._sts.part, ground.journal
        self._relay: Shared[SmtpRelay] = share(
            before._relay if before is not None else None,
            (relaying, self._resolver, self._sts),
            lambda: SmtpRelay(resolver, relaying, journal, random.Random(), sts=sts, tls_log=tls_log),
            SmtpRelay.close,
        )
        self._held: list[Shared[Any]] = [
            self._resolver,
            self._ring,
            self._signing,
            self._key_host,
            self._sts,
            self._relay,
        ]
        queue = ground.store.queue(settings, ledger)
        self._filters = make_filters(settings, material.filter_passwords)
        digests = ground.store.digests(ledger)
        doors = Doors(
            directory=material.directory,
            resolver=resolver,
            ledger=ledger,
            mailboxes=ground.mailboxes,
            keys=self._signing.part,
            clock=ground.clock,
            journal=journal,
            key_host=self._key_host.part,
            standings=ground.standings,
            digests=digests,
            greylist=ground.store.greylist(ledger),
            queue=queue,
            filters=self._filters,
            rates=ground.rates,
        )
        told = material.pipeline
        ladder = Ladder(
            self._relay.part,
            ground.store.refusals(ledger),
            told,
            doors,
            by_smarthost=bool(settings.relay.smarthost),
        )
        schedule = Schedule(settings.queue.first_retry, settings.queue.max_retry)
        aftermath = Aftermath(told, doors, queue, schedule, random.random)
        self.worker = Worker(
            queue,
            ladder,
            aftermath,
            journal,
            WorkerSettings(
                part_of(settings.queue.deliveries, ground.workers),
                settings.queue.per_destination,
                settings.queue.lease,
            ),
            ground.under_way,
        )
        self._dispatcher = Dispatcher(
            ladder,
            ledger,
            journal,
            in_session=settings.relay.in_session,
            lease=settings.queue.lease,
            queue=queue,
            settler=aftermath,
            wake=self.worker.wake,
            under_way=ground.under_way,
        )
        #: Of TLS, where they are wanted.
        self.reports = self._make_reports(told, doors, queue, ledger)
        digesting = Digesting(told, doors, digests, queue, settings.srs.domain)
        self.digests = DailyDigests(digesting.send, ground.clock, journal, random.uniform(*START))
        pipeline = Pipeline(told, doors, self._dispatcher)
        self._callers = make_callers(settings, resolver, journal)
        # What was guessed before a reload is held against the client after it.
        limits = limits_of(settings, ground.workers)
        forged, unknown = limits.forged_reversible, limits.unknown_per_hour
        self._guesses: Shared[Guesses] = share(
            before._guesses if before is not None else None, forged, lambda: Guesses(forged, SITE * forged)
        )
        self._unknowns: Shared[Guesses] = share(
            before._unknowns if before is not None else None, unknown, lambda: Guesses(unknown)
        )
        edge = EdgeSettings(
            hostname=settings.hostname,
            limits=limits,
            tls=lambda: material.tls,
            default_domain=settings.srs.domain,
            guesses=self._guesses.part,
            unknowns=self._unknowns.part,
            budget=ground.budget,
            rounds=ground.rounds,
            shaking=ground.shaking,
            turns=ground.turns,
            networks=network_limits_of(settings, ground.workers),
            callers=self._callers,
            door=door_of(settings),
            lenient=lenient_of(settings),
        )
        # Who they are is found out otherwise, and where they are says nothing against them.
        # Their own messages are read as they stand, so dots that belong nowhere are refused at once.
        for_users = replace(edge, callers=None, lenient=replace(edge.lenient, dots=False))
        submission = Submission(
            told, submission_settings(settings, addresses), doors, self._dispatcher, pipeline, ground.allowance
        )
        user_session = functools.partial(SubmissionSession, clients=material.clients)
        self._inbound = EdgeServer(edge, pipeline, ground.clock, journal, seats=ground.inbound)
        self._users = EdgeServer(for_users, submission, ground.clock, journal, session=user_session, seats=ground.users)

    @property
    def keys(self) -> WatchedKeys:
        """Those that sign."""
        return self._ring.part

    @property
    def sessions(self) -> int:
        """How many clients are connected to it."""
        return len(self._inbound) + len(self._users)

    @property
    def resolver(self) -> DnsResolver | ZoneResolver:
        """What it asks the DNS with; it may be an earlier generation's too."""
        return self._resolver.part

    @property
    def relay(self) -> SmtpRelay:
        """What it delivers with; it may be an earlier generation's too."""
        return self._relay.part

    # --- parts that may be shared

    def _share_resolver(self, before: Generation | None) -> Shared[DnsResolver | ZoneResolver]:
        dns = self.settings.dns
        # A zone file may have changed where its name has not.
        made_from = (dns, dns.nameservers or system_nameservers()) if dns.zone_file is None else None
        return share(
            before._resolver if before is not None else None,
            made_from,
            lambda: make_resolver(self.settings),
            lambda one: one.aclose(),
        )

    def _share_keys(self, before: Generation | None) -> Shared[WatchedKeys]:
        settings, ground, keys = self.settings, self._ground, self.material.keys
        asked = self._resolver.made_from
        made_from = (keys.content(), settings.keys.require_record, settings.keys.check_every, asked)

        def make() -> WatchedKeys:
            made = WatchedKeys(keys, settings, ground.usage, ground.clock, ground.journal)
            if before is not None and made.watch is not None:
                keys.forget_nothing(before.keys.keys)
            return made

        return share(
            before._ring if before is not None else None,
            made_from if asked is not None else None,
            make,
            WatchedKeys.close,
        )

    def _share_signing(self, before: Generation | None) -> Shared[KeyRing]:
        """Our keys, as mail is signed with them."""
        keys, lanes, ground = self._ring.part.keys, self.material.lanes, self._ground

        def make() -> KeyRing:
            if isinstance(lanes, LanesUnfit):
                ground.journal.event("multibuffer.unfit", reason=str(lanes))
            ring: KeyRing = MultibufferKeys(keys, lanes, ground.journal) if isinstance(lanes, Lanes) else keys
            return ring if ground.counted is None else ground.counted(ring)

        return share(before._signing if before is not None else None, (self._ring, lanes), make)

    def _share_key_host(self, before: Generation | None) -> Shared[KeyHostClient | None]:
        mailkey, resolver = self.settings.mailkey, self._resolver
        return share(
            before._key_host if before is not None else None,
            (mailkey.fetch_https, mailkey.fetch_port, mailkey.fetch_private, mailkey.fetch_ca_file, resolver),
            lambda: make_key_host(self.settings, resolver.part, self._ground.journal),
            _close,
        )

    def _share_sts(
        self, before: Generation | None, ledger: RedisLedger, tls_log: TlsLog | None
    ) -> Shared[StsClient | None]:
        relay, resolver, ground = self.settings.relay, self._resolver, self._ground
        return share(
            before._sts if before is not None else None,
            (relay.mta_sts, relay.smarthost, policy_hosts(self.settings), tls_log, resolver),
            lambda: make_sts(self.settings, resolver.part, ground.store.policies(ledger), ground.journal, tls_log),
            _close,
        )

    def _make_reports(
        self, told: PipelineSettings, doors: Doors, queue: Queue, ledger: RedisLedger
    ) -> TlsReports | None:
        settings, ground = self.settings, self._ground
        if not settings.relay.tls_reports:
            return None
        reporter = Reporter(settings.srs.domain, settings.hostname, tuple(map(str, settings.relay.source)))
        hosts = HttpsReports(doors.resolver, policy_hosts(settings))
        reporting = TlsReporting(told, doors, ground.store.tls_counts(ledger), queue, hosts, reporter)
        return TlsReports(ground.tally, reporting.send, ground.clock, ground.journal, random.uniform(*JITTER))

    # --- its life

    async def start(self, mail: Sequence[socket.socket], web: Sequence[socket.socket]) -> None:
        """Begin to accept and to work off the queue. The sockets are ours from now on, in the order of the settings."""
        if web:
            await self._serve_web(web)
        for one, sock in zip(self.settings.listen, mail, strict=True):
            server = self._users if one.submission else self._inbound
            trust = Trust(one.proxy, one.xclient, one.xforward)
            await server.start([sock], tls=self.material.tls if one.tls == "implicit" else None, trust=trust)
        runs = {
            "worker": self.worker.run,
            "renewals": self._dispatcher.renew,
            "standings": self._ground.standings.run,
            "digests": self.digests.run,
        }
        if self.reports is not None:
            runs["tls reports"] = self.reports.run
        journal = self._ground.journal
        self._tasks = [asyncio.create_task(keep_running(run, where, journal)) for where, run in runs.items()]

    async def _serve_web(self, sockets: Sequence[socket.socket]) -> None:
        # aiohttp takes long to import.
        from forwarder.web.server import WebServer  # noqa: PLC0415
        from forwarder.web.wellknown import mailkey_routes  # noqa: PLC0415

        keys = self.keys.keys
        self._web = WebServer(mailkey_routes(lambda: published(keys)), self.material.web_tls, self._ground.journal)
        await self._web.start(sockets)

    def leave(self, heir: Generation | None = None) -> None:
        """Accept and claim nothing more; nobody who is connected hears of it. ``heir`` has whoever comes."""
        self._inbound.leave(heir._inbound if heir is not None else None)
        self._users.leave(heir._users if heir is not None else None)
        if self._web is not None:
            self._web.leave(heir._web if heir is not None else None)

    def hurry(self) -> None:
        """End sessions between two messages."""
        self._inbound.hurry()
        self._users.hurry()

    async def fade(self) -> None:
        """After ``leave``: until the last session and the last attempt are over. Then ``close``."""
        await asyncio.gather(self._inbound.ended(), self._users.ended(), self.worker.stop(ATTEMPT, patient=True))
        await self._dispatcher.ended()

    async def drain(self, seconds: float) -> None:
        """Take nothing new, finish what is under way within ``seconds``, hand the rest back. Safe to call at any time."""
        journal, now = self._ground.journal, asyncio.get_running_loop().time
        until = now() + seconds
        if self._web is not None:
            self._web.leave()
        self._dispatcher.cut_short(seconds * PATIENCE)
        left, *_ = await asyncio.gather(
            self.worker.stop(seconds), self._inbound.drain(seconds), self._users.drain(seconds)
        )
        if left:
            journal.event("drain.timeout", queued=left)
        left = await self._dispatcher.finish(max(0.0, until - now()))
        if left:
            journal.event("drain.timeout", deliveries=left)

    async def close(self) -> None:
        """After ``fade`` or ``drain``. Safe to call at any time."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if self.material.clients.authenticator is not None:
            self.material.clients.authenticator.close()
        if self._web is not None:
            await self._web.stop()
        if self._callers is not None:
            await self._callers.aclose()
        if self._filters is not None:
            await self._filters.aclose()
        while self._held:
            await self._held.pop().let_go()


async def keep_running(run: Callable[[], Awaitable[None]], where: str, journal: Journal) -> None:
    """Until ``run`` ends by itself. A fault of ours is told and it is begun again: nobody would notice before a restart that
    leases are no longer renewed, or that nothing leaves the queue."""
    while True:
        try:
            await run()
        except Exception as fault:  # noqa: BLE001 - see above
            journal.event("fault", where=where, kind=type(fault).__name__, detail=str(fault))
            await asyncio.sleep(AFTER_FAULT)
        else:
            return


async def _close(client: KeyHostClient | StsClient | None) -> None:
    if client is not None:
        await client.aclose()
