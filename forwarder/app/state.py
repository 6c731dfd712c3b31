"""Where is the state, and how is it opened? For the service, and for an operator's command beside it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from forwarder.app.clock import SystemClock
from forwarder.app.errors import StartError
from forwarder.app.storeurl import store_url
from forwarder.config import Settings
from forwarder.ports import Clock, Journal, StoreAway
from forwarder.store.client import Commands, StoreClient, StoreUrlError
from forwarder.store.cluster import ClusterClient, make_client
from forwarder.store.digests import RedisDigests
from forwarder.store.disk import Disk
from forwarder.store.greylist import RedisGreylist
from forwarder.store.health import examine_store
from forwarder.store.ledger import RedisLedger
from forwarder.store.policies import RedisPolicies
from forwarder.store.queue import Pace, RedisQueue
from forwarder.store.records import HASH_TAG
from forwarder.store.refusals import RedisRefusals
from forwarder.store.server import EmbeddedStore, StoreStartError
from forwarder.store.sessions import RedisTlsCounts
from forwarder.store.standings import RedisStandings
from forwarder.store.traces import CLUSTER_TAGS, RedisTraces

__all__ = ["State", "Store", "keep_store", "open_state"]

#: Seconds within which the store must take or give a body, which may be large and waits for the disk; where more patience is
#: asked for (``store_timeout``), so many times that.
QUEUE_TIMEOUT, QUEUE_TIMES = 5.0, 2
#: The part of ``store_timeout`` for which one sentinel or node that is asked the way is waited for: the rest is for the next.
ASKING = 0.8


class Store:
    """The service's connections to its store, and the store itself where it is embedded."""

    def __init__(self, settings: Settings, journal: Journal, *, kept: bool = False) -> None:
        """``kept``: where the store is embedded, another process of ours has started it and watches it."""
        self._settings = settings
        self._journal = journal
        self._kept = kept
        self._embedded: EmbeddedStore | None = None
        self._clients: list[StoreClient | ClusterClient] = []
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process of the embedded store, once open; ``None`` where there is none."""
        return self._embedded.pid if self._embedded is not None else None

    async def open(self) -> None:
        """Raises StartError; what was opened by then is closed by ``close``."""
        url = self._settings.store
        if url == "embedded":
            self._embedded = EmbeddedStore(self._settings.state_dir, journal=self._journal)
            if not self._kept:
                await _start(self._embedded)
                self._watch = asyncio.create_task(self._embedded.watch())
            url = self._embedded.url
        else:
            url = store_url(self._settings)
        try:
            # A large body must not keep the ledger waiting (docs/decisions/0006), and traces wait for no copies: a replica that
            # is dead would hold up and refuse what its primary takes (0044). So the third has no scout either: that one counts
            # a server with too few copies as away.
            replicas = self._settings.store_replicas
            limit, patience = self._settings.store_timeout, _patience(self._settings)
            ledgers = make_client(url, journal=self._journal, replicas=replicas, timeout=limit, patience=patience)
            queues = make_client(
                url,
                journal=self._journal,
                replicas=replicas,
                timeout=_queue_timeout(self._settings),
                patience=patience,
                scout=ledgers,
            )
            self._clients = [ledgers, queues, _traces_client(url, self._settings, self._journal)]
        except StoreUrlError as error:
            raise StartError(f"store: {error}") from error
        try:
            for server in await self._clients[0].primaries():
                for finding in await examine_store(server, ours=self._embedded is not None):
                    self._journal.event("store.finding", server=server.where, fatal=finding.fatal, text=finding.text)
                    if finding.fatal:
                        raise StartError(f"store: {finding.text}")
        except StoreAway as away:
            # A store that is away at start is no reason to refuse mail that can finish in session.
            self._journal.event("store.away", reason=str(away))

    def watch(self, watch: Callable[[str, float, bool], None]) -> None:
        """Tell how long each operation takes, in seconds, and whether it was answered. Once open."""
        for client in self._clients:
            client.watch = watch

    @property
    def is_away(self) -> bool:
        """Is it known not to answer?"""
        return any(client.is_away for client in self._clients)

    async def ping(self) -> None:
        """Raises StoreAway where what mail needs is away; in a cluster others may be, which have traces only."""
        if not self._clients:
            raise StoreAway("not open yet")
        await self._clients[0].command("EXISTS", HASH_TAG, quiet=True)

    def ledger(self, settings: Settings) -> RedisLedger:
        """What was forwarded, as these settings bound it."""
        return RedisLedger(
            self._clients[0],
            journal=self._journal,
            lease=math.ceil(settings.queue.lease),
            per_message=settings.bounces.per_message,
            per_day=settings.bounces.per_day,
            shared=self._embedded is None,
        )

    def queue(self, settings: Settings, ledger: RedisLedger) -> RedisQueue:
        """What waits, as these settings bound it."""
        return _queue(self._clients[1], settings, ledger, self._journal, self._embedded)

    def policies(self, ledger: RedisLedger) -> RedisPolicies:
        """What other domains promise of their TLS."""
        return RedisPolicies(self._clients[0], ledger, journal=self._journal)

    def digests(self, ledger: RedisLedger) -> RedisDigests:
        """What owners of aliases read once a day."""
        return RedisDigests(self._clients[0], ledger, journal=self._journal)

    def refusals(self, ledger: RedisLedger) -> RedisRefusals:
        """Who refuses whose mail."""
        return RedisRefusals(self._clients[0], ledger)

    def greylist(self, ledger: RedisLedger) -> RedisGreylist:
        """Who has come back."""
        return RedisGreylist(self._clients[0], ledger)

    def tls_counts(self, ledger: RedisLedger) -> RedisTlsCounts:
        """How TLS with other domains went."""
        return RedisTlsCounts(self._clients[0], ledger, journal=self._journal)

    def standings(self, ledger: RedisLedger, clock: Clock) -> RedisStandings:
        """What is held against whom."""
        return RedisStandings(self._clients[0], ledger, clock, self._journal)

    def traces(self, settings: Settings) -> RedisTraces:
        """The lives of messages. Written behind the mail's back, over a connection of their own. The salt of their names is
        everybody's, and no good without its copies."""
        ledger = RedisLedger(self._clients[1], journal=self._journal)
        return _traces(self._clients[2], settings, ledger, self._journal)

    async def close(self) -> None:
        """Safe to call at any time."""
        for client in reversed(self._clients):
            await client.close()
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        if self._embedded is not None and not self._kept:
            await self._embedded.stop()


