"""Mail of our own users, from the log-in to the receiver: real sockets, real TLS, real DNS, real store."""

from __future__ import annotations

import asyncio
import base64
import smtplib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import aiosmtplib
import pytest

from forwarder.auth.suffix import is_public_suffix
from forwarder.auth.verify import verify
from forwarder.cli.demo_lab import FORWARDER, Received
from forwarder.credentials import make_line
from forwarder.mail.address import parse_address, parse_from
from forwarder.mail.dsn import parse_report
from forwarder.mail.header import parse_message
from forwarder.model import Envelope, Peer, Recipient, Result, Verdict
from forwarder.resolver import DnsResolver
from tests.e2e.lab import Lab, lab, vanish
from tests.peers.postfix import needs_postfix, needs_root, postfix
from tests.peers.programs import needs, run
from tests.peers.smtp_sink import SmtpSink

PASSWORD = "correct-horse"
#: Three hashes, made once: each costs a quarter of a second.
LINES = "\n".join(make_line(login, PASSWORD) for login in ("alice", "robot", "slow")) + "\n"
MESSAGE = (
    b"From: Alice <alice@sender.test>\r\nTo: x@sink.test\r\nSubject: hello\r\n"
    b"Date: Mon, 23 Nov 2026 12:30:00 +0000\r\nMessage-ID: <sub1@sender.test>\r\n\r\nHello.\r\n"
)
KEYS = """\
[[keys.mailkey]]
domain = "sender.test"
key = "keys/sender.mailkey.pem"
[[keys.dkim]]
domain = "sender.test"
selector = "s1"
key = "keys/sender.rsa.pem"
"""
SUBMISSION = """\
[submission]
credentials = "keys/passwd"
recipients_per_hour = {per_hour}
hide_client = {hide_client}
networks = [{{ network = "127.0.0.77/32", owns = ["sender.test"] }}]
[submission.logins.alice]
owns = ["sender.test", "only.me@other.test"]
[submission.logins.robot]
owns = ["*.sender.test", "robot@sender.test"]
null_sender = true
"""


@asynccontextmanager
async def submission(
    folder: Path, *, per_hour: int = 1000, hide_client: bool = True, listener: str = ""
) -> AsyncIterator[tuple[Lab, int, int]]:
    """The lab with a STARTTLS and a TLS port for users: (lab, port, TLS port). The service stands for sender.test too."""
    (folder / "keys").mkdir()
    (folder / "keys" / "passwd").write_text(LINES)
    (folder / "keys" / "passwd").chmod(0o600)
    extra = (
        "[queue]\nfirst_retry = 0.05\nmax_retry = 0.1\n"
        + KEYS
        + SUBMISSION.format(per_hour=per_hour, hide_client=str(hide_client).lower())
    )
    zone = {
        "nomail.test": {"MX": ["0 ."]},
        "_dmarc.sender.test": {"TXT": ["v=DMARC1; p=reject"]},
        "sender.test": {"MX": ["10 mx.sender.test."], "TXT": ["v=spf1 ip4:127.0.0.25 -all"]},
    }
    listeners = (
        f'{{ address = "127.0.0.25:0", submission = true{listener} }}, '
        '{ address = "127.0.0.25:0", submission = true, tls = "implicit" }'
    )
    async with lab(folder, listeners=listeners, extra=extra, zone=zone) as it:
        ports = [int(one.rpartition(":")[2]) for one in it.app.addresses]
        yield it, ports[1], ports[2]


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def in_thread(
    port: int, talk: Callable[[smtplib.SMTP], str], *, login: str | None = "alice", source: str = ""
) -> str:
    """What ``talk`` returns, over STARTTLS and logged in."""

    def run() -> str:
        address = (source, 0) if source else None
        with smtplib.SMTP("127.0.0.25", port, timeout=20, source_address=address) as client:
            client.starttls(context=unverified())
            if login is not None:
                client.login(login, PASSWORD)
            client.ehlo()
            return talk(client)

    return await asyncio.to_thread(run)


def said(answer: tuple[int, bytes]) -> str:
    return f"{answer[0]} {answer[1].decode()}"


