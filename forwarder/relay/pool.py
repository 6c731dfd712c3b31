"""Which connection carries the next message? Open ones are used again; so many to one address and no more, in turn.

A slot is the right to have one connection to an address under one TLS policy. ``acquire`` waits for a slot, first come first
served, and hands out an idle connection with it where there is one; ``release`` gives the slot back with the connection,
which is kept if it can take another message. The source address is the same for all connections to an address, so it is no
part of the key.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from forwarder.relay.connection import Connection
from forwarder.relay.mx import Target
from forwarder.relay.settings import RelaySettings
from forwarder.relay.tls import TlsPolicy

__all__ = ["Key", "Pool", "key_of"]

Key = tuple[str, int, TlsPolicy]

#: Seconds between looks for connections that have been idle too long.
_SWEEP = 5.0
#: Addresses remembered as out of reach. The oldest is forgotten first.
_MAX_UNREACHABLE = 4096


def key_of(target: Target, policy: TlsPolicy) -> Key:
    """What makes two connections interchangeable."""
    return target.address, target.port, policy


@dataclass(slots=True)
class _Peer:
    """One key: the slots in use, who waits for one, and the idle connections, the latest used last."""

    busy: int = 0
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)
    idle: list[Connection] = field(default_factory=list)


class Pool:
    """Belongs to one event loop."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._peers: dict[Key, _Peer] = {}
        self._idle_count = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._leaving: set[Connection] = set()
        self._closed = False
        self._unreachable: OrderedDict[tuple[str, int], float] = OrderedDict()
        #: How often a message found a connection that was open.
        self.reused = 0

    @property
    def idle(self) -> int:
        """Connections that wait for a message."""
        return self._idle_count

    @property
    def busy(self) -> int:
        """Connections that carry one, or are being opened for it."""
        return sum(peer.busy for peer in self._peers.values())

    async def acquire(self, key: Key) -> Connection | None:
        """A slot, and an idle connection or ``None``. Raises TimeoutError when all slots stay busy for too long."""
        peer = self._peers.get(key)
        if peer is None:
            peer = self._peers[key] = _Peer()
        if peer.busy < self._settings.connections and not peer.waiters:
            peer.busy += 1
        else:
            await self._wait(key, peer)
        while peer.idle:
            self._idle_count -= 1
            connection = peer.idle.pop()
            if connection.usable:
                self.reused += 1
                return connection
        return None

    def release(self, key: Key, connection: Connection | None) -> None:
        """Give the slot back; ``connection`` may be ``None``, dead, or good for another message."""
        peer = self._peers[key]
        if connection is not None:
            now = asyncio.get_running_loop().time()
            if self._may_stay(connection, now):
                connection.idle_since = now
                peer.idle.append(connection)
                self._idle_count += 1
                self._start_sweeper()
            else:
                self._leave(connection)
        self._hand_on(key, peer)

    def has_idle(self, key: Key) -> bool:
        """Is there a connection that needs no opening?"""
        peer = self._peers.get(key)
        return peer is not None and any(one.usable for one in peer.idle)

    # --- addresses out of reach

    def note_unreachable(self, target: Target) -> None:
        """There was no TCP connection just now."""
        until = asyncio.get_running_loop().time() + self._settings.unreachable
        self._unreachable[target.address, target.port] = until
        self._unreachable.move_to_end((target.address, target.port))
        if len(self._unreachable) > _MAX_UNREACHABLE:
            self._unreachable.popitem(last=False)

    def is_unreachable(self, target: Target) -> bool:
        """Was it out of reach a moment ago?"""
        if not self._unreachable:
            return False
        until = self._unreachable.get((target.address, target.port))
        return until is not None and until > asyncio.get_running_loop().time()

    # --- end

    async def close(self) -> None:
        """Say QUIT everywhere, and wait for it as long as ``Timeouts.quit``."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for peer in self._peers.values():
            for connection in peer.idle:
                self._leave(connection)
            peer.idle.clear()
        self._idle_count = 0
        leaving = list(self._leaving)
        if leaving:
            await asyncio.wait([one.gone for one in leaving], timeout=self._settings.timeouts.quit)
        for connection in leaving:
            connection.abort()

    # --- slots

    async def _wait(self, key: Key, peer: _Peer) -> None:
        waiter = asyncio.get_running_loop().create_future()
        peer.waiters.append(waiter)
        try:
            async with asyncio.timeout(self._settings.timeouts.slot):
                await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                # The slot came in the same moment as the end of patience.
                self._hand_on(key, peer)
            elif waiter in peer.waiters:
                peer.waiters.remove(waiter)
                self._forget_if_unused(key, peer)
            raise

    def _hand_on(self, key: Key, peer: _Peer) -> None:
        while peer.waiters:
            waiter = peer.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        peer.busy -= 1
        self._forget_if_unused(key, peer)

    def _forget_if_unused(self, key: Key, peer: _Peer) -> None:
        if not peer.busy and not peer.idle and not peer.waiters:
            self._peers.pop(key, None)

    # --- idle connections

    def _may_stay(self, connection: Connection, now: float) -> bool:
        settings = self._settings
        return (
            connection.usable
            and not self._closed
            and connection.messages < settings.connection_messages
            and self._idle_count < settings.idle_connections
            and now - connection.opened_at < settings.connection_age
        )

    def _leave(self, connection: Connection) -> None:
        connection.close()
        if not connection.gone.done() and connection not in self._leaving:
            self._leaving.add(connection)
            connection.gone.add_done_callback(lambda _: self._leaving.discard(connection))

    def _start_sweeper(self) -> None:
        if self._sweeper is None and not self._closed:
            self._sweeper = asyncio.get_running_loop().call_later(min(_SWEEP, self._settings.idle), self._sweep)

    def _sweep(self) -> None:
        """Let go of what has been idle for too long, and of what the other side has closed."""
        self._sweeper = None
        limit = asyncio.get_running_loop().time() - self._settings.idle
        for key, peer in list(self._peers.items()):
            keep = [one for one in peer.idle if one.usable and one.idle_since > limit]
            for connection in peer.idle:
                if connection not in keep:
                    self._leave(connection)
            peer.idle = keep
            self._forget_if_unused(key, peer)
        self._idle_count = sum(len(peer.idle) for peer in self._peers.values())
        if self._idle_count:
            self._start_sweeper()
