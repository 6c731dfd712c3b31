"""Which node has the key? A cluster as one store: ``store.client.Commands`` over one ``StoreClient`` for each primary.

A command goes to the primary of its key's slot. Where the map of slots is out of date the node names another one (MOVED): the
command goes there, and the map is read anew. While a slot is on its way the node names one for this command only (ASK).

The map is read from several nodes at once, and what most of them say counts: who is cut off from the rest remembers the old
days. How many replicas a primary has is the most that any of them says, dead ones too: a replica that lags, stands still or is
gone could be promoted one day, so a write counts only when it has it. Only where nobody knows of a replica, as after a
fail-over that used the only one up, does the primary by itself count (docs/decisions/0034).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from redis.crc import key_slot

from forwarder.ports import Journal, StoreAway, StoreUntouched
from forwarder.store.client import DEFAULT_PAUSE, DEFAULT_TIMEOUT, Argument, Elsewhere, Script, StoreClient
from forwarder.store.dial import PATIENCE, ask_once
from forwarder.store.url import Address, ParsedUrl, StoreUrlError, describe_url, parse_store_url

__all__ = ["ClusterClient", "even_tags", "make_client"]

SLOTS = 16384
#: Nodes that are asked for the map at once.
_ASKED = 12
#: How often one command is sent on to another node.
_REDIRECTS = 4


@dataclass(frozen=True, slots=True, order=True)
class _Range:
    """Slots ``first`` to ``last``, and their primary."""

    first: int
    last: int
    primary: Address


class ClusterClient:
    """``scout``: as in ``StoreClient``, node by node. ``patience``: seconds for one node that is asked for the map."""

    def __init__(
        self,
        url: str,
        *,
        journal: Journal,
        timeout: float = DEFAULT_TIMEOUT,
        pause: float = DEFAULT_PAUSE,
        patience: float = PATIENCE,
        replicas: int = 0,
        scout: ClusterClient | None = None,
    ) -> None:
        self._url = url
        self._parsed: ParsedUrl = parse_store_url(url)
        if self._parsed.kind != "cluster":
            raise StoreUrlError("store: the URL of a cluster must begin with redis+cluster:// or rediss+cluster://")
        self._where = describe_url(url)
        self._journal = journal
        self._timeout = timeout
        self._pause = pause
        self._patience = patience
        self._replicas = replicas
        self._scout = scout
        self._nodes: dict[Address, StoreClient] = {}
        #: The primary of each slot; ``None``: of that one nobody told.
        self._slots: list[Address | None] = []
        self._learning: asyncio.Task[None] | None = None
        self._learn_at = 0.0
        self._closed = False
        self._watch: Callable[[str, float, bool], None] | None = None

    async def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[Argument] = (),
        *,
        again: bool = True,
        at_once: bool = False,
    ) -> Any:
        """See ``Commands``. All keys have one hash tag. A script whose first key is a bare hash tag touches keys that it does not
        name, so it is not sent on while their slot moves: it would find some here and some there."""

        async def run_on(node: StoreClient) -> Any:
            return await node.run(script, keys, arguments, again=again, at_once=at_once)

        async def run_once(node: StoreClient) -> Any:
            if keys[0].endswith(b"}"):
                raise StoreUntouched(f"{self._where}: the queue's slot is being moved")
            # By its text: ASKING holds for one command, and a script that is not known there would need two.
            return await _asking(node, ("EVAL", script.text, len(keys), *keys, *arguments), again=again)

        return await self._send(keys[0], run_on, run_once)

    async def command(self, *command: Argument, again: bool = True, quiet: bool = False) -> Any:
        """See ``Commands``."""
        key = command[1]
        assert isinstance(key, bytes)

        async def run_on(node: StoreClient) -> Any:
            return await node.command(*command, again=again, quiet=quiet)

        async def run_once(node: StoreClient) -> Any:
            return await _asking(node, command, again=again)

        return await self._send(key, run_on, run_once)

    @property
    def watch(self) -> Callable[[str, float, bool], None] | None:
        """As of a ``StoreClient``."""
        return self._watch

    @watch.setter
    def watch(self, watch: Callable[[str, float, bool], None] | None) -> None:
        self._watch = watch
        for node in self._nodes.values():
            node.watch = watch

    @property
    def is_away(self) -> bool:
        """Is one of its nodes that we ask known not to answer?"""
        return any(self._nodes[one].is_away for one in set(self._slots) if one in self._nodes)

    async def primaries(self) -> list[StoreClient]:
        """Each of them. Raises StoreAway."""
        if not self._slots:
            await self._learn()
        return [self._node(one) for one in dict.fromkeys(one for one in self._slots if one is not None)]

    async def close(self) -> None:
        """Fail what is under way and hang up."""
        self._closed = True
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.gather(self._learning, return_exceptions=True)
        for node in self._nodes.values():
            await node.close()

    async def _send(
        self,
        key: bytes,
        run_on: Callable[[StoreClient], Awaitable[Any]],
        run_once: Callable[[StoreClient], Awaitable[Any]],
    ) -> Any:
        if self._closed:
            raise StoreUntouched(f"{self._where}: closed")
        slot = _slot(_tag(key))
        for _ in range(_REDIRECTS):
            if not self._slots:
                await self._learn()
            address = self._slots[slot]
            if address is None:
                self._learn_soon()
                raise StoreUntouched(f"{self._where}: nobody has the key's slot")
            try:
                return await run_on(self._node(address))
            except Elsewhere as elsewhere:
                there = elsewhere.address[0] or address[0], elsewhere.address[1]
                if elsewhere.once:
                    return await run_once(self._node(there))
                self._slots[slot] = there
                self._learn_soon()
            except StoreAway:
                self._learn_soon()
                raise
        raise StoreUntouched(f"{self._where}: sent on from node to node")

    def _node(self, address: Address) -> StoreClient:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = StoreClient(
                self._url,
                journal=self._journal,
                timeout=self._timeout,
                pause=self._pause,
                replicas=self._replicas,
                scout=self._scout._node(address) if self._scout is not None else None,
                node=address,
            )
            node.watch = self._watch
        return node

    # --- the map of slots

    def _learn_soon(self) -> None:
        """In the background, and not more often than an unreachable server is asked again."""
        now = asyncio.get_running_loop().time()
        if (self._learning is None or self._learning.done()) and now >= self._learn_at and not self._closed:
            self._learn_at = now + self._pause
            self._learning = asyncio.ensure_future(self._read_map())

    async def _learn(self) -> None:
        """Now. Raises StoreUntouched."""
        self._learn_soon()
        if self._learning is not None:
            # Others wait for it too: who is cancelled here leaves it alone.
            await asyncio.wait([self._learning])
        if not self._slots:
            raise StoreUntouched(f"{self._where} does not answer")

    async def _read_map(self) -> None:
        known = dict.fromkeys([*(one for one in self._slots if one is not None), *self._parsed.hosts])
        asked = list(known)[:_ASKED]
        answers = await asyncio.gather(
            *(
                ask_once(self._parsed.connection(one, self._timeout), "CLUSTER", "SHARDS", patience=self._patience)
                for one in asked
            )
        )
        views: Counter[frozenset[_Range]] = Counter()
        replicas: dict[Address, int] = {}
        tls = self._parsed.server.startswith("rediss")
        for one, answer in zip(asked, answers, strict=True):
            if answer is None:
                continue
            shards = list(_parse_shards(answer, one[0], tls=tls))
            views[frozenset(each for ranges, _ in shards for each in ranges)] += 1
            for ranges, count in shards:
                for each in ranges:
                    replicas[each.primary] = max(count, replicas.get(each.primary, 0))
        views.pop(frozenset(), None)
        if views:
            self._take_over(views.most_common(1)[0][0], replicas)

    def _take_over(self, view: frozenset[_Range], replicas: dict[Address, int]) -> None:
        slots: list[Address | None] = [None] * SLOTS
        for one in sorted(view):
            slots[one.first : one.last + 1] = [one.primary] * (one.last + 1 - one.first)
        self._slots = slots
        for address in dict.fromkeys(one.primary for one in view):
            self._node(address).demand(min(self._replicas, replicas[address]))


def make_client(
    url: str,
    *,
    journal: Journal,
    replicas: int | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    pause: float = DEFAULT_PAUSE,
    patience: float = PATIENCE,
    scout: StoreClient | ClusterClient | None = None,
) -> StoreClient | ClusterClient:
    """What speaks to the store of this URL. ``timeout``: seconds for an answer; ``pause``: for which an unreachable server is
    not asked again; ``patience``: for one of several servers that say where the primary is. ``replicas``: by default one where
    the URL is of sentinels or a cluster. Raises StoreUrlError."""
    kind = parse_store_url(url).kind
    if replicas is None:
        replicas = 0 if kind == "server" else 1
    if kind == "cluster":
        assert not isinstance(scout, StoreClient)
        return ClusterClient(
            url, journal=journal, timeout=timeout, pause=pause, patience=patience, replicas=replicas, scout=scout
        )
    assert not isinstance(scout, ClusterClient)
    return StoreClient(
        url, journal=journal, timeout=timeout, pause=pause, patience=patience, replicas=replicas, scout=scout
    )


async def _asking(node: StoreClient, command: Sequence[Argument], *, again: bool) -> Any:
    """Behind ASKING, on the same connection: what is begun together leaves together. What the command was answered counts."""
    asking, asked = node.command("ASKING"), node.command(*command, again=again)
    answers: tuple[Any, Any] = await asyncio.gather(asking, asked, return_exceptions=True)
    if isinstance(answers[1], BaseException):
        raise answers[1]
    return answers[1]


@lru_cache
def even_tags(count: int) -> tuple[bytes, ...]:
    """So many hash tags, one in each of so many equal parts of the slots: the first of ``{fwd1}``, ``{fwd2}`` and so on that
    falls there. However many primaries there are, each has as many of them as its share of the slots, give or take one for
    each range. Names in the store have them: what this returns must never change."""
    found: dict[int, bytes] = {}
    number = 0
    while len(found) < count:
        number += 1
        tag = b"{fwd%d}" % number
        found.setdefault(_slot(tag) * count // SLOTS, tag)
    return tuple(found[part] for part in range(count))


@lru_cache(maxsize=1024)
def _slot(tag: bytes) -> int:
    return int(key_slot(tag))


def _tag(key: bytes) -> bytes:
    return key[: key.find(b"}") + 1] or key


def _parse_shards(answer: Any, asked: str, *, tls: bool) -> Iterator[tuple[list[_Range], int]]:
    """CLUSTER SHARDS: the slots of each primary, and how many replicas it has, whether they answer or not. Skips what it cannot
    read."""
    for shard in answer:
        with suppress(LookupError, ValueError, TypeError, AttributeError):
            told = _pairs(shard)
            nodes = [_pairs(one) for one in told[b"nodes"]]
            primaries = [one for one in nodes if one[b"role"] == b"master"]
            primary = next((one for one in primaries if one[b"health"] == b"online"), primaries[0])
            # RFC 3986 has no host like "?": it stands for a name that the node was not told.
            host = next(
                (one for one in (primary.get(b"endpoint"), primary.get(b"ip")) if one not in (None, b"", b"?")), b""
            )
            address = host.decode() or asked, int(primary[b"tls-port" if tls else b"port"])
            bounds = told[b"slots"]
            ranges = [_Range(first, last, address) for first, last in zip(bounds[::2], bounds[1::2], strict=True)]
            yield ranges, sum(one[b"role"] in (b"replica", b"slave") for one in nodes)


def _pairs(flat: Sequence[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
