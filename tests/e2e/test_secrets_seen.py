"""Which SRS secrets do reports still come to? The store remembers the day, and `forwarder srs secrets status` tells it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from forwarder.cli.main import main
from tests.e2e.lab import lab


async def test_a_report_shows_that_its_secret_is_still_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with lab(tmp_path) as it:
        config = ["--config", str(tmp_path / "forwarder.toml")]
        await asyncio.to_thread(main, ["srs", "secrets", "status", *config])
        assert capsys.readouterr().out.splitlines()[0].endswith("mints; no report seen")
        assert (await it.send(it.signed())).startswith("250")
        assert (await it.bounce(await it.next(it.sink))).startswith("250")
        today = it.app.clock.now().date()
        await asyncio.to_thread(main, ["srs", "secrets", "rotate", *config])

        told = capsys.readouterr().out.splitlines()[-2:]

        assert told[0].endswith("mints; no report seen")
        assert told[1].endswith(f"a report came to an address of it on {today}")
