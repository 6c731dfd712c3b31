"""Destinations that keep failing: paused, probed, resumed or disabled. Through the running service."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from forwarder.ports import Measure, Standing, Subject, SubjectKind
from forwarder.standing import set_by_hand
from tests.e2e.lab import MESSAGE, Lab, bounce_of, lab
from tests.e2e.test_queue import OTHER, ZONE
from tests.peers.smtp_sink import DEFAULT, SmtpSink
from tests.waiting import until

ALIASES = 'held = ["secret@other.test"]\npair = ["secret@other.test", "one@sink.test"]\nadmin = ["postbox@sink.test"]\n'
QUICK = "[learning]\npause_at = 1.9\ndisable_at = 2.9\nspacing = 0\n[queue]\nfirst_retry = 0.05\nmax_retry = 0.1\n"
SECRET = Subject(SubjectKind.DESTINATION, "secret@other.test")
NO = b"550 5.1.1 secret@other.test: no such user\r\n"


async def send(it: Lab, number: int, to: str = "held@fwd.test") -> str:
    raw = MESSAGE.replace(b"<one@", b"<m%d@" % number)
    return await it.send(it.signed(raw, recipients=(to,)), recipient=to)


def standing(it: Lab) -> Standing | None:
    assert it.app.standings is not None
    return it.app.standings.look_up(SECRET)


async def make_due(it: Lab) -> None:
    """The time of its next probe has come."""
    assert it.app.standings is not None
    past = it.app.clock.now() - timedelta(seconds=1)

    def change(before: Standing | None) -> Standing | None:
        assert before is not None
        return Standing(
            **{name: getattr(before, name) for name in Standing.__slots__} | {"until": past, "by_hand": False}
        )

    await it.app.standings.change(SECRET, change)


async def set_to(it: Lab, measure: Measure) -> None:
    assert it.app.standings is not None
    await it.app.standings.change(SECRET, set_by_hand(SECRET, measure, "test", it.app.clock.now(), 1e6))


async def test_a_destination_that_refuses_for_good_is_paused_and_its_owner_told_once(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=QUICK + '[admin]\naddress = "admin@fwd.test"\n') as it,
        SmtpSink({"RCPT": NO}, host=OTHER, port=it.port) as other,
    ):
        assert (await send(it, 0)).startswith("550 5.1.1")
        assert (await send(it, 1)).startswith("550 5.1.1")
        found = standing(it)
        assert found is not None
        assert found.measure is Measure.PAUSE
        seen = len(other.commands)

        answer = await send(it, 2)
        assert answer.startswith("451 4.2.1"), answer
        assert "secret" not in answer
        assert "other.test" not in answer
        assert len(other.commands) == seen, "nobody asked it"
        assert [str(one["destination"]) for one in it.events("destination.paused")] == ["secret@other.test"]

        letter = await it.next(it.sink)
        assert letter.sender == ""
        assert letter.recipients == ("postbox@sink.test",)
        assert b"secret@other.test" in letter.data
        assert b"held@fwd.test" in letter.data
        assert b"refused: unknown-user 5.1.1" in letter.data
        assert b"Auto-Submitted: auto-generated" in letter.data
        assert len(it.events("owner.told")) == 1


async def test_a_probe_that_arrives_resumes_it(tmp_path: Path) -> None:
    script = {"RCPT": [NO, NO, DEFAULT]}
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=QUICK) as it,
        SmtpSink(script, host=OTHER, port=it.port) as other,
    ):
        for number in range(2):
            await send(it, number)
        await make_due(it)

        assert (await send(it, 2)).startswith("250")
        assert len(other.messages) == 1
        assert standing(it) is None
        assert len(it.events("destination.probed")) == 1
        assert len(it.events("destination.resumed")) == 1
        assert (await send(it, 3)).startswith("250")


async def test_a_probe_that_fails_leads_to_the_end_and_the_alias_is_unknown(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=QUICK) as it,
        SmtpSink({"RCPT": NO}, host=OTHER, port=it.port),
    ):
        for number in range(2):
            await send(it, number)
        await make_due(it)
        assert (await send(it, 2)).startswith("550 5.1.1")

        found = standing(it)
        assert found is not None
        assert found.measure is Measure.DISABLE
        assert (await send(it, 3)).startswith("550 5.1.1 no such address here")
        assert len(it.events("destination.disabled")) == 1
        assert len(it.events("owner.told")) == 2


async def test_of_several_the_others_go_on_and_what_is_for_the_paused_one_waits_until_it_works(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=QUICK) as it,
        SmtpSink({}, host=OTHER, port=it.port) as other,
    ):
        await set_to(it, Measure.PAUSE)
        assert (await send(it, 0, "pair@fwd.test")).startswith("250")
        assert (await it.next(it.sink)).recipients == ("one@sink.test",)
        await until(lambda: it.events("queue.put"))
        assert (await send(it, 1, "held@fwd.test")).startswith("451 4.2.1")
        assert not other.messages

        assert it.app.standings is not None
        await it.app.standings.change(SECRET, set_by_hand(SECRET, None, "", it.app.clock.now(), 1e6))
        assert (await send(it, 2)).startswith("250")
        assert len(other.messages) == 1


async def test_who_refuses_a_report_of_ours_is_no_destination(tmp_path: Path) -> None:
    """Nor is whoever a user of ours writes to: nothing is held against them, and no stranger hears that they are paused."""
    zone = ZONE | {"mx.sender.test": {"A": ["127.0.0.53"]}}
    async with (
        lab(tmp_path, zone=zone, aliases=ALIASES, relay="in_session = 0", extra=QUICK) as it,
        SmtpSink({"RCPT": NO}, host=OTHER, port=it.port),
        SmtpSink({"RCPT": b"550 5.1.1 no such user\r\n"}, host="127.0.0.53", port=it.port) as sender,
    ):
        assert (await send(it, 0)).startswith("250")
        await until(lambda: it.events("queue.dead"))
        assert sender.connections == 1
        assert it.app.standings is not None
        assert it.app.standings.look_up(Subject(SubjectKind.DESTINATION, "bob@sender.test")) is None
        assert standing(it) is not None, "who refused the message itself is one"


async def test_of_several_the_others_go_on_without_the_disabled_one(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=QUICK) as it,
        SmtpSink({}, host=OTHER, port=it.port) as other,
    ):
        await set_to(it, Measure.DISABLE)
        assert (await send(it, 0, "pair@fwd.test")).startswith("250")
        assert (await it.next(it.sink)).recipients == ("one@sink.test",)
        assert [one["destination"] for one in it.events("destination.left_out")] != []
        assert not it.events("queue.put")
        assert not other.messages


async def test_what_waits_for_a_destination_that_is_disabled_is_reported(tmp_path: Path) -> None:
    script = {"RCPT": [b"451 4.2.0 later\r\n", NO]}
    quick = QUICK.replace("first_retry = 0.05\nmax_retry = 0.1", "first_retry = 0.3\nmax_retry = 0.3")
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=quick) as it,
        SmtpSink(script, host=OTHER, port=it.port) as other,
    ):
        assert (await send(it, 0)).startswith("250")
        await set_to(it, Measure.DISABLE)
        report = await it.next(it.sender)
        assert b"5.2.1" in report.data
        assert b"secret" not in report.data
        assert other.verbs().count("RCPT") == 1, "it was not asked again"


async def test_without_a_queue_what_is_for_a_paused_one_is_451_and_the_rest_is_done(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, relay='hold = "never"', extra=QUICK) as it,
        SmtpSink({}, host=OTHER, port=it.port) as other,
    ):
        await set_to(it, Measure.PAUSE)
        assert (await send(it, 0, "pair@fwd.test")).startswith("451")
        assert (await it.next(it.sink)).recipients == ("one@sink.test",)
        assert not other.messages


async def test_bounces_count_and_mail_that_is_taken_takes_nothing_back(tmp_path: Path) -> None:
    async with lab(tmp_path, extra=QUICK) as it:
        subject = Subject(SubjectKind.DESTINATION, "hidden.destination@sink.test")
        assert it.app.standings is not None
        for number in range(2):
            assert (await send(it, number, "alias@fwd.test")).startswith("250")
            arrived = await it.next(it.sink)
            assert (await it.bounce(arrived)).startswith("250")
            await it.next(it.sender)

        found = it.app.standings.look_up(subject)
        assert found is not None
        assert found.measure is Measure.PAUSE
        assert {one.what for one in found.evidence} == {"bounce: unknown-user 5.1.1"}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"550 5.7.26 This mail is unauthenticated, which poses a security risk\r\n", "authentication"),
        (b"550 5.7.1 [192.0.2.1] Client host blocked using Spamhaus\r\n", "blocked-ip"),
    ],
)
async def test_a_refusal_that_blames_us_is_an_alarm_and_held_against_nobody(
    tmp_path: Path, said: bytes, reason: str
) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=QUICK) as it,
        SmtpSink({"DOT": said}, host=OTHER, port=it.port) as other,
    ):
        assert (await send(it, 0)).startswith("5")

        assert standing(it) is None
        [alarm] = it.events("alarm")
        assert (alarm["reason"], alarm["provider"], alarm["next_hop"]) == (reason, "other.test", "other.test")

        # From now on its mail goes by the queue, one message a minute.
        assert (await send(it, 1)).startswith("250")
        assert (await send(it, 2)).startswith("250")
        await until(lambda: it.events("queue.outcome"))
        seen = b"".join(other.flights)
        assert (b"<m1@" in seen) + (b"<m2@" in seen) == 1
        assert len([one for one in it.events("queue.outcome") if str(one["alias"]) == "held@fwd.test"]) == 1
        assert standing(it) is None


async def test_a_report_that_blames_us_slows_nobody_down(tmp_path: Path) -> None:
    async with lab(tmp_path, extra=QUICK) as it:
        assert (await send(it, 0, "alias@fwd.test")).startswith("250")
        arrived = await it.next(it.sink)
        words = "Client host blocked using Spamhaus"
        data = (
            bounce_of(arrived, words).replace(b"5.1.1", b"5.7.1").replace(b"dns; mx.sink.test", b"dns; mx.victim.test")
        )
        assert (await it.bounce(arrived, data=data)).startswith("250")

        [alarm] = it.events("alarm.reported")
        assert (alarm["reason"], alarm["next_hop"]) == ("blocked-ip", "sink.test")
        assert it.app.standings is not None
        assert len(it.app.standings) == 0


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (
            "RCPT",
            b"450 4.2.0 <secret@other.test>: Recipient address rejected: Greylisted, see http://postgrey.test\r\n",
        ),
        ("RCPT", b"451 4.7.1 Greylisting in action, please try again in 5 minutes\r\n"),
        ("RCPT", b"450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents more\r\n"),
    ],
)
async def test_what_is_told_of_one_message_or_mailbox_slows_nobody_else_down(
    tmp_path: Path, verb: str, said: bytes
) -> None:
    async with (
        lab(tmp_path, zone=ZONE, aliases=ALIASES, extra=QUICK) as it,
        SmtpSink({verb: said}, host=OTHER, port=it.port),
    ):
        assert (await send(it, 0)).startswith("250")
        await until(lambda: len(it.events("queue.outcome")) > 1)
        assert not it.events("alarm")
        assert it.app.standings is not None
        assert len(it.app.standings) == 0


@pytest.mark.parametrize("alias", ["trio", "alias"])
async def test_a_report_that_names_no_destination_counts_only_where_there_is_but_one(
    tmp_path: Path, alias: str
) -> None:
    """Where a destination sends on, the report names the alias and an address that nobody knows."""
    aliases = 'trio = ["one@sink.test", "two@sink.test", "three@sink.test"]\n'
    async with lab(tmp_path, aliases=aliases, extra=QUICK) as it:
        assert (await send(it, 0, f"{alias}@fwd.test")).startswith("250")
        arrived = await it.next(it.sink)
        data = bounce_of(arrived)
        for one in arrived.recipients:
            data = data.replace(one.encode(), b"elsewhere@far.test")
        named = b"Final-Recipient:"
        data = data.replace(named, b"Original-Recipient: rfc822; %b@fwd.test\r\n%b" % (alias.encode(), named))
        assert (await it.bounce(arrived, data=data)).startswith("250")
        await it.next(it.sender)

        assert it.app.standings is not None
        assert len(it.app.standings) == (alias == "alias")
