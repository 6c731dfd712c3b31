"""MTA-STS: what records and policies say, and when which policy holds. Policies come over real TLS and lie in a real store."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from forwarder.https import HttpsSettings
from forwarder.model import TlsResult, TlsSession
from forwarder.mtasts import StsClient
from forwarder.mtasts.caching import AGAIN, MAX_ENTRIES, MAX_FLIGHTS, MIN_AGE, RENEW
from forwarder.mtasts.text import MAX_AGE, MAX_HOSTS, MAX_TEXT, PolicyError, parse_policy, parse_record
from forwarder.ports import Answer, PolicyStore, StoreAway, StsMode, StsPolicy
from forwarder.store.client import StoreClient
from forwarder.store.ledger import RedisLedger
from forwarder.store.policies import RedisPolicies
from forwarder.store.server import EmbeddedStore
from tests.cost import cost_of
from tests.fakes import FakeResolver, MemoryJournal
from tests.peers.https_server import HttpsServer, response, run_https_server
from tests.store.servers import BOUND, empty, running
from tests.waiting import until

# --- the record


@pytest.mark.parametrize(
    ("texts", "record_id"),
    [
        ([b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        ([b"v=STSv1;id=1"], "1"),
        ([b"v=STSv1 ; id=1 ; "], "1"),
        ([b"v=STSv1; x=y; id=1; z=a.b"], "1"),
        ([b"v=STSv1; id=1; id=2"], "1"),
        ([b"v=spf1 -all", b"v=STSv1; id=1", b""], "1"),
        ([b"v=STSv1; id=1", b"v=STSv1; id=1"], None),
        ([], None),
        ([b"v=STSv2; id=1"], None),
        ([b"V=STSv1; id=1"], None),
        ([b" v=STSv1; id=1"], None),
        ([b"v=STSv1"], None),
        ([b"v=STSv1;"], None),
        ([b"v=STSv1; id="], None),
        ([b"v=STSv1; id=a-b"], None),
        ([b"v=STSv1; id=" + b"a" * 33], None),
        ([b"v=STSv1; ID=1"], None),
        ([b"v=STSv1; id=1; junk"], None),
        ([b"v=STSv1;; id=1"], None),
    ],
)
def test_one_record_counts_and_has_an_id(texts: list[bytes], record_id: str | None) -> None:
    assert parse_record(texts) == record_id


# --- the policy

POLICY = b"version: STSv1\r\nmode: enforce\r\nmx: mx.a.test\r\nmx: *.b.test\r\nmax_age: 604800\r\n"
PARSED = StsPolicy("1", StsMode.ENFORCE, ("mx.a.test", "*.b.test"), 604800)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        pytest.param(POLICY, PARSED, id="the usual one"),
        pytest.param(POLICY.replace(b"\r\n", b"\n").rstrip(), PARSED, id="bare newlines, none at the end"),
        pytest.param(POLICY.replace(b": ", b":  \t") + b"x_y.z-1: anything\n", PARSED, id="white space, unknown keys"),
        pytest.param(POLICY + b"mode: none\nmax_age: 1\nversion: 2\n", PARSED, id="the first of each counts"),
        pytest.param(POLICY + b"mx: MX.A.test.\n", PARSED, id="the same host twice"),
        pytest.param(
            b"version: STSv1\nmode: none\nmax_age: 86400\n", StsPolicy("1", StsMode.NONE, (), 86400), id="mode none"
        ),
        pytest.param(
            b"version: STSv1\nmode: testing\nmx: b\xc3\xbccher.test\nmax_age: 9999999999\n",
            StsPolicy("1", StsMode.TESTING, ("xn--bcher-kva.test",), MAX_AGE),
            id="a U-label, an age beyond a year",
        ),
    ],
)
def test_a_policy_is_read(text: bytes, policy: StsPolicy) -> None:
    assert parse_policy(text, "1") == policy


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "its version is not STSv1"),
        (POLICY.replace(b"STSv1", b"STSv2"), "its version is not STSv1"),
        (POLICY.replace(b"enforce", b"strict"), "its mode is none of enforce, testing and none"),
        (POLICY.replace(b"mode", b"Mode"), "its mode is none of enforce, testing and none"),
        (POLICY.replace(b"604800", b"a week"), "its max_age is no number of seconds"),
        (POLICY.replace(b"604800", b"-1"), "its max_age is no number of seconds"),
        (POLICY.replace(b"604800", b"99999999999"), "its max_age is no number of seconds"),
        (POLICY.replace(b"mx:", b"xm:"), "it names no mx"),
        (POLICY.replace(b"*.b.test", b"mx.*.test"), "one of its mx is no host name"),
        (POLICY.replace(b"*.b.test", b"*"), "one of its mx is no host name"),
        (POLICY.replace(b"*.b.test", b""), "one of its mx is no host name"),
        (POLICY.replace(b"*.b.test", b".b.test"), "one of its mx is no host name"),
        (POLICY.replace(b"*.b.test", b"a b"), "one of its mx is no host name"),
        (POLICY + b"junk\n", "one of its lines is no key and value"),
        (b"<html>\n" + POLICY, "one of its lines is no key and value"),
        (POLICY + b"x: \xff\n", "it is not UTF-8"),
        (POLICY + b"".join(b"mx: m%d.test\n" % n for n in range(MAX_HOSTS)), f"it names more than {MAX_HOSTS} mx"),
    ],
)
def test_what_is_no_policy_is_said_so(text: bytes, reason: str) -> None:
    with pytest.raises(PolicyError, match=f"^{reason.replace('*', '.')}$"):
        parse_policy(text, "1")


def test_a_policy_of_white_space_takes_no_time() -> None:
    def refuse(_: int) -> None:
        with pytest.raises(PolicyError):
            parse_policy(b"version: STSv1\nmode: e" + b" " * (MAX_TEXT - 50) + b"nforce\n", "1")

    assert cost_of(refuse, 0.05) < 0.05


@given(st.binary(max_size=300))
def test_whatever_octets_come_are_a_policy_or_none(text: bytes) -> None:
    for one in (text, b"version: STSv1\nmode: none\nmax_age: 1\n" + text):
        with suppress(PolicyError):
            assert parse_policy(one, "1").id == "1"
    parse_record([text, b"v=STSv1;" + text])


# --- which one holds

HOST = "mta-sts.a.test"
RECORD = "_mta-sts.a.test"


class NoStore:
    """A store that is away."""

    async def look_up_policy(self, domain: str) -> tuple[StsPolicy, int] | None:
        raise StoreAway("away")

    async def put_policy(self, domain: str, policy: StsPolicy) -> None:
        raise StoreAway("away")


@dataclass
class Place:
    """A domain with a policy host, and who asks it. ``time`` is the asker's."""

    server: HttpsServer
    resolver: FakeResolver
    journal: MemoryJournal
    settings: HttpsSettings
    store: PolicyStore
    time: float = 1000.0
    clients: list[StsClient] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Another process: it knows what is in the store, and nothing else."""
        client = StsClient(self.resolver, self.settings, self.store, self.journal, monotonic=lambda: self.time)
        self.clients.append(client)

    async def policy(self, domain: str = "a.test") -> StsPolicy | None:
        return await asyncio.wait_for(self.clients[-1].policy(domain), 5)

    def record(self, text: str | None) -> None:
        """The TXT record, or that the DNS does not answer."""
        self.resolver.zone[RECORD] = {"TXT": [text] if text else "SERVFAIL"}

    async def fetched(self, times: int) -> None:
        await until(lambda: len(self.journal.named("sts.fetched")) == times)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def place(
    folder: Path,
    authority: trustme.CA,
    store: PolicyStore | None = None,
    *,
    name: str = HOST,
    seconds: float = 5,
    **settings: Any,
) -> AsyncIterator[Place]:
    roots = folder / "roots.pem"
    authority.cert_pem.write_to_path(str(roots))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    async with run_https_server(context) as server:
        server.answer = response(POLICY)
        resolver = FakeResolver({HOST: {"A": ["127.0.0.1"]}, RECORD: {"TXT": ["v=STSv1; id=1"]}})
        given = {"port": server.port, "allow_private": True, "ca_file": roots, "timeout": seconds} | settings
        it = Place(server, resolver, MemoryJournal(), HttpsSettings(**given), store or NoStore())
        try:
            yield it
        finally:
            for client in it.clients:
                await client.aclose()


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    with running(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture
async def policies(valkey: EmbeddedStore) -> AsyncIterator[RedisPolicies]:
    """On an empty server."""
    journal = MemoryJournal()
    await empty(valkey)
    client = StoreClient(valkey.url, journal=journal, timeout=BOUND)
    yield RedisPolicies(client, RedisLedger(client, journal=journal), journal=journal)
    await client.close()


async def test_a_policy_is_fetched_from_its_well_known_place_once(tmp_path: Path, authority: trustme.CA) -> None:
    async with place(tmp_path, authority) as it:
        assert [await it.policy(), await it.policy("A.test.")] == [PARSED, PARSED]
        (request,) = it.server.requests
        (event,) = it.journal.named("sts.fetched")
    assert request.startswith("GET /.well-known/mta-sts.txt HTTP/1.1\r\n")
    assert f"Host: {HOST}:" in request
    assert (event["domain"], event["mode"], event["reason"]) == ("a.test", "enforce", None)


async def test_a_domain_without_a_record_is_not_asked_for_a_policy(tmp_path: Path, authority: trustme.CA) -> None:
    async with place(tmp_path, authority) as it:
        assert await it.policy("other.test") is None
        assert it.resolver.queries == [("_mta-sts.other.test", "TXT")]
        assert it.journal.events == []


@pytest.mark.parametrize("domain", ["", "a..test", "a" * 64 + ".test", "a/b.test", "u@a.test", "a b.test", "*.a.test"])
async def test_what_is_no_domain_has_no_policy(tmp_path: Path, authority: trustme.CA, domain: str) -> None:
    async with place(tmp_path, authority) as it:
        assert await it.policy(domain) is None
        assert it.resolver.queries == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (response(POLICY, "404 Not Found"), "status 404"),
        (response(POLICY, "500 Oh"), "status 500"),
        (response(POLICY, "302 Found", Location=f"https://{HOST}/x"), "status 302"),
        (response(POLICY, content_type="text/html"), "not text/plain"),
        (response(POLICY.replace(b"STSv1", b"STSv9")), "its version is not STSv1"),
        (response(b"#" * (MAX_TEXT + 1)), f"more than {MAX_TEXT} octets"),
        (response(POLICY)[:-1], "no proper HTTP answer"),
    ],
)
async def test_what_cannot_be_used_is_as_if_there_were_none(
    tmp_path: Path, authority: trustme.CA, answer: bytes, reason: str
) -> None:
    async with place(tmp_path, authority) as it:
        it.server.answer = answer
        assert await it.policy() is None
        assert [event["reason"] for event in it.journal.named("sts.fetched")] == [reason]


@pytest.mark.parametrize(
    ("answer", "name", "result"),
    [
        (response(POLICY), HOST, []),
        (response(POLICY, "404 Not Found"), HOST, [TlsResult.POLICY_FETCH]),
        (response(POLICY[3:]), HOST, [TlsResult.POLICY_INVALID]),
        (response(POLICY), "a.test", [TlsResult.POLICY_CERTIFICATE]),
    ],
)
async def test_a_policy_that_cannot_be_had_is_counted(
    tmp_path: Path, authority: trustme.CA, answer: bytes, name: str, result: list[TlsResult]
) -> None:
    counted: list[TlsSession] = []

    class Log:
        def note(self, session: TlsSession) -> None:
            counted.append(session)

    async with place(tmp_path, authority, name=name) as it:
        it.server.answer = answer
        it.clients.append(
            StsClient(it.resolver, it.settings, it.store, it.journal, monotonic=lambda: it.time, tls_log=Log())
        )
        await it.policy()
    assert [one.result for one in counted] == result
    assert all((one.domain, one.kind) == ("a.test", "sts") for one in counted)


async def test_a_certificate_for_another_name_is_no_proof(tmp_path: Path, authority: trustme.CA) -> None:
    async with place(tmp_path, authority, name="a.test") as it:
        assert await it.policy() is None
        assert it.server.requests == []
        assert it.journal.named("sts.fetched")[0]["reason"] == "no valid certificate for its name"


async def test_a_policy_host_with_a_private_address_is_not_connected_to(tmp_path: Path, authority: trustme.CA) -> None:
    async with place(tmp_path, authority, allow_private=False) as it:
        assert await it.policy() is None
        assert it.journal.named("sts.fetched")[0]["reason"] == "it has no public address"


async def test_a_silent_policy_host_is_left_in_time_and_not_waited_for_again(
    tmp_path: Path, authority: trustme.CA
) -> None:
    async with place(tmp_path, authority, seconds=0.2) as it:
        it.server.gate.clear()
        assert [await it.policy(), await it.policy()] == [None, None]
        assert len(it.server.requests) == 1
        it.server.gate.set()
        it.time += AGAIN
        assert await it.policy() == PARSED


async def test_a_policy_that_may_be_there_is_told_from_none(tmp_path: Path, authority: trustme.CA) -> None:
    async with place(tmp_path, authority) as it:
        client = it.clients[-1]
        it.record(None)
        assert await it.policy() is None
        assert client.may_have_one("A.test.")
        it.time += AGAIN
        it.resolver.zone[RECORD] = {"TXT": []}
        assert await it.policy() is None
        assert not client.may_have_one("a.test")
        it.resolver.zone[RECORD] = {"TXT": ["v=STSv1; id=1"]}
        it.server.answer = response(b"", "503 Busy")
        assert await it.policy() is None
        assert client.may_have_one("a.test")
        it.time += AGAIN
        it.server.answer = response(b"no policy")
        assert await it.policy() is None
        assert not client.may_have_one("a.test"), "it is read and is none: nothing to wait for"
        it.time += AGAIN
        it.server.answer = response(POLICY)
        assert await it.policy() == PARSED
        assert not client.may_have_one("a.test")


# --- what is kept


async def test_a_policy_holds_whatever_becomes_of_the_record(tmp_path: Path, authority: trustme.CA) -> None:
    async with place(tmp_path, authority) as it:
        await it.policy()
        for text in (None, "gone", "v=STSv1; id=-"):
            it.record(text)
            it.time += AGAIN
            assert await it.policy() == PARSED
        it.time += PARSED.max_age
        assert await it.policy() is None


async def test_a_new_id_is_followed_without_keeping_mail_waiting(tmp_path: Path, authority: trustme.CA) -> None:
    async with place(tmp_path, authority) as it:
        await it.policy()
        it.record("v=STSv1; id=2")
        it.server.answer = response(POLICY.replace(b"enforce", b"none"))
        it.server.gate.clear()
        assert [await it.policy(), await it.policy()] == [PARSED, PARSED]
        it.server.gate.set()
        await it.fetched(2)
        assert await it.policy() == StsPolicy("2", StsMode.NONE, PARSED.hosts, PARSED.max_age)
        assert len(it.server.requests) == 2


async def test_a_new_policy_that_cannot_be_fetched_leaves_the_old_one(tmp_path: Path, authority: trustme.CA) -> None:
    async with place(tmp_path, authority) as it:
        await it.policy()
        it.record("v=STSv1; id=2")
        it.server.answer = response(b"", "500 Oh")
        await it.policy()
        await it.fetched(2)
        assert [await it.policy(), await it.policy()] == [PARSED, PARSED]
        assert len(it.server.requests) == 2, "and is not asked for with each message"


@pytest.mark.parametrize(("max_age", "renewed"), [(604800, RENEW), (1000, 500.0)])
async def test_a_policy_is_renewed_while_it_still_holds(
    tmp_path: Path, authority: trustme.CA, max_age: int, renewed: float
) -> None:
    async with place(tmp_path, authority) as it:
        it.server.answer = response(POLICY.replace(b"604800", b"%d" % max_age))
        await it.policy()
        it.time += renewed - 1
        await it.policy()
        it.time += 1
        await it.policy()
        await it.fetched(2)
        # Counted from then on.
        it.record(None)
        it.time += max_age - 1
        assert await it.policy() is not None


async def test_a_policy_that_holds_for_no_time_holds_a_little(tmp_path: Path, authority: trustme.CA) -> None:
    async with place(tmp_path, authority) as it:
        it.server.answer = response(POLICY.replace(b"604800", b"0"))
        assert await it.policy() is not None
        it.record(None)
        it.time += MIN_AGE - 1
        assert await it.policy() is not None
        it.time += AGAIN
        assert await it.policy() is None


async def test_a_policy_outlives_a_restart(tmp_path: Path, authority: trustme.CA, policies: RedisPolicies) -> None:
    async with place(tmp_path, authority, policies) as it:
        await it.policy()
        it.record(None)
        it.start()
        assert await it.policy() == PARSED
        it.start()
        it.record("v=STSv1; id=1")
        assert await it.policy() == PARSED
        assert len(it.server.requests) == 1


async def test_a_policy_in_the_store_ends_with_its_age(policies: RedisPolicies) -> None:
    await policies.put_policy("a.test", PARSED)
    found = await policies.look_up_policy("a.test")
    assert found is not None
    assert (found[0], PARSED.max_age - found[1] < 60) == (PARSED, True)
    assert await policies.look_up_policy("b.test") is None
    await policies.put_policy("a.test", StsPolicy("2", StsMode.NONE, (), 0))
    assert await policies.look_up_policy("a.test") is None


async def test_a_policy_under_another_name_is_none(policies: RedisPolicies) -> None:
    await policies.put_policy("a.test", PARSED)
    names = await policies._ledger.names()
    value = await policies._client.command("GET", names.key(b"p", "a.test"))
    await policies._client.command("SET", names.key(b"p", "b.test"), value, "EX", 100)
    assert await policies.look_up_policy("b.test") is None


# --- how much is asked


async def test_all_who_wait_share_one_fetch_and_one_who_leaves_does_not_end_it(
    tmp_path: Path, authority: trustme.CA
) -> None:
    async with place(tmp_path, authority) as it:
        it.server.gate.clear()
        waiting = [asyncio.create_task(it.policy()) for _ in range(5)]
        await it.server.asked.wait()
        waiting.pop(0).cancel()
        it.server.gate.set()
        assert await asyncio.gather(*waiting) == [PARSED] * 4
        assert len(it.server.requests) == 1


async def test_a_name_server_that_does_not_answer_is_waited_for_once(
    tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forwarder.mtasts.caching.RECORD_WAIT", 0.05)

    class Silent(FakeResolver):
        async def txt(self, name: str, *, fresh: bool = False) -> Answer[bytes]:
            self.queries.append((name, "TXT"))
            return await asyncio.Event().wait()  # type: ignore[return-value]

    async with place(tmp_path, authority) as it:
        it.resolver = Silent()
        it.start()
        assert [await it.policy(), await it.policy()] == [None, None]
        assert len(it.resolver.queries) == 1
        it.time += AGAIN
        await it.policy()
        assert len(it.resolver.queries) == 2


async def test_what_is_known_and_asked_is_bounded(tmp_path: Path, authority: trustme.CA) -> None:
    async with place(tmp_path, authority) as it:
        client = it.clients[0]
        for number in range(MAX_ENTRIES + 10):
            await client.policy(f"d{number}.test")
        assert len(client._entries) == MAX_ENTRIES
        it.server.gate.clear()
        names = [f"e{number}.test" for number in range(MAX_FLIGHTS + 1)]
        for name in names:
            it.resolver.zone[f"_mta-sts.{name}"] = {"TXT": ["v=STSv1; id=1"]}
            it.resolver.zone[f"mta-sts.{name}"] = {"A": ["127.0.0.1"]}
        waiting = [asyncio.create_task(it.policy(name)) for name in names[:-1]]
        await until(lambda: len(client._flights) == MAX_FLIGHTS)
        assert await it.policy(names[-1]) is None
        it.server.gate.set()
        await asyncio.gather(*waiting)
