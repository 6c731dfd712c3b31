"""A real SMTP server on loopback that does what a test tells it to, and remembers what it was told.

    async with SmtpSink() as sink:                                  # takes everything
    async with SmtpSink({"RCPT": b"550 5.1.1 nobody\\r\\n"}) as sink: # refuses every recipient

The script maps a verb (``CONNECT``, ``EHLO``, ``HELO``, ``STARTTLS``, ``AUTH``, ``RESPONSE`` (to a challenge), ``MAIL``,
``RCPT``, ``DATA``, ``BDAT`` (not the last), ``DOT`` (or the last chunk), ``RSET``, ``QUIT``) to an action, or to a list of them
for its first, second, ... occurrence on this server, the last of which repeats. An action is

    bytes              written as they are
    DROP, RESET        close the connection, or reset it
    LOST               of DOT: take the message, and close the connection without a word
    HANG               say nothing
    DEFAULT            what a server that takes everything says
    Then(b"..", DROP)  one after the other
    Drip(b"..", 0.01)  byte by byte
    a function         called with the argument of the command, returns one of these

Reading stops being line by line where the client pipelines: ``flights`` are the bytes as they arrived.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Self


class Do(Enum):
    DROP = "drop"
    RESET = "reset"
    HANG = "hang"
    DEFAULT = "default"
    LOST = "lost"


DROP, RESET, HANG, DEFAULT, LOST = Do.DROP, Do.RESET, Do.HANG, Do.DEFAULT, Do.LOST


@dataclass(frozen=True)
class Then:
    first: Action
    second: Action


@dataclass(frozen=True)
class Drip:
    """A byte each so many seconds."""

    data: bytes
    every: float


Action = bytes | Do | Then | Drip | Callable[[bytes], "bytes | Do | Then | Drip"]
Script = Mapping[str, Action | Sequence[Action]]

_DEFAULTS = {
    "CONNECT": b"220 sink.test ESMTP\r\n",
    "HELO": b"250 sink.test\r\n",
    "STARTTLS": b"220 2.0.0 go\r\n",
    "AUTH": b"235 2.7.0 welcome\r\n",
    "RESPONSE": b"235 2.7.0 welcome\r\n",
    "MAIL": b"250 2.1.0 Ok\r\n",
    "RCPT": b"250 2.1.5 Ok\r\n",
    "DATA": b"354 go on\r\n",
    "BDAT": b"250 2.0.0 got it\r\n",
    "DOT": b"250 2.0.0 Ok: queued as 4TEST\r\n",
    "RSET": b"250 2.0.0 Ok\r\n",
    "NOOP": b"250 2.0.0 Ok\r\n",
    "QUIT": b"221 2.0.0 Bye\r\n",
}


@dataclass
class Received:
    """One message that was taken to its dot: arguments as sent, ``data`` with the stuffing undone."""

    mail: bytes
    rcpts: list[bytes]
    data: bytes
    connection: int
    tls: str | None


@dataclass
class SmtpSink:
    script: Script = field(default_factory=dict)
    extensions: Sequence[bytes] = (b"PIPELINING", b"8BITMIME", b"SMTPUTF8", b"SIZE 104857600", b"ENHANCEDSTATUSCODES")
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    port: int = 0

    messages: list[Received] = field(default_factory=list)
    commands: list[tuple[int, bytes]] = field(default_factory=list)
    flights: list[bytes] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    most_open: int = 0

    async def __aenter__(self) -> Self:
        self._counts: dict[str, int] = {}
        self._changed = asyncio.Event()
        #: Set when the server says nothing because it was told so.
        self.hanging = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.close()
        self.drop_all()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def until_open(self, count: int) -> None:
        """Wait for this many connections to be open."""
        async with asyncio.timeout(30):
            while self.open != count:
                self._changed.clear()
                await self._changed.wait()

    def drop_all(self) -> None:
        """Close every open connection."""
        for task in self._tasks:
            task.cancel()

    def verbs(self, connection: int | None = None) -> list[str]:
        """What was said, in order."""
        return [line.split(b" ")[0].split(b":")[0].decode() for one, line in self.commands if connection in (None, one)]

    # --- one session

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.clients.append(writer.get_extra_info("peername")[0])
        task = asyncio.ensure_future(self._session(reader, writer, self.connections))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.open += 1
        self._changed.set()
        self.most_open = max(self.most_open, self.open)
        try:
            await _Session(self, reader, writer, number).run()
        except (ConnectionError, asyncio.CancelledError, _Over, ssl.SSLError, EOFError):
            pass
        finally:
            self.open -= 1
            self._changed.set()
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    def next_action(self, verb: str) -> Action:
        action = self.script.get(verb, DEFAULT)
        if isinstance(action, Sequence) and not isinstance(action, bytes):
            count = self._counts.get(verb, 0)
            self._counts[verb] = count + 1
            return action[min(count, len(action) - 1)]
        return action


class _Over(Exception):
    """The session ends here."""


class _Session:
    def __init__(self, sink: SmtpSink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.sink = sink
        self.reader = reader
        self.writer = writer
        self.number = number
        self.buffer = b""
        self.tls: str | None = None
        self.mail = b""
        self.rcpts: list[bytes] = []
        self.chunks: list[bytes] = []

    async def run(self) -> None:
        await self.act("CONNECT", b"")
        while True:
            line = await self.read_until(b"\r\n")
            self.sink.commands.append((self.number, line))
            verb, _, argument = line.partition(b" ")
            name = verb.split(b":")[0].upper().decode("ascii", "replace")
            if name == "BDAT":
                await self.read_chunk(argument)
                continue
            said = await self.act(name, argument)
            await self.follow(name, argument, said)

    async def follow(self, name: str, argument: bytes, said: bytes) -> None:
        """What a command does, if it was answered with yes."""
        yes = said[:1] in (b"2", b"3")
        match name:
            case "MAIL" if yes:
                self.mail, self.rcpts, self.chunks = argument, [], []
            case "RCPT" if yes:
                self.rcpts.append(argument)
            case "DATA" if said.startswith(b"354"):
                await self.read_message()
            case "AUTH" | "RESPONSE" if said.startswith(b"334"):
                line = await self.read_until(b"\r\n")
                self.sink.commands.append((self.number, line))
                await self.follow("RESPONSE", line, await self.act("RESPONSE", line))
            case "STARTTLS" if yes and self.sink.tls:
                await self.writer.start_tls(self.sink.tls)
                self.tls = self.writer.get_extra_info("ssl_object").version()
            case "RSET" | "EHLO" | "HELO":
                self.mail, self.rcpts, self.chunks = b"", [], []
            case "QUIT" if yes:
                raise _Over
            case _:
                pass

    async def read_message(self) -> None:
        # The CRLF of the DATA line counts, so that an empty message ends at once.
        self.buffer = b"\r\n" + self.buffer
        data = ((await self.read_until(b"\r\n.\r\n")) + b"\r\n").replace(b"\r\n..", b"\r\n.")[2:]
        received = Received(self.mail, self.rcpts, data, self.number, self.tls)
        action = self.sink.next_action("DOT")
        said = await self.perform(action, "DOT", data)
        self.mail, self.rcpts = b"", []
        if said.startswith(b"250"):
            self.sink.messages.append(received)

    async def read_chunk(self, argument: bytes) -> None:
        size, _, last = argument.partition(b" ")
        while len(self.buffer) < int(size):
            await self.fill()
        self.chunks.append(self.buffer[: int(size)])
        self.buffer = self.buffer[int(size) :]
        if not last:
            await self.act("BDAT", argument)
            return
        received = Received(self.mail, self.rcpts, b"".join(self.chunks), self.number, self.tls)
        said = await self.act("DOT", argument)
        self.mail, self.rcpts, self.chunks = b"", [], []
        if said.startswith(b"250"):
            self.sink.messages.append(received)

    async def act(self, verb: str, argument: bytes) -> bytes:
        return await self.perform(self.sink.next_action(verb), verb, argument)

    async def perform(self, action: Action, verb: str, argument: bytes) -> bytes:
        """Do it; the bytes that were said."""
        if callable(action):
            action = action(argument)
        match action:
            case bytes():
                self.writer.write(action)
                await self.writer.drain()
                return action
            case Then(first, second):
                said = await self.perform(first, verb, argument)
                await self.perform(second, verb, argument)
                return said
            case Drip(data, every):
                for octet in data:
                    self.writer.write(bytes([octet]))
                    await self.writer.drain()
                    await asyncio.sleep(every)
                return data
            case Do.HANG:
                self.sink.hanging.set()
                await asyncio.sleep(3600)
            case Do.DROP:
                self.writer.close()
                raise _Over
            case Do.LOST:
                self.writer.close()
                return b"250"
            case Do.RESET:
                sock: socket.socket = self.writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.writer.transport.abort()
                raise _Over
        return await self.perform(self.default(verb), verb, argument)

    def default(self, verb: str) -> bytes:
        if verb == "EHLO":
            offered = [b"sink.test", *self.sink.extensions]
            if self.sink.tls and not self.tls:
                offered.append(b"STARTTLS")
            return b"".join(b"250%b%b\r\n" % (b"-" if one is not offered[-1] else b" ", one) for one in offered)
        if verb in ("DATA", "BDAT") and not self.rcpts:
            return b"554 5.5.1 no valid recipients\r\n"
        return _DEFAULTS.get(verb, b"502 5.5.1 what?\r\n")

    async def read_until(self, end: bytes) -> bytes:
        """Up to ``end``, which is dropped."""
        while (at := self.buffer.find(end)) < 0:
            await self.fill()
        found, self.buffer = self.buffer[:at], self.buffer[at + len(end) :]
        return found

    async def fill(self) -> None:
        data = await self.reader.read(65536)
        if not data:
            raise EOFError
        self.sink.flights.append(data)
        self.buffer += data
