"""What does the demo tell, and does it hold? The story step by step, each claim checked as it is made."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from forwarder.app import App, SystemClock
from forwarder.auth import canonical
from forwarder.auth.dkim import build_dkim_signature
from forwarder.auth.mailkey import build_mailkey_signature
from forwarder.auth.signed import sign_now
from forwarder.auth.verify import verify
from forwarder.cli import demo_lab as lab
from forwarder.config import load
from forwarder.keys import KeyFile, Keys, dkim_record, mailkey_record
from forwarder.mail.address import parse_address, parse_from
from forwarder.mail.header import parse_message
from forwarder.model import Address, Envelope, Peer, Recipient, Result
from forwarder.resolver import DnsResolver
from forwarder.telemetry import EventLog

__all__ = ["main"]

#: Seconds to wait for a message that should arrive at once.
SECONDS = 20.0


@dataclass
class Checks:
    """What the story claimed, and whether it held."""

    failed: int = 0

    def claim(self, text: str, holds: bool) -> None:
        print(f"    {'ok  ' if holds else 'FAIL'} {text}")
        self.failed += not holds


async def main(folder: Path, *, once: bool, log: bool) -> int:

    print("mailkey-forwarder demo: everything on loopback, nothing leaves this machine\n")
    lab.make_keys(folder / "keys")
    at = folder / "keys"
    ours = Keys.load(
        mailkey=[KeyFile("fwd.test", "", at / "fwd.mailkey.pem")],
        dkim=[KeyFile("fwd.test", "rsa", at / "fwd.rsa.pem"), KeyFile("fwd.test", "ed", at / "fwd.ed25519.pem")],
        arc=KeyFile("fwd.test", "rsa", at / "fwd.rsa.pem"),
        srs_secret_file=at / "srs.secret",
    )
    theirs = Keys.load(
        mailkey=[KeyFile("sender.test", "", at / "sender.mailkey.pem")],
        dkim=[KeyFile("sender.test", "s1", at / "sender.rsa.pem")],
        arc=None,
        srs_secret_file=at / "srs.secret",
    )
    records = {}
    for keys, domain in ((ours, "fwd.test"), (theirs, "sender.test")):
        mailkey = keys.mailkey(domain)
        assert mailkey is not None
        records[f"mailkey.{domain}"] = mailkey_record(mailkey)
        for one in keys.dkim(domain):
            records[f"{one.selector}._domainkey.{domain}"] = dkim_record(one)
    server = lab.DnsServer(lab.zone(records))
    await server.start()
    port = lab.free_port(lab.FORWARDER, lab.SENDER, lab.SINK)
    sink = lab.Receiver(lab.SINK, port, "mx.sink.test")
    sender = lab.Receiver(lab.SENDER, port, "mx.sender.test")
    await sink.start()
    await sender.start()
    config = folder / "forwarder.toml"
    config.write_text(_CONFIG.format(port=port, dns=server.address))
    journal = EventLog(sys.stderr if log else io.StringIO(), SystemClock(), pretty=True)
    app = App(load(config), journal)
    await app.start()
    try:
        story = _Story(port=port, dns=server.address, keys=theirs, sink=sink, sender=sender)
        async with asyncio.timeout(60):
            await story.tell()
        if once:
            print(f"\n{'The story holds.' if not story.checks.failed else 'THE STORY DOES NOT HOLD.'}")
            return 1 if story.checks.failed else 0
        _invite(config, port)
        await _show_what_arrives(sink, sender)
        return 0
    finally:
        await app.stop(5)
        sink.stop()
        sender.stop()
        server.stop()


_CONFIG = """\
hostname = "mx.fwd.test"
listen = ["127.0.0.25:{port}"]
state_dir = "state"
store = "embedded"

[srs]
domain = "fwd.test"
secret_file = "keys/srs.secret"

[dns]
nameservers = ["{dns}"]

[[keys.mailkey]]
domain = "fwd.test"
key = "keys/fwd.mailkey.pem"

[[keys.dkim]]
domain = "fwd.test"
selector = "rsa"
key = "keys/fwd.rsa.pem"

[[keys.dkim]]
domain = "fwd.test"
selector = "ed"
key = "keys/fwd.ed25519.pem"

[keys.arc]
domain = "fwd.test"
selector = "rsa"
key = "keys/fwd.rsa.pem"

[relay]
port = {port}
allow_private = true
source = ["127.0.0.25"]