@asynccontextmanager
async def keep_store(settings: Settings, journal: Journal) -> AsyncIterator[None]:
    """The embedded store alone, started and watched, for other processes of ours. Raises StartError."""
    embedded = EmbeddedStore(settings.state_dir, journal=journal)
    await _start(embedded)
    watch = asyncio.create_task(embedded.watch())
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        await embedded.stop()


async def _start(embedded: EmbeddedStore) -> None:
    try:
        await embedded.start()
    except (StoreStartError, OSError) as error:
        raise StartError(f"the embedded store cannot start: {error}") from error


@dataclass(frozen=True, slots=True)
class State:
    """What the store holds, for an operator's command."""

    ledger: RedisLedger
    queue: RedisQueue
    standings: RedisStandings
    traces: RedisTraces
    refusals: RedisRefusals


@asynccontextmanager
async def open_state(settings: Settings, journal: Journal) -> AsyncIterator[State]:
    """Of the service that runs, or, while none does, of the store that it left. Raises StartError."""
    embedded = EmbeddedStore(settings.state_dir, journal=journal) if settings.store == "embedded" else None
    clients: list[StoreClient | ClusterClient] = []
    try:
        if embedded is not None:
            await embedded.start()
        url = embedded.url if embedded is not None else store_url(settings)
        client = make_client(
            url,
            journal=journal,
            replicas=settings.store_replicas,
            timeout=_queue_timeout(settings),
            patience=_patience(settings),
        )
        clients = [client, _traces_client(url, settings, journal)]
        ledger = RedisLedger(client, journal=journal)
        standings = RedisStandings(client, ledger, SystemClock(), journal)
        traces = _traces(clients[1], settings, ledger, journal)
        queue = _queue(client, settings, ledger, journal, embedded)
        yield State(ledger, queue, standings, traces, RedisRefusals(client, ledger))
    except BrokenPipeError:
        raise  # whoever reads what the command prints has seen enough
    except (StoreStartError, StoreUrlError, StoreAway, OSError) as error:
        raise StartError(f"the store cannot be reached: {error}") from error
    finally:
        for one in clients:
            await one.close()
        if embedded is not None:
            await embedded.stop()


def _queue_timeout(settings: Settings) -> float:
    return max(QUEUE_TIMEOUT, QUEUE_TIMES * settings.store_timeout)


def _patience(settings: Settings) -> float:
    return ASKING * settings.store_timeout


def _traces_client(url: str, settings: Settings, journal: Journal) -> StoreClient | ClusterClient:
    timeout, patience = _queue_timeout(settings), _patience(settings)
    return make_client(url, journal=journal, replicas=0, timeout=timeout, patience=patience)


def _traces(
    client: StoreClient | ClusterClient, settings: Settings, ledger: RedisLedger, journal: Journal
) -> RedisTraces:
    keep = max(1, math.ceil(settings.trace.keep * 86400))
    tags = CLUSTER_TAGS if isinstance(client, ClusterClient) else (HASH_TAG,)
    return RedisTraces(client, ledger, journal=journal, keep=keep, tags=tags)


def _queue(
    client: Commands, settings: Settings, ledger: RedisLedger, journal: Journal, embedded: EmbeddedStore | None
) -> RedisQueue:
    limits, disk = settings.queue, None
    if embedded is not None:
        disk = Disk(embedded.directory, client, least=limits.min_free, journal=journal)
    return RedisQueue(
        client,
        ledger,
        journal=journal,
        max_body=limits.max_body,
        high_water=limits.high_water,
        disk=disk,
        per_minute=limits.per_minute,
        paces={
            domain: Pace(
                one.deliveries if one.deliveries is not None else limits.per_destination,
                one.per_minute if one.per_minute is not None else limits.per_minute,
            )
            for domain, one in limits.destinations.items()
        },
    )
