"""The store goes, next hops fail, the program is killed: nothing is lost, nothing is doubled, and the answer is true."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from forwarder.cli.demo_lab import SINK, Received
from tests.e2e.lab import MESSAGE, Lab, bounce_of, lab
from tests.peers.smtp_sink import Drip, SmtpSink
from tests.suites import ROOT
from tests.waiting import HASTY

OTHER = "127.0.0.51"
TWO_HOSTS = {"other.test": {"MX": ["10 mx.other.test."]}, "mx.other.test": {"A": [OTHER]}}
LONG = "bob.with.a.very.long.local.part.that.fits.nowhere@sender.test"


def team(it: Lab) -> bytes:
    return it.signed(recipients=("team@fwd.test",))


async def until_250(attempt: Callable[[], Awaitable[str]]) -> None:
    """A sender that retries, in quick motion."""
    for _ in range(1000):
        if (await attempt()).startswith("250"):
            return
        await asyncio.sleep(0.03)
    raise AssertionError("never accepted")


async def test_the_store_is_away_and_comes_back(tmp_path: Path) -> None:
    async with lab(tmp_path, store_timeout=HASTY, zone=TWO_HOSTS) as it, SmtpSink(host=OTHER, port=it.port) as other:
        assert (await it.send(it.signed())).startswith("250")
        before = await it.next(it.sink)
        pid = it.app.store_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            one = it.signed(MESSAGE.replace(b"<one@", b"<two@"))
            assert (await it.send(one)).startswith("250")
            assert b"<two@" in (await it.next(it.sink)).data
            several, opaque = team(it), it.signed(sender=LONG)
            assert (await it.send(several, recipient="team@fwd.test")).startswith("451 4.3.0")
            assert (await it.send(opaque, LONG)).startswith("451 4.3.0")
            assert (await it.bounce(before)).startswith("451 4.3.0")
            assert it.sink.waiting.empty()
        finally:
            os.kill(pid, signal.SIGCONT)
        await until_250(lambda: it.bounce(before))
        assert (await it.next(it.sender)).recipients == ("bob@sender.test",)
        await until_250(lambda: it.send(several, recipient="team@fwd.test"))
        await until_250(lambda: it.send(opaque, LONG))
        assert len(other.messages) == 1
        assert {(await it.next(it.sink)).recipients[0] for _ in range(2)} == {
            "one@sink.test",
            "hidden.destination@sink.test",
        }
        assert it.sink.waiting.empty()


async def test_a_retry_after_a_lost_reply_makes_no_second_copy(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        sent = it.signed()
        assert (await it.send(sent)).startswith("250")
        assert (await it.send(sent)).startswith("250")
        await it.next(it.sink)
        assert it.sink.waiting.empty()


async def test_two_equal_messages_that_nothing_identifies_are_two(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        alarm = it.signed(b"From: device@sender.test\r\nSubject: door open\r\n\r\nOpen.\r\n")
        for _ in range(2):
            assert (await it.send(alarm)).startswith("250")
            await it.next(it.sink)


async def test_what_one_host_defers_is_completed_by_the_retry_without_a_second_copy_elsewhere(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=TWO_HOSTS, relay='hold = "never"') as it:
        sent = team(it)
        async with SmtpSink({"DOT": b"451 4.2.0 not now\r\n"}, host=OTHER, port=it.port):
            assert (await it.send(sent, recipient="team@fwd.test")).startswith("451 4.2.0")
        assert (await it.next(it.sink)).recipients == ("one@sink.test",)
        async with SmtpSink(host=OTHER, port=it.port) as other:
            assert (await it.send(sent, recipient="team@fwd.test")).startswith("250")
            assert len(other.messages) == 1
        assert it.sink.waiting.empty()


async def test_an_attempt_behind_a_451_keeps_its_claim_however_long_it_takes(tmp_path: Path) -> None:
    late = Drip(b"250 2.0.0 Ok: queued\r\n", 0.12)
    async with (
        lab(
            tmp_path,
            relay='in_session = 0.2\nhold = "never"',
            zone=TWO_HOSTS,
            aliases='slow = ["two@other.test"]',
            extra="[queue]\nlease = 1\n",
        ) as it,
        SmtpSink({"DOT": late}, host=OTHER, port=it.port) as other,
    ):
        sent = it.signed(recipients=("slow@fwd.test",))
        # The sender comes back again and again, beyond the lease; the first attempt is still reading its answer.
        await until_250(lambda: it.send(sent, recipient="slow@fwd.test"))
        assert other.verbs().count("DATA") == 1


async def test_a_refusal_of_all_is_the_senders_5xx_without_a_trace_of_the_destination(tmp_path: Path) -> None:
    script = {"RCPT": b"550 5.1.1 <two@other.test>: no such user at mx.other.test [127.0.0.51]\r\n"}
    extra = '[domains."only.test".aliases]\nx = ["two@other.test"]'
    async with lab(tmp_path, zone=TWO_HOSTS, extra=extra) as it, SmtpSink(script, host=OTHER, port=it.port):
        answer = await it.send(it.signed(recipients=("x@only.test",)), recipient="x@only.test")
        assert answer.startswith("550 5.1.1")
        assert not any(one in answer for one in ("two@", "other", OTHER))
        assert it.sender.waiting.empty()


@pytest.mark.parametrize("verified", [True, False])
async def test_some_have_it_and_some_refuse_it(tmp_path: Path, verified: bool) -> None:
    script = {"RCPT": b"550 5.1.1 <two@other.test>: no such user at mx.other.test\r\n"}
    names = ("sender.test", "_dmarc.sender.test", "mailkey.sender.test", "mx.sender.test")
    unverified = {} if verified else {name: {"A": ["127.0.0.10"]} for name in names}
    async with lab(tmp_path, zone=TWO_HOSTS | unverified) as it, SmtpSink(script, host=OTHER, port=it.port):
        answer = await it.send(team(it) if verified else MESSAGE, recipient="team@fwd.test")
        assert (await it.next(it.sink)).recipients == ("one@sink.test",)
        if not verified:
            assert answer.startswith("550")
            assert it.sender.waiting.empty()
            return
        assert answer.startswith("250")
        report = await it.next(it.sender)
        assert report.sender == ""
        assert b"team@fwd.test" in report.data
        assert not any(one in report.data.lower() for one in (b"two@", b"other.test", b"one@sink", b"sink.test"))
        assert it.sender.waiting.empty()


async def test_an_attempt_that_outlasts_the_session_goes_on_and_the_retry_finds_it_done(tmp_path: Path) -> None:
    late = Drip(b"250 2.0.0 Ok: queued\r\n", 0.04)
    slow = 'slow = ["two@other.test"]'
    async with (
        lab(tmp_path, relay='in_session = 0.2\nhold = "never"', zone=TWO_HOSTS, aliases=slow) as it,
        SmtpSink({"DOT": late}, host=OTHER, port=it.port) as other,
    ):
        sent = it.signed(recipients=("slow@fwd.test",))
        assert (await it.send(sent, recipient="slow@fwd.test")).startswith("451 4.4.1")
        assert (await it.send(sent, recipient="slow@fwd.test")).startswith("451 4.2.1")
        await until_250(lambda: it.send(sent, recipient="slow@fwd.test"))
        assert sum(one == b"DATA" for _, one in other.commands) == 1


# --- the whole program -------------------------------------------------------------------------------------------------


async def started(config: Path) -> asyncio.subprocess.Process:
    """The program as an operator runs it, once it listens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "forwarder",
        "serve",
        "--config",
        str(config),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(20):
        while line := await process.stderr.readline():
            if json.loads(line)["event"] == "service.ready":
                return process
    raise AssertionError("the program ended before it was ready")


def stores_of(folder: Path) -> list[int]:
    """Processes of a store server that works in this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(folder) in str((entry / "cwd").readlink()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def gone(folder: Path) -> bool:
    for _ in range(300):
        if not stores_of(folder):
            return True
        await asyncio.sleep(0.03)
    return False


async def test_kill_9_leaves_no_store_behind_and_the_next_start_finds_the_state(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        await it.app.stop(1)
        state = it.folder / "state"
        process = await started(it.folder / "forwarder.toml")
        assert stores_of(state)
        assert (await it.send(it.signed())).startswith("250")
        arrived: Received = await it.next(it.sink)
        process.kill()
        await process.wait()
        assert await gone(state)
        process = await started(it.folder / "forwarder.toml")
        assert (await it.send(bounce_of(arrived), "", arrived.sender, SINK, "mx.sink.test")).startswith("250")
        assert (await it.next(it.sender)).recipients == ("bob@sender.test",)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            assert await process.wait() == 0
        assert await gone(state)
