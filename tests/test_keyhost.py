"""The key host of another domain, asked over real TLS on loopback: the table of outcomes, and what a stranger may try."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
import trustme

from forwarder.https import HttpsSettings
from forwarder.https.client import judged_addresses
from forwarder.keyhost import KeyHostClient
from forwarder.keyhost.caching import (
    DEFAULT_TTL,
    FAULT_TTL,
    MAX_DOMAIN_FLIGHTS,
    MAX_ENTRIES,
    MAX_FLIGHTS,
    MAX_TTL,
    MIN_TTL,
    NEGATIVE_TTL,
)
from forwarder.ports import Answer, KeyText, NoKeyText
from tests.fakes import FakeResolver, MemoryJournal
from tests.peers.https_server import HttpsServer, response, run_https_server

HOST = "mailkey.sender.test"
RECORD = b"v=mailkey1; p=AAAA"


@dataclass
class Place:
    """A key host, and who asks it. ``time`` is the asker's."""

    server: HttpsServer
    client: KeyHostClient
    resolver: FakeResolver
    journal: MemoryJournal
    time: float = 1000.0

    async def fetch(self, selector: str | None = None, *, fresh: bool = False) -> KeyText | NoKeyText:
        return await self.client.fetch("sender.test", selector, fresh=fresh)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def context_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@asynccontextmanager
async def place(
    folder: Path,
    authority: trustme.CA,
    *,
    certificate: trustme.LeafCert | None = None,
    addresses: tuple[str, ...] = ("127.0.0.1",),
    allow_private: bool = True,
    seconds: float = 5,
) -> AsyncIterator[Place]:
    roots = folder / "roots.pem"
    authority.cert_pem.write_to_path(str(roots))
    async with run_https_server(context_of(certificate or authority.issue_cert(HOST))) as server:
        v6 = [one for one in addresses if ":" in one]
        resolver = FakeResolver({HOST: {"A": [one for one in addresses if ":" not in one], "AAAA": v6}})
        journal = MemoryJournal()
        settings = HttpsSettings(server.port, allow_private, roots, seconds)
        client = KeyHostClient(resolver, settings, journal, monotonic=lambda: it.time)
        it = Place(server, client, resolver, journal)
        try:
            yield it
        finally:
            await client.aclose()


# --- what is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("selector", "path"), [(None, ""), ("k1", "/k1")])
async def test_a_key_is_at_its_well_known_place(
    tmp_path: Path, authority: trustme.CA, selector: str | None, path: str
) -> None:
    async with place(tmp_path, authority) as it:
        it.server.answer = response(RECORD)
        assert await it.fetch(selector) == KeyText(RECORD)
        request = it.server.requests[0]
        assert request.startswith(f"GET /.well-known/mailkey{path} HTTP/1.1\r\n")
        assert f"Host: {HOST}:{it.server.port}\r\n" in request
        assert "Accept-Encoding: identity\r\n" in request
        assert "cookie" not in request.lower()


async def test_proxies_of_the_environment_are_not_used_and_cookies_not_kept(
    tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with place(tmp_path, authority) as it:
        it.server.answer = response(RECORD, Set_Cookie="a=b", Cache_Control="no-store")
        assert isinstance(await it.fetch(), KeyText)
        assert isinstance(await it.fetch(fresh=True), KeyText)
        assert "cookie" not in it.server.requests[1].lower()


# --- the table of outcomes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason", "temporary"),
    [
        (response(b"", "404 Not Found"), "no such key (404)", False),
        (response(b"", "410 Gone"), "no such key (410)", False),
        (response(RECORD, "301 Moved", Location=f"https://{HOST}/x"), "a redirect (301), which is not followed", False),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "a redirect (304), which is not followed", False),
        (response(RECORD, "500 Oh"), "status 500", True),
        (response(RECORD, "503 Later"), "status 503", True),
        (response(RECORD, "429 Slow"), "status 429", True),
        (response(RECORD, "403 No"), "status 403", True),
        (b"HTTP/1.1 204 Nothing\r\n\r\n", "status 204", True),
        (response(RECORD, content_type="text/html"), "not text/plain", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nxx", "not text/plain", False),
        (response(gzip.compress(b"a" * 99999), Content_Encoding="gzip"), "compressed although not asked for", False),
        (response(b"a" * 8193), "more than 8192 octets", False),
        (response(RECORD, X_Huge="a" * 100_000), "no proper HTTP answer", True),
        (b"220 mx.sender.test ESMTP\r\n", "no proper HTTP answer", True),
        (b"", "no proper HTTP answer", True),
        (response(RECORD)[:-3], "no proper HTTP answer", True),
    ],
)
async def test_what_is_no_record_is_said_so(
    tmp_path: Path, authority: trustme.CA, answer: bytes, reason: str, *, temporary: bool
) -> None:
    async with place(tmp_path, authority) as it:
        it.server.answer = answer
        found = await it.fetch()
        assert isinstance(found, NoKeyText)
        assert found.temporary is temporary
        assert found.reason == f"key host: {reason}"
        assert it.journal.named("keyhost.fetched")[0]["reason"] == found.reason


