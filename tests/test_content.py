"""What follows from what content filters say, and what they may put on a message."""

from __future__ import annotations

import math

import pytest

from forwarder.auth.covered import covered_fields
from forwarder.config.sections.content import MILTER_ACTIONS, RSPAMD_ACTIONS, Milter, Rspamd
from forwarder.content import MAX_FIELDS, ContentRule, added_fields, forged_removed, judge, render_value
from forwarder.model import (
    ArcCheck,
    ContentAction,
    ContentCheck,
    DkimCheck,
    DmarcCheck,
    MailkeyCheck,
    Message,
    Result,
    SpfCheck,
    Verdict,
)
from tests.fakes import message

A = ContentAction
LIMITS = ((2.0, A.TAG), (4.0, A.QUARANTINE), (6.0, A.REJECT))
RULE = ContentRule("one", dict(RSPAMD_ACTIONS), LIMITS)


def verdict(*, dkim: tuple[Result, ...] = (), arc: Result = Result.NONE, mailkey: Result = Result.NONE) -> Verdict:
    none = SpfCheck(Result.NONE)
    checks = tuple(DkimCheck(one) for one in dkim)
    return Verdict(MailkeyCheck(mailkey), none, none, checks, ArcCheck(arc), DmarcCheck(Result.NONE))


def check(action: str = "no action", score: float | None = 0.0, **more: object) -> ContentCheck:
    return ContentCheck("one", action, score, 15.0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("checked", "want"),
    [
        pytest.param(check(), A.ACCEPT, id="nothing found"),
        pytest.param(check(score=2.0), A.ACCEPT, id="at the limit is not above it"),
        pytest.param(check(score=2.01), A.TAG, id="above"),
        pytest.param(check(score=7.0), A.REJECT, id="the highest limit that is passed"),
        pytest.param(check("soft reject", 7.0), A.REJECT, id="a score sterner than the word"),
        pytest.param(check("reject", 0.0), A.REJECT, id="a word sterner than the score"),
        pytest.param(check("a word of tomorrow"), A.ACCEPT, id="a word that nobody knows"),
        pytest.param(check("discard"), A.QUARANTINE, id="nothing is lost unless the operator says so"),
        pytest.param(check(score=None), A.ACCEPT, id="no score"),
        pytest.param(ContentCheck("one", failure="gone"), A.TEMPFAIL, id="not asked"),
        pytest.param(ContentCheck("one", "too large to be asked about"), A.ACCEPT, id="too large"),
    ],
)
def test_what_one_filter_leads_to(checked: ContentCheck, want: ContentAction) -> None:
    assert RULE.decide(checked) is want


@pytest.mark.parametrize(
    ("first", "second", "want"),
    [
        ("reject", "soft reject", A.REJECT),
        # What is not known yet loses no mail, and puts none aside.
        ("discard", "soft reject", A.TEMPFAIL),
        ("quarantine", "add header", A.QUARANTINE),
        ("no action", "add header", A.TAG),
        ("no action", "no action", A.ACCEPT),
    ],
)
def test_the_sternest_of_several_counts(first: str, second: str, want: ContentAction) -> None:
    rules = [ContentRule(name, {**RSPAMD_ACTIONS, "discard": A.DISCARD}) for name in ("one", "two")]
    for words in ((first, second), (second, first)):
        judged = judge(rules, [ContentCheck(rule.name, word) for rule, word in zip(rules, words, strict=True)])
        assert judged.action is want
        assert (judged.by == "") is (want is A.ACCEPT)


def test_every_word_has_something_done() -> None:
    assert set(MILTER_ACTIONS) == {"accept", "quarantine", "discard", "tempfail", "reject"}
    assert Rspamd(url="http://127.0.0.1:1", actions={"reject": A.TAG}).actions["soft reject"] is A.TEMPFAIL
    assert Milter(socket="inet:127.0.0.1:1").actions["discard"] is A.QUARANTINE


# --- fields

PLAIN = "From: a@b.test\r\nSubject: x\r\nX-Spam-Status: No, trust me\r\nX-Other: 1\r\n\r\nhello\r\n"


def signed(names: str, field: str = "DKIM-Signature") -> Message:
    return message(f"{field}: v=1; a=rsa-sha256; d=b.test; s=s; h={names}; bh=eA==; b=eA==\r\n{PLAIN}")


