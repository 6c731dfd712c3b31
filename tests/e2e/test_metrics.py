"""What Prometheus reads while real mail flows: the numbers are right, and tell nothing of anybody."""

from __future__ import annotations

import asyncio
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from forwarder.app import App, StartError
from forwarder.config import load
from forwarder.keys.multibuffer import LanesUnfit, LanesUnusable, load_lanes
from tests.e2e.lab import MESSAGE, Lab, lab
from tests.fakes import MemoryJournal
from tests.peers.smtp_sink import DEFAULT, Drip, SmtpSink
from tests.waiting import HASTY, until

METRICS = '[metrics]\nlisten = ["127.0.0.1:0"]\n'
OTHER = "127.0.0.51"
ZONE = {"other.test": {"MX": ["10 mx.other.test."]}, "mx.other.test": {"A": [OTHER]}}
ALIASES = 'held = ["secret@other.test"]'
NOT_NOW = b"451 4.2.0 secret@other.test not now\r\n"


async def get(it: Lab | App, path: str = "/metrics") -> tuple[int, str]:
    """Status and body."""
    app = it.app if isinstance(it, Lab) else it

    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{app.metrics_addresses[0]}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    return await asyncio.to_thread(ask)


async def numbers(it: Lab) -> dict[str, float]:
    """``name{label="value"}`` → value."""
    status, page = await get(it)
    assert status == 200
    found = {}
    for family in text_string_to_metric_families(page):
        for one in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(one.labels.items()))
            found[f"{one.name}{{{labels}}}" if labels else one.name] = one.value
    return found


def another(it: Lab, number: int, recipient: str = "alias@fwd.test") -> bytes:
    return it.signed(MESSAGE.replace(b"<one@", b"<m%d@" % number), recipients=(recipient,))


async def test_the_numbers_are_those_of_the_mail(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=METRICS) as it,
        SmtpSink({"DOT": [NOT_NOW, DEFAULT]}, host=OTHER, port=it.port),
    ):
        for number in range(3):
            assert (await it.send(another(it, number))).startswith("250")
            await it.next(it.sink)
        forged = MESSAGE.replace(b"Hello", b"From nobody")
        refused = await it.send(b"From: a@sender.test\r\nFrom: b@sender.test\r\n\r\n" + forged)
        assert refused.startswith("550")
        assert (await it.send(another(it, 9, "held@fwd.test"), recipient="held@fwd.test")).startswith("250")
        assert (await it.send(MESSAGE, recipient="nobody@fwd.test")).startswith("550 5.1.1")

        found = await numbers(it)
        messages = {name: value for name, value in found.items() if name.startswith("forwarder_messages_total")}
        assert messages == {
            'forwarder_messages_total{outcome="delivered"}': 3,
            'forwarder_messages_total{outcome="refused"}': 1,
            'forwarder_messages_total{outcome="queued"}': 1,
        }
        for name, value in {
            'forwarder_replies_total{code="250",stage="data"}': 4,
            'forwarder_replies_total{code="550",stage="data"}': 1,
            'forwarder_replies_total{code="550",stage="rcpt"}': 1,
            'forwarder_checks_total{method="mailkey",result="pass"}': 4,
            'forwarder_checks_total{method="dkim",result="pass"}': 4,
            'forwarder_checks_total{method="spf",result="pass"}': 4,
            'forwarder_checks_total{method="dmarc",result="pass"}': 4,
            'forwarder_recipients_total{attempt="session",outcome="delivered"}': 3,
            'forwarder_recipients_total{attempt="session",outcome="queued"}': 1,
            'forwarder_attempts_total{code_class="2xx",provider="other",result="sent"}': 3,
            'forwarder_attempts_total{code_class="4xx",provider="other",result="deferred"}': 1,
            # Of four messages that were sealed: one mailkey and two DKIM signatures, and two of ARC.
            'forwarder_signatures_total{algorithm="ed25519-sha256",kind="mailkey"}': 4,
            'forwarder_signatures_total{algorithm="rsa-sha256",kind="dkim"}': 4,
            'forwarder_signatures_total{algorithm="ed25519-sha256",kind="dkim"}': 4,
            'forwarder_signatures_total{algorithm="rsa-sha256",kind="arc"}': 8,
            'forwarder_queue_items{state="waiting"}': 1,
            'forwarder_stage_seconds_count{stage="total"}': 5,
            'forwarder_stage_seconds_count{stage="verify"}': 4,
            'forwarder_stage_seconds_count{stage="deliver"}': 4,
            'forwarder_store_seconds_count{operation="claim"}': 4,
            'forwarder_relay_connections_total{result="opened"}': found[
                'forwarder_relay_pool_used_total{how="opened"}'
            ],
            "forwarder_dead_letters": 0,
            "forwarder_store_up": 1,
            "forwarder_workers": 1,
        }.items():
            assert (name, found.get(name)) == (name, value)
        assert found["forwarder_queue_bytes"] > 0
        assert found['forwarder_cache_total{cache="dns",result="hits"}'] > 0
        assert found["forwarder_dns_queries_total"] > 0
        page = (await get(it))[1]
        assert "@" not in page
        assert not [one for one in ("sender.test", "sink.test", "other.test", "fwd.test", "127.0.0") if one in page]


