"""What does a message cost its store, and what does it leave there, for how long? A benchmark, no test.

    ./scripts/bench store                          2,000 messages each in session, by the queue, waiting, and of a busy store
    ./scripts/bench store --messages 10000 --json

A store of its own, as an operator would run one (one server, every write synced), and the real service. Each message of 3.5 KB is
of another sender's domain, with another body, so nothing is shared that need not be: what senders that write often leave is
less. The store counts for itself: commands, processor time, octets over the network and in its file, memory. What it does
without mail is in the figures too, and small.

A store that has time is given a few commands at once, and syncs its file as often. So "busy" is two hundred callers at once who
do what a message in session does, and no service: what a store can carry. docs/scaling.md has the table that follows.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import sys
import tempfile
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from bench.cold import Domains, send, sink
from bench.kernels import HEADER, text
from bench.load import CONFIG, ROOT, Ground, service
from bench.names import run_names
from forwarder.auth import canonical
from forwarder.cli import demo_lab
from forwarder.cli.demo_lab import FORWARDER, SENDER, SINK, free_port
from forwarder.mail.header import parse_message
from forwarder.model import Address
from forwarder.ports import Forwarded, Traced
from forwarder.store.client import StoreClient
from forwarder.store.ledger import RedisLedger
from forwarder.store.traces import RedisTraces
from tests.fakes import MemoryJournal
from tests.peers.valkey import valkey

ED25519_ONLY = CONFIG[: CONFIG.index("[[keys.dkim]]")] + CONFIG[CONFIG.index("[relay]") :]
#: A next hop with a pace is served from the queue.
_PACE = '[queue.destinations."sink.test"]\nper_minute = 600000\n'
MODES = ("in session", "by the queue", "waiting")
_CALLERS = 200
#: docs/scaling.md, "Settings of the servers".
_SETTINGS = {"hash-max-listpack-value": "512", "hash-max-listpack-entries": "64"}
_WARM = 100
#: Seconds: within these the lives of messages are written behind the mail's back.
_BEHIND = 1.5
_PATIENCE = 120.0
_PAGE = 1000
#: docs: store/ledger.py, store/traces.py, scripts/queue_common.lua.
KINDS = {
    "c": "mark of the ledger",
    "e": "told to other hosts",
    "m": "forward, by its Message-ID",
    "f": "forward, the latest",
    "t": "token",
    "l": "life, for forwarder trace",
    "i": "what a life is found by",
    "qi": "waiting: record and head",
    "qb": "waiting: body",
    "qt": "waited here",
}


class Distinct(Domains):
    """Each message with a body of its own."""

    def message(self, number: int) -> tuple[str, bytes]:
        """See ``Domains``."""
        self._body = b"%d\r\n" % number + text(3000)
        self._hash = canonical.body_hash(parse_message(HEADER + b"\r\n" + self._body), "relaxed")
        return super().message(number)


async def facts(store: StoreClient) -> Counter[str]:
    """What the server has counted so far."""
    told = [line.partition(b":") for line in (await store.command("INFO", "everything")).splitlines()]
    lines = {name.decode(): value.decode() for name, _, value in told}
    calls = {
        name: int(value.partition("calls=")[2].partition(",")[0])
        for name, value in lines.items()
        if name.startswith("cmdstat_")
    }
    return Counter(
        {
            "scripts": calls.get("cmdstat_evalsha", 0) + calls.get("cmdstat_eval", 0),
            "commands": sum(calls.values()),
            "cpu_us": round(1e6 * (float(lines["used_cpu_user"]) + float(lines["used_cpu_sys"]))),
            "octets_in": int(lines["total_net_input_bytes"]),
            "octets_out": int(lines["total_net_output_bytes"]),
            "file": int(lines["aof_current_size"]),
            "memory": int(lines["used_memory"]),
        }
    )


async def by_kind(store: StoreClient) -> dict[str, tuple[int, int, float]]:
    """Keys, their octets, and the longest that one of them is still kept for (days), by kind."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    cursor = b"0"
    while True:
        cursor, keys = await store.command("SCAN", cursor, "COUNT", _PAGE)
        # Asked in one group.
        octets = await asyncio.gather(*(store.command("MEMORY", "USAGE", key, "SAMPLES", "0") for key in keys))
        seconds = await asyncio.gather(*(store.command("TTL", key) for key in keys))
        for key, each in zip(keys, zip(octets, seconds, strict=True), strict=True):
            found[key.decode().split(":")[1]].append(each)
        if cursor == b"0":
            return {
                kind: (len(each), sum(one for one, _ in each), max(one for _, one in each) / 86400)
                for kind, each in found.items()
            }


