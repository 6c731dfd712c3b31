"""Stop and go of the real process: SIGTERM, SIGHUP, too few files, a dead DNS. Nothing is dropped, and every answer is true."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forwarder.app import open_state
from forwarder.config import load
from tests.fakes import MemoryJournal
from tests.faults.mta import Mta, beside
from tests.faults.service import LISTEN, SINK, SOURCE, Service, service
from tests.peers.smtp_sink import HANG, SmtpSink
from tests.waiting import until

HEADER = b"From: bob@sender.test\r\nMessage-ID: <%s@sender.test>\r\n\r\n"


@dataclass
class Client:
    """One connection to the service."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self) -> bytes:
        """The last line of one reply; empty at the end of the connection."""
        async with asyncio.timeout(40):
            while (line := await self.reader.readline())[3:4] == b"-":
                pass
        return line

    async def say(self, line: bytes) -> bytes:
        self.writer.write(line + b"\r\n")
        return await self.answer()

    async def begin(self, recipient: bytes = b"alias@fwd.test") -> None:
        """Up to the message."""
        assert (await self.say(b"MAIL FROM:<bob@sender.test>")).startswith(b"250")
        assert (await self.say(b"RCPT TO:<%s>" % recipient)).startswith(b"250")
        assert (await self.say(b"DATA")).startswith(b"354")


@asynccontextmanager
async def client(it: Service, *, greeted: bool = True) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(it.host, it.port, local_addr=(SOURCE, 0))
    one = Client(reader, writer)
    try:
        if greeted:
            assert (await one.answer()).startswith(b"220")
            assert (await one.say(b"EHLO mx.sender.test")).startswith(b"250")
        yield one
    finally:
        writer.close()


def send_signal(it: Service, number: signal.Signals) -> None:
    assert it.process is not None
    it.process.send_signal(number)


async def ended(it: Service, seconds: float = 20) -> int:
    assert it.process is not None
    async with asyncio.timeout(seconds):
        return await it.process.wait()


async def refuses(it: Service) -> bool:
    """Nobody connects any more, or whoever does hears 421."""
    try:
        async with client(it, greeted=False) as one:
            return (await one.answer()).startswith(b"421 4.3.2")
    except OSError:
        return True


# --- SIGTERM -------------------------------------------------------------------------------------------------------------


async def test_a_stop_ends_idle_sessions_and_finishes_the_message_that_is_on_its_way(tmp_path: Path) -> None:
    async with service(tmp_path) as it, SmtpSink(host=SINK, port=it.port) as sink:
        async with client(it) as idle, client(it) as sending:
            await sending.begin()
            sending.writer.write(HEADER % b"one")
            send_signal(it, signal.SIGTERM)

            assert (await idle.answer()).startswith(b"421 4.3.2")
            assert await idle.answer() == b""
            assert await refuses(it)
            assert (await sending.say(b"Hello.\r\n.")).startswith(b"250")
            assert (await sending.answer()).startswith(b"421 4.3.2")
            assert await ended(it) == 0
        assert len(sink.messages) == 1
        assert sink.verbs()[-1] == "QUIT"
        assert it.events("fault") == it.events("drain.timeout") == []
        assert len(it.events("service.stopped")) == 1


async def test_a_stop_under_load_answers_every_message_it_has_begun(tmp_path: Path) -> None:
    """What was answered 250 has arrived or waits, once; what was not, comes again after the start, and arrives once."""
    names = [f"s{number}" for number in range(150)]
    async with service(tmp_path) as it, SmtpSink(host=SINK, port=it.port) as sink:
        mta = Mta(LISTEN, it.port, SOURCE)
        async with beside(mta.send_all(names)):
            for number in range(1, 4):
                await until(lambda: len(sink.messages) >= 30 * number, 30)  # noqa: B023 - waited for at once
                send_signal(it, signal.SIGTERM)
                assert await ended(it) == 0
                await it.start()
        await until(lambda: len(sink.messages) >= len(names), 30)

        assert mta.books.acknowledged == set(names)
        assert len(sink.messages) == len(names)
        assert it.events("fault") == it.events("drain.timeout") == []


