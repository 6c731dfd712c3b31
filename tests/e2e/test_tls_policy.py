"""Mail to servers whose TLS is asked to be this or that, from the configuration to the wire."""

from __future__ import annotations

import gzip
import json
import shutil
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from hashlib import sha256
from pathlib import Path

import pytest
import trustme

from forwarder.cli.demo_lab import FORWARDER, SENDER, SINK, free_port
from tests.authority import Issued, issue, server_with
from tests.e2e.lab import Lab, lab
from tests.peers.https_server import response, run_https_server
from tests.peers.programs import needs
from tests.peers.servers import knot, unbound
from tests.peers.smtp_sink import SmtpSink
from tests.waiting import until

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


# --- what the DNS publishes (DANE), behind a resolver that validates

#: Another key's record.
OTHERS = f"3 1 1 {'11' * 32}"
#: A DS record for a key that nobody has: all below it is forged.
FORGED = f"12345 13 2 {'22' * 32}"


def key_record(leaf: Issued) -> str:
    return f"3 1 1 {sha256(leaf.spki).hexdigest()}"


def validating(
    folder: Path, more: str, unsigned: Mapping[str, str]
) -> Callable[[str], AbstractAsyncContextManager[str]]:
    """Knot, which signs test. and the records of ``more`` in it, and Unbound in front of it."""

    @asynccontextmanager
    async def start(zone: str) -> AsyncIterator[str]:
        records = f"ns.test. 300 IN A 127.0.0.1\n{zone}\n{more}"
        async with knot(folder, records, unsigned) as (address, anchor), unbound(folder, address, anchor) as asked:
            yield asked

    return start


@dataclass(frozen=True)
class DaneCase:
    """``signed`` and ``unsigned`` are zone text with the port and the record of the certificate that is shown to be put in."""

    outcome: str
    tls: list[str | None]
    signed: str = ""
    unsigned: Mapping[str, str] = field(default_factory=dict)
    domain: str = "other.test"
    reason: str = ""


DANE = {
    "the right key": DaneCase("delivered", ["TLSv1.3"], "_{port}._tcp.mx.other.test. 300 IN TLSA {shown}"),
    "another key": DaneCase(
        "accepted",
        [],
        "_{port}._tcp.mx.other.test. 300 IN TLSA {others}",
        reason="TLS certificate is not what DANE asks for: no record is for it",
    ),
    "an alias": DaneCase(
        "delivered",
        ["TLSv1.3"],
        "_{port}._tcp.mx.other.test. 300 IN CNAME keys.test.\nkeys.test. 300 IN TLSA {shown}",
    ),
    "forged records": DaneCase(
        "accepted",
        [],
        "_tcp.mx.other.test. 300 IN NS ns.test.\n_tcp.mx.other.test. 300 IN DS {forged}",
        {"_tcp.mx.other.test": "_{port}._tcp.mx.other.test. 300 IN TLSA {shown}"},
        reason="TLSA look-up failed: ",
    ),
    "another key in a zone that is not signed": DaneCase(
        "delivered",
        ["TLSv1.3"],
        "plain.test. 300 IN NS ns.test.",
        {
            "plain.test": "plain.test. 300 IN MX 10 mx.plain.test.\nmx.plain.test. 300 IN A 127.0.0.51\n"
            "_{port}._tcp.mx.plain.test. 300 IN TLSA {others}"
        },
        domain="plain.test",
    ),
}


@needs("unbound")
@needs("knotd", "knot")
@pytest.mark.parametrize("name", DANE)
async def test_what_the_dns_publishes_is_held_to_where_it_is_signed(tmp_path: Path, name: str) -> None:
    case, port, shown = DANE[name], free_port(FORWARDER, SENDER, SINK, OTHER), issue("anything")
    known = {"port": port, "shown": key_record(shown), "others": OTHERS, "forged": FORGED}
    unsigned = {zone: text.format(**known) for zone, text in case.unsigned.items()}
    resolver = validating(tmp_path, case.signed.format(**known), unsigned)
    alias = f'elsewhere = ["one@{case.domain}"]'
    async with (
        lab(tmp_path, zone=ZONE, aliases=alias, resolver=resolver, port=port) as it,
        SmtpSink(tls=server_with(shown, tmp_path), host=OTHER, port=port) as sink,
    ):
        reply = await send(it)
    assert reply.startswith(f"250 2.0.0 {case.outcome}")
    reasons = [event["reason"] for event in it.journal.named("relay.deferred")]
    assert bool(reasons) is bool(case.reason)
    assert all(reason.startswith(case.reason) for reason in reasons)
    assert [one.tls for one in sink.messages] == case.tls


# --- what the domain promises over HTTPS (MTA-STS)


def policy(mode: str, *hosts: str) -> bytes:
    return f"version: STSv1\nmode: {mode}\n{''.join(f'mx: {one}{chr(10)}' for one in hosts)}max_age: 86400\n".encode()


@dataclass(frozen=True)
class StsCase:
    """``name`` is whom the destination's certificate is for."""

    mode: str
    outcome: str
    name: str = "mx.other.test"
    host: str = "*.other.test"
    reason: str | None = None


