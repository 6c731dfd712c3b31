"""forwarder queue: an operator sees what waits and moves it, while the service runs and while it does not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from forwarder.cli.main import main
from tests.e2e.lab import MESSAGE, Lab, lab
from tests.e2e.test_queue import ALIASES, NO, NOT_NOW, OTHER, SOON, UNVERIFIED, ZONE, held, send, told
from tests.peers.smtp_sink import DEFAULT, SmtpSink
from tests.waiting import until

LATER = "[queue]\nfirst_retry = 300\n"


async def command(it: Lab, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = await asyncio.to_thread(main, ["queue", *words, "--config", str(it.folder / "forwarder.toml")])
    out = capsys.readouterr()
    return code, out.out + out.err


async def test_what_waits_is_listed_shown_and_sent_at_once_on_demand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=LATER) as it,
        SmtpSink({"DOT": [NOT_NOW, DEFAULT]}, host=OTHER, port=it.port) as other,
    ):
        assert (await send(it, held(it))).startswith("250 2.0.0 accepted")
        code, out = await command(it, capsys, "ls")
        assert (code, out.splitlines()[-1].startswith("1 waiting, ")) == (0, True)
        assert "secret@other.test" in out
        (line,) = (await command(it, capsys, "ls", "--json"))[1].splitlines()
        facts = json.loads(line)
        assert facts["for"] == ["held@fwd.test"]
        assert 200 < facts["due_in"] < 331
        assert facts["attempts"] == 1
        assert (await command(it, capsys, "ls", "--to", "elsewhere.test"))[1] == "0 waiting, 0 octets\n"
        shown = (await command(it, capsys, "show", facts["id"]))[1]
        assert "Subject: hello" in shown
        assert "report_to:    bob@sender.test" in shown
        assert not other.messages
        code, out = await command(it, capsys, "retry", "--to", "other.test")
        assert (code, out) == (0, f"{facts['id']}  due now\n")
        it.app.wake_queue()
        await until(lambda: other.messages)
        await told(it, "queue.outcome")
        assert (await command(it, capsys, "ls"))[1] == "0 waiting, 0 octets\n"


async def test_what_is_dropped_is_gone_and_nobody_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=LATER) as it:
        assert (await send(it, held(it))).startswith("250 2.0.0 accepted")
        facts = json.loads((await command(it, capsys, "ls", "--json"))[1])
        assert await command(it, capsys, "drop", facts["id"]) == (0, f"{facts['id']}  dropped\n")
        assert await command(it, capsys, "drop", facts["id"]) == (1, f"{facts['id']}  not here\n")
        assert it.sender.waiting.empty()


async def test_a_dead_letter_is_seen_and_can_be_sent_after_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        lab(tmp_path, zone=ZONE | UNVERIFIED, aliases=ALIASES, extra=SOON) as it,
        SmtpSink({"DOT": [NOT_NOW, NO, DEFAULT]}, host=OTHER, port=it.port) as other,
    ):
        assert (await send(it, MESSAGE)).startswith("250 2.0.0 accepted")
        await told(it, "queue.dead")
        out = (await command(it, capsys, "ls", "--dead", "--json"))[1]
        facts = json.loads(out.splitlines()[-1])
        assert "550" in facts["reason"]
        assert facts["report_to"] is None
        assert (await command(it, capsys, "retry", facts["id"]))[0] == 0
        it.app.wake_queue()
        await until(lambda: other.messages)


async def test_the_queue_can_be_seen_while_the_service_is_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=LATER) as it:
        assert (await send(it, held(it))).startswith("250 2.0.0 accepted")
        await it.app.stop(2)
        assert (await command(it, capsys, "ls"))[1].splitlines()[-1].startswith("1 waiting, ")


async def test_what_is_not_here_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with lab(tmp_path) as it:
        assert (await command(it, capsys, "show", "nothing"))[0] == 1
        assert (await command(it, capsys, "retry"))[0] == 2
