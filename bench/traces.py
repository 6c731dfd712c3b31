"""What does it cost to keep the lives of messages, on one server and spread over a cluster? A benchmark, no test.

    ./scripts/bench traces                        one server, and a cluster of three primaries with the tags that we use
    ./scripts/bench traces --tags 1,16,64,128,256

Trips of so many messages each; what is told is processor time a message: ours (the best of several trips), and that of all
servers together, and how many scripts they ran. Servers sync no file here, and no replicas are waited for.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import uvloop

from bench.store import facts
from forwarder.model import Address
from forwarder.ports import Traced, TraceEvent
from forwarder.store.client import Commands, StoreClient
from forwarder.store.cluster import ClusterClient, even_tags
from forwarder.store.ledger import RedisLedger
from forwarder.store.records import HASH_TAG
from forwarder.store.traces import CLUSTER_TAGS, RedisTraces
from tests.fakes import MemoryJournal
from tests.peers.topologies import cluster
from tests.peers.valkey import Valkey, valkey

TRIPS = (1, 20, 500)
_PATIENCE = 60.0


def life(number: int) -> Traced:
    """Of one message from a sender of its own, delivered in session."""
    bob, alias = Address("bob", f"d{number}.bench.test"), Address("alias", "fwd.test")
    destination = Address(f"user{number % 50}", "sink.test")
    told = (
        ("message.received", {"sender": bob, "alias": alias, "size": 3500, "client": "192.0.2.1", "tls": "TLSv1.3"}),
        ("message.verified", {"message_id": f"<{number:032}@d{number}.bench.test>", "spf": "pass", "dkim": ["pass"]}),
        ("route.forward", {"destination": destination, "reversible": Address(f"SRS0=a=b=d{number}=bob", "fwd.test")}),
        ("delivery.outcome", {"destination": destination, "status": "2.0.0", "host": "mx.sink.test", "took": 0.012}),
        ("message.answered", {"reply": 250}),
    )
    return Traced(f"{number:016}", [TraceEvent(number + at / 10, *one) for at, one in enumerate(told)])


async def measure(
    where: str, client: Commands, servers: Sequence[Valkey], tags: Sequence[bytes], numbers: Iterator[int]
) -> None:
    """Prints a line for each length of a trip."""
    ledger = RedisLedger(client, journal=MemoryJournal())
    traces = RedisTraces(client, ledger, journal=MemoryJournal(), keep=3600, tags=tags)
    stores = [StoreClient(one.url, journal=MemoryJournal(), timeout=_PATIENCE) for one in servers]
    # Each server has seen the script by then.
    await traces.append([life(next(numbers)) for _ in range(TRIPS[-1])])
    for length in TRIPS:
        best, messages = 1e9, 0
        before = [await facts(one) for one in stores]
        while messages < 10 * TRIPS[-1] // (1 if length > 1 else 10):
            lives = [life(next(numbers)) for _ in range(length)]
            began = time.thread_time()
            assert not await traces.append(lives)
            best, messages = min(best, time.thread_time() - began), messages + length
        after = [await facts(one) for one in stores]
        told = {
            name: sum(new[name] - old[name] for new, old in zip(after, before, strict=True)) / messages
            for name in ("cpu_us", "scripts")
        }
        ours = f"{1e6 * best / length:>8.0f} us of ours"
        print(f"{where:<24}{length:>5} a trip{ours}{told['cpu_us']:>8.0f} us of theirs{told['scripts']:>8.2f} scripts")
    for one in stores:
        await one.close()


async def main(args: argparse.Namespace) -> int:
    numbers = count(1)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        server = await stack.enter_async_context(valkey(folder / "one", {"appendfsync": "no"}))
        one = StoreClient(server.url, journal=MemoryJournal(), timeout=_PATIENCE)
        await measure("one server", one, [server], (HASH_TAG,), numbers)
        await one.close()
        nodes = await stack.enter_async_context(cluster(folder / "cluster"))
        for each in nodes.servers:
            await each.ask("CONFIG", "SET", "appendfsync", "no")
        client = ClusterClient(nodes.url, journal=MemoryJournal(), timeout=_PATIENCE)
        for number in args.tags:
            tags = (HASH_TAG,) if number == 1 else even_tags(number)
            await measure(f"cluster, {number} tags", client, nodes.servers[:3], tags, numbers)
        await client.close()
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tags", type=lambda text: [int(one) for one in text.split(",")], default=[len(CLUSTER_TAGS)], help="hash tags"
    )
    sys.exit(uvloop.run(main(parser.parse_args())))