async def test_a_record_of_8_kib_is_read(tmp_path: Path, authority: trustme.CA) -> None:
    async with place(tmp_path, authority) as it:
        it.server.answer = response(b"a" * 8192)
        assert await it.fetch() == KeyText(b"a" * 8192)


async def test_a_body_without_end_is_left_after_8_kib(tmp_path: Path, authority: trustme.CA) -> None:
    async with place(tmp_path, authority) as it:
        it.server.answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
        it.server.repeat = b"v=mailkey1; " * 1000
        assert await it.fetch() == NoKeyText("key host: more than 8192 octets", temporary=False)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Ty", response(RECORD)[:-1]])
async def test_a_host_that_drips_is_left_in_time(tmp_path: Path, authority: trustme.CA, answer: bytes) -> None:
    async with place(tmp_path, authority, seconds=0.3) as it:
        it.server.answer, it.server.hangs = answer, True
        assert await it.fetch() == NoKeyText("key host: no answer within 0.3 s", temporary=True)


# --- certificates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["expired", "wrong name", "unknown authority", "the domain's, not the host's"])
async def test_only_a_certificate_valid_for_the_name_counts(tmp_path: Path, authority: trustme.CA, what: str) -> None:
    match what:
        case "expired":
            certificate = authority.issue_cert(HOST, not_after=datetime.now(UTC) - timedelta(days=1))
        case "wrong name":
            certificate = authority.issue_cert("mailkey.other.test")
        case "unknown authority":
            certificate = trustme.CA().issue_cert(HOST)
        case _:
            certificate = authority.issue_cert("sender.test")
    async with place(tmp_path, authority, certificate=certificate) as it:
        it.server.answer = response(RECORD)
        assert await it.fetch() == NoKeyText("key host: no valid certificate for its name", temporary=True)
        assert not it.server.requests


async def test_a_closed_port_is_temporary(tmp_path: Path, authority: trustme.CA) -> None:
    async with place(tmp_path, authority, addresses=("127.0.0.2",)) as it:
        assert await it.fetch() == NoKeyText("key host: cannot connect", temporary=True)


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
    ],
)
async def test_an_address_that_is_not_public_is_not_connected_to(
    tmp_path: Path, authority: trustme.CA, address: str
) -> None:
    async with place(tmp_path, authority, addresses=(address,), allow_private=False) as it:
        assert await it.fetch() == NoKeyText("key host: it has no public address", temporary=False)
        assert not it.server.requests


async def test_a_name_that_changes_its_address_is_asked_once(tmp_path: Path, authority: trustme.CA) -> None:
    class Rebinding(FakeResolver):
        async def a(self, name: str) -> Answer[IPv4Address]:
            answer = await super().a(name)
            self.zone[HOST]["A"] = ["127.0.0.1"]
            return answer

    async with place(tmp_path, authority) as it:
        it.server.answer = response(RECORD)
        # Nobody listens there; a second look-up would lead to the server.
        resolver = Rebinding({HOST: {"A": ["127.0.0.2"]}})
        settings = HttpsSettings(it.server.port, allow_private=True, ca_file=tmp_path / "roots.pem")
        client = KeyHostClient(resolver, settings, it.journal, monotonic=lambda: 0.0)
        assert await client.fetch("sender.test", None) == NoKeyText("key host: cannot connect", temporary=True)
        assert resolver.queries.count((HOST, "A")) == 1
        assert not it.server.requests


async def test_private_addresses_beside_public_ones_are_left_out() -> None:
    resolver = FakeResolver({HOST: {"A": ["127.0.0.1", "8.8.8.8", "10.0.0.1"], "AAAA": ["::1", "::ffff:10.0.0.1"]}})
    assert await judged_addresses(resolver, HOST, HttpsSettings()) == [ip_address("8.8.8.8")]


@pytest.mark.parametrize(
    ("zone", "found"),
    [
        ({}, NoKeyText("key host: it has no address", temporary=False)),
        ({HOST: {"*": "SERVFAIL"}}, NoKeyText("key host: no answer from the DNS for it", temporary=True)),
        ({HOST: {"A": "TIMEOUT"}}, NoKeyText("key host: no answer from the DNS for it", temporary=True)),
    ],
)
async def test_a_silent_dns_is_not_taken_for_no_address(zone: dict[str, dict[str, str]], found: NoKeyText) -> None:
    client = KeyHostClient(FakeResolver(zone), HttpsSettings(), MemoryJournal(), monotonic=lambda: 0.0)
    assert await client.fetch("sender.test", None) == found


