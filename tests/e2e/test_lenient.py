"""[smtp]: what real senders write that the RFCs do not allow, with each switch on and off, and what no switch lets through."""

from __future__ import annotations

import asyncio
from pathlib import Path

from forwarder.cli.demo_lab import FORWARDER, SENDER
from tests.e2e.lab import Lab, lab
from tests.e2e.test_smuggling import ZONE, Wire, wire

GOOD = b"From: Bob <bob@sender.test>\r\nDate: Mon, 23 Nov 2026 12:30:00 +0000\r\n"
ALIAS = b"RCPT TO:<alias@fwd.test>"
BOB = b"MAIL FROM:<bob@sender.test>"
#: By the switch: EHLO, MAIL, RCPT and a message, and how the first that is refused is refused without it.
SLOPPY = {
    "long_lines": (b"EHLO mx.sender.test", BOB, ALIAS, GOOD + b"\r\n" + b"y" * 999 + b"\r\n", "554 5.6.0 a line"),
    "missing_date": (
        *(b"EHLO mx.sender.test", BOB, ALIAS, b"From: Bob <bob@sender.test>\r\n\r\nx\r\n"),
        "550 5.6.0 malformed message: no Date field",
    ),
    "space": (
        *(b"EHLO mx.sender.test", b"MAIL FROM: <bob@sender.test>", b"RCPT TO: <alias@fwd.test>", GOOD + b"\r\nx\r\n"),
        "501 5.5.4",
    ),
    "brackets": (
        *(b"EHLO mx.sender.test", b"MAIL FROM:bob@sender.test SIZE=100", b"RCPT TO:alias@fwd.test"),
        *(GOOD + b"\r\nx\r\n", "501 5.5.2"),
    ),
    "dots": (
        *(b"EHLO mx.sender.test", b"MAIL FROM:<.b..ob.@sender.test>", ALIAS),
        *(b"From: <b..ob.@sender.test>\r\nDate: Mon, 23 Nov 2026 12:30:00 +0000\r\n\r\nx\r\n", "501 5.1.7"),
    ),
    "helo": ("EHLO Bobs Rechner (Büro)".encode(), BOB, ALIAS, GOOD + b"\r\nx\r\n", "501 5.5.4"),
}


def switches(*, taken: bool) -> str:
    return "[smtp]\n" + "".join(f"lenient_{name} = {str(taken).lower()}\n" for name in SLOPPY)


async def send(it: Lab, ehlo: bytes, mail: bytes, rcpt: bytes, message: bytes) -> str:
    """The first refusal, or the answer to the message."""
    async with wire(it) as peer:
        await peer.line()
        for line in (ehlo, mail, rcpt, b"DATA"):
            answer = await peer.ask(line)
            if answer[:1] not in "23":
                return answer
        peer.say(message + b".\r\n")
        return await peer.line()


async def test_each_sloppiness_is_taken_where_it_is_switched_on_and_nothing_of_the_message_changes(
    tmp_path: Path,
) -> None:
    async with lab(tmp_path, zone=ZONE, extra=switches(taken=True)) as it:
        for name, (*dialogue, _) in SLOPPY.items():
            assert (await send(it, *dialogue)).startswith("250"), name
            arrived = await it.next(it.sink)
            assert arrived.data.endswith(dialogue[3]), name
            if name == "dots":
                # A report finds its way back.
                assert (await it.bounce(arrived)).startswith("250")
                assert (await it.next(it.sender)).recipients == (".b..ob.@sender.test",)
            if name == "helo":
                # RFC 5321 section 4.1.3: who has no name is called by its address.
                assert f"Received: from [{SENDER}]".encode() in arrived.data
                assert b"Rechner" not in arrived.data
        assert it.events("fault") == []


async def test_each_sloppiness_is_refused_by_name_where_it_is_switched_off(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE, extra=switches(taken=False)) as it:
        for name, (*dialogue, refused) in SLOPPY.items():
            answer = await send(it, *dialogue)
            assert answer.startswith(refused), (name, answer)
        assert (await send(it, b"EHLO mx.sender.test", BOB, ALIAS, GOOD + b"\r\nx\r\n")).startswith("250")
        assert (await it.next(it.sink)).data.endswith(b"\r\nx\r\n")
        assert it.sink.waiting.empty()


async def test_no_switch_lets_through_what_two_servers_could_read_in_two_ways(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE, extra=switches(taken=True)) as it:
        for message, refused in (
            (GOOD + b"\r\na\nb\r\n", "550 5.5.2"),
            (GOOD + b"\r\na\rb\r\n", "550 5.5.2"),
            (GOOD + b"\r\na\0b\r\n", "550 5.6.0"),
            (GOOD + b"From: eve@sender.test\r\n\r\nx\r\n", "550 5.6.0"),
            (GOOD + b"From : eve@sender.test\r\n\r\nx\r\n", "550 5.6.0"),
            (b"no colon\r\n" + GOOD + b"\r\nx\r\n", "550 5.6.0"),
            (GOOD + b"\r\n" + b"y" * 70_000 + b"\r\n", "554 5.6.0"),
        ):
            answer = await send(it, b"EHLO mx.sender.test", BOB, ALIAS, message)
            assert answer.startswith(refused), (message, answer)
        for ehlo in (b"EHLO \x1b[31m", b"EHLO a\0b", b"EHLO a\tb", b"EHLO", b"EHLO " + b"x y" * 100):
            assert (await send(it, ehlo, BOB, ALIAS, GOOD)).startswith("501 5.5.4"), ehlo
        for mail in (b"MAIL FROM:a@sender.test <b@sender.test>", b"MAIL FROM:a@sender.test> SIZE=1", b"MAIL FROM:"):
            assert (await send(it, b"EHLO mx.sender.test", mail, ALIAS, GOOD)).startswith("501")
        reader, writer = await asyncio.open_connection(FORWARDER, it.port, local_addr=(SENDER, 0))
        writer.write(b"EHLO mx.sender.test\r\n" + BOB + b"\r\n")
        early = Wire(reader, writer)
        replies = await early.rest()
        writer.close()
        assert replies[-1].startswith("554 5.5.0 you spoke")
        assert it.sink.waiting.empty()
