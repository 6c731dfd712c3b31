"""Which spans do events make, and what becomes of spans that nobody takes?"""

from __future__ import annotations

import subprocess
import sys

import pytest

from forwarder.model import Address
from forwarder.spans import Exporter, ExportSettings, Span, SpanJournal
from forwarder.spans import journal as spans
from forwarder.spans.journal import context_of
from tests.fakes import MemoryJournal
from tests.suites import ROOT


class Watch:
    """A journal in front of another, with a clock that a test moves, in seconds."""

    def __init__(self, share: float = 1.0) -> None:
        self.told: list[Span] = []
        self.log = MemoryJournal()
        self.now = 0.0
        self._journal = SpanJournal(self.log, self.told.append, lambda: int(self.now * 1e9), share=share)

    def tell(self, name: str, at: float, **fields: object) -> None:
        self.now = at
        self._journal.event(name, id="m1", **fields)


def seconds(span: Span) -> tuple[str, float, float]:
    return span.name, span.began / 1e9, span.ended / 1e9


def test_the_time_between_two_events_is_a_span() -> None:
    it = Watch()
    it.tell("message.received", 1.0, size=7)
    it.tell("message.verified", 1.5, spf="pass")
    it.tell("route.forward", 1.6, alias=Address("team", "fwd.test"))
    it.tell("message.sealed", 1.9)
    it.tell("relay.sent", 4.0, peer="mx", tls="TLSv1.3", took=2.0)
    it.tell("delivery.outcome", 4.2, peer="mx", outcome="delivered")
    it.tell("delivery.outcome", 4.2, peer=None, outcome="queued")
    it.tell("message.answered", 4.5, code=250)
    assert [seconds(one) for one in it.told] == [
        ("verify", 1.0, 1.5),
        ("route", 1.5, 1.6),
        ("seal", 1.6, 1.9),
        ("deliver", 2.0, 4.0),
        ("deliver", 1.9, 4.2),
        ("message", 1.0, 4.5),
    ]
    message = it.told[-1]
    assert message.attributes == {"mail.id": "m1", "mail.size": 7, "mail.code": 250}
    assert it.told[1].attributes == {"mail.alias": "t***@fwd.test"}
    assert it.told[3].attributes["mail.tls"] == "TLSv1.3"
    assert {one.parent for one in it.told[:-1]} == {message.context}
    assert len({one.context.span for one in it.told}) == 6
    assert it.log.events[0] == ("message.received", {"id": "m1", "size": 7})


def test_an_attempt_of_the_queue_is_a_trace_that_any_process_can_link() -> None:
    it = Watch()
    for peer in ("a", "b"):
        it.tell("relay.sent", 9.0, peer=peer, tls=None, took=1.0)
    for peer, outcome in (("a", "delivered"), ("b", "deferred")):
        it.tell("queue.outcome", 9.5, peer=peer, outcome=outcome, item="m1.0", attempt=2, maybe_dup=False)
    attempt, *parts = it.told
    assert attempt.link == context_of("m1")
    assert attempt.context.trace != context_of("m1").trace
    assert [seconds(one) for one in it.told] == [
        ("queue.attempt", 8.0, 9.5),
        ("deliver", 8.0, 9.0),
        ("deliver", 8.0, 9.0),
    ]
    assert {one.parent for one in parts} == {attempt.context}
    it.tell("queue.outcome", 20.0, peer="b", outcome="failed", item="m1.0", attempt=3, maybe_dup=False, text="550 no")
    assert [seconds(one) for one in it.told[3:]] == [("queue.attempt", 20.0, 20.0), ("deliver", 20.0, 20.0)]
    assert it.told[-1].failed == "550 no"


def test_messages_that_never_end_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "MAX_OPEN", 2)
    told: list[Span] = []
    it = SpanJournal(MemoryJournal(), told.append, lambda: 1)
    for id_ in ("a", "b", "c"):
        it.event("message.received", id=id_)
    for id_ in ("a", "b", "c"):
        it.event("message.answered", id=id_, code=250)
    assert [one.attributes["mail.id"] for one in told] == ["b", "c"]


def test_a_share_is_taken_by_the_message_with_its_attempts() -> None:
    in_sample = []
    for number in range(400):
        told: list[Span] = []
        it = SpanJournal(MemoryJournal(), told.append, lambda: 1, share=0.25)
        it.event("message.received", id=f"m{number}")
        it.event("message.answered", id=f"m{number}", code=250)
        count = len(told)
        it.event("queue.outcome", id=f"m{number}", peer=None, outcome="delivered", item="i", attempt=1, maybe_dup=False)
        assert len(told) == 3 * count
        in_sample.append(count)
    assert 60 < sum(in_sample) < 140


def test_what_is_outside_the_share_takes_no_room_of_what_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "MAX_OPEN", 1)
    ids = [f"m{number}" for number in range(400)]
    mine = next(one for one in ids if context_of(one).trace >> 64 < 2**62)
    others = [one for one in ids if context_of(one).trace >> 64 >= 2**62]
    told: list[Span] = []
    it = SpanJournal(MemoryJournal(), told.append, lambda: 5_000_000_000, share=0.25)
    for one in (mine, *others):
        it.event("relay.sent", id=one, peer="mx", tls=None, took=2.0)
    it.event("queue.outcome", id=mine, peer="mx", outcome="delivered", item="i", attempt=1, maybe_dup=False)
    assert [seconds(one) for one in told] == [("queue.attempt", 3.0, 5.0), ("deliver", 3.0, 5.0)]


def test_a_fault_of_spans_is_told_and_ends_no_mail() -> None:
    it = Watch()
    it.tell("message.received", 1.0)
    it.tell("delivery.outcome", 1.0)
    assert [fields["where"] for fields in it.log.named("fault")] == ["spans"]


async def test_what_finds_no_room_is_dropped_and_counted() -> None:
    log = MemoryJournal()
    settings = ExportSettings("http://127.0.0.1:9", "mx.fwd.test", "0", waiting=3, pause=60, timeout=1, patience=0.05)
    it = Exporter(settings, log)
    it.start()
    for number in range(5):
        it.tell(Span("x", context_of(str(number)), None, 1, 2, {}))
    assert it.dropped == 2
    await it.stop()
    await it.stop()
    it.tell(Span("x", context_of("late"), None, 1, 2, {}))
    assert log.named("spans.dropped") == [{"count": 5, "endpoint": "http://127.0.0.1:9"}]


def test_the_sdk_is_not_imported_by_a_service_that_does_not_want_it() -> None:
    # redis-py imports a part of it where it finds it.
    names = ("forwarder.spans.sdk", "opentelemetry.exporter", "opentelemetry.sdk.trace")
    code = f"import sys, forwarder.app, forwarder.cli.serve; print([m for m in sys.modules if m.startswith({names})])"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