def sends(sender: str, recipients: list[str], message: bytes = MESSAGE) -> Callable[[smtplib.SMTP], str]:
    def talk(client: smtplib.SMTP) -> str:
        answer = client.docmd(f"MAIL FROM:<{sender}>")
        for one in recipients if answer[0] == 250 else []:
            answer = client.docmd(f"RCPT TO:<{one}>")
            if answer[0] != 250:
                return said(answer)
        return said(client.data(message)) if answer[0] == 250 else said(answer)

    return talk


async def test_a_user_may_require_tls_all_the_way(tmp_path: Path) -> None:
    """Nothing vouches for the certificate of sink.test: then the user hears so."""

    def talk(client: smtplib.SMTP) -> str:
        assert client.has_extn("requiretls")
        assert client.mail("alice@sender.test", ["REQUIRETLS"])[0] == 250
        assert client.rcpt("x@sink.test")[0] == 250
        return said(client.data(MESSAGE))

    async with submission(tmp_path) as (it, port, _):
        assert (await in_thread(port, talk)).startswith("550 5.7.10 the message requires TLS")
        assert it.sink.waiting.empty()


async def verdict_of(it: Lab, arrived: Received) -> Verdict:
    """What a receiver finds, from the DNS that everybody asks."""
    loop = asyncio.get_running_loop()
    resolver = DnsResolver([it.dns.address], trust_ad=False, timeout=2, monotonic=loop.time)
    is_public_suffix("example")
    message = parse_message(arrived.data)
    envelope = Envelope(
        "test",
        Peer(ip_address(FORWARDER), "mx.fwd.test"),
        parse_address(arrived.sender) if arrived.sender else None,
        tuple(Recipient(parse_address(one)) for one in arrived.recipients),
        it.app.clock.now(),
    )
    return await verify(
        resolver, envelope, message, parse_from(message), receiver="mx.sink.test", now=it.app.clock.now()
    )


async def test_a_submitted_message_passes_every_check_at_its_receiver_and_tells_nothing_of_the_client(
    tmp_path: Path,
) -> None:
    async with submission(tmp_path) as (it, port, _):
        answer = await in_thread(port, sends("alice@sender.test", ["x@sink.test", "y@sink.test"]))
        assert answer.startswith("250 2.0.0")
        arrived = await it.next(it.sink)
        assert arrived.sender == "alice@sender.test"
        assert arrived.data.endswith(MESSAGE)
        found = await verdict_of(it, arrived)
        assert (found.mailkey.result, found.mailkey.bound) == (Result.PASS, True)
        assert [one.result for one in found.dkim] == [Result.PASS]
        assert found.dmarc.result is Result.PASS
        ours = parse_message(arrived.data[: -len(MESSAGE)])
        assert [one.name for one in ours.fields] == [b"mailkey-signature", b"dkim-signature", b"received"]
        assert b"with ESMTPSA" in ours.fields[-1].raw
        assert b"127.0.0.1" not in ours.fields[-1].raw
        assert b"from" not in ours.fields[-1].raw


async def test_the_client_is_named_where_the_operator_wants_it(tmp_path: Path) -> None:
    async with submission(tmp_path, hide_client=False) as (it, port, _):
        await in_thread(port, sends("alice@sender.test", ["x@sink.test"]))
        assert b"([127.0.0.1])" in (await it.next(it.sink)).data


async def test_implicit_tls_and_a_library_of_our_users(tmp_path: Path) -> None:
    async with submission(tmp_path) as (it, _, tls):
        client = aiosmtplib.SMTP(hostname="127.0.0.25", port=tls, use_tls=True, tls_context=unverified())
        async with client:
            await client.login("alice", PASSWORD)
            await client.sendmail("alice@sender.test", ["x@sink.test"], MESSAGE)
        assert (await it.next(it.sink)).sender == "alice@sender.test"


