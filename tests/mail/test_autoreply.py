"""Automatic replies: which messages are some, and what is read of them."""

from __future__ import annotations

import pytest

from forwarder.mail.autoreply import MAX_TEXT, parse_auto_reply
from tests.fakes import message

AWAY = (
    "From: =?utf-8?q?J=C3=BCrgen?= <j@sink.test>\nSubject: =?utf-8?q?Weg_f=C3=BCr?= heute\nIn-Reply-To: <1@sender.test>\n"
    "{sign}\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nSWNoIGJpbiB3ZWcu\n"
)


@pytest.mark.parametrize(
    "sign",
    [
        "Auto-Submitted: auto-replied (vacation)",
        "Auto-Submitted: AUTO-GENERATED; owner-email=x",
        "X-Autoreply: yes",
        "X-Autorespond: hello",
        "Precedence: auto_reply",
    ],
)
def test_what_says_that_it_is_automatic_is(sign: str) -> None:
    found = parse_auto_reply(message(AWAY.format(sign=sign)))
    assert found is not None
    assert (found.author, found.message_id, found.subject) == ("j@sink.test", "<1@sender.test>", "Weg für heute")
    assert found.text == "Ich bin weg."
    (about,) = found.as_report().recipients
    assert about.final_recipient == "j@sink.test"


@pytest.mark.parametrize(
    "raw",
    [
        AWAY.format(sign="X-Other: 1"),
        AWAY.format(sign="Auto-Submitted: no"),
        AWAY.format(sign="X-Autoreply: no"),
        AWAY.format(sign="Auto-Submitted: auto-replied").replace("j@sink", "MAILER-DAEMON@sink"),
        "From: a@b.test\nAuto-Submitted: auto-replied\nContent-Type: multipart/report; boundary=x\n\n--x\n\nx\n--x--\n",
    ],
)
def test_people_and_mail_systems_are_no_auto_responders(raw: str) -> None:
    assert parse_auto_reply(message(raw)) is None


def test_what_it_answers_is_the_last_of_references_where_nothing_else_says_so() -> None:
    raw = "From: a@b.test\nReferences: <0@x>\n <1@x>\nAuto-Submitted: auto-replied\n\n" + "long " * 2000
    found = parse_auto_reply(message(raw))
    assert found is not None
    assert found.message_id == "<1@x>"
    assert len(found.text) == MAX_TEXT


def test_nothing_but_the_sign_is_needed() -> None:
    found = parse_auto_reply(message("From: nobody\nAuto-Submitted: auto-replied\nContent-Type: text/html\n\n<b>\n"))
    assert found is not None
    assert (found.author, found.message_id, found.subject, found.text) == (None, None, "", "")
