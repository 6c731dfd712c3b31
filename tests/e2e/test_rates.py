"""Too much mail of one kind waits with its sender, and everybody else's goes on: through the running service."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from pathlib import Path

import pytest

from forwarder.cli.demo_lab import SINK
from forwarder.model import Address
from tests.e2e.lab import MESSAGE, Lab, lab
from tests.waiting import HASTY

#: Nothing asks for signatures, so that mail is counted and not refused for something else.
rated = functools.partial(lab, zone={"mailkey.sender.test": {}, "_dmarc.sender.test": {}})

ALIASES = 'other = ["one@sink.test"]\nthird = ["hidden.destination@sink.test"]'


def message(number: int, *, sender: str = "bob@sender.test", body: str | None = None) -> bytes:
    text = MESSAGE.replace(b"<one@", b"<m%d@" % number).replace(b"bob@sender.test", sender.encode())
    return text.replace(b"Hello.", (f"Hello {number}." if body is None else body).encode())


async def codes(it: Lab, count: int, *, first: int = 0, signed: bool = False, **how: str) -> list[str]:
    """The first nine characters of each reply."""
    answers = []
    for number in range(first, first + count):
        raw = message(number)
        answers.append((await it.send(it.signed(raw, mailkey=False) if signed else raw, **how))[:9])
    return answers


PASSED, OVER = "250 2.0.0", "451 4.7.1"


async def test_without_rates_nothing_is_counted(tmp_path: Path) -> None:
    async with rated(tmp_path) as it:
        assert await codes(it, 12) == [PASSED] * 12


async def test_an_alias_that_gets_too_much_waits_and_the_others_do_not(tmp_path: Path) -> None:
    async with rated(tmp_path, aliases=ALIASES, extra="[rates]\nalias = 3") as it:
        assert await codes(it, 4) == [PASSED] * 3 + [OVER]
        assert await codes(it, 3, first=10, recipient="other@fwd.test") == [PASSED] * 3
        [told] = it.events("rates.over")
        assert (told["kind"], told["subject"]) == ("alias", Address("alias", "fwd.test"))
        assert 1190 < told["wait"] <= 1200
        assert it.sink.waiting.qsize() == 6


async def test_the_reply_says_how_long_to_wait_and_the_next_one_comes_at_rcpt(tmp_path: Path) -> None:
    async with rated(tmp_path, extra="[rates]\nalias = 1") as it:
        await it.send(message(0))
        over = await it.send(message(1))
        assert over.startswith("451 4.7.1 too much mail for this recipient at the moment; try again in 3600 seconds")
        received = len(it.events("message.received"))
        again = await it.send(message(2))
        assert again.startswith("451 4.7.1 too much mail for this recipient")
        assert len(it.events("message.received")) == received, "its body was never sent"
        assert it.events("rcpt.refused")[-1]["reason"] == "the rate of this alias is over"


async def test_a_retry_of_what_was_delivered_costs_nothing_and_passes(tmp_path: Path) -> None:
    async with rated(tmp_path, extra="[rates]\nalias = 2") as it:
        assert [(await it.send(message(0)))[:9] for _ in range(5)] == [PASSED] * 5
        assert await codes(it, 2, first=1) == [PASSED, OVER]


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        ("network", "from your network"),
        ("claimed", "from this domain that nothing vouches for"),
        ("destination", "for this recipient"),
        ("srs_domain", "for this domain"),
    ],
)
async def test_other_rates_count_what_their_names_say(tmp_path: Path, rate: str, words: str) -> None:
    how = {"source": SINK, "helo": "mx.sink.test"} if rate == "claimed" else {}
    async with rated(tmp_path, aliases=ALIASES, extra=f"[rates]\n{rate} = 2") as it:
        answers = [
            await it.send(message(0), recipient="alias@fwd.test", **how),
            await it.send(message(1), recipient="third@fwd.test", **how),
            await it.send(message(2), recipient="third@fwd.test", **how),
        ]
        assert [one[:9] for one in answers] == [PASSED, PASSED, OVER], answers
        assert words in answers[2]
        [told] = it.events("rates.over")
        assert told["kind"] == rate


async def test_who_forges_a_domain_uses_nothing_up_that_it_may_send_itself(tmp_path: Path) -> None:
    async with rated(tmp_path, extra="[rates]\ndomain = 2\nclaimed = 2") as it:
        assert await codes(it, 3, source=SINK, helo="mx.sink.test") == [PASSED, PASSED, OVER]
        assert await codes(it, 3, first=10) == [PASSED, PASSED, OVER]
        assert [one["kind"] for one in it.events("rates.over")] == ["claimed", "domain"]


async def test_a_network_that_is_over_costs_no_verification_and_one_that_is_exempt_is_not_counted(
    tmp_path: Path,
) -> None:
    async with rated(tmp_path, extra="[rates]\nnetwork = 1") as it:
        assert await codes(it, 3) == [PASSED, OVER, OVER]
        assert len(it.events("message.verified")) == 2
    folder = tmp_path / "exempt"
    folder.mkdir()
    async with rated(folder, extra='[rates]\nnetwork = 1\nexempt = ["127.0.0.0/24"]') as it:
        assert await codes(it, 3) == [PASSED] * 3


async def test_a_large_message_counts_for_several(tmp_path: Path) -> None:
    async with rated(tmp_path, extra="[rates]\nalias = 10\nsize_unit = 1024") as it:
        large = message(0, body="x" * 70 + ("\r\n" + "x" * 70) * 100)
        assert (await it.send(large)).startswith(PASSED)
        assert await codes(it, 3, first=1) == [PASSED, PASSED, OVER]


async def test_a_signed_message_that_is_sent_again_and_again_waits(tmp_path: Path) -> None:
    aliases = "\n".join(f'a{one} = ["one@sink.test"]' for one in range(5))
    async with rated(tmp_path, aliases=aliases, extra="[rates]\nreplay = 3") as it:
        data = it.signed(mailkey=False)
        added = [b"X-Number: %d\r\n" % number + data for number in range(5)]
        answers = [
            await it.send(one, recipient=f"a{number}@fwd.test", source=SINK, helo="mx.sink.test")
            for number, one in enumerate(added)
        ]
        assert [one[:9] for one in answers] == [PASSED] * 3 + [OVER] * 2
        assert "too much mail like this message" in answers[3]
        assert await codes(it, 5, signed=True) == [PASSED] * 5, "others of the same sender are signed anew"


async def test_an_unsigned_body_of_one_author_that_is_sent_again_and_again_waits(tmp_path: Path) -> None:
    async with rated(tmp_path, extra="[rates]\nreplay = 3") as it:
        same = [await it.send(message(number, body="Buy!"), source=SINK, helo="mx.sink.test") for number in range(4)]
        assert [one[:9] for one in same] == [PASSED] * 3 + [OVER]
        other = message(9, body="Buy!", sender="ann@sender.test")
        assert (await it.send(other, source=SINK, helo="mx.sink.test")).startswith(PASSED), "another author"


async def test_with_the_store_away_the_same_numbers_hold_in_memory(tmp_path: Path) -> None:
    async with rated(tmp_path, store_timeout=HASTY, extra="[rates]\nalias = 3") as it:
        pid = it.app.store_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            started = asyncio.get_running_loop().time()
            assert await codes(it, 5) == [PASSED] * 3 + [OVER] * 2
            assert asyncio.get_running_loop().time() - started < 10
        finally:
            os.kill(pid, signal.SIGCONT)
        assert [one["kind"] for one in it.events("rates.over")] == ["alias"]


async def test_a_mail_bomb_leaves_everybody_elses_mail_alone(tmp_path: Path) -> None:
    """How long the others' mail takes under it is a figure in docs/performance.md."""
    async with rated(tmp_path, aliases=ALIASES, extra="[rates]\nalias = 20") as it:
        bomb = [it.send(message(number)) for number in range(100)]
        others = [it.send(message(1000 + number), recipient="other@fwd.test") for number in range(10)]
        answers = await asyncio.gather(*bomb, *others)
        assert [one[:9] for one in answers[:100]].count(PASSED) == 20
        assert [one[:9] for one in answers[:100]].count(OVER) == 80
        assert [one[:9] for one in answers[100:]] == [PASSED] * 10
