"""Several worker processes as one service: killed, reloaded, stopped and orphaned, under load. The real program, a real store."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from forwarder.cli.freeport import free_port
from forwarder.store.client import StoreClient
from forwarder.store.server import EmbeddedStore
from tests.fakes import MemoryJournal
from tests.faults.mta import Mta, beside
from tests.faults.service import LISTEN, SINK, SOURCE, Service, service
from tests.faults.test_stop import HEADER, client, ended, refuses, send_signal
from tests.peers.smtp_sink import DEFAULT, HANG, SmtpSink
from tests.suites import ROOT
from tests.test_servicemanager import hear, listening
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's ways with processes are Linux's")


@asynccontextmanager
async def crew(folder: Path, workers: int = 2, **more: str) -> AsyncIterator[Service]:
    """The service with so many workers, all of them serving."""
    async with service(folder, start=False, relay=more.pop("relay", "")) as it:
        await it.start(FORWARDER_WORKERS=str(workers), **more)
        await until(lambda: it.events("service.ready"), 30)
        yield it


def pids(it: Service) -> dict[int, int]:
    """The process that serves as each worker now, by its number."""
    return {one["number"]: one["pid"] for one in it.events("worker.started")}


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Somebody has to take it off the table.
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def is_gone(pid: int, seconds: float = 10) -> None:
    await until(lambda: not lives(pid), seconds)


async def test_both_serve_and_the_log_says_who(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(60)]
    async with crew(tmp_path) as it, SmtpSink(host=SINK, port=it.port) as sink:
        mta = Mta(LISTEN, it.port, SOURCE)
        await mta.send_all(names)

        assert mta.books.acknowledged == set(names)
        assert len(sink.messages) == len(names)
        await until(lambda: {one["worker"] for one in it.events("message.answered")} == {1, 2})
        assert it.events("service.ready")[0]["workers"] == 2


async def test_one_that_is_killed_under_load_costs_no_message_and_comes_back(tmp_path: Path) -> None:
    names = [f"k{number}" for number in range(300)]
    async with crew(tmp_path) as it, SmtpSink(host=SINK, port=it.port) as sink:
        mta, kills = Mta(LISTEN, it.port, SOURCE), 0
        async with beside(mta.send_all(names)):
            for number in (1, 2, 1):
                arrived = len(sink.messages)
                await until(lambda: len(sink.messages) >= min(arrived + 30, len(names)), 30)  # noqa: B023 - waited for at once
                before = pids(it)[number]
                os.kill(before, signal.SIGKILL)
                kills += 1
                await until(lambda: pids(it)[number] != before, 30)  # noqa: B023 - waited for at once
        await until(lambda: len({one.data for one in sink.messages}) >= len(names), 30)

        assert mta.books.acknowledged == set(names)
        assert mta.books.refused == {}
        # A second copy only of what was between the next hop's answer and its record when its worker died, and on record.
        extra = len(sink.messages) - len(names)
        assert extra <= len(it.events("claim.taken_over")) + len(it.events("queue.taken_over"))
        assert extra <= kills * mta.workers
        assert [one["code"] for one in it.events("worker.died")] == [-9] * kills
        assert len(it.events("service.ready")) == 1


async def test_one_that_keeps_dying_is_started_at_ever_longer_intervals(tmp_path: Path) -> None:
    async with crew(tmp_path) as it:
        for death in range(1, 6):
            os.kill(pids(it)[2], signal.SIGKILL)
            await until(lambda: len(it.events("worker.died")) == death, 10)  # noqa: B023 - waited for at once
            await until(lambda: len(it.events("worker.started")) == 2 + death, 10)  # noqa: B023
        told = it.events("worker.keeps_dying")

        assert [(one["number"], one["deaths"], one["again_in"]) for one in told] == [(2, 5, 1.0)]
        assert len({one["pid"] for one in it.events("worker.started") if one["number"] == 1}) == 1


async def test_hup_under_load_drops_no_session(tmp_path: Path) -> None:
    async with crew(tmp_path) as it, SmtpSink(host=SINK, port=it.port) as sink:
        mta, workers, over = Mta(LISTEN, it.port, SOURCE), pids(it), asyncio.Event()
        async with client(it) as old:
            async with beside(mta.send_until(over)) as sending:
                for done in range(1, 5):
                    arrived = len(sink.messages)
                    send_signal(it, signal.SIGHUP)
                    await until(lambda: len(it.events("service.reloaded")) == done, 30)  # noqa: B023 - waited for at once
                    await until(lambda: len(sink.messages) >= arrived + 10, 30)  # noqa: B023 - the same
                over.set()
                names = await sending
            await old.begin()
            assert (await old.say(HEADER % b"old" + b"Hello.\r\n.")).startswith(b"250")

        assert mta.books.broken == mta.books.deferred == 0
        assert len(sink.messages) == len(names) + 1
        assert pids(it) == workers
        assert it.events("fault") == it.events("service.reload_refused") == []


async def knows(it: Service, recipient: bytes, times: int = 12) -> set[bytes]:
    """What RCPT is answered, over so many connections: each worker has some of them."""
    found = set()
    for _ in range(times):
        async with client(it) as one:
            await one.say(b"MAIL FROM:<bob@sender.test>")
            found.add((await one.say(b"RCPT TO:<%s>" % recipient))[:3])
    return found


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        # The supervisor sees it.
        ("forwarder.toml", "aliases.new"),
        # The workers see it.
        ("zone.json", "worker 1: dns.zone_file"),
    ],
)
async def test_what_cannot_be_used_changes_no_worker(tmp_path: Path, broken: str, reason: str) -> None:
    async with crew(tmp_path) as it:
        config, zone = tmp_path / "forwarder.toml", tmp_path / "zone.json"
        good = config.read_text(), zone.read_text()
        wanted = good[0] + 'new = ["dest@sink.test"]\n'
        config.write_text(wanted if broken == "zone.json" else good[0] + "new = 7\n")
        if broken == "zone.json":
            zone.write_text("{")
        send_signal(it, signal.SIGHUP)
        await until(lambda: it.events("service.reload_refused"))
        assert reason in it.events("service.reload_refused")[0]["reason"]
        assert await knows(it, b"new@fwd.test") == {b"550"}

        if broken == "forwarder.toml":
            # One that is started now does not read what is broken. (The zone file of labs is read by each.)
            before = pids(it)[1]
            os.kill(before, signal.SIGKILL)
            await until(lambda: pids(it)[1] != before)
            assert await knows(it, b"alias@fwd.test") == {b"250"}

        config.write_text(wanted)
        zone.write_text(good[1])
        send_signal(it, signal.SIGHUP)
        await until(lambda: it.events("service.reloaded"))
        assert await knows(it, b"new@fwd.test") == {b"250"}


async def test_a_reload_opens_a_listener_for_all_and_closes_one(tmp_path: Path) -> None:
    port = free_port(LISTEN)
    async with crew(tmp_path) as it:
        file = tmp_path / "forwarder.toml"
        text = file.read_text()
        both, new = f'["{LISTEN}:{it.port}", "{LISTEN}:{port}"]', f'["{LISTEN}:{port}"]'
        for number, listen in enumerate((both, new), 1):
            file.write_text(text.replace(f'["{LISTEN}:{it.port}"]', listen))
            send_signal(it, signal.SIGHUP)
            await until(lambda: len(it.events("service.reloaded")) == number)  # noqa: B023 - waited for at once
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(LISTEN, it.port)
        it.port = port
        assert await knows(it, b"alias@fwd.test") == {b"250"}
        before = pids(it)[2]
        os.kill(before, signal.SIGKILL)
        await until(lambda: pids(it)[2] != before)
        assert await knows(it, b"alias@fwd.test") == {b"250"}


async def test_a_stop_finishes_what_every_worker_has_begun(tmp_path: Path) -> None:
    async with crew(tmp_path) as it, SmtpSink(host=SINK, port=it.port) as sink:
        workers = pids(it)
        async with client(it) as idle, client(it) as first, client(it) as second, client(it) as third:
            sending = (first, second, third)
            for one in sending:
                await one.begin()
                one.writer.write(HEADER % b"one%d" % id(one))
            send_signal(it, signal.SIGTERM)
            assert (await idle.answer()).startswith(b"421 4.3.2")
            assert await refuses(it)
            for one in sending:
                assert (await one.say(b"Hello.\r\n.")).startswith(b"250")
        assert await ended(it) == 0

        assert len(sink.messages) == 3
        assert it.events("fault") == it.events("drain.timeout") == []
        assert len(it.events("service.stopped")) == 1
        for pid in (*workers.values(), it.events("store_started")[0]["pid"]):
            await is_gone(pid)


async def test_a_second_signal_ends_all_of_them_at_once(tmp_path: Path) -> None:
    async with crew(tmp_path) as it:
        workers = pids(it)
        async with client(it) as one:
            await one.begin()
            send_signal(it, signal.SIGTERM)
            await until(lambda: it.events("service.stopping"))
            send_signal(it, signal.SIGTERM)
            assert await ended(it, 5) == -signal.SIGTERM
            assert await one.answer() == b""
        for pid in (*workers.values(), it.events("store_started")[0]["pid"]):
            await is_gone(pid)
        assert len(it.events("service.cut_short")) == 1


async def test_nobody_serves_on_whose_supervisor_was_killed(tmp_path: Path) -> None:
    """What is under way ends, with the store there until the last of it."""
    async with crew(tmp_path) as it, SmtpSink(host=SINK, port=it.port) as sink:
        workers, store = pids(it), it.events("store_started")[0]["pid"]
        async with client(it) as one:
            await one.begin()
            await it.kill()
            await until(lambda: len(it.events("worker.orphaned")) == 2)
            await until(lambda: len(it.events("worker.stopped")) >= 1)
            assert await refuses(it)
            assert lives(store)
            assert (await one.say(HEADER % b"one" + b"Hello.\r\n.")).startswith(b"250")
        for pid in (*workers.values(), store):
            await is_gone(pid)
        assert len(sink.messages) == 1
        assert it.events("fault") == []
        await it.start(FORWARDER_WORKERS="2")
        assert await knows(it, b"alias@fwd.test") == {b"250"}


async def test_the_store_is_back_when_its_keeper_was_killed(tmp_path: Path) -> None:
    async with crew(tmp_path) as it, SmtpSink(host=SINK, port=it.port) as sink:
        os.kill(it.events("storekeeper.started")[0]["pid"], signal.SIGKILL)
        await until(lambda: len(it.events("storekeeper.started")) == 2, 20)
        mta = Mta(LISTEN, it.port, SOURCE)
        await mta.send_all(["after"])

        assert len(sink.messages) == 1
        assert len(it.events("service.ready")) == 1


async def falls_silent(told: socket.socket, seconds: float = 1) -> None:
    """Returns when nothing has come for so long."""
    with suppress(TimeoutError):
        while True:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_recv(told, 100)


async def test_systemd_hears_of_life_only_while_every_worker_answers(tmp_path: Path) -> None:
    with listening(str(tmp_path / "notify")) as told:
        async with service(tmp_path, start=False) as it:
            await it.spawn(FORWARDER_WORKERS="2", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000")
            await hear(told, "READY=1")
            await hear(told, "WATCHDOG=1")
            os.kill(pids(it)[1], signal.SIGSTOP)
            await falls_silent(told)
            os.kill(pids(it)[1], signal.SIGCONT)
            await hear(told, "WATCHDOG=1")
            send_signal(it, signal.SIGHUP)
            await hear(told, "RELOADING=1")
            await hear(told, "READY=1")
            send_signal(it, signal.SIGTERM)
            await hear(told, "STOPPING=1")
            assert await ended(it) == 0


async def age(folder: Path) -> None:
    """As if the store had been there for years: on its first day much is passed on that it does not know."""
    journal = MemoryJournal()
    client_of_store = StoreClient(
        EmbeddedStore(folder / "state", journal=journal).admin_url, journal=journal, timeout=20
    )
    await client_of_store.command("SET", "{fwd0}:birth", b"\x0110000")
    await client_of_store.close()


async def test_a_report_that_reaches_another_worker_than_its_message_is_not_refused(tmp_path: Path) -> None:
    """A next hop that forwards in session reports before it answers."""
    async with crew(tmp_path) as it, SmtpSink({"DOT": [HANG, DEFAULT]}, host=SINK, port=it.port) as sink:
        await age(tmp_path)
        async with client(it) as sending:
            await sending.begin()
            sending.writer.write(HEADER % b"one" + b"Hello.\r\n.\r\n")
            async with asyncio.timeout(30):
                await sink.hanging.wait()
            mail = next(line for _, line in sink.commands if line.upper().startswith(b"MAIL FROM:"))
            reversible = mail.partition(b"<")[2].partition(b">")[0]
            answers = [await report(it, reversible, number) for number in range(12)]
            sink.drop_all()

        assert {text[:3] for text in answers} == {b"250", b"451"}
        assert {text[4:9] for text in answers if text.startswith(b"451")} == {b"4.4.1"}


async def report(it: Service, reversible: bytes, number: int, name: bytes = b"one") -> bytes:
    """What a report about the message of this name is answered."""
    text = (
        b"From: MAILER-DAEMON@mx.sink.test\r\nTo: <%s>\r\nMessage-ID: <r%d@mx.sink.test>\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'
        b"--b\r\n\r\nNo.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.sink.test\r\n\r\n"
        b"Final-Recipient: rfc822; dest@sink.test\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n"
        b"--b\r\nContent-Type: text/rfc822-headers\r\n\r\n%s--b--\r\n."
    ) % (reversible, number, HEADER % name)
    async with client(it) as one:
        await one.say(b"MAIL FROM:<>")
        assert (await one.say(b"RCPT TO:<%s>" % reversible)).startswith(b"250")
        await one.say(b"DATA")
        return await one.say(text)


# --- it cannot start ----------------------------------------------------------------------------------------------------


async def sentence(it: Service) -> str:
    """What it says in the end, and it ends with 1."""
    await it.spawn(FORWARDER_WORKERS="2")
    assert await ended(it, 30) == 1
    lines = it.log[-1].read_text().splitlines()
    assert "Traceback" not in "".join(lines)
    return [one for one in lines if not one.startswith("{")][-1]


async def test_two_services_do_not_share_an_address(tmp_path: Path) -> None:
    """With SO_REUSEPORT they could, and each would have half of the mail."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with crew(tmp_path / "one") as it, service(tmp_path / "two", start=False) as other:
        file = tmp_path / "two" / "forwarder.toml"
        file.write_text(file.read_text().replace(str(other.port), str(it.port)))
        assert await sentence(other) == f"forwarder: cannot listen on {LISTEN}:{it.port}: Address already in use"
        assert it.events("fault") == []


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('key = "keys/fwd', 'key = "keys/none', "none.ed25519.pem"),
        ('zone_file = "zone.json"', 'zone_file = "none.json"', "dns.zone_file"),
        ('store = "embedded"', 'store = "embedded"\n#', ""),
    ],
)
async def test_what_is_missing_is_said_in_a_sentence(tmp_path: Path, old: str, new: str, why: str) -> None:
    async with service(tmp_path, start=False) as it:
        file = tmp_path / "forwarder.toml"
        file.write_text(file.read_text().replace(old, new))
        if not why:
            # A store that cannot start: its folder is none.
            (tmp_path / "state").mkdir()
            (tmp_path / "state" / "store").write_text("")
            why = "the embedded store cannot start"
        assert why in await sentence(it)


