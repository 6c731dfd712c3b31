"""The note in bounces: who gets it, how often, and that it breaks nothing. Through the running service."""

from __future__ import annotations

import email
from email.message import Message
from pathlib import Path

import dkim

from forwarder.cli.demo_lab import Received
from forwarder.model import Result
from tests.e2e.lab import MESSAGE, Lab, bounce_of, lab
from tests.e2e.test_outage import OTHER, TWO_HOSTS
from tests.e2e.test_signing import checked
from tests.e2e.test_story import dns_of
from tests.peers.smtp_sink import SmtpSink

NO_MAILKEY: dict[str, dict[str, list[str]]] = {"mailkey.sender.test": {}}
RECORD = 'mailkey.sender.test. IN TXT "v=mailkey1; k=ed25519; p=<your key>; o=test"'


def text_of(report: Received) -> str:
    """The part for people."""
    parts = email.message_from_bytes(report.data).get_payload()
    assert isinstance(parts, list)
    assert isinstance(parts[0], Message)
    assert parts[0].get_content_type() == "text/plain"
    return str(parts[0].get_payload()).replace("\r\n", "\n")


async def returned(it: Lab, number: int = 1) -> Received:
    """A message out, its bounce home."""
    raw = MESSAGE.replace(b"<one@", b"<%d@" % number)
    assert (await it.send(it.signed(raw, mailkey=False))).startswith("250")
    arrived = await it.next(it.sink)
    data = bounce_of(arrived, message_id=f"<b{number}@mx.sink.test>")
    assert (await it.bounce(arrived, data=data)).startswith("250")
    return await it.next(it.sender)


async def test_step_five_a_bounce_tells_a_domain_without_a_mailkey_how_to_get_one_once_a_day(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=NO_MAILKEY, extra='[mailkey]\nnote_url = "https://mk.test/how"') as it:
        report = await returned(it)
        text = text_of(report)
        assert RECORD in text
        assert "forwarder mailkey keygen --domain sender.test" in text
        assert text.rstrip().endswith("https://mk.test/how")
        assert text.index("alias@fwd.test") < text.index("Did you not send")
        assert b"PRIVATE" not in report.data
        assert not any(one in report.data.lower() for one in (b"hidden.destination", b"sink.test"))
        assert (await checked(it, report)).result is Result.PASS, "it went in before we signed"
        assert dkim.verify(report.data, dnsfunc=dns_of(it))
        assert "mailkey" not in text_of(await returned(it, 2)), "not twice a day"


async def test_a_report_of_a_failure_of_ours_has_it_too(tmp_path: Path) -> None:
    script = {"RCPT": b"550 5.1.1 <two@other.test>: no such user\r\n"}
    async with lab(tmp_path, zone=TWO_HOSTS | NO_MAILKEY) as it, SmtpSink(script, host=OTHER, port=it.port):
        data = it.signed(recipients=("team@fwd.test",), mailkey=False)
        assert (await it.send(data, recipient="team@fwd.test")).startswith("250")
        report = await it.next(it.sender)
        assert RECORD in text_of(report)
        assert not any(one in report.data.lower() for one in (b"two@", b"other.test", b"sink.test"))
        assert (await checked(it, report)).result is Result.PASS


async def test_a_domain_that_has_a_mailkey_gets_none(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        assert (await it.send(it.signed())).startswith("250")
        assert (await it.bounce(await it.next(it.sink))).startswith("250")
        assert "mailkey" not in text_of(await it.next(it.sender))


async def test_the_note_can_be_switched_off(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=NO_MAILKEY, extra="[mailkey]\nnote = false") as it:
        assert "mailkey" not in text_of(await returned(it))


async def test_the_text_may_be_the_operators(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("Dear {domain},\nsee {url}.\n")
    extra = '[mailkey]\nnote_file = "note.txt"\nnote_url = "https://mk.test/"'
    async with lab(tmp_path, zone=NO_MAILKEY, extra=extra) as it:
        assert text_of(await returned(it)).rstrip().endswith("Dear sender.test,\nsee https://mk.test/.")
