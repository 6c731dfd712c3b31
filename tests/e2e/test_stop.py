"""What does a sender hear when the service stops in the middle? tests/faults/test_stop.py asks the same of the process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiosmtplib

from forwarder.app import open_state
from forwarder.cli.demo_lab import FORWARDER, SENDER
from forwarder.config import load
from tests.e2e.lab import lab
from tests.fakes import MemoryJournal
from tests.peers.smtp_sink import HANG, SmtpSink

OTHER = "127.0.0.51"
ZONE = {"other.test": {"MX": ["10 mx.other.test."]}, "mx.other.test": {"A": [OTHER]}}


async def test_a_sender_that_waits_for_a_slow_destination_is_answered_in_time(tmp_path: Path) -> None:
    """Before the time is over the message is put into the queue, and the sender is told so."""
    async with (
        lab(tmp_path, zone=ZONE, relay="in_session = 600", aliases='slow = ["one@other.test"]') as it,
        SmtpSink({"CONNECT": HANG}, host=OTHER, port=it.port) as slow,
    ):
        client = aiosmtplib.SMTP(hostname=FORWARDER, port=it.port, source_address=(SENDER, 0), start_tls=False)
        await client.connect()
        message = it.signed(recipients=("slow@fwd.test",))
        sending = asyncio.create_task(client.sendmail("bob@sender.test", ["slow@fwd.test"], message))
        await slow.until_open(1)
        await it.app.stop(5)

        # sendmail raises for anything but 250.
        await sending
        async with open_state(load(tmp_path / "forwarder.toml"), MemoryJournal()) as state:
            assert len([item async for item in state.queue.list()]) == 1
