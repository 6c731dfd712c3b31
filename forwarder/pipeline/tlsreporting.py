"""Who hears how TLS with its mail hosts went yesterday? Each domain that asks for it, once a day (RFC 8460)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from ipaddress import IPv4Address, ip_address

from forwarder.mail.tlsreport import Reporter, ReportPlace, build_json, build_report, pack, parse_record
from forwarder.model import Address, Envelope, Peer, TlsSession, TlsWish
from forwarder.pipeline.doors import Doors, Settings
from forwarder.pipeline.report import seal_report
from forwarder.ports import DnsStatus, Held, Queue, QueueFull, ReportHosts, TlsCounts

__all__ = ["TlsReporting"]

#: RFC 8460 section 5.3: a report is tried for a day.
_LIFETIME = timedelta(days=1)


class TlsReporting:
    """``reporter.domain`` must have a DKIM key, else a report proves nothing."""

    def __init__(
        self,
        settings: Settings,
        doors: Doors,
        counts: TlsCounts,
        queue: Queue,
        hosts: ReportHosts,
        reporter: Reporter,
    ) -> None:
        self._settings = settings
        self._doors = doors
        self._counts = counts
        self._queue = queue
        self._hosts = hosts
        self._reporter = reporter

    async def send(self, day: date) -> bool:
        """What was counted on ``day``, to all that ask for it and have not had it. False: of some it is not known yet. Raises
        StoreAway; again does no harm."""
        if not self._doors.keys.dkim(self._reporter.domain):
            # RFC 8460 section 3: signed, or it proves nothing. The key may still wait for its record.
            return False
        known = True
        for domain in await self._counts.session_domains(day):
            if not await self._counts.is_reported(day, domain):
                known = await self._send_one(day, domain) and known
        return known

    async def _send_one(self, day: date, domain: str) -> bool:
        answer = await self._doors.resolver.txt(f"_smtp._tls.{domain}")
        if answer.status is DnsStatus.TEMPERROR:
            return False
        places = parse_record(answer.records)
        if places:
            counts = await self._counts.sessions(day, domain)
            await self._mail([one for one in places if isinstance(one, Address)], day, domain, counts)
            await self._post([one for one in places if isinstance(one, ReportPlace)], day, domain, counts)
        await self._counts.mark_reported(day, domain)
        return True

    async def _mail(
        self, addresses: Sequence[Address], day: date, domain: str, counts: Mapping[TlsSession, int]
    ) -> None:
        reports = [self._seal(to, day, domain, counts, number) for number, to in enumerate(addresses)]
        reason = None
        try:
            if reports:
                await self._queue.put(reports)
        except QueueFull:
            # Mail comes first.
            reason = "the queue is full"
        for to in addresses:
            self._tell(domain, to.domain, reason)

    async def _post(
        self, places: Sequence[ReportPlace], day: date, domain: str, counts: Mapping[TlsSession, int]
    ) -> None:
        """RFC 8460 section 5.4."""
        for place in places:
            packed = pack(build_json(self._reporter, domain, day, counts))
            self._tell(domain, place.host, await self._hosts.post_report(place.host, place.path, packed))

    def _tell(self, domain: str, to: str, reason: str | None) -> None:
        name = "tlsrpt.sent" if reason is None else "tlsrpt.not_sent"
        self._doors.journal.event(name, domain=domain, to=to, reason=reason)

    def _seal(self, to: Address, day: date, domain: str, counts: Mapping[TlsSession, int], number: int) -> Held:
        now, reporter = self._doors.clock.now(), self._reporter
        raw = build_report(reporter, to, domain, day, counts, now=now)
        name = f"tls.{day.isoformat()}.{domain}.{number}"
        ip = ip_address(reporter.sources[0]) if reporter.sources else IPv4Address("127.0.0.1")
        cause = Envelope(name, Peer(ip, reporter.hostname), None, (), now)
        held = seal_report(
            raw, to, cause, id=name, srs_domain=reporter.domain, settings=self._settings, doors=self._doors
        )
        # RFC 8460 section 5.3: the report that TLS is broken goes out without it if need be.
        delivery = replace(held.delivery, expires_at=now + _LIFETIME, tls=TlsWish.INDIFFERENT)
        return replace(held, delivery=delivery)
