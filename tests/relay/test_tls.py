"""forwarder/relay/tls.py, and STARTTLS with real handshakes, good and broken."""

from __future__ import annotations

import ssl
from dataclasses import replace

import pytest

from forwarder.model import Deferred
from forwarder.relay import Level, TlsRules
from forwarder.relay.certificate import certificate_matches
from tests.peers.smtp_sink import DEFAULT, DROP, HANG, RESET, Action, Script, SmtpSink, Then
from tests.relay.bench import ONE, bench, mx, results, short, summary
from tests.relay.conftest import Certificates

STARTTLS = [b"PIPELINING", b"STARTTLS"]


async def test_tls_is_used_where_it_is_offered(certificates: Certificates) -> None:
    async with SmtpSink(tls=certificates.server) as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert [one.tls for one in sink.messages] == ["TLSv1.3"] * 2
    assert sink.verbs() == ["EHLO", "STARTTLS", "EHLO", *["MAIL", "RCPT", "DATA"] * 2, "QUIT"]
    (event,) = it.journal.named("relay.tls")
    assert (event["id"], event["version"]) == ("d1", "TLSv1.3")
    assert event["cipher"]
    assert [event["tls"] for event in it.journal.named("relay.sent")] == ["TLSv1.3"] * 2


async def test_a_large_message_goes_through_tls(certificates: Certificates) -> None:
    body = b".line\r\n" * 300_000
    async with SmtpSink(tls=certificates.server) as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver(data=(b"A: b\r\n", b"\r\n", body))) == [("Delivered", 250)]
    assert sink.messages[0].data == b"A: b\r\n\r\n" + body


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(Then(b"220 go\r\n", DROP), id="drop"),
        pytest.param(Then(b"220 go\r\n", RESET), id="reset"),
        pytest.param(lambda _: Then(b"220 go\r\n", Then(b"", b"")), id="no TLS spoken"),
        pytest.param(Then(b"220 go\r\n", HANG), id="silence"),
    ],
)
async def test_a_broken_handshake_is_tried_once_in_clear(action: Action) -> None:
    script = {"STARTTLS": action}
    async with SmtpSink(script, STARTTLS) as sink, bench(ONE, sink.port, short(tls=0.1)) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert sink.connections == 2
    assert sink.verbs(2) == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]
    assert sink.messages[0].tls is None
    (event,) = it.journal.named("relay.tls")
    assert event["error"]


async def test_a_handshake_with_nothing_in_common_is_tried_once_in_clear(certificates: Certificates) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.maximum_version = ssl.TLSVersion.TLSv1
    async with SmtpSink(tls=old) as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert sink.messages[0].tls is None


async def test_a_session_that_dies_behind_the_handshake_is_tried_once_in_clear(certificates: Certificates) -> None:
    """In TLS 1.3 a server can refuse a client that believes to be done."""
    async with (
        SmtpSink({"EHLO": [DEFAULT, DROP, DEFAULT]}, tls=certificates.server) as sink,
        bench(ONE, sink.port) as it,
    ):
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert sink.messages[0].tls is None


async def test_a_refused_starttls_goes_on_in_clear_on_the_same_connection(certificates: Certificates) -> None:
    script = {"STARTTLS": b"454 4.7.0 not now\r\n"}
    async with SmtpSink(script, tls=certificates.server) as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert sink.connections == 1


@pytest.mark.parametrize("injected", [b"250 2.0.0 Ok\r\n", b"250-x\r\n", b"2"])
async def test_bytes_behind_the_220_are_an_attack_and_not_a_reply(certificates: Certificates, injected: bytes) -> None:
    script = {"STARTTLS": b"220 go\r\n" + injected}
    async with SmtpSink(script, tls=certificates.server) as sink, bench(ONE, sink.port) as it:
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)
    assert result.reason.startswith("bytes in clear after the reply to STARTTLS")
    assert (sink.connections, sink.messages) == (1, [])


