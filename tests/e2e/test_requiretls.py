"""A sender that asks for TLS all the way (RFC 8689), from its session with us to the next hop, the queue and the report."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from pathlib import Path

import pytest
import trustme

from forwarder.cli.demo_lab import FORWARDER, SENDER, Received
from tests.e2e.lab import MESSAGE, Lab, bounce_of, lab
from tests.peers.smtp_sink import DEFAULT, SmtpSink
from tests.waiting import until

#: Where the destination listens, and where reports to the sender go.
OTHER, BACK = "127.0.0.51", "127.0.0.52"
ZONE = {
    "other.test": {"MX": ["10 mx.other.test."]},
    "mx.other.test": {"A": [OTHER]},
    "sender.test": {"MX": ["10 mx.back.test."]},
    "mx.back.test": {"A": [BACK]},
}
ALIAS = 'elsewhere = ["one@other.test"]'
VERIFY = '[relay.tls]\nca_file = "roots.pem"\ndefault = "verify"'
SOON = "[queue]\nfirst_retry = 0.05\nmax_retry = 0.1\n"
OFFERED = [b"PIPELINING", b"8BITMIME", b"REQUIRETLS"]
TO = "elsewhere@fwd.test"


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """The one that the service trusts."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "roots.pem"))
    return made


def server(authority: trustme.CA, name: str = "mx.other.test") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def send_requiring_tls(it: Lab, data: bytes, sender: str, to: str, source: str) -> tuple[int, bytes]:
    with smtplib.SMTP(FORWARDER, it.port, "mx.sender.test", source_address=(source, 0), timeout=10) as client:
        client.ehlo()
        assert not client.has_extn("requiretls"), "in clear nothing is promised"
        assert client.mail(sender, ["REQUIRETLS"])[0] == 530
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client.starttls(context=context)
        client.ehlo()
        assert client.has_extn("requiretls")
        assert client.mail(sender, ["REQUIRETLS"])[0] == 250
        assert client.rcpt(to)[0] == 250
        return client.data(data)


async def send(
    it: Lab,
    raw: bytes = MESSAGE,
    sender: str = "bob@sender.test",
    to: str = TO,
    source: str = SENDER,
    *,
    signed: bool = True,
) -> str:
    data = it.signed(raw, recipients=(to,)) if signed else raw
    code, text = await asyncio.to_thread(send_requiring_tls, it, data, sender, to, source)
    return f"{code} {text.decode()}"


async def test_a_report_that_asks_for_it_is_handed_back_with_it(tmp_path: Path, authority: trustme.CA) -> None:
    async with (
        lab(tmp_path, zone=ZONE, relay=VERIFY, aliases=ALIAS) as it,
        SmtpSink(extensions=OFFERED, tls=server(authority), host=OTHER, port=it.port) as sink,
        SmtpSink(extensions=OFFERED, tls=server(authority, "mx.back.test"), host=BACK, port=it.port) as back,
    ):
        assert (await send(it)).startswith("250 2.0.0 delivered")
        (sent,) = sink.messages
        reversible = sent.mail[len(b"FROM:<") : sent.mail.index(b">")].decode()
        arrived = Received(OTHER, "mx.other.test", reversible, ("one@other.test",), sent.data)
        assert (await send(it, bounce_of(arrived), "", reversible, OTHER, signed=False)).startswith("250")
    assert back.messages[0].mail.startswith(b"FROM:<>")
    assert back.messages[0].mail.endswith(b" REQUIRETLS")


async def test_a_next_hop_that_keeps_the_promise_gets_it(tmp_path: Path, authority: trustme.CA) -> None:
    async with (
        lab(tmp_path, zone=ZONE, relay=VERIFY, aliases=ALIAS) as it,
        SmtpSink(extensions=OFFERED, tls=server(authority), host=OTHER, port=it.port) as sink,
    ):
        assert (await send(it)).startswith("250 2.0.0 delivered")
    assert sink.messages[0].mail.endswith(b" REQUIRETLS")


async def test_a_next_hop_that_does_not_is_the_senders_to_hear_of(tmp_path: Path, authority: trustme.CA) -> None:
    async with (
        lab(tmp_path, zone=ZONE, relay=VERIFY, aliases=ALIAS) as it,
        SmtpSink(tls=server(authority), host=OTHER, port=it.port) as sink,
    ):
        assert (await send(it)).startswith("550 5.7.30 the message requires TLS")
    assert "MAIL" not in sink.verbs()


async def test_where_nothing_vouches_for_the_next_hop_the_sender_hears_that(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE, aliases=ALIAS) as it:
        assert (await send(it)).startswith("550 5.7.10 the message requires TLS")


async def test_what_waits_still_asks_for_it_and_so_does_the_report(tmp_path: Path, authority: trustme.CA) -> None:
    script = {"DOT": [b"451 4.2.0 not now\r\n", b"550 5.1.1 unknown after all\r\n"]}
    async with (
        lab(tmp_path, zone=ZONE, relay=VERIFY, aliases=ALIAS, extra=SOON) as it,
        SmtpSink(script, OFFERED, server(authority), host=OTHER, port=it.port) as sink,
        SmtpSink(extensions=OFFERED, tls=server(authority, "mx.back.test"), host=BACK, port=it.port) as back,
    ):
        assert (await send(it)).startswith("250 2.0.0 accepted")
        await until(lambda: bool(back.messages))
    asked = [line for _, line in sink.commands if line.startswith(b"MAIL")]
    assert [one.endswith(b" REQUIRETLS") for one in asked] == [True, True]
    (report,) = back.messages
    assert report.mail.startswith(b"FROM:<>")
    assert report.mail.endswith(b" REQUIRETLS")
    assert b"Hello." not in report.data, "the header alone is returned"


async def test_a_report_that_cannot_be_protected_is_kept_here(tmp_path: Path, authority: trustme.CA) -> None:
    script = {"DOT": [b"451 4.2.0 not now\r\n", b"550 5.1.1 unknown after all\r\n"]}
    async with (
        lab(tmp_path, zone=ZONE, relay=VERIFY, aliases=ALIAS, extra=SOON) as it,
        SmtpSink(script, OFFERED, server(authority), host=OTHER, port=it.port),
        SmtpSink(tls=server(authority, "mx.back.test"), host=BACK, port=it.port) as back,
    ):
        assert (await send(it)).startswith("250 2.0.0 accepted")
        await until(lambda: bool(it.journal.named("queue.dead")))
    assert back.messages == []


async def test_a_sender_that_does_not_care_is_delivered_past_a_wrong_certificate(
    tmp_path: Path, authority: trustme.CA
) -> None:
    indifferent = b"TLS-Required: No\r\n" + MESSAGE
    async with (
        lab(tmp_path, zone=ZONE, relay=VERIFY, aliases=ALIAS, extra=SOON) as it,
        SmtpSink(
            {"DOT": [b"451 4.2.0 not now\r\n", DEFAULT]},
            OFFERED,
            server(authority, "mx.else.test"),
            host=OTHER,
            port=it.port,
        ) as sink,
    ):
        reply = await it.send(it.signed(indifferent, recipients=(TO,)), recipient=TO)
        assert reply.startswith("250 2.0.0 accepted")
        await until(lambda: bool(sink.messages))
        another = indifferent.replace(b"<one@", b"<two@")
        assert (await send(it, another)).startswith("250 2.0.0 accepted"), "REQUIRETLS wins, and waits"
    assert len(sink.messages) == 1
    assert not sink.messages[0].mail.endswith(b"REQUIRETLS")
