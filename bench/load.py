"""What does a forwarded message cost, and how many a second? A real service under real load; a benchmark, no test.

    ./scripts/bench load                         4k, 4k1 (one a connection), 50k, 1m, and 4k at 30 % load (quiet)
    ./scripts/bench load --workload 4k,1m --seconds 5 --rounds 3
    ./scripts/bench load --compare HEAD~20       two revisions in turns, in one run: the ratio is what to read
    ./scripts/bench load --compare HEAD~20 --together          at the same time: what else runs is in the way of both
    ./scripts/bench load --compare-workers 2 --workload 4k     one worker and two, in turns

The service runs as it would (its embedded store with it), takes signed mail from ``bench.sender``, asks a name server on
loopback, and delivers to ``bench.sink``, which looks at every message. CPU and MB (PSS) are those of the service's whole process
tree, "one" is the largest process of ours in it. "cores" is how much of the machine the service had, and then sender, sink and
name server, which run beside it: where both together have all there is, more workers cannot bring more messages.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from bench.cost import cpu_ms, memory_mb, without_store
from bench.kernels import HEADER, cost, text
from forwarder.auth import canonical
from forwarder.auth.dkim import build_dkim_signature
from forwarder.auth.signed import sign_now
from forwarder.cli import demo_lab
from forwarder.cli.demo_lab import FORWARDER, SENDER, SINK, free_port
from forwarder.keys import KeyFile, Keys, dkim_record, mailkey_record
from forwarder.mail.header import parse_message
from tests.peers.dns_server import run_dns_server, zone_text

ROOT = Path(__file__).resolve().parent.parent
#: Octets of the body, distinct messages in the pool, messages on one connection (0: all).
WORKLOADS = {"4k": (3_000, 500, 0), "4k1": (3_000, 500, 1), "50k": (48_000, 100, 0), "1m": (1_000_000, 10, 0)}
#: The share of the saturated rate at which latency is measured.
QUIET = 0.3

CONFIG = """\
hostname = "mx.fwd.test"
listen = ["{forwarder}:{port}"]
state_dir = "{state}"
workers = {workers}
[srs]
domain = "fwd.test"
secret_file = "{keys}/srs.secret"
[dns]
nameservers = ["{dns}"]
[[keys.mailkey]]
domain = "fwd.test"
key = "{keys}/fwd.mailkey.pem"
[[keys.dkim]]
domain = "fwd.test"
selector = "rsa"
key = "{keys}/fwd.rsa.pem"
[keys.arc]
domain = "fwd.test"
selector = "rsa"
key = "{keys}/fwd.rsa.pem"
[relay]
port = {port}
allow_private = true
source = ["{forwarder}"]
[domains."fwd.test".aliases]
alias = ["dest@sink.test"]
"""


@dataclass(frozen=True, slots=True)
class Ground:
    """What every service under test shares: keys, messages, a name server, a port."""

    folder: Path
    dns: str
    port: int
    #: The key records, by name.
    records: Mapping[str, str] = field(default_factory=dict)

    def pool(self, workload: str) -> Path:
        return self.folder / f"{workload.removesuffix('1')}.pool"


@asynccontextmanager
async def ground(folder: Path, workloads: list[str]) -> AsyncIterator[Ground]:
    """Made once a run."""
    demo_lab.make_keys(folder / "keys")
    theirs, ours = (
        Keys.load(
            mailkey=[KeyFile(f"{who}.test", "", folder / "keys" / f"{who}.mailkey.pem")],
            dkim=[KeyFile(f"{who}.test", selector, folder / "keys" / f"{who}.rsa.pem")],
            srs_secret_file=folder / "keys" / "srs.secret",
        )
        for who, selector in (("sender", "s1"), ("fwd", "rsa"))
    )
    for name in {one.removesuffix("1") for one in workloads}:
        write_pool(folder / f"{name}.pool", theirs, *WORKLOADS[name][:2])
    records = {"mailkey.sender.test": _mailkey(theirs, "sender.test"), "mailkey.fwd.test": _mailkey(ours, "fwd.test")}
    records["s1._domainkey.sender.test"] = dkim_record(theirs.dkim("sender.test")[0])  # type: ignore[arg-type]
    records["rsa._domainkey.fwd.test"] = dkim_record(ours.dkim("fwd.test")[0])  # type: ignore[arg-type]
    zone = demo_lab.zone(records)
    # Signed by DKIM and vouched for by SPF, as most mail is; without a mailkey, as most mail still is.
    zone = {name: types for name, types in zone.items() if name != "mailkey.sender.test"}
    async with run_dns_server(zone_text(zone)) as dns:
        yield Ground(folder, dns.address, free_port(FORWARDER, SENDER, SINK), records)


def _mailkey(keys: Keys, domain: str) -> str:
    key = keys.mailkey(domain)
    assert key is not None
    return mailkey_record(key)


def write_pool(file: Path, keys: Keys, size: int, count: int) -> None:
    """Messages signed with RSA-2048, each another; see ``bench.sender``."""
    now = datetime.now(UTC) - timedelta(minutes=1)
    body = text(size)
    with file.open("wb") as pool:
        for number in range(count):
            raw = HEADER + b"X-Number: %d\r\n\r\n" % number + body[number % 50 :]
            message = parse_message(raw)
            body_hash = canonical.body_hash(message, "relaxed")
            signature = sign_now(build_dkim_signature(message.fields, body_hash, keys.dkim("sender.test")[0], now=now))
            pool.write((len(signature) + len(raw)).to_bytes(4, "big") + signature + raw)


# --- one service --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def service(
    checkout: Path,
    at: Ground,
    *,
    config: str = CONFIG,
    workers: int = 1,
    log: Path | None = None,
    looks: Path | None = None,
    under: Sequence[str] = (),
) -> AsyncIterator[Process]:
    """The program of this checkout, ready. ``log``: where its events go; ``None``: nobody wants them. ``looks``: where those at
    its event loop go, as of ``bench.watched``. ``under``: what runs it, and slows it down."""
    with tempfile.TemporaryDirectory(prefix="bench-state-") as folder:
        file, events = Path(folder) / "forwarder.toml", log or Path(folder) / "log"
        file.write_text(
            config.format(
                forwarder=FORWARDER,
                port=at.port,
                state=f"{folder}/state",
                keys=at.folder / "keys",
                dns=at.dns,
                workers=workers,
            )
        )
        process = await asyncio.create_subprocess_exec(
            *(*under, sys.executable, "-m", *(("bench.watched", str(looks)) if looks is not None else ("forwarder",))),
            *("serve", "--config", str(file)),
            cwd=checkout,
            env=os.environ | {"PYTHONPATH": str(checkout)},
            stdout=DEVNULL,
            stderr=events.open("wb"),
        )
        try:
            async with asyncio.timeout(300 if under else 30):
                while b'"service.ready"' not in events.read_bytes():
                    await asyncio.sleep(0.1)
            yield process
        finally:
            process.terminate()
            await process.wait()


@dataclass(frozen=True, slots=True)
class Target:
    """What is measured: where it listens (the port is that of its ground), and its processes, their children not named."""

    host: str
    roots: tuple[int, ...]


#: Of the sender.
CONNECTIONS = 20
#: Seconds without an arrival after which what has not come is lost.
PATIENCE = 20


async def measure(
    at: Ground,
    target: Target,
    workload: str,
    seconds: float,
    rate: float = 0,
    *,
    connections: int = CONNECTIONS,
    keep: Path | None = None,
) -> dict[str, Any]:
    """One round of one workload, from the first message to the last arrival. ``keep``: the first that arrives goes there."""
    each = WORKLOADS[workload][2]
    kept = ("--keep", str(keep)) if keep is not None else ()
    sink = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.sink", f"{SINK}:{at.port}", *kept), cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    assert sink.stdout is not None
    await sink.stdout.readline()
    before, names_before = cpu_ms(*target.roots), time.process_time()
    sender = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.sender", str(at.pool(workload)), f"{target.host}:{at.port}", SENDER),
        *("--seconds", str(seconds), "--each", str(each), "--rate", str(rate), "--connections", str(connections)),
        cwd=ROOT,
        stdout=PIPE,
    )
    sent = json.loads((await sender.communicate())[0])
    ended = time.monotonic()
    last = await _drained(sink, sent["accepted"])
    after, names_after = cpu_ms(*target.roots), time.process_time()
    arrived = json.loads((await sink.communicate(b""))[0])
    count = max(1, sent["accepted"])
    elapsed = sent["seconds"] + max(0, last - ended)
    # The name server is in this process.
    beside = sent["cpu_ms"] + arrived["cpu_ms"] + (names_after - names_before) * 1000
    return {
        "workload": workload,
        "cpu_ms": (after - before) / count,
        "rate": sent["accepted"] / elapsed,
        "cores": (after - before) / 1000 / elapsed,
        "cores_beside": beside / 1000 / elapsed,
        "ms_p50": sent["ms_p50"],
        "ms_p99": sent["ms_p99"],
        "memory_mb": sum(memory_mb(root) for root in target.roots),
        "memory_mb_one": max(
            (memory_mb(pid, [pid]) for root in target.roots for pid in without_store(root)), default=0.0
        ),
        "lost": sent["accepted"] - arrived["arrived"],
        "unsealed": arrived["arrived"] - arrived["sealed"],
        "refused": sent["refused"],
        "why": sent["why"],
        "arrived": arrived,
    }


async def _drained(sink: Process, accepted: int) -> float:
    """When the last had arrived. A mail system with a queue still has some when the sender has done."""
    assert sink.stdin is not None
    assert sink.stdout is not None
    arrived, last = -1, time.monotonic()
    while arrived < accepted and time.monotonic() < last + PATIENCE:
        sink.stdin.write(b"?\n")
        now = json.loads(await sink.stdout.readline())["arrived"]
        if now > arrived:
            arrived, last = now, time.monotonic()
        if arrived < accepted:
            await asyncio.sleep(0.02)
    return last


async def rounds(checkout: Path, at: Ground, args: argparse.Namespace, workers: int) -> dict[str, list[dict[str, Any]]]:
    """Every workload of one service, and its latency when it is not busy."""
    found: dict[str, list[dict[str, Any]]] = {}
    async with service(checkout, at, workers=workers) as process:
        target = Target(FORWARDER, (process.pid,))

        async def several(name: str, rate: float = 0) -> list[dict[str, Any]]:
            return [
                await measure(at, target, name, args.seconds, rate, connections=args.connections)
                for _ in range(args.rounds)
            ]

        await measure(at, target, args.workload[0], 1, connections=args.connections)  # caches, connections
        for name in args.workload:
            found[name] = await several(name)
        if "4k" in found:
            found["quiet"] = await several("4k", QUIET * _median(found["4k"], "rate"))
    return found


async def together(
    checkouts: Mapping[str, Path], at: Ground, args: argparse.Namespace
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The same of several services that are under load at the same time, each with a sender and a sink of its own."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {label: {} for label in checkouts}
    async with AsyncExitStack() as stack:
        running: dict[str, tuple[Ground, Target]] = {}
        for label, checkout in checkouts.items():
            own = replace(at, port=free_port(FORWARDER, SENDER, SINK))
            process = await stack.enter_async_context(service(checkout, own, workers=args.workers))
            running[label] = own, Target(FORWARDER, (process.pid,))
            await measure(*running[label], args.workload[0], 1)
        for name in args.workload:
            for _ in range(args.rounds):
                rows = await asyncio.gather(*(measure(*one, name, args.seconds) for one in running.values()))
                for label, row in zip(running, rows, strict=True):
                    found[label].setdefault(name, []).append(row)
    return found


# --- the report ---------------------------------------------------------------------------------------------------------

_HEADS = (
    f"{'':<18}{'CPU ms':>8}{'msg/s':>7}{'p50 ms':>8}{'p99 ms':>8}{'MB':>6}{'one':>5}{'cores':>12}"
    f"{'lost':>6}{'unsealed':>9}{'refused':>8}"
)


def _median(rows: list[dict[str, Any]], key: str) -> float:
    return statistics.median(one[key] for one in rows)


def _row(name: str, rows: list[dict[str, Any]]) -> str:
    cores = f"{_median(rows, 'cores'):.2f} + {_median(rows, 'cores_beside'):.2f}"
    return (
        f"{name:<18}{_median(rows, 'cpu_ms'):>8.2f}{_median(rows, 'rate'):>7.0f}{_median(rows, 'ms_p50'):>8.1f}"
        f"{_median(rows, 'ms_p99'):>8.1f}{_median(rows, 'memory_mb'):>6.0f}{_median(rows, 'memory_mb_one'):>5.0f}{cores:>12}"
        f"{sum(one['lost'] for one in rows):>6}{sum(one['unsealed'] for one in rows):>9}{sum(one['refused'] for one in rows):>8}"
    )


def _report(results: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    print(_HEADS)
    for label, found in results.items():
        for name, rows in found.items():
            print(_row(f"{label} {name}".strip(), rows))
    if len(results) == 2:
        (before, old), (after, new) = results.items()
        for name in old:
            cpu, rate = (_median(new[name], key) / _median(old[name], key) for key in ("cpu_ms", "rate"))
            print(f"{name}, {after} / {before}: CPU {cpu:.3f}, rate {rate:.2f}")
    print(f"CPU of an RSA-2048 signature: {signature_ms():.2f} ms; a message has three")


def signature_ms() -> float:
    """CPU of an RSA-2048 signature, by the library that the service signs with."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return cost(lambda: key.sign(b"x" * 500, padding.PKCS1v15(), hashes.SHA256()), 0.1)


