"""A destination that cannot take mail now: the sender hears 250, and the queue delivers, reports or keeps a dead letter."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forwarder import failpoints
from forwarder.app import App
from forwarder.cli.demo_lab import SINK, Received
from forwarder.config import load
from tests.e2e.lab import MESSAGE, Lab, bounce_of, lab, store_of
from tests.peers.smtp_sink import DEFAULT, DROP, Drip, SmtpSink
from tests.waiting import HASTY, until

OTHER = "127.0.0.51"
SOON = "[queue]\nfirst_retry = 0.05\nmax_retry = 0.1\n"
ZONE = {
    **{f"{name}.test": {"MX": ["10 mx.other.test."]} for name in ("other", "o1", "o2", "o3", "o4", "o5", "o6")},
    "mx.other.test": {"A": [OTHER]},
}
UNVERIFIED = {
    name: {"A": ["127.0.0.10"]}
    for name in ("sender.test", "_dmarc.sender.test", "mailkey.sender.test", "mx.sender.test")
}
ALIASES = 'held = ["secret@other.test"]\nthree = ["one@sink.test", "gone@other.test", "late@other.test"]\n'
ALIASES += "six = [" + ", ".join(f'"x@o{number}.test"' for number in range(1, 7)) + "]"
NOT_NOW, NO = b"451 4.2.0 secret@other.test not now\r\n", b"550 5.1.1 secret@other.test unknown at mx.other.test\r\n"


def held(it: Lab, message: bytes = MESSAGE) -> bytes:
    return it.signed(message, recipients=("held@fwd.test",))


async def send(it: Lab, data: bytes, recipient: str = "held@fwd.test") -> str:
    return await it.send(data, recipient=recipient)


async def told(it: Lab, name: str, count: int = 1) -> dict[str, Any]:
    await until(lambda: len(it.journal.named(name)) >= count)
    return it.journal.named(name)[count - 1]


async def test_what_a_destination_defers_is_held_and_delivered_once(tmp_path: Path) -> None:
    script = {"DOT": [NOT_NOW, NOT_NOW, DEFAULT]}
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=SOON) as it,
        SmtpSink(script, host=OTHER, port=it.port) as other,
    ):
        sent = held(it)
        assert (await send(it, sent)).startswith("250 2.0.0 accepted")
        # The sender that lost this answer comes back.
        assert (await send(it, sent)).startswith("250")
        await until(lambda: any(one["outcome"] == "delivered" for one in it.journal.named("queue.outcome")))
        (arrived,) = other.messages
        assert arrived.rcpts == [b"TO:<secret@other.test>"]
        assert arrived.data.endswith(b"Hello.\r\n.dot\r\n")
        assert other.verbs().count("DATA") == 3
        assert len(it.journal.named("queue.put")) == 1
        assert not it.journal.named("fault")


async def test_a_bounce_of_what_was_held_finds_its_way_home(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=SOON) as it,
        SmtpSink({"DOT": [NOT_NOW, DEFAULT]}, host=OTHER, port=it.port) as other,
    ):
        assert (await send(it, held(it))).startswith("250 2.0.0 accepted")
        assert (await told(it, "queue.outcome"))["outcome"] == "delivered"
        sender = other.messages[0].mail.partition(b"<")[2].partition(b">")[0].decode()
        assert sender.startswith("SRS0=")
        arrived = Received(OTHER, "mx.other.test", sender, ("secret@other.test",), other.messages[0].data)
        assert (await it.send(bounce_of(arrived), "", sender, SINK, "mx.sink.test")).startswith("250")
        report = await it.next(it.sender)
        assert report.recipients == ("bob@sender.test",)
        assert b"held@fwd.test" in report.data
        assert b"secret" not in report.data


async def test_one_has_it_one_refuses_and_one_waits_with_one_truthful_answer(tmp_path: Path) -> None:
    def by_name(argument: bytes) -> bytes:
        return NO if b"gone@" in argument else b"451 4.2.1 later\r\n" if next(turns, None) == 0 else b"250 ok\r\n"

    turns = iter([0])
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=SOON) as it,
        SmtpSink({"RCPT": by_name}, host=OTHER, port=it.port) as other,
    ):
        sent = it.signed(recipients=("three@fwd.test",))
        assert (await send(it, sent, "three@fwd.test")).startswith("250")
        assert (await it.next(it.sink)).recipients == ("one@sink.test",)
        report = (await it.next(it.sender)).data
        assert b"three@fwd.test" in report
        assert b"gone@" not in report
        await until(lambda: other.messages)
        assert [one.rcpts for one in other.messages] == [[b"TO:<late@other.test>"]]


async def test_what_is_refused_later_is_reported_to_the_verified_sender_without_the_destination(tmp_path: Path) -> None:
    script = {"DOT": [NOT_NOW, NO]}
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=SOON) as it, SmtpSink(script, host=OTHER, port=it.port):
        assert (await send(it, held(it))).startswith("250 2.0.0 accepted")
        report = await it.next(it.sender)
        assert report.sender == ""
        assert report.recipients == ("bob@sender.test",)
        assert b"Final-Recipient: rfc822; held@fwd.test" in report.data
        assert b"Status: 5.1.1" in report.data
        assert b"Subject: hello" in report.data
        assert not any(one in report.data for one in (b"secret", b"other.test", OTHER.encode()))
        assert b"DKIM-Signature" in report.data
        assert not it.journal.named("queue.dead")


async def test_what_is_refused_later_of_a_sender_nobody_verified_is_a_dead_letter_and_no_backscatter(
    tmp_path: Path,
) -> None:
    script = {"DOT": [NOT_NOW, NO]}
    async with (
        lab(tmp_path, zone=ZONE | UNVERIFIED, aliases=ALIASES, extra=SOON) as it,
        SmtpSink(script, host=OTHER, port=it.port),
    ):
        assert (await send(it, MESSAGE)).startswith("250 2.0.0 accepted")
        assert "550" in (await told(it, "queue.dead"))["reason"]
        assert it.sender.waiting.empty()


async def test_what_never_goes_through_is_reported_when_its_time_is_over(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=SOON + "lifetime = 0.5\n") as it,
        SmtpSink({"DOT": NOT_NOW}, host=OTHER, port=it.port),
    ):
        assert (await send(it, held(it))).startswith("250 2.0.0 accepted")
        report = await it.next(it.sender)
        assert b"Status: 5.4.7" in report.data
        assert b"secret" not in report.data


async def test_a_next_hop_that_is_slow_is_not_waited_for_and_gets_one_copy(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=SOON, relay="in_session = 0.2") as it,
        SmtpSink({"DOT": Drip(b"250 2.0.0 slow and sure\r\n", 0.03)}, host=OTHER, port=it.port) as other,
    ):
        sent = held(it)
        assert (await send(it, sent)).startswith("250 2.0.0 accepted")
        assert it.journal.named("queue.put")[0]["under_way"]
        assert not other.messages
        assert (await send(it, sent)).startswith("250")
        outcome = await told(it, "queue.outcome")
        assert (outcome["outcome"], outcome["maybe_dup"]) == ("delivered", False)
        assert other.verbs().count("DATA") == 1


async def test_a_restart_between_two_attempts_loses_nothing(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES, extra="[queue]\nfirst_retry = 1\n") as it:
        assert (await send(it, held(it))).startswith("250 2.0.0 accepted")
        await it.app.stop(2)
        async with SmtpSink(host=OTHER, port=it.port) as other:
            again = App(load(tmp_path / "forwarder.toml"), it.journal)
            await again.start()
            try:
                await until(lambda: other.messages)
                await told(it, "queue.outcome")
            finally:
                await again.stop(2)
            assert [one.rcpts for one in other.messages] == [[b"TO:<secret@other.test>"]]


@pytest.mark.parametrize(
    ("relay", "extra"),
    [
        pytest.param('hold = "never"', "", id="never"),
        pytest.param("", "[queue]\nmax_body = 5\n", id="body too large"),
        pytest.param("", "[queue]\nhigh_water = 5\n", id="queue full"),
    ],
)
async def test_what_may_not_or_cannot_be_held_stays_with_the_sender(tmp_path: Path, relay: str, extra: str) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, relay=relay, extra=extra) as it,
        SmtpSink({"DOT": [NOT_NOW, DEFAULT]}, host=OTHER, port=it.port) as other,
    ):
        sent = held(it)
        answer = await send(it, sent)
        assert answer.startswith("451 4.2.0")
        assert "secret" not in answer
        assert (await send(it, sent)).startswith("250 2.0.0 delivered")
        assert len(other.messages) == 1


async def test_a_domain_may_differ(tmp_path: Path) -> None:
    extra = SOON + '[domains."now.test"]\nhold = "never"\n[domains."now.test".aliases]\nx = ["secret@other.test"]\n'
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=extra) as it,
        SmtpSink({"DOT": NOT_NOW}, host=OTHER, port=it.port),
    ):
        assert (await send(it, it.signed(recipients=("x@now.test",)), "x@now.test")).startswith("451 4.2.0")


async def test_the_store_goes_while_a_message_has_to_be_held(tmp_path: Path) -> None:
    async with lab(tmp_path, store_timeout=HASTY, zone=ZONE, aliases=ALIASES, extra=SOON) as it:
        pid = it.app.store_pid
        assert pid is not None

        def stop_the_store(_: bytes) -> bytes:
            os.kill(pid, signal.SIGSTOP)
            return NOT_NOW

        async with SmtpSink({"DOT": [stop_the_store, DEFAULT]}, host=OTHER, port=it.port) as other:
            sent = held(it)
            try:
                assert (await send(it, sent)).startswith("451")
            finally:
                os.kill(pid, signal.SIGCONT)
            for _ in range(600):
                if (await send(it, sent)).startswith("250"):
                    break
                await asyncio.sleep(0.05)
            await until(lambda: other.messages)
            assert len(other.messages) == 1


async def test_a_fault_while_some_of_it_is_queued_makes_no_second_copy_of_the_rest(
    tmp_path: Path, fail_at: Callable[[str], None]
) -> None:
    """Who has it is on record before anybody thinks about who has to wait."""

    def by_name(argument: bytes) -> bytes:
        return b"451 4.2.1 later\r\n" if b"late@" in argument and next(turns, None) is not None else b"250 ok\r\n"

    turns = iter([0])
    extra = 'mixed = ["now@other.test", "late@other.test"]'
    async with (
        lab(tmp_path, zone=ZONE, aliases=extra, extra=f"{SOON}lease = 1\n") as it,
        SmtpSink({"RCPT": by_name}, host=OTHER, port=it.port) as other,
    ):
        fail_at("K8:raise")
        sent = it.signed(recipients=("mixed@fwd.test",))
        assert (await send(it, sent, "mixed@fwd.test")).startswith("451 4.3.0")
        answer = ""
        async with asyncio.timeout(30):
            while not answer.startswith("250"):
                answer = await send(it, sent, "mixed@fwd.test")
        assert sorted(one.rcpts for one in other.messages) == [[b"TO:<late@other.test>"], [b"TO:<now@other.test>"]]


@pytest.fixture
def fail_at() -> Iterator[Callable[[str], None]]:
    yield failpoints.arm
    failpoints.arm("")


@pytest.mark.parametrize(
    ("recipient", "relay"),
    [
        pytest.param("held@fwd.test", 'hold = "always"', id="always"),
        pytest.param("held@fwd.test", "in_session = 0", id="in_session 0"),
        pytest.param("six@fwd.test", "", id="many next hops"),
    ],
)
async def test_the_queue_comes_first(tmp_path: Path, recipient: str, relay: str) -> None:
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES, relay=relay, extra=SOON) as it:
        sent = it.signed(recipients=(recipient,))
        # Nobody is there yet, and the answer does not wait for anybody.
        assert (await send(it, sent, recipient)).startswith("250 2.0.0 accepted")
        count = 6 if recipient.startswith("six") else 1
        assert len(it.journal.named("queue.put")) == count
        async with SmtpSink(host=OTHER, port=it.port) as other:
            await until(lambda: len(other.messages) == count)


async def test_a_destination_with_a_pace_gets_its_mail_at_that_pace_and_others_do_not_wait(tmp_path: Path) -> None:
    extra = SOON + '[queue.destinations."other.test"]\nper_minute = 60\n'
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=extra) as it,
        SmtpSink(host=OTHER, port=it.port) as other,
    ):
        began = asyncio.get_running_loop().time()
        for number in range(3):
            sent = held(it, MESSAGE.replace(b"<one@", b"<%d@" % number))
            assert (await send(it, sent)).startswith("250 2.0.0 accepted")
        assert (await it.send(it.signed())).startswith("250 2.0.0 delivered")
        async with store_of(it) as store:
            await store.command("CONFIG", "RESETSTAT")
            await until(lambda: len(other.messages) == 3)
            stats = (await store.command("INFO", "commandstats")).decode()
        assert asyncio.get_running_loop().time() - began > 1.9
        # Whoever waits for its turn does not ask and ask.
        assert int(stats.partition("cmdstat_evalsha:calls=")[2].partition(",")[0]) < 40


async def test_an_unanswered_dot_is_tried_once_more_and_never_a_third_time(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=SOON) as it,
        SmtpSink({"DOT": DROP}, host=OTHER, port=it.port) as other,
    ):
        assert (await send(it, held(it))).startswith("250 2.0.0 accepted")
        assert "may have arrived" in (await told(it, "queue.dead"))["reason"]
        assert other.verbs().count("DATA") == 2
        assert it.sender.waiting.empty()


async def test_a_second_copy_that_may_be_one_is_on_record(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=SOON) as it,
        SmtpSink({"DOT": [DROP, DEFAULT]}, host=OTHER, port=it.port) as other,
    ):
        assert (await send(it, held(it))).startswith("250 2.0.0 accepted")
        outcome = await told(it, "queue.outcome")
        assert outcome["maybe_dup"] is True
        # It was said before the copy was made.
        names = [name for name, _ in it.journal.events]
        assert names.index("queue.taken_over") < names.index("queue.outcome")
        assert it.journal.named("queue.taken_over")[0]["item"] == outcome["item"]
        assert (len(other.messages), other.verbs().count("DATA")) == (1, 2)


async def test_a_dead_letter_finds_room_in_a_queue_that_is_full(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE | UNVERIFIED, aliases=ALIASES, extra=SOON + "high_water = 4000\n") as it,
        SmtpSink({"DOT": [NOT_NOW, NO]}, host=OTHER, port=it.port),
    ):
        assert (await send(it, MESSAGE + b"x" * 500 + b"\r\n")).startswith("250 2.0.0 accepted")
        await told(it, "queue.dead")
        assert not it.journal.named("fault")


async def test_a_list_is_told_of_in_few_events_that_name_every_destination(tmp_path: Path) -> None:
    destinations = [f"r{number}@sink.test" for number in range(120)]
    aliases = "many = [" + ", ".join(f'"{one}"' for one in destinations) + "]"
    async with lab(tmp_path, aliases=aliases, relay="in_session = 0\n") as it:
        sent = it.signed(recipients=("many@fwd.test",))
        assert (await send(it, sent, "many@fwd.test")).startswith("250")
        for name in ("delivery.outcome", "queue.outcome"):
            await until(lambda: sum(len(one["destinations"]) for one in it.journal.named(name)) == 120)  # noqa: B023
            named = [str(each) for one in it.journal.named(name) for each in one["destinations"]]
            assert sorted(named) == sorted(destinations)
            assert len(it.journal.named(name)) <= 4


async def test_a_list_leaves_others_their_turn(tmp_path: Path) -> None:
    """What is done for thousands is done some at a time, from the final dot to the last delivery: of all the work no part that
    nobody can interrupt is large."""
    aliases = "many = [" + ", ".join(f'"r{number}@sink.test"' for number in range(5000)) + "]"
    turns = [0]

    def count(_frame: object, event: str, _argument: object) -> None:
        turns[-1] += event == "call"

    async def watch() -> None:
        while True:
            await asyncio.sleep(0)
            turns.append(0)

    async with lab(tmp_path, aliases=aliases) as it:
        sent = it.signed(recipients=("many@fwd.test",))
        watching = asyncio.ensure_future(watch())
        # Calls of functions, which are the same on a busy machine.
        sys.setprofile(count)
        try:
            assert (await send(it, sent, "many@fwd.test")).startswith("250")
            await until(lambda: sum(len(one["destinations"]) for one in it.journal.named("queue.outcome")) == 5000)
            assert (await send(it, sent, "many@fwd.test")).startswith("250"), "the same again: all of it was delivered"
        finally:
            sys.setprofile(None)
            watching.cancel()
        assert sum(turns) > 100_000, "it was counted"
        assert max(turns) < 8000
