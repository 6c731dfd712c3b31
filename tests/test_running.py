"""app/running.py: what serves is not searched for garbage over and over, before a reload and after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.suites import ROOT

#: Runs the service, and then says what was left alone, and what a message may leave before somebody looks.
_SERVE = """
import gc, os, sys
before = len(gc.get_objects())
from forwarder.cli.main import main
code = main(["serve", "--config", sys.argv[1]])
print(code, gc.get_freeze_count() > before, gc.get_threshold()[0])
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
    assert said.split() == ["0", "True", "10000"], rest


def _read_to(process: subprocess.Popen[str], event: str) -> None:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if f'"{event}"' in line:
            return
    raise AssertionError(lines)