@asynccontextmanager
async def checkout_of(revision: str | None) -> AsyncIterator[Path | None]:
    """A working tree of another revision, for as long as it is needed."""
    if revision is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="bench-tree-") as folder:
        tree = Path(folder) / "tree"
        await _git("worktree", "add", "--quiet", "--detach", str(tree), revision)
        try:
            yield tree
        finally:
            await _git("worktree", "remove", "--force", str(tree))


async def _git(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec("git", "-C", str(ROOT), *arguments)
    if await process.wait():
        raise SystemExit(f"git {' '.join(arguments)} failed")


async def main(args: argparse.Namespace) -> int:
    """Prints as it goes; 1 where a message was lost or left unsealed."""
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with ground(Path(folder), args.workload) as at, checkout_of(args.compare) as other:
            turns = [("", ROOT, args.workers)]
            if other is not None:
                turns = [("there", other, args.workers), ("here", ROOT, args.workers)] * args.turns
            elif args.compare_workers:
                turns = [(f"{count} worker{'s' * (count > 1)}", ROOT, count) for count in (1, args.compare_workers)]
                turns *= args.turns
            if args.together and other is not None:
                turns, results = [], await together({"there": other, "here": ROOT}, at, args)
            for label, tree, workers in turns:
                for name, rows in (await rounds(tree, at, args, workers)).items():
                    results.setdefault(label, {}).setdefault(name, []).extend(rows)
    if args.json:
        print(json.dumps(results))
    else:
        _report(results)
    bad = [
        one for found in results.values() for rows in found.values() for one in rows if one["lost"] or one["unsealed"]
    ]
    return 1 if bad else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", type=lambda names: names.split(","), default=list(WORKLOADS))
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help=f"of the sender (default: {CONNECTIONS})")
    parser.add_argument("--workers", type=int, default=1, help="of the service (default: 1)")
    turns = parser.add_mutually_exclusive_group()
    turns.add_argument("--compare", metavar="REV", help="another revision, in turns with this one")
    turns.add_argument("--compare-workers", type=int, metavar="N", help="N workers, in turns with one")
    parser.add_argument("--together", action="store_true", help="with --compare: both at the same time")
    parser.add_argument("--turns", type=int, default=2, help="how often each is started, to compare (default: 2)")
    parser.add_argument("--json", action="store_true")
    sys.exit(asyncio.run(main(parser.parse_args())))
