"""Where does mail wait? ``ports.Queue`` on Redis; docs/decisions/0011.

The scripts (``scripts/queue_*.lua``; ``queue_common.lua`` explains the keys) do each step whole: before or after,
never half. Names and values are those of ``forwarder.store.records``: a name tells no address, and a damaged value is
noticed. Such an item becomes a dead letter, with an event, and is never delivered.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial

import idna

from forwarder.auth.dnsname import dns_name
from forwarder.dispatch import pick
from forwarder.ports import Begun, Claim, Claimed, Forwarded, Held, Journal, QueueFull, QueueSize
from forwarder.slices import let_others, slices
from forwarder.store.client import Commands, load_script
from forwarder.store.disk import Disk
from forwarder.store.ledger import DELIVERED_FOR, RedisLedger, claim_key
from forwarder.store.queuerecords import digest, open_held, seal_held
from forwarder.store.records import HASH_TAG, Names

__all__ = ["Brought", "Carried", "Did", "Do", "Listed", "Pace", "RedisQueue"]

#: Seconds that dead letters are kept.
DEAD_FOR = 30 * 86400
#: Octets of bodies that one claim brings, about: what comes is all in memory at once.
MAX_CLAIMED = 16 * 1024 * 1024
#: Items of one listing command.
_PAGE = 200
#: Items that are sealed or opened in one go; each may have a hundred recipients.
_A_SLICE = 3

_load = partial(load_script, behind=("queue_common",))
_PUT, _CLAIM, _MARK = _load("queue_put"), _load("queue_claim"), _load("queue_mark")
_SETTLE = load_script("queue_settle", behind=("queue_common", "remember"))
_BURY, _QUIET, _NEXT = _load("queue_bury"), _load("queue_quiet"), _load("queue_next")
_DO, _LIST, _RENEW = _load("queue_do"), _load("queue_list"), _load("queue_renew")
_SIZE = _load("queue_size")
_TAKE, _AWAY, _BRING = _load("queue_take"), _load("queue_away"), _load("queue_bring")
_KEYS = (HASH_TAG,)


@dataclass(frozen=True, slots=True)
class Listed:
    """An item as an operator sees it. ``id`` is that of ``held``, or ``?`` and its name where its record is damaged and ``held``
    is ``None``; ``held`` has no data; ``due_in`` is in seconds, ``None`` while it is under lease, on hold or dead; ``dead`` says
    why; ``given_up``: it goes back to its sender next."""

    id: str
    held: Held | None
    due_in: float | None
    leased: bool
    octets: int
    dead: str | None
    on_hold: bool
    given_up: bool


@dataclass(frozen=True, slots=True)
class Pace:
    """What one next hop is given: deliveries at once, and messages a minute (0: any number)."""

    deliveries: int
    per_minute: int = 0


class Do(Enum):
    """What an operator does to an item. ``RETURN``: it is given up, and goes back to its sender as if it had failed."""

    DROP = "drop"
    RETRY = "retry"
    HOLD = "hold"
    RELEASE = "release"
    RETURN = "return"


class Did(Enum):
    """What came of it. ``BUSY``: it is under way just now; ``LATER``: it is, and will be on hold when the attempt ends; ``HELD``
    and ``FREE``: it is on hold, it is not, and so nothing was done; ``DEAD``: a dead letter is nobody's turn anyway."""

    DONE = "done"
    MISSING = "missing"
    BUSY = "busy"
    LATER = "later"
    DEAD = "dead"
    HELD = "held"
    FREE = "free"


@dataclass(frozen=True, slots=True)
class Carried:
    """An item whole, on its way from one store to another. ``due_in`` and ``dead_for`` in seconds; ``dots`` as in ``Claimed``."""

    held: Held
    due_in: float = 0
    dots: int = 0
    dead: str | None = None
    dead_for: float = 0
    on_hold: bool = False
    given_up: bool = False


class Brought(Enum):
    """What became of an item that was carried here. ``KNOWN``: it is here, or was within the last minutes; ``DELIVERED``: by what
    is known here, all of its recipients were taken care of meanwhile; ``BUSY``: the same message is under way just now."""

    DONE = "done"
    KNOWN = "known"
    DELIVERED = "delivered"
    BUSY = "busy"


