"""Programs that others wrote, on every side of the service: swaks, aiosmtplib, Postfix and its load tools, Redis, Unbound.

What is not installed is skipped and named; scripts/peers installs all of it.
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.header import decode_header
from ipaddress import IPv4Address
from pathlib import Path

import aiosmtplib
import dkim
import pytest
import trustme

from forwarder.cli.demo_lab import FORWARDER, SENDER, Received
from forwarder.ports import DnsStatus
from forwarder.resolver import DnsResolver
from tests.e2e.lab import MESSAGE, Lab, lab
from tests.peers.dns_server import run_dns_server
from tests.peers.postfix import needs_postfix, needs_root, postfix, smtp_sink
from tests.peers.programs import needs, run
from tests.peers.servers import redis_server, unbound
from tests.peers.smtp_sink import DROP, SmtpSink, Then
from tests.waiting import until

#: Where the destination of these tests listens, and the next hop behind it.
OTHER, BEHIND = "127.0.0.51", "127.0.0.52"
OTHER_ZONE = {"other.test": {"MX": ["10 mx.other.test."]}, "mx.other.test": {"A": [OTHER]}}
ELSEWHERE = 'elsewhere = ["one@other.test"]'


# --- swaks


SWAKS = pytest.mark.parametrize(
    "options", [[], ["--tls"], ["--pipeline"], ["--tls", "--pipeline"]], ids=["plain", "tls", "pipelined", "both"]
)


async def swaks(it: Lab, *options: str) -> tuple[int, str]:
    return await run(
        "swaks",
        *("--server", FORWARDER, "--port", str(it.port), "--local-interface", SENDER, "--helo", "mx.sender.test"),
        *("--from", "bob@sender.test", "--to", "alias@fwd.test"),
        *options,
    )


@needs("swaks")
@SWAKS
async def test_swaks_sends_a_message_of_its_own(tmp_path: Path, options: list[str]) -> None:
    # swaks signs nothing: the sender is one without a Mailkey record.
    async with lab(tmp_path, zone={"mailkey.sender.test": {}}) as it:
        code, printed = await swaks(
            it, *options, "--body", r"Hello.\n.dot\n..dots\n\nEnd.", "--header", "Subject: swaks"
        )
        assert code == 0, printed
        arrived = await it.next(it.sink)
        assert arrived.data.replace(b"\r\n", b"\n").rstrip().endswith(b"\n\nHello.\n.dot\n..dots\n\nEnd.")
        assert b"\r\nSubject: swaks\r\n" in arrived.data
        (verified,) = it.journal.named("message.verified")
        assert (verified["spf"], verified["dmarc"]) == ("pass", "pass")
        protocol = b"with ESMTPS " if "--tls" in options else b"with ESMTP "
        assert protocol in b" ".join(arrived.data.split())
        assert it.sink.waiting.empty()


@needs("swaks")
@SWAKS
async def test_swaks_sends_a_signed_message_that_arrives_as_it_was(tmp_path: Path, options: list[str]) -> None:
    async with lab(tmp_path) as it:
        sent = it.signed(MESSAGE.replace(b"Hello.", b"Gr\xc3\xbc\xc3\x9fe.\r\n" + b"x" * 990))
        (tmp_path / "message").write_bytes(sent)
        code, printed = await swaks(it, *options, "--data", f"@{tmp_path / 'message'}")
        assert code == 0, printed
        arrived = await it.next(it.sink)
        assert arrived.data.rstrip(b"\r\n").endswith(sent.rstrip(b"\r\n"))
        (verified,) = it.journal.named("message.verified")
        assert (verified["mailkey"], verified["dkim"]) == ("pass", ["pass sender.test"])


@needs("swaks")
async def test_swaks_hears_why_and_reports_it(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        code, printed = await swaks(it, "--to", "nobody@fwd.test")
        # swaks(1) EXIT CODES: no recipient was taken.
        assert code == 24, printed
        assert "550 5.1.1" in printed


# --- aiosmtplib


def aiosmtplib_client(it: Lab, *, tls: bool = False) -> aiosmtplib.SMTP:
    context = ssl.create_default_context(cafile=it.folder / "state" / "tls" / "self-signed.pem")
    # It connects to an address, and the certificate is for a name.
    context.check_hostname = False
    return aiosmtplib.SMTP(
        hostname=FORWARDER,
        port=it.port,
        local_hostname="mx.sender.test",
        source_address=(SENDER, 0),
        start_tls=tls,
        tls_context=context,
        timeout=20,
    )


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
async def test_aiosmtplib_sends_eight_bits_in_body_and_sender(tmp_path: Path, tls: bool) -> None:
    async with lab(tmp_path) as it:
        sender = "b\u00f6b@sender.test"
        raw = MESSAGE.replace(b"bob@sender.test", sender.encode()).replace(b"Hello.", "Gr\u00fc\u00dfe.".encode())
        sent = it.signed(raw, sender)
        async with aiosmtplib_client(it, tls=tls) as client:
            refused, said = await client.sendmail(
                sender, ["alias@fwd.test"], sent, mail_options=["SMTPUTF8", "BODY=8BITMIME"]
            )
        assert (refused, said[:5]) == ({}, "2.0.0")
        arrived = await it.next(it.sink)
        assert arrived.data.endswith(sent)
        # RFC 6531 section 4.3
        assert (b"with UTF8SMTPS " if tls else b"with UTF8SMTP ") in b" ".join(arrived.data.split())
        (verified,) = it.journal.named("message.verified")
        assert (verified["mailkey"], verified["spf"], verified["dkim"]) == ("pass", "pass", ["pass sender.test"])
        assert (await it.bounce(arrived)).startswith("250")
        assert (await it.next(it.sender)).recipients == (sender,)


async def test_aiosmtplib_keeps_one_connection_for_many_messages(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        ids = [b"<m%d@sender.test>" % number for number in range(20)]
        async with aiosmtplib_client(it) as client:
            for one in ids:
                await client.sendmail(
                    "bob@sender.test", ["alias@fwd.test"], it.signed(MESSAGE.replace(b"<one@sender.test>", one))
                )
        arrived = [(await it.next(it.sink)).data for _ in ids]
        assert all(one in data for one, data in zip(ids, arrived, strict=True))


# --- Postfix's smtp-source and smtp-sink


@needs("smtp-source", "postfix")
@needs("smtp-sink", "postfix")
async def test_a_thousand_messages_of_smtp_source_all_reach_smtp_sink(tmp_path: Path) -> None:
    count = 1000
    # smtp-source cannot choose the address it comes from.
    zone = OTHER_ZONE | {"bulk.test": {"TXT": ["v=spf1 ip4:127.0.0.1 -all"]}}
    async with lab(tmp_path, zone=zone, aliases=ELSEWHERE) as it, smtp_sink(OTHER, it.port) as dump:
        code, printed = await run(
            "smtp-source",
            *("-d", "-s", "10", "-m", str(count), "-l", "4000", "-M", "bulk.test"),
            *("-f", "bulk@bulk.test", "-t", "elsewhere@fwd.test", f"{FORWARDER}:{it.port}"),
        )
        assert (code, printed) == (0, "")
        answers = [one["code"] for one in it.journal.named("message.answered")]
        assert answers == [250] * count
        ids = [re.findall(rb"^Message-I[dD]: (<.*bulk\.test>)", one, re.MULTILINE) for one in dump.messages]
    assert all(len(one) == 1 for one in ids)
    assert len(ids) == len({one[0] for one in ids}) == count


# --- destinations that offer TLS


@pytest.fixture(scope="module")
def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("mx.other.test").configure_cert(context)
    return context


async def test_a_destination_that_offers_tls_gets_it_and_the_trace_says_so(
    tmp_path: Path, server_tls: ssl.SSLContext
) -> None:
    async with (
        lab(tmp_path, zone=OTHER_ZONE, aliases=ELSEWHERE) as it,
        SmtpSink(tls=server_tls, host=OTHER, port=it.port) as sink,
    ):
        sent = it.signed(recipients=("elsewhere@fwd.test",))
        assert (await it.send(sent, recipient="elsewhere@fwd.test")).startswith("250")
        (taken,) = sink.messages
        assert taken.tls == "TLSv1.3"
        assert taken.data.endswith(sent)
        assert [one["version"] for one in it.journal.named("relay.tls")] == ["TLSv1.3"]
        assert [one["tls"] for one in it.journal.named("relay.sent")] == ["TLSv1.3"]


@pytest.mark.parametrize("broken", ["drops", "has no certificate"])
async def test_a_destination_whose_tls_is_broken_gets_the_mail_in_clear(tmp_path: Path, broken: str) -> None:
    # A server context without a certificate shares no cipher with anybody.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    script = {"STARTTLS": Then(b"220 go\r\n", DROP)} if broken == "drops" else {}
    async with (
        lab(tmp_path, zone=OTHER_ZONE, aliases=ELSEWHERE) as it,
        SmtpSink(script, tls=context, host=OTHER, port=it.port) as sink,
    ):
        sent = it.signed(recipients=("elsewhere@fwd.test",))
        assert (await it.send(sent, recipient="elsewhere@fwd.test")).startswith("250")
        (taken,) = sink.messages
        assert taken.tls is None
        assert taken.data.endswith(sent)
        assert [bool(one.get("error")) for one in it.journal.named("relay.tls")] == [True]
        assert [one["tls"] for one in it.journal.named("relay.sent")] == [None]


# --- Postfix as the hidden destination


HIDDEN = (b"hidden.person", b"post.test", b"127.0.0.51", b"127.0.0.52", b"behind")
POST_ZONE = {
    "post.test": {"MX": ["10 mx.post.test."], "TXT": [f"v=spf1 ip4:{OTHER} -all"]},
    "mx.post.test": {"A": [OTHER], "TXT": [f"v=spf1 ip4:{OTHER} -all"]},
}
POST_ALIASES = 'late = ["hidden.person@post.test"]\nnever = ["no.such.hidden.person@post.test"]'
SAID = b"%d %d.2.2 <hidden.person@post.test>: mailbox at behind.post.test (127.0.0.52) is full\r\n"


#: Delays are told to nobody who did not ask for it, by default.
TOLD = '[bounces.routes]\ndelayed = "sender"\n'


@asynccontextmanager
async def post_office(
    folder: Path, transport: str, settings: Mapping[str, str] | None = None, *, extra: str = ""
) -> AsyncIterator[Lab]:
    """The lab, and Postfix as the server of post.test: it takes mail for one person there and hands it to ``transport``. All
    else goes to our service, over TLS or not at all. It ends first: what it has to say, it has said."""
    async with lab(folder, zone=POST_ZONE, aliases=POST_ALIASES, extra=extra) as it:
        ours = {
            "relay_domains": "post.test",
            "relay_recipient_maps": "inline:{hidden.person@post.test=x}",
            "transport_maps": f"inline:{{ {{ post.test = {transport} }} }}",
            "relayhost": f"[{FORWARDER}]:{it.port}",
            "smtp_tls_policy_maps": f"inline:{{ {{ {transport.removeprefix('smtp:')} = none }} }}",
        }
        async with postfix(OTHER, it.port, "mx.post.test", ours | dict(settings or {})):
            yield it


def everything_said(raw: bytes) -> bytes:
    """The message as it came, and every part and header field of it decoded, in small letters."""
    said = [raw]
    for part in message_from_bytes(raw).walk():
        for value in part.values():
            said += [one if isinstance(one, bytes) else one.encode() for one, _ in decode_header(str(value))]
        if isinstance(payload := part.get_payload(decode=True), bytes):
            said.append(payload)
    said += [base64.b64decode(one + b"==") for one in re.findall(rb"[A-Za-z0-9+/]{8,}", raw) if len(one) % 4 != 1]
    return b"\n".join(said).lower()


def check_report(it: Lab, home: Received, sender: str, action: bytes, status: bytes) -> None:
    """A report of ours about the alias, signed, that tells enough and not too much."""
    assert (home.sender, home.recipients) == ("", (sender,))
    assert message_from_bytes(home.data).get_content_type() == "multipart/report"
    assert home.data.count(b"Final-Recipient: ") == 1
    assert b"Final-Recipient: rfc822; late@fwd.test" in home.data
    assert b"Action: " + action in home.data
    assert b"Status: " + status in home.data
    told = everything_said(home.data)
    assert [one for one in HIDDEN if one in told] == []
    # The reason is still there, and what was sent can be recognised.
    assert b"full" in told
    assert b"<one@sender.test>" in told

    def look_up(name: bytes, timeout: int = 5) -> bytes:
        return it.records.get(name.decode().rstrip("."), {}).get("TXT", [""])[0].encode()

    assert dkim.verify(home.data, dnsfunc=look_up)
    assert home.data.startswith(b"Mailkey-Signature:")


@needs_postfix
@needs_root
@pytest.mark.parametrize("returned", ["whole message", "header only"])
async def test_the_report_that_postfix_writes_comes_home_without_the_destination(tmp_path: Path, returned: str) -> None:
    limit = {"bounce_size_limit": "50000" if returned == "whole message" else "1"}
    async with SmtpSink({"RCPT": SAID % (550, 5)}, host=BEHIND) as behind:
        async with post_office(tmp_path, f"smtp:[{BEHIND}]:{behind.port}", limit) as it:
            sent = it.signed(recipients=("late@fwd.test",))
            assert (await it.send(sent, recipient="late@fwd.test")).startswith("250")
            home = await it.next(it.sender)
        check_report(it, home, "bob@sender.test", b"failed", b"5.2.2")
        assert it.sender.waiting.empty()
        assert [one["version"] for one in it.journal.named("relay.tls")] == ["TLSv1.3"]
        received = [(one["ip"], str(one["sender"])) for one in it.journal.named("message.received")]
        assert received == [(SENDER, "bob@sender.test"), (OTHER, "<>")]


@needs_postfix
@needs_root
async def test_an_internationalised_sender_hears_of_it_too(tmp_path: Path) -> None:
    sender = "b\u00f6b@sender.test"
    async with SmtpSink({"RCPT": SAID % (550, 5)}, host=BEHIND) as behind:
        async with post_office(tmp_path, f"smtp:[{BEHIND}]:{behind.port}") as it:
            raw = MESSAGE.replace(b"From: Bob <bob@", "From: B\u00f6b <b\u00f6b@".encode())
            async with aiosmtplib_client(it) as client:
                sent = it.signed(raw, sender, ("late@fwd.test",))
                await client.sendmail(sender, ["late@fwd.test"], sent, mail_options=["SMTPUTF8", "BODY=8BITMIME"])
            home = await it.next(it.sender)
        check_report(it, home, sender, b"failed", b"5.2.2")


@needs_postfix
@needs_root
async def test_postfix_warns_of_a_delay_and_then_gives_up_and_both_reports_come_home(tmp_path: Path) -> None:
    hurry = {
        **dict.fromkeys(
            ("minimal_backoff_time", "maximal_backoff_time", "queue_run_delay", "delay_warning_time"), "1s"
        ),
        "maximal_queue_lifetime": "3s",
    }
    async with SmtpSink({"RCPT": SAID % (451, 4)}, host=BEHIND) as behind:
        async with post_office(tmp_path, f"smtp:[{BEHIND}]:{behind.port}", hurry, extra=TOLD) as it:
            sent = it.signed(recipients=("late@fwd.test",))
            assert (await it.send(sent, recipient="late@fwd.test")).startswith("250")
            warning, failure = await it.next(it.sender), await it.next(it.sender)
        check_report(it, warning, "bob@sender.test", b"delayed", b"4.2.2")
        check_report(it, failure, "bob@sender.test", b"failed", b"4.2.2")
        assert it.sender.waiting.empty()


@needs_postfix
@needs_root
async def test_postfix_is_asked_what_the_sender_asked_and_says_it_to_the_sender_through_us(tmp_path: Path) -> None:
    async with SmtpSink(host=BEHIND) as behind:
        async with post_office(tmp_path, f"smtp:[{BEHIND}]:{behind.port}") as it:
            async with aiosmtplib_client(it) as client:
                for number, notify in ((1, "NOTIFY=SUCCESS"), (2, "NOTIFY=FAILURE")):
                    raw = MESSAGE.replace(b"<one@", b"<%d@" % number)
                    sent = it.signed(raw, recipients=("late@fwd.test",))
                    mail, rcpt = ["ENVID=Q+2B1", "RET=FULL"], [notify, "ORCPT=rfc822;old@sender.test"]
                    await client.sendmail(
                        "bob@sender.test", ["late@fwd.test"], sent, mail_options=mail, rcpt_options=rcpt
                    )
            home = await it.next(it.sender)
            await until(lambda: len(behind.messages) == 2)
        assert (home.sender, home.recipients) == ("", ("bob@sender.test",))
        assert b"Action: relayed" in home.data, "by Postfix, as what is behind it has no DSN"
        assert b"Original-Envelope-Id: Q+1\r\n" in home.data
        assert b"Original-Recipient: rfc822; old@sender.test\r\nFinal-Recipient: rfc822; late@fwd.test\r\n" in home.data
        assert b"<1@sender.test>" in home.data
        assert [one for one in HIDDEN if one in everything_said(home.data)] == []
        # None of ours, and none of the other message.
        assert it.sender.waiting.empty()
        assert not it.journal.named("report.written")


@needs_postfix
@needs_root
async def test_postfix_says_nothing_where_the_sender_wants_to_hear_nothing(tmp_path: Path) -> None:
    async with SmtpSink({"RCPT": SAID % (550, 5)}, host=BEHIND) as behind:
        async with post_office(tmp_path, f"smtp:[{BEHIND}]:{behind.port}") as it:
            sent = it.signed(recipients=("late@fwd.test",))
            async with aiosmtplib_client(it) as client:
                await client.sendmail("bob@sender.test", ["late@fwd.test"], sent, rcpt_options=["NOTIFY=NEVER"])
            await until(lambda: "RCPT" in behind.verbs())
        assert it.sender.waiting.empty()
        assert [str(one["sender"]) for one in it.journal.named("message.received")] == ["bob@sender.test"]


@needs_postfix
@needs_root
@pytest.mark.parametrize(
    ("recipient", "transport", "expected"),
    [
        ("never", f"smtp:[{BEHIND}]:1", "550 5.1.1 "),
        (
            "late",
            "error:5.2.2 mailbox of hidden.person@post.test on behind.post.test [127.0.0.52] is full",
            "550 5.2.2 ",
        ),
    ],
    ids=["unknown", "with a reason"],
)
async def test_what_postfix_refuses_in_session_the_sender_hears_without_the_destination(
    tmp_path: Path, recipient: str, transport: str, expected: str
) -> None:
    async with post_office(tmp_path, transport) as it:
        sent = it.signed(recipients=(f"{recipient}@fwd.test",))
        answer = await it.send(sent, recipient=f"{recipient}@fwd.test")
    assert answer.startswith(expected)
    assert f"<{recipient}@fwd.test>" in answer
    assert [one for one in HIDDEN if one in answer.lower().encode()] == []
    assert it.sender.waiting.empty()


# --- the store and the resolver


@needs("redis-server")
async def test_the_story_over_the_redis_of_the_system(tmp_path: Path) -> None:
    sender = "bob.with.a.very.long.local.part.that.fits.nowhere@sender.test"
    async with redis_server(tmp_path) as url, lab(tmp_path, store=url) as it:
        sent = it.signed(sender=sender)
        assert (await it.send(sent, sender)).startswith("250")
        arrived = await it.next(it.sink)
        # What is known to be delivered is not delivered again.
        assert (await it.send(sent, sender)).startswith("250")
        assert it.sink.waiting.empty()
        # The way back is known too, though the address does not tell it.
        assert "very.long" not in arrived.sender
        assert (await it.bounce(arrived)).startswith("250")
        assert (await it.next(it.sender)).recipients == (sender,)
        assert it.app.store_pid is None


UNBOUND_ZONE = r"""
$ORIGIN test.
$TTL 300
short IN TXT "v=spf1 -all"
long  IN TXT "{long}" "{long}" "{long}" "{long}" "{long}" "{long}"
a     IN MX  10 mx.test.
mx    IN A   192.0.2.1
alias IN CNAME short
"""


@needs("unbound")
async def test_the_resolver_understands_unbound(tmp_path: Path) -> None:
    async with (
        run_dns_server(UNBOUND_ZONE.format(long="x" * 250)) as upstream,
        unbound(tmp_path, upstream.address) as address,
    ):
        upstream.faults["broken.test"] = "SERVFAIL"
        ask = DnsResolver([address], timeout=10, monotonic=asyncio.get_running_loop().time)
        assert (await ask.txt("short.test")).records == (b"v=spf1 -all",)
        assert (await ask.txt("alias.test")).records == (b"v=spf1 -all",)
        # Too long for a packet of UDP: truncated, and asked for once more over TCP.
        assert (await ask.txt("long.test")).records == (b"x" * 1500,)
        assert (await ask.mx("a.test")).records == ((10, "mx.test"),)
        assert (await ask.a("mx.test")).records == (IPv4Address("192.0.2.1"),)
        assert (await ask.aaaa("mx.test")).status is DnsStatus.NODATA
        assert (await ask.txt("nowhere.test")).status is DnsStatus.NXDOMAIN
        assert (await ask.txt("broken.test")).status is DnsStatus.TEMPERROR
