"""Letters to owners: templates that can be used and those that cannot, and that nothing hostile in them does harm."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from forwarder import bounce
from forwarder.bounce import Kind, Letter, Routing, Target, Way
from forwarder.bounce.letter import MAX_FINDINGS, MAX_TEMPLATE, parse_letter
from forwarder.mail.autoreply import AutoReply
from forwarder.mail.report import Action, RecipientStatus
from forwarder.model import Address, Finding, ReturnBounce

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
OLGA = Address("olga", "owners.test")
FOUND = Finding(
    NOW, "alias@fwd.test", "bob@sender.test", "dest@sink.test", "hard", "5.1.1", "550 no\r\nX-Evil: $alias\x1b"
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must begin with one line"),
        ("Hello $alias\n\nx", "must begin with one line"),
        ("Subject:\n\nx", "must begin with one line"),
        ("Subject: x\nTo: everybody\n\nx", "must begin with one line"),
        ("Subject: x\n\n$nobody", r"\$nobody is nothing that is known here; those are \$alias, \$sender"),
        ("Subject: 5$\n\nx", "is written"),
        ("Subject: x\n\n\x1b[31m", "control character"),
        ("Subject: x\n\n" + "x" * MAX_TEMPLATE, "longer than"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_letter(Letter.OWNER, text)


def test_what_a_stranger_wrote_stays_one_line_and_is_filled_in_once() -> None:
    raw = bounce.compose_owner(
        bounce.standard_letters(), OLGA, [FOUND], told=True, message_id=None, hostname="mx.fwd.test", id="1", now=NOW
    ).decode()
    assert "\r\nX-Evil" not in raw
    assert "X-Evil: $alias" in raw
    assert "\x1b" not in raw
    assert "dest@sink.test" in raw


def test_a_digest_lists_so_many_and_counts_the_rest() -> None:
    raw = bounce.compose_digest(
        bounce.standard_letters(),
        OLGA,
        date(2026, 11, 23),
        [FOUND] * (MAX_FINDINGS + 5),
        1000,
        hostname="h.test",
        id="1",
        now=NOW,
    ).decode()
    assert raw.count("dest@sink.test") == MAX_FINDINGS
    assert f"{1000 - MAX_FINDINGS} more are not listed." in raw


@pytest.mark.parametrize(
    "text",
    [
        "Ask dest.box@sink.test\nor call",
        "Ask dest.box@\nsink.test",
        "ZGVzdC5ib3hA\nc2luay50ZXN0",
        "Ask Dest Box at SINK.TEST, deputy@sink.test",
        "dest.box%40sink.test",
    ],
)
def test_an_automatic_reply_tells_the_sender_nothing_of_who_wrote_it(text: str) -> None:
    bob, dest = Address("bob", "sender.test"), Address("dest.box", "sink.test")
    returned = ReturnBounce(Address("SRS0=x", "fwd.test"), bob, Address("alias", "fwd.test"), dest, "x")
    answer = AutoReply("dest.box@sink.test", "<1@x>", f"Away: {text}", text)
    raw = bounce.compose_answer(
        bounce.standard_letters(), answer, returned, dest, hostname="mx.fwd.test", id="1", now=NOW
    )
    lowered = raw.lower()
    assert not [one for one in (b"dest.box", b"sink.test", b"dest box", b"c2luay50zxn0", b"sink") if one in lowered]
    assert b"alias@fwd.test" in raw


def test_the_nearest_way_counts() -> None:
    own, domain = Way({Kind.HARD: Target.OWNER}, OLGA), Way({Kind.HARD: Target.BOTH})
    rest = Way({Kind.HARD: Target.DIGEST})
    routing = Routing(domains={"fwd.test": domain}, aliases={("own", "fwd.test"): own, ("*", "rest.test"): rest})
    assert routing.way(Address("OWN", "fwd.test")) is own
    assert routing.way(Address("other", "fwd.test")) is domain
    assert routing.way(Address("anything", "rest.test")) is rest
    assert routing.way(Address("own", "elsewhere.test")) is routing.overall
    assert routing.way(None) is routing.overall


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (RecipientStatus(Action.FAILED, hard=True), Kind.HARD),
        (RecipientStatus(Action.FAILED), Kind.SOFT),
        (RecipientStatus(Action.DELAYED, hard=True), Kind.DELAYED),
        (RecipientStatus(Action.EXPANDED), Kind.OTHER),
    ],
)
def test_what_a_report_says_is_of_a_kind(said: RecipientStatus, kind: Kind) -> None:
    assert bounce.kind_of(said) is kind
