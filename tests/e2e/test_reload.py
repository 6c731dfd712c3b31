"""SIGHUP's work, in the running service: whoever connects gets the new configuration, whoever is connected keeps the old one,
no session is dropped, and what cannot be used changes nothing."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import smtplib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiosmtplib
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from forwarder.app import App, StartError
from forwarder.app.service import MAX_FADING
from forwarder.cli.demo_lab import FORWARDER, SENDER, Received, free_port
from forwarder.cli.main import main
from forwarder.config import ConfigError, load
from forwarder.credentials import make_line
from forwarder.edge.tls import make_self_signed
from forwarder.keys import KeyFile, dkim_record, generate_ed25519, load_key, mailkey_record
from tests.e2e.lab import MESSAGE, Lab, lab
from tests.e2e.test_keys import judge, publish, signers
from tests.peers.smtp_sink import Drip, SmtpSink
from tests.waiting import HASTY, until

SESSIONS = 6
MESSAGES = 300
RELOADS = 50


def edit(it: Lab, *changes: tuple[str, str]) -> None:
    """The configuration with each first text replaced by the second."""
    file = it.folder / "forwarder.toml"
    text = file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)


async def reload(it: Lab) -> bool:
    return await it.app.reload(lambda: load(it.folder / "forwarder.toml"))


@asynccontextmanager
async def session(it: Lab, port: int | None = None) -> AsyncIterator[smtplib.SMTP]:
    """A client that greets and stays."""

    def connect() -> smtplib.SMTP:
        client = smtplib.SMTP(FORWARDER, port or it.port, "mx.sender.test", 10, source_address=(SENDER, 0))
        client.ehlo()
        return client

    client = await asyncio.to_thread(connect)
    try:
        yield client
    finally:
        await asyncio.to_thread(client.quit)


@dataclass
class Raw:
    """A client that has been greeted."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@asynccontextmanager
async def raw(it: Lab) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection(FORWARDER, it.port, local_addr=(SENDER, 0))
    writer.write(b"EHLO mx.sender.test\r\n")
    while not (await reader.readline()).startswith(b"250 "):
        pass
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


def codes(client: smtplib.SMTP, *recipients: str) -> list[int]:
    """What each of them is answered."""
    client.rset()
    client.mail("bob@sender.test")
    return [client.rcpt(one)[0] for one in recipients]


def deliver(client: smtplib.SMTP, data: bytes, recipient: str = "alias@fwd.test") -> int:
    client.rset()
    client.mail("bob@sender.test")
    client.rcpt(recipient)
    return client.data(data)[0]


