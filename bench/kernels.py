"""What do the parts of the message path cost? CPU time of this thread, best of several rounds; a benchmark, no test.

    ./scripts/bench              a table
    ./scripts/bench --json       the same as JSON

Messages and keys are made here. Ratios within one run are what to compare: machines differ, and so do their hours.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from forwarder import seal, srs
from forwarder.auth import canonical
from forwarder.auth.dkim import build_dkim_signature
from forwarder.auth.signed import sign_now
from forwarder.auth.verify import verify
from forwarder.cli.demo_lab import make_keys
from forwarder.edge.data import unstuff
from forwarder.keys import KeyFile, Keys, dkim_record
from forwarder.mail.address import parse_from
from forwarder.mail.header import parse_message
from forwarder.model import Address, Envelope, Peer, Recipient
from forwarder.resolver import ZoneResolver

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
BOB = Address("bob", "sender.test")
ALIAS = Address("alias", "fwd.test")
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "back", "again", "once", "more"]


def text(size: int) -> bytes:
    """Lines of words, as people write them, from a fixed seed."""
    rng, lines, total = random.Random(7), [], 0
    while total < size:
        lines.append(" ".join(rng.choices(WORDS, k=12)).encode())
        total += len(lines[-1]) + 2
    return b"\r\n".join(lines) + b"\r\n"


HEADER = b"".join(
    b"%s: %s\r\n" % pair
    for pair in (
        (b"Received", b"from a.sender.test by mx.sender.test id 1; Mon, 23 Nov 2026 12:30:00 +0000"),
        (b"From", b'"Bob, of Sender" <bob@sender.test>'),
        (b"To", b"alias@fwd.test"),
        (b"Subject", b"a message of ordinary size, with a subject of ordinary length"),
        (b"Date", b"Mon, 23 Nov 2026 12:30:00 +0000"),
        (b"Message-ID", b"<0123456789abcdef@sender.test>"),
        (b"Reply-To", b"bob@sender.test"),
        (b"MIME-Version", b"1.0"),
        (b"List-Unsubscribe", b"<https://sender.test/u/1>, <mailto:u@sender.test>"),
        (b"X-Mailer", b"bench"),
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Transfer-Encoding", b"7bit"),
    )
)


class Bench:
    """The kernels over one set of keys and one zone, caches warm."""

    def __init__(self, folder: Path) -> None:
        make_keys(folder)
        self.ours = Keys.load(
            mailkey=[KeyFile("fwd.test", "", folder / "fwd.mailkey.pem")],
            dkim=[KeyFile("fwd.test", "rsa", folder / "fwd.rsa.pem")],
            arc=KeyFile("fwd.test", "rsa", folder / "fwd.rsa.pem"),
            srs_secret_file=folder / "srs.secret",
        )
        theirs = Keys.load(
            dkim=[KeyFile("sender.test", "s", folder / "sender.rsa.pem")], srs_secret_file=folder / "srs.secret"
        )
        self.key = theirs.dkim("sender.test")[0]
        self.resolver = ZoneResolver(
            {
                "sender.test": {"TXT": ["v=spf1 ip4:192.0.2.0/24 -all"], "MX": ["10 mx.sender.test"]},
                "_dmarc.sender.test": {"TXT": ["v=DMARC1; p=reject"]},
                "s._domainkey.sender.test": {"TXT": [dkim_record(self.key)]},
            }
        )
        peer = Peer(IPv4Address("192.0.2.1"), "mx.sender.test")
        self.envelope = Envelope("bench", peer, BOB, (Recipient(ALIAS),), NOW)
        attachment = base64.encodebytes(random.Random(7).randbytes(740_000)).replace(b"\n", b"\r\n")
        self.raw = {
            "4k": self.signed(text(4096)),
            "1m text": self.signed(text(1_000_000)),
            "1m base64": self.signed(attachment),
        }

    def signed(self, body: bytes) -> bytes:
        message = parse_message(HEADER + b"\r\n" + body)
        body_hash = canonical.body_hash(message, "relaxed")
        return sign_now(build_dkim_signature(message.fields, body_hash, self.key, now=NOW)) + HEADER + b"\r\n" + body

    async def verify(self, name: str) -> object:
        message = parse_message(self.raw[name])
        author = parse_from(message)
        return await verify(self.resolver, self.envelope, message, author, receiver="mx.fwd.test", now=NOW)

    def seal(self, name: str, verdict: Any) -> object:
        message = parse_message(self.raw[name])
        names = seal.Names("mx.fwd.test", "mx.fwd.test")
        sealed = sign_now(
            seal.seal_message(
                message, self.envelope, verdict, ALIAS, srs_domain="fwd.test", names=names, keys=self.ours, now=NOW
            )
        )
        return sign_now(
            seal.address_to(sealed, BOB, (Address("d", "sink.test"),), domain="fwd.test", keys=self.ours, now=NOW)
        )


def cost(work: Callable[[], object], seconds: float = 0.4, rounds: int = 5) -> float:
    """Milliseconds of CPU for one call: the best round."""
    work()
    began = time.thread_time()
    work()
    count = max(1, int(seconds / rounds / max(time.thread_time() - began, 1e-6)))
    best = float("inf")
    for _ in range(rounds):
        began = time.thread_time()
        for _ in range(count):
            work()
        best = min(best, (time.thread_time() - began) / count)
    return best * 1000


#: How many checks run in one call: starting a loop is no part of a check.
CHECKS = 20


def kernels(it: Bench, runner: asyncio.Runner) -> dict[str, tuple[Callable[[], object], int]]:
    """By name: what to call, and how often the kernel runs in one call."""
    verdict = runner.run(it.verify("4k"))
    secrets, today = it.ours.srs_secrets(), NOW.date()
    rsa = it.ours.dkim("fwd.test")[0]
    reversible = srs.encode(BOB, "fwd.test", secrets, today).address
    stuffed = it.raw["4k"].replace(b"\r\n", b"\r\n..", 3)

    def checks(name: str) -> Callable[[], object]:
        """In one task, as the service does it."""

        async def several() -> None:
            for _ in range(CHECKS):
                await it.verify(name)

        return lambda: runner.run(several())

    return {
        "RSA-2048 signature": (lambda: rsa.sign(b"x" * 500), 1),
        "take the dots out, 4k": (lambda: unstuff(stuffed), 1),
        "split the header, 4k": (lambda: parse_message(it.raw["4k"]), 1),
        "all checks, 4k, one RSA signature, warm": (checks("4k"), CHECKS),
        "all checks, 1m of base64, warm": (checks("1m base64"), CHECKS),
        "all checks, 1m of text, warm": (checks("1m text"), CHECKS),
        "seal, 4k (3 RSA + 1 ed25519)": (lambda: it.seal("4k", verdict), 1),
        "reversible address": (lambda: srs.encode(BOB, "fwd.test", secrets, today), 1),
        "back from a reversible address": (lambda: srs.decode(reversible, secrets, today), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        table = {name: cost(work) / times for name, (work, times) in kernels(Bench(Path(folder)), runner).items()}
    table["seal, 4k, without its RSA"] = table["seal, 4k (3 RSA + 1 ed25519)"] - 3 * table["RSA-2048 signature"]
    if args.json:
        print(json.dumps({name: round(value, 4) for name, value in table.items()}))
    else:
        print("CPU ms")
        for name, value in table.items():
            print(f"{value:8.3f}  {name}")


if __name__ == "__main__":
    main()
