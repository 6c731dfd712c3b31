"""forwarder destinations: an operator sees which do not take their mail, and decides otherwise."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from forwarder.cli.main import main
from tests.e2e.lab import Lab, lab
from tests.e2e.test_destinations import ALIASES, NO, QUICK, make_due, send, standing
from tests.e2e.test_queue import OTHER, ZONE
from tests.peers.smtp_sink import SmtpSink
from tests.waiting import until


async def command(it: Lab, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = await asyncio.to_thread(main, [*words, "--config", str(it.folder / "forwarder.toml")])
    out = capsys.readouterr()
    return code, out.out + out.err


async def test_what_a_destination_did_is_listed_shown_and_forgotten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=QUICK) as it,
        SmtpSink({"RCPT": NO}, host=OTHER, port=it.port),
    ):
        assert await command(it, capsys, "destinations", "ls") == (0, "")
        await send(it, 0)
        assert (await command(it, capsys, "destinations", "ls", "--paused"))[1] == ""
        await send(it, 1)

        code, out = await command(it, capsys, "destinations", "ls", "--paused")
        assert code == 0
        head, row = out.splitlines()
        assert head.split()[:3] == ["DESTINATION", "SCORE", "STATE"]
        assert row.split()[0] == "secret@other.test"
        assert " paused " in row
        facts = json.loads((await command(it, capsys, "destinations", "ls", "--json"))[1])
        assert (facts["subject"], facts["state"], facts["by_hand"]) == (
            "destination:secret@other.test",
            "paused",
            False,
        )
        assert [one["what"] for one in facts["evidence"]] == ["refused: unknown-user 5.1.1"] * 2
        assert "state:        paused" in (await command(it, capsys, "destinations", "show", "secret@other.test"))[1]

        said = "secret@other.test: mail goes there again\n"
        assert await command(it, capsys, "destinations", "resume", "Secret@other.test") == (0, said)
        said = "secret@other.test: nothing was held against it\n"
        assert await command(it, capsys, "destinations", "resume", "secret@other.test") == (1, said)


async def test_what_waits_for_a_paused_destination_is_not_sent_until_a_probe_may_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=QUICK) as it,
        SmtpSink({}, host=OTHER, port=it.port) as other,
    ):
        said = "secret@other.test: paused until it is resumed\n"
        assert await command(it, capsys, "destinations", "pause", "secret@other.test") == (0, said)
        assert it.app.standings is not None
        await it.app.standings.refresh()
        assert (await send(it, 0, "pair@fwd.test")).startswith("250")
        (item,) = [one["item"] for one in it.events("queue.put")]

        async def waits() -> bool:
            facts = json.loads((await command(it, capsys, "queue", "ls", "--json"))[1])
            return facts["state"] == "waiting" and facts["due_in"] > 30 and facts["attempts"] == 0

        async with asyncio.timeout(30):
            while not await waits():
                pass
        assert not other.messages

        # As if it had paused itself, and its time had come.
        await make_due(it)
        await command(it, capsys, "queue", "retry", item)
        it.app.wake_queue()
        await until(lambda: other.messages)
        await until(lambda: standing(it) is None)
        assert len(it.events("destination.probed")) == 1


async def test_what_is_disabled_by_hand_stays_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=QUICK) as it:
        said = "secret@other.test: disabled until it is resumed\n"
        assert await command(it, capsys, "destinations", "disable", "secret@other.test", "--reason", "moved") == (
            0,
            said,
        )
        assert it.app.standings is not None
        await it.app.standings.refresh()
        assert (await send(it, 0)).startswith("550 5.1.1 no such address here")
        assert "moved" in (await command(it, capsys, "destinations", "show", "secret@other.test"))[1]
