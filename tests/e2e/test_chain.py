"""Three forwarders in a row: each hop verifies the one before, and a report goes back hop by hop, verified at each."""

from __future__ import annotations

import asyncio
import os
import re
import smtplib
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import TypeVar

import dkim
import pytest

from forwarder.cli.demo_lab import SENDER, Received
from forwarder.model import Result
from tests.e2e.chain import HOSTS, LAST, Chain, chain, message_of, results_of
from tests.peers.smtp_sink import SmtpSink

#: The long form, two minutes of CPU: CHAIN_MESSAGES=500 CHAIN_REPORTS=100 ./scripts/test tests/e2e/test_chain.py
MESSAGES = int(os.environ.get("CHAIN_MESSAGES", "80"))
BOUNCES = int(os.environ.get("CHAIN_REPORTS", "20"))
#: Messages on their way at a time.
AT_ONCE = 8
T = TypeVar("T")


async def gathered(work: Iterable[Awaitable[T]]) -> list[T]:
    """All of it, a few at a time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(what: Awaitable[T]) -> T:
        async with places:
            return await what

    return await asyncio.gather(*map(one, work))


def assert_each_hop_verified_the_one_before(arrived: Received) -> None:
    results = results_of(arrived)
    assert list(results) == ["mx.f3.test", "mx.f2.test", "mx.f1.test"]
    before = {"mx.f1.test": "sender.test", "mx.f2.test": "f1.test", "mx.f3.test": "f2.test"}
    for hop, domain in before.items():
        text = results[hop]
        for clause in (
            rf"mailkey=pass smtp\.mailfrom=\S+@{domain} header\.d={domain} policy\.rcpt=bound",
            rf"spf=pass smtp\.mailfrom=\S+@{domain}",
            rf"dkim=pass header\.d={domain} ",
            "arc=none" if hop == "mx.f1.test" else "arc=pass",
            r"dmarc=pass header\.from=sender\.test",
        ):
            assert re.search(clause, text), (clause, text)
        assert not re.search(r"=(fail|permerror|temperror|policy|neutral|softfail)\b", text), text


async def assert_all_signatures_pass(row: Chain, arrived: Received) -> None:
    """At B: the last hop's mailkey, and every signature that any hop and the sender put on."""
    verdict = await row.verdict(arrived)
    assert verdict.mailkey.result is Result.PASS
    assert (verdict.mailkey.signer, verdict.mailkey.bound) == ("f3.test", True)
    assert [one.result for one in verdict.dkim] == [Result.PASS] * 8
    assert sorted({one.domain or "" for one in verdict.dkim}) == ["f1.test", "f2.test", "f3.test", "sender.test"]
    assert (verdict.arc.result, verdict.spf.result, verdict.dmarc.result) == (Result.PASS,) * 3


def assert_a_stranger_agrees(row: Chain, arrived: Received) -> None:
    """dkimpy, which shares no code with us."""
    message = dkim.DKIM(arrived.data)
    assert [message.verify(index, dnsfunc=row.txt) for index in range(8)] == [True] * 8
    result, sets, _ = dkim.arc_verify(arrived.data, dnsfunc=row.txt)
    assert (result, len(sets)) == (b"pass", 3)


@pytest.mark.timeout(400)
async def test_messages_and_reports_are_verified_at_every_hop(tmp_path: Path) -> None:
    async with chain(tmp_path) as row:
        sender = row.parties["sender.test"]
        there = [sender.sign(message_of(n), "bob@sender.test", "hop1@f1.test") for n in range(MESSAGES)]
        answers = await gathered(map(row.send, there))
        assert {one[:9] for one in answers} == {"250 2.0.0"}
        assert row.sink.waiting.qsize() == MESSAGES
        arrived = [row.sink.waiting.get_nowait() for _ in range(MESSAGES)]
        assert {one.data[-20:].split()[-1] for one in arrived} == {b"%d." % n for n in range(MESSAGES)}
        for one in arrived:
            assert one.ip == "127.0.0.33"
            assert one.sender.endswith("@f3.test")
            assert_each_hop_verified_the_one_before(one)
            await assert_all_signatures_pass(row, one)
        for one in arrived[::50]:
            assert_a_stranger_agrees(row, one)
        assert row.sender.waiting.empty()

        back = [(one, row.bounce_at_the_end(one, f"<b{n}@sink.test>")) for n, one in enumerate(arrived[:BOUNCES])]
        answers = await gathered(
            row.send(data, "", one.sender, source="127.0.0.50", helo="mx.sink.test") for one, data in back
        )
        assert {one[:9] for one in answers} == {"250 2.0.0"}
        assert row.sender.waiting.qsize() == BOUNCES
        home = [row.sender.waiting.get_nowait() for _ in range(BOUNCES)]
        assert {message_id(one) for one in home} == {message_id(one) for one in arrived[:BOUNCES]}
        for one in home:
            await assert_only_hop_1_is_told_of(row, one)
        assert row.sink.waiting.empty()
    # The processes have ended, so everything that they told is here.
    for number, domain in ((3, "sink.test"), (2, "f3.test"), (1, "f2.test")):
        hop = row.hops[number]
        reports = {one["id"] for one in hop.named("route.return_bounce")}
        assert len(reports) == BOUNCES
        checked = [one for one in hop.named("message.verified") if one["id"] in reports]
        assert len(checked) == BOUNCES
        for one in checked:
            assert (one["mailkey"], one["spf"], one["dmarc"]) == ("pass", "pass", "pass")
            assert one["dkim"] == [f"pass {domain}"] * 2