@pytest.mark.parametrize(
    "case",
    [
        StsCase("enforce", "delivered"),
        StsCase("enforce", "accepted", name="mx.else.test", reason="TLS certificate is for another name"),
        StsCase(
            "enforce", "accepted", host="mx.else.test", reason="the domain's MTA-STS policy does not name this host"
        ),
        StsCase("testing", "delivered", name="mx.else.test", host="mx.else.test"),
        StsCase("none", "delivered", name="mx.else.test"),
    ],
    ids=["all well", "another name", "another host", "testing", "none"],
)
async def test_what_a_domain_promises_is_held_to(tmp_path: Path, authority: trustme.CA, case: StsCase) -> None:
    zone = ZONE | {"_mta-sts.other.test": {"TXT": ["v=STSv1; id=1"]}, "mta-sts.other.test": {"A": ["127.0.0.1"]}}
    async with run_https_server(server(authority, "mta-sts.other.test")) as host:
        host.answer = response(policy(case.mode, case.host))
        rule = f'mta_sts_port = {host.port}\n[relay.tls]\nca_file = "roots.pem"'
        async with (
            lab(tmp_path, zone=zone, relay=rule, aliases=ALIAS) as it,
            SmtpSink(tls=server(authority, case.name), host=OTHER, port=it.port) as sink,
        ):
            replies = [await send(it), await it.send(it.signed(recipients=("alias@fwd.test",)))]
    assert replies[0].startswith(f"250 2.0.0 {case.outcome}")
    assert replies[1].startswith("250 2.0.0 delivered"), "a domain without a policy has its mail"
    assert [event["reason"] for event in it.journal.named("relay.deferred")] == ([case.reason] if case.reason else [])
    assert len(sink.messages) == (case.outcome == "delivered")
    assert len(host.requests) == 1


async def test_a_policy_still_counts_after_a_restart_when_its_record_is_gone(
    tmp_path: Path, authority: trustme.CA
) -> None:
    """Who can keep answers from us must not be able to switch it off."""
    zone = ZONE | {"_mta-sts.other.test": {"TXT": ["v=STSv1; id=1"]}, "mta-sts.other.test": {"A": ["127.0.0.1"]}}
    port = free_port(FORWARDER, SENDER, SINK, OTHER)
    async with run_https_server(server(authority, "mta-sts.other.test")) as host:
        host.answer = response(policy("enforce", "mx.other.test"))
        rule = f'mta_sts_port = {host.port}\n[relay.tls]\nca_file = "{tmp_path}/roots.pem"'
        first, second = tmp_path / "first", tmp_path / "second"
        async with (
            lab(first, zone=zone, relay=rule, aliases=ALIAS, port=port) as it,
            SmtpSink(tls=server(authority), host=OTHER, port=port) as sink,
        ):
            assert (await send(it)).startswith("250 2.0.0 delivered")
        shutil.copytree(first / "state", second / "state")
        async with (
            lab(second, zone=ZONE, relay=rule, aliases=ALIAS, port=port) as it,
            SmtpSink(tls=server(authority, "mx.else.test"), host=OTHER, port=port) as forged,
        ):
            assert (await send(it)).startswith("250 2.0.0 accepted")
    assert (len(sink.messages), len(forged.messages), len(host.requests)) == (1, 0, 1)


# --- what a domain hears of it (TLSRPT)


async def test_a_domain_that_asks_for_it_hears_how_tls_with_it_went(tmp_path: Path, authority: trustme.CA) -> None:
    zone = ZONE | {
        "_mta-sts.other.test": {"TXT": ["v=STSv1; id=1"]},
        "mta-sts.other.test": {"A": ["127.0.0.1"]},
        "_smtp._tls.other.test": {"TXT": ["v=TLSRPTv1; rua=mailto:tls@sender.test,https://mta-sts.other.test/tls"]},
        "_smtp._tls.sink.test": {"TXT": ["v=spf1 -all"]},
    }
    async with run_https_server(server(authority, "mta-sts.other.test")) as host:
        host.answer = response(policy("testing", "*.other.test"))
        rule = f'mta_sts_port = {host.port}\ntls_reports = true\n[relay.tls]\nca_file = "roots.pem"'
        async with (
            lab(tmp_path, zone=zone, relay=rule, aliases=ALIAS) as it,
            SmtpSink(tls=server(authority, "mx.else.test"), host=OTHER, port=it.port) as sink,
        ):
            assert (await send(it)).startswith("250 2.0.0 delivered")
            assert (await it.send(it.signed())).startswith("250 2.0.0 delivered")
            today = it.app.clock.now().date()
            assert await it.app.report_tls(today)
            assert await it.app.report_tls(today), "once"
            it.app.wake_queue()
            arrived = await it.next(it.sender)
            await until(lambda: it.journal.named("relay.sent"))
            assert it.sender.waiting.empty()
    assert [one.tls for one in sink.messages] == ["TLSv1.3"], "a policy in testing keeps nothing back"
    assert (arrived.sender, arrived.recipients) == ("", ("tls@sender.test",))
    post = host.requests[1]
    assert post.startswith("POST /tls HTTP/1.1\r\n")
    assert "Content-Type: application/tlsrpt+gzip\r\n" in post
    assert [(one["to"], one["reason"]) for one in it.journal.named("tlsrpt.sent")] == [
        ("sender.test", None),
        ("mta-sts.other.test", None),
    ]
    message = message_from_bytes(arrived.data)
    assert message["TLS-Report-Domain"] == "other.test"
    assert "d=fwd.test" in "".join(message["DKIM-Signature"].split())
    report = json.loads(gzip.decompress(message.get_payload()[1].get_payload(decode=True)))
    (told,) = report["policies"]
    assert (told["policy"]["policy-type"], told["policy"]["mx-host"]) == ("sts", ["*.other.test"])
    assert told["summary"] == {"total-successful-session-count": 0, "total-failure-session-count": 1}
    assert told["failure-details"] == [
        {
            "result-type": "certificate-host-mismatch",
            "sending-mta-ip": "127.0.0.25",
            "receiving-mx-hostname": "mx.other.test",
            "receiving-ip": OTHER,
            "failed-session-count": 1,
            "failure-reason-code": "TLS certificate is for another name",
        }
    ]
