"""What a report's words for people say, of whom, and where the message they are about begins."""

from __future__ import annotations

import time

import pytest

from forwarder.mail.notice import peer_in, read_notice, reply_in, split_words, stage_in
from forwarder.mail.reasons import Stage
from tests.fakes import message

READER = "SRS0=x@fwd.test"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("It could not be delivered to: <a@b.test>\n", ("a@b.test",)),
        ("RCPT TO: a@b.test\nMAIL FROM: c@d.test\n", ("a@b.test",)),
        ("550 <a@b.test>... Host unknown\n550 <c@d.test>... User unknown\n", ("a@b.test", "c@d.test")),
        ("  a@b.test [User unknown]\n", ("a@b.test",)),
        ("  * [a@b.test]: 550 no\n\nDetails:\n\n  * From: c@d.test\n  * To: e@f.test\n", ("a@b.test",)),
        ("To: list@b.test\nSubject: x\n\ndid not reach:\n\na@b.test on Fri, 20 Jul\n", ("a@b.test",)),
        ("c=US;a= ;p=X;dda:SMTP=a@b.test; on Fri\n", ("a@b.test",)),
        ("Write to <postmaster@b.test> about a@b.test, please\n", ("a@b.test",)),
        ("Only SRS0=x@fwd.test is named\n", ()),
        ("Nobody is named\n", ()),
    ],
)
def test_recipients_are_found_in_words(words: str, expected: tuple[str, ...]) -> None:
    assert read_notice(message(f"From: x@y.test\n\n{words}")).recipients(READER) == expected


@pytest.mark.parametrize(
    ("words", "told", "returned"),
    [
        ("No.\n\nReturn-Path: <x@y.test>\nTo: a\nSubject: b\nDate: c\n\nBody", "No.\n\n", b"Return-Path"),
        ("No.\n--- Below this line is a copy of the message.\n\nSomething", "No.\n", b""),
        ("The original message was received at noon\nNo.\n", "The original message was received at noon\nNo.\n", b""),
        ("Save:\nTo: a\nCC: b\nDate: c\nSubject: d\n\nNo.\n", "Save:\nTo: a\nCC: b\nDate: c\nSubject: d\n\nNo.\n", b""),
    ],
)
def test_the_returned_message_is_cut_off(words: str, told: str, returned: bytes) -> None:
    notice = read_notice(message(f"From: x@y.test\n\n{words}"))
    assert notice.text == told
    assert notice.returned[: len(returned)] == returned
    assert bool(notice.returned) == bool(returned)


def test_html_is_read_as_the_text_it_shows() -> None:
    notice = read_notice(message("Content-Type: text/html\n\n<p class=x>No&nbsp;user &lt;a@b.test&gt;<BR>c<br/>d"))
    assert notice.text.split() == ["No", "user", "<a@b.test>", "c", "d"]


def test_each_recipient_has_its_own_words() -> None:
    text = "Sorry.\n<A@b.test>:\n550 full\n<c@d.test>:\n550 unknown\n\nTranscript\n>>> A@b.test again\n"
    assert split_words(text, ["a@b.test", "c@d.test"]) == {
        "a@b.test": "\n<A@b.test>:\n550 full\n\n>>> A@b.test again\n",
        "c@d.test": "\n<c@d.test>:\n550 unknown\n\nTranscript\n",
    }
    assert split_words(text, ["a@b.test", "a@b.test"]) == {"a@b.test": text}
    assert split_words(text, ["", ""]) == {}
    assert split_words(text, [f"{n}@b.test" for n in range(21)]) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("said: 550 5.1.1 no\n such user\n\n452 later", "550 5.1.1 no such user"),
        ("550-first\n550 second\n421 other", "550-first 550 second"),
        ("at 192.0.2.450 or :250 no", None),
        ("", None),
    ],
)
def test_a_reply_is_found_in_words(text: str, expected: str | None) -> None:
    assert reply_in(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("550 no (in reply to RCPT TO\n  command)", Stage.RCPT),
        ("SMTP error from remote mail server after end of data", Stage.DATA),
        ("after MAIL FROM:<x@y.test> SIZE=1: 550 no", Stage.MAIL),
        ("refused to talk to me: 554 no", Stage.CONNECT),
        ("192.0.2.1 does not like recipient.", Stage.RCPT),
        ("no", None),
    ],
)
def test_the_refused_command_is_found_in_words(text: str, expected: Stage | None) -> None:
    assert stage_in(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host MX.sink.test[192.0.2.1] said: 550", "mx.sink.test"),
        ("while talking to mx.sink.test.:", "mx.sink.test"),
        ("connect to mx.sink.test[192.0.2.1]:25: timed out", "mx.sink.test"),
        ("no host", None),
    ],
)
def test_the_peer_is_found_in_words(text: str, expected: str | None) -> None:
    assert peer_in(text) == expected


@pytest.mark.parametrize(
    "word", ["a@b.", "A: b\n", "A: b\n c\n", " ", "<a", "550 <", "From: ", "550 x\n", "-", "a@b.test\n"]
)
@pytest.mark.parametrize("kind", ["text/plain", "text/html", "multipart/mixed"])
def test_no_words_cost_much(word: str, kind: str) -> None:
    parsed = message(f"Content-Type: {kind}\n\n" + word * (300_000 // len(word)))
    started = time.process_time()
    notice = read_notice(parsed)
    names = notice.recipients(READER)
    words = split_words(notice.text, names[:20])
    for one in words.values():
        reply_in(one), stage_in(one), peer_in(one)
    assert time.process_time() - started < 0.25