async def measure(mode: str, count: int, folder: Path) -> tuple[dict[str, Any], Traced | None]:
    """A store and a service of their own, and so many messages; the life of one of them."""
    domains, port = Distinct(), free_port(FORWARDER, SENDER, SINK)
    folder.mkdir()  # noqa: ASYNC240 - nobody waits
    demo_lab.make_keys(folder / "keys")
    async with (
        valkey(folder / "valkey", _SETTINGS) as server,
        run_names(domains.look_up) as names,
        sink(port) as arrived,
    ):
        store = StoreClient(server.url, journal=MemoryJournal(), timeout=_PATIENCE)
        config = ED25519_ONLY.replace("workers", f'store = "{server.url}"\nworkers', 1)
        if mode == "by the queue":
            config += _PACE
        if mode == "waiting":
            # Nobody listens there.
            config = config.replace("port = {port}\n", f"port = {free_port(SINK)}\n", 1)
        async with service(ROOT, Ground(folder, names, port), config=config):
            target = (FORWARDER, port)

            async def run(first: int, many: int) -> Counter[str]:
                before = arrived["arrived"]
                answers = await send(domains, iter(range(first, first + many)), target)
                async with asyncio.timeout(_PATIENCE):
                    while mode != "waiting" and arrived["arrived"] < before + many:
                        await asyncio.sleep(0.1)
                await asyncio.sleep(_BEHIND)
                return answers

            await run(0, min(count, _WARM))
            before, kinds_before = await facts(store), await by_kind(store)
            answers = await run(_WARM, count)
            after = await facts(store)
            kinds = {
                kind: (keys - kinds_before.get(kind, (0, 0, 0))[0], octets - kinds_before.get(kind, (0, 0, 0))[1], days)
                for kind, (keys, octets, days) in (await by_kind(store)).items()
            }
        traces = RedisTraces(store, RedisLedger(store, journal=MemoryJournal()), journal=MemoryJournal(), keep=1)
        lives = await traces.find(f"bob@d{_WARM}.bench.test")
        life = await traces.read(lives[0]) if lives else None
        await store.close()
    result = {
        "mode": mode,
        "messages": count,
        "refused": count - answers["250"],
        **_each(before, after, count),
        "kinds": {
            kind: {"keys": keys / count, "octets": octets / count, "days": days}
            for kind, (keys, octets, days) in kinds.items()
            if octets > count
        },
    }
    return result, life


async def measure_busy(count: int, folder: Path, life: Traced) -> dict[str, Any]:
    """So many messages, as fast as many callers can; their lives like this one."""
    folder.mkdir()  # noqa: ASYNC240 - nobody waits
    async with valkey(folder, _SETTINGS) as server:
        store = StoreClient(server.url, journal=MemoryJournal(), timeout=_PATIENCE)
        ledger = RedisLedger(store, journal=MemoryJournal(), shared=True)
        traces = RedisTraces(store, ledger, journal=MemoryJournal(), keep=7 * 86400)
        await ledger.claim([hashlib.sha256(b"warm").digest()], "warm")
        numbers = iter(range(count))

        async def call() -> None:
            for number in numbers:
                mark, id_ = hashlib.sha256(b"%d" % number).digest(), f"{number:016d}"
                forwarded = _forwarded(number, id_)
                await ledger.claim([mark], id_, begun=[(forwarded.reversible, forwarded.message_id)])
                await ledger.settle(id_, [mark], [], [forwarded])

        before = await facts(store)
        await asyncio.gather(*(call() for _ in range(_CALLERS)))
        for first in range(0, count, _CALLERS):
            await traces.append([_like(life, number) for number in range(first, min(count, first + _CALLERS))])
        after = await facts(store)
        await store.close()
    return {"mode": "busy", "messages": count, "refused": 0, **_each(before, after, count), "kinds": {}}


def _forwarded(number: int, id_: str) -> Forwarded:
    return Forwarded(
        reversible=Address(f"SRS0=aaaaaaaaaaaaaa=aa=d{number}.bench.test=bob", "fwd.test"),
        sender=Address("bob", f"d{number}.bench.test"),
        alias=Address("alias", "fwd.test"),
        destination=Address("dest", "sink.test"),
        message_id=f"<{number:032d}@d{number}.bench.test>",
        envelope_id=id_,
        at=datetime.now(UTC),
        client=SENDER,
    )


def _like(life: Traced, number: int) -> Traced:
    """Found by names of its own."""

    def own(name: str, value: Any) -> Any:
        if isinstance(value, Address) and value.domain.endswith("bench.test"):
            return Address(value.local, f"d{number}.bench.test")
        return f"<{number:032d}@d{number}.bench.test>" if name == "message_id" else value

    events = [
        one._replace(fields={name: own(name, value) for name, value in one.fields.items()}) for one in life.events
    ]
    return Traced(f"{number:016d}", events)


def _each(before: Counter[str], after: Counter[str], count: int) -> dict[str, float]:
    return {name: (after[name] - before[name]) / count for name in after}


def _print(results: list[dict[str, Any]]) -> None:
    columns = ("scripts", "commands", "cpu_us", "octets_in", "octets_out", "file", "memory")
    print(f"{'a message, ' + str(results[0]['messages']) + ' each':<24}" + "".join(f"{one:>11}" for one in columns))
    for one in results:
        print(f"{one['mode']:<24}" + "".join(f"{one[name]:>11.1f}" for name in columns), f" refused {one['refused']}")
    print(f"\n{'octets a message leaves':<34}{'keys':>6}{'octets':>8}{'days':>8}")
    for one in results:
        for kind, each in sorted(one["kinds"].items(), key=lambda found: -found[1]["octets"]):
            name = f"{one['mode']}: {KINDS.get(kind, kind)}"
            days = f"{each['days']:.2f}" if each["days"] > 0 else "-"
            print(f"{name:<44}{each['keys']:>6.2f}{each['octets']:>8.0f}{days:>8}")


async def main(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        measured = [
            await measure(mode, args.messages, Path(folder) / str(number)) for number, mode in enumerate(args.modes)
        ]
        results, life = [one for one, _ in measured], measured[0][1]
        assert life is not None
        results.append(await measure_busy(args.messages, Path(folder) / "busy", life))
    if args.json:
        print(json.dumps(results))
    else:
        _print(results)
    return 1 if any(one["refused"] for one in results) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--modes", type=lambda text: text.split(","), default=list(MODES), help="in session first")
    parser.add_argument("--json", action="store_true")
    random.seed(7)
    sys.exit(uvloop.run(main(parser.parse_args())))