# --- what the operator asks for

REQUIRE = TlsRules(Level.REQUIRE)
#: Under either nothing goes in clear.
STRICT = pytest.mark.parametrize("level", [Level.REQUIRE, Level.VERIFY])


def verify(certificates: Certificates) -> TlsRules:
    return TlsRules(Level.VERIFY, roots=certificates.roots)


async def test_with_none_tls_is_not_used_where_it_is_offered(certificates: Certificates) -> None:
    async with SmtpSink(tls=certificates.server) as sink, bench(ONE, sink.port, tls=TlsRules(Level.NONE)) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert (sink.messages[0].tls, "STARTTLS" in sink.verbs()) == (None, False)


@pytest.mark.parametrize("kind", ["good", "expired", "wrong name", "other authority", "self-signed"])
async def test_with_require_any_certificate_does(certificates: Certificates, kind: str) -> None:
    async with SmtpSink(tls=certificates.servers[kind]) as sink, bench(ONE, sink.port, tls=REQUIRE) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert sink.messages[0].tls == "TLSv1.3"


async def test_with_verify_the_right_certificate_is_delivered_to(certificates: Certificates) -> None:
    async with SmtpSink(tls=certificates.server) as sink, bench(ONE, sink.port, tls=verify(certificates)) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert sink.messages[0].tls == "TLSv1.3"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("expired", "TLS certificate is not valid: certificate has expired"),
        ("wrong name", "TLS certificate is for another name"),
        ("other authority", "TLS certificate is not valid: unable to get local issuer certificate"),
        ("self-signed", "TLS certificate is not valid: self-signed certificate"),
    ],
)
async def test_with_verify_no_other_certificate_does(certificates: Certificates, kind: str, reason: str) -> None:
    server = certificates.servers[kind]
    async with SmtpSink(tls=server) as sink, bench(ONE, sink.port, tls=verify(certificates)) as it:
        (result,) = results(await it.deliver())
    assert result == Deferred(reason, f"mx.sink.test[127.0.0.1]:{sink.port}")
    assert (sink.messages, sink.connections) == ([], 1), "no second try in clear"
    assert [one["error"] for one in it.journal.named("relay.tls")] == [reason]


@STRICT
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        pytest.param({}, "TLS is required and not offered", id="not offered"),
        pytest.param({"STARTTLS": b"454 no\r\n"}, "TLS is required and refused: 454", id="refused for now"),
        # It is the host that is out of order, and not the message that is wanted nowhere.
        pytest.param({"STARTTLS": b"554 no\r\n"}, "TLS is required and refused: 554", id="refused for good"),
        pytest.param({"STARTTLS": Then(b"220 go\r\n", DROP)}, "TLS handshake failed", id="broken"),
    ],
)
async def test_where_tls_is_asked_for_nothing_goes_in_clear(script: Script, reason: str, level: Level) -> None:
    extensions = STARTTLS if script else [b"PIPELINING"]
    async with SmtpSink(script, extensions) as sink, bench(ONE, sink.port, tls=TlsRules(level)) as it:
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)
    assert result.reason.startswith(reason)
    assert (sink.messages, sink.connections) == ([], 1), "no second try in clear"


async def test_another_host_with_the_right_certificate_is_asked(certificates: Certificates) -> None:
    zone = mx("10 bad.sink.test 127.0.0.2", "20 mx.sink.test 127.0.0.1")
    async with (
        SmtpSink(tls=certificates.server) as good,
        SmtpSink(host="127.0.0.2", port=good.port) as bad,
        bench(zone, good.port, tls=verify(certificates)) as it,
    ):
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert bad.messages == []