[domains."fwd.test".aliases]
alias = ["hidden.destination@sink.test"]
"""

_MESSAGE = b"""\
From: Bob <bob@sender.test>\r
To: alias@fwd.test\r
Subject: a real message\r
Date: Mon, 23 Nov 2026 12:30:00 +0000\r
Message-ID: <story-1@sender.test>\r
\r
Dear alias,\r
\r
  two  spaces, a trailing one \r
.and a line that begins with a dot.\r
\r
Bob\r
"""


class _Story:
    def __init__(self, *, port: int, dns: str, keys: Keys, sink: lab.Receiver, sender: lab.Receiver) -> None:

        self.checks = Checks()
        self._target = ("127.0.0.25", port)
        self._keys = keys
        self._sink = sink
        self._sender = sender
        self._resolver = DnsResolver([dns], monotonic=asyncio.get_running_loop().time)

    async def tell(self) -> None:
        signed = self._signed()
        print("1. bob@sender.test sends a message to alias@fwd.test, signed with his domain's mailkey and DKIM key")
        print("   (the alias leads to an address at sink.test that Bob does not know)")
        answer = await self._send("127.0.0.10", "mx.sender.test", "bob@sender.test", "alias@fwd.test", signed)
        print(f"   the service answered: {answer}")
        self.checks.claim("250, said after the destination had the message", answer.startswith("250"))
        arrived = await self._next(self._sink)
        if arrived is None:
            return
        await self._show_arrival(arrived, signed)
        await self._bounce(arrived)

    def _signed(self) -> bytes:

        message, now = parse_message(_MESSAGE), SystemClock().now()
        body_hash = canonical.body_hash(message, "relaxed")
        dkim = sign_now(build_dkim_signature(message.fields, body_hash, self._keys.dkim("sender.test")[0], now=now))
        key = self._keys.mailkey("sender.test")
        assert key is not None
        mailkey = sign_now(
            build_mailkey_signature(
                message.fields,
                body_hash,
                key,
                sender=Address("bob", "sender.test"),
                recipients=[Address("alias", "fwd.test")],
                now=now,
            )
        )
        return mailkey + dkim + _MESSAGE

    async def _show_arrival(self, arrived: lab.Received, signed: bytes) -> None:

        added = arrived.data[: len(arrived.data) - len(signed)]
        print("\n2. what arrived at the destination")
        print(f"   MAIL FROM:<{arrived.sender}>  (was bob@sender.test)")
        for one in parse_message(added).fields:
            print(f"   + {_shown(one.raw)}")
        self.checks.claim("the envelope sender is the forwarder's and reversible", arrived.sender.startswith("SRS0="))
        self.checks.claim("all that Bob wrote is byte for byte unchanged", arrived.data.endswith(signed))
        message = parse_message(arrived.data)
        now = SystemClock().now()
        envelope = Envelope(
            id="demo",
            peer=Peer(ip_address(arrived.ip), arrived.helo),
            sender=parse_address(arrived.sender),
            recipients=tuple(Recipient(parse_address(one)) for one in arrived.recipients),
            received_at=now,
        )
        print("\n3. what the destination finds when it checks")
        verdict = await verify(self._resolver, envelope, message, parse_from(message), receiver="mx.sink.test", now=now)
        passed = Result.PASS
        self.checks.claim("spf=pass for fwd.test (a plain forward would have failed)", verdict.spf.result is passed)
        self.checks.claim("mailkey=pass for fwd.test, bound to this recipient", verdict.mailkey.result is passed)
        signers = [one.domain for one in verdict.dkim if one.result is passed]
        self.checks.claim("dkim=pass for fwd.test with both keys", signers.count("fwd.test") == 2)
        self.checks.claim("dkim=pass for sender.test still", "sender.test" in signers)
        self.checks.claim(
            "arc=pass, one set, sealed by fwd.test", verdict.arc.result is passed and verdict.arc.sets == 1
        )
        self.checks.claim("dmarc=pass for sender.test", verdict.dmarc.result is passed)

    async def _bounce(self, arrived: lab.Received) -> None:
        print("\n4. later the destination bounces it, to the only sender it knows")
        report = _bounce_of(arrived)
        answer = await self._send("127.0.0.50", "mx.sink.test", "", arrived.sender, report)
        print(f"   the service answered: {answer}")
        self.checks.claim("250: matched to a message that we forwarded", answer.startswith("250"))
        home = await self._next(self._sender)
        if home is None:
            return
        print("\n5. what arrived at Bob's server")
        print(f"   MAIL FROM:<{home.sender}> RCPT TO:<{home.recipients[0]}>")
        for line in home.data.decode("ascii", "replace").splitlines():
            print(f"   | {line}")
        self.checks.claim(
            "the report came to bob@sender.test, with the null sender",
            home.recipients == ("bob@sender.test",) and not home.sender,
        )
        self.checks.claim("it speaks of alias@fwd.test", b"alias@fwd.test" in home.data)
        hidden = (b"hidden.destination", b"sink.test", b"127.0.0.50")
        self.checks.claim(
            "the destination's name is nowhere in it", not any(one in home.data.lower() for one in hidden)
        )

    async def _send(self, source: str, helo: str, sender: str, recipient: str, data: bytes) -> str:

        return await asyncio.to_thread(lab.send, source, helo, self._target, sender, recipient, data)

    async def _next(self, receiver: lab.Receiver) -> lab.Received | None:
        try:
            async with asyncio.timeout(SECONDS):
                return await receiver.waiting.get()
        except TimeoutError:
            self.checks.claim(f"something arrives at {receiver.hostname}", False)
            return None


def _shown(raw: bytes, width: int = 150) -> str:
    text = " ".join(raw.decode("ascii", "replace").split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _bounce_of(arrived: lab.Received) -> bytes:
    """A report as Postfix writes it: full of the destination's name."""
    header = arrived.data.partition(b"\r\n\r\n")[0]
    recipient = arrived.recipients[0]
    return (
        (
            f"From: MAILER-DAEMON@mx.sink.test (Mail Delivery System)\r\nTo: {arrived.sender}\r\n"
            "Subject: Undelivered Mail Returned to Sender\r\nDate: Mon, 23 Nov 2026 12:35:00 +0000\r\n"
            "Message-ID: <bounce-1@mx.sink.test>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"
            'Content-Type: multipart/report; report-type=delivery-status; boundary="b1"\r\n\r\n'
            "--b1\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
            f"This is the mail system at host mx.sink.test.\r\n\r\n<{recipient}>: mailbox of hidden.destination is gone\r\n\r\n"
            "--b1\r\nContent-Type: message/delivery-status\r\n\r\n"
            "Reporting-MTA: dns; mx.sink.test\r\n\r\n"
            f"Final-Recipient: rfc822; {recipient}\r\nAction: failed\r\nStatus: 5.1.1\r\n"
            f"Diagnostic-Code: smtp; 550 5.1.1 <{recipient}>: user unknown at mx.sink.test [127.0.0.50]\r\n\r\n"
            "--b1\r\nContent-Type: text/rfc822-headers\r\n\r\n"
        ).encode()
        + header
        + b"\r\n\r\n--b1--\r\n"
    )


