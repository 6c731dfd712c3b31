"""Does anything grow, get lost or go out twice when the service runs for long and things go wrong? A benchmark, no test.

    ./scripts/bench soak                    30 minutes
    ./scripts/bench soak --minutes 5

Half of the load that the machine bears, with a share of faults (1 %): next hops that say 4xx, or hang up before their answer;
name servers that say SERVFAIL, or nothing; clients that hang up in the middle of a message and come back with it. A message that
is not taken is sent again, as senders do. Printed at the end: the slope of each worker's own memory by linear fit over the last
two thirds, its open files, how many messages were lost and how many arrived twice.

A next hop that hangs up after the final dot does not have the message here; in life it may, and then a second copy is on record
(``maybe_dup``). One to which that happens twice in a row becomes a dead letter: put aside for the operator, and not lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from bench.client import Client, Gone
from bench.cold import Domains
from bench.cost import files, private_mb, without_store
from bench.load import CONFIG, ROOT, Ground, service
from bench.names import TXT, run_names, txt_record
from bench.sink import Session
from forwarder.cli import demo_lab
from forwarder.cli.demo_lab import FORWARDER, SENDER, SINK, free_port

QUICK = CONFIG + "[queue]\nfirst_retry = 2\nmax_retry = 20\n[greylist]\nenabled = false\n"
_CONNECTIONS = 20
#: Sender domains: more than a cache forgets, fewer than it never sees again.
_DOMAINS = 2000
#: Seconds between looks, and between two tries of a sender.
_EVERY, _AGAIN = 5.0, 2.0
#: Seconds for what is in the queue at the end.
_WAIT = 120.0
#: Of the run, at first: caches, connections and the pools of the allocator fill up.
_WARM_UP = 1 / 3
_TTL = 30
_NUMBER = re.compile(rb"^X-Number: (\d+)", re.MULTILINE)


class _Sink(Session):
    """Refuses for the moment, and hangs up, as often as it is told to; ``arrived``: how often each message came."""

    def __init__(self, arrived: Counter[int], faults: float, rng: random.Random) -> None:
        super().__init__(Counter())
        self._arrived = arrived
        self._faults = faults
        self._rng = rng

    def take(self, message: bytes) -> None:
        if self._rng.random() < self._faults:
            if self._rng.random() < 0.5:
                self.drop()
            else:
                self.say(b"451 4.2.0 not now\r\n")
            return
        number = _NUMBER.search(message)
        assert number is not None
        self._arrived[int(number[1])] += 1
        self.say(b"250 2.0.0 taken\r\n")


@dataclass
class _Soak:
    target: tuple[str, int]
    faults: float
    domains: Domains
    rng: random.Random
    #: The service's own id of each that it took.
    taken: dict[int, str] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    given_up: int = 0
    cut: int = 0
    _free: list[Client] = field(default_factory=list)
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    async def busy(self, seconds: float) -> float:
        """Messages a second that it bears."""
        until, before = asyncio.get_running_loop().time() + seconds, len(self.taken)
        faults, self.faults = self.faults, 0.0

        async def one_after_the_other() -> None:
            while asyncio.get_running_loop().time() < until:
                await self._deliver()

        await asyncio.gather(*(one_after_the_other() for _ in range(_CONNECTIONS)))
        self.faults = faults
        return (len(self.taken) - before) / seconds

    async def steady(self, seconds: float, rate: float) -> None:
        """At even distances, whatever the answers."""
        now = asyncio.get_running_loop().time
        due, until = now(), now() + seconds
        while due < until:
            await asyncio.sleep(due - now())
            task = asyncio.create_task(self._deliver())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            due += 1 / rate
        await asyncio.gather(*self._running)

    async def _deliver(self) -> None:
        sender, data = self.domains.message(self.rng.randrange(_DOMAINS))
        found = _NUMBER.search(data)
        assert found is not None
        for _ in range(10):
            client = self._free.pop() if self._free else Client(self.target, SENDER, "mx.sender.test")
            cut = self.rng.randrange(len(data)) if self.rng.random() < self.faults else None
            try:
                answer = await client.send(sender, "alias@fwd.test", data, cut=cut)
            except Gone as gone:
                answer = "client hung up" if cut is not None else f"gone: {gone}"
            self._free.append(client)
            self.answers[answer[:9] if answer[:1].isdigit() else answer[:40]] += 1
            if answer.startswith("250"):
                self.taken[int(found[1])] = answer.rpartition("(")[2].rstrip(")")
                return
            if answer.startswith("5"):
                break
            await asyncio.sleep(_AGAIN)
        self.given_up += 1


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Least squares, per second."""
    count = len(points)
    if count < 2:
        return 0.0
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


