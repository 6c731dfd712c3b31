"""A smarthost that wants to know who we are: AUTH over real TLS, and what becomes of the mail when it says no."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from forwarder.model import Deferred, Delivered, Failed
from forwarder.relay import Level, RelaySettings, SmtpRelay, TlsRules
from forwarder.relay.certificate import certificate_matches
from forwarder.relay.connection import Connection, NoSession
from forwarder.relay.mx import Target
from forwarder.relay.tls import NoTls, Opportunistic, Required
from forwarder.smtp.login import Login
from tests.fakes import FakeResolver, MemoryJournal
from tests.peers.smtp_sink import DEFAULT, DROP, HANG, SmtpSink
from tests.relay.bench import MESSAGE, SHORT, Bench, bench, delivery, mx, results, summary
from tests.relay.conftest import Certificates
from tests.waiting import until

PASSWORD = "c0rrect horse"
LOGIN = Login("us@relay.test", PASSWORD)
OFFERS = [b"PIPELINING", b"8BITMIME", b"AUTH PLAIN LOGIN"]
SECRETS = (PASSWORD, b64encode(PASSWORD.encode()).decode(), b64encode(f"\0{LOGIN.user}\0{PASSWORD}".encode()).decode())
ZONE = mx("10 mx.sink.test 127.0.0.1")


def tells_the_password(it: Bench, *results: object) -> bool:
    told = repr(it.journal.events) + repr(results)
    return any(one in told for one in SECRETS)


def verified(certificates: Certificates) -> TlsRules:
    return TlsRules(Level.VERIFY, roots=certificates.roots)


@asynccontextmanager
async def smarthost(sink: SmtpSink, **settings: Any) -> AsyncIterator[Bench]:
    given = {"smarthost_login": LOGIN, "allow_private": False} | settings
    async with bench(ZONE, 1, smarthost=f"mx.sink.test:{sink.port}", **given) as it:
        yield it


# --- it lets us in


async def test_we_log_in_once_for_many_messages(certificates: Certificates) -> None:
    async with (
        SmtpSink(extensions=OFFERS, tls=certificates.server) as sink,
        smarthost(sink, tls=verified(certificates)) as it,
    ):
        assert summary(await it.deliver("r@anywhere.test")) == [("Delivered", 250)]
        assert summary(await it.deliver("r@elsewhere.test")) == [("Delivered", 250)]
    assert sink.verbs() == ["EHLO", "STARTTLS", "EHLO", "AUTH", *["MAIL", "RCPT", "DATA"] * 2, "QUIT"]
    assert not tells_the_password(it)


async def test_login_where_there_is_nothing_better() -> None:
    script = {"AUTH": b"334 VXNlcm5hbWU6\r\n", "RESPONSE": [b"334 UGFzc3dvcmQ6\r\n", b"235 in\r\n"]}
    async with SmtpSink(script, [b"AUTH LOGIN"]) as sink, smarthost(sink) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert [line for _, line in sink.commands][1:4] == [
        b"AUTH LOGIN",
        *map(b64encode, (b"us@relay.test", PASSWORD.encode())),
    ]


# --- it does not


@pytest.mark.parametrize(
    "said",
    [
        f"535 5.7.8 no such user or password: {PASSWORD}".encode(),
        b"535 5.7.8 " + SECRETS[2].encode(),
        b"534 5.7.9 another mechanism",
        b"454 4.7.0 the directory is away",
        b"500 5.5.2 what?",
    ],
)
async def test_mail_waits_while_the_login_is_wrong(said: bytes) -> None:
    async with SmtpSink({"AUTH": said + b"\r\n"}, OFFERS) as sink, smarthost(sink) as it:
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)
    assert result.reason == f"the login was refused: {said[:9].decode()}"
    assert result.reply is None
    (event,) = it.journal.named("relay.login")
    assert event["error"] == result.reason
    assert not tells_the_password(it, result)
    assert "MAIL" not in sink.verbs()


async def test_a_wrong_login_is_not_tried_again_for_each_message(certificates: Certificates) -> None:
    """Who does that is locked out."""
    script = {"AUTH": [DEFAULT, b"535 5.7.8 no\r\n", DEFAULT], "DOT": [DEFAULT, HANG, DEFAULT]}
    async with SmtpSink(script, OFFERS) as sink, smarthost(sink, unreachable=0.3) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
        busy = asyncio.ensure_future(it.relay.deliver(delivery()))
        await asyncio.wait_for(sink.hanging.wait(), 30)
        said = [results(await it.deliver())[0] for _ in range(3)]
        assert [one.reason for one in said if isinstance(one, Deferred)] == [
            "the login was refused: 535 5.7.8",
            *["the login failed a moment ago"] * 2,
        ]
        assert sink.verbs().count("AUTH") == 2
        await until(lambda: asyncio.get_running_loop().time() > it.relay._no_login_until)
        assert summary(await it.deliver()) == [("Delivered", 250)]
        busy.cancel()


@pytest.mark.parametrize("said", [DROP, b"421 bye\r\n", b"334 \r\n"])
async def test_an_exchange_that_breaks_off_is_tried_again_later(said: Any) -> None:
    async with SmtpSink({"AUTH": said}, OFFERS) as sink, smarthost(sink) as it:
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)


@pytest.mark.parametrize("offers", [[b"AUTH CRAM-MD5"], [b"PIPELINING"]])
async def test_a_smarthost_that_offers_no_mechanism_of_ours_is_a_fault_of_the_configuration(
    offers: list[bytes],
) -> None:
    async with SmtpSink(extensions=offers) as sink, smarthost(sink) as it:
        (result,) = results(await it.deliver())
    assert result == Deferred("neither AUTH PLAIN nor LOGIN is offered", f"mx.sink.test[127.0.0.1]:{sink.port}")


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("said", [b"530 5.7.0 log in first\r\n", b"535 5.7.8 expired\r\n", b"538 5.7.11 TLS first\r\n"])
async def test_a_smarthost_that_wants_a_login_that_nobody_gave_us_bounces_nothing(verb: str, said: bytes) -> None:
    async with SmtpSink({verb: said}, OFFERS) as sink, smarthost(sink, smarthost_login=None) as it:
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)


async def test_the_same_words_of_another_host_are_final() -> None:
    async with SmtpSink({"MAIL": b"530 5.7.0 log in first\r\n"}) as sink, bench(ZONE, sink.port) as it:
        (result,) = results(await it.deliver())
    assert isinstance(result, Failed)


# --- whom the password is given to


@pytest.mark.parametrize("policy", [NoTls(), Opportunistic(), Required()])
async def test_without_verified_tls_no_password_leaves_this_host(certificates: Certificates, policy: Any) -> None:
    elsewhere = Target("mx.sink.test", "192.0.2.1", 25, 0)
    loop = asyncio.get_running_loop()
    connection = Connection(loop, elsewhere, RelaySettings("us.test", timeouts=SHORT))
    async with SmtpSink(extensions=OFFERS, tls=certificates.server) as sink:
        await loop.create_connection(lambda: connection, "127.0.0.1", sink.port)
        assert await connection.greet(policy) is None
        assert await connection.log_in(LOGIN) == NoSession("no login without verified TLS", login_failed=True)
        connection.abort()
        await connection.gone
    assert "AUTH" not in sink.verbs()


async def test_a_smarthost_with_the_wrong_certificate_gets_no_password(certificates: Certificates) -> None:
    server = certificates.servers["wrong name"]
    async with (
        SmtpSink(extensions=OFFERS, tls=server) as sink,
        smarthost(sink, tls=verified(certificates)) as it,
    ):
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)
    assert "AUTH" not in sink.verbs()


def test_a_login_is_for_a_smarthost_only() -> None:
    with pytest.raises(ValueError, match="smarthost"):
        SmtpRelay(FakeResolver(), RelaySettings("us.test", smarthost_login=LOGIN), MemoryJournal())


def test_a_certificate_can_be_for_an_address() -> None:
    held = {
        "subjectAltName": (("IP Address", "192.0.2.1"), ("IP Address", "2001:DB8:0:0:0:0:0:1"), ("DNS", "192.0.2.9"))
    }
    assert certificate_matches(held, ("192.0.2.1",))
    assert certificate_matches(held, ("2001:db8::1",))
    assert not certificate_matches(held, ("192.0.2.9",))
    assert not certificate_matches(held, ("192.0.2.2", "name.test"))


# --- a server that others wrote


class _Handler:
    def __init__(self) -> None:
        self.taken: list[tuple[object, bytes]] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.original_content, bytes)
        self.taken.append((session.auth_data, envelope.original_content))
        return "250 2.0.0 taken"


def _authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
    right = data == LoginPassword(b"us@relay.test", PASSWORD.encode())
    return AuthResult(success=right, handled=False, auth_data=data)


# TLS that began before it is no TLS to aiosmtpd.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")


@asynccontextmanager
async def aiosmtpd(handler: _Handler, context: ssl.SSLContext, *, implicit: bool, **more: Any) -> AsyncIterator[int]:
    """It takes mail of those only who log in over TLS."""
    loop = asyncio.get_running_loop()
    more |= {"authenticator": _authenticate, "auth_required": True}
    more |= {"auth_require_tls": False} if implicit else {"tls_context": context, "require_starttls": True}
    server = await loop.create_server(
        lambda: SMTP(handler, loop=loop, **more), "127.0.0.1", ssl=context if implicit else None
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture
def by_address() -> tuple[ssl.SSLContext, trustme.CA]:
    """The certificate of a smarthost that is named by its address."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context, authority


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "implicit"])
@pytest.mark.parametrize("excluded", [[], ["PLAIN"]], ids=["PLAIN", "LOGIN"])
async def test_aiosmtpd_knows_us(certificates: Certificates, implicit: bool, excluded: list[str]) -> None:
    handler = _Handler()
    settings = {"tls": verified(certificates), "smarthost_implicit": implicit, "smarthost_login": LOGIN}
    async with (
        aiosmtpd(handler, certificates.server, implicit=implicit, auth_exclude_mechanism=excluded) as port,
        bench(ZONE, 1, smarthost=f"mx.sink.test:{port}", **settings) as it,
    ):
        (first,) = results(await it.deliver())
        (second,) = results(await it.deliver())
        assert len(it.journal.named("relay.connect")) == 1
    assert isinstance(first, Delivered)
    assert isinstance(second, Delivered)
    assert [data for _, data in handler.taken] == [b"".join(MESSAGE)] * 2
    assert not tells_the_password(it, first)


