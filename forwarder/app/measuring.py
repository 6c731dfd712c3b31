"""What is measured in this process, and who may ask? Everything around ``forwarder.metrics`` and the listener that shows it.

Events count by themselves. What has no event (sizes, connections, caches) is read once a second, and then the numbers are left
where all workers' are. The listener is open from before the store is until after the last message: it says what is being waited
for.
"""

from __future__ import annotations

import asyncio
import functools
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forwarder import __version__
from forwarder.app.errors import StartError
from forwarder.app.generation import Generation, Ground
from forwarder.app.sockets import Key, Listening, Sockets, name_of
from forwarder.app.state import Store
from forwarder.auth.keyrecord import parse_key_record
from forwarder.config import Settings
from forwarder.keys.multibuffer import Lanes
from forwarder.metrics import CountedKeys, CountingJournal, NumberFiles, Numbers, clear
from forwarder.metrics.providers import Providers
from forwarder.metrics.tally import Ticks
from forwarder.ports import Journal, KeyRing, QueueSize, StoreAway
from forwarder.store.queue import RedisQueue

if TYPE_CHECKING:
    from forwarder.web.server import WebServer

__all__ = ["Look", "Measuring", "clear_numbers"]

#: Seconds between looks at the clock of the event loop, and looks between two writings.
_TICK, _TICKS = 0.25, 4
#: Seconds within which the store must say what it holds, for a scrape, and that it is there.
_PATIENCE = 2.0


def numbers_of(settings: Settings) -> Path:
    """Where workers leave them."""
    return settings.state_dir / "metrics"


