"""Does the load generator still run, and find nothing lost? Its figures are nobody's business here."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from typing import Any

from tests.peers.postfix import needs_postfix, needs_root
from tests.peers.postsrsd import needs_postsrsd
from tests.peers.rspamd import needs_rspamd
from tests.suites import ROOT


async def bench(*arguments: str) -> Any:
    """What it prints as JSON."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", *arguments, "--json", cwd=ROOT, stdout=PIPE)
    async with asyncio.timeout(120):
        printed, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(printed)


async def test_load_is_sent_sealed_and_counted() -> None:
    rows = (await bench("bench.load", "--workload", "4k", "--seconds", "0.2", "--rounds", "1"))[""]
    assert rows["4k"][0]["cpu_ms"] > 0
    assert rows["4k"][0]["rate"] > 0
    assert rows["4k"][0]["lost"] == rows["4k"][0]["unsealed"] == rows["4k"][0]["refused"] == 0


async def test_one_worker_and_two_are_measured_in_turns() -> None:
    found = await bench(
        *("bench.load", "--workload", "4k1", "--seconds", "0.1", "--rounds", "1"),
        *("--compare-workers", "2", "--turns", "1"),
    )
    assert [*found] == ["1 worker", "2 workers"]
    for rows in found.values():
        assert [(one["lost"], one["unsealed"], one["refused"]) for one in rows["4k1"]] == [(0, 0, 0)]
        assert all(one["memory_mb_one"] < one["memory_mb"] and one["cores_beside"] > 0 for one in rows["4k1"])


async def test_every_message_of_a_cold_run_is_from_a_domain_that_passes() -> None:
    found = await bench("bench.cold", "--domains", "40", "--parts", "2", "--warm", "20")
    assert [one["messages"] for one in found["rows"] if one["what"].startswith("cold")] == [20, 20]
    assert found["total"]["refused"] == found["total"]["lost"] == 0


async def test_a_store_says_what_a_message_costs_and_leaves() -> None:
    session, busy = await bench("bench.store", "--messages", "20", "--modes", "in session")
    assert session["refused"] == 0
    kinds = session["kinds"]
    assert {kind: round(kinds[kind]["days"]) for kind in "cmfl"} == {"c": 2, "m": 10, "f": 10, "l": 7}
    assert busy["scripts"] > 2
    assert busy["cpu_us"] > 0


async def test_a_soak_has_faults_and_loses_nothing() -> None:
    found = await bench("bench.soak", "--minutes", "0.03", "--probe", "0.3", "--faults", "0.05")
    assert found["taken"] > 0
    assert found["given_up"] == 0
    assert found["lost"] == found["doubled"] == 0


@needs_root
@needs_postfix
@needs_postsrsd
@needs_rspamd
async def test_what_postfix_rspamd_and_postsrsd_put_on_a_message_is_there_and_holds() -> None:
    row = (await bench("bench.peers", "--who", "stack", "--seconds", "0.2", "--rounds", "1"))["rounds"]["stack"][0]
    assert row["faults"] == []
    assert row["holds"] == ["arc", "dkim", "srs", "theirs"]
    assert row["cpu_ms"] > 0
