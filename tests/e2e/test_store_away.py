"""What the store was asked when it stopped, and what the program does with mail on its way when it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from forwarder.app import App
from forwarder.cli.demo_lab import FORWARDER, SENDER
from forwarder.config import load
from forwarder.dispatch import dispatcher
from forwarder.store.dial import PATIENCE
from tests.e2e.lab import MESSAGE, Lab, lab
from tests.e2e.test_outage import LONG, OTHER, TWO_HOSTS, gone, started, team
from tests.e2e.test_smuggling import Wire
from tests.peers.chaos import ChaosProxy, Weather
from tests.peers.smtp_sink import DEFAULT, Action, Drip, SmtpSink
from tests.peers.topologies import sentinels
from tests.peers.valkey import valkey
from tests.waiting import HASTY, PATIENT, until

SLOW = 'slow = ["two@other.test"]'
SOON = "[queue]\nfirst_retry = 0.05\nmax_retry = 0.1\n"
LATE = Drip(b"250 2.0.0 Ok: queued\r\n", 0.04)


@contextmanager
def store_stopped(it: Lab) -> Iterator[None]:
    """The store stands, with its connections open; what it is asked now it does when it wakes."""
    pid = it.app.store_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def until_250(attempt: Callable[[], Awaitable[str]]) -> None:
    """A sender that retries, in quick motion: half a minute of it, since a store of a busy machine may be away once more."""
    answer = ""
    for _ in range(600):
        answer = await attempt()
        if answer.startswith("250"):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(answer)


@pytest.mark.parametrize("what", ["several destinations", "opaque sender", "report"])
async def test_the_first_to_meet_an_outage_is_not_held_off_after_it(tmp_path: Path, what: str) -> None:
    async with lab(tmp_path, store_timeout=HASTY, zone=TWO_HOSTS) as it, SmtpSink(host=OTHER, port=it.port) as other:
        assert (await it.send(it.signed())).startswith("250")
        before = await it.next(it.sink)
        several, opaque = team(it), it.signed(sender=LONG)

        async def attempt() -> str:
            match what:
                case "several destinations":
                    return await it.send(several, recipient="team@fwd.test")
                case "opaque sender":
                    return await it.send(opaque, LONG)
                case _:
                    return await it.bounce(before)

        with store_stopped(it):
            assert (await attempt()).startswith("451 4.3.0")
        await until_250(attempt)
        assert (await attempt()).startswith("250")
        await it.next(it.sender if what == "report" else it.sink)
        assert len(other.messages) == (what == "several destinations")
        assert it.sender.waiting.empty()
        assert it.sink.waiting.empty()


async def test_a_store_that_may_take_its_time_is_waited_for(tmp_path: Path) -> None:
    async with lab(tmp_path, store_timeout=PATIENT, zone=TWO_HOSTS) as it, SmtpSink(host=OTHER, port=it.port) as other:
        with store_stopped(it):
            answer = asyncio.ensure_future(it.send(team(it), recipient="team@fwd.test"))
            # The fault itself: longer than a store may take by default, or with a group before.
            await asyncio.sleep(3 * HASTY)
        assert (await answer).startswith("250")
        assert len(other.messages) == 1
        assert not it.events("store_away")


async def test_so_are_sentinels_that_are_asked_where_it_is(tmp_path: Path) -> None:
    async with (
        sentinels(tmp_path / "valkeys") as store,
        ChaosProxy(("127.0.0.1", store.ports[0]), weather=lambda: Weather(delay=0.6 * PATIENCE)) as net,
        lab(
            tmp_path,
            store=f"redis+sentinel://127.0.0.1:{net.port}/mail",
            store_timeout=PATIENT,
            zone=TWO_HOSTS,
        ) as it,
        SmtpSink(host=OTHER, port=it.port) as other,
    ):
        assert (await it.send(team(it), recipient="team@fwd.test")).startswith("250")
        assert len(other.messages) == 1
        assert not it.events("store_away")


async def test_what_was_delivered_while_the_store_stood_still_is_remembered_afterwards(tmp_path: Path) -> None:
    script = {"DOT": LATE}
    async with (
        lab(tmp_path, store_timeout=HASTY, zone=TWO_HOSTS, aliases=SLOW) as it,
        SmtpSink(script, host=OTHER, port=it.port) as other,
    ):
        sent = it.signed(recipients=("slow@fwd.test",))
        under_way = asyncio.create_task(it.send(sent, recipient="slow@fwd.test"))
        await until(lambda: any(one == b"DATA" for _, one in other.commands))
        with store_stopped(it):
            assert (await under_way).startswith("250")
            assert it.journal.named("ledger.away")
        await until_250(lambda: it.send(sent, recipient="slow@fwd.test"))
        assert len(other.messages) == 1


async def test_told_to_stop_it_finishes_the_message_on_its_way_and_takes_no_other(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=TWO_HOSTS, aliases=SLOW) as it,
        SmtpSink({"DOT": LATE}, host=OTHER, port=it.port) as other,
    ):
        await it.app.stop(1)
        process = await started(it.folder / "forwarder.toml")
        reader, writer = await asyncio.open_connection(FORWARDER, it.port, local_addr=(SENDER, 0))
        peer = Wire(reader, writer)
        await peer.line()
        for command in (b"EHLO mx.sender.test", b"MAIL FROM:<bob@sender.test>", b"RCPT TO:<slow@fwd.test>", b"DATA"):
            assert (await peer.ask(command))[0] in "23"
        peer.say(it.signed(recipients=("slow@fwd.test",)).replace(b"\r\n.", b"\r\n..") + b".\r\n")
        await until(lambda: any(one == b"DATA" for _, one in other.commands))
        process.send_signal(signal.SIGTERM)
        assert [line[:3] for line in await peer.rest()] == ["250", "421"]
        writer.close()
        await until(lambda: len(other.messages) == 1)
        with pytest.raises(OSError, match=r"refused|reset|Connect"):
            await asyncio.open_connection(FORWARDER, it.port)
        async with asyncio.timeout(30):
            assert await process.wait() == 0
        assert await gone(it.folder / "state")


async def test_what_the_queue_may_have_is_not_delivered_past_a_store_that_is_away(tmp_path: Path) -> None:
    def lose(_: bytes) -> bytes:
        # The store is told to keep it and does; its answer never comes.
        net.lose_reply_to(b"<2@sender.test>")
        return b"451 4.2.0 not now\r\n"

    async with (
        valkey(tmp_path / "valkey") as store,
        ChaosProxy(("127.0.0.1", store.port)) as net,
        lab(
            tmp_path,
            store_timeout=HASTY,
            zone=TWO_HOSTS,
            aliases=SLOW,
            store=f"redis://127.0.0.1:{net.port}",
            extra=SOON,
        ) as it,
        SmtpSink({"DOT": [b"451 4.2.0 not now\r\n", DEFAULT, lose, DEFAULT]}, host=OTHER, port=it.port) as other,
    ):
        first, second = (
            it.signed(MESSAGE.replace(b"<one@", b"<%b@" % one), recipients=("slow@fwd.test",)) for one in (b"1", b"2")
        )
        # The store knows the scripts after this one.
        assert (await it.send(first, recipient="slow@fwd.test")).startswith("250 2.0.0 accepted")
        await until(lambda: len(other.messages) == 1)
        assert (await it.send(second, recipient="slow@fwd.test")).startswith("451")
        assert net.is_down
        # It comes back while the store is away: nobody can tell whether the queue has it.
        assert (await it.send(second, recipient="slow@fwd.test")).startswith("451")
        net.up()
        await until_250(lambda: it.send(second, recipient="slow@fwd.test"))
        await until(lambda: len(it.journal.named("queue.outcome")) == 2)
        assert len(other.messages) == 2


@pytest.mark.parametrize("back", [False, True], ids=["still away", "back by then"])
async def test_what_was_delivered_without_the_store_is_not_delivered_again(tmp_path: Path, back: bool) -> None:
    async with lab(tmp_path, store_timeout=HASTY) as it:
        sent = it.signed()
        with store_stopped(it):
            assert (await it.send(sent)).startswith("250 2.0.0 delivered")
            if not back:
                # The sender did not hear it.
                assert (await it.send(sent)).startswith("250")
        if back:
            await until_250(lambda: it.send(sent))
        arrived = await it.next(it.sink)
        assert it.sink.waiting.empty()
        # And a report about it finds its way, once the store was told.
        await until_250(lambda: it.bounce(arrived))
        assert (await it.next(it.sender)).recipients == ("bob@sender.test",)


async def test_a_retry_while_the_first_attempt_goes_on_without_the_store_makes_no_second_one(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, store_timeout=HASTY, zone=TWO_HOSTS, aliases=SLOW, relay="in_session = 0.2") as it,
        SmtpSink({"DOT": LATE}, host=OTHER, port=it.port) as other,
    ):
        sent = it.signed(recipients=("slow@fwd.test",))
        with store_stopped(it):
            assert (await it.send(sent, recipient="slow@fwd.test")).startswith("451")
            await until_250(lambda: it.send(sent, recipient="slow@fwd.test"))
        await until(lambda: other.messages)
        assert other.verbs().count("DATA") == 1


@pytest.mark.parametrize("ending", ["the store comes back", "and the program stops at once"])
async def test_of_all_that_was_delivered_without_the_store_reports_find_their_way_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    async with lab(tmp_path, store_timeout=HASTY) as it:
        # Afterwards there is room: on a busy machine the store is away once more, and what it may have claimed for a report that
        # was told to come back must be given back.
        with store_stopped(it), monkeypatch.context() as meanwhile:
            meanwhile.setattr(dispatcher, "MAX_LATE", 3)
            for number in range(4):
                sender = f"bob{number}@sender.test"
                data = it.signed(MESSAGE.replace(b"<one@", b"<m%d@" % number), sender)
                assert (await it.send(data, sender)).startswith("250 2.0.0 delivered")
        arrived = [await it.next(it.sink) for _ in range(4)]
        app = it.app
        if ending != "the store comes back":
            await it.app.stop(2)
            app = App(load(tmp_path / "forwarder.toml"), it.journal)
            await app.start()
        try:
            for one in arrived:
                await until_250(lambda: it.bounce(one))  # noqa: B023 - waited for at once
            # The oldest was one too many: its report goes home because the store is younger than the address, not by its match.
            unmatched = {str(one["sender"]): bool(one.get("unmatched")) for one in it.events("route.return_bounce")}
            assert unmatched == {f"bob{number}@sender.test": number == 0 for number in range(4)}
        finally:
            await app.stop(2)


async def test_a_store_too_slow_for_the_ledger_still_holds_mail_and_lets_it_out(tmp_path: Path) -> None:
    """A disk that takes half a second for each write: what a session asks in passing is not answered in time, the queue is."""

    def not_before_it_is_held(_: bytes) -> Action:
        return DEFAULT if it.journal.named("queue.put") else b"451 4.2.0 not now\r\n"

    async with (
        valkey(tmp_path / "valkey") as store,
        ChaosProxy(("127.0.0.1", store.port)) as net,
        lab(
            tmp_path,
            store_timeout=HASTY,
            zone=TWO_HOSTS,
            aliases=SLOW,
            store=f"redis://127.0.0.1:{net.port}",
            extra=SOON,
        ) as it,
        SmtpSink({"DOT": not_before_it_is_held}, host=OTHER, port=it.port) as other,
    ):
        assert (await it.send(it.signed())).startswith("250 2.0.0 delivered")
        net.weather = lambda: Weather(delay=0.2)
        net.reset_all()
        sent = it.signed(recipients=("slow@fwd.test",))
        # Others pass meanwhile, and find the ledger away again and again.
        over = asyncio.Event()
        passing = asyncio.ensure_future(keep_passing(it, over))
        await until_250(lambda: it.send(sent, recipient="slow@fwd.test"))
        await until(lambda: it.journal.named("queue.outcome"))
        over.set()
        await passing
        assert [one["outcome"] for one in it.journal.named("queue.outcome")] == ["delivered"]
        assert not it.journal.named("queue.outcome")[0]["maybe_dup"]
        assert len(other.messages) == 1


async def keep_passing(it: Lab, over: asyncio.Event) -> None:
    for number in range(1000):
        if over.is_set():
            return
        assert (await it.send(it.signed(MESSAGE.replace(b"<one@", b"<p%d@" % number)))).startswith(
            "250 2.0.0 delivered"
        )
