"""app/generation.py: what runs for as long as the program does is not ended by a fault of ours."""

from __future__ import annotations

import asyncio

import pytest

from forwarder.app import generation
from forwarder.app.generation import keep_running
from tests.fakes import MemoryJournal


async def test_a_fault_is_told_and_what_ended_by_it_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "AFTER_FAULT", 0)
    journal, begun = MemoryJournal(), 0

    async def run() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise RuntimeError("a fault")

    await asyncio.wait_for(keep_running(run, "renewals", journal), 5)
    assert begun == 3
    assert [(one["where"], one["kind"]) for one in journal.named("fault")] == [("renewals", "RuntimeError")] * 2


async def test_who_cancels_it_ends_it() -> None:
    task = asyncio.create_task(keep_running(asyncio.Event().wait, "renewals", MemoryJournal()))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
