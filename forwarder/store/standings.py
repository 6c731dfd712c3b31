"""How do subjects stand? ``ports.Standings`` on Redis, with a table in memory that answers for it.

Kinds of keys (names: ``forwarder.store.records``), for 400 days from the last change:

    u  standings  hash: subject -> Standing, at most 20,000        change, refresh
    v  stamp      what the last change was: no change, nothing to read anew

A change reads one, makes another of it and puts that in its place if nobody else has changed it meanwhile: the arithmetic stays
in one place (``forwarder.standing``), and the values sealed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from forwarder.ports import Clock, Journal, Standing, StoreAway, Subject
from forwarder.standing import add_mail
from forwarder.store.client import Commands, load_script
from forwarder.store.ledger import RedisLedger
from forwarder.store.records import Names, open_standing, seal_standing

__all__ = ["MAX_SUBJECTS", "REFRESH", "RedisStandings"]

#: Subjects that are remembered. Strangers choose their domains, and complaints about them are matched, so it takes many.
MAX_SUBJECTS = 20_000
KEEP = 400 * 86400
#: Seconds between two looks for what other processes have changed.
REFRESH = 5.0
#: Seconds between two additions of the messages that were counted.
COUNT = 60.0
#: Times that a change is tried anew because another process was faster.
_TRIES = 20
#: Subjects whose turns are remembered.
_MAX_TURNS = 10_000
_CHANGE = load_script("standing")
_CHANGED_MEANWHILE, _DONE, _FULL = 0, 1, 2


class RedisStandings:
    """The names come from the ledger, which knows the salt."""

    def __init__(self, client: Commands, ledger: RedisLedger, clock: Clock, journal: Journal) -> None:
        self._client = client
        self._ledger = ledger
        self._clock = clock
        self._journal = journal
        self._table: dict[Subject, Standing] = {}
        self._stamp: bytes | None = None
        self._mail: Counter[Subject] = Counter()
        self._turns: dict[Subject, float] = {}
        self._count_at = 0.0

    def __len__(self) -> int:
        return len(self._table)

    def look_up(self, subject: Subject) -> Standing | None:
        """See ``ports.Standings``."""
        return self._table.get(subject)

    def count_mail(self, subject: Subject) -> None:
        """See ``ports.Standings``."""
        if subject in self._table:
            self._mail[subject] += 1

    def take_turn(self, subject: Subject, every: float) -> bool:
        """See ``ports.Standings``."""
        now = asyncio.get_running_loop().time()
        if now < self._turns.get(subject, now):
            return False
        if len(self._turns) >= _MAX_TURNS:
            self._turns.clear()
        self._turns[subject] = now + every
        return True

    async def change(
        self, subject: Subject, change: Callable[[Standing | None], Standing | None]
    ) -> tuple[Standing | None, Standing | None]:
        """See ``ports.Standings``. Beyond ``MAX_SUBJECTS`` nothing new is remembered, and the log says so."""
        names = await self._ledger.names()
        field = _field(names, subject)
        for _ in range(_TRIES):
            value = await self._client.command("HGET", names.key(b"u"), field)
            before = self._open(names, field, value) if value is not None else None
            after = change(before)
            if after == before:
                return before, after
            sealed = seal_standing(names, field, after) if after is not None else b""
            arguments = (field, value or b"", sealed, MAX_SUBJECTS, KEEP, secrets.token_bytes(8))
            answer = await self._client.run(_CHANGE, _keys(names), arguments)
            if answer == _DONE:
                self._keep(subject, after)
                return before, after
            if answer == _FULL:
                self._journal.event("standing.full", most=MAX_SUBJECTS, left_out=str(subject))
                return before, before
        raise StoreAway(f"{_TRIES} other changes came before this one")

    async def run(self) -> None:
        """Keep the table up to date, for as long as the program runs."""
        while True:
            with suppress(StoreAway):
                await self.refresh()
            await asyncio.sleep(REFRESH)

    async def refresh(self) -> None:
        """Now. Raises StoreAway."""
        now = asyncio.get_running_loop().time()
        if now >= self._count_at:
            self._count_at = now + COUNT
            await self.flush()
        names = await self._ledger.names()
        stamp = await self._client.command("GET", names.key(b"v"))
        if stamp != self._stamp or (stamp is None and self._table):
            self._table = {one.subject: one for one in await self.all()}
            # Read before the table: what changed in between is read again.
            self._stamp = stamp

    async def flush(self) -> None:
        """Add what was counted, and forget what is over. Raises StoreAway."""
        now = self._clock.now()
        while self._mail:
            subject, count = self._mail.popitem()
            try:
                await self.change(subject, add_mail(count, now))
            except StoreAway:
                self._mail[subject] += count
                raise
        for one in [one for one in self._table.values() if one.over_at < now]:
            await self.change(one.subject, lambda had: had if had is not None and had.over_at >= now else None)

    async def all(self) -> list[Standing]:
        """Whatever is remembered. Raises StoreAway."""
        names = await self._ledger.names()
        found = await self._client.command("HGETALL", names.key(b"u"))
        opened = (self._open(names, field, value) for field, value in zip(found[::2], found[1::2], strict=True))
        return [one for one in opened if one is not None]

    def _open(self, names: Names, field: bytes, value: bytes) -> Standing | None:
        standing = open_standing(names, field, value)
        if standing is None or _field(names, standing.subject) != field:
            self._journal.event("store_value_unreadable", kind="standing")
            return None
        return standing

    def _keep(self, subject: Subject, standing: Standing | None) -> None:
        if standing is None:
            self._table.pop(subject, None)
        else:
            self._table[subject] = standing


def _keys(names: Names) -> tuple[bytes, bytes]:
    return names.key(b"u"), names.key(b"v")


def _field(names: Names, subject: Subject) -> bytes:
    return names.field(subject.kind, subject.name)
