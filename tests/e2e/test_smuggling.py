"""What two servers could read as two messages ends here: other people's end-of-data sequences and dialogues, on the wire."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from forwarder.cli.demo_lab import FORWARDER, SENDER
from tests.e2e.lab import Lab, lab
from tests.suites import suite

HEADER = b"From: Bob <bob@sender.test>\r\nSubject: outer\r\nMessage-ID: <outer@sender.test>\r\n\r\nouter"
SMUGGLED = (
    b"MAIL FROM:<smuggled@sender.test>\r\nRCPT TO:<alias@fwd.test>\r\nDATA\r\n"
    b"From: smuggled@sender.test\r\nSubject: smuggled\r\n\r\ninner\r\n.\r\nQUIT\r\n"
)
#: Nothing but its form decides about a message here: there is no mailkey and no DMARC policy.
ZONE: dict[str, dict[str, list[str]]] = {"_dmarc.sender.test": {}, "mailkey.sender.test": {}}


class Wire:
    """A client that says exactly the octets it is given."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def say(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def line(self) -> str:
        """The last line of the next reply; empty where the server has closed."""
        async with asyncio.timeout(30):
            while True:
                line = (await self._reader.readline()).decode()
                if line[3:4] != "-":
                    return line.rstrip("\r\n")

    async def ask(self, command: bytes) -> str:
        self.say(command + b"\r\n")
        return await self.line()

    async def rest(self) -> list[str]:
        """Every reply until the server closes."""
        found = []
        while line := await self.line():
            found.append(line)
        return found


@asynccontextmanager
async def wire(it: Lab) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection(FORWARDER, it.port, local_addr=(SENDER, 0))
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


async def test_no_end_of_data_but_the_true_one_ends_a_message(tmp_path: Path) -> None:
    cases = json.loads((suite("smtp-smuggling") / "eod-sequences.json").read_text())
    assert len(cases) >= 10
    async with lab(tmp_path, zone=ZONE) as it:
        for case in cases:
            async with wire(it) as peer:
                await peer.line()
                for command in (b"EHLO mx.sender.test", b"MAIL FROM:<bob@sender.test>", b"RCPT TO:<alias@fwd.test>"):
                    assert (await peer.ask(command)).startswith("250"), case["id"]
                assert (await peer.ask(b"DATA")).startswith("354")
                peer.say(HEADER + case["sequence"].encode() + SMUGGLED)
                replies = await peer.rest()
            # One answer, a refusal, and the connection ends: none of the commands behind it is obeyed.
            assert len(replies) == 1, (case["id"], replies)
            assert re.match("55[04] 5", replies[0]), (case["id"], replies)
            assert it.sink.waiting.empty(), case["id"]
        assert it.journal.named("fault") == []


async def play(peer: Wire, script: str) -> tuple[list[str], list[str]]:
    """The first digits of chasquid's replies, and of ours. The rest is each server's own."""
    theirs, ours = [], []
    for line in script.splitlines():
        _, how, what = (*line.split(" ", 2), "", "")[:3]
        match how:
            case "->":
                peer.say(what.replace("user@testserver", "<alias@fwd.test>").encode() + b"\r\n")
            case "~>":
                peer.say(_evaluate(what))
            case "<-" | "<~" | "<...":
                theirs.append(what[:1])
                ours.append((await peer.line())[:1])
    return theirs, ours


def _evaluate(expression: str) -> bytes:
    """The suite's Python expressions: literals, ``+`` and ``*``."""

    def value(node: ast.expr) -> str | int:
        match node:
            case ast.Constant(str() | int() as constant):
                return constant
            case ast.BinOp(left, ast.Add(), right):
                return str(value(left)) + str(value(right))
            case ast.BinOp(left, ast.Mult(), right):
                return str(value(left)) * int(value(right))
        raise ValueError(ast.dump(node))

    return str(value(ast.parse(expression, mode="eval").body)).encode()


async def test_chasquids_dialogues_get_answers_of_the_same_class(tmp_path: Path) -> None:
    folder = suite("smtp-chasquid")
    scripts = sorted(folder.glob("*.cmy"))
    assert len(scripts) >= 7
    async with lab(tmp_path, zone=ZONE, extra="[limits]\nmessage_size = 1048576") as it:
        for script in scripts:
            async with wire(it) as peer:
                theirs, ours = await play(peer, script.read_text())
            assert ours == theirs, script.name
        # The one message among them, its dots as they were written.
        arrived = await it.next(it.sink)
        written = (folder / "data_dot_stuffing.cmy.verify").read_bytes().replace(b"\n", b"\r\n")
        assert arrived.data.rstrip().endswith(written.rstrip())
        assert it.sink.waiting.empty()
        assert it.journal.named("fault") == []
