"""What does a sender's domain cost that was never seen before, and how much of it stays? A benchmark, no test.

    ./scripts/bench cold                           20,000 domains
    ./scripts/bench cold --domains 1000000

Each message is from another domain, d0.bench.test, d1.bench.test and so on, each with an SPF record, a DMARC policy and a DKIM
key record of its own, which a name server on loopback makes up. First some messages from one domain (warm), then each from
another (cold): the difference in the service's CPU is what a new domain costs. Memory is that of the program (Private_Dirty) and
of its store, which remembers each message for days; what the program keeps must stop growing.

The service signs with ed25519 only, and the senders with RSA-1024, so that what a domain costs is not lost behind signatures.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.client import Client, Gone
from bench.cost import cpu_ms, memory_mb, private_mb, without_store
from bench.kernels import HEADER, text
from bench.load import CONFIG, ROOT, Ground, service
from bench.names import MX, TXT, A, a_record, mx_record, run_names, txt_record
from bench.sink import Session
from forwarder.auth import canonical
from forwarder.auth.dkim import build_dkim_signature
from forwarder.auth.signed import sign_now
from forwarder.cli import demo_lab
from forwarder.cli.demo_lab import FORWARDER, SENDER, SINK, free_port
from forwarder.keys import dkim_record
from forwarder.keys.files import Key
from forwarder.mail.header import parse_message

ED25519_ONLY = CONFIG[: CONFIG.index("[[keys.dkim]]")] + CONFIG[CONFIG.index("[relay]") :] + "[trace]\nkeep = 0\n"
_KEYS, _CONNECTIONS = 16, 20
#: As few as verifiers take (RFC 8301): a million messages are signed.
_BITS = 1024


class Domains:
    """Any number of them, by number."""

    def __init__(self) -> None:
        self._keys = [rsa.generate_private_key(65537, _BITS) for _ in range(_KEYS)]
        self._records = [dkim_record(Key("bench.test", "s", key)) for key in self._keys]
        self._body = text(3000)
        self._hash = canonical.body_hash(parse_message(HEADER + b"\r\n" + self._body), "relaxed")
        self._now = datetime.now(UTC) - timedelta(minutes=1)
        self._once = itertools.count(time.time_ns())

    def look_up(self, name: str, rdtype: int) -> Sequence[bytes] | None:
        """The rule of the name server."""
        if name in ("mx.sender.test", "mx.sink.test"):
            return [a_record(SENDER if "sender" in name else SINK)] if rdtype == A else ()
        if name == "sink.test":
            return [mx_record("mx.sink.test")] if rdtype == MX else ()
        labels = name.split(".")
        if labels[-2:] != ["bench", "test"] or len(labels) < 3:
            return None
        first = labels[-3]
        match labels[:-3]:
            case []:
                found = "v=spf1 ip4:127.0.0.0/8 -all"
            case ["_dmarc"]:
                found = "v=DMARC1; p=reject"
            case ["s", "_domainkey"]:
                # The note makes each record another: none is read from memory because a neighbour has the same.
                found = f"{self._records[int(first[1:]) % _KEYS]}; n={first}"
            case _:
                return None
        return [txt_record(found)] if rdtype == TXT else ()

    def message(self, number: int) -> tuple[str, bytes]:
        """The sender, and its signed message, for the wire."""
        name = f"d{number}.bench.test"
        header = HEADER.replace(b"sender.test", name.encode()) + b"X-Number: %d\r\n" % next(self._once)
        message = parse_message(header + b"\r\n" + self._body)
        key = Key(name, "s", self._keys[number % _KEYS])
        signature = sign_now(build_dkim_signature(message.fields, self._hash, key, now=self._now))
        return f"bob@{name}", (signature + header + b"\r\n" + self._body).removesuffix(b"\r\n")


@asynccontextmanager
async def sink(port: int) -> Any:
    """A destination that takes everything; its count."""
    counts: Counter[str] = Counter()
    server = await asyncio.get_running_loop().create_server(lambda: Session(counts), SINK, port, backlog=1024)
    try:
        yield counts
    finally:
        server.close()


async def send(domains: Domains, numbers: Iterator[int], target: tuple[str, int]) -> Counter[str]:
    """Every one of ``numbers``, over some connections."""
    answers: Counter[str] = Counter()

    async def keep_busy() -> None:
        client = Client(target, SENDER, "mx.sender.test")
        for number in numbers:
            sender, data = domains.message(number)
            try:
                answer = await client.send(sender, "alias@fwd.test", data)
            except Gone as gone:
                answer = f"gone: {gone}"
            answers["250" if answer.startswith("250") else answer[:60]] += 1
        client.close()

    await asyncio.gather(*(keep_busy() for _ in range(_CONNECTIONS)))
    return answers


async def main(args: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    domains = Domains()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        demo_lab.make_keys(Path(folder) / "keys")
        port = free_port(FORWARDER, SENDER, SINK)
        async with (
            run_names(domains.look_up) as names,
            sink(port) as counts,
            service(ROOT, Ground(Path(folder), names, port), config=ED25519_ONLY) as process,
        ):
            target = (FORWARDER, port)
            refused = 0

            async def run(label: str, numbers: list[int]) -> None:
                nonlocal refused
                counts.clear()
                before, began = cpu_ms(process.pid), time.monotonic()
                answers = await send(domains, iter(numbers), target)
                seconds, own = time.monotonic() - began, without_store(process.pid)
                refused += len(numbers) - answers.pop("250", 0)
                rows.append(
                    {
                        "what": label,
                        "messages": len(numbers),
                        "cpu_ms": (cpu_ms(process.pid) - before) / len(numbers),
                        "rate": len(numbers) / seconds,
                        "program_mb": private_mb(own),
                        "store_mb": memory_mb(process.pid) - memory_mb(process.pid, own),
                        "arrived": counts["arrived"],
                        "why": answers.most_common(3),
                    }
                )
                if not args.json:
                    _print(rows[-1], len(rows) == 1)

            await run("first", [0] * min(200, args.warm))
            await run("warm", [0] * args.warm)
            step = max(1, args.domains // args.parts)
            for first in range(1, args.domains + 1, step):
                last = min(first + step, args.domains + 1)
                await run(f"cold {last - 1}", list(range(first, last)))
            await run("warm again", [0] * args.warm)
    cold = [one for one in rows if one["what"].startswith("cold")]
    warm = (rows[1]["cpu_ms"] + rows[-1]["cpu_ms"]) / 2
    mean = sum(one["cpu_ms"] * one["messages"] for one in cold) / sum(one["messages"] for one in cold)
    half = cold[len(cold) // 2 :]
    total = {
        "new_domain_ms": mean - warm,
        "program_grew_mb": cold[-1]["program_mb"] - rows[1]["program_mb"],
        "in_second_half_mb": half[-1]["program_mb"] - half[0]["program_mb"],
        "store_octets_each": (cold[-1]["store_mb"] - rows[1]["store_mb"]) * 1048576 / args.domains,
        "refused": refused,
        "lost": sum(one["messages"] for one in rows) - refused - sum(one["arrived"] for one in rows),
    }
    if args.json:
        print(json.dumps({"rows": rows, "total": total}))
    else:
        print(
            f"a new domain: {total['new_domain_ms']:.2f} ms CPU over a known one; the program grew by"
            f" {total['program_grew_mb']:.1f} MB, by {total['in_second_half_mb']:.1f} of them in the second half;"
            f" its store keeps {total['store_octets_each']:.0f} octets a message; refused {refused}, lost {total['lost']}"
        )
    return 1 if total["lost"] or refused else 0


def _print(row: dict[str, Any], with_head: bool) -> None:
    if with_head:
        print(f"{'':<16}{'messages':>9}{'CPU ms':>8}{'msg/s':>8}{'program MB':>12}{'store MB':>10}")
    print(
        f"{row['what']:<16}{row['messages']:>9}{row['cpu_ms']:>8.2f}{row['rate']:>8.0f}{row['program_mb']:>12.1f}"
        f"{row['store_mb']:>10.1f}  {row['why'] or ''}",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domains", type=int, default=20_000)
    parser.add_argument("--warm", type=int, default=1000, help="messages from one domain, before and after")
    parser.add_argument("--parts", type=int, default=10, help="rows of the table")
    parser.add_argument("--json", action="store_true")
    random.seed(7)
    sys.exit(uvloop.run(main(parser.parse_args())))
