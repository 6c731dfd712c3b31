"""RFC 8689 on the way out: who asks for TLS all the way gets it or hears why not, and who asks for none gets through."""

from __future__ import annotations

from typing import Any

import pytest

from forwarder.model import Deferred, Delivered, Failed, Reply, TlsWish
from forwarder.ports import StsMode, StsPolicy
from forwarder.relay import Level, TlsRules
from forwarder.smtp.login import Login
from tests.peers.smtp_sink import DROP, SmtpSink, Then
from tests.relay.bench import ONE, bench, mx, results, summary
from tests.relay.conftest import Certificates
from tests.relay.test_rules import Policies

OFFERED = [b"PIPELINING", b"8BITMIME", b"REQUIRETLS"]
#: Both are called mx.sink.test by their certificates; the rules compare with the name of the MX record.
TWO = mx("10 mx.sink.test 127.0.0.1 127.0.0.2")
ASKED = {"tls": TlsWish.REQUIRED}


def sts(pattern: str) -> StsPolicy:
    return StsPolicy("1", StsMode.ENFORCE, (pattern,), 86400)


def verified(certificates: Certificates) -> TlsRules:
    return TlsRules(Level.VERIFY, roots=certificates.roots)


# --- REQUIRETLS


async def test_it_goes_on_to_a_verified_host_that_promises_the_same(certificates: Certificates) -> None:
    async with (
        SmtpSink(extensions=OFFERED, tls=certificates.server) as sink,
        bench(ONE, sink.port, tls=verified(certificates)) as it,
    ):
        assert summary(await it.deliver(**ASKED)) == [("Delivered", 250)]
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert [one.mail.split()[1:] for one in sink.messages] == [[b"BODY=8BITMIME", b"REQUIRETLS"], [b"BODY=8BITMIME"]]


async def test_a_host_that_does_not_promise_it_gets_nothing_but_other_mail(certificates: Certificates) -> None:
    async with (
        SmtpSink(tls=certificates.server) as sink,
        bench(ONE, sink.port, tls=verified(certificates)) as it,
    ):
        (result,) = results(await it.deliver(**ASKED))
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert isinstance(result, Failed)
    assert result.reply.code == 550
    assert result.reply.enhanced == "5.7.30"
    assert sink.connections == len(sink.messages) == 1


async def test_another_host_of_the_domain_may_promise_it(certificates: Certificates) -> None:
    async with (
        SmtpSink(tls=certificates.server) as one,
        SmtpSink(extensions=OFFERED, tls=certificates.server, host="127.0.0.2", port=one.port) as two,
        bench(TWO, one.port, tls=verified(certificates)) as it,
    ):
        assert summary(await it.deliver(**ASKED)) == [("Delivered", 250)]
    assert (len(one.messages), len(two.messages)) == (0, 1)


async def test_while_a_host_is_away_that_may_promise_it_the_mail_waits(certificates: Certificates) -> None:
    async with (
        SmtpSink(tls=certificates.server) as one,
        bench(TWO, one.port, tls=verified(certificates)) as it,
    ):
        (result,) = results(await it.deliver(**ASKED))
    assert isinstance(result, Deferred)


@pytest.mark.parametrize("level", [Level.NONE, Level.OPPORTUNISTIC, Level.REQUIRE])
async def test_a_host_that_nothing_vouches_for_is_not_even_asked(certificates: Certificates, level: Level) -> None:
    async with (
        SmtpSink(extensions=OFFERED, tls=certificates.server) as sink,
        bench(ONE, sink.port, tls=TlsRules(level)) as it,
    ):
        (result,) = results(await it.deliver(**ASKED))
    assert isinstance(result, Failed)
    assert result.reply.enhanced == "5.7.10"
    assert sink.connections == 0


@pytest.mark.parametrize("kind", ["expired", "wrong name", "other authority", "self-signed"])
async def test_a_certificate_that_is_no_good_is_waited_for(certificates: Certificates, kind: str) -> None:
    async with (
        SmtpSink(extensions=OFFERED, tls=certificates.servers[kind]) as sink,
        bench(ONE, sink.port, tls=verified(certificates)) as it,
    ):
        (result,) = results(await it.deliver(**ASKED))
    assert isinstance(result, Deferred)
    assert sink.messages == []


async def test_a_server_that_refuses_it_after_all_is_heard(certificates: Certificates) -> None:
    script = {"MAIL": b"550 5.7.30 not to that mailbox\r\n"}
    async with (
        SmtpSink(script, OFFERED, certificates.server) as sink,
        bench(ONE, sink.port, tls=verified(certificates)) as it,
    ):
        (result,) = results(await it.deliver(**ASKED))
    assert isinstance(result, Failed)
    assert result.reply == Reply(550, "5.7.30", "not to that mailbox")


async def test_the_promise_must_be_made_within_tls(certificates: Certificates) -> None:
    """What stands in the EHLO reply before STARTTLS could be anybody's."""
    before = b"250-sink.test\r\n250-REQUIRETLS\r\n250 STARTTLS\r\n"
    async with (
        SmtpSink({"EHLO": [before, b"250 sink.test\r\n"]}, tls=certificates.server) as sink,
        bench(ONE, sink.port, tls=verified(certificates)) as it,
    ):
        (result,) = results(await it.deliver(**ASKED))
    assert isinstance(result, Failed)
    assert sink.messages == []


