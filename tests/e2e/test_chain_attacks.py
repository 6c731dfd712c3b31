"""What a thief or a forger sends into a row of forwarders is refused by the first of them that it meets, with a cause."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from forwarder.cli.demo_lab import Received
from tests.e2e.chain import Chain, chain, message_of, results_of
from tests.e2e.lab import bounce_of

THIEF = "127.0.0.66"
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def row(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chain]:
    async with chain(tmp_path_factory.mktemp("row")) as it:
        yield it


def refused(domain: str) -> str:
    return f"550 5.7.1 mailkey of {domain} does not cover this message; see the TXT record of mailkey.{domain}"


def original(row: Chain, number: int) -> bytes:
    return row.parties["sender.test"].sign(message_of(number), "bob@sender.test", "hop1@f1.test")


async def through(row: Chain, number: int) -> tuple[bytes, Received]:
    """A message that went all the way: as it was sent, and as it arrived."""
    message = original(row, number)
    assert (await row.send(message)).startswith("250")
    return message, await row.sink.waiting.get()


async def test_a_message_captured_before_hop_1_is_no_good_for_another_recipient(row: Chain) -> None:
    message, _ = await through(row, 1)
    for source, helo in ((THIEF, "mx.thief.test"), ("127.0.0.10", "mx.sender.test")):
        answer = await row.send(message, recipient="other@f1.test", source=source, helo=helo)
        assert answer.startswith(refused("sender.test"))
    assert row.sink.waiting.empty()


async def test_a_message_captured_before_hop_1_reaches_its_own_recipient_once_from_wherever_it_comes(
    row: Chain,
) -> None:
    message, _ = await through(row, 2)
    # The signature is good and names this recipient, so it is the sender's message, and it is here already.
    answer = await row.send(message, source=THIEF, helo="mx.thief.test")
    assert answer.startswith("250 2.0.0")
    assert row.sink.waiting.empty()


async def test_a_message_captured_before_hop_1_is_no_good_under_another_sender(row: Chain) -> None:
    message, _ = await through(row, 3)
    answer = await row.send(message, "eve@sender.test", source=THIEF, helo="mx.thief.test")
    assert answer.startswith(refused("sender.test"))
    assert row.sink.waiting.empty()


async def test_a_message_captured_behind_hop_1_is_refused_by_hop_2_and_by_hop_3(row: Chain) -> None:
    """Its mailkey is hop 1's, bound to hop 2's alias; the copy at B bears it too, under that of the hops behind."""
    _, arrived = await through(row, 4)
    # From the top: the mailkey of hop 3, of hop 2, and this.
    captured = b"Mailkey-Signature:" + arrived.data.split(b"Mailkey-Signature:", 3)[3]
    assert b"d=f1.test" in captured[:200]
    found = re.search(r"smtp\.mailfrom=(\S+@f1\.test)", results_of(arrived)["mx.f2.test"])
    assert found is not None
    for recipient in ("other@f2.test", "other@f3.test"):
        for source in (THIEF, "127.0.0.31"):
            answer = await row.send(captured, found[1], recipient, source=source, helo="mx.f1.test")
            assert answer.startswith(refused("f1.test"))
    assert row.sink.waiting.empty()


@pytest.mark.parametrize("how", ["unsigned", "another key", "changed body", "changed subject", "another domain's"])
async def test_a_forged_message_is_refused_at_hop_1(row: Chain, how: str) -> None:
    forger = row.parties["sink.test"]
    good = original(row, 5)
    match how:
        case "unsigned":
            message = message_of(5)
        case "another key":
            message = replace(forger, mailkey=replace(forger.mailkey, domain="sender.test")).sign(
                message_of(5), "bob@sender.test", "hop1@f1.test"
            )
        case "changed body":
            message = good.replace(b"Hello 5", b"Send money 5")
        case "changed subject":
            message = good.replace(b"Subject: number", b"Subject: invoice")
        case _:
            message = forger.sign(message_of(5), "bob@sender.test", "hop1@f1.test")
    # Not even from the sender's own host, for which SPF passes.
    for source in (THIEF, "127.0.0.10"):
        assert (await row.send(message, source=source)).startswith(refused("sender.test"))
    assert row.sink.waiting.empty()


@pytest.mark.parametrize("hop", [2, 3])
async def test_who_poses_as_the_hop_before_is_refused(row: Chain, hop: int) -> None:
    before = f"f{hop - 1}.test"
    sender = f"SRS0=AAAA=BB=sender.test=bob@{before}"
    answer = await row.send(original(row, 6), sender, f"hop{hop}@f{hop}.test", source=THIEF, helo=f"mx.{before}")
    assert answer.startswith(refused(before))
    assert row.sink.waiting.empty()


async def test_a_report_that_the_destination_did_not_sign_is_refused_at_hop_3(row: Chain) -> None:
    _, arrived = await through(row, 7)
    report = bounce_of(arrived)
    for source in (THIEF, "127.0.0.50"):
        answer = await row.send(report, "", arrived.sender, source=source, helo="mx.sink.test")
        assert answer.startswith(refused("mx.sink.test"))
    assert row.sender.waiting.empty()


async def test_a_report_cannot_skip_a_hop(row: Chain) -> None:
    """B knows hop 3's reversible address only, and that of hop 3 opens nothing at hop 2 or 1."""
    _, arrived = await through(row, 8)
    local = arrived.sender.partition("@")[0]
    for domain in ("f2.test", "f1.test"):
        address = f"{local}@{domain}"
        report = row.parties["sink.test"].sign(bounce_of(arrived), "", address)
        answer = await row.send(report, "", address, source="127.0.0.50", helo="mx.sink.test")
        assert answer.startswith("550 5.1.1")
    assert row.sender.waiting.empty()