def certificate(client: smtplib.SMTP) -> bytes:
    """What STARTTLS shows."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client.starttls(context=context)
    assert client.sock is not None
    found = client.sock.getpeercert(True)  # type: ignore[union-attr]
    assert found
    return bytes(found)


async def test_who_connects_has_the_new_aliases_and_who_is_connected_keeps_the_old(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        async with session(it) as old:
            edit(it, ('both = ["one@sink.test", "two@sink.test"]', 'new = ["one@sink.test"]'))
            assert await reload(it)

            async with session(it) as new:
                assert await asyncio.to_thread(codes, old, "both@fwd.test", "new@fwd.test") == [250, 550]
                assert await asyncio.to_thread(codes, new, "both@fwd.test", "new@fwd.test") == [550, 250]
                assert await asyncio.to_thread(deliver, old, it.signed()) == 250
                assert b"Hello" in (await it.next(it.sink)).data
        assert it.journal.named("fault") == []


async def test_an_old_configuration_ends_with_its_last_session(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        async with session(it):
            for _ in range(3):
                assert await reload(it)
            await until(lambda: len(it.app._fading) == 1)
        await until(lambda: not it.app._fading)


async def test_of_many_old_configurations_the_oldest_ends_between_two_messages(tmp_path: Path) -> None:
    """Each holds a directory and keys in memory: their number is bounded."""
    async with lab(tmp_path) as it, AsyncExitStack() as clients:
        oldest = await clients.enter_async_context(raw(it))
        second = await clients.enter_async_context(raw(it))
        assert await reload(it)
        for _ in range(MAX_FADING - 1):
            await clients.enter_async_context(raw(it))
            assert await reload(it)
        second.writer.write(b"MAIL FROM:<bob@sender.test>\r\nRCPT TO:<alias@fwd.test>\r\nDATA\r\n")
        while not (await second.reader.readline()).startswith(b"354"):
            pass
        await clients.enter_async_context(raw(it))
        assert await reload(it)

        assert (await oldest.reader.readline()).startswith(b"421 4.3.2")
        second.writer.write(it.signed().replace(b"\r\n.", b"\r\n..") + b".\r\n")
        assert (await second.reader.readline()).startswith(b"250")
        assert (await second.reader.readline()).startswith(b"421 4.3.2")


async def test_the_message_that_is_on_its_way_is_answered(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        reader, writer = await asyncio.open_connection(FORWARDER, it.port, local_addr=(SENDER, 0))
        for line in (b"EHLO mx.sender.test", b"MAIL FROM:<bob@sender.test>", b"RCPT TO:<alias@fwd.test>", b"DATA"):
            writer.write(line + b"\r\n")
            while not (await reader.readuntil(b"\n")).startswith(b"354" if line == b"DATA" else b"250 "):
                pass
        message = it.signed()
        writer.write(message[:100])
        await writer.drain()
        edit(it, ('alias = ["hidden.destination@sink.test"]', "alias = false"))
        assert await reload(it)
        writer.write(message[100:].replace(b"\r\n.", b"\r\n..") + b".\r\n")

        assert (await reader.readline()).startswith(b"250")
        assert (await it.next(it.sink)).recipients == ("hidden.destination@sink.test",)
        writer.close()
        assert (await it.send(it.signed(MESSAGE.replace(b"<one@", b"<two@")))).startswith("550")


async def test_a_new_srs_secret_mints_and_the_old_one_verifies(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        assert (await it.send(it.signed())).startswith("250")
        before = await it.next(it.sink)
        secrets = tmp_path / "keys/srs.secret"
        secrets.write_text("a new secret of some length\n" + secrets.read_text())
        assert await reload(it)
        assert (await it.send(it.signed(MESSAGE.replace(b"<one@", b"<two@")))).startswith("250")
        after = await it.next(it.sink)

        assert before.sender != after.sender
        assert (await it.bounce(before)).startswith("250")
        assert (await it.next(it.sender)).recipients == ("bob@sender.test",)


def self_signed(folder: Path) -> bytes:
    """A pair ``cert.pem``, ``key.pem`` made anew; the certificate in DER."""
    for one in folder.glob("self-signed.*"):
        one.unlink()
    cert, key = make_self_signed(folder, "mx.fwd.test", datetime.now(UTC))
    cert.replace(folder / "cert.pem")
    key.replace(folder / "key.pem")
    return ssl.PEM_cert_to_DER_cert((folder / "cert.pem").read_text())


async def test_a_renewed_certificate_is_shown_to_who_connects(tmp_path: Path) -> None:
    first = self_signed(tmp_path)
    tls = '[tls]\ncert = "cert.pem"\nkey = "key.pem"\n'
    port = free_port(FORWARDER)
    listeners = f'{{ address = "{FORWARDER}:{port}", submission = true, tls = "implicit" }}'
    users = '[[submission.networks]]\nnetwork = "127.0.0.10/32"\nowns = ["sender.test"]\n'

    async def shown(it: Lab) -> set[bytes]:
        async with session(it) as client:
            return {
                await asyncio.to_thread(certificate, client),
                ssl.PEM_cert_to_DER_cert(await asyncio.to_thread(ssl.get_server_certificate, (FORWARDER, port))),
            }

    async with lab(tmp_path, listeners=listeners, extra=tls + users) as it:
        assert await shown(it) == {first}
        second = self_signed(tmp_path)
        async with session(it) as old:
            assert await reload(it)
            assert await shown(it) == {second}
            assert await asyncio.to_thread(certificate, old) == first


async def test_new_credentials_count_for_who_connects_and_what_was_spent_stays_spent(tmp_path: Path) -> None:
    port = free_port(FORWARDER)
    (tmp_path / "passwords").touch(mode=0o600)
    (tmp_path / "passwords").write_text(make_line("alice", "first"))
    extra = """
