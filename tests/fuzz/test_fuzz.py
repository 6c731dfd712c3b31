"""A short run of every fuzz target, the same inputs each time; ``scripts/fuzz`` runs them for longer, with others."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator

import pytest

from tests.fuzz.everything import TARGETS, close_targets
from tests.fuzz.inputs import make_inputs
from tests.fuzz.measure import MAX_CPU, Measure, examine
from tests.fuzz.target import Target

#: Inputs for each target.
INPUTS = int(os.environ.get("FUZZ_INPUTS", "1000"))
#: Another number, other inputs. A finding gets a seed or a test of its own, so this one need not change.
NUMBER = 1


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_targets()


@pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.name)
def test_no_input_breaks_a_promise(target: Target) -> None:
    measure = Measure()
    for data in itertools.islice(make_inputs(target, NUMBER), INPUTS):
        finding = examine(target, data, measure)
        assert finding is None, f"{finding.what}\n{finding.data!r}"


def test_the_same_number_gives_the_same_inputs() -> None:
    target = TARGETS[0]
    first, second = (list(itertools.islice(make_inputs(target, 7), 200)) for _ in range(2))
    assert first == second
    assert len(set(first)) > 150


def _raise(data: bytes) -> None:
    raise ValueError(data)


def test_an_exception_is_a_finding() -> None:
    finding = examine(Target("x", _raise, (b"a",), (b"b",)), b"hello", Measure())
    assert finding is not None
    assert "ValueError: b'hello'" in finding.what


def _dawdle(data: bytes) -> None:
    began = time.process_time()
    while time.process_time() - began <= MAX_CPU:
        pass


def test_what_takes_too_long_is_a_finding() -> None:
    finding = examine(Target("x", _dawdle, (b"a",), (b"b",)), b"hello", Measure())
    assert finding is not None
    assert "of CPU" in finding.what
