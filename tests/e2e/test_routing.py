"""Who hears of a failure? Each kind by each way, in what comes back and in what fails here; the hidden address goes to its owner
alone."""

from __future__ import annotations

from datetime import timedelta
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from forwarder import worker
from forwarder.cli.demo_lab import SINK, Received
from forwarder.ports import StoreAway
from forwarder.store.queue import RedisQueue
from tests.e2e.lab import Lab, bounce_of, lab
from tests.peers.smtp_sink import DEFAULT, SmtpSink
from tests.waiting import until

#: Where owners have their mailboxes, and where two@other.test has its.
OWNERS = "127.0.0.51"
ZONE = {
    "owners.test": {"MX": ["10 mx.owners.test."]},
    "mx.owners.test": {"A": [OWNERS]},
    "other.test": {"MX": ["10 mx.owners.test."]},
}
HIDDEN = (b"hidden.destination", b"sink.test", b"127.0.0.50")


def routes(**ways: str) -> str:
    chosen = "\n".join(f'{kind} = "{way}"' for kind, way in ways.items())
    return f'[bounces]\nowner = "olga@owners.test"\n[bounces.routes]\n{chosen}\n'


def report(arrived: Received, kind: str) -> bytes:
    raw = bounce_of(arrived)
    match kind:
        case "hard":
            return raw
        case "soft":
            return raw.replace(b"5.1.1", b"5.2.2").replace(b"user unknown", b"mailbox is full")
        case "delayed":
            return (
                raw.replace(b"Action: failed", b"Action: delayed").replace(b"5.1.1", b"4.2.0").replace(b"550 ", b"450 ")
            )
        case "other":
            return (
                raw.replace(b"Action: failed", b"Action: delivered")
                .replace(b"5.1.1", b"2.0.0")
                .replace(b"550 ", b"250 ")
            )
        case _:
            return (
                b"From: Hidden Person <hidden.destination@sink.test>\r\nSubject: Away: hello\r\nAuto-Submitted: auto-replied\r\n"
                b"In-Reply-To: <one@sender.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
                b"I am away until Monday.\r\nWrite to hidden.destination@sink.test, or to my aide at mx.sink.test.\r\n"
            )


async def sent(it: Lab) -> Received:
    assert (await it.send(it.signed())).startswith("250")
    return await it.next(it.sink)


def letter(sink: SmtpSink) -> tuple[Message, str]:
    (one,) = sink.messages
    assert one.mail.startswith(b"FROM:<>")
    parsed = message_from_bytes(one.data)
    payload = parsed.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return parsed, payload.decode()


def home(it: Lab) -> bytes | None:
    """What the sender got, and that it does not tell what it must not."""
    if it.sender.waiting.empty():
        return None
    got = it.sender.waiting.get_nowait()
    assert not any(one in got.data.lower() for one in HIDDEN)
    return got.data


@pytest.mark.parametrize("way", ["sender", "owner", "both", "suppress"])
@pytest.mark.parametrize("kind", ["hard", "soft", "delayed", "auto_reply", "other"])
async def test_each_kind_goes_the_way_that_is_set(tmp_path: Path, kind: str, way: str) -> None:
    async with (
        lab(tmp_path, zone=ZONE, extra=routes(**{kind: way})) as it,
        SmtpSink(host=OWNERS, port=it.port) as owners,
    ):
        arrived = await sent(it)
        assert (await it.bounce(arrived, data=report(arrived, kind))).startswith("250")
        (told,) = it.journal.named("route.return_bounce")
        assert (told["kind"], told["route"], told["unmatched"]) == (kind, way, None)
        to_owner = way in ("owner", "both")
        await until(lambda: len(owners.messages) == to_owner)
        if to_owner:
            parsed, text = letter(owners)
            assert parsed["auto-submitted"] == "auto-generated"
            assert "hidden.destination@sink.test" in text
            assert "alias@fwd.test" in text
            assert owners.messages[0].data.startswith(b"Mailkey-Signature:")
        got = home(it)
        assert (got is not None) == (way in ("sender", "both"))
        if got is not None and kind == "auto_reply":
            assert b"I am away until Monday." in got
            assert b"Auto-Submitted: auto-replied" in got


async def test_by_default_failures_go_to_the_sender_and_the_rest_to_nobody(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE) as it:
        arrived = await sent(it)
        for kind, expected in (("delayed", 0), ("auto_reply", 0), ("soft", 1), ("hard", 1)):
            assert (await it.bounce(arrived, data=report(arrived, kind))).startswith("250")
            assert it.sender.waiting.qsize() == expected
            home(it)


