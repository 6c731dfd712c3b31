"""The network cuts streams into single octets, drags, resets connections and falls silent, before and behind the service:
what was acknowledged arrives, whole, and a second copy is on record. ``./scripts/faults network`` runs the full measure.
"""

from __future__ import annotations

import functools
import os
import random
from pathlib import Path

import pytest

from forwarder.app import parts
from forwarder.relay import RelaySettings, Timeouts
from tests.e2e.lab import FORWARDER, SENDER, lab
from tests.e2e.test_outage import until_250
from tests.e2e.test_smuggling import wire
from tests.faults import mta
from tests.faults.copies import count, dead_letters, on_record, settled, unflagged
from tests.faults.mta import Mta, message
from tests.faults.test_kills import BODY
from tests.peers.chaos import ChaosProxy, Weather
from tests.peers.smtp_sink import SmtpSink

MESSAGES = int(os.environ.get("FAULT_NETWORK_MESSAGES", "30"))
RUN = 60 + MESSAGES / 2
#: Where the network before the service, the one behind it, and the destination itself are.
BEFORE, BEHIND, DESTINATION = "127.0.0.26", "127.0.0.51", "127.0.0.52"
#: Seconds: what a next hop may take for an answer, and how long a sender waits for one.
SHORT = Timeouts(
    connect=0.5, tls=0.5, greeting=0.5, ehlo=0.5, mail=0.5, rcpt=0.5, data=0.5, block=0.5, dot=1, quit=0.5, slot=10
)
PATIENCE = 2.0
#: Octets of one message and all that is said around it.
DIALOGUE = 1500
# Nobody signs: there is no mailkey, and no policy.
ZONE = {
    "other.test": {"MX": ["10 mx.other.test."]},
    "mx.other.test": {"A": [BEHIND]},
    "mailkey.sender.test": {},
    "_dmarc.sender.test": {},
    "sender.test": {"TXT": ["v=spf1 ip4:127.0.0.0/8 -all"], "MX": ["10 mx.sender.test."]},
}


def changing(rng: random.Random) -> Weather:
    """Of the next connection."""
    match rng.choices(("fair", "slices", "slow", "reset", "silent"), (40, 20, 5, 25, 10))[0]:
        case "slices":
            return Weather(slice=rng.choice((1, 2, 7)))
        case "slow":
            return Weather(slice=100, pause=0.02)
        case "reset":
            return Weather(reset_after=rng.randrange(DIALOGUE), slice=rng.choice((1, 65536)))
        case "silent":
            return Weather(silent_after=rng.randrange(DIALOGUE))
        case _:
            return Weather()


@pytest.mark.timeout(RUN)
async def test_whatever_the_network_does_what_was_acknowledged_arrives_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F24."""
    monkeypatch.setattr(parts, "RelaySettings", functools.partial(RelaySettings, timeouts=SHORT))
    monkeypatch.setattr(mta, "PATIENCE", PATIENCE)
    rng = random.Random(24)
    names = [f"n{number}" for number in range(MESSAGES)]
    aliases, queue = 'far = ["x@other.test"]', "[queue]\nfirst_retry = 0.1\nmax_retry = 0.3\nlease = 2\n"
    async with (
        lab(tmp_path, zone=ZONE, aliases=aliases, extra=queue, relay="in_session = 1") as it,
        SmtpSink(host=DESTINATION, port=it.port) as sink,
        ChaosProxy((DESTINATION, it.port), BEHIND, it.port, lambda: changing(rng)) as behind,
        ChaosProxy((FORWARDER, it.port), BEFORE, it.port, lambda: changing(rng)) as before,
    ):
        sender = Mta(BEFORE, it.port, SENDER, recipient="far@fwd.test")
        await sender.send_all(names, BODY)
        # It clears up.
        before.weather = behind.weather = Weather
        await settled(it)
        copies, dead = count(sink.messages), await dead_letters(it)
        lost = set(names) - copies.keys() - set(dead)
        print(
            f"\n{len(names)} messages over {before.connections} connections in ({before.broken} broken) and "
            f"{behind.connections} out ({behind.broken} broken): lost {len(lost)}, extra copies "
            f"{sum(copies.values()) - len(copies)}, on record {len(on_record(it))}, most copies of one "
            f"{max(copies.values())}, dead letters {len(dead)}, of these arrived {len(set(dead) & copies.keys())}"
        )
        assert sender.books.acknowledged == set(names)
        assert not lost
        assert before.broken
        assert behind.broken
        assert not unflagged(it, sink.messages)
        assert all(one.data.endswith(b"\r\n" + BODY) for one in sink.messages)
        assert it.sender.waiting.empty()
        assert not it.events("fault")


@pytest.mark.parametrize("leaves", ["closes its side", "resets"])
async def test_a_client_that_leaves_at_the_dot_hears_250_or_comes_back_and_one_copy_arrives(
    tmp_path: Path, leaves: str
) -> None:
    """F26."""
    async with lab(tmp_path, zone=ZONE) as it:
        sent = message("n1", "bob@sender.test", "alias@fwd.test", BODY)
        async with wire(it) as peer:
            await peer.line()
            for command in (
                b"EHLO mx.sender.test",
                b"MAIL FROM:<bob@sender.test>",
                b"RCPT TO:<alias@fwd.test>",
                b"DATA",
            ):
                assert (await peer.ask(command))[0] in "23"
            peer.say(sent + b".\r\n")
            if leaves == "closes its side":
                peer.writer.write_eof()
                assert (await peer.line()).startswith("250")
            else:
                await peer.writer.drain()
                peer.writer.transport.abort()
        # Whether the dot was read before the reset nobody can know: the client comes back.
        await until_250(lambda: it.send(sent))
        arrived = await it.next(it.sink)
        assert arrived.data.endswith(sent)
        assert it.sink.waiting.empty()