@pytest.mark.parametrize(
    ("dnssec", "level", "result"),
    [
        ("secure", Level.OPPORTUNISTIC, ("Delivered", 250)),
        ("secure", Level.REQUIRE, ("Delivered", 250)),
        ("secure", Level.NONE, ("Failed", 550)),
        ("insecure", Level.OPPORTUNISTIC, ("Failed", 550)),
    ],
)
async def test_where_the_dns_vouches_for_the_name_of_the_host_its_certificate_is_enough(
    certificates: Certificates, dnssec: str, level: Level, result: tuple[str, int]
) -> None:
    zone: dict[str, dict[str, Any]] = {
        "test": {"DNSSEC": dnssec},
        "sink.test": {"MX": ["10 mx.sink.test"]},
        "mx.sink.test": {"A": ["127.0.0.1"]},
    }
    async with (
        SmtpSink(extensions=OFFERED, tls=certificates.server) as good,
        bench(zone, good.port, tls=TlsRules(level, roots=certificates.roots), signed=True) as it,
    ):
        assert summary(await it.deliver(**ASKED)) == [result]
    async with (
        SmtpSink(extensions=OFFERED, tls=certificates.servers["other authority"]) as bad,
        bench(zone, bad.port, tls=TlsRules(level, roots=certificates.roots), signed=True) as it,
    ):
        assert summary(await it.deliver(**ASKED))[0][0] != "Delivered"


@pytest.mark.parametrize(
    ("pattern", "result"), [("mx.sink.test", ("Delivered", 250)), ("mx.else.test", ("Deferred", None))]
)
async def test_what_an_mta_sts_policy_enforces_is_enough_and_stands(
    certificates: Certificates, pattern: str, result: tuple[str, int | None]
) -> None:
    zone = {"test": {"DNSSEC": "secure"}, **ONE}
    async with (
        SmtpSink(extensions=OFFERED, tls=certificates.server) as sink,
        bench(
            zone,
            sink.port,
            tls=TlsRules(roots=certificates.roots),
            sts=Policies({"sink.test": sts(pattern)}),
            signed=True,
        ) as it,
    ):
        assert summary(await it.deliver(**ASKED)) == [result]
        (other,) = results(await it.deliver(tls=TlsWish.INDIFFERENT))
    assert isinstance(other, Delivered), "past that policy too"


async def test_while_nobody_knows_the_domains_policy_the_mail_waits(certificates: Certificates) -> None:
    policies = Policies({}, unknown=True)
    async with (
        SmtpSink(extensions=OFFERED, tls=certificates.server) as sink,
        bench(ONE, sink.port, tls=TlsRules(roots=certificates.roots), sts=policies) as it,
    ):
        (result,) = results(await it.deliver(**ASKED))
        assert isinstance(result, Deferred)
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert len(sink.messages) == 1


# --- TLS-Required: No


@pytest.mark.parametrize("kind", ["expired", "wrong name", "other authority", "self-signed"])
async def test_who_does_not_care_is_delivered_with_whatever_certificate(certificates: Certificates, kind: str) -> None:
    async with (
        SmtpSink(tls=certificates.servers[kind]) as sink,
        bench(ONE, sink.port, tls=verified(certificates)) as it,
    ):
        assert summary(await it.deliver(tls=TlsWish.INDIFFERENT)) == [("Delivered", 250)]
        (other,) = results(await it.deliver())
    assert [one.tls for one in sink.messages] == ["TLSv1.3"], "TLS is used all the same"
    assert isinstance(other, Deferred), "nobody else's mail is affected"


@pytest.mark.parametrize(
    "server", [{}, {"script": {"STARTTLS": Then(b"220 go\r\n", DROP)}, "extensions": [b"STARTTLS"]}]
)
async def test_who_does_not_care_is_delivered_in_clear_where_there_is_no_tls(
    certificates: Certificates, server: dict[str, Any]
) -> None:
    async with SmtpSink(**server) as sink, bench(ONE, sink.port, tls=verified(certificates)) as it:
        (result,) = results(await it.deliver(tls=TlsWish.INDIFFERENT))
    assert isinstance(result, Delivered)
    assert sink.messages[0].tls is None


async def test_what_protects_our_login_is_not_a_senders_to_give_up(certificates: Certificates) -> None:
    async with (
        SmtpSink(extensions=[b"AUTH PLAIN"], tls=certificates.servers["wrong name"]) as sink,
        bench(
            ONE,
            1,
            smarthost=f"mx.sink.test:{sink.port}",
            smarthost_login=Login("us", "secret"),
            tls=verified(certificates),
        ) as it,
    ):
        (result,) = results(await it.deliver(tls=TlsWish.INDIFFERENT))
    assert isinstance(result, Deferred)
    assert "AUTH" not in sink.verbs()
