"""How often is a key host asked? Once for all who wait, within bounds, and not again before its answer has aged."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from forwarder.https import HttpsSettings
from forwarder.ports import Journal, KeyText, NoKeyText, Resolver

__all__ = [
    "DEFAULT_TTL",
    "FAULT_TTL",
    "MAX_DOMAIN_FLIGHTS",
    "MAX_ENTRIES",
    "MAX_FLIGHTS",
    "MAX_TTL",
    "MIN_TTL",
    "NEGATIVE_TTL",
    "KeyHostClient",
]

#: Seconds that a record is kept: what Cache-Control says, within these bounds; without it the default. The floor is that of
#: stale keys (auth.lookup.STALE): no forged mail makes us ask more often.
MIN_TTL, DEFAULT_TTL, MAX_TTL = 60, 3600, 86400
#: A clear "no" is kept shortly, a fault just long enough that a burst of mail is one request.
NEGATIVE_TTL, FAULT_TTL = 60, 15
#: Answers kept, of 8 KiB at most.
MAX_ENTRIES = 1000
#: Requests at a time; more are told to come back.
MAX_FLIGHTS = 32
#: Of them, those for one domain: a slow key host with a name for every selector leaves the others theirs.
MAX_DOMAIN_FLIGHTS = 2

_Key = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class _Entry:
    found: KeyText | NoKeyText
    since: float
    until: float


class KeyHostClient:
    """``ports.KeyHost``. ``monotonic`` is the loop's time."""

    def __init__(
        self, resolver: Resolver, settings: HttpsSettings, journal: Journal, *, monotonic: Callable[[], float]
    ) -> None:
        self._resolver = resolver
        self._settings = settings
        self._journal = journal
        self._monotonic = monotonic
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._flights: dict[_Key, asyncio.Task[KeyText | NoKeyText]] = {}

    async def fetch(self, domain: str, selector: str | None, *, fresh: bool = False) -> KeyText | NoKeyText:
        """See ``ports.KeyHost``."""
        key = (domain, selector)
        entry = self._entries.get(key)
        now = self._monotonic()
        if entry is not None and now < entry.until and not fresh:
            self._entries.move_to_end(key)
            if isinstance(entry.found, NoKeyText):
                return entry.found
            return replace(entry.found, age=int(now - entry.since))
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= MAX_FLIGHTS:
                return NoKeyText("too many key hosts to ask at a time", temporary=True)
            if sum(one == domain for one, _ in self._flights) >= MAX_DOMAIN_FLIGHTS:
                return NoKeyText("too many keys of this domain to ask for at a time", temporary=True)
            flight = self._flights[key] = asyncio.create_task(self._fetch(key))
            flight.add_done_callback(lambda _: self._flights.pop(key))
        # Whoever gives up leaves the flight to those who wait with it.
        await asyncio.wait({flight})
        return NoKeyText("stopping", temporary=True) if flight.cancelled() else flight.result()

    async def _fetch(self, key: _Key) -> KeyText | NoKeyText:
        # aiohttp takes long to import, and most services never meet a key host.
        from forwarder.keyhost.exchange import ask  # noqa: PLC0415

        began = self._monotonic()
        found, ttl = await ask(self._resolver, self._settings, *key)
        now = self._monotonic()
        match found:
            case KeyText():
                ttl = min(max(DEFAULT_TTL if ttl is None else ttl, MIN_TTL), MAX_TTL)
            case NoKeyText(temporary=temporary):
                ttl = FAULT_TTL if temporary else NEGATIVE_TTL
        # A fault does not push out a text that still holds: forged mail makes us ask anew, and good mail would wait for it.
        if not (isinstance(found, NoKeyText) and found.temporary and self._holds(key)):
            self._entries.pop(key, None)
            self._entries[key] = _Entry(found, now, now + ttl)
        while len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)
        self._journal.event(
            "keyhost.fetched",
            domain=key[0],
            selector=key[1],
            reason=found.reason if isinstance(found, NoKeyText) else None,
            seconds=round(now - began, 3),
        )
        return found

    def _holds(self, key: _Key) -> bool:
        entry = self._entries.get(key)
        return entry is not None and isinstance(entry.found, KeyText) and self._monotonic() < entry.until

    async def aclose(self) -> None:
        """End what is under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