@needs("swaks")
@pytest.mark.parametrize("way", ["starttls", "implicit"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_swaks_submits(tmp_path: Path, way: str, mechanism: str) -> None:
    async with submission(tmp_path) as (it, port, tls):
        where = ["--server", f"127.0.0.25:{tls if way == 'implicit' else port}", "--helo", "laptop.test"]
        where += ["--tls-on-connect" if way == "implicit" else "--tls", "--auth", mechanism]
        who = ["--auth-user", "alice", "--auth-password", PASSWORD]
        what = ["--from", "alice@sender.test", "--to", "x@sink.test", "--h-From", "alice@sender.test"]
        code, printed = await run("swaks", *where, *who, *what)
        assert code == 0, printed
        assert (await verdict_of(it, await it.next(it.sink))).dmarc.result is Result.PASS


@pytest.mark.parametrize(
    ("login", "command", "expected"),
    [
        ("alice", "MAIL FROM:<bob@sink.test>", "553 5.7.1"),
        ("alice", "MAIL FROM:<BOB@SINK.TEST>", "553 5.7.1"),
        ("alice", "MAIL FROM:<>", "553 5.7.1"),
        ("alice", 'MAIL FROM:<"alice@sender.test"@sink.test>', "553 5.7.1"),
        ("alice", 'MAIL FROM:<"x@sender.test> "@sink.test>', "553 5.7.1"),
        ("alice", "MAIL FROM:<@sender.test:bob@sink.test>", "553 5.7.1"),
        ("alice", "MAIL FROM:<@sink.test:bob@sender.test>", "250"),
        ("alice", "MAIL FROM:<bob%sink.test@sink.test>", "553 5.7.1"),
        ("alice", "MAIL FROM:<bob@sink.test> AUTH=alice@sender.test", "553 5.7.1"),
        ("alice", "MAIL FROM:<bob@sender.test> AUTH=<>", "250"),
        ("alice", "MAIL FROM:<bob@sender.test.>", "501"),
        ("alice", "MAIL FROM:<bob@sub.sender.test>", "553 5.7.1"),
        ("alice", "MAIL FROM:<bob@notsender.test>", "553 5.7.1"),
        ("alice", "MAIL FROM:<bob@test>", "553 5.7.1"),
        ("alice", "MAIL FROM:<bob@[127.0.0.25]>", "553 5.7.1"),
        ("alice", "MAIL FROM:<böb@sink.test> SMTPUTF8", "553 5.7.1"),
        ("alice", "MAIL FROM:<alice@\u0455ender.test> SMTPUTF8", "553 5.7.1"),
        ("alice", "MAIL FROM:<Alice@SENDER.test>", "250"),
        ("alice", "MAIL FROM:<only.me@other.test>", "250"),
        ("alice", 'MAIL FROM:<"only.me"@other.test>', "250"),
        ("alice", "MAIL FROM:<only.you@other.test>", "553 5.7.1"),
        ("alice", 'MAIL FROM:<"only.me@other.test"@other.test>', "553 5.7.1"),
        ("robot", "MAIL FROM:<>", "250"),
        ("robot", "MAIL FROM:<x@a.sender.test>", "250"),
        ("robot", "MAIL FROM:<x@sender.test>", "553 5.7.1"),
        ("robot", 'MAIL FROM:<"rob\\ot"@sender.test>', "250"),
        (None, "MAIL FROM:<alice@sender.test>", "530 5.7.0"),
    ],
)
async def test_a_client_uses_the_senders_it_owns_and_no_other(
    tmp_path: Path, login: str | None, command: str, expected: str
) -> None:
    def talk(client: smtplib.SMTP) -> str:
        client.command_encoding = "utf-8"
        return said(client.docmd(command))

    async with submission(tmp_path) as (_, port, _):
        assert (await in_thread(port, talk, login=login)).startswith(expected)


def with_field(line: bytes) -> bytes:
    """The message with this field in place of the one of that name, or on top."""
    name = line.partition(b":")[0] + b":"
    kept = [one for one in MESSAGE.split(b"\r\n") if not one.startswith(name)]
    return b"\r\n".join([line, *kept] if line[len(name) :] else kept)


@pytest.mark.parametrize(
    "message",
    [
        with_field(b"From: Bob <bob@sink.test>"),
        with_field(b"From: alice@sender.test, bob@sink.test"),
        with_field(b"From: <alice@sender.test.sink.test>"),
        with_field(b"From: nobody:;"),
        with_field(b"Sender: alice@sender.test\r\nFrom: bob@sink.test"),
        with_field(b"From: alice@sender.test\r\nFrom: bob@sink.test"),
    ],
    ids=["foreign", "one of two", "looks like", "empty group", "Sender", "two From"],
)
async def test_the_author_belongs_to_the_client_too(tmp_path: Path, message: bytes) -> None:
    if message.count(b"From:") > 1 or message.startswith(b"Sender"):
        message = message.replace(b"From: Alice <alice@sender.test>\r\n", b"")
    async with submission(tmp_path) as (it, port, _):
        answer = await in_thread(port, sends("alice@sender.test", ["x@sink.test"], message))
        assert answer.startswith("550 5.")
        assert it.sink.waiting.empty()


async def test_date_and_message_id_are_added_and_signed_and_nothing_else_is_changed(tmp_path: Path) -> None:
    sent = b"from: alice@sender.test\r\nBcc: secret@other.test\r\nSubject:  odd \r\n\tfold\r\n\r\nBody \r\n\r\n"
    async with submission(tmp_path) as (it, port, _):
        assert (await in_thread(port, sends("alice@sender.test", ["x@sink.test"], sent))).startswith("250")
        arrived = await it.next(it.sink)
        assert arrived.data.endswith(sent)
        added = parse_message(arrived.data[: -len(sent)]).fields
        assert [one.name for one in added][-2:] == [b"date", b"message-id"]
        assert b"@sender.test>" in added[-1].raw
        found = await verdict_of(it, arrived)
        assert [one.result for one in found.dkim] == [Result.PASS]
        signed = b"".join(added[1].raw.split()).partition(b"h=")[2].partition(b";")[0].lower().split(b":")
        assert {b"date", b"message-id", b"from"} <= set(signed)


async def test_mail_to_an_alias_of_ours_is_forwarded_like_anybodys(tmp_path: Path) -> None:
    async with submission(tmp_path) as (it, port, _):
        answer = await in_thread(port, sends("alice@sender.test", ["alias@fwd.test", "x@sink.test"]))
        assert answer.startswith("250"), answer
        arrived = [await it.next(it.sink), await it.next(it.sink)]
        direct, forwarded = sorted(arrived, key=lambda one: one.sender.startswith("SRS0="))
        assert direct.recipients == ("x@sink.test",)
        assert forwarded.recipients == ("hidden.destination@sink.test",)
        assert forwarded.sender.startswith("SRS0=")
        assert b"Delivered-To: <alias@fwd.test>" in forwarded.data
        assert b"[127.0.0.1]" not in forwarded.data
        results = b" ".join(parse_message(forwarded.data).all(b"authentication-results")[0].value.split())
        assert b"mailkey=pass" in results
        assert b"policy.rcpt=bound" in results
        assert b"dmarc=pass" in results
        assert (await verdict_of(it, forwarded)).dmarc.result is Result.PASS
        assert (await it.bounce(forwarded)).startswith("250")
        home = await it.next(it.sender)
        assert home.recipients == ("alice@sender.test",)


async def test_no_such_alias_and_a_return_address_are_refused_at_once(tmp_path: Path) -> None:
    async with submission(tmp_path) as (it, port, _):
        answer = await in_thread(port, sends("alice@sender.test", ["nobody@fwd.test"]))
        assert answer.startswith("550 5.1.1")
        await in_thread(port, sends("alice@sender.test", ["alias@fwd.test"]))
        back = (await it.next(it.sink)).sender
        for login, sender in (("alice", "alice@sender.test"), ("robot", "")):
            message = MESSAGE.replace(b"alice@", b"robot@")
            assert (await in_thread(port, sends(sender, [back], message), login=login)).startswith("550 5.")


async def test_an_alias_that_the_message_has_been_through_is_a_loop(tmp_path: Path) -> None:
    message = b"Delivered-To: <alias@fwd.test>\r\n" + MESSAGE
    async with submission(tmp_path) as (it, port, _):
        answer = await in_thread(port, sends("alice@sender.test", ["alias@fwd.test", "x@sink.test"], message))
        assert answer.startswith("554 5.4.6")
        assert it.sink.waiting.empty()


async def test_a_vacation_note_with_the_null_sender_leaves_where_the_login_may(tmp_path: Path) -> None:
    message = MESSAGE.replace(b"alice@sender.test", b"robot@sender.test")
    async with submission(tmp_path) as (it, port, _):
        assert (await in_thread(port, sends("", ["x@sink.test"], message), login="robot")).startswith("250")
        arrived = await it.next(it.sink)
        assert arrived.sender == ""
        assert (await verdict_of(it, arrived)).dmarc.result is Result.PASS


async def test_some_refuse_it_and_the_client_is_told_the_truth(tmp_path: Path) -> None:
    async with submission(tmp_path) as (it, port, _):
        # RFC 7505: nomail.test takes no mail.
        answer = await in_thread(port, sends("alice@sender.test", ["no@nomail.test"]))
        assert answer.startswith("55"), answer
        answer = await in_thread(port, sends("alice@sender.test", ["x@sink.test", "no@nomail.test"]))
        assert answer.startswith("250"), answer
        report = await it.next(it.sender)
        assert (report.sender, report.recipients) == ("", ("alice@sender.test",))
        assert b"Final-Recipient: rfc822; no@nomail.test" in report.data


async def test_a_retry_makes_no_second_copy(tmp_path: Path) -> None:
    message = MESSAGE.replace(b"Message-ID: <sub1@sender.test>\r\n", b"")
    async with submission(tmp_path) as (it, port, _):
        talk = sends("alice@sender.test", ["x@sink.test", "alias@fwd.test"], message)

        def loses_the_answer(client: smtplib.SMTP) -> str:
            answer = talk(client)
            vanish(client)
            return answer

        for _ in range(2):
            assert (await in_thread(port, loses_the_answer)).startswith("250")
        await it.next(it.sink)
        await it.next(it.sink)
        assert it.sink.waiting.empty()


async def test_a_login_writes_to_so_many_recipients_an_hour_and_no_more(tmp_path: Path) -> None:
    async with submission(tmp_path, per_hour=2) as (_, port, _):
        assert (await in_thread(port, sends("alice@sender.test", ["x@sink.test", "y@sink.test"]))).startswith("250")
        assert (await in_thread(port, sends("alice@sender.test", ["x@sink.test"]))).startswith("451 4.7.1")
        other = MESSAGE.replace(b"alice@", b"robot@")
        assert (await in_thread(port, sends("robot@sender.test", ["x@sink.test"], other), login="robot")).startswith(
            "250"
        )


async def test_a_trusted_network_needs_no_password_but_its_senders(tmp_path: Path) -> None:
    def in_clear(port: int, source: str, sender: str) -> str:
        with smtplib.SMTP("127.0.0.25", port, timeout=20, source_address=(source, 0)) as client:
            client.ehlo()
            return sends(sender, ["x@sink.test"])(client)

    async with submission(tmp_path) as (it, port, _):
        for source, sender, expected in (
            ("127.0.0.77", "alice@sender.test", "250"),
            ("127.0.0.77", "bob@sink.test", "553 5.7.1"),
            ("127.0.0.78", "alice@sender.test", "530 5.7.0"),
        ):
            assert (await asyncio.to_thread(in_clear, port, source, sender)).startswith(expected)
        arrived = await it.next(it.sink)
        assert b"with ESMTP id" in arrived.data


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


RIGHT = encoded(f"\0alice\0{PASSWORD}")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([f"AUTH PLAIN {RIGHT}"], "235 2.7.0"),
        (["AUTH PLAIN", RIGHT], "235 2.7.0"),
        ([f"auth plain {encoded(f'alice{chr(0)}alice{chr(0)}{PASSWORD}')}"], "235 2.7.0"),
        (["AUTH LOGIN", encoded("alice"), encoded(PASSWORD)], "235 2.7.0"),
        ([f"AUTH LOGIN {encoded('alice')}", encoded(PASSWORD)], "235 2.7.0"),
        ([f"AUTH PLAIN {encoded(f'robot{chr(0)}alice{chr(0)}{PASSWORD}')}"], "535 5.7.8"),
        ([f"AUTH PLAIN {encoded(f'{chr(0)}alice{chr(0)}wrong')}"], "535 5.7.8"),
        ([f"AUTH PLAIN {encoded(f'{chr(0)}nobody{chr(0)}{PASSWORD}')}"], "535 5.7.8"),
        ([f"AUTH PLAIN {encoded(f'{chr(0)}slow{chr(0)}{PASSWORD}')}"], "535 5.7.8"),
        (["AUTH PLAIN ="], "535 5.7.8"),
        (["AUTH PLAIN", ""], "535 5.7.8"),
        (["AUTH PLAIN", "*"], "501 5.7.0"),
        (["AUTH LOGIN", encoded("alice"), "*"], "501 5.7.0"),
        (["AUTH PLAIN !!!"], "501 5.5.2"),
        (["AUTH PLAIN", "A" * 9000], "500 5.5.6"),
        (["AUTH CRAM-MD5"], "504 5.5.4"),
        (["AUTH"], "504 5.5.4"),
        ([f"AUTH PLAIN {RIGHT}", f"AUTH PLAIN {RIGHT}"], "503 5.5.1"),
        ([f"AUTH PLAIN {RIGHT}", "MAIL FROM:<alice@sender.test>", f"AUTH PLAIN {RIGHT}"], "503 5.5.1"),
        ([f"AUTH PLAIN {RIGHT}", "MAIL FROM:<alice@sender.test>", "RSET", "MAIL FROM:<bob@sink.test>"], "553 5.7.1"),
        ([f"AUTH PLAIN {RIGHT}", "EHLO again.test", "MAIL FROM:<alice@sender.test>"], "250 2.1.0"),
    ],
)
async def test_the_exchange_is_that_of_the_rfc(tmp_path: Path, lines: list[str], expected: str) -> None:
    def talk(client: smtplib.SMTP) -> str:
        answers = [said(client.docmd(one)) for one in lines]
        return answers[-1]

    async with submission(tmp_path) as (_, port, _):
        assert (await in_thread(port, talk, login=None)).startswith(expected)


