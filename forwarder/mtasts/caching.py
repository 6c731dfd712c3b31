"""Which policy holds for a domain now? RFC 8461 sections 3.3, 5 and 10.2: found once, kept, and renewed behind the mail's back.

A domain's TXT record says that there is a policy, and by its id when there is another. The policy itself is fetched over HTTPS
and holds for its ``max_age``, whatever becomes of the record or of the host that served it: who stops our look-ups gets nobody
to send in clear. Only the first mail to a domain waits for the fetch; after that it is renewed while the old one still holds.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from forwarder.auth.dnsname import dns_name
from forwarder.https import HttpsFault, HttpsSettings
from forwarder.model import TlsResult, TlsSession
from forwarder.mtasts.text import MAX_TEXT, PolicyError, is_host, parse_policy, parse_record
from forwarder.ports import DnsStatus, Journal, PolicyStore, Resolver, StoreAway, StsPolicy, TlsLog

__all__ = ["AGAIN", "MAX_ENTRIES", "MAX_FLIGHTS", "MIN_AGE", "RECORD_WAIT", "RENEW", "StsClient"]

#: Domains that something, or nothing, is known of.
MAX_ENTRIES = 4096
#: Fetches at a time, of whatever domains; there is no waiting for a place.
MAX_FLIGHTS = 32
#: Seconds that mail waits for the TXT record, beyond which the domain has none for now.
RECORD_WAIT = 2.0
#: Seconds after a fetch that failed, or a record that could not be looked up, until the next try (RFC 8461 section 3.3).
AGAIN = 300.0
#: Seconds that a policy holds at least: a max_age of 0 would have every message fetch it.
MIN_AGE = 60.0
#: Seconds after which a policy is fetched anew at the latest (section 3.3: "for instance once a day"), or at half its max_age.
RENEW = 86400.0


@dataclass(slots=True)
class _Entry:
    """``policy`` holds until ``until``, and is fetched anew from ``renew_at`` on, but not before ``not_before``. Loop time.
    ``looked``: the store was asked. ``missed``: there may be a policy, which could not be had."""

    looked: bool = False
    missed: bool = False
    policy: StsPolicy | None = None
    until: float = 0.0
    renew_at: float = 0.0
    not_before: float = 0.0


class StsClient:
    """``ports.StsPolicies``. ``monotonic`` is the loop's time; ``tls_log`` counts policies that cannot be had."""

    def __init__(
        self,
        resolver: Resolver,
        settings: HttpsSettings,
        store: PolicyStore,
        journal: Journal,
        *,
        monotonic: Callable[[], float],
        tls_log: TlsLog | None = None,
    ) -> None:
        self._resolver = resolver
        self._settings = settings
        self._store = store
        self._journal = journal
        self._monotonic = monotonic
        self._tls_log = tls_log
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._flights: dict[str, asyncio.Task[None]] = {}

    async def policy(self, domain: str) -> StsPolicy | None:
        """See ``ports.StsPolicies``."""
        name = dns_name(domain)
        if name is None or not is_host(name):
            return None
        record, _ = await asyncio.gather(self._look_up_record(name), self._look_up_kept(name))
        entry, now = self._at(name), self._monotonic()
        if entry.policy is not None and now >= entry.until:
            entry.policy = None
        if record is None or now < entry.not_before:
            return entry.policy
        if entry.policy is None:
            await self._wait_for(name, record)
            return self._at(name).policy
        if entry.policy.id != record or now >= entry.renew_at:
            self._take_off(name, record)
        return entry.policy

    def may_have_one(self, domain: str) -> bool:
        """See ``ports.StsPolicies``."""
        entry = self._entries.get(dns_name(domain) or domain)
        return entry is not None and entry.policy is None and entry.missed

    async def aclose(self) -> None:
        """End what is under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    # --- what is known

    async def _look_up_record(self, name: str) -> str | None:
        entry = self._at(name)
        if self._monotonic() < entry.not_before:
            return None
        try:
            async with asyncio.timeout(RECORD_WAIT):
                answer = await self._resolver.txt(f"_mta-sts.{name}")
        except TimeoutError:
            answer = None
        if answer is None or answer.status is DnsStatus.TEMPERROR:
            # RFC 8461 section 3.1: as if there were none. A name server that does not know the name is not waited for again.
            entry.not_before, entry.missed = self._monotonic() + AGAIN, True
            return None
        record = parse_record(answer.records)
        if record is None:
            entry.missed = False
        return record

    async def _look_up_kept(self, name: str) -> None:
        """What was fetched before we were started, or by another process."""
        entry = self._at(name)
        if entry.looked:
            return
        try:
            found = await self._store.look_up_policy(name)
        except StoreAway:
            # It is asked again for the next message.
            return
        entry.looked = True
        if found is not None and entry.policy is None:
            self._hold(entry, *found)

    def _at(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is not None:
            self._entries.move_to_end(name)
            return entry
        entry = self._entries[name] = _Entry()
        if len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)
        return entry

    def _hold(self, entry: _Entry, policy: StsPolicy, left: float) -> None:
        now = self._monotonic()
        since = now + left - policy.max_age
        entry.policy = policy
        entry.until = now + max(left, MIN_AGE)
        entry.renew_at = since + min(policy.max_age / 2, RENEW)

    # --- what is fetched

    async def _wait_for(self, name: str, record: str) -> None:
        flight = self._take_off(name, record)
        if flight is not None:
            # Whoever gives up leaves the flight to those who wait with it.
            await asyncio.wait({flight})
        else:
            self._at(name).missed = True

    def _take_off(self, name: str, record: str) -> asyncio.Task[None] | None:
        flight = self._flights.get(name)
        if flight is None and len(self._flights) < MAX_FLIGHTS:
            flight = self._flights[name] = asyncio.create_task(self._fetch(name, record))
            flight.add_done_callback(lambda _: self._flights.pop(name))
        return flight

    async def _fetch(self, name: str, record: str) -> None:
        began = self._monotonic()
        policy, reason, missed = None, None, False
        try:
            policy = await self._get(name, record)
        except HttpsFault as fault:
            reason, missed = str(fault), fault.temporary
            self._count(name, TlsResult.POLICY_CERTIFICATE if fault.certificate else TlsResult.POLICY_FETCH, reason)
        except PolicyError as fault:
            reason = str(fault)
            self._count(name, TlsResult.POLICY_INVALID, reason)
        entry = self._at(name)
        entry.missed = missed
        if policy is None:
            entry.not_before = self._monotonic() + AGAIN
        else:
            self._hold(entry, policy, policy.max_age)
            await self._keep(name, policy)
        self._journal.event(
            "sts.fetched",
            domain=name,
            mode=policy.mode.value if policy is not None else None,
            reason=reason,
            seconds=round(self._monotonic() - began, 3),
        )

    def _count(self, name: str, result: TlsResult, reason: str) -> None:
        """For the reports of RFC 8460 (section 4.3.2.2)."""
        if self._tls_log is not None:
            self._tls_log.note(TlsSession(name, "sts", result=result, reason=reason))

    async def _get(self, name: str, record: str) -> StsPolicy:
        # aiohttp takes long to import.
        from forwarder.https.client import get  # noqa: PLC0415

        response = await get(
            self._resolver, f"mta-sts.{name}", "/.well-known/mta-sts.txt", self._settings, most=MAX_TEXT
        )
        # RFC 8461 section 3.3: redirects are not followed.
        if response.status != 200:
            raise HttpsFault(f"status {response.status}", temporary=True)
        if response.content_type != "text/plain":
            raise HttpsFault("not text/plain", temporary=False)
        return parse_policy(response.body, record)

    async def _keep(self, name: str, policy: StsPolicy) -> None:
        try:
            await self._store.put_policy(name, policy)
        except StoreAway:
            # It holds while we run.
            self._journal.event("sts.not_kept", domain=name)
