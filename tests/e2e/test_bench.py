"""Does the load generator still run, and find nothing lost? Its figures are nobody's business here."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE

from tests.suites import ROOT


async def test_load_is_sent_sealed_and_counted() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load", "--workload", "4k", "--seconds", "0.2", "--rounds", "1", "--json"),
        cwd=ROOT,
        stdout=PIPE,
    )
    async with asyncio.timeout(60):
        printed, _ = await process.communicate()
    rows = json.loads(printed)[""]
    assert process.returncode == 0
    assert rows["4k"][0]["cpu_ms"] > 0
    assert rows["4k"][0]["rate"] > 0
    assert rows["4k"][0]["lost"] == rows["4k"][0]["unsealed"] == rows["4k"][0]["refused"] == 0