async def test_what_waits_for_a_slow_destination_is_handed_back_at_once(tmp_path: Path) -> None:
    """It has not come to its dot: the stop does not wait for it, and it is due."""
    async with (
        service(tmp_path, relay="in_session = 0", lease=60) as it,
        SmtpSink({"CONNECT": HANG}, host=SINK, port=it.port) as sink,
    ):
        async with client(it) as one:
            await one.begin()
            assert (await one.say(HEADER % b"one" + b"Hello.\r\n.")).startswith(b"250")
        await sink.until_open(1)
        send_signal(it, signal.SIGTERM)
        assert await ended(it, 10) == 0

        async with open_state(load(tmp_path / "forwarder.toml"), MemoryJournal()) as state:
            items = [item async for item in state.queue.list()]
        assert [(item.leased, (item.due_in or 0) <= 0, item.dead) for item in items] == [(False, True, None)]
        assert it.events("drain.timeout") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once_and_nothing_is_lost(tmp_path: Path, number: signal.Signals) -> None:
    async with service(tmp_path) as it, SmtpSink(host=SINK, port=it.port) as sink:
        async with client(it) as one:
            await one.begin()
            send_signal(it, signal.SIGTERM)
            await until(lambda: it.events("service.stopping"))
            send_signal(it, number)

            assert await ended(it, 5) == -number
            assert await one.answer() == b""
        assert len(it.events("service.cut_short")) == 1
        await it.start()
        await Mta(LISTEN, it.port, SOURCE).send_all(["one"])
        assert len(sink.messages) == 1


async def test_it_can_be_stopped_while_it_starts(tmp_path: Path) -> None:
    async with service(tmp_path, start=False) as it:
        await it.spawn()
        await until(lambda: it.events("service.starting"))
        send_signal(it, signal.SIGTERM)

        assert await ended(it) == 0


# --- SIGHUP --------------------------------------------------------------------------------------------------------------


async def test_hup_reloads_and_says_so(tmp_path: Path) -> None:
    async with service(tmp_path) as it, SmtpSink(host=SINK, port=it.port):
        file = tmp_path / "forwarder.toml"
        good = file.read_text()
        async with client(it) as old:
            file.write_text(good + 'new = ["dest@sink.test"]\n')
            send_signal(it, signal.SIGHUP)
            await until(lambda: it.events("service.reloaded"))
            file.write_text(good + "new = 7\n")
            send_signal(it, signal.SIGHUP)
            await until(lambda: it.events("service.reload_refused"))

            async with client(it) as one:
                await one.begin(b"new@fwd.test")
            await old.say(b"MAIL FROM:<bob@sender.test>")
            assert (await old.say(b"RCPT TO:<new@fwd.test>")).startswith(b"550")
        told = it.events("service.reload_refused")[0]
        assert "aliases.new" in told["reason"]
        assert "(line " in told["reason"]
        assert it.events("fault") == []


async def test_hup_under_load_drops_nothing(tmp_path: Path) -> None:
    """The whole program on its own event loop, with connections that come and go."""
    async with service(tmp_path) as it, SmtpSink(host=SINK, port=it.port) as sink:
        mta, over = Mta(LISTEN, it.port, SOURCE), asyncio.Event()
        async with beside(mta.send_until(over)) as sending:
            for turn in range(1, 13):
                arrived = len(sink.messages)
                send_signal(it, signal.SIGHUP)
                await until(lambda: len(it.events("service.reloaded")) == turn, 30)  # noqa: B023 - waited for at once
                await until(lambda: len(sink.messages) >= arrived + 10, 30)  # noqa: B023 - the same
            over.set()
            names = await sending

        assert mta.books.broken == mta.books.deferred == 0
        assert len(sink.messages) == len(names)
        assert it.events("fault") == []


# --- too few files -------------------------------------------------------------------------------------------------------


