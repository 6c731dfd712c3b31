"""bench/backlog.py in short: a queue that was filled before the start is delivered, and the figures are printed."""

from __future__ import annotations

import asyncio
import os
import re
import sys

from tests.suites import ROOT


async def test_what_waits_at_the_start_is_delivered() -> None:
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.backlog", "start", "--messages", "200"),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await run.communicate()
    assert run.returncode == 0
    text = out.decode()
    assert re.search(r"^listens after \d", text, re.MULTILINE)
    # And the one that came meanwhile.
    assert re.search(r"^20[01] delivered", text, re.MULTILINE)
