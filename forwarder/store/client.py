"""How do we talk to Redis or Valkey? The one module between redis-py and everything else.

redis-py's ordinary path hides an outage for 15 s (time limits and retries add up), and costs 160 to 200 us of CPU a
call. Its ``BlockingConnectionPool`` is not fair: with more callers than connections, one of them can wait until its
time is up while the others are served a thousand times. So this module keeps redis-py's connection (URL, TLS, AUTH,
RESP) and leaves out its client, pool, retries and packing (27 us where hiredis takes 5). What takes their place:

* One connection. Commands that wait leave together, in one write, and the replies come back in order. They wait for the
  replies to those before them, and for others as long as the loop has work (``forwarder.store.company``). What a next
  hop has taken does not wait (``at_once``): it joins the group whose replies are awaited, and leaves in the same moment
  (docs/decisions/0017).
* One time limit over connecting, writing and reading. A command is answered within ``timeout``, or within twice of
  that where it had to wait for a slow group before it. What is large has more: how long the server works on it says
  nothing of whether it answers.
* At most one second try, on a fresh connection, when the old one was found closed; never after a time-out, and never
  for a command that must not run twice.
* A circuit breaker (``forwarder.store.breaker``), and one border: every redis error leaves this module as
  ``StoreAway``.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Protocol

import hiredis
from redis.exceptions import AskError, MovedError, NoScriptError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from forwarder.ports import Journal, StoreAway, StoreUntouched
from forwarder.slices import let_others, slices
from forwarder.store.breaker import Breaker
from forwarder.store.company import gather_company
from forwarder.store.dial import PATIENCE, make_dial
from forwarder.store.url import Address, AnyConnection, StoreUrlError, describe_url, show

__all__ = [
    "PACKED_A_SLICE",
    "Commands",
    "Elsewhere",
    "Forbidden",
    "Script",
    "StoreClient",
    "StoreUrlError",
    "describe_url",
    "load_script",
]

Argument = bytes | str | int

#: Seconds, where the configuration names no others (``store_timeout``). A local store answers in 1 ms, one with a slow disk in
#: 50 ms; a mail session can afford this twice.
DEFAULT_TIMEOUT = 0.25
#: Seconds for which an unreachable store is not asked again.
DEFAULT_PAUSE = 0.5
#: Seconds by which a timer must be late to show that the loop was blocked, and what an answer gets then to be read.
LATE = 0.02
GRACE = 0.05
#: Seconds between two journal entries about the same refusal (a full store refuses every write of every message).
REFUSAL_SILENCE = 60.0
#: A group can be joined for this part of its time limit, up to so many commands, each of at most so many octets: who joins
#: has nearly as much time as who began, a group ends (others wait for that), and large values wait their turn.
JOINING, MOST_JOINED, JOINED_OCTETS = 0.2, 256, 16384
#: Octets of commands that a store on a busy machine works through in a second (the claims of a list of ten thousand have half as
#: many, and take a tenth of one as a rule), and seconds that large commands get for it on top, at the most.
SPEED, MOST_ON_TOP = 1_000_000, 1.0
#: Arguments that are written in one go.
PACKED_A_SLICE = 2000
#: Refusals that come before the first write of a command, and of a script that begins with ``#!lua`` (Redis 7.0).
_SAID_BEFORE = {
    *("OOM", "READONLY", "MISCONF", "NOREPLICAS", "LOADING", "MASTERDOWN", "NOAUTH", "NOPERM"),
    *("TRYAGAIN", "CLUSTERDOWN"),
}


class Elsewhere(StoreUntouched):
    """Another node of the cluster has the key; ``once``: only for this command (ASK)."""

    def __init__(self, text: str, address: Address, *, once: bool) -> None:
        super().__init__(text)
        self.address = address
        self.once = once


class Forbidden(StoreUntouched):
    """Our user may not do that there."""


class Commands(Protocol):
    """The store, as those ask it who keep something there: one server (``StoreClient``), or a cluster."""

    async def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[Argument] = (),
        *,
        again: bool = True,
        at_once: bool = False,
    ) -> Any:
        """Run a script. ``again=False``: it must not run twice, so a lost connection is not tried a second time. ``at_once``: it
        tells of what a next hop has taken, and does not wait for others' replies."""

    async def command(self, *command: Argument, again: bool = True, quiet: bool = False) -> Any:
        """Run one command, its key behind its name. Replies are bytes, int, None or lists of them. ``quiet``: a refusal is no
        event."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script of ``forwarder/store/scripts``, known to the server by the SHA-1 of its text."""

    name: str
    text: bytes
    sha: str