[submission]
credentials = "passwords"
recipients_per_hour = 1
[submission.logins.alice]
owns = ["fwd.test"]
"""

    async def sent(it: Lab, password: str, to: str = "one@sink.test") -> int:
        client = aiosmtplib.SMTP(hostname=FORWARDER, port=port, start_tls=True, validate_certs=False)
        async with client:
            await client.login("alice", password)
            message = MESSAGE.replace(b"bob@sender.test", b"alice@fwd.test").replace(b"<one@", f"<{password}@".encode())
            try:
                await client.sendmail("alice@fwd.test", [to], message)
            except aiosmtplib.SMTPDataError as error:
                return error.code
            return 250

    listeners = f'{{ address = "{FORWARDER}:{port}", submission = true }}'
    async with lab(tmp_path, listeners=listeners, extra=extra) as it:
        assert await sent(it, "first") == 250
        (tmp_path / "passwords").write_text(make_line("alice", "second"))
        assert await reload(it)
        with pytest.raises(aiosmtplib.SMTPAuthenticationError):
            await sent(it, "first")
        assert await sent(it, "second") == 451


async def test_listeners_come_and_go_and_nobody_on_them_is_dropped(tmp_path: Path) -> None:
    first, second = free_port(FORWARDER), free_port(FORWARDER)
    async with lab(tmp_path, listeners=f'"{FORWARDER}:{first}"') as it, session(it, first) as old:
        edit(it, (f'"{FORWARDER}:{first}"', f'"{FORWARDER}:{second}"'))
        assert await reload(it)

        assert it.app.addresses == (f"{FORWARDER}:{it.port}", f"{FORWARDER}:{second}")
        with pytest.raises(ConnectionRefusedError):
            async with session(it, first):
                pass
        async with session(it, second) as new:
            assert await asyncio.to_thread(deliver, new, it.signed()) == 250
        assert await asyncio.to_thread(deliver, old, it.signed(MESSAGE.replace(b"<one@", b"<2@"))) == 250


async def test_a_listener_changes_what_it_is(tmp_path: Path) -> None:
    """The same address, now for submission: the socket stays."""
    port = free_port(FORWARDER)
    users = '[[submission.networks]]\nnetwork = "127.0.0.10/32"\nowns = ["sender.test"]\n'
    async with lab(tmp_path, listeners=f'"{FORWARDER}:{port}"', extra=users) as it:
        async with session(it, port) as client:
            assert await asyncio.to_thread(codes, client, "stranger@sink.test") == [550]
        edit(it, (f'"{FORWARDER}:{port}"', f'{{ address = "{FORWARDER}:{port}", submission = true }}'))
        assert await reload(it)
        async with session(it, port) as client:
            assert await asyncio.to_thread(codes, client, "stranger@sink.test") == [250]


async def fetched(port: int, path: str) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: mailkey.fwd.test\r\nConnection: close\r\n\r\n".encode())
    found = await reader.read()
    writer.close()
    return found.decode()


async def test_the_key_host_serves_the_new_keys_with_the_new_certificate(tmp_path: Path) -> None:
    first = self_signed(tmp_path)
    port = free_port("127.0.0.1")
    web = f'[web]\nlisten = ["127.0.0.1:{port}"]\n[web.tls]\ncert = "cert.pem"\nkey = "key.pem"\n'

    def shown() -> bytes:
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port)))

    async with lab(tmp_path, extra=web) as it:
        assert await asyncio.to_thread(shown) == first
        second = self_signed(tmp_path)
        assert await reload(it)
        assert await asyncio.to_thread(shown) == second
        generate_ed25519(tmp_path / "keys/k2.pem")
        added = '[[keys.mailkey]]\ndomain = "fwd.test"\nselector = "k2"\nkey = "keys/k2.pem"\n[[keys.dkim]]'
        edit(
            it,
            ('[[keys.dkim]]\ndomain = "fwd.test"\nselector = "rsa"', added + '\ndomain = "fwd.test"\nselector = "rsa"'),
        )
        assert await reload(it)
        want = mailkey_record(load_key(KeyFile("fwd.test", "k2", tmp_path / "keys/k2.pem")))
        assert want in await fetched(port, "/.well-known/mailkey/k2")
        edit(it, (web, ""))
        assert await reload(it)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.to_thread(shown)


async def test_what_needs_a_restart_is_kept_and_named(tmp_path: Path) -> None:
    async with lab(tmp_path, top='[log]\nformat = "json"\n') as it:
        edit(it, ('state_dir = "state"', 'state_dir = "elsewhere"'), ('format = "json"', 'format = "pretty"'))
        assert await reload(it)

        assert it.journal.named("service.reloaded")[-1]["restart_needed"] == ["state_dir", "log"]
        assert (await it.send(it.signed())).startswith("250")
        assert not (tmp_path / "elsewhere").exists()


async def test_a_key_that_was_put_away_stays_so_while_the_dns_is_silent(tmp_path: Path) -> None:
    async with lab(tmp_path, zone={"mailkey.fwd.test": {}}) as it:
        assert [one["record"] for one in it.journal.named("key.suspended")] == ["mailkey.fwd.test"]
        (tmp_path / "keys/srs.secret").write_text("a new secret of some length\n")
        it.dns.gate.clear()
        assert await reload(it)
        it.dns.gate.set()
        assert (await it.send(it.signed())).startswith("250")

        assert signers(await it.next(it.sink))["mailkey-signature", ""] == 0


async def test_keys_are_staged_after_a_reload_as_before(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        config = str(tmp_path / "forwarder.toml")
        for selector in ("k2", "k3"):
            words = ("mailkey", "rotate", "--config", config, "--selector", selector)
            assert await asyncio.to_thread(main, words) == 0
            (tmp_path / "keys/srs.secret").write_text(f"another secret, with {selector} in it\n")
            assert await reload(it)
            file = next((tmp_path / "keys").glob(f"*+{selector}"))
            publish(it, f"{selector}.mailkey.fwd.test", mailkey_record(load_key(KeyFile("fwd.test", selector, file))))
            assert it.app.key_watch is not None
            await it.app.key_watch.check()
            assert (await it.send(it.signed(MESSAGE.replace(b"<one@", f"<{selector}@".encode())))).startswith("250")
            arrived = await it.next(it.sink)
            assert signers(arrived)["mailkey-signature", selector] == 1
            assert await judge(it, arrived) == "pass"


async def test_a_queued_attempt_is_not_broken_off_by_reloads(tmp_path: Path) -> None:
    """A destination that greets slowly would never get its mail if every reload began anew."""
    zone = {"other.test": {"MX": ["10 mx.other.test."]}, "mx.other.test": {"A": ["127.0.0.51"]}}
    slow = Drip(b"220 mx.other.test\r\n", 0.05)
    async with (
        lab(tmp_path, zone=zone, relay="in_session = 0", aliases='slow = ["one@other.test"]') as it,
        SmtpSink({"CONNECT": slow}, host="127.0.0.51", port=it.port) as sink,
    ):
        message = it.signed(recipients=("slow@fwd.test",))
        assert (await it.send(message, recipient="slow@fwd.test")).startswith("250")
        await sink.until_open(1)
        for _ in range(3):
            assert await reload(it)
        await until(lambda: sink.messages)
        await until(lambda: not it.app._fading)

        assert len(sink.messages) == 1
        assert sink.connections == 1


async def test_what_was_delivered_without_the_store_is_remembered_over_a_reload(tmp_path: Path) -> None:
    async with lab(tmp_path, store_timeout=HASTY) as it:
        assert (await it.send(it.signed())).startswith("250")
        await it.next(it.sink)
        again = it.signed(MESSAGE.replace(b"<one@", b"<two@"))
        pid = it.app.store_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            assert (await it.send(again)).startswith("250")
            await it.next(it.sink)
            assert await reload(it)
            assert (await it.send(again)).startswith("250")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert it.sink.waiting.empty()


@pytest.mark.timeout(180)
async def test_fifty_reloads_with_new_keys_under_load_drop_no_session_and_fail_no_signature(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        numbers = itertools.count()
        arrived: list[Received] = []
        answers: list[str] = []
        reloads: list[float] = []

        async def send_on(stays: bool) -> None:
            """On one connection to the end, or each message on its own."""
            client: aiosmtplib.SMTP | None = None
            while len(reloads) < RELOADS or len(answers) < MESSAGES:
                if client is None:
                    client = aiosmtplib.SMTP(
                        hostname=FORWARDER,
                        port=it.port,
                        local_hostname="mx.sender.test",
                        source_address=(SENDER, 0),
                        start_tls=False,
                    )
                    await client.connect()
                raw = it.signed(MESSAGE.replace(b"<one@", b"<n%d@" % next(numbers)))
                _, text = await client.sendmail("bob@sender.test", ["alias@fwd.test"], raw)
                answers.append(text)
                if not stays:
                    await client.quit()
                    client = None
            if client is not None:
                await client.quit()

        async def judge_on() -> None:
            while True:
                one = await it.next(it.sink)
                assert await judge(it, one) == "pass"
                arrived.append(one)

        senders = [asyncio.create_task(send_on(stays=number % 2 == 0)) for number in range(SESSIONS)]
        judging = asyncio.create_task(judge_on())
        current = ("", "ed", "keys/fwd.mailkey.pem", "keys/fwd.ed25519.pem")
        for number in range(RELOADS):
            wanted = (f"k{number}", f"d{number}", f"keys/k{number}.pem", f"keys/d{number}.pem")
            for file in wanted[2:]:
                generate_ed25519(tmp_path / file)
            mailkey, dkim = (load_key(KeyFile("fwd.test", wanted[n], tmp_path / wanted[n + 2])) for n in range(2))
            publish(it, f"{wanted[0]}.mailkey.fwd.test", mailkey_record(mailkey))
            publish(it, f"{wanted[1]}._domainkey.fwd.test", dkim_record(dkim))
            old = f'key = "{current[2]}"' if not current[0] else f'selector = "{current[0]}"\nkey = "{current[2]}"'
            edit(
                it,
                (old, f'selector = "{wanted[0]}"\nkey = "{wanted[2]}"'),
                (f'selector = "{current[1]}"\nkey = "{current[3]}"', f'selector = "{wanted[1]}"\nkey = "{wanted[3]}"'),
            )
            began, sent = time.monotonic(), len(answers)
            assert await reload(it), it.journal.named("service.reload_refused")
            reloads.append(time.monotonic() - began)
            current = wanted
            await until(lambda: len(answers) > sent + 2, 30)  # noqa: B023 - waited for at once
        await asyncio.gather(*senders)
        await until(lambda: judging.done() or len(arrived) == len(answers), 60)
        judging.cancel()
        print(
            f"{len(answers)} messages, {len(reloads)} reloads of {sum(reloads) / len(reloads):.3f} s in the mean, "
            f"{max(reloads):.3f} s at most: no session dropped, {len(arrived)} judged, no signature failed"
        )
        assert len(arrived) == len(answers) >= MESSAGES
        used = {name for one in arrived for field, name in signers(one) if field == "mailkey-signature"}
        assert len(used) > RELOADS / 2
        assert it.journal.named("fault") == it.journal.named("key.suspended") == []
        await until(lambda: not it.app._fading)


# --- what cannot be used -------------------------------------------------------------------------------------------------


def with_line(text: str) -> Callable[[Lab], None]:
    """One more line at the top."""
    return lambda it: edit(it, ("[srs]\n", f"{text}\n[srs]\n"))


def replaced(old: str, new: str) -> Callable[[Lab], None]:
    return lambda it: edit(it, (old, new))


def written(name: str, content: bytes, mode: int = 0o600) -> Callable[[Lab], None]:
    """This file of the configuration has other content."""

    def write(it: Lab) -> None:
        path = it.folder / name
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(mode)

    return write


def removed(name: str) -> Callable[[Lab], None]:
    return lambda it: (it.folder / name).unlink()


def both(*steps: Callable[[Lab], None]) -> Callable[[Lab], None]:
    def do(it: Lab) -> None:
        for step in steps:
            step(it)

    return do


def table(text: str) -> Callable[[Lab], None]:
    """One more table at the end."""

    def write(it: Lab) -> None:
        file = it.folder / "forwarder.toml"
        file.write_text(file.read_text() + text)

    return write


def certified(it: Lab) -> None:
    """A certificate with its key."""
    self_signed(it.folder)


def swapped(it: Lab) -> None:
    """A certificate with the key of another one."""
    self_signed(it.folder)
    (it.folder / "other.pem").write_bytes((it.folder / "cert.pem").read_bytes())
    self_signed(it.folder)


def taken(it: Lab) -> None:
    """An address on which somebody else listens: the destination."""
    edit(it, ('listen = ["', f'listen = ["127.0.0.50:{it.port}", "'))


TLS = '[tls]\ncert = "{}"\nkey = "{}"\n'
ENCRYPTED = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
)
SMARTHOST = """\
smarthost = "a.test:587"
smarthost_tls = "verify"
smarthost_user = "u"
smarthost_password_file = "no.password"
"""
#: What is done to a good configuration, and what the one line says.
BROKEN = {
    "no-file": (removed("forwarder.toml"), "cannot be read"),
    "empty": (written("forwarder.toml", b""), "srs: is missing"),
    "not-toml": (written("forwarder.toml", b"hostname = \n"), "is not TOML"),
    "not-utf-8": (written("forwarder.toml", b"hostname = '\xff'\n"), "is not UTF-8"),
    "binary": (written("forwarder.toml", bytes(range(128)) * 4), "is not TOML"),
    "nested": (written("forwarder.toml", b"a = " + b"[" * 20000), "is not TOML"),
    "unknown-setting": (with_line("[relais]\nport = 25"), "relais: there is no such setting"),
    "typo": (replaced("allow_private", "alow_private"), "did you mean 'allow_private'?"),
    "bad-hostname": (replaced('"mx.fwd.test"', '"not a host"'), "hostname:"),
    "no-hostname": (replaced('hostname = "mx.fwd.test"\n', ""), "hostname: is missing"),
    "bad-listen": (replaced('listen = ["127.0.0.25:', 'listen = ["localhost:'), "listen[0]"),
    "no-listener": (replaced('listen = ["', 'listen = [] # ["'), "listen: must name at least 1"),
    "listen-taken": (taken, "cannot listen on 127.0.0.50:"),
    "listen-not-ours": (replaced('listen = ["', 'listen = ["192.0.2.1:2525", "'), "cannot listen on 192.0.2.1:2525"),
    "port-as-text": (replaced("[relay]\nport = ", "[relay]\nport = 'x' # "), "relay.port:"),
    "negative": (with_line("[queue]\nlease = -1"), "queue.lease: must be 1 or more, got -1"),
    "contradiction": (with_line("[queue]\nfirst_retry = 100\nmax_retry = 10"), "max_retry must not be less"),
    "bad-alias": (replaced("hidden.destination@sink.test", "hidden.destination"), "aliases.alias"),
    "alias-circle": (replaced('["hidden.destination@sink.test"]', '["alias@fwd.test"]'), "leads only in a circle"),
    "alias-nowhere": (replaced("hidden.destination@sink.test", "nobody@fwd.test"), "an address of ours"),
    "no-secret-file": (removed("keys/srs.secret"), "srs.secret_file: there is no file"),
    "short-secret": (written("keys/srs.secret", b"short\n"), "secret 1 is shorter than 16 octets"),
    "no-secret": (written("keys/srs.secret", b"# nothing\n"), "no secret in it"),
    "open-secret": (written("keys/srs.secret", b"a secret that all can read\n", 0o644), "chmod 600"),
    "no-key": (removed("keys/fwd.mailkey.pem"), "keys.mailkey[0].key: there is no file"),
    "key-is-garbage": (written("keys/fwd.rsa.pem", b"garbage"), "no private key in PKCS#8"),
    "key-is-empty": (written("keys/fwd.mailkey.pem", b""), "no private key in PKCS#8"),
    "key-is-encrypted": (written("keys/fwd.rsa.pem", ENCRYPTED), "the key is encrypted"),
    "key-for-all": (lambda it: (it.folder / "keys/fwd.rsa.pem").chmod(0o640), "others can use it (mode 0640)"),
    "two-keys-of-a-name": (replaced('selector = "ed"', 'selector = "rsa"'), "has a key already"),
    "certificate-alone": (with_line('[tls]\ncert = "keys/srs.secret"'), "cert and key belong together"),
    "certificate-missing": (with_line(TLS.format("keys/srs.secret", "no.key")), "tls.key: there is no file"),
    "certificate-is-garbage": (with_line(TLS.format("keys/srs.secret", "keys/srs.secret")), "tls: cannot use"),
    "certificate-of-another-key": (both(swapped, with_line(TLS.format("other.pem", "key.pem"))), "tls: cannot use"),
    "certificate-key-encrypted": (
        both(
            lambda it: self_signed(it.folder),
            written("locked.key", ENCRYPTED),
            with_line(TLS.format("cert.pem", "locked.key")),
        ),
        "tls: cannot use",
    ),
    "web-certificate-of-another-key": (
        both(swapped, table('[web]\nlisten = ["127.0.0.1:0"]\n[web.tls]\ncert = "other.pem"\nkey = "key.pem"\n')),
        "web.tls: cannot use",
    ),
    "roots-are-garbage": (
        both(written("roots.pem", b"garbage"), with_line('[relay.tls]\nca_file = "roots.pem"')),
        "relay.tls.ca_file: cannot use",
    ),
    "no-smarthost-password": (
        replaced("[relay]\n", f"[relay]\n{SMARTHOST}"),
        "relay.smarthost_password_file: there is no file",
    ),
    "web-in-the-clear": (table('[web]\nlisten = ["192.0.2.1:80"]\n'), "needs web.tls.cert"),
    "no-credentials": (table('[submission.logins.a]\nowns = ["fwd.test"]\n'), "submission.credentials"),
    "bad-credentials": (
        both(
            written("passwords", b"alice:plain\n"),
            table('[submission]\ncredentials = "passwords"\n[submission.logins.alice]\nowns = ["fwd.test"]\n'),
        ),
        "passwords:",
    ),
    "note-of-no-ascii": (
        both(written("note.txt", "für alle".encode()), with_line('[mailkey]\nnote_file = "note.txt"')),
        "mailkey.note_file:",
    ),
    "zone-file-is-garbage": (
        both(written("bad.json", b"{"), replaced("nameservers = [", 'zone_file = "bad.json"\nnameservers = [')),
        "dns.zone_file:",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_cannot_be_used_changes_nothing_and_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    damage, says = BROKEN[name]
    async with lab(tmp_path) as it:
        addresses = it.app.addresses
        async with session(it) as client:
            sent = [it.signed(MESSAGE.replace(b"<one@", b"<%d@" % number)) for number in range(2)]
            damage(it)
            assert not await reload(it)

            told = [one["reason"] for one in it.journal.named("service.reload_refused")]
            assert len(told) == 1
            assert says in told[0], told[0]
            assert "\n" not in told[0]
            assert it.journal.named("fault") == []
            assert it.app.addresses == addresses
            assert await asyncio.to_thread(deliver, client, sent[0]) == 250
        assert (await it.send(sent[1])).startswith("250")
        arrived = [await it.next(it.sink) for _ in range(2)]
        assert [await judge(it, one) for one in arrived] == ["pass", "pass"]
        # check-config finds what a reload would, but for what only the system knows.
        checked = await asyncio.to_thread(main, ("check-config", str(it.folder / "forwarder.toml")))
        assert checked == (0 if name in ("listen-taken", "listen-not-ours") else 1)
        await it.app.stop(1)
        with pytest.raises((ConfigError, StartError)) as refused:
            await App(load(it.folder / "forwarder.toml"), it.journal).start()
        assert says in str(refused.value)
        # A line for each mistake, and all but one case make one.
        assert len(str(refused.value).splitlines()) == len(getattr(refused.value, "mistakes", "1"))
