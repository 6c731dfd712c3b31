"""A relay to test, and what it is tested with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random
from typing import Any

from forwarder.mail.address import parse_address
from forwarder.model import Delivery, Outcome, RecipientOutcome
from forwarder.relay import RelaySettings, SmtpRelay, Timeouts
from forwarder.resolver import ZoneResolver
from tests.fakes import FakeResolver, MemoryJournal, Zone

MESSAGE = (b"From: a@a.test\r\nSubject: hello\r\n", b"\r\n", b"one\r\n.two\r\n..\r\n")


def delivery(
    *recipients: str, data: tuple[bytes, ...] = MESSAGE, sender: str | None = "s@us.test", **more: Any
) -> Delivery:
    """One for sink.test."""
    to = tuple(map(parse_address, recipients or ("r@sink.test",)))
    return Delivery(
        "d1",
        parse_address(sender) if sender else None,
        to,
        more.pop("next_hop", to[0].domain),
        data,
        datetime(2026, 11, 28, tzinfo=UTC),
        **more,
    )


def results(outcome: Outcome) -> list[RecipientOutcome]:
    return [result for _, result in outcome.results]


def summary(outcome: Outcome) -> list[tuple[str, int | None]]:
    """("Delivered", 250) and so on, for each recipient."""
    return [(type(one).__name__, one.reply.code if one.reply else None) for one in results(outcome)]


@dataclass
class Bench:
    """A relay with what it stands on."""

    relay: SmtpRelay
    resolver: FakeResolver | ZoneResolver
    journal: MemoryJournal

    async def deliver(self, *recipients: str, **more: Any) -> Outcome:
        return await asyncio.wait_for(self.relay.deliver(delivery(*recipients, **more)), 10)


@asynccontextmanager
async def bench(zone: Zone, port: int, timeouts: Timeouts | None = None, **settings: Any) -> AsyncIterator[Bench]:
    """``signed=True`` takes the zone as a zone file has it, with what DNSSEC vouches for."""
    resolver = ZoneResolver(zone) if settings.pop("signed", False) else FakeResolver(zone)
    journal = MemoryJournal()
    sts, tls_log = settings.pop("sts", None), settings.pop("tls_log", None)
    given = {"hostname": "us.test", "port": port, "allow_private": True} | settings
    relay = SmtpRelay(
        resolver,
        RelaySettings(timeouts=timeouts or SHORT, **given),
        journal,
        given.pop("rng", None) or Random(1),
        sts=sts,
        tls_log=tls_log,
    )
    try:
        yield Bench(relay, resolver, journal)
    finally:
        await relay.close()


#: Long enough for loopback, short enough for a test that waits for one of them by replacing it.
SHORT = Timeouts(*[5.0] * 9, quit=0.2, slot=5, reused=5)


def short(**names: float) -> Timeouts:
    """All generous, but for these."""
    return replace(SHORT, **names)


def mx(*hosts: str) -> dict[str, dict[str, list[str]]]:
    """``sink.test`` with its mail hosts, given as "preference name address...": all of them resolve."""
    zone: dict[str, dict[str, list[str]]] = {"sink.test": {"MX": []}}
    for host in hosts:
        preference, name, *addresses = host.split()
        zone["sink.test"]["MX"].append(f"{preference} {name}")
        zone[name] = {
            "A": [one for one in addresses if ":" not in one],
            "AAAA": [one for one in addresses if ":" in one],
        }
    return zone


ONE = mx("10 mx.sink.test 127.0.0.1")
