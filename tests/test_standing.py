"""Scores that fade, and what follows from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.model import Address
from forwarder.pipeline.destinations import provider_of
from forwarder.pipeline.reputation import alias_subject, sender_subject
from forwarder.ports import Evidence, Measure, Standing, Subject, SubjectKind
from forwarder.standing import (
    MAX_EVIDENCE,
    Patience,
    Scale,
    accepted,
    add_mail,
    blocked,
    faded,
    failed,
    judge,
    probed,
    set_by_hand,
    slowed,
    with_evidence,
)

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
WEEK = 7 * 86400.0
SCALE = Scale(WEEK, 5, 10, 20, 0.003)
BAD = Subject(SubjectKind.DOMAIN, "bad.test")


def complaint(source: str = "", weight: float = 1.0, at: datetime = NOW) -> Evidence:
    return Evidence(at, "complaint: abuse", weight, source)


def after(*evidence: Evidence, mail: int = 0) -> Standing:
    standing: Standing | None = None
    for one in evidence:
        standing = with_evidence(BAD, one, WEEK)(standing)
    assert standing is not None
    return replace(standing, mail=mail)


def test_a_score_halves_in_its_half_life() -> None:
    standing = after(complaint("a"), complaint("b"), mail=100)

    assert faded(standing, NOW + timedelta(days=7)) == (1.0, 50.0)
    assert faded(standing, NOW - timedelta(days=7)) == (2.0, 100.0), "a clock that was put back makes nothing grow"


def test_what_is_added_later_meets_what_is_left() -> None:
    assert after(complaint("a"), complaint("b", at=NOW + timedelta(days=7))).score == 1.5


def test_one_recipient_alone_comes_to_two() -> None:
    assert after(*[complaint("a")] * MAX_EVIDENCE).score == pytest.approx(2, abs=0.001)


@pytest.mark.parametrize(
    ("complaints", "mail", "expected"),
    [
        (4, 0, None),
        (5, 0, Measure.SLOW),
        (9, 0, Measure.SLOW),
        (10, 0, Measure.ONE_WAY),
        (20, 0, Measure.REFUSE),
        (20, 6667, None),
        (20, 6666, Measure.REFUSE),
    ],
)
def test_measures_follow_from_score_and_share(complaints: int, mail: int, expected: Measure | None) -> None:
    found = judge(after(*[complaint(str(one)) for one in range(complaints)], mail=mail), SCALE, NOW)

    assert (found.measure if found is not None else None) == expected


def test_a_measure_ends_when_the_score_has_faded_below_it() -> None:
    standing = after(complaint(weight=20))
    found = judge(standing, SCALE, NOW)
    assert found is not None
    assert found.until == NOW

    found = judge(after(complaint(weight=40)), SCALE, NOW)
    assert found is not None
    assert found.until == NOW + timedelta(days=7)
    later = judge(after(complaint(weight=40)), SCALE, found.until + timedelta(seconds=1))
    assert later is not None
    assert later.measure is Measure.ONE_WAY


def test_what_the_operator_sets_holds_until_it_ends() -> None:
    until = NOW + timedelta(days=1)
    standing = blocked(BAD, Measure.REFUSE, "spam trap", NOW, until, WEEK)(None)

    found = judge(standing, SCALE, NOW)
    assert found is not None
    assert (found.measure, found.until, found.by_hand) == (Measure.REFUSE, until, True)
    assert judge(standing, SCALE, until) is None
    assert standing.over_at == until


def test_nobody_with_a_clean_record_is_judged() -> None:
    assert judge(None, SCALE, NOW) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 5), st.integers(0, 10**7)), max_size=40))
def test_evidence_is_bounded_and_a_standing_is_over_in_the_end(said: list[tuple[str, float, int]]) -> None:
    standing: Standing | None = None
    for source, weight, seconds in said:
        standing = with_evidence(BAD, complaint(source, weight, NOW + timedelta(seconds=seconds)), WEEK)(standing)
    standing = add_mail(3, NOW)(standing)
    if standing is not None:
        assert len(standing.evidence) <= MAX_EVIDENCE
        assert standing.over_at >= standing.at
        assert faded(standing, standing.over_at)[0] <= 0.0501


@pytest.mark.parametrize(
    ("sender", "verified", "ip", "expected"),
    [
        ("bob@Sender.test", True, "192.0.2.7", "domain:sender.test"),
        ("bob@bücher.test", True, "192.0.2.7", "domain:xn--bcher-kva.test"),
        ("bob@sender.test", False, "192.0.2.7", "network:192.0.2.0/24"),
        (None, False, "2001:db8:1:2:3::4", "network:2001:db8:1:2::/64"),
    ],
)
def test_mail_counts_for_the_domain_that_is_vouched_for_else_for_the_network(
    sender: str | None, verified: bool, ip: str, expected: str
) -> None:
    address = Address(*sender.split("@")) if sender is not None else None

    assert str(sender_subject(address, verified, ip_address(ip))) == expected


def test_an_alias_is_one_subject_in_any_case() -> None:
    assert alias_subject(Address("Team", "fwd.test")) == alias_subject(Address("team", "fwd.test"))


# --- destinations ---

DEST = Subject(SubjectKind.DESTINATION, "dest@sink.test")
PATIENCE = Patience(WEEK, pause_at=3, disable_at=5, spacing=600, first_probe=3600, max_probe=86400)


def refusal(hours: float, what: str = "refused: unknown-user 5.1.1", weight: float = 1.0) -> Evidence:
    return Evidence(NOW + timedelta(hours=hours), what, weight, "", f"e{hours}")


def failing(*evidence: Evidence) -> Standing | None:
    standing: Standing | None = None
    for one in evidence:
        standing = failed(DEST, one, PATIENCE)(standing)
    return standing


def paused(*more: Evidence, what: str = "refused: unknown-user 5.1.1") -> Standing:
    standing = failing(*(refusal(one, what) for one in range(4)), *more)
    assert standing is not None
    return standing


def test_a_destination_that_keeps_failing_is_paused_then_disabled() -> None:
    standing = failing(refusal(0), refusal(1), refusal(2))
    assert standing is not None
    assert standing.measure is None, "what has faded since does not count"

    standing = paused()
    assert (standing.measure, standing.since) == (Measure.PAUSE, NOW + timedelta(hours=3))
    assert standing.until == NOW + timedelta(hours=4)

    gone = paused(refusal(5), refusal(7))
    assert (gone.measure, gone.until) == (Measure.DISABLE, None)


def test_failures_of_one_moment_and_of_one_message_count_once() -> None:
    first = refusal(0)
    soon = replace(first, at=first.at + timedelta(seconds=599), message="another")
    same = replace(first, at=first.at + timedelta(hours=9))

    assert failing(first, soon, same) == failing(first)


def test_what_weighs_nothing_leaves_no_trace() -> None:
    assert failing(refusal(0, weight=0)) is None


def test_probes_come_after_an_hour_and_then_after_twice_as_long_each_time() -> None:
    standing: Standing | None = paused()
    waits = []
    for _ in range(7):
        assert standing is not None
        assert standing.until is not None
        now = standing.until
        assert probed(now - timedelta(seconds=1), PATIENCE)(standing) == standing, "not yet"
        standing = probed(now, PATIENCE)(standing)
        assert standing is not None
        assert standing.until is not None
        waits.append((standing.until - now).total_seconds() / 3600)

    assert waits == [1, 2, 4, 8, 16, 24, 24]


def test_who_takes_mail_after_refusals_stands_well_again() -> None:
    assert accepted(NOW, "e9")(failing(refusal(0))) is None
    assert accepted(NOW, "e9")(paused()) is None


def test_who_takes_mail_and_bounces_it_later_stands_well_when_a_probe_did_not_come_back() -> None:
    standing = paused(what="bounce: unknown-user 5.1.1")
    assert standing.until is not None
    sent = probed(standing.until, PATIENCE)(standing)
    taken = accepted(standing.until, "probe")(sent)
    assert taken is not None
    assert taken.measure is Measure.PAUSE
    assert taken.until is not None

    assert probed(taken.until, PATIENCE)(taken) is None, "nothing came back"
    back = failed(DEST, replace(refusal(0), at=taken.at + timedelta(hours=1), message="probe2"), PATIENCE)(taken)
    assert back is not None
    assert back.until is not None
    assert probed(back.until, PATIENCE)(back) is not None


def test_reports_pause_and_never_disable() -> None:
    standing = paused(
        *(refusal(5 + one, "bounce: unknown-user 5.1.1") for one in range(40)), what="bounce: unknown-user"
    )
    assert standing.measure is Measure.PAUSE
    assert standing.score > PATIENCE.disable_at

    once = failed(DEST, refusal(50), PATIENCE)(standing)
    assert once is not None
    assert once.measure is Measure.PAUSE, "one refusal is not enough beside what anybody can have written"
    for hours in range(51, 57):
        once = failed(DEST, refusal(hours), PATIENCE)(once)
    assert once is not None
    assert once.measure is Measure.DISABLE


def test_reports_keep_nobody_paused_who_takes_the_mail_that_refusals_were_held_against() -> None:
    standing = failing(refusal(0), refusal(1), refusal(2, "bounce: unknown-user 5.1.1"))
    taken = accepted(NOW + timedelta(hours=2), "e9")(standing)

    assert taken is not None
    assert [one.what for one in taken.evidence] == ["bounce: unknown-user 5.1.1"]
    assert taken.score == pytest.approx(1, abs=0.01)


def test_mail_that_is_taken_proves_nothing_where_reports_come_back() -> None:
    standing = failing(refusal(0, "bounce: unknown-user 5.1.1"))

    assert accepted(NOW, "e9")(standing) == standing


def test_who_blames_us_again_and_again_gets_its_mail_ever_slower_up_to_an_hour() -> None:
    google, waits = Subject(SubjectKind.PROVIDER, "google.test"), []
    standing: Standing | None = None
    for number in range(8):
        standing = slowed(google, Evidence(NOW, "blocked-ip", 1.0, "", f"e{number}"))(standing)
        assert standing.until is not None
        waits.append((standing.until - NOW).total_seconds() / 60)

    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("aspmx.l.google.com[192.0.2.1]:25", "google.com"),
        ("mx.sink.test", "sink.test"),
        ("[192.0.2.1]:25", None),
        ("localhost[127.0.0.1]:25", None),
        (None, None),
    ],
)
def test_a_provider_is_the_domain_of_its_mail_hosts(peer: str | None, expected: str | None) -> None:
    assert provider_of(peer) == expected


@pytest.mark.parametrize("measure", [Measure.PAUSE, Measure.DISABLE])
def test_what_the_operator_has_set_is_the_operators_to_change(measure: Measure) -> None:
    standing = set_by_hand(DEST, measure, "moved", NOW, WEEK)(None)
    assert standing is not None
    assert standing.until is None

    assert accepted(NOW, "e9")(standing) == standing
    assert probed(NOW + timedelta(days=9), PATIENCE)(standing) == standing
    after = failed(DEST, refusal(1), PATIENCE)(standing)
    assert after is not None
    assert after.measure is measure
    assert set_by_hand(DEST, None, "", NOW, WEEK)(standing) is None
