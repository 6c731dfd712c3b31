"""Where does mail wait? ``ports.Queue`` on Redis; docs/decisions/0011.

The scripts (``scripts/queue_*.lua``; ``queue_common.lua`` explains the keys) do each step whole: before or after,
never half. Names and values are those of ``forwarder.store.records``: a name tells no address, and a damaged value is
noticed. Such an item becomes a dead letter, with an event, and is never delivered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from forwarder.ports import Claimed, Held, Journal, QueueFull
from forwarder.store.client import StoreClient, load_script
from forwarder.store.ledger import DELIVERED_FOR, RedisLedger, claim_key
from forwarder.store.queuerecords import digest, open_held, seal_held
from forwarder.store.records import HASH_TAG, Names

__all__ = ["Listed", "RedisQueue"]

#: Seconds that dead letters are kept.
DEAD_FOR = 30 * 86400
#: Octets of bodies that one claim brings, about: what comes is all in memory at once.
MAX_CLAIMED = 16 * 1024 * 1024
#: Items of one listing command.
_PAGE = 200

_load = partial(load_script, behind="queue_common")
_PUT, _CLAIM, _SETTLE, _MARK = _load("queue_put"), _load("queue_claim"), _load("queue_settle"), _load("queue_mark")
_BURY, _QUIET, _NEXT = _load("queue_bury"), _load("queue_quiet"), _load("queue_next")
_DO, _LIST, _RENEW = _load("queue_do"), _load("queue_list"), _load("queue_renew")
_KEYS = (HASH_TAG,)


@dataclass(frozen=True, slots=True)
class Listed:
    """An item as an operator sees it. ``id`` is that of ``held``, or ``?`` and its name where its record is damaged and ``held``
    is ``None``; ``held`` has no data; ``due_in`` is in seconds, ``None`` while it is under lease or dead; ``dead`` says why."""

    id: str
    held: Held | None
    due_in: float | None
    leased: bool
    octets: int
    dead: str | None


class RedisQueue:
    """``client`` should be a connection of its own, with time for large bodies. ``max_body`` and ``high_water`` in octets."""

    def __init__(
        self, client: StoreClient, ledger: RedisLedger, *, journal: Journal, max_body: int, high_water: int
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._journal = journal
        self._max_body = max_body
        self._high_water = high_water

    # --- ports.Queue

    async def put(
        self,
        held: Sequence[Held],
        *,
        lease: str | None = None,
        seconds: float = 0,
        delay: float = 0,
    ) -> None:
        """See ``ports.Queue``."""
        if any(len(one.delivery.data[1]) > self._max_body for one in held):
            raise QueueFull("the body is too large to be held")
        names = await self._ledger.names()
        arguments = (lease or "", _number(seconds), _number(delay), DELIVERED_FOR, self._high_water)
        if not await self._client.run(_PUT, _KEYS, (*arguments, *_items(names, held))):
            raise QueueFull("the queue is at its high-water mark")

    async def claim(self, lease: str, *, seconds: float, limit: int, per_destination: int) -> Sequence[Claimed]:
        """See ``ports.Queue``."""
        names = await self._ledger.names()
        arguments = (lease, _number(seconds), limit, per_destination, MAX_CLAIMED, DEAD_FOR)
        claimed = []
        for name, record, head, body, dots in await self._client.run(_CLAIM, _KEYS, arguments, again=False):
            held = open_held(names, name, record, (head, body))
            if held is None:
                self._journal.event("store_value_unreadable", kind="queue", item=_short(name))
                await self._client.run(_BURY, _KEYS, (name, lease, "damaged in the store"))
            else:
                claimed.append(Claimed(held, int(dots) if dots.isdigit() else 1))
        return claimed

    async def next_due(self) -> float | None:
        """See ``ports.Queue``."""
        due = int(await self._client.run(_NEXT, _KEYS))
        return None if due < 0 else due / 1000

    async def renew(self, ids: Sequence[str], lease: str, seconds: float) -> None:
        """See ``ports.Queue``."""
        names = await self._ledger.names()
        await self._client.run(_RENEW, _KEYS, (lease, _number(seconds), *(_item(names, one) for one in ids)))

    async def mark_dot(self, id: str, lease: str) -> bool:  # noqa: A002 - what Held calls it
        """See ``ports.Queue``."""
        names = await self._ledger.names()
        return bool(await self._client.run(_MARK, _KEYS, (_item(names, id), lease)))

    async def settle(
        self,
        held: Held,
        lease: str,
        *,
        left: Held | None,
        delay: float,
        reports: Sequence[Held] = (),
        dead: Sequence[tuple[Held, str]] = (),
    ) -> bool:
        """See ``ports.Queue``."""
        names = await self._ledger.names()
        name = _item(names, held.id)
        record = b"" if left is None else seal_held(names, name, left)
        letters, reasons = [one for one, _ in dead], [_octets(reason) for _, reason in dead]
        arguments = (name, lease, record, _number(delay), DELIVERED_FOR)
        packed = (*arguments, *_items(names, reports), *_items(names, letters), *reasons)
        return bool(await self._client.run(_SETTLE, _KEYS, packed))

    async def bury(self, held: Held, lease: str, reason: str) -> bool:
        """See ``ports.Queue``."""
        names = await self._ledger.names()
        return bool(await self._client.run(_BURY, _KEYS, (_item(names, held.id), lease, _octets(reason))))

    async def back_off(self, next_hop: str, seconds: float) -> None:
        """See ``ports.Queue``."""
        names = await self._ledger.names()
        await self._client.run(_QUIET, _KEYS, (_destination(names, next_hop), _number(seconds)))

    # --- the operator's

    async def list(self, *, dead: bool = False) -> AsyncIterator[Listed]:
        """Every item, from the oldest, or every dead letter. What comes or goes meanwhile may be missed or seen twice."""
        names, at = await self._ledger.names(), 0
        while True:
            page = await self._client.run(_LIST, _KEYS, ("dead" if dead else "all", at, _PAGE))
            for name, record, due, leased, octets, why in page:
                held = open_held(names, name, record, None)
                yield Listed(
                    held.id if held is not None else f"?{_short(name)}",
                    held,
                    int(due) / 1000 if due else None,
                    leased == b"1",
                    octets,
                    why.decode("utf-8", "replace") or None,
                )
            if len(page) < _PAGE:
                return
            at += _PAGE

    async def read(self, id: str) -> Held | None:  # noqa: A002 - what Held calls it
        """One item whole, by the id that ``list`` gives it; ``None``: not there, or damaged."""
        names = await self._ledger.names()
        name = _named(names, id)
        record, head, body_name = await self._client.command("HMGET", name, "v", "h", "b")
        body = await self._client.command("HGET", body_name, "o") if body_name else None
        return open_held(names, name, record or b"", (head or b"", body or b""))

    async def drop(self, id: str) -> bool | None:  # noqa: A002 - what Held calls it
        """Gone, with no word to anyone. False: not there; ``None``: under way just now."""
        return await self._do(id, "drop")

    async def retry(self, id: str) -> bool | None:  # noqa: A002 - what Held calls it
        """Due now, a dead letter too. As ``drop``."""
        return await self._do(id, "retry")

    async def held_octets(self) -> int:
        """Octets held, bodies once."""
        return int(await self._client.command("HGET", HASH_TAG + b":qn", "octets") or 0)

    async def _do(self, id: str, what: str) -> bool | None:  # noqa: A002 - what Held calls it
        name = _named(await self._ledger.names(), id)
        done: Any = await self._client.run(_DO, _KEYS, (name, what), again=False)
        return None if done < 0 else bool(done)


def _items(names: Names, held: Sequence[Held]) -> list[bytes | str | int]:
    """As ``read_items`` of the scripts reads them: each body once."""
    bodies: dict[bytes, tuple[int, bytes]] = {}
    for one in held:
        octets = one.delivery.data[1]
        bodies.setdefault(names.key(b"qb", digest(octets)), (len(bodies) + 1, octets))
    packed: list[bytes | str | int] = [len(bodies)]
    for name, (_, octets) in bodies.items():
        packed += [name, octets]
    packed.append(len(held))
    for one in held:
        name, (head, octets) = _item(names, one.id), one.delivery.data
        number, _ = bodies[names.key(b"qb", digest(octets))]
        marks = [claim_key(names, each.fingerprint) for each in one.waiting if each.fingerprint]
        packed += [name, _destination(names, one.delivery.next_hop), seal_held(names, name, one), head, number]
        packed += [len(marks), *marks]
    return packed


def _item(names: Names, id: str) -> bytes:  # noqa: A002 - what Held calls it
    return names.key(b"qi", id)


def _destination(names: Names, next_hop: str) -> bytes:
    return names.key(b"qw", next_hop.lower())


_PREFIX = HASH_TAG + b":qi:"


def _short(name: bytes) -> str:
    return name.removeprefix(_PREFIX).decode("ascii", "replace")


def _named(names: Names, id: str) -> bytes:  # noqa: A002 - what Held calls it
    return _PREFIX + id[1:].encode("ascii", "replace") if id.startswith("?") else _item(names, id)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _number(seconds: float) -> str:
    return f"{seconds:.3f}"
