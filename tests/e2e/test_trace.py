"""forwarder trace: the life of a message and of its bounce, as an operator asks for it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from forwarder.cli.main import main
from tests.e2e.lab import Lab, bounce_of, lab
from tests.e2e.test_queue import OTHER, ZONE
from tests.peers.smtp_sink import SmtpSink


async def trace(it: Lab, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    tracing = it.app.tracing
    assert tracing is not None
    await tracing.flush()
    capsys.readouterr()
    code = await asyncio.to_thread(main, ["trace", *words, "--config", str(it.folder / "forwarder.toml")])
    out = capsys.readouterr()
    return code, out.out + out.err


async def test_a_message_and_its_bounce_are_told_from_end_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with lab(tmp_path) as it:
        assert (await it.send(it.signed())).startswith("250 2.0.0")
        arrived = await it.next(it.sink)
        report = bounce_of(arrived)
        assert (await it.bounce(arrived, data=report)).startswith("250")
        await it.next(it.sender)
        code, out = await trace(it, capsys, "<one@sender.test>")
        assert code == 0
        words = (
            "message.received",
            "message.verified",
            "spf=pass",
            "route.forward",
            "delivery.outcome",
            "message.answered",
        )
        assert all(one in out for one in words)
        # Its report, behind it.
        assert out.index("message.answered") < out.index("route.return_bounce")
        assert "user unknown" not in out
        assert "hidden.destination" not in out, "addresses are in part"
        assert "h***@sink.test" in out
        (tmp_path / "report.eml").write_bytes(report)
        for way in (["one@sender.test"], ["bob@sender.test"], ["hidden.destination@sink.test"], [arrived.sender]):
            assert "delivery.outcome" in (await trace(it, capsys, *way))[1], way
        assert "delivery.outcome" in (await trace(it, capsys, "--report", str(tmp_path / "report.eml")))[1]
        full = (await trace(it, capsys, "one@sender.test", "--full"))[1]
        assert "hidden.destination@sink.test" in full
        lines = [json.loads(one) for one in (await trace(it, capsys, "one@sender.test", "--json"))[1].splitlines()]
        assert {"message.received", "route.return_bounce"} <= {one["event"] for one in lines}
        assert len({one["id"] for one in lines}) == 2


async def test_what_next_hops_say_shows_no_address_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    no = b"550 5.1.1 <secret@other.test>: no such user\r\n"
    async with (
        lab(tmp_path, zone=ZONE, aliases='held = ["secret@other.test"]') as it,
        SmtpSink({"RCPT": no}, host=OTHER, port=it.port),
    ):
        raw = it.signed(recipients=("held@fwd.test",))
        assert (await it.send(raw, recipient="held@fwd.test")).startswith("550")
        for more in ([], ["--json"]):
            code, out = await trace(it, capsys, "one@sender.test", *more)
            assert code == 0
            assert "no such user" in out
            assert "secret" not in out
            assert "<one@sender.test>" in out, "what names the message stays"
        assert "<secret@other.test>: no such user" in (await trace(it, capsys, "one@sender.test", "--full"))[1]


async def test_what_is_not_known_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with lab(tmp_path) as it:
        assert await trace(it, capsys, "nobody@x.test") == (
            1,
            "forwarder trace: nothing is known of that; traces are kept for 7 days\n",
        )
        code, out = await trace(it, capsys)
        assert (code, out) == (2, "forwarder trace: name what to look for, or --report FILE\n")


async def test_a_stranger_writes_nothing_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with lab(tmp_path) as it:
        raw = b"From: Bob <bob@sender.test>\r\nMessage-ID: <\xc2\x9b31mred@sender.test>\r\nSubject: x\r\n\r\nx\r\n"
        assert (await it.send(it.signed(raw))).startswith("250")
        code, out = await trace(it, capsys, "bob@sender.test")
        assert (code, "31mred" in out) == (0, True)
        assert out.replace("\n", "").isprintable()


async def test_nothing_is_kept_where_the_operator_wants_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with lab(tmp_path, extra="[trace]\nkeep = 0\n") as it:
        assert (await it.send(it.signed())).startswith("250")
        assert it.app.tracing is None
        code = await asyncio.to_thread(main, ["trace", "x@y.test", "--config", str(it.folder / "forwarder.toml")])
        assert (code, "trace.keep is 0" in capsys.readouterr().err) == (1, True)