class RedisQueue:
    """``client`` should be a connection of its own, with time for large bodies. ``max_body`` and ``high_water`` in octets.
    ``per_minute`` is the pace of every next hop, ``paces`` are those of next hops that differ, by domain.
    ``disk``: where the store writes, if that is on this host."""

    def __init__(
        self,
        client: Commands,
        ledger: RedisLedger,
        *,
        journal: Journal,
        max_body: int,
        high_water: int,
        per_minute: int = 0,
        paces: Mapping[str, Pace] | None = None,
        disk: Disk | None = None,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._journal = journal
        self._max_body = max_body
        self._high_water = high_water
        self._per_minute = per_minute
        self._paces = paces or {}
        self._disk = disk
        #: As the claim's script reads them, and the names they were made with.
        self._differing: tuple[Names, list[bytes | int]] | None = None

    # --- ports.Queue

    def is_paced(self, next_hop: str) -> bool:
        """See ``ports.Queue``."""
        own = self._paces.get(dns_name(next_hop) or next_hop) if self._paces else None
        return (own.per_minute if own is not None else self._per_minute) > 0

    async def put(
        self,
        held: Sequence[Held],
        *,
        lease: str | None = None,
        seconds: float = 0,
        delay: float = 0,
        dead: str | None = None,
    ) -> None:
        """See ``ports.Queue``."""
        if any(len(one.delivery.data[1]) > self._max_body for one in held):
            raise QueueFull("the body is too large to be held")
        if self._disk is not None and self._disk.is_short():
            await self._disk.relieve()
            raise QueueFull("the store's disk is short of room")
        names = await self._ledger.names()
        times = (_number(seconds), _number(delay), DELIVERED_FOR)
        arguments = (lease or "", *times, self._high_water, _octets(dead or ""))
        if not await self._client.run(_PUT, _KEYS, (*arguments, *await _items(names, held))):
            raise QueueFull("the queue is at its high-water mark")

    async def claim(self, lease: str, *, seconds: float, limit: int, per_destination: int) -> Sequence[Claimed]:
        """See ``ports.Queue``."""
        names = await self._ledger.names()
        arguments = (lease, _number(seconds), limit, per_destination, self._per_minute, MAX_CLAIMED, DEAD_FOR)
        claimed = []
        answer = await self._client.run(_CLAIM, _KEYS, (*arguments, *self._differ(names)))
        for at, some in slices(answer, _A_SLICE):
            if at:
                await let_others()
            for name, record, head, body, dots, given_up in some:
                held = open_held(names, name, record, (head, body))
                if held is None:
                    self._journal.event("store_value_unreadable", kind="queue", item=_short(name))
                    await self._client.run(_BURY, _KEYS, (name, lease, "damaged in the store"))
                else:
                    claimed.append(Claimed(held, int(dots) if dots.isdigit() else 1, given_up == b"1"))
        return claimed

    def _differ(self, names: Names) -> list[bytes | int]:
        if self._differing is None or self._differing[0] is not names:
            packed: list[bytes | int] = []
            for domain, pace in self._paces.items():
                for spelling in _spellings(domain):
                    packed += [_destination(names, spelling), pace.deliveries, pace.per_minute]
            self._differing = names, packed
        return self._differing[1]

    async def next_due(self) -> float | None:
        """See ``ports.Queue``."""
        due = int(await self._client.run(_NEXT, _KEYS))
        return None if due < 0 else due / 1000

    async def renew(self, ids: Sequence[str], lease: str, seconds: float, begun: Sequence[Begun] = ()) -> None:
        """See ``ports.Queue``."""
        names = await self._ledger.names()
        keys = (*_KEYS, *self._ledger.begun_keys(names, begun))
        items = (_item(names, one) for one in ids)
        await self._client.run(_RENEW, keys, (lease, _number(seconds), self._ledger.lease, *items))

    async def mark_dot(self, id: str, lease: str, begun: Sequence[Begun] = ()) -> bool:  # noqa: A002 - what Held calls it
        """See ``ports.Queue``."""
        names = await self._ledger.names()
        keys = (*_KEYS, *self._ledger.begun_keys(names, begun))
        return bool(await self._client.run(_MARK, keys, (_item(names, id), lease, self._ledger.lease)))

    async def settle(
        self,
        held: Held,
        lease: str,
        *,
        left: Held | None,
        delay: float,
        reports: Sequence[Held] = (),
        dead: Sequence[tuple[Held, str]] = (),
        forwards: Sequence[Forwarded] = (),
    ) -> bool:
        """See ``ports.Queue``."""
        names = await self._ledger.names()
        name = _item(names, held.id)
        record = b"" if left is None else seal_held(names, name, left)
        letters, reasons = [one for one, _ in dead], [_octets(reason) for _, reason in dead]
        arguments = (name, lease, record, _number(delay), DELIVERED_FOR, *self._ledger.remembering(names, forwards))
        packed = (*arguments, *await _items(names, reports), *await _items(names, letters), *reasons)
        return bool(await self._client.run(_SETTLE, _KEYS, packed, at_once=True))

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
            for name, record, due, leased, octets, why, on_hold, given_up in page:
                held = open_held(names, name, record, None)
                yield Listed(
                    held.id if held is not None else f"?{_short(name)}",
                    held,
                    int(due) / 1000 if due else None,
                    leased == b"1",
                    octets,
                    why.decode("utf-8", "replace") or None,
                    on_hold == b"1",
                    given_up == b"1",
                )
            if len(page) < _PAGE:
                return
            at += _PAGE

    async def read(self, id: str) -> Held | None:  # noqa: A002 - what Held calls it
        """One item whole, by the id that ``list`` gives it; ``None``: not there, or damaged."""
        names = await self._ledger.names()
        name = _named(names, id)
        record, head, body_name = await self._client.command("HMGET", name, "v", "h", "b")
        is_named = body_name is not None and body_name.startswith(HASH_TAG + b":")
        body = await self._client.command("HGET", body_name, "o") if is_named else None
        return open_held(names, name, record or b"", (head or b"", body or b""))

    async def do(self, id: str, what: Do, operation: str | None = None) -> Did:  # noqa: A002 - what Held calls it
        """One thing to one item. ``operation`` names this doing: the same name again does nothing, and hears the same answer."""
        name = _named(await self._ledger.names(), id)
        answer: bytes = await self._client.run(_DO, _KEYS, (name, what.value, operation or secrets.token_hex(8)))
        return Did(answer.decode())

    async def held_octets(self) -> int:
        """Octets held, bodies once."""
        octets = await self._client.command("HGET", HASH_TAG + b":qn", "octets")
        return int(octets) if octets is not None and octets.isdigit() else 0

    async def size(self) -> QueueSize:
        """How much there is. One trip, whatever that is."""
        waiting, under_way, octets, oldest, dead = map(int, await self._client.run(_SIZE, _KEYS))
        return QueueSize(waiting, under_way, octets, oldest / 1000, dead)

    # --- from one store to another

    async def take(
        self,
        ids: Sequence[str],
        lease: str = "",
        seconds: float = 0,
    ) -> dict[str, Carried | Did]:
        """Items whole, under ``lease`` where one is named; as many of the first as fit into memory, one at least. ``MISSING``:
        not there, or damaged; ``BUSY``: under way just now."""
        names = await self._ledger.names()
        wanted = {_named(names, one): one for one in ids}
        answer = await self._client.run(_TAKE, _KEYS, (lease, _number(seconds), MAX_CLAIMED, *wanted))
        found: dict[str, Carried | Did] = {}
        for name, record, head, body, busy, due, dots, why, died, on_hold, given_up in answer:
            held = open_held(names, name, record, (head, body))
            if held is None:
                found[wanted[name]] = Did.MISSING
            elif busy:
                found[wanted[name]] = Did.BUSY
            else:
                found[wanted[name]] = Carried(
                    held,
                    due_in=int(due or 0) / 1000,
                    dots=int(dots) if dots.isdigit() else 1,
                    dead=why.decode("utf-8", "replace") or None,
                    dead_for=int(died or 0) / 1000,
                    on_hold=on_hold == b"1",
                    given_up=given_up == b"1",
                )
        # What was looked for before the last that was found, and was not, is not there.
        order = list(wanted.values())
        last = max((order.index(one) for one in found), default=len(order) - 1)
        return {one: found.get(one, Did.MISSING) for one in order[: last + 1]}

    async def carried_away(self, ids: Sequence[str], lease: str) -> Sequence[bool]:
        """They are safe elsewhere, and no more here. False: the lease had lost that one, and it stays."""
        names = await self._ledger.names()
        gone = await self._client.run(_AWAY, _KEYS, (lease, DELIVERED_FOR, *(_named(names, one) for one in ids)))
        return [bool(one) for one in gone]

    async def bring(self, one: Carried) -> Brought:
        """Put in what was carried here, for those of its recipients that nobody took care of meanwhile: twice does no harm.
        Raises ``QueueFull``, also for a body that is too large here."""
        held, names = one.held, await self._ledger.names()
        if len(held.delivery.data[1]) > self._max_body:
            raise QueueFull("its body is larger than queue.max_body")
        if self._disk is not None and self._disk.is_short():
            raise QueueFull("the store's disk is short of room (queue.min_free)")
        suffix = _item(names, held.id).removeprefix(_PREFIX)
        gone, here, away = [HASH_TAG + kind + suffix for kind in (b":qt:", b":qi:", b":qe:")]
        if await self._client.command("EXISTS", gone, here):
            return Brought.KNOWN
        attempt = f"import {held.id}"
        lacking = await self._lacking(held, attempt, own_marks=bool(await self._client.command("EXISTS", away)))
        if not isinstance(lacking, Held):
            return lacking
        seconds = (_number(one.due_in), DELIVERED_FOR, self._high_water)
        facts = (one.dots, _octets(one.dead or ""), _number(one.dead_for), int(one.on_hold), int(one.given_up))
        answer = await self._client.run(_BRING, _KEYS, (*seconds, *facts, *await _items(names, [lacking])))
        if answer == b"full":
            await self._ledger.settle(attempt, [], [each.fingerprint for each in lacking.waiting], [])
            raise QueueFull("the queue is at its high-water mark")
        return Brought(answer.decode())

    async def _lacking(self, held: Held, attempt: str, *, own_marks: bool) -> Held | Brought:
        """For whom is it still to be delivered, by the ledger (48 hours) and by what was remembered for bounces (10 days)?
        ``own_marks``: it was carried away from here, and the marks in the ledger are those that it left."""
        marked = [] if own_marks else [one.fingerprint for one in held.waiting if one.fingerprint]
        claims = dict(zip(marked, await self._ledger.claim(marked, attempt), strict=True))
        left = []
        for index, one in enumerate(held.waiting):
            if claims.get(one.fingerprint) is not Claim.DELIVERED and not await self._was_forwarded(held, index):
                left.append(index)
        busy = Claim.BUSY in claims.values()
        if busy or not left:
            await self._ledger.settle(attempt, [], [one for one, claim in claims.items() if claim is Claim.FRESH], [])
            return Brought.BUSY if busy else Brought.DELIVERED
        return pick(held, left)

    async def _was_forwarded(self, held: Held, index: int) -> bool:
        known, destination = held.waiting[index].forwarded, held.delivery.recipients[index]
        if known is None:
            return False
        found = await self._ledger.find_forward(known.reversible, known.message_id, [destination])
        return found is not None and (found.envelope_id, found.destination) == (held.envelope.id, destination)


async def _items(names: Names, held: Sequence[Held]) -> list[bytes | str | int]:
    """As ``read_items`` of the scripts reads them: each body once, and looked at once. Of many items some at a time: others have
    work too."""
    # Of one message all items have the same body, and it may be large. By identity: all of them are alive here.
    digests: dict[int, bytes] = {}
    bodies: dict[bytes, tuple[int, bytes]] = {}
    for one in held:
        octets = one.delivery.data[1]
        if id(octets) not in digests:
            digests[id(octets)] = digest(octets)
            bodies.setdefault(digests[id(octets)], (len(bodies) + 1, octets))
    packed: list[bytes | str | int] = [len(bodies)]
    for found, (_, octets) in bodies.items():
        packed += [names.key(b"qb", found), octets]
    packed.append(len(held))
    for at, some in slices(held, _A_SLICE):
        if at:
            await let_others()
        for one in some:
            name, (head, octets) = _item(names, one.id), one.delivery.data
            found = digests[id(octets)]
            marks = [claim_key(names, each.fingerprint) for each in one.waiting if each.fingerprint]
            record = seal_held(names, name, one, found)
            packed += [name, _destination(names, one.delivery.next_hop), record, head, bodies[found][0]]
            packed += [len(marks), *marks]
    return packed


def _item(names: Names, id: str) -> bytes:  # noqa: A002 - what Held calls it
    return names.key(b"qi", id)


def _destination(names: Names, next_hop: str) -> bytes:
    return names.key(b"qw", next_hop.lower())


def _spellings(domain: str) -> set[str]:
    """In A-labels, and as a destination may be written."""
    try:
        return {domain, idna.decode(domain)}
    except idna.IDNAError:
        return {domain}


_PREFIX = HASH_TAG + b":qi:"


def _short(name: bytes) -> str:
    return name.removeprefix(_PREFIX).decode("ascii", "replace")


def _named(names: Names, id: str) -> bytes:  # noqa: A002 - what Held calls it
    return _PREFIX + id[1:].encode("ascii", "replace") if id.startswith("?") else _item(names, id)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _number(seconds: float) -> str:
    return f"{seconds:.3f}"
