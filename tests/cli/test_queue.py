"""forwarder queue: an operator sees what waits and moves it, while the service runs and while it does not."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from forwarder.app import App, open_state
from forwarder.cli.main import main
from forwarder.config import load
from forwarder.srs import token_in
from tests.e2e.lab import MESSAGE, Lab, lab
from tests.e2e.test_queue import ALIASES, NO, NOT_NOW, OTHER, SOON, UNVERIFIED, ZONE, held, send, told
from tests.fakes import MemoryJournal
from tests.peers.smtp_sink import DEFAULT, SmtpSink
from tests.store.queue.items import held as item
from tests.suites import ROOT
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
        header, line, _ = (await command(it, capsys, "ls", "--dead"))[1].splitlines()
        assert line[header.index("WHY") :].strip() == facts["reason"]
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


async def one_waiting(it: Lab, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """A message that other.test cannot take now, as `ls` tells of it."""
    assert (await send(it, held(it))).startswith("250 2.0.0 accepted")
    facts: dict[str, Any] = json.loads((await command(it, capsys, "ls", "--json"))[1])
    return facts


async def test_what_is_on_hold_is_shown_so_and_goes_out_once_released(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=LATER) as it,
        SmtpSink({"DOT": [NOT_NOW, DEFAULT]}, host=OTHER, port=it.port) as other,
    ):
        id_ = (await one_waiting(it, capsys))["id"]
        assert await command(it, capsys, "hold", "--to", "other.test") == (0, f"{id_}  on hold\n")
        assert await command(it, capsys, "hold", id_) == (0, f"{id_}  on hold already\n")
        assert "on hold" in (await command(it, capsys, "ls"))[1]
        assert json.loads((await command(it, capsys, "ls", "--json"))[1])["state"] == "on hold"
        assert await command(it, capsys, "retry", id_) == (1, f"{id_}  on hold: release it first\n")
        it.app.wake_queue()
        assert await command(it, capsys, "release", "--sender", "sender.test") == (0, f"{id_}  released\n")
        it.app.wake_queue()
        await until(lambda: other.messages)
        await told(it, "queue.outcome")


async def test_what_is_on_hold_is_not_given_up_and_is_tried_once_more_when_its_time_is_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=LATER + "lifetime = 3\n") as it,
        SmtpSink({"DOT": [NOT_NOW, DEFAULT]}, host=OTHER, port=it.port) as other,
    ):
        facts = await one_waiting(it, capsys)
        assert (await command(it, capsys, "hold", "--all"))[0] == 0
        over = datetime.fromisoformat(facts["expires_at"])
        await until(lambda: it.app.clock.now() > over)
        assert len(it.journal.named("queue.outcome")) == 0
        assert (await command(it, capsys, "release", "--all"))[0] == 0
        it.app.wake_queue()
        await until(lambda: other.messages)
        assert it.sender.waiting.empty()


async def test_what_is_dropped_with_a_report_goes_back_to_its_verified_sender(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=LATER) as it:
        id_ = (await one_waiting(it, capsys))["id"]
        code, out = await command(it, capsys, "drop", "--report", id_)
        assert (code, out) == (0, f"{id_}  given up: its sender gets a report\n")
        it.app.wake_queue()
        report = await it.next(it.sender)
        assert report.recipients == ("bob@sender.test",)
        assert b"held@fwd.test" in report.data
        assert b"Status: 5.3.0" in report.data
        assert b"secret" not in report.data
        await until(lambda: it.journal.named("queue.outcome"))
        assert (await command(it, capsys, "ls"))[1] == "0 waiting, 0 octets\n"
        assert (await command(it, capsys, "ls", "--dead"))[1] == "0 dead letters, 0 octets\n"


async def test_what_nobody_vouched_for_is_not_dropped_with_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with lab(tmp_path, zone=ZONE | UNVERIFIED, aliases=ALIASES, extra=LATER) as it:
        assert (await send(it, MESSAGE)).startswith("250 2.0.0 accepted")
        code, out = await command(it, capsys, "drop", "--report", "--all")
        assert code == 1
        assert "nobody may be told" in out
        assert (await command(it, capsys, "ls"))[1].splitlines()[-1].startswith("1 waiting, ")
        assert (await command(it, capsys, "drop", "--report", "nothing"))[0] == 1


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ([], 1),
        (["--to", "OTHER.test"], 1),
        (["--to", "secret@other.test"], 1),
        (["--to", "held@fwd.test"], 0),
        (["--for", "held@fwd.test"], 1),
        (["--for", "fwd.test"], 1),
        (["--sender", "bob@sender.test"], 1),
        (["--sender", "<>"], 0),
        (["--older", "0s"], 1),
        (["--older", "2d"], 0),
        (["--to", "other.test", "--sender", "alice@sender.test"], 0),
        (["--dead"], 0),
    ],
)
async def test_what_is_meant_can_be_said_in_many_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], count: int
) -> None:
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=LATER) as it:
        await one_waiting(it, capsys)
        code, out = await command(it, capsys, "ls", "--json", *words)
        assert (code, len(out.splitlines())) == (0, count)


@pytest.mark.parametrize("words", [["drop"], ["retry", "x", "--all"], ["hold", "x", "--to", "other.test"]])
async def test_who_names_nothing_or_both_moves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    async with lab(tmp_path) as it:
        assert (await command(it, capsys, *words))[0] == 2


async def test_the_summary_counts_by_next_hop_and_age(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=LATER) as it:
        sent = it.signed(recipients=("six@fwd.test",))
        assert (await send(it, sent, "six@fwd.test")).startswith("250 2.0.0 accepted")
        await one_waiting_more(it)
        header, everything, *hops = (await command(it, capsys, "summary"))[1].splitlines()
        assert header.split()[:3] == ["NEXT", "HOP", "TOTAL"]
        assert everything.split()[:2] == ["all", "7"]
        assert len(hops) == 7
        facts = [json.loads(line) for line in (await command(it, capsys, "summary", "--json"))[1].splitlines()]
        assert {one["next_hop"] for one in facts} == {"other.test", *(f"o{number}.test" for number in range(1, 7))}
        assert all(one["total"] == one["ages"]["<5m"] == 1 for one in facts)


async def one_waiting_more(it: Lab) -> None:
    assert (await send(it, held(it))).startswith("250 2.0.0 accepted")


async def test_a_listing_has_a_header_and_what_strangers_wrote_is_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=LATER) as it:
        await one_waiting(it, capsys)
        header, line, total = (await command(it, capsys, "ls"))[1].splitlines()
        assert header.split() == ["ID", "QUEUED", "TRIES", "NEXT", "OCTETS", "SENDER", "RECIPIENT"]
        assert header.index("SENDER") == line.index("bob@sender.test")
        assert total.startswith("1 waiting, ")


# --- from one machine to another --------------------------------------------------------------------------------------


async def test_what_is_exported_is_delivered_from_another_machine_with_another_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "queue.jsonl"
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=LATER) as it:
        id_ = (await one_waiting(it, capsys))["id"]
        code, out = await command(it, capsys, "export", "--all", "--remove", "--output", str(file))
        assert (code, out) == (0, f"1 exported to {file}, and no longer here; 0 not\n")
        assert file.stat().st_mode & 0o777 == 0o600
        assert (await command(it, capsys, "ls"))[1] == "0 waiting, 0 octets\n"
        (line,) = file.read_text().splitlines()
        assert json.loads(line)["id"] == id_
        # The other machine: the same keys and aliases, and nothing of the state.
        await it.app.stop(2)
        (tmp_path / "state").rename(tmp_path / "state.old")
        code, out = await command(it, capsys, "import", str(file))
        assert (code, out) == (0, "1 imported, 0 left alone, 0 not\n")
        assert (await command(it, capsys, "import", str(file)))[1] == "0 imported, 1 left alone, 0 not\n"
        assert (await command(it, capsys, "retry", id_))[0] == 0
        async with SmtpSink(host=OTHER, port=it.port) as other:
            again = App(load(tmp_path / "forwarder.toml"), it.journal)
            await again.start()
            try:
                await until(lambda: other.messages)
                await told(it, "queue.outcome")
                code, out = await command(it, capsys, "import", str(file), "--json")
                assert (code, json.loads(out.splitlines()[-1])["known"]) == (0, 1)
            finally:
                await again.stop(2)
            (arrived,) = other.messages
            assert arrived.rcpts == [b"TO:<secret@other.test>"]
            assert arrived.data.endswith(b"Hello.\r\n.dot\r\n")


async def test_dead_letters_go_along_and_a_copy_may_be_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with (
        lab(tmp_path, zone=ZONE | UNVERIFIED, aliases=ALIASES, extra=SOON) as it,
        SmtpSink({"DOT": [NOT_NOW, NO]}, host=OTHER, port=it.port),
    ):
        assert (await send(it, MESSAGE)).startswith("250 2.0.0 accepted")
        await told(it, "queue.dead")
        file = tmp_path / "queue.jsonl"
        code, out = await command(it, capsys, "export", "--all", "--output", str(file))
        assert (code, out) == (0, f"1 exported to {file}; 0 not\n")
        assert json.loads(file.read_text())["dead"]
        assert (await command(it, capsys, "ls", "--dead"))[1].splitlines()[-1].startswith("1 dead letters, ")
        assert (await command(it, capsys, "export", "--all", "--output", str(file)))[0] == 1
        assert (await command(it, capsys, "import", str(file)))[1] == "0 imported, 1 left alone, 0 not\n"
        code, out = await command(it, capsys, "export", "--all", "--output", "-")
        assert (code, json.loads(out)["about"]["next_hop"]) == (0, "other.test")
        assert (await command(it, capsys, "export", "--all", "--remove", "--output", "-"))[0] == 2


async def test_what_an_opaque_return_address_stands_for_comes_along(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "bob-with-a-name-that-leaves-no-room-in-a-local-part-of-64@sender.test"
    file = tmp_path / "queue.jsonl"
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=LATER) as it:
        sent = it.signed(MESSAGE, sender=long, recipients=("held@fwd.test",))
        assert (await it.send(sent, sender=long, recipient="held@fwd.test")).startswith("250 2.0.0 accepted")
        assert (await command(it, capsys, "export", "--all", "--output", str(file)))[0] == 0
        await it.app.stop(2)
        (tmp_path / "state").rename(tmp_path / "state.old")
        assert (await command(it, capsys, "import", str(file)))[0] == 0
        async with open_state(load(tmp_path / "forwarder.toml"), MemoryJournal()) as state:
            (item,) = [one async for one in state.queue.list()]
            assert item.held is not None
            sender = item.held.delivery.sender
            token = token_in(sender) if sender is not None else None
            assert token is not None
            assert str(await state.ledger.look_up_token(token)) == long


async def test_a_file_that_is_none_or_damaged_is_said_so_line_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, broken = tmp_path / "queue.jsonl", tmp_path / "broken.jsonl"
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=LATER) as it:
        await one_waiting(it, capsys)
        await command(it, capsys, "export", "--all", "--remove", "--output", str(file))
        line = file.read_text()
        broken.write_text("nonsense\n" + line.replace('"unanswered_dots":0', '"unanswered_dots":1') + line)
        code, out = await command(it, capsys, "import", str(broken))
        assert code == 1
        assert [one.partition("  ")[0] for one in out.splitlines() if "line" in one] == ["line 1", "line 2"]
        assert "1 imported, 0 left alone, 2 not" in out
        assert (await command(it, capsys, "import", str(tmp_path / "missing")))[0] == 1


@pytest.mark.parametrize("share", [0.1, 0.7])
async def test_an_export_that_is_killed_loses_nothing(tmp_path: Path, share: float) -> None:
    names, file = {f"m{number}.0" for number in range(300)}, tmp_path / "queue.jsonl"
    async with lab(tmp_path) as it, open_state(load(it.folder / "forwarder.toml"), MemoryJournal()) as state:
        await state.queue.put([item(name, f"{name}.example", body=name.encode() * 1000) for name in names], delay=600)
        exporting = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "forwarder", "queue", "export", "--all", "--remove", "--output", str(file)),
            *("--config", str(it.folder / "forwarder.toml")),
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        try:
            await until(lambda: file.exists() and file.stat().st_size > share * 300 * 6000)
        finally:
            exporting.kill()
            await exporting.wait()
        here = {one.id async for one in state.queue.list()}
        lines = [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        assert here | {json.loads(line)["id"] for line in lines} == names
        # What is in both places is found to be so.
        if lines[-1:]:
            assert (await command_lines(it, file, lines))["failed"] == 0
        assert {one.id async for one in state.queue.list()} == names


async def command_lines(it: Lab, file: Path, lines: list[bytes]) -> dict[str, int]:
    """Import these lines of it, and what came of it."""
    await asyncio.to_thread(file.write_bytes, b"".join(lines))
    importing = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", "forwarder", "queue", "import", str(file), "--json"),
        *("--config", str(it.folder / "forwarder.toml")),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await importing.communicate()
    counts: dict[str, int] = json.loads(out.splitlines()[-1])
    return counts
