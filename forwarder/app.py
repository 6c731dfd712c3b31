"""How do the parts become one program? Builds every adapter, starts, drains, stops. The only file that names them all.

App(settings, journal)     nothing is opened yet
await start()              store, keys, sockets: raises StartError with one sentence for the operator
await stop()               no new sessions, messages on their way finish, then everything is closed
"""

from __future__ import annotations

import asyncio
import functools
import math
import random
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from forwarder.auth.suffix import is_public_suffix
from forwarder.bounce import note
from forwarder.config import Settings
from forwarder.credentials import Credentials, CredentialsError
from forwarder.directory import StaticDirectory
from forwarder.dispatch import Dispatcher, Hold, UnderWay
from forwarder.edge.auth import Authenticator
from forwarder.edge.limits import Limits
from forwarder.edge.server import EdgeServer, bind
from forwarder.edge.session import EdgeSettings
from forwarder.edge.submission import Clients, SubmissionSession
from forwarder.edge.tls import make_self_signed, server_context
from forwarder.keyhost import KeyHostClient, KeyHostSettings
from forwarder.keys import KeyFile, KeyFileError, Keys, mailkey_record, read_private
from forwarder.keys.watch import KeyWatch
from forwarder.mailbox import MailboxFiles
from forwarder.model import Identity
from forwarder.pipeline import Doors, Pipeline
from forwarder.pipeline import Settings as PipelineSettings
from forwarder.pipeline.aftermath import Aftermath
from forwarder.pipeline.submission import Submission, SubmissionSettings
from forwarder.ports import Journal, StoreAway
from forwarder.relay import RelaySettings, SmtpRelay
from forwarder.resolver import DnsResolver, ZoneError, ZoneResolver, system_nameservers
from forwarder.retry import Schedule
from forwarder.route import Action, Policy
from forwarder.seal import Names
from forwarder.store.client import StoreClient, StoreUrlError
from forwarder.store.health import examine_store
from forwarder.store.ledger import RedisLedger
from forwarder.store.queue import RedisQueue
from forwarder.store.server import EmbeddedStore, StoreStartError
from forwarder.worker import Worker, WorkerSettings

if TYPE_CHECKING:
    from forwarder.web.server import WebServer

__all__ = [
    "App",
    "StartError",
    "State",
    "SystemClock",
    "key_state",
    "load_keys",
    "load_note",
    "make_key_host",
    "make_resolver",
    "make_resolvers",
    "names_of",
    "open_state",
    "policy_of",
    "published",
]

#: Seconds that messages on their way get when the program stops (systemd's default for a stop is 90).
DRAIN = 30.0
#: Seconds within which the store must take or give a body, which may be large and waits for the disk.
QUEUE_TIMEOUT = 5.0
#: Seconds that the listener waits for the first look at the records of our keys.
KEY_LOOK = 3.0


class StartError(Exception):
    """The program cannot start; the text says why and what to do, in one line."""


