"""What were the lives of messages? ``ports.Traces`` on Redis.

Kinds of keys (names: ``forwarder.store.records``), each for as many seconds as traces are kept:

    l  life     list: sealed groups of events of one message, in their order, at most MAX_GROUPS
    i  index    string: ids of messages that an address, a Message-ID or a queue item leads to, in their order, at most
                INDEX_OCTETS of them

A busy alias keeps its latest messages only, so that nobody's mail can fill the store with another's index.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from typing import Any

import msgspec

from forwarder.model import Address
from forwarder.ports import Journal, Traced, TraceEvent
from forwarder.store.client import Commands, load_script
from forwarder.store.ledger import RedisLedger
from forwarder.store.records import UNREADABLE, VERSION, Names

__all__ = ["RedisTraces"]

MAX_GROUPS = 200
#: Some five hundred ids.
INDEX_OCTETS = 8192
#: Keys that one message is found by.
MAX_NAMES = 20
#: Events and octets of one group: what strangers write is long in one of a thousand, and so is what names a list's destinations.
MAX_EVENTS = 20
MAX_OCTETS = 32 * 1024
_TAG = 8

_TRACE = load_script("trace")


class _Group(msgspec.Struct, array_like=True, frozen=True):
    """An Address among the fields is a map of its two parts."""

    events: list[TraceEvent]
    dropped: int = 0


_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
_decode = msgspec.msgpack.Decoder(_Group).decode


class RedisTraces:
    """The names come from the ledger, which knows the salt. ``keep`` in seconds."""

    def __init__(self, client: Commands, ledger: RedisLedger, *, journal: Journal, keep: int) -> None:
        self._client = client
        self._ledger = ledger
        self._journal = journal
        self._keep = keep

    async def append(self, lives: Sequence[Traced]) -> None:
        """See ``ports.Traces``. A lost connection may keep a group twice."""
        names = await self._ledger.names()
        keys: list[bytes] = []
        groups: list[bytes] = []
        for one in lives:
            key = names.key(b"l", one.id)
            for at in range(0, len(one.events) or 1, MAX_EVENTS):
                if at:
                    # A list's life is long, and mail goes on meanwhile.
                    await asyncio.sleep(0)
                sealed = _seal(names, key, one, at)
                groups += sealed
                keys += [key] * len(sealed)
        found_by: dict[str, list[str]] = {}
        for one in lives:
            for name in one.found_by()[:MAX_NAMES]:
                found_by.setdefault(name, []).append(one.id)
        indexes = [names.key(b"i", name) for name in found_by]
        ids = [" ".join((*each, "")) for each in found_by.values()]
        arguments: list[bytes | str | int] = [self._keep, MAX_GROUPS, INDEX_OCTETS, len(groups), *groups, *ids]
        await self._client.run(_TRACE, (*keys, *indexes), arguments)

    async def find(self, name: str) -> Sequence[str]:
        """See ``ports.Traces``."""
        names = await self._ledger.names()
        found = await self._client.command("GET", names.key(b"i", name))
        ids = (found or b"").decode("ascii", "replace").split()
        return list(dict.fromkeys(reversed(ids)))

    async def read(self, id: str) -> Traced | None:  # noqa: A002 - what the envelope calls it
        """See ``ports.Traces``."""
        names = await self._ledger.names()
        key = names.key(b"l", id)
        groups = await self._client.command("LRANGE", key, 0, -1)
        if not groups:
            return None
        life = Traced(id)
        for value in groups:
            group = _open(names, key, value)
            if group is None:
                self._journal.event("store_value_unreadable", kind="trace")
                life.dropped += 1
                continue
            life.events += [_event(one) for one in group.events]
            life.dropped += group.dropped
        return life


def _seal(names: Names, key: bytes, one: Traced, at: int) -> list[bytes]:
    """Its events from ``at`` on, MAX_EVENTS of them."""
    contents = _groups(one.events[at : at + MAX_EVENTS], 0 if at else one.dropped)
    return [VERSION + names.tag(key, content) + content for content in contents]


def _groups(events: list[TraceEvent], dropped: int) -> list[bytes]:
    """What is too long for one group is several, as long as it can be parted: a list's destinations fill some."""
    try:
        content = _encode(_Group(events, dropped))
    except (UnicodeEncodeError, OverflowError):
        # Half a character, or a number that no machine counts: strangers wrote it.
        content = b""
    if 0 < len(content) <= MAX_OCTETS:
        return [content]
    if len(events) <= 1:
        return [_encode(_Group([], len(events) + dropped))]
    middle = len(events) // 2
    return [*_groups(events[:middle], dropped), *_groups(events[middle:], 0)]


def _open(names: Names, key: bytes, value: bytes) -> _Group | None:
    content = value[1 + _TAG :]
    if value[:1] != VERSION or not hmac.compare_digest(value[1 : 1 + _TAG], names.tag(key, content)):
        return None
    try:
        return _decode(content)
    except UNREADABLE:
        return None


def _event(one: TraceEvent) -> TraceEvent:
    return one._replace(fields={name: _value(value) for name, value in one.fields.items() if value is not None})


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(one) for one in value]
    if isinstance(value, dict):
        return Address(str(value.get("local")), str(value.get("domain")))
    return value.decode("latin-1") if isinstance(value, bytes) else value