def message_id(arrived: Received) -> bytes:
    """The sender's own, wherever it stands."""
    found = re.search(rb"<[0-9]+@sender\.test>", arrived.data)
    assert found is not None
    return found[0]


async def assert_only_hop_1_is_told_of(row: Chain, report: Received) -> None:
    """A knows the address it wrote to, and nobody behind it; its own signed message comes back; hop 1 signed the report."""
    assert (report.sender, report.recipients, report.ip) == ("", ("bob@sender.test",), "127.0.0.31")
    assert b"Final-Recipient: rfc822; hop1@f1.test" in report.data
    assert b"Status: 5.1.1" in report.data
    # Four letters alone stand in a base64 signature now and then.
    behind = (
        b"f2.test",
        b"f3.test",
        b"sink.test",
        b"hop2@",
        b"hop3@",
        b"cellar",
        b"127.0.0.32",
        b"127.0.0.33",
        b"127.0.0.50",
    )
    assert not [one for one in behind if one in report.data.lower()]
    verdict = await row.verdict(report)
    assert (verdict.mailkey.result, verdict.mailkey.domain, verdict.mailkey.signer, verdict.mailkey.bound) == (
        Result.PASS,
        "mx.f1.test",
        "f1.test",
        True,
    )
    assert [one.result for one in verdict.dkim] == [Result.PASS] * 2


@pytest.mark.parametrize("length", ["short", "long"])
async def test_each_hop_tells_the_one_before_of_itself_alone(tmp_path: Path, length: str) -> None:
    """Hop 1 is a plain mail server here, so that its post can be read."""
    local = (
        "SRS0=AAAA=BB=sender.test=bob"
        if length == "short"
        else "SRS0=AAAA=BB=sender.test=bob.with.a.long.name.for.this"
    )
    async with chain(tmp_path, running=(2, 3)) as row:
        hop1, sender = row.parties["f1.test"], f"{local}@f1.test"
        post = await row.stand_in(1)
        authored = row.parties["sender.test"].sign(message_of(1), "", "", mailkey=False)
        message = hop1.sign(authored, sender, "hop2@f2.test")
        answer = await row.send(message, sender, "hop2@f2.test", source="127.0.0.31", helo="mx.f1.test")
        assert answer.startswith("250")
        arrived = row.sink.waiting.get_nowait()
        report = row.bounce_at_the_end(arrived, "<b@sink.test>")
        answer = await row.send(report, "", arrived.sender, source="127.0.0.50", helo="mx.sink.test")
        assert answer.startswith("250")
        # Handed to the hop before, under the address that it wrote, and not to the sender beyond it.
        told = post.waiting.get_nowait()
        assert told.recipients == (sender,)
        assert told.ip == "127.0.0.32"
        assert row.sender.waiting.empty()
        assert b"Final-Recipient: rfc822; hop2@f2.test" in told.data
        assert not [one for one in (b"f3.test", b"sink.test", b"hop3@", b"cellar", b"127.0.0.50") if one in told.data]


async def test_a_message_that_passes_a_hop_twice_comes_home_through_it_twice(tmp_path: Path) -> None:
    """An alias at hop 1 leads to hop 2, and from there to another alias at hop 1."""
    aliases = {
        1: 'start = ["round@f2.test"]\nagain = ["cellar@sink.test"]',
        2: 'round = ["again@f1.test"]',
    }
    async with chain(tmp_path, running=(1, 2), aliases=aliases) as row:
        message = row.parties["sender.test"].sign(message_of(1), "bob@sender.test", "start@f1.test")
        assert (await row.send(message, recipient="start@f1.test")).startswith("250")
        arrived = row.sink.waiting.get_nowait()
        verdict = await row.verdict(arrived)
        assert (verdict.mailkey.result, verdict.mailkey.signer) == (Result.PASS, "f1.test")
        assert {one.result for one in verdict.dkim} == {Result.PASS}
        assert (verdict.arc.result, verdict.dmarc.result) == (Result.PASS, Result.PASS)
        report = row.bounce_at_the_end(arrived, "<b@sink.test>")
        answer = await row.send(report, "", arrived.sender, source="127.0.0.50", helo="mx.sink.test")
        assert answer.startswith("250")
        home = row.sender.waiting.get_nowait()
        assert home.recipients == ("bob@sender.test",)
        assert b"Final-Recipient: rfc822; start@f1.test" in home.data
        assert not [one for one in (b"again", b"round", b"f2.test", b"sink.test") if one in home.data]
    assert [len(row.hops[number].named("route.return_bounce")) for number in (1, 2)] == [2, 1]


