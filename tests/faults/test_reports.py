"""Killed between writing a report and recording it, or behind that: the sender hears of everything once, and of nothing twice."""

from __future__ import annotations

import asyncio
import smtplib
from pathlib import Path

import pytest

from tests.e2e.lab import vanish
from tests.faults.copies import settled
from tests.faults.service import LISTEN, SINK, SOURCE, Service, service
from tests.peers.smtp_sink import DEFAULT, Action, SmtpSink
from tests.waiting import until

LATER, NO = b"451 4.2.0 not now\r\n", b"550 5.1.1 nobody here\r\n"
MESSAGE = b"From: Bob <bob@sender.test>\r\nSubject: x\r\nMessage-ID: <m1@sender.test>\r\n\r\nHello.\r\n"


async def send(it: Service, recipient: str, notify: str) -> int | None:
    """The code of the reply to the final dot, which this client loses; ``None``: the service has died over it."""

    def talk() -> int | None:
        try:
            with smtplib.SMTP(LISTEN, it.port, "mx.sender.test", 20, (SOURCE, 0)) as client:
                client.ehlo()
                client.mail("bob@sender.test")
                client.rcpt(recipient, [f"NOTIFY={notify}"])
                code = client.data(MESSAGE)[0]
                vanish(client)
                return code
        except (smtplib.SMTPException, OSError):
            return None

    return await asyncio.to_thread(talk)


@pytest.mark.parametrize("point", ["K12", "K13"])
@pytest.mark.parametrize(
    ("notify", "dots", "action"),
    [
        pytest.param("SUCCESS", [LATER, DEFAULT], b"relayed", id="relayed"),
        pytest.param("FAILURE", [LATER, NO], b"failed", id="failed"),
        pytest.param("DELAY", [LATER] * 5 + [DEFAULT], b"delayed", id="delayed"),
    ],
)
async def test_what_the_queue_tells_is_told_once(
    tmp_path: Path, point: str, notify: str, dots: list[Action], action: bytes
) -> None:
    async with (
        service(tmp_path, lease=1, start=False) as it,
        SmtpSink({"DOT": dots}, host=SINK, port=it.port) as sink,
        SmtpSink(host=SOURCE, port=it.port) as reports,
    ):
        await it.start(FORWARDER_FAILPOINT=f"{point}:kill")
        assert await send(it, "alias@fwd.test", notify) == 250
        await it.died()
        await it.start()
        await until(lambda: reports.messages, 20)
        await settled(it)
        assert [b"\r\nAction: " + action in one.data for one in reports.messages] == [True]
        # After the dot nobody can know: one more copy, on record (RFC 1047).
        assert len(sink.messages) in ((0,) if action == b"failed" else (1, 2))


@pytest.mark.parametrize("point", ["K7", "K13"])
@pytest.mark.parametrize(
    ("notify", "refuses", "action"),
    [pytest.param("SUCCESS", False, b"expanded", id="expanded"), pytest.param("FAILURE", True, b"failed", id="failed")],
)
async def test_what_is_told_in_session_is_told_once_to_a_sender_that_comes_back(
    tmp_path: Path, point: str, notify: str, refuses: bool, action: bytes
) -> None:
    def rcpt(argument: bytes) -> Action:
        return NO if refuses and b"gone@" in argument else DEFAULT

    pair = 'pair = ["dest@sink.test", "gone@sink.test"]'
    async with (
        service(tmp_path, lease=1, aliases=pair, start=False) as it,
        SmtpSink({"RCPT": rcpt}, host=SINK, port=it.port) as sink,
        SmtpSink(host=SOURCE, port=it.port) as reports,
    ):
        await it.start(FORWARDER_FAILPOINT=f"{point}:kill")
        answer = await send(it, "pair@fwd.test", notify)
        if answer is None:
            await it.died()
            await it.start()
        # What the dead process was about to tell can be told when its lease is over.
        for _ in range(40):
            if await send(it, "pair@fwd.test", notify) == 250 and reports.messages:
                break
            await asyncio.sleep(0.25)
        else:
            raise AssertionError("the sender never hears 250, or its report")
        await settled(it)
        assert [b"\r\nAction: " + action in one.data for one in reports.messages] == [True]
        assert len(sink.messages) == 1
