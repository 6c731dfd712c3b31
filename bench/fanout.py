"""What does a list of 10,000 cost? A real service, one alias, that many destinations behind one next hop; a benchmark, no test.

    ./scripts/bench fanout                       10,000 destinations, messages of 4 KB and of 1 MB
    ./scripts/bench fanout --recipients 1000 --workload 4k

CPU is that of the whole process tree, its store included, from the first octet of the message to the last delivery. "scripts" are
those that the store was asked to run, by its own count (INFO commandstats). "in_one_go_ms" is the CPU that the event loop took at
most between two turns for all others, and "in_one_go_p99" what 99 of 100 looks found; they are taken from other messages, to
another start of the service (``--watched`` of them), since to look a thousand times a second costs something itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import redis

from bench.cost import cpu_ms, memory_mb
from bench.load import CONFIG, ROOT, Ground, ground, service
from bench.sender import read_pool
from forwarder.cli.demo_lab import FORWARDER, SENDER, SINK

#: Seconds that the deliveries of one message may take.
PATIENCE = 180.0
ENVELOPE = b"MAIL FROM:<bob@sender.test>\r\nRCPT TO:<list@fwd.test>\r\nDATA\r\n"


def config(recipients: int) -> str:
    """That of the other benchmarks, with a list."""
    targets = ", ".join(f'"r{number}@sink.test"' for number in range(recipients))
    return f"{CONFIG}list = [{targets}]\n"


async def send(at: Ground, message: bytes) -> float:
    """Seconds from the final dot to the 250."""
    reader, writer = await asyncio.open_connection(FORWARDER, at.port, local_addr=(SENDER, 0))
    for said, wanted in ((b"", b"220"), (b"EHLO mx.sender.test\r\n", b"250 "), (ENVELOPE, b"354")):
        writer.write(said)
        while not (line := await reader.readline()).startswith(wanted):
            if not line or line[:1] in b"45":
                raise SystemExit(f"refused: {line.decode()}")
    writer.write(b"Received: from bench by mx.sender.test id %d\r\n" % time.time_ns() + message + b"\r\n.\r\n")
    began = time.perf_counter()
    answer = await reader.readline()
    took = time.perf_counter() - began
    if not answer.startswith(b"250"):
        raise SystemExit(f"refused: {answer.decode()}")
    writer.close()
    return took


class Store:
    """The embedded one of a service, looked at from outside."""

    def __init__(self, state: Path) -> None:
        self._redis = redis.Redis(unix_socket_path=str(next(state.rglob("*.sock"))))

    def calls(self) -> dict[str, int]:
        """Commands by name since it was started."""
        return {name: found["calls"] for name, found in self._redis.info("commandstats").items()}

    def is_empty(self) -> bool:
        """Does no body lie there? Without a look at every key, which would be counted as the service's."""
        return not int(self._redis.hget("{fwd0}:qn", "octets") or 0)

    def bodies(self) -> tuple[int, int]:
        """How many lie there, and their octets."""
        keys = list(self._redis.scan_iter(match="*:qb:*", count=1000))
        return len(keys), sum(self._redis.hstrlen(key, "o") for key in keys)


async def one(process: Process, at: Ground, store: Store, message: bytes, recipients: int) -> dict[str, Any]:
    """One message to the whole list."""
    sink = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.sink", f"{SINK}:{at.port}", "--until", str(recipients)),
        cwd=ROOT,
        stdin=PIPE,
        stdout=PIPE,
    )
    assert sink.stdout is not None
    await sink.stdout.readline()
    before, calls = cpu_ms(process.pid), store.calls()
    began = time.perf_counter()
    answered = await send(at, message)
    bodies, octets = store.bodies()
    async with asyncio.timeout(PATIENCE):
        await sink.stdout.readline()
    took = time.perf_counter() - began
    while not store.is_empty():
        await asyncio.sleep(0.05)
    after = cpu_ms(process.pid)
    trips = {
        name.removeprefix("cmdstat_"): count - calls.get(name, 0)
        for name, count in store.calls().items()
        if name in ("cmdstat_evalsha", "cmdstat_eval")
    }
    arrived = json.loads((await sink.communicate(b""))[0])
    return {
        "cpu_ms_a_recipient": (after - before) / recipients,
        "answered_s": answered,
        "all_s": took,
        "recipients": arrived["recipients"],
        "transactions": arrived["arrived"],
        "unsealed": arrived["arrived"] - arrived["sealed"],
        "bodies": bodies,
        "body_octets": octets,
        "scripts": sum(trips.values()),
        "memory_mb": memory_mb(process.pid),
    }


class Loop:
    """The event loop of a service that is watched (bench.watched)."""

    def __init__(self, process: Process, file: Path) -> None:
        self._process = process
        self._file = file

    async def looked(self) -> list[float]:
        """Its CPU in ms, by each look since this was asked last, the least first."""
        self._file.unlink(missing_ok=True)
        self._process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(PATIENCE):
            while not self._file.exists():
                await asyncio.sleep(0.01)
        cpu: list[float] = json.loads(self._file.read_text())["cpu"]
        # The first is that of the signal: writing down all looks before it.
        return sorted(cpu[1:])


async def main(args: argparse.Namespace) -> int:
    """Prints as it goes; 1 where a recipient got nothing, or a body was stored twice."""
    bad = 0
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with ground(Path(folder), args.workload) as at:
            for name in args.workload:
                message = read_pool(at.pool(name))[0]
                for count, looks in ((args.rounds, None), (args.watched, Path(folder) / "looks")):
                    if count:
                        bad |= await several(args, at, name, message, count, looks)
    return bad


async def several(
    args: argparse.Namespace, at: Ground, name: str, message: bytes, count: int, looks: Path | None
) -> bool:
    """So many messages to one start of the service. True: something went wrong."""
    bad = False
    began = time.perf_counter()
    async with service(args.checkout, at, config=config(args.recipients), looks=looks) as process:
        ready = time.perf_counter() - began
        store = Store(process_state(process.pid))
        loop = Loop(process, looks) if looks is not None else None
        for _ in range(count):
            if loop is not None:
                # Once what the service does when it is ready is over: it looks for garbage, and sets aside what stays.
                await asyncio.sleep(1)
                await loop.looked()
            found = await one(process, at, store, message, args.recipients)
            if loop is not None:
                # Its trace leaves for the store within a second.
                await asyncio.sleep(1)
                cpu = await loop.looked()
                found |= {"in_one_go_ms": cpu[-1], "in_one_go_p99": cpu[len(cpu) * 99 // 100]}
            shown = (f"{key} {_short(value)}" for key, value in found.items())
            print(name, f"ready_s {ready:.1f}", *shown, flush=True)
            bad |= found["recipients"] != args.recipients or found["bodies"] > 1 or found["unsealed"] > 0
    return bad


def process_state(pid: int) -> Path:
    """Where this service has its state."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return Path(command[command.index(b"--config") + 1].decode()).parent / "state"


def _short(value: float) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipients", type=int, default=10_000)
    parser.add_argument("--workload", type=lambda names: names.split(","), default=["4k", "1m"])
    parser.add_argument("--rounds", type=int, default=2, help="messages whose CPU is measured")
    parser.add_argument("--watched", type=int, default=3, help="messages during which the event loop is watched")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="another working tree")
    sys.exit(asyncio.run(main(parser.parse_args())))