# --- the cache --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "lifetime"),
    [
        ({}, DEFAULT_TTL),
        ({"Cache_Control": "public, max-age=600"}, 600),
        ({"Cache_Control": "max-age=600", "Age": "200"}, 400),
        ({"Cache_Control": "max-age=1"}, MIN_TTL),
        ({"Cache_Control": "no-store"}, MIN_TTL),
        ({"Cache_Control": "max-age=9999999999"}, MAX_TTL),
        ({"Cache_Control": "max-age=-5"}, DEFAULT_TTL),
        ({"Cache_Control": "s-maxage=99"}, DEFAULT_TTL),
    ],
)
async def test_a_record_is_kept_as_long_as_it_says_within_bounds(
    tmp_path: Path, authority: trustme.CA, headers: dict[str, str], lifetime: int
) -> None:
    async with place(tmp_path, authority) as it:
        it.server.answer = response(RECORD, **headers)
        await it.fetch()
        it.time += lifetime - 1
        assert await it.fetch() == KeyText(RECORD, age=lifetime - 1)
        assert len(it.server.requests) == 1
        it.time += 1
        assert await it.fetch() == KeyText(RECORD)
        assert len(it.server.requests) == 2


@pytest.mark.parametrize(("status", "lifetime"), [("404 No", NEGATIVE_TTL), ("503 Later", FAULT_TTL)])
async def test_a_no_is_kept_briefly(tmp_path: Path, authority: trustme.CA, status: str, lifetime: int) -> None:
    async with place(tmp_path, authority) as it:
        it.server.answer = response(b"", status)
        for later in (0, lifetime - 1, 1):
            it.time += later
            assert isinstance(await it.fetch(), NoKeyText)
        assert len(it.server.requests) == 2


async def test_a_fault_does_not_push_out_a_text_that_still_holds(tmp_path: Path, authority: trustme.CA) -> None:
    async with place(tmp_path, authority) as it:
        it.server.answer = response(RECORD)
        await it.fetch()
        it.time += 100
        it.server.answer = response(b"", "503 Later")
        assert await it.fetch(fresh=True) == NoKeyText("key host: status 503", temporary=True)
        assert await it.fetch() == KeyText(RECORD, age=100)
        it.server.answer = response(b"", "404 Gone")
        assert isinstance(await it.fetch(fresh=True), NoKeyText)
        assert isinstance(await it.fetch(), NoKeyText)


async def test_all_who_wait_share_one_request_and_one_who_leaves_does_not_end_it(
    tmp_path: Path, authority: trustme.CA
) -> None:
    async with place(tmp_path, authority) as it:
        it.server.answer = response(RECORD)
        it.server.gate.clear()
        waiting = [asyncio.create_task(it.fetch()) for _ in range(5)]
        await it.server.asked.wait()
        waiting.pop(0).cancel()
        it.server.gate.set()
        assert await asyncio.gather(*waiting) == [KeyText(RECORD)] * 4
        assert len(it.server.requests) == 1


async def test_requests_at_a_time_are_bounded(tmp_path: Path, authority: trustme.CA) -> None:
    async with place(tmp_path, authority) as it:
        it.server.answer = response(RECORD)
        it.server.gate.clear()
        waiting = [asyncio.create_task(it.client.fetch(f"d{number}.test", None)) for number in range(MAX_FLIGHTS)]
        await asyncio.sleep(0)
        assert await it.fetch() == NoKeyText("too many key hosts to ask at a time", temporary=True)
        it.server.gate.set()
        await asyncio.gather(*waiting)
        assert await it.fetch() == KeyText(RECORD)


async def test_a_domain_with_a_slow_key_host_and_many_keys_leaves_the_others_their_requests(
    tmp_path: Path, authority: trustme.CA
) -> None:
    async with place(tmp_path, authority) as it:
        it.server.answer = response(RECORD)
        it.server.gate.clear()
        waiting = [asyncio.create_task(it.fetch(f"k{number}")) for number in range(MAX_FLIGHTS)]
        await asyncio.sleep(0)
        other = await it.client.fetch("other.test", None)
        assert isinstance(other, NoKeyText)
        assert "too many" not in other.reason
        it.server.gate.set()
        answers = await asyncio.gather(*waiting)
        assert answers[:MAX_DOMAIN_FLIGHTS] == [KeyText(RECORD)] * MAX_DOMAIN_FLIGHTS
        refused = NoKeyText("too many keys of this domain to ask for at a time", temporary=True)
        assert answers[MAX_DOMAIN_FLIGHTS:] == [refused] * (MAX_FLIGHTS - MAX_DOMAIN_FLIGHTS)
        assert await it.fetch("k9") == KeyText(RECORD)


async def test_the_cache_is_bounded() -> None:
    client = KeyHostClient(FakeResolver({}), HttpsSettings(), MemoryJournal(), monotonic=lambda: 0.0)
    for number in range(MAX_ENTRIES + 10):
        await client.fetch(f"d{number}.test", None)
    assert len(client._entries) == MAX_ENTRIES