def load_script(name: str, *, behind: Sequence[str] = ()) -> Script:
    """The script in the file ``scripts/NAME.lua``; ``behind`` names those whose text goes before it, but for its first line:
    ``#!lua``, which tells the server what the script needs (Redis 7.0)."""
    folder = files("forwarder.store").joinpath("scripts")
    text = folder.joinpath(f"{name}.lua").read_bytes()
    if behind:
        flags, _, rest = text.partition(b"\n")
        text = b"\n".join((flags, *(folder.joinpath(f"{one}.lua").read_bytes() for one in behind), rest))
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


def _pack(command: Sequence[Argument]) -> bytes:
    packed: bytes = hiredis.pack_command(tuple(command))  # type: ignore[arg-type]  # its stub says "a tuple of one"
    return packed


def _behind_first_line(packed: bytes) -> memoryview:
    return memoryview(packed)[packed.index(b"\n") + 1 :]


async def _pack_in_slices(command: Sequence[Argument]) -> bytes:
    """The same. What a list's ten thousand are claimed and queued with has as many arguments, and some megabytes."""
    if len(command) <= PACKED_A_SLICE:
        return _pack(command)
    # Without the number of arguments that each slice begins with, and without a copy of what may be a body.
    pieces: list[bytes | memoryview] = [b"*%d\r\n" % len(command)]
    for at, some in slices(command, PACKED_A_SLICE):
        if at:
            await let_others()
        pieces.append(_behind_first_line(_pack(some)))
    return b"".join(pieces)


_ROLE = _pack(("ROLE",))


@dataclass(slots=True, eq=False)
class _Call:
    """A command on its way. ``again``: running it twice does no harm. ``quiet``: a refusal is no event."""

    packed: bytes
    again: bool
    answer: asyncio.Future[Any] = field(repr=False)
    quiet: bool = False


async def _write(connection: AnyConnection, packed: list[bytes]) -> None:
    """What the connection's own methods to write and read do beside that has its place here already (one time limit, errors of
    one kind), and costs more than to write and to read."""
    writer = connection._writer
    if writer is None:
        raise RedisConnectionError("hung up")
    writer.writelines(packed)
    await writer.drain()


def _read(connection: AnyConnection) -> Awaitable[Any]:
    """A reply. An error that the server replied is a value. Raises what redis-py and the socket raise."""
    parser: Any = connection._parser
    reply: Awaitable[Any] = parser.read_response()
    return reply


async def _demand_reply(connection: AnyConnection) -> Any:
    reply = await _read(connection)
    if isinstance(reply, Exception):
        raise reply
    return reply


class _UnknownScript(Exception):
    """The server has not seen this script (since it was started, or since SCRIPT FLUSH)."""


class _TooFewCopies(RedisError):
    """Fewer replicas than demanded have acknowledged the write."""