def limit_files(it: Service, number: int) -> int:
    """Of the running process, as `prlimit` does; the hard limit stays, so that it can be raised again. Its pid."""
    assert it.process is not None
    _, hard = resource.prlimit(it.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(it.process.pid, resource.RLIMIT_NOFILE, (number, hard))
    return it.process.pid


def files_of(pid: int) -> int:
    """How many are open."""
    if os.geteuid() != 0:
        pytest.skip("only root looks into a process that hides its memory")
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def connect_all(it: Service, number: int) -> list[Client]:
    """As many connections as this, with what they were greeted with unread."""
    return [Client(*await asyncio.open_connection(LISTEN, it.port, local_addr=(SOURCE, 0))) for _ in range(number)]


def seconds_of(pid: int) -> float:
    """Processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_with_64_files_those_who_are_too_many_hear_421_and_the_rest_is_served(tmp_path: Path) -> None:
    async with service(tmp_path) as it, SmtpSink(host=SINK, port=it.port) as sink:
        pid = limit_files(it, 64)
        clients = await connect_all(it, 100)
        greetings = [await one.answer() for one in clients]
        served = [one for one, text in zip(clients, greetings, strict=True) if text.startswith(b"220")]
        assert len(served) >= 8
        assert {text[:9] for text in greetings if not text.startswith(b"220")} == {b"421 4.3.2"}

        async def deliver(one: Client, number: int) -> bytes:
            await one.say(b"EHLO mx.sender.test")
            await one.begin()
            return await one.say(HEADER % b"f%d" % number + b"Hello.\r\n.")

        answers = await asyncio.gather(*(deliver(one, number) for number, one in enumerate(served)))
        assert {text[:3] for text in answers} == {b"250"}
        before, began = seconds_of(pid), time.monotonic()
        for one in clients:
            one.writer.close()
        await Mta(LISTEN, it.port, SOURCE).send_all(["after"])
        assert seconds_of(pid) - before < 0.5 + 0.5 * (time.monotonic() - began)
        await until(lambda: len(sink.messages) == len(served) + 1, 20)
        assert it.events("fault") == []


async def test_with_no_file_left_it_neither_dies_nor_spins_and_recovers(tmp_path: Path) -> None:
    async with service(tmp_path) as it, SmtpSink(host=SINK, port=it.port) as sink:
        assert it.process is not None
        pid = it.process.pid
        held = await connect_all(it, 5)
        for one in held:
            assert (await one.answer()).startswith(b"220")
        limit_files(it, files_of(pid))
        before, began = seconds_of(pid), time.monotonic()
        late = await connect_all(it, 50)
        # Those in session have no file for their next hop: it is ours to wait, and not the destination's fault.
        await held[0].say(b"EHLO mx.sender.test")
        await held[0].begin()
        assert (await held[0].say(HEADER % b"early" + b"Hello.\r\n.")).startswith((b"250", b"451"))
        assert any("Too many open files" in str(one) for one in it.events("relay.connect"))
        assert seconds_of(pid) - before < 0.5 + 0.5 * (time.monotonic() - began)
        for one in (*late, *held):
            one.writer.close()
        limit_files(it, 256)
        mta = Mta(LISTEN, it.port, SOURCE)
        await mta.send_all(["early", "after"])

        await until(lambda: len(sink.messages) == 2, 20)
        assert it.process.returncode is None
        assert it.events("fault") == []


# --- start ---------------------------------------------------------------------------------------------------------------


async def test_it_listens_within_five_seconds_while_the_dns_is_dead(tmp_path: Path) -> None:
    """A name server that never answers: the keys' records cannot be looked up, and mail is answered 451 at the worst."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        async with service(tmp_path, start=False) as it:
            file = tmp_path / "forwarder.toml"
            address = "{}:{}".format(*silent.getsockname())
            file.write_text(file.read_text().replace('zone_file = "zone.json"', f'nameservers = ["{address}"]'))
            for turn in range(3):
                await it.start()
                connected = datetime.now(UTC)
                async with client(it) as one:
                    greeted = datetime.now(UTC)
                    await one.begin()
                # Without the time that Python takes to read its modules, which on a busy machine is anything.
                starting, ready = (
                    datetime.fromisoformat(it.events(f"service.{name}")[-1]["time"]) for name in ("starting", "ready")
                )
                print(
                    f"with a dead DNS: takes connections after {connected - starting}, greets after {greeted - starting}"
                )
                # Once more where the machine was busy: what waits for the DNS waits each time.
                if connected - starting < timedelta(seconds=5) and ready - starting < timedelta(seconds=5):
                    break
                assert turn < 2
                await it.stop()
