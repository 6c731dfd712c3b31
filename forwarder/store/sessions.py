"""How did TLS with other domains go? ``ports.TlsCounts`` on Redis, for the reports of RFC 8460.

Kinds of keys (names: ``forwarder.store.records``), each for three days:

    d  domains    set: the domains of a day
    x  sessions   hash: kind of session -> how many, of a domain and a day
    y  reported   mark: the domain has the report of that day
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from forwarder.model import TlsSession
from forwarder.ports import Journal
from forwarder.store.client import Commands, load_script
from forwarder.store.ledger import RedisLedger
from forwarder.store.records import VERSION, open_session, seal_session

__all__ = ["MAX_DOMAINS", "MAX_KINDS", "RedisTlsCounts"]

#: Domains of a day, and kinds of sessions with each: hosts, addresses and reasons are theirs to choose.
MAX_DOMAINS = 10_000
MAX_KINDS = 100
#: The day itself, the day on which it is reported, and one in which that may have failed.
KEEP = 3 * 86400

_SESSIONS = load_script("sessions")


class RedisTlsCounts:
    """The names come from the ledger, which knows the salt."""

    def __init__(self, client: Commands, ledger: RedisLedger, *, journal: Journal) -> None:
        self._client = client
        self._ledger = ledger
        self._journal = journal

    async def add_sessions(self, day: date, domain: str, counts: Mapping[TlsSession, int]) -> None:
        """See ``ports.TlsCounts``. A lost connection may count twice."""
        names = await self._ledger.names()
        keys = (names.key(b"d", day.isoformat()), names.key(b"x", day.isoformat(), domain))
        arguments: list[bytes | str | int] = [MAX_DOMAINS, MAX_KINDS, KEEP, domain]
        for session, count in counts.items():
            arguments += [seal_session(session), count]
        left_out = await self._client.run(_SESSIONS, keys, arguments)
        if left_out:
            self._journal.event("tlsrpt.left_out", domain=domain, kinds=left_out)

    async def session_domains(self, day: date) -> Sequence[str]:
        """See ``ports.TlsCounts``."""
        names = await self._ledger.names()
        found = await self._client.command("SMEMBERS", names.key(b"d", day.isoformat()))
        return sorted(one.decode("ascii", "replace") for one in found)

    async def sessions(self, day: date, domain: str) -> Mapping[TlsSession, int]:
        """See ``ports.TlsCounts``."""
        names = await self._ledger.names()
        found = await self._client.command("HGETALL", names.key(b"x", day.isoformat(), domain))
        counts: dict[TlsSession, int] = {}
        for field, count in zip(found[::2], found[1::2], strict=True):
            session = open_session(domain, field)
            if session is None or not count.isdigit():
                self._journal.event("store_value_unreadable", kind="sessions")
            else:
                counts[session] = int(count)
        return counts

    async def is_reported(self, day: date, domain: str) -> bool:
        """See ``ports.TlsCounts``."""
        names = await self._ledger.names()
        return bool(await self._client.command("EXISTS", names.key(b"y", day.isoformat(), domain)))

    async def mark_reported(self, day: date, domain: str) -> None:
        """See ``ports.TlsCounts``."""
        names = await self._ledger.names()
        await self._client.command("SET", names.key(b"y", day.isoformat(), domain), VERSION, "EX", KEEP)