async def test_an_alias_and_its_domain_may_say_otherwise(tmp_path: Path) -> None:
    aliases = (
        'own = { targets = ["hidden.destination@sink.test"], owner = "own@owners.test", bounces = { hard = "both" } }\n'
        'like = { targets = ["hidden.destination@sink.test"] }\n'
    )
    extra = '[domains."fwd.test".bounces]\nhard = "owner"\n[bounces]\nowner = "all@owners.test"\n'
    async with (
        lab(tmp_path, zone=ZONE, aliases=aliases, extra=extra) as it,
        SmtpSink(host=OWNERS, port=it.port) as owners,
    ):
        for number, (alias, owner, tells_sender) in enumerate((("own", "own", True), ("like", "all", False))):
            message = it.signed(recipients=(f"{alias}@fwd.test",))
            assert (await it.send(message, recipient=f"{alias}@fwd.test")).startswith("250")
            arrived = await it.next(it.sink)
            assert (await it.bounce(arrived, data=bounce_of(arrived, message_id=f"<{number}@x>"))).startswith("250")
            await until(lambda: len(owners.messages) == number + 1)  # noqa: B023 - waited for at once
            assert owners.messages[number].rcpts[0].startswith(f"TO:<{owner}@owners.test>".encode())
            assert (home(it) is not None) == tells_sender


async def test_without_an_owner_it_is_the_postmaster_whose_mailbox_is_a_file(tmp_path: Path) -> None:
    async with lab(tmp_path, extra='[bounces.routes]\nhard = "owner"\n') as it:
        arrived = await sent(it)
        assert (await it.bounce(arrived)).startswith("250")
        assert it.journal.named("owner.told")
        assert b"hidden.destination@sink.test" in (tmp_path / "state" / "mail" / "postmaster").read_bytes()
        assert home(it) is None


async def test_a_store_that_is_away_when_a_failure_is_settled_makes_no_second_letter_in_a_mailbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "CATCH_UP", (0.0, 0.0))
    settle, away = RedisQueue.settle, [StoreAway("away"), StoreAway("away")]

    async def settle_later(self: RedisQueue, *args: Any, **more: Any) -> bool:
        if away:
            raise away.pop()
        return await settle(self, *args, **more)

    monkeypatch.setattr(RedisQueue, "settle", settle_later)
    no = {"RCPT": b"550 5.1.1 no such user\r\n"}
    extra, held = '[bounces.routes]\nhard = "owner"\n', 'held = ["gone@other.test"]'
    async with (
        lab(tmp_path, zone=ZONE, relay="in_session = 0", extra=extra, aliases=held) as it,
        SmtpSink(no, host=OWNERS, port=it.port),
    ):
        message = it.signed(recipients=("held@fwd.test",))
        assert (await it.send(message, recipient="held@fwd.test")).startswith("250")
        await until(lambda: it.events("queue.outcome"))
        assert len(it.events("queue.away")) == 2
        assert (tmp_path / "state" / "mail" / "postmaster").read_bytes().count(b"gone@other.test") == 1
        assert len(it.events("owner.told")) == 1


async def test_a_sender_that_lost_our_answer_hears_it_again_and_the_owner_nothing_more(tmp_path: Path) -> None:
    no = {"RCPT": lambda argument: b"550 5.1.1 no such user\r\n" if b"gone@" in argument else DEFAULT}
    async with (
        lab(
            tmp_path, zone=ZONE, extra=routes(hard="owner"), aliases='mixed = ["one@sink.test", "gone@other.test"]'
        ) as it,
        SmtpSink(no, host=OWNERS, port=it.port) as owners,
    ):
        message = it.signed(recipients=("mixed@fwd.test",))
        for _ in range(2):
            assert (await it.send(message, recipient="mixed@fwd.test")).startswith("250")
        await until(lambda: owners.messages)
        assert len(it.events("owner.told")) == 1


async def test_what_a_sender_asked_not_to_hear_goes_to_the_owner_alone(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=ZONE, extra=routes(hard="both")) as it, SmtpSink(host=OWNERS, port=it.port) as owners:
        arrived = await sent(it)
        assert (await it.bounce(arrived, data=report(arrived, "hard"))).startswith("250")
        assert (await it.bounce(arrived, data=report(arrived, "hard"))).startswith("250")
        await until(lambda: len(owners.messages) == 1)
        assert home(it) is not None
        assert home(it) is None


async def test_a_digest_has_all_of_a_day_in_one_message(tmp_path: Path) -> None:
    async with (
        lab(tmp_path, zone=ZONE, extra=routes(hard="digest")) as it,
        SmtpSink(host=OWNERS, port=it.port) as owners,
    ):
        arrived = await sent(it)
        for number in range(3):
            assert (await it.bounce(arrived, data=bounce_of(arrived, message_id=f"<{number}@x>"))).startswith("250")
        # The same again is the same.
        assert (await it.bounce(arrived, data=bounce_of(arrived, message_id="<0@x>"))).startswith("250")
        today = it.app.clock.now().date()
        await it.app.send_digests(today - timedelta(days=1))
        assert owners.messages == []
        await it.app.send_digests(today)
        await until(lambda: len(owners.messages) == 1)
        _, text = letter(owners)
        assert text.count("hidden.destination@sink.test") >= 3
        assert "there were 3" in text
        await it.app.send_digests(today)
        (done,) = it.journal.named("digest.sent")
        assert done["findings"] == 3
        assert home(it) is None