# --- sockets from whoever starts us ---------------------------------------------------------------------------------------

#: What systemd does: descriptors from 3 on, and the pid of the program itself.
_ACTIVATE = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@asynccontextmanager
async def activated(it: Service, workers: int, sockets: list[socket.socket]) -> AsyncIterator[None]:
    """The service, started with these sockets."""

    def place() -> None:
        kept = [os.dup(one.fileno()) for one in sockets]
        for number, one in enumerate(kept, 3):
            os.dup2(one, number)

    it.log.append(it.folder / f"log.{len(it.log)}")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "FORWARDER_WORKERS": str(workers),
        "LISTEN_FDS": str(len(sockets)),
    }
    with it.log[-1].open("wb") as log:
        it.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _ACTIVATE),
            *("-P", "-m", "forwarder", "serve", "--config", str(it.folder / "forwarder.toml")),
            stderr=log,
            env=environment,
            preexec_fn=place,
            close_fds=False,
        )
    await until(lambda: it.events("service.ready"), 30)
    yield
    await it.stop()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_passed_socket_is_used_and_who_connects_between_two_lives_is_served(
    tmp_path: Path, workers: int
) -> None:
    async with service(tmp_path, start=False) as it, SmtpSink(host=SINK, port=it.port) as sink:
        with socket.create_server((LISTEN, it.port)) as passed, socket.create_server((LISTEN, 0)) as unused:
            async with activated(it, workers, [passed, unused]):
                await Mta(LISTEN, it.port, SOURCE).send_all(["one"])
                told = it.events("socket.unused")
                assert told[0]["addresses"] == ["{}:{}".format(*unused.getsockname())]
            async with client(it, greeted=False) as waiting, activated(it, workers, [passed]):
                assert (await waiting.answer()).startswith(b"220")
                await waiting.say(b"EHLO mx.sender.test")
                await waiting.begin()
                assert (await waiting.say(HEADER % b"two" + b"Hello.\r\n.")).startswith(b"250")
        assert len(sink.messages) == 2
        assert it.events("fault") == []