@pytest.mark.parametrize(
    ("first", "hold"),
    [("550 5.1.1", "auto"), ("451 4.2.0", "auto"), ("550 5.1.1", "always")],
    ids=["at once", "after hop 3 held it", "at once, out of hop 2's queue"],
)
async def test_a_report_that_a_hop_writes_itself_goes_back_the_same_way(tmp_path: Path, first: str, hold: str) -> None:
    """Hop 3 has two destinations, and one of them refuses, now or when it is asked again."""
    pair = 'hop3b = ["cellar@sink.test", "gone@broken.test"]\n[queue]\nfirst_retry = 0.05\nmax_retry = 0.1'
    aliases = {
        1: 'pair = ["hop2b@f2.test"]',
        2: f'hop2b = ["hop3b@f3.test"]\n[domains."f2.test"]\nhold = "{hold}"',
        3: pair,
    }
    refusing = {
        "RCPT": [f"{first} <gone@broken.test>: not here\r\n".encode(), b"550 5.1.1 <gone@broken.test>: gone\r\n"]
    }
    async with chain(tmp_path, aliases=aliases) as row, SmtpSink(refusing, host="127.0.0.60", port=row.port):
        row.dns.add("broken.test. 300 IN MX 10 mx.broken.test.\nmx.broken.test. 300 IN A 127.0.0.60")
        message = row.parties["sender.test"].sign(message_of(1), "bob@sender.test", "pair@f1.test")
        assert (await row.send(message, recipient="pair@f1.test")).startswith("250")
        async with asyncio.timeout(30):
            assert (await row.sink.waiting.get()).recipients == ("cellar@sink.test",)
            home = await row.sender.waiting.get()
        assert home.recipients == ("bob@sender.test",)
        assert b"Final-Recipient: rfc822; pair@f1.test" in home.data
        assert b"Status: 5.1.1" in home.data
        behind = (b"f2.test", b"f3.test", b"hop2b", b"hop3b", b"sink.test", b"broken.test", b"gone@", b"127.0.0.60")
        assert not [one for one in behind if one in home.data]
        assert (await row.verdict(home)).mailkey.result is Result.PASS
    for number, domain in ((2, "f3.test"), (1, "f2.test")):
        (returned,) = row.hops[number].named("route.return_bounce")
        (checked,) = [one for one in row.hops[number].named("message.verified") if one["id"] == returned["id"]]
        assert (checked["mailkey"], checked["dkim"]) == ("pass", [f"pass {domain}"] * 2)


@pytest.mark.parametrize("number", [3, 1])
async def test_success_that_was_asked_of_hop_1_is_told_by_the_last_that_can_and_comes_home(
    tmp_path: Path, number: int
) -> None:
    """The hops offer each other DSN; what is behind the last one does not."""

    def talk() -> int:
        with smtplib.SMTP(HOSTS[1], row.port, "mx.sender.test", 20, (SENDER, 0)) as client:
            client.ehlo()
            client.mail("bob@sender.test", ["ENVID=Q+2B1", "RET=FULL"])
            client.rcpt("Hop1@f1.test", ["NOTIFY=SUCCESS"])
            return client.data(message)[0]

    async with chain(tmp_path, running=range(1, number + 1)) as row:
        if number < LAST:
            await row.stand_in(number + 1)
        message = row.parties["sender.test"].sign(message_of(1), "bob@sender.test", "Hop1@f1.test")
        assert await asyncio.to_thread(talk) == 250
        async with asyncio.timeout(30):
            home = await row.sender.waiting.get()
        assert (home.sender, home.recipients, home.ip) == ("", ("bob@sender.test",), HOSTS[1])
        assert b"Action: relayed\r\n" in home.data
        assert b"Original-Envelope-Id: Q+1\r\n" in home.data
        assert b"Original-Recipient: rfc822; Hop1@f1.test\r\nFinal-Recipient: rfc822; hop1@f1.test\r\n" in home.data
        assert not [
            one for one in (b"f2.test", b"f3.test", b"hop2", b"hop3", b"sink.test", b"cellar") if one in home.data
        ]
        assert b"Hello 1" not in home.data
        assert row.sender.waiting.empty()
    assert [len(hop.named("report.written")) for hop in row.hops.values()] == [0] * (number - 1) + [1]
