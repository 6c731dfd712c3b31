"""A destination that takes everything at once and counts what it got: a JSON line for each line of its standard input, and one
when that ends.

python -m bench.sink 127.0.0.50:2525 [--until RECIPIENTS] [--keep FILE]

``--until``: also a line once so many recipients have their message. ``--keep``: the first message goes there, its MAIL command
above it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import cast

import uvloop

from forwarder.edge.data import unstuff

__all__ = ["Session"]

_GREETING = b"220 mx.sink.test ESMTP\r\n"
_EHLO = b"250-mx.sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 100000000\r\n250 ENHANCEDSTATUSCODES\r\n"
_END = b"\r\n.\r\n"


class Session(asyncio.Protocol):
    def __init__(self, counts: Counter[str], until: int = 0, keep: Path | None = None) -> None:
        self._counts = counts
        self._until = until
        self._keep = keep
        self._buffer = bytearray()
        self._in_data = False
        self._sender = b""
        self._recipients = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        transport.write(_GREETING)
        self._counts["connections"] += 1

    def data_received(self, data: bytes) -> None:
        # An end that is cut in two lies within the last four octets of what was there before.
        searched = max(0, len(self._buffer) - len(_END))
        self._buffer += data
        while self._step(searched):
            searched = 0

    def _step(self, searched: int) -> bool:
        end = self._buffer.find(_END if self._in_data else b"\r\n", searched)
        if end < 0:
            return False
        taken = bytes(self._buffer[:end])
        del self._buffer[: end + (len(_END) if self._in_data else 2)]
        if self._in_data:
            self._take(taken)
        else:
            self._obey(taken)
        return True

    def _obey(self, line: bytes) -> None:
        match line[:4].upper():
            case b"EHLO":
                self._transport.write(_EHLO)
            case b"MAIL":
                self._sender, self._recipients = line, 0
                self._transport.write(b"250 2.1.0 ok\r\n")
            case b"RCPT":
                self._recipients += 1
                self._transport.write(b"250 2.1.5 ok\r\n")
            case b"DATA":
                self._in_data = True
                self._transport.write(b"354 go on\r\n")
            case b"QUIT":
                self._transport.write(b"221 2.0.0 bye\r\n")
                self._transport.close()
            case _:
                self._transport.write(b"250 2.0.0 ok\r\n")

    def _take(self, message: bytes) -> None:
        self._in_data = False
        self.take(message)

    def take(self, message: bytes) -> None:
        """Another sink may do something else with it."""
        if self._keep is not None and not self._counts["arrived"]:
            self._keep.write_bytes(self._sender + b"\r\n" + unstuff(message + b"\r\n"))
        header = message.partition(b"\r\n\r\n")[0]
        self._counts["arrived"] += 1
        marks = {
            "srs": b"<SRS0=" in self._sender,
            "mailkey": b"\r\nMailkey-Signature:" in b"\r\n" + header,
            "dkim": header.count(b"DKIM-Signature:") >= 2,
            "arc": all(
                one in header for one in (b"ARC-Seal:", b"ARC-Message-Signature:", b"ARC-Authentication-Results:")
            ),
            "results": b"dkim=pass" in header,
        }
        for mark, found in marks.items():
            self._counts[mark] += found
        self._counts["sealed"] += all(marks.values())
        self._counts["recipients"] += self._recipients
        if self._until and self._counts["recipients"] >= self._until:
            self._until = 0
            print("all", flush=True)
        self.say(b"250 2.0.0 taken\r\n")

    def say(self, reply: bytes) -> None:
        """One reply."""
        self._transport.write(reply)

    def drop(self) -> None:
        """The connection, without a word."""
        self._transport.abort()


async def _main(args: argparse.Namespace) -> None:
    host, _, port = args.address.rpartition(":")
    counts: Counter[str] = Counter(arrived=0, sealed=0, connections=0, recipients=0)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Session(counts, args.until, args.keep), host, int(port), backlog=1024)
    print("ready", flush=True)
    used = time.process_time()
    open_ = True
    while open_:
        open_ = bool(await asyncio.to_thread(sys.stdin.buffer.readline))
        print(json.dumps({**counts, "cpu_ms": (time.process_time() - used) * 1000}), flush=True)
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--until", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    uvloop.run(_main(parser.parse_args()))
