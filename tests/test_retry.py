"""retry.py: pauses double up to the longest, spread by chance, and end when the time is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from forwarder.retry import Schedule, pause

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
SCHEDULE = Schedule(300, 14400)


def after(attempts: int, chance: float = 0.5, left: float = 432000) -> float | None:
    return pause(SCHEDULE, attempts, expires_at=NOW + timedelta(seconds=left), now=NOW, chance=chance)


def test_pauses_double_up_to_the_longest() -> None:
    assert [after(number) for number in range(1, 9)] == [300, 600, 1200, 2400, 4800, 9600, 14400, 14400]
    assert after(10_000) == 14400


def test_a_delivery_that_was_never_tried_waits_as_after_the_first() -> None:
    assert after(0) == 300


@pytest.mark.parametrize(("chance", "want"), [(0.0, 270.0), (1.0, 330.0)])
def test_chance_moves_a_pause_by_a_tenth_at_most(chance: float, want: float) -> None:
    assert after(1, chance) == pytest.approx(want)


def test_the_last_attempt_is_made_when_the_time_is_over_and_none_after_it() -> None:
    assert after(8, left=1000) == 1000
    assert after(8, left=0) is None
    assert after(1, left=-1) is None
