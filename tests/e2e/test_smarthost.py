"""Everything leaves by a smarthost that wants a login: from the configuration to the message, and back to nobody."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trustme

from tests.e2e.lab import Lab, lab
from tests.peers.smtp_sink import Script, SmtpSink
from tests.waiting import until

PASSWORD = "c0rrect-horse"
SOON = "[queue]\nfirst_retry = 0.05\nmax_retry = 0.1\n"
RELAY = """\
smarthost = "localhost:{port}"
smarthost_tls = "verify"
tls.ca_file = "roots.pem"
smarthost_user = "us"
smarthost_password_file = "password"
"""


@asynccontextmanager
async def by_smarthost(folder: Path, script: Script) -> AsyncIterator[tuple[Lab, SmtpSink]]:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(folder / "roots.pem"))
    password = folder / "password"
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o600)
    async with (
        SmtpSink(script, [b"PIPELINING", b"8BITMIME", b"AUTH PLAIN"], context) as sink,
        lab(folder, relay=RELAY.format(port=sink.port), extra=SOON) as it,
    ):
        yield it, sink


async def test_mail_leaves_by_the_smarthost_that_knows_us(tmp_path: Path) -> None:
    async with by_smarthost(tmp_path, {}) as (it, sink):
        assert (await it.send(it.signed())).startswith("250 2.0.0")
    assert sink.verbs()[:5] == ["EHLO", "STARTTLS", "EHLO", "AUTH", "MAIL"]
    assert [one.rcpts for one in sink.messages] == [[b"TO:<hidden.destination@sink.test>"]]


async def test_while_the_password_is_wrong_mail_waits_and_nobody_is_told(tmp_path: Path) -> None:
    refused = f"535 5.7.8 wrong: {PASSWORD}\r\n".encode()
    async with by_smarthost(tmp_path, {"AUTH": refused}) as (it, sink):
        assert (await it.send(it.signed())).startswith("250 2.0.0")
        await until(lambda: len(it.journal.named("queue.outcome")) == 2)
        (failed,) = it.journal.named("relay.login")
        assert failed["error"] == "the login was refused: 535 5.7.8"
        assert [one["outcome"] for one in it.journal.named("queue.outcome")] == ["deferred"] * 2
        assert [one["reports"] for one in it.journal.named("queue.outcome")] == [0, 0]
        assert PASSWORD not in repr(it.journal.events)
    assert sink.verbs().count("AUTH") == 1, "a wrong login is not tried over and over"
    assert it.sender.waiting.empty()
