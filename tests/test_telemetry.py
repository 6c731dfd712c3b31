"""telemetry.py: what is told, and what is not."""

from __future__ import annotations

import errno
import io
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from forwarder.model import Address
from forwarder.telemetry import MAX_BACKLOG, EventLog, redact
from tests.fakes import FixedClock


def written(pretty: bool = False, full: bool = False, **fields: object) -> str:
    stream = io.StringIO()
    EventLog(stream, FixedClock(), pretty=pretty, full_addresses=full).event("a.name", **fields)
    return stream.getvalue()


def test_an_event_is_one_json_line_with_its_time_and_fields() -> None:
    line = written(id="x1", count=3, absent=None)
    assert line.endswith("\n")
    assert json.loads(line) == {"time": "2026-11-23T12:30:00.000+00:00", "event": "a.name", "id": "x1", "count": 3}


@pytest.mark.parametrize(
    "at",
    [
        datetime(2026, 11, 23, 12, 30, 0, 999_999, UTC),
        datetime(2026, 11, 23, 12, 30, 1, 0, UTC),
        datetime(2026, 11, 23, 12, 30, 1, 1_000, UTC),
        datetime(2026, 11, 23, 12, 30, 0, 42_000, UTC),
        datetime(2027, 1, 1, 0, 0, 0, 7_999, UTC),
    ],
)
def test_the_time_is_right_whatever_was_written_before(at: datetime) -> None:
    stream = io.StringIO()
    clock = FixedClock(datetime(2026, 11, 23, 12, 30, 0, 500_000, UTC))
    log = EventLog(stream, clock)
    log.event("before")
    clock.time = at
    log.event("now")
    assert json.loads(stream.getvalue().splitlines()[1])["time"] == at.isoformat(timespec="milliseconds")


@pytest.mark.parametrize("pretty", [False, True])
def test_hostile_bytes_are_escaped_in_both_forms(pretty: bool) -> None:
    line = written(pretty, helo=b"a\x1b[2Jb\r\nevent=forged\x00\xff", text="x\ny\u2028\x9b")
    assert line.count("\n") == 1
    assert line[:-1].isprintable()


def test_addresses_are_shown_in_part_unless_asked_for() -> None:
    assert "b***@sender.example" in written(sender=Address("bob", "sender.example"))
    assert "bob@sender.example" in written(full=True, sender=Address("bob", "sender.example"))


def test_a_field_is_bounded() -> None:
    assert len(written(text="x" * 1_000_000)) < 1200


def test_a_stream_that_is_gone_stops_nothing() -> None:
    stream = io.StringIO()
    log = EventLog(stream, FixedClock())
    stream.close()
    log.event("a.name")
    log.event("a.name")


class Full(io.StringIO):
    """A disk, full or not."""

    is_full = True

    def write(self, text: str, /) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, "no space left on device")
        return super().write(text)


def test_lines_that_could_not_be_written_are_told_of_once_there_is_room() -> None:
    stream = Full()
    log = EventLog(stream, FixedClock())
    for _ in range(3):
        log.event("gone")
    stream.is_full = False
    log.event("here")
    log.event("here")
    assert events(stream) == ["here", "log.lost", "here"]
    assert json.loads(stream.getvalue().splitlines()[1])["lines"] == 3


class Turns:
    """An event loop, as far as a log needs one."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], object]] = []
        self.later: list[Callable[[], object]] = []

    def call_soon(self, callback: Callable[[], object], /) -> None:
        self.soon.append(callback)

    def call_later(self, delay: float, callback: Callable[[], object], /) -> None:
        assert 0 < delay < 0.1
        self.later.append(callback)


def events(stream: io.StringIO) -> list[str]:
    return [json.loads(line)["event"] for line in stream.getvalue().splitlines()]


def test_with_a_loop_lines_wait_for_its_turn_and_the_backlog_is_bounded() -> None:
    stream, loop = io.StringIO(), Turns()
    log = EventLog(stream, FixedClock(), loop=loop)
    for _ in range(MAX_BACKLOG + 5):
        log.event("a.name")
    assert stream.getvalue() == ""
    assert (len(loop.soon), len(loop.later)) == (1, 0)
    loop.soon.pop()()
    lines = stream.getvalue().splitlines()
    assert len(lines) == MAX_BACKLOG + 1
    assert json.loads(lines[-1]) | {"time": ""} == {"time": "", "event": "log.lost", "lines": 5}


def test_what_every_message_has_waits_for_others_until_something_else_is_told() -> None:
    stream, loop = io.StringIO(), Turns()
    log = EventLog(stream, FixedClock(), loop=loop)
    log.event("message.received")
    log.event("message.verified")
    assert (len(loop.soon), len(loop.later)) == (0, 1)
    loop.later.pop()()
    log.event("message.answered")
    log.event("claim.taken_over")
    log.event("message.received")
    assert (len(loop.soon), len(loop.later)) == (1, 1)
    loop.soon.pop()()
    assert events(stream) == [
        *("message.received", "message.verified"),
        *("message.answered", "claim.taken_over", "message.received"),
    ]
    log.event("message.verified")
    assert len(loop.later) == 1, "its time is near already"
    loop.later.pop()()
    assert events(stream)[-1] == "message.verified"


def test_what_is_for_numbers_and_spans_only_is_no_line() -> None:
    stream, loop = io.StringIO(), Turns()
    log = EventLog(stream, FixedClock(), loop=loop)
    log.event("message.sealed", id="m1", octets=2946)
    assert not loop.soon
    assert not loop.later
    log.event("claim.again")
    log.flush()
    assert events(stream) == ["claim.again"]


def test_a_line_that_nobody_can_write_costs_no_other() -> None:
    class Broken:
        def __str__(self) -> str:
            raise ValueError("nobody knows how")

    stream = io.StringIO()
    log = EventLog(stream, FixedClock(), loop=Turns())
    log.event("before")
    log.event("bad", what=Broken())
    log.event("behind")
    log.flush()
    log.event("later")
    log.flush()
    assert events(stream) == ["before", "behind", "later", "log.lost"]


def test_a_line_has_the_time_at_which_it_was_told() -> None:
    stream, clock = io.StringIO(), FixedClock(datetime(2026, 11, 23, 12, 30, 0, 500_000, UTC))
    log = EventLog(stream, clock, loop=Turns())
    log.event("a.name")
    clock.time = datetime(2026, 11, 23, 12, 30, 0, 540_000, UTC)
    log.flush()
    assert json.loads(stream.getvalue())["time"] == "2026-11-23T12:30:00.500+00:00"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("550 5.1.1 <secret@other.test>: no such user", "550 5.1.1 <s***@other.test>: no such user"),
        ("rfc822;secret@other.test", "rfc822;s***@other.test"),
        ('to "se cret"@other.test.', "to s***@other.test."),
        ("nobody @ home, a@ b", "nobody @ home, a@ b"),
    ],
)
def test_addresses_in_what_others_say_are_shown_in_part(said: str, shown: str) -> None:
    assert json.loads(written(text=said))["text"] == shown
    assert json.loads(written(full=True, text=said))["text"] == said


def test_text_without_an_end_is_searched_in_no_time() -> None:
    before = time.process_time()
    for one in ("a" * 100_000 + "@", '"' * 100_000 + "@", 'a"' * 50_000 + "@", "a@" * 50_000):
        redact("text", one)
    assert time.process_time() - before < 1
