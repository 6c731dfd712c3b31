"""Plain messages of ours, as a mail library of another maker reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy

import pytest

from forwarder.mail.letter import MAX_SUBJECT, build_letter
from forwarder.model import Address

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize("text", ["plain\n\n.dot\nFrom here\n", "Grüße\nan alle\n", "", "x" * 2000])
@pytest.mark.parametrize(
    "subject", ["plain", "Grüße an alle, die das lesen, und an die anderen auch 日本語", "x" * 500, "a\r\nX-Evil: b"]
)
def test_a_letter_says_what_it_was_given(subject: str, text: str) -> None:
    raw = build_letter(
        Address("olga", "owners.test"),
        subject,
        text,
        hostname="mx.fwd.test",
        id="01J",
        now=NOW,
        automatic="auto-generated",
    )
    assert raw.isascii()
    assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
    parsed = message_from_bytes(raw, policy=policy.default)
    assert parsed["subject"] == " ".join(subject.split())[:MAX_SUBJECT]
    assert parsed["x-evil"] is None
    assert parsed["auto-submitted"] == "auto-generated"
    assert parsed["to"] == "olga@owners.test"
    assert parsed.get_content().splitlines() == [one[:998] for one in text.split("\n")][: max(text.count("\n"), 1)]