async def main(args: argparse.Namespace) -> int:
    rng = random.Random(args.seed)
    domains, arrived = Domains(), Counter[int]()
    looks: dict[int, list[tuple[float, float, int]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        keys = Path(folder) / "keys"
        demo_lab.make_keys(keys)
        port = free_port(FORWARDER, SENDER, SINK)
        loop = asyncio.get_running_loop()
        sink = await loop.create_server(lambda: _Sink(arrived, args.faults, rng), SINK, port, backlog=1024)
        look_up = _with_our_keys(domains, keys)
        async with (
            run_names(look_up, ttl=_TTL, faults=args.faults, rng=rng) as names,
            service(ROOT, Ground(Path(folder), names, port), config=QUICK, log=Path(folder) / "log") as process,
        ):
            soak = _Soak((FORWARDER, port), args.faults, domains, rng)
            await soak.busy(args.probe)
            rate = args.load * await soak.busy(args.probe)
            began = loop.time()

            async def look() -> None:
                while True:
                    for pid in without_store(process.pid):
                        one = (loop.time() - began, private_mb([pid]), files(pid))
                        looks.setdefault(pid, []).append(one)
                        if not args.json:
                            print(
                                f"{one[0]:7.0f} s  {len(soak.taken):8} taken  {one[1]:7.1f} MB  {one[2]:4} files",
                                flush=True,
                            )
                    await asyncio.sleep(max(_EVERY, args.minutes * 60 / 90))

            looking = asyncio.create_task(look())
            await soak.steady(args.minutes * 60, rate)
            looking.cancel()

            def missing() -> set[str]:
                """Taken, not arrived, and not put aside either."""
                away = {id_ for number, id_ in soak.taken.items() if number not in arrived}
                return away - _dead(Path(folder) / "log") if away else away

            # What waits in the queue comes, or it is lost.
            until = loop.time() + _WAIT
            while (lost := missing()) and loop.time() < until:
                await asyncio.sleep(2)
            dead = _dead(Path(folder) / "log")
        sink.close()
    workers = []
    for pid, rows in looks.items():
        late = [one for one in rows if one[0] >= args.minutes * 60 * _WARM_UP]
        workers.append(
            {
                "pid": pid,
                "mb_per_hour": slope([(at, mb) for at, mb, _ in late]) * 3600,
                "mb": rows[-1][1],
                "files_first": late[0][2] if late else 0,
                "files_last": rows[-1][2],
                "files_most": max(one[2] for one in rows),
            }
        )
    total: dict[str, Any] = {
        "rate": rate,
        "taken": len(soak.taken),
        "given_up": soak.given_up,
        "lost": len(lost),
        "dead_letters": len(dead),
        "doubled": sum(1 for count in arrived.values() if count > 1),
        "answers": dict(soak.answers.most_common(12)),
        "workers": workers,
    }
    if args.json:
        print(json.dumps(total))
    else:
        for name, value in total.items():
            print(f"{name:12} {value}")
    return 1 if total["lost"] else 0


def _dead(log: Path) -> set[str]:
    """The messages that the service has put aside, by its ids."""
    with log.open("rb") as lines:
        return {json.loads(line)["id"] for line in lines if b'"event":"queue.dead"' in line}


def _with_our_keys(domains: Domains, keys: Path) -> Any:
    """The rule of the name server, and the service's own keys, without whose records it does not sign."""
    from bench.load import _mailkey  # noqa: PLC0415
    from forwarder.keys import KeyFile, Keys, dkim_record  # noqa: PLC0415

    ours = Keys.load(
        mailkey=[KeyFile("fwd.test", "", keys / "fwd.mailkey.pem")],
        dkim=[KeyFile("fwd.test", "rsa", keys / "fwd.rsa.pem")],
        srs_secret_file=keys / "srs.secret",
    )
    records = {
        "mailkey.fwd.test": txt_record(_mailkey(ours, "fwd.test")),
        "rsa._domainkey.fwd.test": txt_record(dkim_record(ours.dkim("fwd.test")[0])),
    }

    def look_up(name: str, rdtype: int) -> Sequence[bytes] | None:
        if name in records:
            return [records[name]] if rdtype == TXT else ()
        return domains.look_up(name, rdtype)

    return look_up


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--load", type=float, default=0.5, help="share of what it bears")
    parser.add_argument("--faults", type=float, default=0.01, help="share of messages and of DNS answers")
    parser.add_argument("--probe", type=float, default=5, help="seconds in which that is found out")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    sys.exit(uvloop.run(main(parser.parse_args())))