async def test_domains_with_rules_of_their_own_share_no_connection(certificates: Certificates) -> None:
    """What went to one domain unverified leaves nothing behind that the other could use, and the other way round."""
    zone = ONE | {"strict.test": {"MX": ["10 mx.sink.test"]}, "a.below.test": {"MX": ["10 mx.sink.test"]}}
    rules = replace(verify(certificates), default=Level.OPPORTUNISTIC)
    rules = replace(rules, domains={"strict.test": Level.VERIFY, ".below.test": Level.NONE})
    to = ["r@sink.test", "r@Strict.test", "r@a.below.test"]
    async with SmtpSink(tls=certificates.server) as sink, bench(zone, sink.port, tls=rules) as it:
        for recipient in to * 2:
            assert summary(await it.deliver(recipient)) == [("Delivered", 250)]
    assert [one.connection for one in sink.messages] == [1, 2, 3] * 2
    assert [one.tls for one in sink.messages] == ["TLSv1.3", "TLSv1.3", None] * 2


async def test_a_smarthost_has_the_rule_of_its_own_name(certificates: Certificates) -> None:
    rules = TlsRules(Level.NONE, {"mx.sink.test": Level.VERIFY}, certificates.roots)
    async with (
        SmtpSink(tls=certificates.server) as sink,
        bench(ONE, 25, tls=rules, smarthost=f"mx.sink.test:{sink.port}") as it,
    ):
        assert summary(await it.deliver("r@other.test")) == [("Delivered", 250)]
    assert sink.messages[0].tls == "TLSv1.3"


@pytest.mark.parametrize(
    ("domain", "want"),
    [
        ("a.test", Level.VERIFY),
        ("A.Test", Level.VERIFY),
        ("a.test.", Level.VERIFY),
        ("b.a.test", None),
        ("test", None),
        ("below.test", None),
        ("x.below.test", Level.REQUIRE),
        ("y.x.below.test", Level.REQUIRE),
        ("z.near.below.test", Level.NONE),
        ("own.near.below.test", Level.OPPORTUNISTIC),
        ("b\u00fccher.test", Level.NONE),
        ("[127.0.0.1]", None),
        ("", None),
    ],
)
def test_the_nearest_name_counts(domain: str, want: Level | None) -> None:
    rules = TlsRules(
        domains={
            "a.test": Level.VERIFY,
            ".below.test": Level.REQUIRE,
            ".near.below.test": Level.NONE,
            "own.near.below.test": Level.OPPORTUNISTIC,
            "xn--bcher-kva.test": Level.NONE,
        }
    )
    assert rules.named(domain) is want


def test_what_a_policy_promises_can_be_asked() -> None:
    policies = [TlsRules(level).policy("a.test", "mx.a.test") for level in Level]
    assert [(one.required, one.verified) for one in policies] == [
        (False, False),
        (False, False),
        (True, False),
        (True, True),
    ]


@pytest.mark.parametrize(
    ("held", "wanted", "matches"),
    [
        (["mx.a.test"], ["mx.a.test"], True),
        (["MX.A.test"], ["mx.a.TEST."], True),
        (["x.test", "mx.a.test"], ["y.test", "mx.a.test"], True),
        (["*.a.test"], ["mx.a.test"], True),
        (["*.a.test"], ["a.test"], False),
        (["*.a.test"], ["b.mx.a.test"], False),
        (["m*.a.test"], ["mx.a.test"], False),
        (["*"], ["test"], False),
        (["a.test"], ["mx.a.test"], False),
        ([], ["mx.a.test"], False),
    ],
)
def test_a_certificate_is_for_the_names_in_it(held: list[str], wanted: list[str], matches: bool) -> None:
    certificate = {"subjectAltName": tuple(("DNS", name) for name in held)}
    assert certificate_matches(certificate, tuple(wanted)) is matches


def test_a_common_name_or_an_address_is_no_name() -> None:
    certificate = {"subject": ((("commonName", "mx.a.test"),),), "subjectAltName": (("IP Address", "mx.a.test"),)}
    assert not certificate_matches(certificate, ("mx.a.test",))
    assert not certificate_matches({}, ("mx.a.test",))