@asynccontextmanager
async def _time_limit(seconds: float) -> AsyncIterator[None]:
    """``asyncio.timeout``, except that a time limit which our own loop slept through is no verdict on the store.

    After the loop was blocked (a huge message, a busy machine) timers run before the bytes that came meanwhile are read.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    async with asyncio.timeout(None) as limit:

        def time_is_up() -> None:
            was_late = loop.time() - deadline > LATE
            limit.reschedule(loop.time() + (GRACE if was_late else 0))

        timer = loop.call_at(deadline, time_is_up)
        try:
            yield
        finally:
            timer.cancel()


class StoreClient:
    """Commands and scripts on one server. Everything raises ``StoreAway`` and no other error of the store's.

    ``patience``: seconds for one sentinel, or one server that it names. ``replicas``: a write counts only when so many
    replicas have it (WAIT, on the same connection as the write). ``scout``: another client of the same server, with less
    patience: what that one finds away is asked here by one call at a time, and if that is answered the server is only slow.
    ``node``: that one of a cluster. Raises StoreUrlError.
    """

    def __init__(
        self,
        url: str,
        *,
        journal: Journal,
        timeout: float = DEFAULT_TIMEOUT,
        pause: float = DEFAULT_PAUSE,
        patience: float = PATIENCE,
        replicas: int = 0,
        scout: StoreClient | None = None,
        node: Address | None = None,
    ) -> None:
        self._dial = make_dial(url, timeout, patience, replicas, node)
        self._connection: AnyConnection | None = None
        #: For the log.
        self.where = describe_url(url) if node is None else show(node)
        self._journal = journal
        self._timeout = timeout
        #: One of those that wait must not wait for company.
        self._hurried = False
        self._breaker = Breaker(pause)
        self._scout = scout
        self._answered_at = self._look_at = 0.0
        self._replicas = replicas
        self.demand(replicas)
        self._waiting: list[_Call] = []
        #: The group whose replies are being read, where it can be joined, and until when.
        self._joinable: list[_Call] | None = None
        self._join_until = 0.0
        self._worker: asyncio.Task[None] | None = None
        self._refusals: dict[str, float] = {}
        self._closed = False
        #: Who wants to know how long an operation took, and whether it was answered.
        self.watch: Callable[[str, float, bool], None] | None = None

    async def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[Argument] = (),
        *,
        again: bool = True,
        at_once: bool = False,
    ) -> Any:
        """Run a script. ``again=False``: it must not run twice, so a lost connection is not tried a second time.
        ``at_once``: it tells of what a next hop has taken, and each moment before the store has it is one in which a crash
        makes a second copy. It does not wait for the replies to others; that costs a write and an fsync more."""
        asking = self._run(script, keys, arguments, again, at_once)
        return await (asking if self.watch is None else self._watched(self.watch, script.name, asking))

    async def _run(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument], again: bool, at_once: bool
    ) -> Any:
        command = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        packed = _pack(command) if len(command) <= PACKED_A_SLICE else await _pack_in_slices(command)
        try:
            return await self._asked(packed, again, at_once=at_once)
        except _UnknownScript:
            # It did not run. EVAL carries the text and leaves it with the server: no loop is possible.
            packed = await _pack_in_slices(("EVAL", script.text, *command[2:]))
            return await self._asked(packed, again, at_once=at_once)

    async def command(self, *command: Argument, again: bool = True, quiet: bool = False) -> Any:
        """Run one command. Replies are bytes, int, None or lists of them. ``quiet``: a refusal is no event."""
        asking = self._command(command, again, quiet)
        return await (asking if self.watch is None else self._watched(self.watch, "command", asking))

    @property
    def is_away(self) -> bool:
        """Is the server known not to answer?"""
        return self._breaker.is_open

    def demand(self, replicas: int) -> None:
        """From now on a write counts when so many replicas have it: fewer than configured where there are no more to wait for.
        Then the primary is asked each time whether another one has come (ROLE)."""
        self._demanded = replicas

    def _wait(self, replicas: int) -> bytes:
        # WAIT gives up well before we do: servers look at their blocked clients ten times a second only.
        return _pack(("WAIT", replicas, max(1, int(self._timeout * 500))))

    def _is_known_away(self, now: float) -> bool:
        """By what the scout found, and nobody was answered here since."""
        scout = self._scout
        if scout is None or not scout._breaker.refuses(now) or self._answered_at > scout._breaker.since:
            return False
        if now < self._look_at:
            return True
        self._look_at = now + self._timeout
        return False

    @property
    def replicas(self) -> int:
        """How many must have a write now."""
        return self._demanded

    async def primaries(self) -> list[StoreClient]:
        """As of a cluster: this one."""
        return [self]

    async def close(self) -> None:
        """Fail what is under way and hang up."""
        self._closed = True
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            # A worker that was cancelled before its first step told nobody.
            self._fail(self._waiting, StoreAway(f"{self.where}: closed"))
        await self._hang_up()

    async def _watched(self, watch: Callable[[str, float, bool], None], name: str, asking: Awaitable[Any]) -> Any:
        began, answered = time.perf_counter(), False
        try:
            answer = await asking
            answered = True
        finally:
            watch(name, time.perf_counter() - began, answered)
        return answer

    async def _command(self, command: Sequence[Argument], again: bool, quiet: bool) -> Any:
        return await self._asked(await _pack_in_slices(command), again, quiet=quiet)

    def _asked(self, packed: bytes, again: bool, *, quiet: bool = False, at_once: bool = False) -> asyncio.Future[Any]:
        """On its way from now on. Raises StoreUntouched."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._closed or self._is_known_away(now) or not self._breaker.admits(now):
            raise StoreUntouched(f"{self.where} does not answer")
        call = _Call(packed, again, loop.create_future(), quiet)
        if not (at_once and self._join(call, now)):
            self._waiting.append(call)
            self._hurried |= at_once
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return call.answer

    # --- the worker: one group of commands after the other ---

    def _count_waiting(self) -> int:
        return len(self._waiting)

    def _is_hurried(self) -> bool:
        return self._hurried

    async def _work(self) -> None:
        while self._waiting:
            await gather_company(self._count_waiting, self._is_hurried)
            self._hurried = False
            group, self._waiting = self._waiting, []
            try:
                on_top = sum([len(one.packed) for one in group]) / SPEED
                async with _time_limit(self._timeout + min(on_top, MOST_ON_TOP)):
                    await self._exchange(group)
            except Exception as error:  # noqa: BLE001  (see below)
                # Whatever it was, nobody may wait for ever: neither these nor those that came after them.
                await self._give_up(group, error)
            except asyncio.CancelledError:
                self._fail(group + self._waiting, StoreAway(f"{self.where}: closed"))
                raise
            else:
                self._answered_at = asyncio.get_running_loop().time()
                if self._breaker.worked():
                    self._journal.event("store_back", store=self.where)

    async def _exchange(self, group: list[_Call]) -> None:
        """``group`` may grow meanwhile."""
        was_connected = self._connection is not None and self._connection.is_connected
        try:
            read_only = await self._send(group)
        except (RedisConnectionError, OSError):
            if not was_connected:
                raise
            # A server that was restarted has closed our connection. A second try tells that from an outage.
            await self._hang_up()
            once = [call for call in group if not call.again]
            group[:] = [call for call in group if call.again and not call.answer.done()]
            self._fail(once, StoreAway(f"{self.where}: connection lost"))
            read_only = await self._send(group)
        if read_only:
            await self._hang_up()  # a fail-over: the name may lead to the new primary now

    async def _send(self, group: list[_Call]) -> bool:
        """One write, then a reply for each call, and for those that join. True: a reply says that the server is read-only."""
        connection = self._connection
        if connection is not None and connection.is_connected and await connection.can_read():
            await self._hang_up()  # closed by the server while we were silent
        if connection is None or not connection.is_connected:
            connection = await self._open()
        if not group:
            return False
        packed = [call.packed for call in group]
        if self._replicas:
            return await self._send_for_copies(connection, group, packed)
        await _write(connection, packed)
        try:
            self._let_join(group)
            read_only = False
            for call in group:
                reply = await _read(connection)
                self._give(call, reply)
                read_only |= isinstance(reply, ReadOnlyError)
            return read_only
        finally:
            self._joinable = None

    async def _open(self) -> AnyConnection:
        opened = await self._dial.open()
        if opened.copies is not None:
            self.demand(opened.copies)
        self._connection = opened.connection
        return opened.connection

    async def _send_for_copies(self, connection: AnyConnection, group: list[_Call], packed: list[bytes]) -> bool:
        """As WAIT speaks for all that was written before it, nobody joins, and nobody is answered before it."""
        demanded = self._demanded
        if demanded:
            packed.append(self._wait(demanded))
        if demanded < self._replicas:
            packed.append(_ROLE)
        await _write(connection, packed)
        replies = [await _read(connection) for _ in group]
        if demanded:
            await self._count_copies(connection, demanded)
        if demanded < self._replicas:
            role = await _demand_reply(connection)
            online = min(self._replicas, len(role[2]) if role[0] == b"master" else 0)
            if online > demanded:
                # It came a moment ago, and may be promoted in the next.
                self.demand(online)
                await _write(connection, [self._wait(online)])
                await self._count_copies(connection, online)
        for call, reply in zip(group, replies, strict=True):
            self._give(call, reply)
        return any(isinstance(reply, ReadOnlyError) for reply in replies)

    async def _count_copies(self, connection: AnyConnection, demanded: int) -> None:
        copies = await _demand_reply(connection)
        if copies < demanded:
            raise _TooFewCopies(f"{copies} of {demanded} replicas have the write")

    def _let_join(self, group: list[_Call]) -> None:
        self._joinable = group
        self._join_until = asyncio.get_running_loop().time() + self._timeout * JOINING

    def _join(self, call: _Call, now: float) -> bool:
        """False: it has to wait until the replies that are awaited have come."""
        group, connection = self._joinable, self._connection
        if group is None or connection is None or now > self._join_until:
            return False
        writer = connection._writer
        if writer is None:
            return False
        if len(call.packed) > JOINED_OCTETS or len(group) >= MOST_JOINED:
            return False
        try:
            writer.write(call.packed)
        except RuntimeError:
            # uvloop's word for a connection that has just gone; whoever reads from it hears of that in a moment.
            return False
        group.append(call)
        return True

    def _give(self, call: _Call, reply: Any) -> None:
        if call.answer.done():
            return  # the caller was cancelled
        if isinstance(reply, Exception):
            call.answer.set_exception(self._refusal(reply, quiet=call.quiet))
        else:
            call.answer.set_result(reply)

    # --- what to say when it fails ---

    async def _give_up(self, group: list[_Call], error: Exception) -> None:
        # Too few copies, too: there may be another primary by now, or another number of replicas to wait for.
        await self._hang_up()
        match error:
            case TimeoutError():
                reason = "timeout"
            case _TooFewCopies():
                reason = str(error)
            case _:
                reason = f"{type(error).__name__}: {error}"[:200]
        if self._breaker.failed(asyncio.get_running_loop().time()):
            self._journal.event("store_away", store=self.where, reason=reason)
        group, self._waiting = group + self._waiting, []
        self._fail(group, StoreAway(f"{self.where}: {reason}"))

    def _fail(self, group: list[_Call], error: StoreAway) -> None:
        for call in group:
            if not call.answer.done():
                call.answer.set_exception(error)

    def _refusal(self, error: Exception, *, quiet: bool) -> Exception:
        """READONLY, OOM, MISCONF, NOAUTH, CLUSTERDOWN, an error in a script: the server answers, and says no."""
        if isinstance(error, NoScriptError):
            return _UnknownScript()
        if isinstance(error, AskError):  # MovedError is one
            told = f"{self.where}: {error}"[:200]
            return Elsewhere(told, (error.host or "", error.port), once=not isinstance(error, MovedError))
        word = getattr(error, "status_code", None) or str(error).partition(" ")[0]
        reason = f"{word}: {error}"[:200]
        now = asyncio.get_running_loop().time()
        if not quiet and now >= self._refusals.get(word, now):
            self._refusals[word] = now + REFUSAL_SILENCE
            self._journal.event("store_refused", store=self.where, reason=reason)
        kind = StoreUntouched if word in _SAID_BEFORE else StoreAway
        return (Forbidden if word == "NOPERM" else kind)(f"{self.where}: {reason}")

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.disconnect(nowait=True)
        except Exception:  # noqa: BLE001 - the connection is gone either way, and whoever waits must be told
            return