class SystemClock:
    """ports.Clock on this machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class App:
    """One process of the service."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal
        self.clock = SystemClock()
        self._embedded: EmbeddedStore | None = None
        self._client: StoreClient | None = None
        self._queue_client: StoreClient | None = None
        self._relay: SmtpRelay | None = None
        self._worker: Worker | None = None
        self._work: asyncio.Task[None] | None = None
        self._renewals: asyncio.Task[None] | None = None
        self._dispatcher: Dispatcher | None = None
        self._edges: list[EdgeServer] = []
        self._authenticator: Authenticator | None = None
        self._key_host: KeyHostClient | None = None
        self._web: WebServer | None = None
        self._watch: asyncio.Task[None] | None = None
        self._key_task: asyncio.Task[None] | None = None
        #: Once started; ``None`` with keys.require_record = false.
        self.key_watch: KeyWatch | None = None
        self._note: str | None = None
        #: Where we listen, once started: "ip:port".
        self.addresses: tuple[str, ...] = ()
        self.web_addresses: tuple[str, ...] = ()

    @property
    def store_pid(self) -> int | None:
        """The process of the embedded store, once started; ``None`` where there is none."""
        return self._embedded.pid if self._embedded is not None else None

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
            clients = self._clients()
        except KeyFileError as error:
            raise StartError(str(error)) from error
        self._note = load_note(settings)
        # The suffix list takes a tenth of a second to read: not while the first sender waits.
        is_public_suffix("example")
        ledger = await self._open_store()
        resolver = make_resolver(settings)
        await self._watch_keys(keys)
        await self._serve_web(keys)
        sockets = _bind_all(settings.listen_addresses)
        self.addresses = tuple(_name(one) for one in sockets)
        self._relay = SmtpRelay(resolver, self._relay_settings(), self._journal, random.Random())
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
        queue = self._open_queue(ledger)
        aftermath = Aftermath(
            self._pipeline_settings(),
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
        pipeline = Pipeline(self._pipeline_settings(), doors, self._dispatcher)
        context = self._tls_context()
        edge = EdgeSettings(
            hostname=settings.hostname,
            limits=Limits(
                message_size=settings.limits.message_size,
                recipients=settings.limits.recipients,
                sessions=settings.limits.sessions,
            ),
            tls=lambda: context,
            default_domain=settings.srs.domain,
        )
        submission = Submission(
            self._pipeline_settings(), self._submission_settings(), doors, self._dispatcher, pipeline
        )
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

    def _clients(self) -> Clients:
        submission = self._settings.submission
        if submission.credentials is not None:
            try:
                credentials = Credentials.parse(read_private(submission.credentials))
            except CredentialsError as error:
                raise StartError(f"{submission.credentials}: {error}") from error
            self._authenticator = Authenticator(credentials)
        return Clients(
            {name: Identity(name, frozenset(one.owns), one.null_sender) for name, one in submission.logins.items()},
            [
                (one.network, Identity(str(one.network), frozenset(one.owns), one.null_sender, authenticated=False))
                for one in submission.networks
            ],
            self._authenticator,
        )

    def _submission_settings(self) -> SubmissionSettings:
        submission, sources = self._settings.submission, self._settings.relay.source
        here = [ip for ip, _ in map(_endpoint, self.addresses) if not ip.is_unspecified]
        return SubmissionSettings(
            source=next(iter([*sources, *here]), IPv4Address("127.0.0.1")),
            hide_client=submission.hide_client,
            recipients_per_hour=submission.recipients_per_hour,
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

    async def _open_store(self) -> RedisLedger:
        settings = self._settings
        url = settings.store
        if url == "embedded":
            self._embedded = EmbeddedStore(settings.state_dir, journal=self._journal)
            try:
                await self._embedded.start()
            except (StoreStartError, OSError) as error:
                raise StartError(f"the embedded store cannot start: {error}") from error
            self._watch = asyncio.create_task(self._embedded.watch())
            url = self._embedded.url
        try:
            self._client = StoreClient(url, journal=self._journal)
        except StoreUrlError as error:
            raise StartError(f"store: {error}") from error
        try:
            for finding in await examine_store(self._client):
                self._journal.event("store.finding", fatal=finding.fatal, text=finding.text)
                if finding.fatal:
                    raise StartError(f"store: {finding.text}")
        except StoreAway as away:
            # A store that is away at start is no reason to refuse mail that can finish in session.
            self._journal.event("store.away", reason=str(away))
        return RedisLedger(
            self._client,
            journal=self._journal,
            lease=math.ceil(settings.queue.lease),
            per_message=settings.bounces.per_message,
            per_day=settings.bounces.per_day,
        )

    def _open_queue(self, ledger: RedisLedger) -> RedisQueue:
        """A connection of its own: a large body must not keep the ledger waiting (docs/decisions/0006)."""
        queue, url = self._settings.queue, self._settings.store
        if self._embedded is not None:
            url = self._embedded.url
        self._queue_client = StoreClient(url, journal=self._journal, timeout=QUEUE_TIMEOUT)
        return RedisQueue(
            self._queue_client, ledger, journal=self._journal, max_body=queue.max_body, high_water=queue.high_water
        )

    async def _serve_web(self, keys: Keys) -> None:
        web = self._settings.web
        if not web.listen:
            return
        # aiohttp takes long to import.
        from forwarder.web.server import WebServer  # noqa: PLC0415
        from forwarder.web.wellknown import mailkey_routes  # noqa: PLC0415

        tls = None
        try:
            if web.tls.cert is not None and web.tls.key is not None:
                tls = server_context(web.tls.cert, web.tls.key)
        except (OSError, ssl.SSLError) as error:
            raise StartError(f"web.tls: cannot use {web.tls.cert} with {web.tls.key}: {error}") from error
        sockets = _bind_all(web.listen)
        self.web_addresses = tuple(_name(one) for one in sockets)
        self._web = WebServer(mailkey_routes(lambda: published(keys)), tls, self._journal)
        await self._web.start(sockets)

    def _tls_context(self) -> ssl.SSLContext:
        settings = self._settings
        if settings.tls.cert is not None and settings.tls.key is not None:
            pair = (settings.tls.cert, settings.tls.key)
        else:
            pair = make_self_signed(settings.state_dir / "tls", settings.hostname, self.clock.now())
        try:
            return server_context(*pair)
        except (OSError, ssl.SSLError) as error:
            raise StartError(f"tls: cannot use {pair[0]} with {pair[1]}: {error}") from error

    def _relay_settings(self) -> RelaySettings:
        relay = self._settings.relay
        return RelaySettings(
            hostname=self._settings.hostname,
            port=relay.port,
            smarthost=relay.smarthost,
            allow_private=relay.allow_private,
            sources=relay.source,
            # Only a listener at the port that mail is relayed to can be the other end of a loop.
            own_addresses=frozenset(
                ip for ip, port in map(_endpoint, self.addresses) if port == relay.port and not ip.is_unspecified
            ),
        )

    def _pipeline_settings(self) -> PipelineSettings:
        settings = self._settings
        return PipelineSettings(
            names=names_of(settings),
            policy=policy_of(settings),
            domain_policies={domain: policy_of(settings, domain) for domain in settings.domains},
            trusted_sealers=frozenset(settings.policy.trusted_sealers),
            lifetime=timedelta(seconds=settings.queue.lifetime),
            hold=Hold(settings.relay.hold),
            domain_holds={domain: Hold(one.hold) for domain, one in settings.domains.items() if one.hold is not None},
            pass_unmatched=settings.bounces.unmatched == "pass",
            replay_recipients=settings.mailkey.replay_recipients,
            bind_recipients=settings.mailkey.bind_recipients,
            note=self._note,
            note_url=settings.mailkey.note_url or "docs/mailkey-for-senders.md of mailkey-forwarder",
        )

    async def stop(self, seconds: float = DRAIN) -> None:
        """Take nothing new, finish what is under way within ``seconds``, close everything. Safe to call at any time."""
        await asyncio.gather(*(one.drain(seconds) for one in self._edges))
        if self._authenticator is not None:
            self._authenticator.close()
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
        for client in (self._queue_client, self._client):
            if client is not None:
                await client.close()
        for task in (self._key_task, self._watch):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        if self._embedded is not None:
            await self._embedded.stop()
        self._journal.event("service.stopped")


@dataclass(frozen=True, slots=True)
class State:
    """What the store holds, for an operator's command."""

    ledger: RedisLedger
    queue: RedisQueue


@asynccontextmanager
async def open_state(settings: Settings, journal: Journal) -> AsyncIterator[State]:
    """Of the service that runs, or, while none does, of the store that it left. Raises StartError."""
    embedded = EmbeddedStore(settings.state_dir, journal=journal) if settings.store == "embedded" else None
    client = None
    try:
        if embedded is not None:
            await embedded.start()
        client = StoreClient(
            embedded.url if embedded is not None else settings.store, journal=journal, timeout=QUEUE_TIMEOUT
        )
        ledger = RedisLedger(client, journal=journal)
        limits = settings.queue
        queue = RedisQueue(client, ledger, journal=journal, max_body=limits.max_body, high_water=limits.high_water)
        yield State(ledger, queue)
    except (StoreStartError, StoreUrlError, StoreAway, OSError) as error:
        raise StartError(f"the store cannot be reached: {error}") from error
    finally:
        if client is not None:
            await client.close()
        if embedded is not None:
            await embedded.stop()


def _bind_all(addresses: Sequence[str]) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    for address in addresses:
        try:
            sockets.append(bind(address))
        except OSError as error:
            for one in sockets:
                one.close()
            raise StartError(f"cannot listen on {address}: {error.strerror or error}") from error
    return sockets


def load_keys(settings: Settings) -> Keys:
    """Every key and secret of the configuration. Raises KeyFileError."""
    arc = settings.keys.arc
    return Keys.load(
        mailkey=[KeyFile(one.domain, one.selector, one.key) for one in settings.keys.mailkey],
        dkim=[KeyFile(one.domain, one.selector, one.key) for one in settings.keys.dkim],
        arc=KeyFile(arc.domain, arc.selector, arc.key) if arc is not None else None,
        srs_secret_file=settings.srs.secret_file,
    )


def load_note(settings: Settings) -> str | None:
    """The text that ends reports to domains without a mailkey; ``None``: it is switched off. Raises StartError."""
    file = settings.mailkey.note_file
    if not settings.mailkey.note:
        return None
    if file is None:
        return note.DEFAULT
    try:
        with file.open("rb") as opened:
            text = opened.read(note.MAX_NOTE + 1).decode("ascii", "surrogateescape")
        note.check_template(text)
    except (OSError, ValueError) as error:
        raise StartError(f"mailkey.note_file: {file}: {getattr(error, 'strerror', None) or error}") from error
    return text


def make_resolver(settings: Settings) -> DnsResolver | ZoneResolver:
    """The DNS as configured; needs a running loop. Raises StartError."""
    dns = settings.dns
    if dns.zone_file is not None:
        try:
            return ZoneResolver.from_file(dns.zone_file)
        except (OSError, ZoneError) as error:
            raise StartError(f"dns.zone_file: {error}") from error
    return _ask(settings, dns.nameservers or system_nameservers())


def make_resolvers(settings: Settings, others: Sequence[str] = ()) -> dict[str, DnsResolver | ZoneResolver]:
    """Each name server by itself, by its address: those configured, and ``others``. Raises StartError, ValueError."""
    dns = settings.dns
    if dns.zone_file is not None:
        return {str(dns.zone_file): make_resolver(settings)}
    return {one: _ask(settings, (one,)) for one in (*(dns.nameservers or system_nameservers()), *others)}


def _ask(settings: Settings, nameservers: Sequence[str]) -> DnsResolver:
    return DnsResolver(
        nameservers,
        trust_ad=settings.dns.trust_ad,
        timeout=settings.dns.timeout,
        monotonic=asyncio.get_running_loop().time,
    )


def make_key_host(settings: Settings, resolver: DnsResolver | ZoneResolver, journal: Journal) -> KeyHostClient | None:
    """Others' mailkey hosts; ``None`` where the operator wants none asked. Needs a running loop."""
    mailkey = settings.mailkey
    if not mailkey.fetch_https:
        return None
    return KeyHostClient(
        resolver,
        KeyHostSettings(mailkey.fetch_port, mailkey.fetch_private, mailkey.fetch_ca_file),
        journal,
        monotonic=asyncio.get_running_loop().time,
    )


def published(keys: Keys) -> dict[tuple[str, str], str]:
    """(domain, selector) → the record that the key host serves. The first key of a name counts, as it is the one that signs."""
    return {(one.domain, one.selector): mailkey_record(one) for one in reversed(keys.mailkeys())}


def key_state(settings: Settings) -> Path:
    """Where the service keeps when its keys were last used."""
    return settings.state_dir / "keys.json"


def names_of(settings: Settings) -> Names:
    """Who we are, to next hops and in Authentication-Results."""
    return Names(settings.hostname, settings.authserv_id or settings.hostname)


def policy_of(settings: Settings, domain: str | None = None) -> Policy:
    """What the operator wants done about each finding: overall, or for the aliases of ``domain``."""
    chosen = settings.policy.model_dump(exclude={"trusted_sealers", "help_url"})
    if domain is not None and domain in settings.domains:
        chosen |= settings.domains[domain].policy.model_dump(exclude_none=True)
    actions = {name: Action(value) for name, value in chosen.items()}
    return Policy(**actions, help_url=settings.policy.help_url)


def _endpoint(address: str) -> tuple[IPv4Address | IPv6Address, int]:
    host, _, port = address.rpartition(":")
    return ip_address(host.strip("[]")), int(port)


def _name(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
