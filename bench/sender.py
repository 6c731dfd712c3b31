"""A sender that keeps many connections busy, or a steady rate: one JSON line with what was answered and how long it took.

    python -m bench.sender POOL 127.0.0.25:2525 127.0.0.10 --seconds 3 [--connections 20] [--each 0] [--rate 0]

Each message of the pool is signed; a Received field with a number above it makes every one that is sent a message of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

__all__ = ["percentile"]

_ENVELOPE = b"MAIL FROM:<bob@sender.test>\r\nRCPT TO:<alias@fwd.test>\r\nDATA\r\n"
_TIMEOUT = 30


class _Sender:
    def __init__(self, pool: list[bytes], target: tuple[str, int], source: str) -> None:
        self._pool = itertools.cycle(pool)
        self._target = target
        self._source = source
        # From a start that no earlier run had: the same octets once more would be a retry, and not delivered again.
        self._numbers: Iterator[int] = itertools.count(time.time_ns())
        self.latencies: list[float] = []
        self.refused: list[str] = []

    async def keep_busy(self, until: float, each: int) -> None:
        """One connection after the other, ``each`` messages on one (0: all)."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            reader, writer = await self._connect()
            try:
                for count in itertools.count(1):
                    await self._send(reader, writer)
                    if loop.time() >= until or count == each:
                        break
            finally:
                writer.write(b"QUIT\r\n")
                writer.close()

    async def keep_rate(self, until: float, rate: float, connections: int) -> None:
        """Messages at even distances, on whichever connection is free."""
        loop = asyncio.get_running_loop()
        free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        for _ in range(connections):
            free.put_nowait(await self._connect())
        running = set()
        due = loop.time()
        while due < until:
            await asyncio.sleep(due - loop.time())
            running.add(asyncio.ensure_future(self._send_on(free)))
            due += 1 / rate
        await asyncio.gather(*running)

    async def _send_on(self, free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
        reader, writer = await free.get()
        await self._send(reader, writer)
        free.put_nowait((reader, writer))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self._target, local_addr=(self._source, 0))
        await self._answer(reader)
        writer.write(b"EHLO mx.sender.test\r\n")
        await self._answer(reader)
        return reader, writer

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        writer.write(_ENVELOPE)
        answers = [await self._answer(reader) for _ in range(3)]
        if not answers[2].startswith("354"):
            self.refused.append(answers[2])
            return
        trace = b"Received: from bench by mx.sender.test id %d; Mon, 23 Nov 2026 12:30:00 +0000\r\n" % next(
            self._numbers
        )
        began = loop.time()
        writer.writelines((trace, next(self._pool), b"\r\n.\r\n"))
        answer = await self._answer(reader)
        if answer.startswith("250"):
            self.latencies.append((loop.time() - began) * 1000)
        else:
            self.refused.append(answer)

    @staticmethod
    async def _answer(reader: asyncio.StreamReader) -> str:
        async with asyncio.timeout(_TIMEOUT):
            while True:
                line = (await reader.readline()).decode("ascii", "replace")
                if line[3:4] != "-":
                    return line.strip()


def percentile(values: list[float], share: float) -> float:
    """Of a list that need not be sorted; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def read_pool(file: Path) -> list[bytes]:
    """Messages, each behind its length in four octets; dots are stuffed and the last line end is taken off."""
    octets, messages, at = file.read_bytes(), [], 0
    while at < len(octets):
        end = at + 4 + int.from_bytes(octets[at : at + 4], "big")
        messages.append(octets[at + 4 : end].replace(b"\r\n.", b"\r\n..").removesuffix(b"\r\n"))
        at = end
    return messages


async def _main(args: argparse.Namespace) -> None:
    host, _, port = args.target.rpartition(":")
    sender = _Sender(read_pool(args.pool), (host, int(port)), args.source)
    began, used = asyncio.get_running_loop().time(), time.process_time()
    until = began + args.seconds
    if args.rate:
        await sender.keep_rate(until, args.rate, args.connections)
    else:
        await asyncio.gather(*(sender.keep_busy(until, args.each) for _ in range(args.connections)))
    seconds = asyncio.get_running_loop().time() - began
    found = sender.latencies
    print(
        json.dumps(
            {
                "accepted": len(found),
                "refused": len(sender.refused),
                "why": sender.refused[:3],
                "seconds": seconds,
                "cpu_ms": (time.process_time() - used) * 1000,
                "ms_p50": statistics.median(found) if found else 0.0,
                "ms_p99": percentile(found, 0.99),
            }
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("pool", type=Path)
    parser.add_argument("target")
    parser.add_argument("source")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--each", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0)
    uvloop.run(_main(parser.parse_args()))
