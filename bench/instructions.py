"""How many instructions does a forwarded message take, and of which library? A benchmark, no test.

    ./scripts/bench instructions [--messages 60] [--one] [--keep FILE]

The service runs under callgrind (package valgrind), which counts each instruction of it and is fifty times as slow. Whatever
else the machine does, two runs differ by half a hundredth (now and then by two), so a saving shows that no clock would show.
What they take in time is another matter: a cache that misses is not counted, and valgrind's processor lacks some of what makes
RSA fast. So signatures ("_rust") are told apart. ``--one``: one message a connection, with QUIT; without, many.
``--keep``: the counts by function, for callgrind_annotate.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bench.client import Client
from bench.load import ROOT, ground, service
from bench.sender import read_pool
from forwarder.cli.demo_lab import FORWARDER, SENDER, SINK

#: Of the sender; messages come in groups of so many, as they do under load.
CONNECTIONS = 10
#: Messages ahead of those that count, for caches and connections, and seconds in which their traces leave.
WARM, SETTLED = 2 * CONNECTIONS, 3.0
_SIGNATURES = "_rust.abi3.so"


async def count(messages: int, keep: Path, *, one: bool = False) -> None:
    """Into ``keep``, as callgrind writes it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with ground(Path(folder), ["4k"]) as at:
            sink = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.sink", f"{SINK}:{at.port}"), cwd=ROOT, stdin=PIPE, stdout=PIPE
            )
            assert sink.stdout is not None
            await sink.stdout.readline()
            # Hashes of text decide where dictionaries look: the same each time.
            os.environ["PYTHONHASHSEED"] = "0"
            callgrind = ("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={keep}")
            async with service(ROOT, at, under=callgrind) as process:
                clients = [Client((FORWARDER, at.port), SENDER, "mx.sender.test") for _ in range(CONNECTIONS)]
                pool = read_pool(at.pool("4k"))
                await _send(clients, pool, WARM, one=one)
                await asyncio.sleep(SETTLED)
                await _instrument("on", process.pid)
                await _send(clients, pool, messages, one=one)
                await asyncio.sleep(SETTLED)
                await _instrument("off", process.pid)
                for client in clients:
                    client.close()
            await sink.communicate(b"")


async def _send(clients: Iterable[Client], pool: list[bytes], messages: int, *, one: bool) -> None:
    # From a start that no earlier run had: the same octets once more would be a retry.
    numbers = iter(range(began := time.time_ns(), began + messages))

    async def by(client: Client) -> None:
        for number in numbers:
            trace = b"Received: from bench by mx.sender.test id %d; Mon, 23 Nov 2026 12:30:00 +0000\r\n" % number
            answer = await client.send("bob@sender.test", "alias@fwd.test", trace + pool[number % len(pool)])
            if not answer.startswith("250"):
                raise SystemExit(f"refused: {answer}")
            if one:
                await client.quit()

    await asyncio.gather(*map(by, clients))


async def _instrument(how: str, pid: int) -> None:
    process = await asyncio.create_subprocess_exec(
        "callgrind_control", "-i", how, str(pid), stdout=DEVNULL, stderr=DEVNULL
    )
    if await process.wait():
        raise SystemExit("callgrind_control failed")


def by_library(lines: Iterable[str]) -> Counter[str]:
    """Instructions of each, by what callgrind wrote: "ob=(number) path" says whose the lines behind it are, the path only the
    first time; and the line behind "calls=" is what another function took."""
    names: dict[str, str] = {}
    found: Counter[str] = Counter()
    library, is_callee = "", False
    for line in lines:
        if match := re.match(r"(c?)ob=(\(\d+\))(?: (.+))?", line):
            if match[3]:
                names[match[2]] = match[3].rpartition("/")[2]
            if not match[1]:
                library = names[match[2]]
        elif line.startswith("calls="):
            is_callee = True
        elif line[:1] in "0123456789+-*" and line.strip():
            if not is_callee:
                found[library] += int(line.split()[1])
            is_callee = False
    return found


def _report(found: Counter[str], messages: int) -> None:
    print("thousand instructions a message")
    for library, instructions in found.most_common(10):
        print(f"{instructions / messages / 1000:10.0f}  {library}")
    print(f"{(found.total() - found[_SIGNATURES]) / messages / 1000:10.0f}  all but {_SIGNATURES}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=60)
    parser.add_argument("--one", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="FILE")
    args = parser.parse_args()
    if shutil.which("callgrind_control") is None:
        raise SystemExit("valgrind is not installed")
    with tempfile.TemporaryDirectory(prefix="bench-") as counts:
        file = args.keep or Path(counts) / "callgrind.out"
        asyncio.run(count(args.messages, file.resolve(), one=args.one))
        _report(by_library(file.read_text().splitlines()), args.messages)