async def test_how_many_signatures_were_made_at_once_is_counted(tmp_path: Path) -> None:
    try:
        already = dict(load_lanes().sizes)
    except (LanesUnfit, LanesUnusable) as error:
        pytest.skip(str(error))
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=METRICS, top='keys.multibuffer = "always"') as it:
        if it.events("multibuffer.ready")[0]["together_from"] is None:
            pytest.skip("OpenSSL is as fast here")
        await asyncio.gather(*(it.send(another(it, number)) for number in range(6)))

        found = await numbers(it)
        batches = {size: found.get(f'forwarder_signature_batches_total{{size="{size}"}}', 0) for size in range(1, 9)}
        # Of each message DKIM's and two of ARC. The library is one for the process, whatever ran in it before.
        assert sum(size * (count - already.get(size, 0)) for size, count in batches.items()) == 18


async def test_who_sends_is_ready_who_stops_or_has_no_store_is_not(tmp_path: Path) -> None:
    async with lab(tmp_path, store_timeout=HASTY, extra=METRICS, zone=ZONE, aliases=ALIASES) as it:
        assert await get(it, "/healthz") == (200, "alive\n")
        assert await get(it, "/readyz") == (200, "ready\n")
        pid = it.app.store_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            status, said = await get(it, "/readyz")
            assert (status, said.partition(":")[0]) == (503, "degraded")
            assert "store" in said
            assert (await get(it, "/readyz?degraded=ok"))[0] == 200
            assert (await get(it, "/healthz"))[0] == 200
            found = await numbers(it)
            assert found["forwarder_store_up"] == 0
            assert "forwarder_queue_bytes" not in found
        finally:
            os.kill(pid, signal.SIGCONT)
        for _ in range(200):
            if (await get(it, "/readyz"))[0] == 200:
                break
            await asyncio.sleep(0.05)
        assert await get(it, "/readyz") == (200, "ready\n")
        async with SmtpSink({"DOT": [Drip(b"250 2.0.0 Ok\r\n", 0.1)]}, host=OTHER, port=it.port) as other:
            sending = asyncio.create_task(it.send(another(it, 1, "held@fwd.test"), recipient="held@fwd.test"))
            await until(lambda: "DATA" in other.verbs())
            stopping = asyncio.create_task(it.app.stop(20))
            await until(lambda: bool(it.journal.named("service.stopping")))
            assert await get(it, "/readyz") == (503, "stopping\n")
            assert (await get(it, "/healthz"))[0] == 200
            # The answer comes, and 421 to QUIT.
            await asyncio.gather(sending, stopping, return_exceptions=True)
        assert [one["code"] for one in it.journal.named("message.answered")] == [250]
        assert not it.journal.named("web.fault")


async def test_a_scrape_is_for_this_host_and_who_is_named(tmp_path: Path) -> None:
    async with lab(tmp_path, extra=METRICS) as it:
        assert (await get(it, "/other"))[0] == 404
        assert it.app.metrics_addresses[0].startswith("127.0.0.1:")
    config = tmp_path / "forwarder.toml"
    text = config.read_text()
    config.write_text(text.replace("127.0.0.1:0", "0.0.0.0:0"))
    with pytest.raises(Exception, match=r"metrics\.allow"):
        load(config)
    (tmp_path / "state" / "metrics").rename(tmp_path / "gone")
    (tmp_path / "state" / "metrics").write_text("")
    config.write_text(text)
    app = App(load(config), MemoryJournal())
    with pytest.raises(StartError, match="metrics: cannot write"):
        await app.start()


async def test_nothing_of_it_is_there_where_nobody_wants_it(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        assert (await it.send(it.signed())).startswith("250")
        assert it.app.metrics_addresses == ()
        assert not (tmp_path / "state" / "metrics").exists()
