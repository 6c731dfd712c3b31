"""The same octets come again: is it a retry of a sender that never heard us, or another message?"""

from __future__ import annotations

from pathlib import Path

from tests.e2e.lab import Lab, lab
from tests.e2e.test_smuggling import ZONE, Wire, wire
from tests.waiting import until

MESSAGE = (
    b"From: Bob <bob@sender.test>\r\nSubject: are you there?\r\nDate: Mon, 23 Nov 2026 12:30:00 +0000\r\n"
    b"Message-ID: <monitor@sender.test>\r\n\r\nx\r\n"
)


async def begun(peer: Wire) -> None:
    await peer.line()
    for command in (b"EHLO mx.sender.test", b"MAIL FROM:<bob@sender.test>", b"RCPT TO:<alias@fwd.test>", b"DATA"):
        assert (await peer.ask(command))[:1] in "23"


async def loses_the_answer(it: Lab) -> None:
    """Gone for good as soon as the dot is said, and before the next hop has the message."""
    answered = len(it.events("message.answered"))
    async with wire(it) as peer:
        await begun(peer)
        peer.say(MESSAGE + b".\r\n")
        await peer.writer.drain()
    await copies(it, 1)
    # A retry while the attempt goes on is another matter.
    await until(lambda: len(it.events("message.answered")) > answered)


async def reads_it(it: Lab, behind: bytes = b"") -> None:
    async with wire(it) as peer:
        await begun(peer)
        peer.say(MESSAGE + b".\r\n" + behind)
        assert (await peer.line()).startswith("250")
        if behind:
            assert (await peer.rest())[-1].startswith("221")


async def copies(it: Lab, expected: int) -> None:
    """So many have arrived since the last look, or do now."""
    for _ in range(expected):
        await it.next(it.sink)
    assert it.sink.waiting.empty()


async def test_a_sender_that_lost_our_answer_makes_no_second_copy(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE) as it:
        await loses_the_answer(it)
        await reads_it(it)
        await copies(it, 0)


async def test_what_is_sent_again_by_one_who_has_read_that_we_have_it_is_another_message(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE) as it:
        for times, behind in enumerate((b"", b"QUIT\r\n", b"", b"QUIT\r\n")):
            await reads_it(it, behind)
            await copies(it, 1)
            assert len(it.events("claim.again")) == times
        # From here on a lost answer is as harmless as ever.
        await loses_the_answer(it)
        await reads_it(it)
        await copies(it, 0)
        assert it.events("fault") == []
