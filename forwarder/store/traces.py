"""What were the lives of messages? ``ports.Traces`` on Redis.

Kinds of keys (names: ``forwarder.store.records``), each for as many seconds as traces are kept:

    l  life     list: sealed groups of events of one message, in their order, at most MAX_GROUPS
    i  index    string: ids of messages that an address, a Message-ID or a queue item leads to, in their order, at most
                INDEX_OCTETS of them

A busy alias keeps its latest messages only, so that nobody's mail can fill the store with another's index.
"""

from __future__ import annotations

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
#: Octets of one group: what strangers write is long in one of a thousand.
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
        keys = [names.key(b"l", one.id) for one in lives]
        groups = [_seal(names, key, one) for key, one in zip(keys, lives, strict=True)]
        found_by: dict[str, list[str]] = {}
        for one in lives:
            for name in sorted(one.found_by())[:MAX_NAMES]:
                found_by.setdefault(name, []).append(one.id)
        indexes = [names.key(b"i", name) for name in found_by]
        ids = [" ".join((*each, "")) for each in found_by.values()]
        arguments: list[bytes | str | int] = [self._keep, MAX_GROUPS, INDEX_OCTETS, len(lives), *groups, *ids]
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


def _seal(names: Names, key: bytes, one: Traced) -> bytes:
    try:
        content = _encode(_Group(one.events, one.dropped))
    except (UnicodeEncodeError, OverflowError):
        # Half a character, or a number that no machine counts: strangers wrote it.
        content = b""
    if not 0 < len(content) <= MAX_OCTETS:
        content = _encode(_Group([], len(one.events) + one.dropped))
    return VERSION + names.tag(key, content) + content


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
    if isinstance(value, dict):
        return Address(str(value.get("local")), str(value.get("domain")))
    return value.decode("latin-1") if isinstance(value, bytes) else value
