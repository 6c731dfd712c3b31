"""Sessions are counted, kept in a real store, and reported once a day."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from forwarder.https import HttpsSettings
from forwarder.mail.tlsreport import Reporter
from forwarder.model import TlsResult, TlsSession
from forwarder.pipeline import Doors
from forwarder.pipeline.tlsreporting import TlsReporting
from forwarder.ports import StoreAway
from forwarder.store.client import StoreClient
from forwarder.store.ledger import RedisLedger
from forwarder.store.server import EmbeddedStore
from forwarder.store.sessions import MAX_KINDS as MAX_KEPT
from forwarder.store.sessions import RedisTlsCounts
from forwarder.tlsrpt import AGAIN, MAX_KINDS, HttpsReports, TlsReports, TlsTally
from tests.fakes import FakeResolver, FixedClock, MemoryJournal
from tests.peers.https_server import response, run_https_server
from tests.store.servers import BOUND, empty, running

DAY = date(2026, 11, 23)
GOOD = TlsSession("a.test", "tlsa", ("3 1 1 ab",), ("mx.a.test",))
BAD = replace(GOOD, result=TlsResult.EXPIRED, host="mx.a.test", address="192.0.2.1", reason="old")


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    with running(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture
async def client(valkey: EmbeddedStore) -> AsyncIterator[StoreClient]:
    """On an empty server."""
    await empty(valkey)
    client = StoreClient(valkey.url, journal=MemoryJournal(), timeout=BOUND)
    yield client
    await client.close()


@pytest.fixture
async def admin(valkey: EmbeddedStore) -> AsyncIterator[StoreClient]:
    """May do more than the program."""
    admin = StoreClient(valkey.admin_url, journal=MemoryJournal(), timeout=BOUND)
    yield admin
    await admin.close()


@pytest.fixture
def counts(client: StoreClient) -> RedisTlsCounts:
    journal = MemoryJournal()
    return RedisTlsCounts(client, RedisLedger(client, journal=journal), journal=journal)


# --- the store


async def test_counts_of_all_processes_add_up(counts: RedisTlsCounts) -> None:
    await counts.add_sessions(DAY, "a.test", {GOOD: 2, BAD: 1})
    await counts.add_sessions(DAY, "a.test", {GOOD: 3})
    await counts.add_sessions(DAY, "b.test", {replace(GOOD, domain="b.test"): 1})
    assert await counts.session_domains(DAY) == ["a.test", "b.test"]
    assert await counts.sessions(DAY, "a.test") == {GOOD: 5, BAD: 1}
    assert await counts.session_domains(DAY + timedelta(days=1)) == []
    assert await counts.sessions(DAY, "c.test") == {}


async def test_a_domain_that_shows_ever_new_faults_is_bounded(counts: RedisTlsCounts) -> None:
    many = {replace(BAD, address=f"192.0.2.{n % 256}", reason=str(n)): 1 for n in range(MAX_KEPT + 10)}
    await counts.add_sessions(DAY, "a.test", many)
    await counts.add_sessions(DAY, "a.test", dict.fromkeys(list(many)[:3], 1))
    kept = await counts.sessions(DAY, "a.test")
    assert len(kept) == MAX_KEPT
    assert [kept[one] for one in list(many)[:3]] == [2, 2, 2], "what is known is counted on"


async def test_domains_of_a_day_are_bounded(counts: RedisTlsCounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forwarder.store.sessions.MAX_DOMAINS", 2)
    for name in ("a.test", "b.test", "c.test", "a.test"):
        await counts.add_sessions(DAY, name, {replace(GOOD, domain=name): 1})
    assert await counts.session_domains(DAY) == ["a.test", "b.test"]
    assert list((await counts.sessions(DAY, "a.test")).values()) == [2]


async def test_what_was_damaged_is_left_out(counts: RedisTlsCounts, client: StoreClient) -> None:
    await counts.add_sessions(DAY, "a.test", {GOOD: 1})
    name = (await counts._ledger.names()).key(b"x", DAY.isoformat(), "a.test")
    await client.command("HSET", name, b"\x01junk", 3, b"\x02", 4)
    assert await counts.sessions(DAY, "a.test") == {GOOD: 1}


async def test_all_that_is_kept_ends(counts: RedisTlsCounts, admin: StoreClient) -> None:
    await counts.add_sessions(DAY, "a.test", {GOOD: 1})
    await counts.mark_reported(DAY, "a.test")
    assert await counts.is_reported(DAY, "a.test")
    assert not await counts.is_reported(DAY, "b.test")
    keys = [one for one in await admin.command("KEYS", "*") if not one.endswith((b":salt", b":birth"))]
    assert len(keys) == 3
    assert all([0 < await admin.command("TTL", one) <= 3 * 86400 for one in keys])


# --- the tally


@dataclass
class Counts:
    """A store that is there or away, or does not answer about one domain."""

    away: bool = False
    silent_about: str = ""
    added: list[tuple[date, str, dict[TlsSession, int]]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def add_sessions(self, day: date, domain: str, counts: Mapping[TlsSession, int]) -> None:
        if self.away:
            raise StoreAway("away")
        if domain == self.silent_about:
            self.asked.set()
            await asyncio.Future()
        self.added.append((day, domain, dict(counts)))

    async def session_domains(self, day: date) -> list[str]:
        raise NotImplementedError

    async def sessions(self, day: date, domain: str) -> dict[TlsSession, int]:
        raise NotImplementedError

    async def is_reported(self, day: date, domain: str) -> bool:
        raise NotImplementedError

    async def mark_reported(self, day: date, domain: str) -> None:
        raise NotImplementedError


async def test_what_was_counted_goes_to_the_store_by_day_and_domain() -> None:
    store, clock = Counts(), FixedClock()
    tally = TlsTally(store, clock, MemoryJournal())
    other = replace(GOOD, domain="b.test")
    for one in (GOOD, BAD, GOOD, other):
        tally.note(one)
    clock.time += timedelta(days=1)
    tally.note(GOOD)
    await tally.flush()
    await tally.flush()
    assert store.added == [
        (DAY, "a.test", {GOOD: 2, BAD: 1}),
        (DAY, "b.test", {other: 1}),
        (DAY + timedelta(days=1), "a.test", {GOOD: 1}),
    ]


async def test_what_the_store_does_not_take_is_kept_within_bounds() -> None:
    store = Counts(away=True)
    tally = TlsTally(store, FixedClock(), MemoryJournal())
    for number in range(MAX_KINDS + 10):
        tally.note(replace(BAD, reason=str(number)))
    await tally.flush()
    tally.note(replace(BAD, reason="0"))
    tally.note(replace(BAD, reason="new"))
    store.away = False
    await tally.flush()
    ((_, _, counts),) = store.added
    assert (len(counts), counts[replace(BAD, reason="0")]) == (MAX_KINDS, 2)


async def test_a_reload_while_counts_are_on_their_way_loses_none() -> None:
    store = Counts(silent_about="b.test")
    tally = TlsTally(store, FixedClock(), MemoryJournal())
    for domain in ("a.test", "b.test", "c.test"):
        tally.note(replace(GOOD, domain=domain))
    cut_off = asyncio.create_task(tally.flush())
    await store.asked.wait()
    cut_off.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut_off
    store.silent_about = ""
    await tally.flush()
    assert sorted(domain for _, domain, _ in store.added) == ["a.test", "b.test", "c.test"]


# --- the day


@dataclass
class Sending:
    """Reports days, if ``known``."""

    known: bool = True
    away: bool = False
    days: list[date] = field(default_factory=list)

    async def __call__(self, day: date) -> bool:
        if self.away:
            raise StoreAway("away")
        self.days.append(day)
        return self.known


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 11, 24, 0, 10, tzinfo=UTC))


def reports(clock: FixedClock, send: Sending) -> TlsReports:
    journal = MemoryJournal()
    return TlsReports(TlsTally(Counts(), clock, journal), send, clock, journal, 3600)


async def test_a_day_is_reported_once_some_time_after_it_is_over(clock: FixedClock) -> None:
    send = Sending()
    one = reports(clock, send)
    for _ in range(4 * 24):
        await one.report_if_due()
        clock.time += timedelta(minutes=15)
    assert send.days == [DAY - timedelta(days=1), DAY]


async def test_while_the_store_is_away_it_is_tried_again(clock: FixedClock) -> None:
    send = Sending(away=True)
    one = reports(clock, send)
    await one.report_if_due()
    send.away = False
    await one.report_if_due()
    assert len(send.days) == 1


async def test_domains_whose_dns_is_silent_are_asked_again_an_hour_later(clock: FixedClock) -> None:
    send = Sending(known=False)
    one = reports(clock, send)
    await one.report_if_due()
    await one.report_if_due()
    assert len(send.days) == 1
    clock.time += AGAIN
    await one.report_if_due()
    assert len(send.days) == 2


# --- who gets it


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (response(b"thanks", "201 Created"), None),
        (response(b"", "500 Oh"), "status 500"),
        (response(b"", "302 Found", Location="https://b.test/"), "status 302"),
        (b"", "no proper HTTP answer"),
    ],
)
async def test_a_report_is_posted_in_one_try(tmp_path: Path, answer: bytes, reason: str | None) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.cert_pem.write_to_path(str(tmp_path / "roots.pem"))
    authority.issue_cert("r.a.test").configure_cert(context)
    async with run_https_server(context) as host:
        host.answer = answer
        settings = HttpsSettings(host.port, allow_private=True, ca_file=tmp_path / "roots.pem")
        hosts = HttpsReports(FakeResolver({"r.a.test": {"A": ["127.0.0.1"]}}), settings)
        assert await hosts.post_report("r.a.test", "/x?y=1", b"\x1f\x8b") == reason
        (request,) = host.requests
    assert request.startswith("POST /x?y=1 HTTP/1.1\r\n")
    assert "Content-Length: 2\r\n" in request


async def test_a_private_address_gets_no_report() -> None:
    hosts = HttpsReports(FakeResolver({"r.a.test": {"A": ["127.0.0.1"]}}), HttpsSettings())
    assert await hosts.post_report("r.a.test", "/", b"") == "it has no public address"


class NoKeys:
    """A ring whose keys still wait for their records."""

    def dkim(self, domain: str) -> list[Any]:
        return []


async def test_without_a_key_to_sign_with_nothing_is_sent_and_nothing_is_lost(counts: RedisTlsCounts) -> None:
    nobody: Any = None
    doors = Doors(
        directory=nobody,
        resolver=FakeResolver({"_smtp._tls.a.test": {"TXT": ["v=TLSRPTv1; rua=mailto:r@a.test"]}}),
        ledger=nobody,
        mailboxes=nobody,
        keys=NoKeys(),  # type: ignore[arg-type]
        clock=FixedClock(),
        journal=MemoryJournal(),
    )
    await counts.add_sessions(DAY, "a.test", {GOOD: 1})
    reporting = TlsReporting(nobody, doors, counts, nobody, nobody, Reporter("fwd.test", "mx.fwd.test"))
    assert not await reporting.send(DAY)
    assert not await counts.is_reported(DAY, "a.test")
