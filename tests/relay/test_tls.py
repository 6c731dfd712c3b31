"""forwarder/relay/tls.py, and STARTTLS with real handshakes, good and broken."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from forwarder.model import Deferred, Delivered
from forwarder.relay import Verified
from forwarder.relay.tls import certificate_matches
from tests.peers.smtp_sink import DEFAULT, DROP, HANG, RESET, Action, SmtpSink, Then
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


# --- a certificate is asked for


def verified(certificates: Certificates, *names: str) -> Verified:
    return Verified(names or ("mx.sink.test",), certificates.roots)


async def test_the_right_certificate_is_delivered_to(certificates: Certificates) -> None:
    policy = verified(certificates, "other.test", "mx.sink.test")
    async with SmtpSink(tls=certificates.server) as sink, bench(ONE, sink.port, tls=policy) as it:
        (result,) = results(await it.deliver())
    assert isinstance(result, Delivered)


@pytest.mark.parametrize("case", ["other name", "other authority", "not offered", "refused", "broken"])
async def test_without_the_right_certificate_nothing_is_sent(certificates: Certificates, case: str) -> None:
    policy = verified(certificates, "other.test") if case == "other name" else verified(certificates)
    if case == "other authority":
        policy = Verified(("mx.sink.test",))
    script = {"refused": {"STARTTLS": b"454 no\r\n"}, "broken": {"STARTTLS": Then(b"220 go\r\n", DROP)}}.get(case, {})
    server: dict[str, Any] = {} if case == "not offered" else {"tls": certificates.server}
    async with SmtpSink(script, **server) as sink, bench(ONE, sink.port, tls=policy) as it:
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)
    assert "TLS" in result.reason
    assert sink.messages == []
    assert sink.connections == 1, "no second try in clear"


async def test_another_host_with_the_right_certificate_is_asked(certificates: Certificates) -> None:
    zone = mx("10 bad.sink.test 127.0.0.2", "20 mx.sink.test 127.0.0.1")
    async with (
        SmtpSink(tls=certificates.server) as good,
        SmtpSink(host="127.0.0.2", port=good.port) as bad,
        bench(zone, good.port, tls=verified(certificates)) as it,
    ):
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert bad.messages == []


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