@pytest.mark.parametrize(
    ("there", "said", "stays"),
    [
        pytest.param(message(PLAIN), verdict(), False, id="nothing signed"),
        pytest.param(signed("from:x-spam-status"), verdict(dkim=(Result.PASS,)), True, id="a good signature"),
        pytest.param(signed("from:x-spam-status"), verdict(dkim=(Result.FAIL,)), False, id="a broken one"),
        pytest.param(signed("from:subject"), verdict(dkim=(Result.PASS,)), False, id="a good one over others"),
        pytest.param(signed("from:x-spam-status"), verdict(), False, id="one that was not looked at"),
        pytest.param(
            signed("from:x-spam-status", "ARC-Message-Signature"), verdict(arc=Result.PASS), True, id="a good chain"
        ),
        pytest.param(
            signed("from:x-spam-status", "Mailkey-Signature"), verdict(mailkey=Result.PASS), True, id="a good mailkey"
        ),
    ],
)
def test_only_what_no_good_signature_covers_is_taken_out(there: Message, said: Verdict, stays: bool) -> None:
    rule = ContentRule("one", fields={"X-Spam-Status": "x"}, replace=True)
    left = forged_removed(there, [rule], covered_fields(there, said))

    assert (b"trust me" in left.header) is stays
    assert b"X-Other: 1\r\n" in left.header
    assert left.body == there.body
    assert b"".join(one.raw for one in left.fields) == left.header


@pytest.mark.parametrize(
    ("names", "added"),
    [("from", True), ("from:x-spam-status", True), ("from:x-spam-status:x-spam-status", False), ("from:x-new", False)],
)
def test_no_field_is_added_that_a_good_signature_says_is_not_there(names: str, added: bool) -> None:
    there = signed(names)
    rule = ContentRule("one", fields={"X-New" if "x-new" in names else "X-Spam-Status": "x"})
    found = added_fields([rule], [check()], covered_fields(there, verdict(dkim=(Result.PASS,))))

    assert bool(found) is added


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (b"yes", b"X-A: yes\r\n"),
        (b"one\n two", b"X-A: one\r\n two\r\n"),
        (b"one\r\n\ttwo", b"X-A: one\r\n\ttwo\r\n"),
        (b"one\nBcc: all@b.test", None),
        (b"one\r\n\r\nbody", None),
        (b"one\n \n two", None),
        (b"a\rb", None),
        (b"a\x00b", None),
        ("ü".encode(), None),
        (b"x" * 3000, None),
        (b"", None),
    ],
)
def test_a_filter_writes_one_field_or_none(value: bytes, want: bytes | None) -> None:
    rule = ContentRule("one", accepted=frozenset({"x-a"}))
    checked = check(fields=(("X-A", value), ("Subject", b"no"), ("X-B", b"no")))
    found = added_fields([rule], [checked], covered_fields(message(PLAIN), verdict()))

    assert [one.raw for one in found] == ([want] if want is not None else [])


def test_a_name_that_is_not_ascii_is_not_the_operators() -> None:
    """In lower case U+212A, the sign of a unit, is the letter k."""
    rule = ContentRule("one", accepted=frozenset({"x-key"}))
    checked = check(fields=(("X-\u212aey", b"1"), ("X-Key", b"2")))

    found = added_fields([rule], [checked], covered_fields(message(PLAIN), verdict()))
    assert [one.raw for one in found] == [b"X-Key: 2\r\n"]


def test_a_filter_puts_no_more_on_a_message_than_there_is_room_for() -> None:
    rule = ContentRule("one", accepted=frozenset({"x-a"}))
    checked = check(fields=(("X-A", b"1"),) * 1000)

    assert len(added_fields([rule], [checked], covered_fields(message(PLAIN), verdict()))) == MAX_FIELDS


def test_a_field_of_the_operators_is_one_line_of_ascii_in_folds() -> None:
    symbols = tuple(f"SYMBOL_{number}" for number in range(500))
    rule = ContentRule("one", fields={"X-S": "{result} {score} {required} {action} {filter} {symbols}"})
    checked = check("grüße\r\nBcc: x", 1.5, symbols=symbols)
    [found] = added_fields([rule], [checked], covered_fields(message(PLAIN), verdict()))

    assert found.raw.startswith(b"X-S: No 1.50 15.00 gr??e??Bcc: x one SYMBOL_0, ")
    lines = found.raw.removesuffix(b"\r\n").split(b"\r\n")
    assert all(len(one) <= 80 for one in lines)
    assert all(one.startswith(b" ") for one in lines[1:])
    assert len(message(found.raw + b"\r\n").fields) == 1


def test_what_is_not_known_is_said_so() -> None:
    assert render_value("{score}/{required}", ContentCheck("one", "reject"), tagged=True) == "-/-"
    assert math.isfinite(RULE.above[0][0])
