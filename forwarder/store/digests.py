"""What do owners of aliases read tomorrow? ``ports.Digests`` on Redis.

Kinds of keys (names: ``forwarder.store.records``), each for three days:

    o  owners    set: the owners of a day
    g  digest    hash: id -> finding, of an owner and a day, at most 200; under the empty name how many there were
    z  read      mark: the owner has the digest of that day
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from forwarder.model import Address, Finding
from forwarder.ports import Journal
from forwarder.store.client import Commands, load_script
from forwarder.store.ledger import RedisLedger
from forwarder.store.records import VERSION, open_address, open_finding, seal_address, seal_finding

__all__ = ["MAX_FINDINGS", "MAX_OWNERS", "RedisDigests"]

#: Owners of a day, and findings of each: who sends to an alias may make any number.
MAX_OWNERS = 10_000
MAX_FINDINGS = 200
#: The day itself, the day on which it is read, and one in which that may have failed.
KEEP = 3 * 86400

_DIGEST = load_script("digest")


class RedisDigests:
    """The names come from the ledger, which knows the salt."""

    def __init__(self, client: Commands, ledger: RedisLedger, *, journal: Journal) -> None:
        self._client = client
        self._ledger = ledger
        self._journal = journal

    async def add_finding(self, day: date, owner: Address, id: str, finding: Finding) -> None:  # noqa: A002 - of the finding
        """See ``ports.Digests``."""
        names = await self._ledger.names()
        owners, digest = names.key(b"o", day.isoformat()), names.key(b"g", day.isoformat(), str(owner))
        arguments: list[bytes | str | int] = [MAX_OWNERS, MAX_FINDINGS, KEEP, seal_address(names, owners, owner)]
        arguments += [names.field(id), seal_finding(names, digest, finding)]
        if not await self._client.run(_DIGEST, (owners, digest), arguments):
            self._journal.event("digest.left_out", owner=owner)

    async def owners(self, day: date) -> Sequence[Address]:
        """See ``ports.Digests``."""
        names = await self._ledger.names()
        key = names.key(b"o", day.isoformat())
        found = [open_address(names, key, one) for one in await self._client.command("SMEMBERS", key)]
        known = sorted(one for one in found if one is not None)
        if len(known) < len(found):
            self._unreadable()
        read = [await self._client.command("EXISTS", names.key(b"z", day.isoformat(), str(one))) for one in known]
        return [one for one, done in zip(known, read, strict=True) if not done]

    async def findings(self, day: date, owner: Address) -> tuple[Sequence[Finding], int]:
        """See ``ports.Digests``."""
        names = await self._ledger.names()
        key = names.key(b"g", day.isoformat(), str(owner))
        raw = await self._client.command("HGETALL", key)
        values = dict(zip(raw[::2], raw[1::2], strict=True))
        count = values.pop(b"", b"")
        found = [open_finding(names, key, one) for one in values.values()]
        known = [one for one in found if one is not None]
        if len(known) < len(found):
            self._unreadable()
        return sorted(known, key=lambda one: one.at), int(count) if count.isdigit() else len(found)

    async def mark_read(self, day: date, owner: Address) -> None:
        """See ``ports.Digests``."""
        names = await self._ledger.names()
        await self._client.command("SET", names.key(b"z", day.isoformat(), str(owner)), VERSION, "EX", KEEP)

    def _unreadable(self) -> None:
        self._journal.event("store_value_unreadable", kind="digest")
