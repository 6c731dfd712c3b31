"""Forged senders and destinations that fail in every way there is: the owner of the forged address never hears of it.

FORGED_MESSAGES says how many (docs/reliability.md); every way has its share of them.
"""

from __future__ import annotations

import asyncio
import os
import smtplib
from collections import Counter
from pathlib import Path

from forwarder.cli.demo_lab import FORWARDER
from tests.e2e.lab import Lab, lab
from tests.e2e.test_queue import NO, OTHER, ZONE
from tests.peers.smtp_sink import Action, SmtpSink
from tests.waiting import until

MESSAGES = int(os.environ.get("FORGED_MESSAGES", "200"))
#: Fewer than asyncio's own threads, which the service in this process needs too.
CLIENTS = 4
FORGER = "127.0.0.66"
# The victim publishes nothing that would get the forgery refused: the worst case.
VICTIM = {
    name: {"A": ["127.0.0.10"]}
    for name in ("sender.test", "_dmarc.sender.test", "mailkey.sender.test", "mx.sender.test")
}
ALIASES = """\
refused = ["gone@other.test"]
later = ["later@other.test"]
never = ["never@other.test"]
some = ["one@sink.test", "gone@other.test"]
list = ["gone@other.test", "later@other.test", "two@sink.test"]
absent = ["x@absent.test"]
"""
RECIPIENTS = ("refused", "later", "never", "some", "list", "absent", "postmaster")
EXTRA = "[queue]\nfirst_retry = 0.05\nmax_retry = 0.1\nlifetime = 1\ndelay_report = 0.05\n"


def failing() -> Action:
    """Every destination fails: one at once, one after it was asked to wait, one never has time."""
    asked: Counter[bytes] = Counter()

    def answer(argument: bytes) -> bytes:
        if b"gone@" in argument:
            return NO
        asked[argument] += 1
        return NO if b"later@" in argument and asked[argument] % 2 == 0 else b"451 4.2.1 later\r\n"

    return answer


def send(port: int, numbers: range) -> list[int]:
    """As a botnet does, with all that could make us write."""
    codes = []
    with smtplib.SMTP(FORWARDER, port, "mx.sender.test", 60, (FORGER, 0)) as client:
        for number in numbers:
            recipient = RECIPIENTS[number % len(RECIPIENTS)]
            text = f"From: Bob <bob@sender.test>\r\nMessage-ID: <{number}@sender.test>\r\n\r\nBuy {number}.\r\n"
            client.ehlo_or_helo_if_needed()
            client.mail("bob@sender.test", ["RET=FULL", f"ENVID=Q{number}"])
            client.rcpt(f"{recipient}@fwd.test", ["NOTIFY=SUCCESS,FAILURE,DELAY"])
            codes.append(client.data(text.encode())[0])
    return codes


async def flood(it: Lab) -> Counter[int]:
    share = [range(first, MESSAGES, CLIENTS) for first in range(CLIENTS)]
    sent = await asyncio.gather(*(asyncio.to_thread(send, it.port, one) for one in share))
    return Counter(code for codes in sent for code in codes)


async def test_forged_senders_get_no_report_of_any_kind(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE | VICTIM, aliases=ALIASES, extra=EXTRA) as it,
        SmtpSink({"RCPT": failing()}, host=OTHER, port=it.port),
    ):
        codes = await flood(it)
        assert sum(codes.values()) == MESSAGES
        assert set(codes) <= {250, 450, 451, 452, 550, 554}, codes
        assert codes[250] > MESSAGES // 8, "some of it we took, and could not deliver"
        queued = len(it.journal.named("queue.put"))
        await until(lambda: ended(it) >= queued, seconds=60 + MESSAGES / 20)
        reports = [one for one in it.journal.named("queue.put") if one["next_hop"] == "sender.test"]
        assert reports == []
        assert sum(one["reports"] for one in it.journal.named("queue.outcome")) == 0
        assert it.sender.waiting.empty()
        dead = len(it.journal.named("queue.dead"))
        assert dead > 0, "what was taken and failed is the operator's to look at"
        assert not it.journal.named("fault")
        print(f"\n{MESSAGES} forged messages, answers {dict(codes)}, {dead} dead letters, 0 reports")


def ended(it: Lab) -> int:
    """Queue items that are over."""
    over = {one["item"] for one in it.journal.named("queue.dead")}
    last: dict[str, str | None] = {}
    for one in it.journal.named("queue.outcome"):
        last[one["item"]] = one["again_in"]
    return len({item for item, again in last.items() if again is None} | {one.rpartition(".")[0] for one in over})
