"""Content filters that others wrote, beside the service: rspamd, and a milter of libmilter's."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from forwarder.cli.demo_lab import SENDER, SINK, free_port
from forwarder.cli.main import main
from forwarder.config import load
from tests.e2e.lab import MESSAGE, Lab, bounce_of, lab, store_of
from tests.peers.milter import milter, needs_milter
from tests.peers.rspamd import GTUBE, Rspamd, needs_rspamd, rspamd
from tests.waiting import until

POSTMASTER = "postmaster@fwd.test"


@pytest.fixture(scope="module")
def filter_() -> Iterator[Rspamd]:
    with rspamd() as running:
        yield running


def asking(it: Rspamd, more: str = "") -> str:
    return f'[[content.rspamd]]\nurl = "{it.url}"\n{more}\n'


def scored(score: float, message_id: bytes = b"one") -> bytes:
    return MESSAGE.replace(b"<one@", b"<" + message_id + b"@").replace(
        b"Subject:", f"X-Test-Score: {score}\r\nSubject:".encode()
    )


def acted(action: str) -> bytes:
    return MESSAGE.replace(b"<one@", b"<" + action.encode().replace(b" ", b".") + b"@").replace(
        b"Subject:", f"X-Test-Action: {action}\r\nSubject:".encode()
    )


def head_of(data: bytes) -> bytes:
    """What we put on it, unfolded."""
    return b" ".join(data.partition(b"\r\nReceived:")[0].split())


async def dead(it: Lab) -> list[tuple[str, str | None]]:
    """The dead letters, as `forwarder queue ls --dead` reads them."""
    from forwarder.store.ledger import RedisLedger
    from forwarder.store.queue import RedisQueue

    async with store_of(it) as store:
        ledger = RedisLedger(store, journal=it.journal)
        queue = RedisQueue(store, ledger, journal=it.journal, max_body=1 << 20, high_water=1 << 30)
        return [(one.id, one.dead) async for one in queue.list(dead=True)]


async def release(it: Lab, item: str) -> None:
    """`forwarder queue retry`."""
    from forwarder.store.ledger import RedisLedger
    from forwarder.store.queue import Did, Do, RedisQueue

    async with store_of(it) as store:
        ledger = RedisLedger(store, journal=it.journal)
        queue = RedisQueue(store, ledger, journal=it.journal, max_body=1 << 20, high_water=1 << 30)
        assert await queue.do(item, Do.RETRY) is Did.DONE


# --- rspamd


@needs_rspamd
async def test_spam_is_refused_by_the_name_of_the_filter_and_nothing_else(tmp_path: Path, filter_: Rspamd) -> None:
    spam = MESSAGE.replace(b"Hello.", GTUBE)
    async with lab(tmp_path, extra=asking(filter_, 'name = "rspamd.test"')) as it:
        answer = await it.send(it.signed(spam))
        assert answer.partition(" (")[0] == (
            "550 5.7.1 the content filter rspamd.test does not want this message; write to postmaster if it is wrong"
        )
        assert it.sink.waiting.empty()
        [event] = it.events("content.checked")
        assert (event["said"], event["action"], event["text"]) == ("reject", "reject", "Gtube pattern")
        assert event["ms"] > 0
        assert it.events("route.refuse")[0]["reason"] == "rspamd.test: 'reject', score 15.00"
        # Whoever is refused must be able to say so.
        assert (await it.send(it.signed(spam, recipients=(POSTMASTER,)), recipient=POSTMASTER)).startswith("250")
        assert len(it.events("content.checked")) == 1


@needs_rspamd
async def test_what_rspamd_is_told_and_what_it_may_put_on_a_message(tmp_path: Path, filter_: Rspamd) -> None:
    accepts = 'accept_fields = ["X-Told"]'
    for folder, config in (
        ("tcp", asking(filter_, accepts)),
        ("unix", asking(filter_, accepts).replace(filter_.url, filter_.socket)),
    ):
        (tmp_path / folder).mkdir()
        async with lab(tmp_path / folder, extra=config) as it:
            assert (await it.send(it.signed())).startswith("250")
            arrived = await it.next(it.sink)
            head = head_of(arrived.data)
            [received] = it.events("message.received")
            told = f"X-Told: {SENDER}, mx.sender.test, bob@sender.test, alias@fwd.test, -, {received['id']} "
            assert told.encode() in head
            assert b"X-Spam-Status: No, score=0.00 required=15.00 " in head
            assert b"X-Spam-Flag" not in head
            # It wanted a Subject.
            assert b"nobody wrote this" not in arrived.data
            assert arrived.data.endswith(it.signed().partition(b"\r\n\r\n")[2])


@needs_rspamd
async def test_what_follows_from_a_score(tmp_path: Path, filter_: Rspamd) -> None:
    limits = "tag_above = 2\none_way_above = 3\nquarantine_above = 4\nreject_above = 5"
    async with lab(tmp_path, extra=asking(filter_, limits)) as it:
        assert (await it.send(it.signed(scored(2.0)))).startswith("250")
        arrived = await it.next(it.sink)
        assert b"X-Spam-Status: No, score=2.00" in head_of(arrived.data)
        assert arrived.sender.startswith("SRS0")

        assert (await it.send(it.signed(scored(2.5, b"two")))).startswith("250")
        head = head_of((await it.next(it.sink)).data)
        assert b"X-Spam-Status: Yes, score=2.50" in head
        assert b"X-Spam-Flag: YES " in head

        assert (await it.send(it.signed(scored(3.5, b"three")))).startswith("250")
        arrived = await it.next(it.sink)
        assert "=+=" in arrived.sender
        assert it.events("route.forward")[-1]["sender_form"] == "one-way"

        assert (await it.send(it.signed(scored(4.5, b"four")))).startswith("250 2.0.0 accepted (")
        assert it.sink.waiting.empty()

        assert (await it.send(it.signed(scored(5.5, b"five")))).startswith("550 5.7.1 the content filter rspamd ")


@needs_rspamd
async def test_what_is_put_aside_lies_among_the_dead_letters_until_somebody_lets_it_go(
    tmp_path: Path, filter_: Rspamd
) -> None:
    async with lab(tmp_path, extra=asking(filter_, "quarantine_above = 4")) as it:
        spam = it.signed(scored(4.5), recipients=("team@fwd.test",))
        for _ in range(2):
            # A sender that did not hear the answer makes no second one.
            assert (await it.send(spam, recipient="team@fwd.test")).startswith("250 2.0.0")
        letters = await dead(it)
        assert len(letters) == 2
        assert {why for _, why in letters} == {"quarantine, rspamd: 'greylist', score 4.50"}
        assert [one["reason"] for one in it.events("queue.dead")] == [why for _, why in letters]
        assert it.sink.waiting.empty()

        [item] = [one["item"] for one in it.events("queue.dead") if one["item"].endswith(".0")]
        await release(it, item)
        arrived = await it.next(it.sink)
        assert arrived.data.endswith(spam.partition(b"\r\n\r\n")[2])
        assert b"X-Spam-Status: Yes, score=4.50" in head_of(arrived.data)
        assert len(await dead(it)) == 1


@needs_rspamd
async def test_where_nothing_may_be_kept_what_would_be_put_aside_is_refused(tmp_path: Path, filter_: Rspamd) -> None:
    async with lab(tmp_path, relay='hold = "never"', extra=asking(filter_, "quarantine_above = 4")) as it:
        assert (await it.send(it.signed(scored(4.5)))).startswith("550 5.7.1 the content filter")


@needs_rspamd
async def test_rspamds_own_words_are_heeded_as_configured(tmp_path: Path, filter_: Rspamd) -> None:
    async with lab(tmp_path, extra=asking(filter_, 'actions = { "rewrite subject" = "discard" }')) as it:
        assert (await it.send(it.signed(acted("soft reject")))).startswith("451 4.7.1 the content filter rspamd ")
        assert (await it.send(it.signed(acted("greylist")))).startswith("250 2.0.0 delivered")
        await it.next(it.sink)
        assert (await it.send(it.signed(acted("rewrite subject")))).startswith("250 2.0.0 accepted; it ends here")
        assert it.events("route.discard")[0]["reason"].startswith("rspamd: 'rewrite subject'")
        assert it.sink.waiting.empty()


@needs_rspamd
async def test_what_rspamd_would_drop_is_put_aside_unless_the_operator_says_so(tmp_path: Path, filter_: Rspamd) -> None:
    async with lab(tmp_path, extra=asking(filter_)) as it:
        for word in ("discard", "quarantine"):
            assert (await it.send(it.signed(acted(word)))).startswith("250 2.0.0 accepted")
        assert [one["said"] for one in it.events("content.checked")] == ["discard", "quarantine"]
        assert [why for _, why in await dead(it)] == [
            "quarantine, rspamd: 'discard', score 0.00",
            "quarantine, rspamd: 'quarantine', score 0.00",
        ]
        change_filters(it, asking(filter_), asking(filter_, 'actions = { discard = "discard" }'))
        assert await it.app.reload(lambda: load(it.folder / "forwarder.toml"))
        assert (await it.send(it.signed(acted("discard")))).startswith("250 2.0.0 accepted; it ends here")
        assert it.sink.waiting.empty()
        assert len(await dead(it)) == 2


def change_filters(it: Lab, before: str, after: str) -> None:
    file = it.folder / "forwarder.toml"
    text = file.read_text()
    assert text.count(before) == 1
    file.write_text(text.replace(before, after))


@needs_rspamd
async def test_a_reload_takes_filters_in_and_out_and_mail_that_is_asked_about_meanwhile_ends_as_it_began(
    tmp_path: Path, filter_: Rspamd
) -> None:
    async with deaf() as place, lab(tmp_path, extra="# filters\n") as it:

        async def reload(before: str, after: str) -> None:
            change_filters(it, before, after)
            assert await it.app.reload(lambda: load(it.folder / "forwarder.toml"))

        spam = it.signed(MESSAGE.replace(b"Hello.", GTUBE))
        assert (await it.send(spam)).startswith("250")
        await reload("# filters\n", asking(filter_))
        again = it.signed(MESSAGE.replace(b"Hello.", GTUBE).replace(b"<one@", b"<two@"))
        assert (await it.send(again)).startswith("550 5.7.1 the content filter rspamd ")
        silent = f'[[content.rspamd]]\nurl = "http://{place}"\ntimeout = 1\non_failure = "accept"\n'
        await reload(asking(filter_), silent)
        asked = asyncio.ensure_future(it.send(it.signed(MESSAGE.replace(b"<one@", b"<three@"))))
        await until(lambda: len(it.events("message.verified")) == 3)
        await reload(silent, "# filters\n")
        checked = len(it.events("content.checked"))
        assert (await it.send(again)).startswith("250"), "there is no filter any more"
        assert (await asked).startswith("250")
        assert [one["failure"] for one in it.events("content.checked")[checked:]] == ["no answer within 1 s"]
        assert not it.events("fault")


@needs_rspamd
async def test_a_reload_with_a_filter_that_cannot_be_used_changes_nothing(tmp_path: Path, filter_: Rspamd) -> None:
    async with lab(tmp_path, extra=asking(filter_)) as it:
        change_filters(it, asking(filter_), asking(filter_, 'password_file = "nowhere"'))
        assert not await it.app.reload(lambda: load(it.folder / "forwarder.toml"))
        assert (await it.send(it.signed(MESSAGE.replace(b"Hello.", GTUBE)))).startswith("550 5.7.1 the content filter")


@needs_rspamd
async def test_networks_that_are_skipped_are_asked_about_to_nobody(tmp_path: Path, filter_: Rspamd) -> None:
    top = f'[[networks]]\nnetwork = "{SENDER}/32"\nskip = ["content"]\n'
    async with lab(tmp_path, top=top, extra=asking(filter_)) as it:
        spam = it.signed(MESSAGE.replace(b"Hello.", GTUBE))
        assert (await it.send(spam)).startswith("250 2.0.0 delivered")
        assert not it.events("content.checked")
        assert b"X-Spam-Status" not in head_of((await it.next(it.sink)).data)
        assert (await it.send(spam, source=SINK, helo="mx.sink.test")).startswith("550 5.7.1 the content filter")


@needs_rspamd
async def test_what_must_be_put_aside_waits_with_its_sender_while_the_queue_is_full(
    tmp_path: Path, filter_: Rspamd
) -> None:
    extra = asking(filter_, "quarantine_above = 4") + "[queue]\nhigh_water = 2000\n"
    async with lab(tmp_path, extra=extra) as it:
        spam = it.signed(scored(4.5))
        answer = await it.send(spam)
        assert answer.startswith("451 "), answer
        assert it.sink.waiting.empty()
        assert await dead(it) == []
        # What nobody wants put aside needs no queue.
        assert (await it.send(it.signed(scored(0.5, b"two")))).startswith("250 2.0.0 delivered")
        change_filters(it, "high_water = 2000", "high_water = 1000000")
        assert await it.app.reload(lambda: load(it.folder / "forwarder.toml"))
        assert (await it.send(spam)).startswith("250 2.0.0 accepted"), "its claim was given back"
        assert len(await dead(it)) == 1


@needs_rspamd
async def test_explain_asks_the_filters_only_when_told_to(
    tmp_path: Path, filter_: Rspamd, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "spam.eml"
    async with lab(tmp_path, extra=asking(filter_, "quarantine_above = 4")) as it:

        async def explained(raw: bytes, *more: str) -> dict[str, Any]:
            file.write_bytes(raw)
            words = ["explain", str(file), "--config", str(it.folder / "forwarder.toml"), "--json", "--ip", SENDER]
            words += ["--helo", "mx.sender.test", "--mail-from", "bob@sender.test", "--rcpt-to", "alias@fwd.test"]
            assert await asyncio.to_thread(main, [*words, *more]) == 0
            told: dict[str, Any] = json.loads(capsys.readouterr().out)
            return told

        spam = it.signed(MESSAGE.replace(b"Hello.", GTUBE))
        told = await explained(spam)
        assert told["content"] == [{"filter": "rspamd", "found": "would be asked: --filters asks it"}]
        assert told["route"] == "forward"
        told = await explained(spam, "--filters")
        assert told["content"][0]["found"].startswith("reject, score 15 (")
        assert (told["route"], told["reason"]) == ("refuse", "rspamd: 'reject', score 15.00")
        assert told["reply"].startswith("550 5.7.1 the content filter rspamd ")
        told = await explained(it.signed(scored(2.5)), "--filters")
        assert told["route"] == "forward"
        assert not it.events("message.received"), "nothing was sent"
    assert not it.events("content.checked")


@needs_rspamd
async def test_reports_go_by_the_filter(tmp_path: Path, filter_: Rspamd) -> None:
    async with lab(tmp_path, extra=asking(filter_)) as it:
        assert (await it.send(it.signed())).startswith("250")
        arrived = await it.next(it.sink)
        report = bounce_of(arrived).replace(b"This is the mail", GTUBE + b"\r\nThis is the mail")
        assert (await it.bounce(arrived, data=report)).startswith("250")
        await it.next(it.sender)
        assert len(it.events("content.checked")) == 1


@needs_rspamd
async def test_fields_of_the_filters_names_are_taken_out_unless_a_good_signature_covers_them(
    tmp_path: Path, filter_: Rspamd
) -> None:
    forged = b"X-Spam-Status: No, trust me\r\n"
    async with lab(tmp_path, extra=asking(filter_, "replace_fields = true")) as it:
        # On top of the signatures, which say nothing of it.
        assert (await it.send(forged + it.signed())).startswith("250")
        arrived = (await it.next(it.sink)).data
        assert b"trust me" not in arrived
        assert arrived.count(b"X-Spam-Status:") == 1


@needs_rspamd
async def test_what_a_user_submits_is_looked_at_only_where_wanted(tmp_path: Path, filter_: Rspamd) -> None:
    submission = '[[submission.networks]]\nnetwork = "127.0.0.10/32"\nowns = ["fwd.test"]\n'
    mine = MESSAGE.replace(b"bob@sender.test", b"bob@fwd.test")
    for folder, more, want in (("off", "", "250"), ("on", "[content]\nsubmission = true\n", "550 5.7.1 the content")):
        (tmp_path / folder).mkdir()
        port = free_port("127.0.0.25")
        listener = f'{{ address = "127.0.0.25:{port}", submission = true }}'
        async with lab(tmp_path / folder, listeners=listener, extra=more + asking(filter_) + submission) as it:
            it.port, port = port, it.port
            answer = await it.send(mine.replace(b"Hello.", GTUBE), "bob@fwd.test", "one@sink.test")
            assert answer.startswith(want), answer


@contextlib.asynccontextmanager
async def deaf() -> AsyncIterator[str]:
    """Takes connections and says nothing."""
    held = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        await reader.read()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for one in held:
            one.close()


@pytest.mark.parametrize("kind", ["rspamd", "milter"])
async def test_a_filter_that_fails_lets_nothing_through_or_all_of_it(tmp_path: Path, kind: str) -> None:
    async with deaf() as place:
        gone = f"127.0.0.1:{free_port('127.0.0.1')}"
        for number, (where, why) in enumerate(((gone, "cannot connect"), (place, "no answer within 0.2 s"))):
            line = f'url = "http://{where}"' if kind == "rspamd" else f'socket = "inet:{where}"\ncommand_timeout = 0.2'
            limit = "timeout = 0.2" if kind == "rspamd" else ""
            for choice, want in (("", f"451 4.7.1 the content filter {kind} "), ('on_failure = "accept"', "250")):
                folder = tmp_path / f"{number}{want[0]}"
                folder.mkdir()
                async with lab(folder, extra=f"[[content.{kind}]]\n{line}\n{limit}\n{choice}\n") as it:
                    answer = await it.send(it.signed())
                    assert answer.startswith(want), answer
                    [event] = it.events("content.checked")
                    assert event["failure"].startswith(why), event


async def test_without_filters_nothing_is_asked_and_nothing_added(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        assert (await it.send(it.signed())).startswith("250")
        assert b"X-Spam" not in (await it.next(it.sink)).data
        assert not it.events("content.checked")


# --- a milter


def wishing(wish: str) -> bytes:
    return MESSAGE.replace(b"<one@", f"<{wish}@".encode()).replace(
        b"Subject:", f"X-Test: {wish}\r\nX-Folded: a\r\n b\r\nSubject:".encode()
    )


@needs_milter
@pytest.mark.parametrize("unix", [False, True], ids=["inet", "unix"])
async def test_what_a_milter_is_told_and_what_it_may_put_on_a_message(tmp_path: Path, unix: bool) -> None:
    async with milter(unix=unix) as socket:
        accepts = 'accept_fields = ["X-Test-Told", "x-test-folded"]'
        async with lab(tmp_path, extra=f'[[content.milter]]\nsocket = "{socket}"\n{accepts}\n') as it:
            body = b"0123456789abcdef" * 16000
            sent = it.signed(wishing("change").replace(b"Hello.", body.replace(b"f" + b"0", b"f\r\n0")))
            assert (await it.send(sent)).startswith("250")
            arrived = await it.next(it.sink)
            [received] = it.events("message.received")
            size = len(sent.partition(b"\r\n\r\n")[2])
            told = (
                f"X-Test-Told: connect [{SENDER}] {SENDER}; helo mx.sender.test; mail <bob@sender.test> {received['id']};"
                f" rcpt <alias@fwd.test>; folded 'a\\n b'; body {size} "
            )
            assert told.encode() in head_of(arrived.data)
            assert b"\r\nX-Test-Folded: one\r\n two\r\n" in arrived.data
            # What it wanted changed is as it was.
            assert arrived.data.endswith(sent.partition(b"\r\n\r\n")[2])
            assert arrived.recipients == ("hidden.destination@sink.test",)
            assert b"another one" not in arrived.data
            [event] = it.events("content.checked")
            assert event["undone"] == ["replace the body", "add a recipient", "remove a recipient", "change the sender"]


@needs_milter
async def test_what_a_milter_wants_is_done_as_configured(tmp_path: Path) -> None:
    async with milter() as socket, lab(tmp_path, extra=f'[[content.milter]]\nsocket = "{socket}"\n') as it:
        for wish, want in (
            ("reject", "550 5.7.1 the content filter milter "),
            ("reply", "550 5.7.1 the content filter milter "),
            ("tempfail", "451 4.7.1 the content filter milter "),
            ("quarantine", "250 2.0.0 accepted"),
            ("discard", "250 2.0.0 accepted"),
        ):
            answer = await it.send(it.signed(wishing(wish)))
            assert answer.startswith(want), (wish, answer)
        assert it.sink.waiting.empty()
        assert "554 5.7.9 a word of the filter" in [one["text"] for one in it.events("content.checked")]
        assert [why for _, why in await dead(it)] == [
            "quarantine, milter: 'quarantine'",
            "quarantine, milter: 'discard'",
        ]


@needs_milter
async def test_a_milter_that_dies_costs_no_mail(tmp_path: Path) -> None:
    async with milter() as socket, lab(tmp_path, extra=f'[[content.milter]]\nsocket = "{socket}"\n') as it:
        assert (await it.send(it.signed(wishing("die")))).startswith("451 4.7.1")
        assert it.events("content.checked")[0]["failure"] == "the connection ended (end of message)"
        assert (await it.send(it.signed())).startswith("451 4.7.1")
        assert it.events("content.checked")[1]["failure"] == "cannot connect"


@needs_milter
@needs_rspamd
async def test_several_filters_are_asked_at_once_and_the_sternest_counts(tmp_path: Path, filter_: Rspamd) -> None:
    async with milter() as socket:
        more = f'[[content.milter]]\nsocket = "{socket}"\naccept_fields = ["X-Test-Folded"]\n'
        async with lab(tmp_path, extra=asking(filter_) + more) as it:
            assert (await it.send(it.signed())).startswith("250")
            head = head_of((await it.next(it.sink)).data)
            assert b"X-Spam-Status: No" in head
            assert b"X-Test-Folded: one two" in head
            spam = wishing("tempfail").replace(b"Hello.", GTUBE)
            assert (await it.send(it.signed(spam))).startswith("550 5.7.1 the content filter rspamd ")
