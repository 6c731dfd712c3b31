"""app/running.py: what serves is not searched for garbage over and over, before a reload and after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from forwarder.app.running import is_collection_due
from tests.suites import ROOT

#: Runs the service, and then says what was left alone, and what a message may leave before somebody looks.
_SERVE = """
import gc, os, sys
before = len(gc.get_objects())
from forwarder.cli.main import main
code = main(["serve", "--config", sys.argv[1]])
print(code, gc.get_freeze_count() > before, *gc.get_threshold())
"""


def test_what_serves_is_left_alone_by_the_collector(tmp_path: Path) -> None:
    config = tmp_path / "forwarder.toml"
    config.write_text(
        f"""
hostname = "mx.fwd.test"
listen = ["127.0.0.1:0"]
state_dir = "{tmp_path}/state"
store = "unix://{tmp_path}/nobody"
[srs]
domain = "fwd.test"
secret_file = "{tmp_path}/srs.secret"
[domains."fwd.test".aliases]
alias = ["dest@sink.test"]
"""
    )
    secret = tmp_path / "srs.secret"
    secret.write_text("0123456789abcdef0123456789abcdef\n")
    secret.chmod(0o600)
    # A process of its own: to serve changes what the process may do, for good.
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(config)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        assert process.stdout is not None
        _read_to(process, "service.ready")
        os.kill(process.pid, signal.SIGHUP)
        _read_to(process, "service.reloaded")
        os.kill(process.pid, signal.SIGTERM)
        said, rest = process.communicate(timeout=30)
    finally:
        process.kill()
    assert said.split() == ["0", "True", "10000", "2", "1000000000"], rest


def _read_to(process: subprocess.Popen[str], event: str) -> None:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if f'"{event}"' in line:
            return
    raise AssertionError(lines)


@pytest.mark.parametrize(
    ("runs", "busy", "due"),
    [
        pytest.param(39, 0.0, False, id="too early"),
        pytest.param(40, 0.05, True, id="at rest"),
        pytest.param(40, 0.15, False, id="waits for rest"),
        pytest.param(58, 0.16, False, id="waits for some rest"),
        pytest.param(76, 0.15, True, id="waits for less of it"),
        pytest.param(300, 0.7, True, id="hardly waits"),
        pytest.param(400, 1.0, True, id="waits no longer"),
    ],
)
def test_everything_is_searched_when_the_loop_rests_or_has_not_for_long(runs: int, busy: float, *, due: bool) -> None:
    assert is_collection_due(runs, busy) is due


#: A loop without rest makes a cycle that outlives the runs over what is new, and looks whether it goes.
_CYCLE = """
import asyncio, gc, weakref
from forwarder.app import running
running._LOOK = 0.01

class Cycle:
    def __init__(self):
        self.me = self

async def main():
    old = Cycle()
    gc.collect(1)
    gone, old = weakref.ref(old), None
    while gone() is not None:
        # It is not where these runs look.
        gc.collect(1)
        await asyncio.sleep(0)
    return 0

print(running.run_loop(main()))
"""


def test_a_cycle_that_outlived_the_runs_over_what_is_new_ends_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CYCLE], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "0\n", done.stderr
