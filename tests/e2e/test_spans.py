"""What a collector of OpenTelemetry traces is told of real mail: one trace a message, the queue's attempts linked to it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from forwarder.app import App, StartError
from forwarder.cli.demo_lab import free_port
from forwarder.config import load
from tests.e2e.lab import lab
from tests.peers.otlp import attributes_of, collector
from tests.peers.smtp_sink import DEFAULT, SmtpSink
from tests.waiting import until

OTHER = "127.0.0.51"
ZONE = {"other.test": {"MX": ["10 mx.other.test."]}, "mx.other.test": {"A": [OTHER]}}
ALIASES = 'pair = ["hidden.one@sink.test", "hidden.two@other.test"]'
SOON = "[queue]\nfirst_retry = 0.2\nmax_retry = 0.5\n"
NOT_NOW = b"451 4.2.0 hidden.two@other.test not now\r\n"


async def test_a_message_is_one_trace_and_what_the_queue_tries_later_points_to_it(tmp_path: Path) -> None:
    async with (
        collector() as there,
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=f'{SOON}[otel]\nendpoint = "{there.url}"\n') as it,
        SmtpSink({"DOT": [NOT_NOW, DEFAULT]}, host=OTHER, port=it.port),
    ):
        sent = it.signed(recipients=("pair@fwd.test",))
        assert (await it.send(sent, recipient="pair@fwd.test")).startswith("250 2.0.0 accepted")
        await it.next(it.sink)
        await until(lambda: it.journal.named("queue.outcome"))
    # It has handed over what there was when it stopped.
    (message,) = there.named("message")
    assert there.resource["service.name"] == "mailkey-forwarder"
    assert there.resource["service.instance.id"] == "mx.fwd.test"
    assert message.kind == Span.SpanKind.SPAN_KIND_SERVER
    assert not message.parent_span_id
    told = attributes_of(message)
    assert (told["mail.sender"], told["mail.code"], told["mail.helo"]) == ("b***@sender.test", 250, "mx.sender.test")
    assert "queue.put" in [one.name for one in message.events]

    parts = [one for one in there.spans if one.trace_id == message.trace_id and one is not message]
    assert sorted(one.name for one in parts) == ["deliver", "deliver", "route", "seal", "verify"]
    for one in parts:
        assert one.parent_span_id == message.span_id
        assert message.start_time_unix_nano <= one.start_time_unix_nano <= one.end_time_unix_nano
        assert one.end_time_unix_nano <= message.end_time_unix_nano
    assert attributes_of(there.named("verify")[0])["mail.dkim"] == ["pass sender.test"]
    by_destination = {attributes_of(one)["mail.destination"]: one for one in parts if one.name == "deliver"}
    assert {name: attributes_of(one)["mail.outcome"] for name, one in by_destination.items()} == {
        "h***@sink.test": "delivered",
        "h***@other.test": "queued",
    }

    (attempt,) = there.named("queue.attempt")
    assert attempt.trace_id != message.trace_id
    assert [(one.trace_id, one.span_id) for one in attempt.links] == [(message.trace_id, message.span_id)]
    (again,) = (one for one in there.spans if one.parent_span_id == attempt.span_id)
    assert (again.name, attributes_of(again)["mail.outcome"]) == ("deliver", "delivered")
    assert attempt.start_time_unix_nano == again.start_time_unix_nano < again.end_time_unix_nano
    assert not [one for one in there.requests if b"hidden." in one or b"bob@" in one]


async def test_a_refusal_of_the_next_hop_is_a_span_that_failed(tmp_path: Path) -> None:
    async with (
        collector() as there,
        lab(
            tmp_path, zone=ZONE, aliases='one = ["hidden.two@other.test"]', extra=f'[otel]\nendpoint = "{there.url}"\n'
        ) as it,
        SmtpSink({"RCPT": [b"550 5.1.1 hidden.two@other.test unknown\r\n"]}, host=OTHER, port=it.port),
    ):
        assert (await it.send(it.signed(recipients=("one@fwd.test",)), recipient="one@fwd.test")).startswith("550")
    (deliver,) = there.named("deliver")
    assert deliver.status.code == Status.StatusCode.STATUS_CODE_ERROR
    assert "h***@other.test unknown" in deliver.status.message
    assert attributes_of(there.named("message")[0])["mail.code"] == 550


async def test_without_a_collector_mail_goes_on_and_what_was_lost_is_counted(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    async with lab(tmp_path, extra=f'[otel]\nendpoint = "{nobody}"\n') as it:
        assert (await it.send(it.signed())).startswith("250")
        await it.next(it.sink)
        async with asyncio.timeout(20):
            await it.app.stop()
    (dropped,) = it.journal.named("spans.dropped")
    assert dropped == {"count": 5, "endpoint": nobody}


async def test_without_the_sdk_the_operator_hears_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "forwarder.spans.sdk", None)
    async with lab(tmp_path) as it:
        config = it.folder / "forwarder.toml"
        settings = load(config, {"FORWARDER_OTEL__ENDPOINT": "http://127.0.0.1:4318"})
        with pytest.raises(StartError, match=r'pip install "mailkey-forwarder\[otel\]"'):
            await App(settings, it.journal).start()


@pytest.mark.parametrize("share", ["0.0000001"])
async def test_of_what_is_not_in_the_sample_nothing_is_told(tmp_path: Path, share: str) -> None:
    async with collector() as there, lab(tmp_path, extra=f'[otel]\nendpoint = "{there.url}"\nshare = {share}\n') as it:
        assert (await it.send(it.signed())).startswith("250")
        await it.next(it.sink)
    assert there.requests == []