async def test_auth_is_offered_over_tls_only_and_never_on_port_25(tmp_path: Path) -> None:
    def run(port: int) -> tuple[bytes, str, bytes]:
        with smtplib.SMTP("127.0.0.25", port, timeout=20) as client:
            before = client.ehlo()[1]
            refused = said(client.docmd(f"AUTH PLAIN {RIGHT}"))
            client.starttls(context=unverified())
            return before, refused, client.ehlo()[1]

    async with submission(tmp_path) as (it, port, _):
        before, refused, after = await asyncio.to_thread(run, port)
        assert b"AUTH" not in before
        assert refused.startswith("538 5.7.11")
        assert b"AUTH PLAIN LOGIN" in after
        before, refused, after = await asyncio.to_thread(run, it.port)
        assert b"AUTH" not in before + after
        assert refused.startswith("503 5.5.1")


async def test_guessing_ends_the_session_and_is_told_without_what_was_typed(tmp_path: Path) -> None:
    def talk(client: smtplib.SMTP) -> str:
        guess = encoded("\0my secret\0hunter2")
        return " | ".join(said(client.docmd(f"AUTH PLAIN {guess}")) for _ in range(3))

    async with submission(tmp_path) as (it, port, _):
        answers = (await in_thread(port, talk, login=None)).split(" | ")
        assert [one[:3] for one in answers] == ["535", "535", "421"]
        assert "hunter2" not in str(it.journal.events)
        assert "my secret" not in str(it.journal.events)


