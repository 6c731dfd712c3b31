"""Mail to servers whose TLS is asked to be this or that, from the configuration to the wire."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from tests.e2e.lab import Lab, lab
from tests.peers.smtp_sink import SmtpSink

#: Where the destination of these tests listens.
OTHER = "127.0.0.51"
ZONE = {"other.test": {"MX": ["10 mx.other.test."]}, "mx.other.test": {"A": [OTHER]}}
ALIAS = 'elsewhere = ["one@other.test"]'


def server(authority: trustme.CA, name: str = "mx.other.test") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


async def send(it: Lab) -> str:
    """The reply to a message for the destination."""
    to = "elsewhere@fwd.test"
    return await it.send(it.signed(recipients=(to,)), recipient=to)


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """The one that the service trusts."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "roots.pem"))
    return made


# --- what the operator decides


async def test_a_verified_destination_gets_its_mail(tmp_path: Path, authority: trustme.CA) -> None:
    rule = '[relay.tls]\nca_file = "roots.pem"\n[relay.tls.domains]\n"other.test" = "verify"'
    async with (
        lab(tmp_path, zone=ZONE, relay=rule, aliases=ALIAS) as it,
        SmtpSink(tls=server(authority), host=OTHER, port=it.port) as sink,
    ):
        assert (await send(it)).startswith("250 2.0.0 delivered")
    assert [one.tls for one in sink.messages] == ["TLSv1.3"]


async def test_mail_waits_while_the_certificate_is_the_wrong_one(tmp_path: Path, authority: trustme.CA) -> None:
    rule = '[relay.tls]\nca_file = "roots.pem"\ndefault = "verify"'
    async with (
        lab(tmp_path, zone=ZONE, relay=rule, aliases=ALIAS) as it,
        SmtpSink(tls=server(authority, "mx.else.test"), host=OTHER, port=it.port) as sink,
    ):
        reply = await send(it)
    assert reply.startswith("250 2.0.0 accepted")
    assert sink.messages == []
    (event,) = it.journal.named("relay.deferred")
    assert event["reason"] == "TLS certificate is for another name"
