"""What were the lives of messages? ``ports.Traces`` on Redis.

Kinds of keys (names: ``forwarder.store.records``), each for as many seconds as traces are kept:

    l  life     list: sealed groups of events of one message, in their order, at most MAX_GROUPS
    i  index    string: ids of messages that an address, a Message-ID or a queue item leads to, in their order, at most
                INDEX_OCTETS of them

A busy alias keeps its latest messages only, so that nobody's mail can fill the store with another's index.

On one server all of it has the hash tag of everything else, and leaves in one script. In a cluster each life and each index has
one of CLUSTER_TAGS, by its name, so that every primary keeps its share; a trip is a script for each tag, all at once, and what
one primary does not take is tried again by itself (docs/decisions/0044).
"""

from __future__ import annotations

import asyncio
import hmac
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from forwarder.model import Address
from forwarder.ports import Journal, StoreAway, StoreUntouched, Traced, TraceEvent
from forwarder.store.acl import KEYS
from forwarder.store.client import Commands, Forbidden, load_script
from forwarder.store.cluster import even_tags
from forwarder.store.ledger import RedisLedger
from forwarder.store.records import HASH_TAG, UNREADABLE, VERSION, Names

__all__ = ["CLUSTER_TAGS", "RedisTraces"]

#: Another number loses all traces from view: names in the store have it. Even for 64 primaries, and no more scripts a trip than
#: that (docs/decisions/0044).
CLUSTER_TAGS = even_tags(128)
#: Seconds until it is tried again whether our user may touch them.
RIGHTS_AGAIN = 600.0
#: Seconds of a trip that tell of a server which is silent, and for how many times as long it is not asked again. One that is
#: closed says so at once, and one that is full, too.
SILENT, ASIDE = 1.0, 3.0

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


@dataclass(slots=True)
class _Part:
    """What is put under one hash tag, in one step."""

    ids: list[str] = field(default_factory=list)
    #: A list's key for each group.
    keys: list[bytes] = field(default_factory=list)
    groups: list[bytes] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    #: An index's key for each name, and what is added there.
    indexes: list[bytes] = field(default_factory=list)
    leads: list[str] = field(default_factory=list)


