"""How many TLS sessions of which kind, and when are they reported? Counted in memory, added to the store once a minute.

What a process counted in its last minute is lost with it if it crashes: these are statistics, and no delivery waits for them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta

from forwarder.https import HttpsFault, HttpsSettings
from forwarder.model import TlsSession
from forwarder.ports import Clock, Journal, Resolver, StoreAway, TlsCounts

__all__ = ["AGAIN", "FLUSH", "JITTER", "MAX_KINDS", "HttpsReports", "TlsReports", "TlsTally"]

#: Seconds between two additions to the store.
FLUSH = 60.0
#: Kinds of sessions counted between two; of what comes beyond, nothing is known.
MAX_KINDS = 10_000
#: RFC 8460 section 5.1: seconds after midnight (UTC) within which a report begins; the least leaves all processes their flush.
JITTER = (300.0, 4 * 3600.0)


#: Until domains are asked again whose DNS did not answer.
AGAIN = timedelta(hours=1)


class TlsTally:
    """``ports.TlsLog``."""

    def __init__(self, counts: TlsCounts, clock: Clock, journal: Journal) -> None:
        self._store = counts
        self._clock = clock
        self._journal = journal
        self._counts: Counter[tuple[date, TlsSession]] = Counter()

    def note(self, session: TlsSession) -> None:
        """See ``ports.TlsLog``."""
        kind = (self._clock.now().date(), session)
        if len(self._counts) < MAX_KINDS or kind in self._counts:
            self._counts[kind] += 1

    async def flush(self) -> None:
        """Add to the store what was counted since; what it does not take is kept."""
        counts, self._counts = self._counts, Counter()
        grouped: dict[tuple[date, str], dict[TlsSession, int]] = {}
        for (day, session), count in counts.items():
            grouped.setdefault((day, session.domain), {})[session] = count
        try:
            for (day, domain), sessions in list(grouped.items()):
                try:
                    await self._store.add_sessions(day, domain, sessions)
                except StoreAway:
                    continue
                del grouped[day, domain]
        finally:
            # Where a reload ends this task, the next one adds the rest.
            for (day, _), sessions in grouped.items():
                self._counts.update({(day, session): count for session, count in sessions.items()})


class TlsReports:
    """``send`` reports a day; ``jitter``: seconds after midnight from which on."""

    def __init__(
        self, tally: TlsTally, send: Callable[[date], Awaitable[bool]], clock: Clock, journal: Journal, jitter: float
    ) -> None:
        self._tally = tally
        self._send = send
        self._clock = clock
        self._journal = journal
        self._jitter = timedelta(seconds=jitter)
        self._done: date | None = None
        self._not_before = datetime.min.replace(tzinfo=UTC)

    async def run(self) -> None:
        """For as long as the program runs."""
        while True:
            await asyncio.sleep(FLUSH)
            await self._tally.flush()
            await self.report_if_due()

    async def report(self, day: date) -> bool:
        """What is known of this day, now. Raises StoreAway."""
        await self._tally.flush()
        return await self._send(day)

    async def report_if_due(self) -> None:
        """Yesterday, once."""
        now = self._clock.now()
        day = (now - self._jitter).date() - timedelta(days=1)
        if day == self._done or now < self._not_before:
            return
        try:
            known = await self._send(day)
        except StoreAway as away:
            self._journal.event("tlsrpt.away", reason=str(away))
            return
        if known:
            self._done = day
        else:
            self._not_before = now + AGAIN


class HttpsReports:
    """``ports.ReportHosts``."""

    def __init__(self, resolver: Resolver, settings: HttpsSettings) -> None:
        self._resolver = resolver
        self._settings = settings

    async def post_report(self, host: str, path: str, packed: bytes) -> str | None:
        """See ``ports.ReportHosts``."""
        # aiohttp takes long to import.
        from forwarder.https.client import post  # noqa: PLC0415

        try:
            response = await post(
                self._resolver, host, path, self._settings, body=packed, content_type="application/tlsrpt+gzip"
            )
        except HttpsFault as fault:
            return str(fault)
        return None if response.status // 100 == 2 else f"status {response.status}"
