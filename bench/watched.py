"""Is the service's event loop held up? Runs the program as ``python -m forwarder`` does, and looks at it all the while.

    python -m bench.watched FILE serve --config forwarder.toml

A look is due each millisecond. SIGUSR1: those since the last SIGUSR1 go into FILE as JSON, in milliseconds: how late each was by
the clock, and how much CPU the loop took since the look before. Others that use the machine make the first larger and hardly
the second.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from forwarder.app import running
from forwarder.cli.main import main

PAUSE = 0.001
_run_loop = running.run_loop


def _watched(program: Coroutine[Any, Any, int]) -> int:
    async def both() -> int:
        watching = asyncio.create_task(watch(Path(_file)))
        try:
            return await program
        finally:
            watching.cancel()

    return _run_loop(both())


async def watch(file: Path) -> None:
    """Until it is cancelled."""
    loop = asyncio.get_running_loop()
    looks: list[tuple[float, float]] = []

    def tell() -> None:
        made = file.with_suffix(".new")
        made.write_text(json.dumps({"late": [one for one, _ in looks], "cpu": [one for _, one in looks]}))
        made.rename(file)
        looks.clear()

    loop.add_signal_handler(signal.SIGUSR1, tell)
    cpu = time.thread_time()
    while True:
        due = loop.time() + PAUSE
        await asyncio.sleep(PAUSE)
        late, (before, cpu) = loop.time() - due, (cpu, time.thread_time())
        looks.append((late * 1000, (cpu - before) * 1000))


if __name__ == "__main__":
    _file = sys.argv[1]
    running.run_loop = _watched
    sys.exit(main(sys.argv[2:]))