def clear_numbers(settings: Settings) -> None:
    """Of earlier runs; once, before the first worker writes. Raises StartError."""
    folder = numbers_of(settings)
    try:
        clear(folder)
    except OSError as error:
        raise StartError(f"metrics: cannot write to {folder}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Look:
    """What there is to measure. ``ground`` is ``None`` before the store is open."""

    ground: Ground | None
    generations: Sequence[Generation]
    is_stopping: bool
    is_listening: bool


class _Growing:
    """A total over parts that come and go, each of which counts from nothing."""

    def __init__(self) -> None:
        self.total = 0
        self._last: dict[int, int] = {}

    def take(self, parts: dict[int, int]) -> int:
        """``parts``: what each of those that are there has counted, by its ``id``."""
        # Another part may come to lie where one was: then it has counted less.
        for one, count in parts.items():
            last = self._last.get(one, 0)
            self.total += count - last if count >= last else count
        self._last = parts
        return self.total


class Measuring:
    """Of one process. ``journal`` is what counts, in front of the one that is given."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        look: Callable[[], Look],
        open_one: Callable[[Key], Listening],
        *,
        alone: bool = True,
    ) -> None:
        """``open_one``: see ``Sockets``. Not ``alone``: there are other workers, and their parent has emptied the folder."""
        self._settings = settings
        self._alone = alone
        self._look = look
        self._folder = numbers_of(settings)
        self._numbers = Numbers()
        self._signatures: dict[tuple[str, str], Ticks] = {}
        self._files = NumberFiles(self._folder, self._numbers, self._signatures)
        self.journal = CountingJournal(journal, self._numbers, Providers(settings.metrics.providers), time.perf_counter)
        self._growing = {name: _Growing() for name in ("hits", "misses", "stale", "failures", "queries", "reused")}
        self._sockets = Sockets(open_one)
        self._web: WebServer | None = None
        self._store: Store | None = None
        self._queue: RedisQueue | None = None
        self._task: asyncio.Task[None] | None = None
        self._unwritten = False
        #: Where numbers are served: "ip:port".
        self.addresses: tuple[str, ...] = ()

    def counted(self, keys: KeyRing) -> KeyRing:
        """The same keys, with a count of what they sign."""
        return CountedKeys(keys, self._signatures)

    # --- its life

    async def listen(self) -> None:
        """From now on somebody can ask. Raises StartError."""
        # aiohttp takes long to import.
        from forwarder.metrics.page import CONTENT_TYPE  # noqa: PLC0415
        from forwarder.web.server import WebServer  # noqa: PLC0415
        from forwarder.web.status import status_routes  # noqa: PLC0415

        if self._alone:
            clear_numbers(self._settings)
        self._sockets.adopt(self._sockets.bind(self._settings.metrics.listen))
        routes = status_routes(self._page, CONTENT_TYPE, self._state, self._settings.metrics.allow)
        self._web = WebServer(routes, None, self.journal)
        await self._web.start([one.sock.dup() for one in self._sockets.bound])
        self.addresses = tuple(name_of(one.sock) for one in self._sockets.bound)
        self._task = asyncio.create_task(self._run())

    def start(self, store: Store) -> None:
        """The store is open."""
        self._store = store
        store.watch(self._note_store)
        self._queue = store.queue(self._settings, store.ledger(self._settings))

    async def stop(self) -> None:
        """Safe to call at any time."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._write()
        if self._web is not None:
            await self._web.stop()
        self._sockets.close()
        self._files.close()

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            for _ in range(_TICKS):
                due = now() + _TICK
                await asyncio.sleep(_TICK)
                self._numbers.loop_lag.observe(max(0.0, now() - due))
            self._write()

    # --- numbers

    def _note_store(self, operation: str, seconds: float, answered: bool) -> None:
        self._numbers.store.observe(seconds, operation)
        if not answered:
            self._numbers.store_failed.add(operation)

    def _write(self) -> None:
        try:
            self._read()
            self._files.write()
            self._unwritten = False
        except OSError as error:
            # A full disk: the numbers go on in memory.
            if not self._unwritten:
                self.journal.event("metrics.not_written", reason=str(error))
            self._unwritten = True

    def _read(self) -> None:
        """What has no event."""
        look, numbers = self._look(), self._numbers
        numbers.workers.set(to=1)
        if self._store is not None:
            numbers.store_up.set(to=0 if self._store.is_away else 1)
        if look.ground is not None:
            numbers.sessions.set("mail", to=len(look.ground.inbound.sessions))
            numbers.sessions.set("submission", to=len(look.ground.users.sessions))
            numbers.in_flight.set(to=look.ground.budget.held)
            numbers.under_way.set(to=len(look.ground.under_way.attempts))
        resolvers = {id(one.resolver): one.resolver for one in look.generations}
        for name in ("hits", "misses", "stale", "failures", "queries"):
            count = self._growing[name].take({one: getattr(part.stats, name) for one, part in resolvers.items()})
            if name == "queries":
                numbers.dns_queries.values[()] = count
            else:
                numbers.cache.values["dns", name] = count
        numbers.cache_size.set("dns", to=sum(len(one) for one in resolvers.values()))
        keys = parse_key_record.cache_info()
        numbers.cache.values["key", "hits"], numbers.cache.values["key", "misses"] = keys.hits, keys.misses
        numbers.cache_size.set("key", to=keys.currsize)
        pools = {id(one.relay.pool): one.relay.pool for one in look.generations}
        numbers.pool.set("idle", to=sum(one.idle for one in pools.values()))
        numbers.pool.set("busy", to=sum(one.busy for one in pools.values()))
        reused = self._growing["reused"].take({one: part.reused for one, part in pools.items()})
        numbers.pool_used.values["reused",] = reused
        for one in look.generations:
            # One for the process, whichever generation names it.
            if isinstance(one.material.lanes, Lanes):
                for size, count in one.material.lanes.sizes.items():
                    numbers.batches.values[str(size),] = count
        numbers.pool_used.values["opened",] = numbers.connections.values.get(("opened",), 0)

    # --- who asks

    async def _page(self) -> bytes:
        from forwarder.metrics.page import Seen, render  # noqa: PLC0415

        seen = Seen(await self._size(), {"version": __version__, "python": platform.python_version()})
        self._write()
        return await asyncio.to_thread(functools.partial(render, self._folder, seen))

    async def _size(self) -> QueueSize | None:
        if self._queue is None:
            return None
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._queue.size()
        except (StoreAway, TimeoutError):
            return None

    async def _state(self) -> tuple[str | None, str | None]:
        """Why nothing can be taken here now, and what does not go as it should; ``None``: all is well."""
        look = self._look()
        if look.is_stopping:
            return "stopping", None
        if self._store is None or not look.is_listening:
            return "starting", None
        try:
            # As long as mail would wait.
            async with asyncio.timeout(max(_PATIENCE, 2 * self._settings.store_timeout)):
                await self._store.ping()
        except (StoreAway, TimeoutError):
            return None, "the store does not answer: only mail that finishes in session is taken"
        return None, None
