"""A mailkey signature without rt=, taken up by a stranger and sent to many: through the running service."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from forwarder.cli.demo_lab import SINK
from tests.e2e.lab import Lab, lab
from tests.waiting import HASTY

ALIASES = "\n".join(f'a{one} = ["one@sink.test"]' for one in range(6))
LIMIT = "[mailkey]\nreplay_recipients = 3"
REASON = b"signature seen for more than 3 recipients"


async def replay(it: Lab, data: bytes, number: int) -> str:
    """A stranger's host sends it on. Its EHLO name is in order; the sender's domain does not know it."""
    return await it.send(data, recipient=f"a{number}@fwd.test", source=SINK, helo="mx.sink.test")


async def seen_by_three(it: Lab) -> bytes:
    data = it.signed(recipients=())
    for number in range(3):
        assert (await it.send(data, recipient=f"a{number}@fwd.test")).startswith("250")
        assert b"mailkey=pass" in (await it.next(it.sink)).data
    return data


def with_policy(it: Lab, policy: str) -> None:
    text = it.records["mailkey.sender.test"]["TXT"][0].replace("o=all", f"o={policy}")
    it.dns.records = [one for one in it.dns.records if str(one.rname).rstrip(".") != "mailkey.sender.test"]
    it.dns.add(f'mailkey.sender.test. 300 IN TXT "{text}"')


async def test_a_replay_is_refused_with_its_cause_where_the_domain_signs_everything(tmp_path: Path) -> None:
    async with lab(tmp_path, aliases=ALIASES, extra=LIMIT) as it:
        data = await seen_by_three(it)
        answer = await replay(it, data, 3)
        assert answer.startswith(
            "550 5.7.1 this message signed by sender.test was sent to too many different recipients;"
        )
        assert "rt=" in answer
        assert it.sink.waiting.empty()
        assert (await it.send(data, recipient="a0@fwd.test")).startswith("250"), "the sender's own retry"


async def test_a_bound_signature_is_not_counted(tmp_path: Path) -> None:
    async with lab(tmp_path, aliases=ALIASES, extra=LIMIT) as it:
        for number in range(5):
            to = f"a{number}@fwd.test"
            assert (await it.send(it.signed(recipients=(to,)), recipient=to)).startswith("250")
            assert b"policy.rcpt=bound" in (await it.next(it.sink)).data


async def test_the_domains_own_host_may_send_to_more(tmp_path: Path) -> None:
    async with lab(tmp_path, aliases=ALIASES, extra=LIMIT) as it:
        data = await seen_by_three(it)
        assert (await it.send(data, recipient="a3@fwd.test")).startswith("250")
        arrived = await it.next(it.sink)
        assert arrived.sender.endswith("=sender.test=bob@fwd.test"), "SPF vouches"
        found = b" ".join(arrived.data.split())
        assert b"mailkey=policy" in found
        assert REASON in found


@pytest.mark.parametrize(("policy", "way_back"), [("some", False), ("test", True)])
async def test_a_replay_goes_on_marked_where_the_domain_is_rolling_out(
    tmp_path: Path, policy: str, way_back: bool
) -> None:
    async with lab(tmp_path, aliases=ALIASES, extra=LIMIT) as it:
        with_policy(it, policy)
        data = await seen_by_three(it)
        assert (await replay(it, data, 3)).startswith("250")
        arrived = await it.next(it.sink)
        assert b"mailkey=policy" in arrived.data
        assert (b"sender.test=bob" in arrived.sender.encode()) is way_back


async def test_with_the_store_away_mail_flows_uncounted(tmp_path: Path) -> None:
    async with lab(tmp_path, store_timeout=HASTY, aliases=ALIASES, extra=LIMIT) as it:
        data = await seen_by_three(it)
        pid = it.app.store_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            assert (await replay(it, data, 3)).startswith("250")
            assert b"mailkey=pass" in (await it.next(it.sink)).data
        finally:
            os.kill(pid, signal.SIGCONT)
        assert "replay" in [one["step"] for one in it.journal.named("ledger.away")]