async def test_port_25_relays_nothing_for_anybody(tmp_path: Path) -> None:
    async with submission(tmp_path) as (it, _, _):
        assert (await it.send(MESSAGE, "alice@sender.test", "x@sink.test")).startswith("550 5.7.1")
        assert (await it.send(MESSAGE, "alice@sender.test", "x@sink.test", source="127.0.0.77")).startswith("550 5.7.1")


async def test_what_cannot_go_now_is_held_and_goes_later_as_it_was_signed(tmp_path: Path) -> None:
    async with submission(tmp_path) as (it, port, _):
        it.sink.stop()
        answer = await in_thread(port, sends("alice@sender.test", ["x@sink.test"]))
        assert answer.startswith("250"), answer
        assert it.journal.named("queue.put")
        await it.sink.start()
        arrived = await it.next(it.sink)
        assert arrived.sender == "alice@sender.test"
        found = await verdict_of(it, arrived)
        assert (found.mailkey.result, found.mailkey.bound, found.dmarc.result) == (Result.PASS, True, Result.PASS)


async def test_another_client_by_xclient_is_not_the_one_who_logged_in(tmp_path: Path) -> None:
    def talk(client: smtplib.SMTP) -> str:
        assert client.docmd("XCLIENT ADDR=198.51.100.7")[0] == 220
        client.docmd("EHLO laptop.sender.test")
        return sends("alice@sender.test", ["x@sink.test"])(client)

    async with submission(tmp_path, listener=', xclient = ["127.0.0.0/8"]') as (it, port, _):
        assert (await in_thread(port, talk)).startswith("530 ")
        assert it.sink.waiting.empty()


