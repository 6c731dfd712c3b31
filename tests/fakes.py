"""Fakes for our own doors (forwarder/ports/): data in, no behaviour of the thing they stand for is imitated beyond it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from forwarder.mail.header import parse_message
from forwarder.model import Message
from forwarder.ports import Answer, DnsStatus, Tlsa

Zone = Mapping[str, Mapping[str, Sequence[Any] | str]]


class FakeResolver:
    """A zone as a dict: name -> type -> list of data, or the word "SERVFAIL"/"TIMEOUT" in place of the list (type "*" for all).

    A name that is not in the zone is NXDOMAIN, a type that its name lacks NODATA. ``queries`` records every question.
    """

    def __init__(self, zone: Zone | None = None) -> None:
        self.zone = {name.rstrip(".").lower(): dict(types) for name, types in (zone or {}).items()}
        self.queries: list[tuple[str, str]] = []

    def _look_up(self, name: str, rdtype: str) -> Answer[Any]:
        name = name.rstrip(".").lower()
        self.queries.append((name, rdtype))
        types = self.zone.get(name)
        if types is None:
            return Answer(DnsStatus.NXDOMAIN, ttl=60)
        data = types.get(rdtype, types.get("*"))
        if isinstance(data, str):
            return Answer(DnsStatus.TEMPERROR, detail=data)
        if not data:
            return Answer(DnsStatus.NODATA, ttl=60)
        return Answer(DnsStatus.OK, tuple(data), ttl=300)

    async def txt(self, name: str, *, fresh: bool = False) -> Answer[bytes]:
        answer = self._look_up(name, "TXT")
        return Answer(
            answer.status,
            tuple(one.encode() if isinstance(one, str) else one for one in answer.records),
            answer.ttl,
            detail=answer.detail,
        )

    def prefetch_txt(self, names: Iterable[str]) -> None:
        """Nothing to gain: every answer is here."""

    async def a(self, name: str) -> Answer[IPv4Address]:
        answer = self._look_up(name, "A")
        return Answer(
            answer.status, tuple(IPv4Address(one) for one in answer.records), answer.ttl, detail=answer.detail
        )

    async def aaaa(self, name: str) -> Answer[IPv6Address]:
        answer = self._look_up(name, "AAAA")
        return Answer(
            answer.status, tuple(IPv6Address(one) for one in answer.records), answer.ttl, detail=answer.detail
        )

    async def mx(self, name: str) -> Answer[tuple[int, str]]:
        """MX data are strings, "10 mx.example", or (preference, exchange) pairs."""
        answer = self._look_up(name, "MX")
        pairs = [one.split() if isinstance(one, str) else one for one in answer.records]
        return Answer(
            answer.status, tuple((int(p), str(x).rstrip(".")) for p, x in pairs), answer.ttl, detail=answer.detail
        )

    async def tlsa(self, name: str) -> Answer[Tlsa]:
        return self._look_up(name, "TLSA")

    async def cname(self, name: str) -> Answer[str]:
        return self._look_up(name, "CNAME")

    async def ptr(self, ip: IPv4Address | IPv6Address) -> Answer[str]:
        answer = self._look_up(ip.reverse_pointer, "PTR")
        return Answer(answer.status, tuple(one.rstrip(".") for one in answer.records), answer.ttl, detail=answer.detail)


@dataclass
class FixedClock:
    """The time that the test says it is."""

    time: datetime = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def nanoseconds(self) -> int:
        return (self.time - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1) * 1000


@dataclass
class MemoryJournal:
    """Keeps every event, so that a test can ask what was told."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def event(self, name: str, /, **fields: Any) -> None:
        self.events.append((name, fields))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [fields for one, fields in self.events if one == name]


def message(text: str | bytes) -> Message:
    """A Message from a literal with bare newlines or CRLF."""
    raw = text.encode() if isinstance(text, str) else text
    return parse_message(raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