async def test_aiosmtpd_does_not_know_a_wrong_password(certificates: Certificates) -> None:
    settings = {"tls": verified(certificates), "smarthost_login": Login("us@relay.test", "guess")}
    async with (
        aiosmtpd(_Handler(), certificates.server, implicit=False) as port,
        bench(ZONE, 1, smarthost=f"mx.sink.test:{port}", **settings) as it,
    ):
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)
    assert result.reason == "the login was refused: 535 5.7.8"


async def test_a_smarthost_by_its_address_is_verified_by_it(
    by_address: tuple[ssl.SSLContext, trustme.CA], tmp_path: Any
) -> None:
    context, authority = by_address
    roots = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(str(roots))
    settings = {"tls": TlsRules(Level.VERIFY, roots=str(roots)), "smarthost_login": LOGIN}
    async with (
        aiosmtpd(_Handler(), context, implicit=True) as port,
        bench({}, 1, smarthost=f"127.0.0.1:{port}", smarthost_implicit=True, **settings) as it,
    ):
        assert summary(await it.deliver()) == [("Delivered", 250)]


async def test_with_implicit_tls_a_host_that_speaks_in_clear_is_left(certificates: Certificates) -> None:
    async with (
        SmtpSink(extensions=OFFERS, tls=certificates.server) as sink,
        smarthost(sink, tls=verified(certificates), smarthost_implicit=True) as it,
    ):
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)
    assert sink.connections == 1
    assert sink.messages == []