def _invite(config: Path, port: int) -> None:
    print(
        f"""
The lab stays up until Ctrl-C. Send something of your own:

    swaks --server 127.0.0.25:{port} --local-interface 127.0.0.10 --ehlo mx.sender.test \\
          --from bob@sender.test --to alias@fwd.test --header 'From: bob@sender.test'

    python3 - <<'EOF'
    import smtplib
    with smtplib.SMTP("127.0.0.25", {port}, "mx.sender.test", source_address=("127.0.0.10", 0)) as s:
        s.sendmail("bob@sender.test", "alias@fwd.test", "From: bob@sender.test\\r\\nSubject: hi\\r\\n\\r\\nhi\\r\\n")
    EOF

(sender.test publishes p=reject: a message that neither comes from 127.0.0.10 nor is signed is refused.)
The service runs with {config}
"""
    )


async def _show_what_arrives(*receivers: lab.Receiver) -> None:
    async def show(receiver: lab.Receiver) -> None:
        while True:
            one = await receiver.waiting.get()
            print(f"\n--- arrived at {receiver.hostname}: MAIL FROM:<{one.sender}> RCPT TO:{list(one.recipients)}")
            for line in _lines(one.data):
                print(f"   | {line}")

    await asyncio.gather(*(show(one) for one in receivers))


def _lines(data: bytes, most: int = 60) -> Iterator[str]:
    """Escaped: what arrived may hold anything."""
    for line in data.decode("ascii", "backslashreplace").splitlines()[:most]:
        yield line if line.isprintable() else ascii(line)[1:-1]