@pytest.mark.parametrize("way", ["sender", "owner", "both", "digest", "suppress"])
async def test_what_fails_in_the_queue_goes_the_same_ways(tmp_path: Path, way: str) -> None:
    refuse = {"RCPT": b"550 5.1.1 two@other.test unknown at mx.other.test\r\n"}
    extra = routes(hard=way).replace("owners.test", "owners2.test")
    zone = ZONE | {"owners2.test": {"MX": ["10 mx.owners2.test."]}, "mx.owners2.test": {"A": ["127.0.0.52"]}}
    async with (
        lab(tmp_path, zone=zone, aliases='elsewhere = ["two@other.test"]', relay='hold = "always"', extra=extra) as it,
        SmtpSink(host=OWNERS, port=it.port, script=refuse),
        SmtpSink(host="127.0.0.52", port=it.port) as owners,
    ):
        message = it.signed(recipients=("elsewhere@fwd.test",))
        assert (await it.send(message, recipient="elsewhere@fwd.test")).startswith("250")
        await until(lambda: it.journal.named("queue.outcome"))
        to_owner = way in ("owner", "both")
        await until(lambda: len(owners.messages) == to_owner)
        if to_owner:
            _, text = letter(owners)
            assert "two@other.test" in text
            assert ("The sender is told" in text) == (way == "both")
        if way in ("sender", "both"):
            got = await it.next(it.sender)
            assert b"other.test" not in got.data
        await until(lambda: len(it.journal.named("queue.dead")) == (way == "suppress"))
        if way == "digest":
            await it.app.send_digests(it.app.clock.now().date())
            await until(lambda: len(owners.messages) == 1)


async def test_an_owner_that_cannot_be_reached_starts_no_loop(tmp_path: Path) -> None:
    """The owner's own mailbox is gone, and its letters are reports about which nobody is told."""
    refuse = {"RCPT": b"550 5.1.1 gone\r\n"}
    async with (
        lab(tmp_path, zone=ZONE, extra=routes(hard="owner")) as it,
        SmtpSink(host=OWNERS, port=it.port, script=refuse),
    ):
        arrived = await sent(it)
        assert (await it.bounce(arrived)).startswith("250")
        await until(lambda: it.journal.named("queue.dead"))
        assert len(it.journal.named("owner.told")) == 1
        assert home(it) is None


async def test_a_report_that_nobody_can_read_is_no_automatic_reply(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        arrived = await sent(it)
        raw = (
            b"From: Mail Delivery System <MAILER-DAEMON@sink.test>\r\nSubject: hello\r\nAuto-Submitted: auto-replied\r\n"
            b"In-Reply-To: <one@sender.test>\r\n\r\nSomething went wrong.\r\n"
        )
        assert (await it.bounce(arrived, data=raw)).startswith("550")
        assert (await it.send(report(arrived, "auto_reply"), "", arrived.sender, SINK, "mx.sink.test")).startswith(
            "250"
        )


async def test_templates_of_the_operator_take_the_place_of_ours(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "owner.txt").write_text("Subject: Grüße: $alias\n\nKaputt: $findings\n", encoding="utf-8")
    extra = routes(hard="owner").replace("[bounces.routes]", 'template_dir = "letters"\n[bounces.routes]')
    async with lab(tmp_path, zone=ZONE, extra=extra) as it, SmtpSink(host=OWNERS, port=it.port) as owners:
        arrived = await sent(it)
        assert (await it.bounce(arrived)).startswith("250")
        await until(lambda: len(owners.messages) == 1)
        _, text = letter(owners)
        assert text.startswith("Kaputt: ")


@pytest.mark.parametrize(
    "sender", ["SRS0=abcd=EF=first.test=bob@sender.test", "SRS1=abcd=first.test==xyz=TT=origin.test=bob@sender.test"]
)
async def test_what_another_forwarder_sent_goes_back_to_that_hop(tmp_path: Path, sender: str) -> None:
    """Whose address it was knows the way from there; the owner hears of it beside."""
    async with (
        lab(tmp_path, zone=ZONE, extra=routes(hard="both")) as it,
        SmtpSink(host=OWNERS, port=it.port) as owners,
    ):
        assert (await it.send(it.signed(sender=sender), sender)).startswith("250")
        arrived = await it.next(it.sink)
        assert arrived.sender.endswith("@fwd.test")
        assert (await it.bounce(arrived)).startswith("250")
        home = await it.next(it.sender)
        assert (home.sender, home.recipients) == ("", (sender,))
        assert not any(one in home.data.lower() for one in HIDDEN)
        await until(lambda: len(owners.messages) == 1)
        assert "hidden.destination@sink.test" in letter(owners)[1]
