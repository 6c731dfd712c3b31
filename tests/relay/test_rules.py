"""forwarder/relay/rules.py: what counts more, and MTA-STS policies on the wire."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from forwarder.model import Deferred, TlsResult, TlsSession, TlsWish
from forwarder.ports import StsMode, StsPolicy, Tlsa
from forwarder.relay import Level, TlsRules
from forwarder.relay.rules import is_listed
from forwarder.relay.tls import Dane, NoTls, Opportunistic, Required, Unlisted, Verified
from tests.peers.smtp_sink import SmtpSink
from tests.relay.bench import ONE, bench, mx, results, summary
from tests.relay.conftest import Certificates


def sts(mode: str, *hosts: str) -> StsPolicy:
    return StsPolicy("1", StsMode(mode), hosts, 86400)


HOST, DOMAIN = "mx.sink.test", "sink.test"
DANE = Dane((Tlsa(3, 1, 1, b"\x11" * 32),), HOST, (HOST,))


@pytest.mark.parametrize(
    ("level", "published", "policy"),
    [
        (Level.VERIFY, DANE, DANE),
        (Level.REQUIRE, DANE, DANE),
        (Level.OPPORTUNISTIC, DANE, Opportunistic()),
        (Level.NONE, DANE, NoTls()),
        (Level.VERIFY, Required(), Verified((HOST,))),
        (Level.REQUIRE, Required(), Required()),
        (Level.OPPORTUNISTIC, Required(), Opportunistic()),
    ],
)
def test_the_operator_may_except_a_domain_by_its_name(level: Level, published: Any, policy: Any) -> None:
    assert TlsRules(domains={DOMAIN: level}).policy(DOMAIN, HOST, published) == policy


@pytest.mark.parametrize("default", Level)
def test_what_is_published_counts_more_than_the_default(default: Level) -> None:
    assert TlsRules(default).policy(DOMAIN, HOST, DANE) == DANE
    required = TlsRules(default).policy(DOMAIN, HOST, Required())
    assert required == (Verified((HOST,)) if default is Level.VERIFY else Required())


@pytest.mark.parametrize("default", Level)
def test_a_policy_that_is_enforced_counts_more_than_the_default_and_less_than_dane(default: Level) -> None:
    rules = TlsRules(default)
    assert rules.policy(DOMAIN, HOST, None, sts("enforce", HOST)) == Verified((HOST,))
    assert rules.policy(DOMAIN, HOST, Required(), sts("enforce", HOST)) == Verified((HOST,))
    assert rules.policy(DOMAIN, HOST, None, sts("enforce", "mx.else.test")) == Unlisted()
    assert rules.policy(DOMAIN, HOST, DANE, sts("enforce", "mx.else.test")) == DANE
    for mode in ("testing", "none"):
        assert rules.policy(DOMAIN, HOST, None, sts(mode, "mx.else.test")) == rules.policy(DOMAIN, HOST)


@pytest.mark.parametrize(
    ("level", "policy"),
    [
        (Level.NONE, NoTls()),
        (Level.OPPORTUNISTIC, Opportunistic()),
        (Level.REQUIRE, Unlisted()),
        (Level.VERIFY, Unlisted()),
    ],
)
def test_the_operator_may_except_a_domain_from_its_own_policy(level: Level, policy: Any) -> None:
    assert TlsRules(domains={DOMAIN: level}).policy(DOMAIN, HOST, None, sts("enforce", "mx.else.test")) == policy


@pytest.mark.parametrize(
    ("pattern", "host", "listed"),
    [
        ("mx.a.test", "mx.a.test", True),
        ("mx.a.test", "MX.A.test", True),
        ("*.a.test", "mx.a.test", True),
        ("*.a.test", "a.test", False),
        ("*.a.test", "b.mx.a.test", False),
        ("a.test", "mx.a.test", False),
        ("*.xn--bcher-kva.test", "mx.b\u00fccher.test", True),
        ("*.test", "[127.0.0.1]", False),
    ],
)
def test_a_host_is_listed_by_its_name_or_by_that_of_its_parent(pattern: str, host: str, *, listed: bool) -> None:
    assert is_listed(host, sts("enforce", pattern)) is listed


# --- on the wire


@dataclass
class Policies:
    """MTA-STS policies by domain, and for which one was asked."""

    known: dict[str, StsPolicy]
    asked: list[str] = field(default_factory=list)
    unknown: bool = False

    async def policy(self, domain: str) -> StsPolicy | None:
        self.asked.append(domain)
        return self.known.get(domain)

    def may_have_one(self, domain: str) -> bool:
        return self.unknown


@pytest.mark.parametrize("kind", ["good", "wrong name", "expired", "other authority", "self-signed"])
async def test_an_enforced_policy_wants_a_valid_certificate(certificates: Certificates, kind: str) -> None:
    policies = Policies({DOMAIN: sts("enforce", "*.sink.test")})
    rules = TlsRules(roots=certificates.roots)
    async with (
        SmtpSink(tls=certificates.servers[kind]) as sink,
        bench(ONE, sink.port, tls=rules, sts=policies) as it,
    ):
        (result,) = results(await it.deliver())
    if kind == "good":
        assert [one.tls for one in sink.messages] == ["TLSv1.3"]
    else:
        assert isinstance(result, Deferred)
        assert (sink.messages, sink.connections) == ([], 1)


async def test_a_host_that_the_policy_does_not_name_is_not_asked(certificates: Certificates) -> None:
    zone = mx("10 mx.forged.test 127.0.0.2", "20 mx.sink.test 127.0.0.1")
    policies = Policies({DOMAIN: sts("enforce", HOST)})
    rules = TlsRules(roots=certificates.roots)
    async with (
        SmtpSink(tls=certificates.server) as good,
        SmtpSink(tls=certificates.server, host="127.0.0.2", port=good.port) as forged,
        bench(zone, good.port, tls=rules, sts=policies) as it,
    ):
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert (len(good.messages), forged.connections) == (1, 0)


@pytest.mark.parametrize("wish", [TlsWish.NONE, TlsWish.REQUIRED])
async def test_where_no_host_is_named_the_mail_waits(wish: TlsWish) -> None:
    policies = Policies({DOMAIN: sts("enforce", "mx.else.test")})
    async with SmtpSink() as sink, bench(ONE, sink.port, sts=policies) as it:
        assert results(await it.deliver(tls=wish)) == [Deferred("the domain's MTA-STS policy does not name this host")]
    assert sink.connections == 0


async def test_a_policy_in_testing_keeps_no_mail_back() -> None:
    policies = Policies({DOMAIN: sts("testing", "mx.else.test")})
    async with SmtpSink() as sink, bench(ONE, sink.port, sts=policies) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]


async def test_a_policy_is_asked_for_once_with_the_route() -> None:
    policies = Policies({})
    async with SmtpSink() as sink, bench(ONE, sink.port, sts=policies) as it:
        for _ in range(3):
            assert summary(await it.deliver()) == [("Delivered", 250)]
    assert policies.asked == [DOMAIN]


async def test_an_excepted_domain_is_not_asked_for_a_policy() -> None:
    policies = Policies({DOMAIN: sts("enforce", "mx.else.test")})
    rules = TlsRules(domains={DOMAIN: Level.OPPORTUNISTIC})
    async with SmtpSink() as sink, bench(ONE, sink.port, tls=rules, sts=policies) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert policies.asked == []


async def test_neither_a_smarthost_nor_an_address_has_a_policy() -> None:
    policies = Policies({})
    async with SmtpSink() as sink:
        async with bench(ONE, 25, sts=policies, smarthost=f"{HOST}:{sink.port}") as it:
            await it.deliver()
        async with bench({}, sink.port, sts=policies) as it:
            await it.deliver("r@[127.0.0.1]")
    assert (len(sink.messages), policies.asked) == (2, [])


# --- what is counted


@dataclass
class Log:
    """What was counted, in order."""

    sessions: list[TlsSession] = field(default_factory=list)

    def note(self, session: TlsSession) -> None:
        self.sessions.append(session)


STS_TEXT = ("version: STSv1", "mode: testing", "mx: *.sink.test", "max_age: 86400")


@pytest.mark.parametrize(
    ("kind", "result", "reason", "connections"),
    [
        ("good", TlsResult.SUCCESS, "", 1),
        ("expired", TlsResult.EXPIRED, "TLS certificate is not valid: certificate has expired", 2),
        ("wrong name", TlsResult.HOST_MISMATCH, "TLS certificate is for another name", 2),
        (
            "other authority",
            TlsResult.NOT_TRUSTED,
            "TLS certificate is not valid: unable to get local issuer certificate",
            2,
        ),
        ("self-signed", TlsResult.NOT_TRUSTED, "TLS certificate is not valid: self-signed certificate", 2),
        (None, TlsResult.NOT_SUPPORTED, "", 1),
    ],
)
async def test_a_policy_in_testing_is_tried_and_told_of_and_the_mail_goes_over_tls_where_it_can(
    certificates: Certificates, kind: str | None, result: TlsResult, reason: str, connections: int
) -> None:
    log, policies = Log(), Policies({DOMAIN: sts("testing", "*.sink.test")})
    rules = TlsRules(roots=certificates.roots, observe=True)
    server = certificates.servers[kind] if kind else None
    async with SmtpSink(tls=server) as sink, bench(ONE, sink.port, tls=rules, sts=policies, tls_log=log) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
        assert summary(await it.deliver()) == [("Delivered", 250)]
    good = result is TlsResult.SUCCESS
    where = () if good else (HOST, "127.0.0.1", reason)
    assert log.sessions == [TlsSession(DOMAIN, "sts", STS_TEXT, ("*.sink.test",), result, *where)], "one connection"
    assert sink.connections == connections
    assert [one.tls for one in sink.messages] == ["TLSv1.3" if kind else None] * 2


@pytest.mark.parametrize("mode", ["testing", "enforce"])
async def test_a_host_that_is_not_named_is_told_of(certificates: Certificates, mode: str) -> None:
    log, policies = Log(), Policies({DOMAIN: sts(mode, "mx.else.test")})
    rules = TlsRules(roots=certificates.roots, observe=True)
    async with (
        SmtpSink(tls=certificates.server) as sink,
        bench(ONE, sink.port, tls=rules, sts=policies, tls_log=log) as it,
    ):
        await it.deliver()
    (session,) = log.sessions
    assert (session.kind, session.result, session.host) == ("sts", TlsResult.FAILURE, HOST)
    assert len(sink.messages) == (mode == "testing")


async def test_without_a_policy_sessions_are_counted_too(certificates: Certificates) -> None:
    log = Log()
    async with SmtpSink(tls=certificates.server) as sink, bench(ONE, sink.port, tls_log=log) as it:
        await it.deliver()
    async with SmtpSink(port=sink.port), bench(ONE, sink.port, tls_log=log) as it:
        await it.deliver()
    async with SmtpSink(), bench(ONE, 1, tls_log=log) as it:
        await it.deliver()
    good, bad = log.sessions
    assert good == TlsSession(DOMAIN, "no-policy-found")
    assert (bad.kind, bad.result) == ("no-policy-found", TlsResult.NOT_SUPPORTED)


async def test_nothing_is_counted_for_a_smarthost_or_an_excepted_domain(certificates: Certificates) -> None:
    log = Log()
    async with SmtpSink(tls=certificates.server) as sink:
        async with bench(ONE, 25, tls_log=log, smarthost=f"{HOST}:{sink.port}") as it:
            await it.deliver()
        async with bench(ONE, sink.port, tls_log=log, tls=TlsRules(domains={DOMAIN: Level.NONE})) as it:
            await it.deliver()
    assert (len(sink.messages), log.sessions) == (2, [])