@needs_postfix
@needs_root
async def test_postfix_hands_over_its_outgoing_mail(tmp_path: Path) -> None:
    def to_postfix(host: str, port: int) -> None:
        with smtplib.SMTP(host, port, timeout=20) as client:
            client.sendmail("alice@sender.test", ["x@sink.test"], MESSAGE)

    async with submission(tmp_path) as (it, port, _):
        settings = {
            "mynetworks": "127.0.0.0/8",
            "relayhost": f"[127.0.0.25]:{port}",
            "smtp_sasl_auth_enable": "yes",
            "smtp_sasl_security_options": "noanonymous",
            "smtp_sasl_password_maps": f"inline:{{ {{ [127.0.0.25]:{port} = alice:{PASSWORD} }} }}",
        }
        async with postfix("127.0.0.51", it.port, "laptop.sender.test", settings):
            await asyncio.to_thread(to_postfix, "127.0.0.51", it.port)
            arrived = await it.next(it.sink)
        assert arrived.sender == "alice@sender.test"
        found = await verdict_of(it, arrived)
        assert (found.mailkey.result, found.dmarc.result) == (Result.PASS, Result.PASS)


async def test_postmaster_of_ours_is_kept_as_ever(tmp_path: Path) -> None:
    async with submission(tmp_path) as (it, port, _):
        assert (await in_thread(port, sends("alice@sender.test", ["postmaster@fwd.test"]))).startswith("250")
        kept = b"".join(one.read_bytes() for one in (it.folder / "state" / "mail").rglob("*") if one.is_file())
        assert b"Hello." in kept
        assert b"[127.0.0.1]" not in kept


