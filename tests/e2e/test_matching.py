"""Which reports go home: what they must have in common with a message of ours, what a lost store costs, how many go."""

from __future__ import annotations

import asyncio
import os
import smtplib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from forwarder.cli.demo_lab import FORWARDER, SINK, Received
from tests.e2e.lab import Lab, age_store, bounce_of, lab, store_of

#: ``REPLAYS=100000 ./scripts/test tests/e2e/test_matching.py -k replayed`` for the figure of docs/reliability.md.
REPLAYS = int(os.environ.get("REPLAYS", "300"))
SENDERS, PER_SESSION = 4, 10


def matching(how: str) -> str:
    return f'[bounces]\nmatching = "{how}"\n'


def about_another(arrived: Received) -> bytes:
    """A report that names the destination, and a message that we never forwarded."""
    report = bounce_of(arrived).replace(b"<one@sender.test>", b"<other@sender.test>")
    (trace,) = [one for one in report.split(b"\r\n") if b" id " in one]
    return report.replace(trace, b"\tby mx.fwd.test with ESMTP id 0;")


def about_nobody(arrived: Received) -> bytes:
    return about_another(arrived).replace(b"hidden.destination@", b"nobody@")


def without_message_id(arrived: Received) -> bytes:
    """Our own Received field is what is left of the message."""
    return bounce_of(arrived).replace(b"Message-ID: <one@sender.test>\r\n", b"")


@pytest.mark.parametrize(
    ("how", "report", "expected", "matched"),
    [
        ("strict", bounce_of, "250", ["message-id", "envelope-id", "recipient"]),
        ("strict", without_message_id, "250", ["envelope-id", "recipient"]),
        ("strict", about_another, "550", None),
        ("known", about_another, "250", ["recipient"]),
        ("known", about_nobody, "550", None),
        ("lenient", about_nobody, "250", []),
    ],
)
async def test_the_operator_says_what_a_report_must_match(
    tmp_path: Path, how: str, report: object, expected: str, matched: list[str] | None
) -> None:
    async with lab(tmp_path, extra=matching(how)) as it:
        # The day of the first address is the day of the store; the mode is what is tried here.
        await it.send(it.signed())
        await age_store(it)
        arrived = await it.next(it.sink)
        assert (await it.bounce(arrived, data=report(arrived))).startswith(expected)  # type: ignore[operator]
        told = it.journal.named("route.return_bounce")
        assert [one["matched"] for one in told] == ([] if matched is None else [matched])
        assert it.sender.waiting.empty() == (expected == "550")
        for one in told:
            assert one["unmatched"] == ("the reversible address is enough" if matched == [] else None)


async def test_bounces_come_home_although_the_store_was_lost(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        assert (await it.send(it.signed())).startswith("250")
        arrived = await it.next(it.sink)
        async with store_of(it) as store:
            await store.command("FLUSHALL")
        assert (await it.bounce(arrived)).startswith("250")
        home = await it.next(it.sender)
        assert home.recipients == ("bob@sender.test",)
        assert b"hidden.destination" not in home.data
        assert b"sink.test" not in home.data
        (told,) = it.journal.named("route.return_bounce")
        assert (told["matched"], told["unmatched"]) == ([], "the address is older than the store")


async def test_what_a_store_that_has_been_there_for_long_does_not_know_is_refused(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        assert (await it.send(it.signed())).startswith("250")
        arrived = await it.next(it.sink)
        async with store_of(it) as store:
            # It forgets what it holds, and not that it has been there.
            kept = (b"{fwd0}:salt", b"{fwd0}:birth")
            await store.command("DEL", *(one for one in await store.command("KEYS", "*") if one not in kept))
        await age_store(it)
        assert (await it.bounce(arrived)).startswith("550 5.1.1")
        assert it.sender.waiting.empty()


def replay(it: Lab, arrived: Received, numbers: Sequence[int]) -> Counter[str]:
    """Reports that are the same to a reader, each another to the ledger; half of them claim a message of their own. What is
    answered to each."""
    replies: Counter[str] = Counter()
    report = bounce_of(arrived)
    for at in range(0, len(numbers), PER_SESSION):
        with smtplib.SMTP(FORWARDER, it.port, "mx.sink.test", 60, (SINK, 0)) as client:
            for number in numbers[at : at + PER_SESSION]:
                data = report.replace(b"<b1@mx", b"<b%d@mx" % number)
                if number % 2:
                    data = data.replace(b"<one@sender.test>", b"<%d@sender.test>" % number)
                client.ehlo_or_helo_if_needed()
                client.mail("")
                client.rcpt(arrived.sender)
                code, text = client.data(data)
                replies[f"{code} {text.decode()}"[:9]] += 1
    return replies


@pytest.mark.timeout(120 + REPLAYS / 50)
async def test_a_report_that_is_replayed_stays_within_its_budget(tmp_path: Path) -> None:
    async with lab(tmp_path, extra="[bounces]\nper_message = 10\nper_day = 20\n") as it:
        assert (await it.send(it.signed())).startswith("250")
        arrived = await it.next(it.sink)
        parts = [range(one, REPLAYS, SENDERS) for one in range(SENDERS)]
        replies = sum(await asyncio.gather(*(asyncio.to_thread(replay, it, arrived, one) for one in parts)), Counter())
        print(replies)
        passed = it.sender.waiting.qsize()
        assert passed == replies["250 2.0.0"] == 20
        assert replies["550 5.7.1"] == REPLAYS - passed
