"""A destination that takes everything at once and counts what it got: one JSON line when its standard input ends.

python -m bench.sink 127.0.0.50:2525 [--until RECIPIENTS]     with it, also a line once so many have their message
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import cast

import uvloop

__all__ = ["Session"]

_GREETING = b"220 mx.sink.test ESMTP\r\n"
_EHLO = b"250-mx.sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 100000000\r\n250 ENHANCEDSTATUSCODES\r\n"
_END = b"\r\n.\r\n"


class Session(asyncio.Protocol):
    def __init__(self, counts: Counter[str], until: int = 0) -> None:
        self._counts = counts
        self._until = until
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
        header = message.partition(b"\r\n\r\n")[0]
        self._counts["arrived"] += 1
        sealed = (
            b"<SRS0=" in self._sender
            and b"\r\nMailkey-Signature:" in b"\r\n" + header
            and header.count(b"DKIM-Signature:") >= 2
            and all(one in header for one in (b"ARC-Seal:", b"ARC-Message-Signature:", b"ARC-Authentication-Results:"))
            and b"dkim=pass" in header
        )
        self._counts["sealed"] += sealed
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


async def _main(host: str, port: int, until: int) -> None:
    counts: Counter[str] = Counter(arrived=0, sealed=0, connections=0, recipients=0)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Session(counts, until), host, port, backlog=1024)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    server.close()
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    _host, _, _port = sys.argv[1].rpartition(":")
    uvloop.run(_main(_host, int(_port), int(sys.argv[3]) if "--until" in sys.argv else 0))
