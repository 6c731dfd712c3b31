"""Named points at which the program fails when it is told to, and never else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from forwarder import failpoints
from forwarder.failpoints import FailpointReached, arm, reach
from tests.suites import ROOT


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm("")


def test_unarmed_nothing_happens() -> None:
    for point in failpoints.POINTS:
        reach(point)


def test_an_armed_point_fails_once() -> None:
    arm("K5:raise")
    reach("K4")
    with pytest.raises(FailpointReached, match="K5"):
        reach("K5")
    reach("K5")


def test_the_third_time_can_be_asked_for() -> None:
    arm("K5:3:raise, K6:raise")
    reach("K5")
    with pytest.raises(FailpointReached, match="K6"):
        reach("K6")
    reach("K5")
    with pytest.raises(FailpointReached, match="K5"):
        reach("K5")


@pytest.mark.parametrize(
    "text",
    ["K5", "K15:kill", "k5:kill", "K5:stop", "K5:0:kill", "K5:x:kill", "K5:-1:kill", "K5:²:kill", "K5:1:2:kill", ":"],
)
def test_what_cannot_be_read_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is no POINT:ACTION"):
        arm(text)


def test_a_mistake_arms_nothing() -> None:
    with pytest.raises(ValueError, match="K99"):
        arm("K5:raise,K99:kill")
    reach("K5")


def test_the_service_does_not_start_with_a_point_that_is_none() -> None:
    # A process of its own: to serve changes what the process may do, for good.
    ended = subprocess.run(
        [sys.executable, "-m", "forwarder", "serve", "--config", "nowhere.toml"],
        cwd=ROOT,
        env=os.environ | {"FORWARDER_FAILPOINT": "K99:kill"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("forwarder: FORWARDER_FAILPOINT: 'K99:kill' is no POINT:ACTION")