async def test_what_a_user_asks_of_reports_is_asked_of_the_next_hop_or_told_by_us(tmp_path: Path) -> None:
    def talk(client: smtplib.SMTP) -> str:
        client.mail("alice@sender.test", ["RET=FULL", "ENVID=A1"])
        for one in ("x@sink.test", "Alias@fwd.test", "y@dsn.test"):
            assert client.rcpt(one, ["NOTIFY=SUCCESS,FAILURE"])[0] == 250
        return said(client.data(MESSAGE))

    async with (
        submission(tmp_path) as (it, port, _),
        SmtpSink(extensions=(b"8BITMIME", b"DSN"), host="127.0.0.51", port=it.port) as other,
    ):
        it.dns.add("dsn.test. 300 IN MX 10 mx.dsn.test.\nmx.dsn.test. 300 IN A 127.0.0.51")
        assert (await in_thread(port, talk)).startswith("250")
        assert other.messages[0].mail.endswith(b" RET=FULL ENVID=A1")
        assert other.messages[0].rcpts == [b"TO:<y@dsn.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;y@dsn.test"]
        reports = [parse_report(parse_message((await it.next(it.sender)).data)) for _ in range(2)]
        found = {(one.recipients[0].final_recipient, one.recipients[0].original_recipient) for one in reports if one}
        assert found == {("x@sink.test", "x@sink.test"), ("alias@fwd.test", "Alias@fwd.test")}
        assert {one.recipients[0].action for one in reports if one} == {"relayed"}
        assert it.sender.waiting.empty()
