"""What does a queue full of mail cost? The time to start on it, memory, and the patience of everybody else; a benchmark, no test.

    ./scripts/backlog start                  100,000 messages wait: when does it listen, when does it deliver, in how much memory?
    ./scripts/backlog dead                   50,000 wait for a next hop that never answers: how long does all other mail take?
    ./scripts/backlog dead --hop refuses     nobody listens there; --hop busy: it says 451 to each message

Everything is real and on loopback: the embedded store filled by the queue's own code, the service as a process, next hops that
are SMTP servers of this process. Figures of one run are to be compared with each other: machines differ, and so do their hours.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from statistics import quantiles

from forwarder.app import open_state
from forwarder.cli.demo_lab import free_port, make_keys
from forwarder.config import load
from forwarder.model import Address, Delivery, Envelope, Peer, Recipient
from forwarder.ports import Forwarded, Held, Waiting
from forwarder.store.queue import RedisQueue
from forwarder.telemetry import SilentJournal

SENDER, LISTEN, SINK, DEAD = "127.0.0.10", "127.0.0.25", "127.0.0.50", "127.0.0.66"
ROOT = Path(__file__).resolve().parent.parent
#: Next hops that the waiting mail is for.
HOPS = 100
#: Items of one put, and puts at once.
GROUP, AT_ONCE = 50, 4
#: Messages of each kind that are not counted: connections, caches and look-ups are cold.
WARM = 100
#: Seconds that anything may take before the run is given up.
PATIENCE = 120.0

CONFIG = """\
hostname = "mx.fwd.test"
listen = ["{listen}:{port}"]
state_dir = "state"
[srs]
domain = "fwd.test"
secret_file = "keys/srs.secret"
[dns]
zone_file = "zone.json"
[[keys.dkim]]
domain = "fwd.test"
selector = "ed"
key = "keys/fwd.ed25519.pem"
[relay]
port = {port}
allow_private = true
[domains."fwd.test".aliases]
now = ["dest@h0.test"]
[domains."later.test"]
hold = "always"
srs_domain = "fwd.test"
[domains."later.test".aliases]
now = ["dest@h1.test"]
"""


def zone() -> dict[str, dict[str, list[str]]]:
    """All next hops are one host, but for the one that never answers."""
    return {
        "sender.test": {"TXT": [f"v=spf1 ip4:{SENDER} -all"], "MX": ["10 mx.sender.test"]},
        "mx.sender.test": {"A": [SENDER]},
        "mx.sink.test": {"A": [SINK]},
        "dead.test": {"MX": ["10 mx.dead.test"]},
        "mx.dead.test": {"A": [DEAD]},
        **{f"h{number}.test": {"MX": ["10 mx.sink.test"]} for number in range(HOPS)},
    }


# --- next hops and clients --------------------------------------------------------------------------------------------


class Sink(asyncio.Protocol):
    """Takes everything, keeps nothing but when each message came; or, ``busy``, takes no recipient."""

    def __init__(self, arrived: dict[bytes, float], *, busy: bool = False) -> None:
        self._arrived, self._rest, self._data, self._busy = arrived, b"", False, busy
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._rest += data
        while True:
            message, found, rest = self._rest.partition(b"\r\n.\r\n" if self._data else b"\r\n")
            if not found:
                return
            self._rest = rest
            self._transport.write(self._answer(message))

    def _answer(self, text: bytes) -> bytes:
        if self._data:
            self._data = False
            self._arrived[text.partition(b"\r\nSubject: ")[2].partition(b"\r\n")[0]] = time.monotonic()
            return b"250 2.0.0 ok\r\n"
        verb = text[:4].upper()
        if self._busy and verb in (b"RCPT", b"DATA"):
            return b"451 4.3.2 not now\r\n"
        self._data = verb == b"DATA"
        if verb == b"EHLO":
            return b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
        return b"354 go on\r\n" if self._data else b"250 2.0.0 ok\r\n"


async def send(port: int, recipient: str, name: str) -> float:
    """The seconds from the first command to the last answer, on a connection that is open already."""
    reader, writer = await asyncio.open_connection(LISTEN, port, local_addr=(SENDER, 0))
    try:
        await _answer(reader)
        await _say(writer, reader, "EHLO mx.sender.test")
        began = time.monotonic()
        for line in ("MAIL FROM:<bob@sender.test>", f"RCPT TO:<{recipient}>", "DATA"):
            await _say(writer, reader, line)
        writer.write(message(name) + b".\r\n")
        await _answer(reader)
        return time.monotonic() - began
    finally:
        writer.close()


async def _say(writer: asyncio.StreamWriter, reader: asyncio.StreamReader, line: str) -> None:
    writer.write(line.encode() + b"\r\n")
    await _answer(reader)


async def _answer(reader: asyncio.StreamReader) -> None:
    while True:
        line = await reader.readline()
        if line[:1] not in (b"2", b"3"):
            raise OSError(f"the service says {line!r}")
        if line[3:4] != b"-":
            return


def message(name: str, octets: int = 4096) -> bytes:
    """Of about this size, like no other."""
    head = (
        f"From: <bob@sender.test>\r\nTo: <list@fwd.test>\r\nSubject: {name}\r\nDate: Mon, 23 Nov 2026 12:30:00 +0000\r\n"
        f"Message-ID: <{name}@sender.test>\r\n\r\n"
    ).encode()
    line = f"{name} the quick brown fox jumps over the lazy dog and back again\r\n".encode()
    return head + line * ((octets - len(head)) // len(line))


# --- the waiting mail -------------------------------------------------------------------------------------------------


def held(number: int, next_hop: str, octets: int) -> Held:
    """As the pipeline makes it."""
    now = datetime.now(UTC)
    sender, alias, destination = (
        Address("bob", "sender.test"),
        Address("list", "fwd.test"),
        Address(f"d{number}", next_hop),
    )
    reversible = Address("SRS0=ABCDEFGHIJKLMN=AB=sender.test=bob", "fwd.test")
    raw = message(f"w{number}", octets)
    at = raw.index(b"\r\n\r\n") + 4
    id_ = f"{number:012x}"
    return Held(
        id=f"{id_}.0",
        delivery=Delivery(
            id_, reversible, (destination,), next_hop, (raw[:at], raw[at:]), now + timedelta(days=5), attempts=1
        ),
        waiting=(
            Waiting(
                alias,
                random.randbytes(32),
                Forwarded(reversible, sender, alias, destination, f"<w{number}@sender.test>", id_, now),
            ),
        ),
        envelope=Envelope(
            id_, Peer(IPv4Address(SENDER), "mx.sender.test"), sender, (Recipient(alias, None, None),), now
        ),
        report_to=sender,
        srs_domain="fwd.test",
        header_at=0,
        queued_at=now,
    )


async def fill(queue: RedisQueue, next_hops: Iterable[str], octets: int) -> float:
    """One message for each of these. Returns the seconds it took."""
    began, groups = time.monotonic(), iter(_groups(next_hops, octets))

    async def put_all() -> None:
        for group in groups:
            await queue.put(group)

    await asyncio.gather(*(put_all() for _ in range(AT_ONCE)))
    return time.monotonic() - began


def _groups(next_hops: Iterable[str], octets: int) -> Iterable[list[Held]]:
    group: list[Held] = []
    for number, hop in enumerate(next_hops):
        group.append(held(number, hop, octets))
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group


# --- the service ------------------------------------------------------------------------------------------------------


class Lab:
    """A folder with a configuration, next hops, and the service as a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "forwarder.toml"
        self.port = free_port(LISTEN, SENDER, SINK, DEAD)
        self.arrived: dict[bytes, float] = {}
        self.process: asyncio.subprocess.Process | None = None
        #: Where the looks at the event loop go, if it is to be watched (bench.watched).
        self.looks: Path | None = None

    async def start(self) -> float:
        """Returns the seconds until it greets."""
        began = time.monotonic()
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", *(("bench.watched", str(self.looks)) if self.looks else ("forwarder",))),
                *("serve", "--config", str(self.config)),
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        async with asyncio.timeout(PATIENCE):
            while not await self._greets():
                await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def looked(self) -> dict[str, list[float]]:
        """At the loop since this was asked last."""
        assert self.process is not None
        assert self.looks is not None
        self.looks.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(PATIENCE):
            while not self.looks.exists():
                await asyncio.sleep(0.01)
        found: dict[str, list[float]] = json.loads(self.looks.read_text())
        return found

    async def _greets(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(LISTEN, self.port)
        except OSError:
            return False
        greeting = await reader.readline()
        writer.close()
        return greeting.startswith(b"220")

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()

    def memory(self) -> tuple[int, int]:
        """MiB at the most so far: of the service, and of its store."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return _peak(self.process.pid), sum(_peak(int(one)) for one in children)


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024


@asynccontextmanager
async def lab(hop: str = "hangs") -> AsyncIterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="backlog-") as name:
        it = Lab(Path(name))
        make_keys(it.folder / "keys")
        (it.folder / "zone.json").write_text(json.dumps(zone()))
        it.config.write_text(CONFIG.format(listen=LISTEN, port=it.port))
        loop = asyncio.get_running_loop()
        sink = await loop.create_server(lambda: Sink(it.arrived), SINK, it.port, backlog=1000)
        # One that hangs takes connections and says nothing.
        dead_hop = (lambda: Sink({}, busy=True)) if hop == "busy" else asyncio.Protocol
        dead = await loop.create_server(dead_hop, DEAD if hop != "refuses" else SENDER, it.port, backlog=1000)
        try:
            yield it
        finally:
            await it.stop()
            sink.close()
            dead.close()


# --- the two runs -----------------------------------------------------------------------------------------------------


async def run_start(messages: int, octets: int) -> None:
    async with lab() as it:
        async with open_state(load(it.config), SilentJournal()) as state:
            hops = (f"h{number % HOPS}.test" for number in range(messages))
            seconds = await fill(state.queue, hops, octets)
            print(f"{messages} messages of {octets} octets put in {seconds:.1f} s ({messages / seconds:.0f} a second)")
            print(f"store: {await used(state.queue)} MiB of memory, {on_disk(it)} MiB on the disk")
        began = time.monotonic()
        print(f"listens after {await it.start():.2f} s")
        async with asyncio.timeout(PATIENCE):
            while not it.arrived:
                await asyncio.sleep(0.01)
        print(f"delivers after {min(it.arrived.values()) - began:.2f} s")
        print(f"answers a sender in {await send(it.port, 'now@fwd.test', 'new') * 1000:.0f} ms meanwhile")
        with suppress(TimeoutError):
            async with asyncio.timeout(20):
                while len(it.arrived) < messages:
                    await asyncio.sleep(0.1)
        rate = len(it.arrived) / (max(it.arrived.values()) - min(it.arrived.values()))
        service, store = it.memory()
        print(f"{len(it.arrived)} delivered in the next 20 s, {rate:.0f} a second")
        print(f"memory at the most: service {service} MiB, store {store} MiB")


async def used(queue: RedisQueue) -> int:
    """MiB, by the store's own word."""
    facts = (await queue._client.command("INFO", "memory")).decode()
    return int(facts.partition("used_memory:")[2].partition("\r")[0]) // 2**20


def on_disk(it: Lab) -> int:
    return sum(one.stat().st_size for one in (it.folder / "state/store").rglob("*") if one.is_file()) // 2**20


async def run_dead(messages: int, octets: int, probes: int, hop: str) -> None:
    """Two services side by side, one of them with the mountain, asked in turn: what else the machine does meets both."""
    async with lab(hop) as plain, lab(hop) as burdened:
        await plain.start()
        await burdened.start()
        async with open_state(load(burdened.config), SilentJournal()) as state:
            seconds = await fill(state.queue, ("dead.test" for _ in range(messages)), octets)
        print(f"{messages} messages for one next hop ({hop}) put in {seconds:.1f} s")
        for name, ask in (("in session", in_session), ("queued", queued)):
            took: dict[Lab, list[float]] = {plain: [], burdened: []}
            for number in range(probes + WARM):
                for it, seen in took.items():
                    seen.append(await ask(it, f"{name[:1]}{number}"))
            (p50, p99), (under50, under99) = (_figures(seen[WARM:]) for seen in took.values())
            print(
                f"{name:>10}  p50 {p50:.1f} -> {under50:.1f} ms, ratio {under50 / p50:.2f}"
                f"   p99 {p99:.1f} -> {under99:.1f} ms, ratio {under99 / p99:.2f}"
            )
        service, store = burdened.memory()
        print(f"memory at the most: service {service} MiB, store {store} MiB")


async def in_session(it: Lab, name: str) -> float:
    """Seconds until the answer, which says that it is delivered."""
    return await send(it.port, "now@fwd.test", name)


async def queued(it: Lab, name: str) -> float:
    """Seconds until the next hop has it, by the queue."""
    began = time.monotonic()
    await send(it.port, "now@later.test", name)
    async with asyncio.timeout(PATIENCE):
        while name.encode() not in it.arrived:
            await asyncio.sleep(0.001)
    return it.arrived[name.encode()] - began


def _figures(seconds: list[float]) -> tuple[float, float]:
    cuts = quantiles(seconds, n=100)
    return cuts[49] * 1000, cuts[98] * 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="backlog")
    runs = parser.add_subparsers(dest="run", required=True)
    for name, count, probes in (("start", 100_000, 0), ("dead", 50_000, 2000)):
        one = runs.add_parser(name)
        one.add_argument("--messages", type=int, default=count)
        one.add_argument("--octets", type=int, default=4096)
        one.add_argument("--probes", type=int, default=probes)
        one.add_argument("--hop", choices=("hangs", "refuses", "busy"), default="hangs")
    args = parser.parse_args()
    if args.run == "start":
        asyncio.run(run_start(args.messages, args.octets))
    else:
        asyncio.run(run_dead(args.messages, args.octets, args.probes, args.hop))


if __name__ == "__main__":
    main()