class RedisTraces:
    """The names come from the ledger, which knows the salt. ``client`` demands no copies: a trace that only the primary has is
    kept, and to say it again would keep it twice. ``keep`` in seconds. ``tags``: where the store is a cluster,
    ``CLUSTER_TAGS``."""

    def __init__(
        self,
        client: Commands,
        ledger: RedisLedger,
        *,
        journal: Journal,
        keep: int,
        tags: Sequence[bytes] = (HASH_TAG,),
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._journal = journal
        self._keep = keep
        self._tags = tags
        self._spread_at = 0.0
        #: Tags that are left without asking until then.
        self._aside: set[bytes] = set()
        self._aside_until = 0.0

    @property
    def is_spread(self) -> bool:
        """Do they lie at several servers, each of which may be away by itself?"""
        return len(self._tags) > 1

    async def append(self, lives: Sequence[Traced], *, last: bool = False) -> Sequence[Traced]:
        """See ``ports.Traces``. A lost connection may keep a group twice. Where our user may not touch the other tags, all lie
        under the one of everything else."""
        names = await self._ledger.names()
        now = asyncio.get_running_loop().time()
        if not self.is_spread or now < self._spread_at:
            await self._keep_together(names, lives)
            return ()
        if last:
            self._aside.clear()
        left, forbidden = await self._keep_apart(names, lives)
        if forbidden is None:
            return left
        self._spread_at = now + RIGHTS_AGAIN
        self._journal.event("trace.not_spread", reason=str(forbidden), keys=KEYS, see="forwarder store acl")
        with suppress(StoreAway):
            await self._keep_together(names, left)
            return ()
        return left

    async def find(self, name: str) -> Sequence[str]:
        """See ``ports.Traces``."""
        names = await self._ledger.names()

        async def ask(key: bytes) -> Any:
            return await self._client.command("GET", key, quiet=self.is_spread)

        # What an older release, or a user without the rights, has put, lies with everything else.
        home, there = names.key(b"i", name), names.place(self._tags, b"i", name)[1]
        found, _ = await self._look(ask, home, there)
        ids = b" ".join(value for _, value in found).decode("ascii", "replace").split()
        return list(dict.fromkeys(reversed(ids)))

    async def read(self, id: str) -> Traced | None:  # noqa: A002 - what the envelope calls it
        """See ``ports.Traces``. Where a part of it may lie at a server that is away, something is missing."""
        names = await self._ledger.names()

        async def ask(key: bytes) -> Any:
            return await self._client.command("LRANGE", key, 0, -1, quiet=self.is_spread)

        home, there = names.key(b"l", id), names.place(self._tags, b"l", id)[1]
        found, away = await self._look(ask, home, there)
        if not found:
            return None
        life = Traced(id, dropped=away)
        for key, value in ((key, value) for key, groups in found for value in groups):
            group = _open(names, key, value)
            if group is None:
                self._journal.event("store_value_unreadable", kind="trace")
                life.dropped += 1
                continue
            life.events += [_event(one) for one in group.events]
            life.dropped += group.dropped
        return life

    # --- keeping ---

    async def _keep_together(self, names: Names, lives: Sequence[Traced]) -> None:
        for part in (await self._parts(names, lives, (HASH_TAG,))).values():
            await self._run(part)

    async def _keep_apart(self, names: Names, lives: Sequence[Traced]) -> tuple[list[Traced], Forbidden | None]:
        """What of them could not be kept, and whether for want of rights. Each tag by itself, all at once."""
        parts = await self._parts(names, lives, self._tags)
        outcomes = await self._run_all(parts)
        ids, found_by, forbidden = set[str](), set[str](), None
        for tag, part in parts.items():
            outcome = outcomes[tag]
            if outcome is None:
                continue
            if not isinstance(outcome, StoreAway):
                raise outcome
            ids.update(part.ids)
            found_by.update(part.names)
            if isinstance(outcome, Forbidden):
                forbidden = outcome
        return [rest for one in lives if (rest := _rest(one, ids, found_by)) is not None], forbidden

    async def _run_all(self, parts: Mapping[bytes, _Part]) -> dict[bytes, BaseException | None]:
        """At once, and each by itself. All wait for the slowest, so a server that is silent is not asked each time: else it would
        hold up those that answer."""
        began = asyncio.get_running_loop().time()
        asked = [tag for tag in parts if began >= self._aside_until or tag not in self._aside]
        told = await asyncio.gather(*(self._run(parts[tag]) for tag in asked), return_exceptions=True)
        outcomes = dict(zip(asked, told, strict=True))
        now = asyncio.get_running_loop().time()
        if now - began > SILENT:
            # All that are aside, until the same time: a silent server has many tags, and each would hold up a trip of its own.
            self._aside |= {tag for tag, outcome in outcomes.items() if outcome is not None}
            self._aside_until = now + ASIDE * (now - began)
        self._aside -= {tag for tag, outcome in outcomes.items() if outcome is None}
        untold: dict[bytes, BaseException | None] = dict.fromkeys(parts, StoreUntouched("it was silent a moment ago"))
        return untold | outcomes

    async def _parts(self, names: Names, lives: Sequence[Traced], tags: Sequence[bytes]) -> dict[bytes, _Part]:
        parts: defaultdict[bytes, _Part] = defaultdict(_Part)
        # One server is the common case, and hears of every message.
        together = parts[HASH_TAG] if len(tags) == 1 else None
        found_by: dict[str, list[str]] = {}
        for one in lives:
            for name in _names_of(one):
                found_by.setdefault(name, []).append(one.id)
            if one.leads and not (one.events or one.dropped):
                continue
            if together is not None:
                part, key = together, names.key(b"l", one.id)
            else:
                tag, key = names.place(tags, b"l", one.id)
                part = parts[tag]
            part.ids.append(one.id)
            for at in range(0, len(one.events) or 1, MAX_EVENTS):
                if at:
                    # A list's life is long, and mail goes on meanwhile.
                    await asyncio.sleep(0)
                sealed = _seal(names, key, one, at)
                part.groups += sealed
                part.keys += [key] * len(sealed)
        if together is not None:
            together.names = list(found_by)
            together.indexes = [names.key(b"i", name) for name in found_by]
            together.leads = [" ".join((*each, "")) for each in found_by.values()]
            return parts
        for name, each in found_by.items():
            tag, key = names.place(tags, b"i", name)
            part = parts[tag]
            part.names.append(name)
            part.indexes.append(key)
            part.leads.append(" ".join((*each, "")))
        return parts

    async def _run(self, part: _Part) -> None:
        arguments: list[bytes | str | int] = [self._keep, MAX_GROUPS, INDEX_OCTETS, len(part.groups)]
        arguments += part.groups
        arguments += part.leads
        await self._client.run(_TRACE, (*part.keys, *part.indexes), arguments)

    async def _look(
        self, ask: Callable[[bytes], Awaitable[Any]], home: bytes, there: bytes
    ) -> tuple[list[tuple[bytes, Any]], int]:
        """The keys under which something lies, with it, what is older first; and how many of them are at a server that is away.
        Raises StoreAway where nothing else is found."""
        if home == there:
            value = await ask(home)
            return [(home, value)] if value else [], 0
        answers = await asyncio.gather(ask(home), ask(there), return_exceptions=True)
        found, away = [], list[StoreAway]()
        for key, answer in zip((home, there), answers, strict=True):
            match answer:
                case Forbidden() if key == there:
                    pass  # what we may not touch we have not put there
                case StoreAway():
                    away.append(answer)
                case BaseException():
                    raise answer
                case _ if answer:
                    found.append((key, answer))
        if away and not found:
            raise away[0]
        for one in away:
            self._journal.event("trace.part_away", reason=str(one))
        return found, len(away)


def _names_of(one: Traced) -> list[str]:
    return one.found_by()[: MAX_NAMES - len(one.found)]  # of a life and its rests, no more than of a life


def _rest(one: Traced, ids: set[str], found_by: set[str]) -> Traced | None:
    """What is left of it where these lives and these indexes could not be kept; ``None``: nothing."""
    leads = tuple(name for name in _names_of(one) if name in found_by)
    if one.id not in ids and not leads:
        return None
    rest = Traced(one.id, leads=leads, found=one.found.union(_names_of(one)).difference(leads))
    if one.id in ids:
        rest.events, rest.dropped = one.events, one.dropped
    return rest


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
