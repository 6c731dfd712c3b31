"""What events come to, and what of it a scrape shows: bounded, mergeable, and never an address."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from forwarder.metrics import CountedKeys, CountingJournal, NumberFiles, Numbers, clear
from forwarder.metrics.page import Seen, render
from forwarder.metrics.providers import Providers
from forwarder.metrics.tally import MAX_SERIES, Counter, Histogram, Ticks
from forwarder.model import Address
from forwarder.ports import QueueSize
from tests.auth.signers import run
from tests.fakes import MemoryJournal

NOTHING = Seen(None, {"version": "1"})


class Watched:
    """A counting journal on a clock that moves when told."""

    def __init__(self) -> None:
        self.numbers = Numbers()
        self.log = MemoryJournal()
        self.now = 0.0
        self.journal = CountingJournal(self.log, self.numbers, Providers(["mine.test"]), lambda: self.now)

    def tell(self, name: str, after: float = 0.0, **fields: Any) -> None:
        self.now += after
        self.journal.event(name, **fields)


def verified(id_: str, **fields: Any) -> dict[str, Any]:
    facts = {"mailkey": "none", "spf": "pass", "dkim": ["pass a.test", "fail b.test"], "arc": "none", "dmarc": "pass"}
    return {"id": id_, **facts, "sender_verified_by": "dkim", **fields}


def samples(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(page.decode())
        for one in family.samples
    }


def shown(folder: Path, numbers: Numbers, seen: Seen = NOTHING) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    clear(folder)
    files = NumberFiles(folder, numbers, {})
    files.write()
    try:
        return samples(render(folder, seen))
    finally:
        files.close()


def test_an_event_counts_for_every_destination_that_it_names() -> None:
    it = Watched()
    many = [Address(f"r{number}", "sink.test") for number in range(3)]
    it.tell("delivery.outcome", id="1", destinations=many, outcome="queued")
    it.tell("queue.outcome", id="1", destinations=many[:2], outcome="delivered")
    it.tell("queue.outcome", id="1", destination=many[2], outcome="failed")

    assert it.numbers.recipients.values == {
        ("session", "queued"): 3,
        ("queue", "delivered"): 2,
        ("queue", "failed"): 1,
    }


def test_content_filters_are_told_apart_and_their_own_words_are_no_labels() -> None:
    it = Watched()
    facts: dict[str, Any] = {"id": "1", "score": 1.0, "text": None, "undone": None}
    it.tell("content.checked", filter="rspamd", said="a@b.test", action="reject", ms=250.0, failure=None, **facts)
    it.tell(
        "content.checked", filter="clam", said=None, action="tempfail", ms=5000.0, failure="cannot connect", **facts
    )
    assert it.numbers.content.values == {("rspamd", "reject"): 1, ("clam", "tempfail"): 1}
    assert it.numbers.content_failed.values == {("clam",): 1}
    assert it.numbers.content_took.sums == {("rspamd",): 0.25, ("clam",): 5.0}
    assert not it.numbers.events.values.get(("metrics.fault",))


def test_the_time_between_two_events_of_a_message_is_a_stage_of_it() -> None:
    it = Watched()
    it.tell("message.received", id="1", size=100)
    it.tell("message.verified", after=0.002, **verified("1"))
    it.tell("route.forward", after=0.003, id="1")
    it.tell("message.sealed", after=0.004, id="1")
    it.tell("relay.sent", after=0.5, id="1", peer="mx.x.test[192.0.2.1]:25", code=250, recipients=1, tls="TLSv1.3")
    it.tell("delivery.outcome", after=0.001, id="1", outcome="delivered")
    it.tell("message.answered", after=0.001, id="1", code=250)

    found = {labels[0]: round(total, 6) for labels, total in it.numbers.stages.sums.items()}
    assert found == {"verify": 0.002, "decide": 0.003, "seal": 0.004, "deliver": 0.5, "record": 0.001, "total": 0.511}
    assert all(sum(buckets) == 1 for buckets in it.numbers.stages.buckets.values())
    assert it.numbers.messages.values == {("delivered",): 1}
    assert it.numbers.recipients.values == {("session", "delivered"): 1}
    assert it.numbers.checks.values["dkim", "pass"] == it.numbers.checks.values["dkim", "fail"] == 1
    assert it.numbers.received_bytes.values == {(): 100}


@pytest.mark.parametrize(
    ("events", "code", "want"),
    [
        ([("delivery.outcome", {"outcome": "delivered"})], 250, "delivered"),
        ([("delivery.outcome", {"outcome": "delivered"}), ("delivery.outcome", {"outcome": "queued"})], 250, "queued"),
        ([("delivery.outcome", {"outcome": "delivered"}), ("route.return_bounce", {})], 250, "returned"),
        ([("mailbox.kept", {})], 250, "kept"),
        ([("route.discard", {})], 250, "discarded"),
        ([], 250, "accepted"),
        ([("delivery.outcome", {"outcome": "failed"})], 550, "refused"),
        ([("delivery.outcome", {"outcome": "deferred"})], 451, "deferred"),
    ],
)
def test_a_message_counts_once_as_what_became_of_it(
    events: list[tuple[str, dict[str, Any]]], code: int, want: str
) -> None:
    it = Watched()
    it.tell("message.received", id="1", size=1)
    for name, fields in events:
        it.tell(name, id="1", **fields)
    it.tell("message.answered", id="1", code=code)

    assert it.numbers.messages.values == {(want,): 1}


def test_spans_that_were_lost_are_counted_one_by_one() -> None:
    it = Watched()
    it.tell("spans.dropped", count=5, endpoint="http://127.0.0.1:4318")
    assert it.numbers.spans_dropped.values == {(): 5}


def test_what_strangers_choose_is_no_label(tmp_path: Path) -> None:
    it, rng = Watched(), random.Random(3)
    for number in range(10_000):
        id_, code = str(number), rng.randrange(200, 600)
        it.tell(
            "message.received", id=id_, size=1, sender=f"u{number}@d{number}.test", helo=f"h{number}", tls="TLSv1.3"
        )
        it.tell("message.verified", **verified(id_, dkim=[f"pass d{number}.test"]))
        peer = f"mx.d{number}.test[192.0.2.1]:25"
        name = ("relay.sent", "relay.failed", "relay.deferred")[number % 3]
        it.tell(name, id=id_, peer=peer, code=code, recipients=1, tls=None, reason=f"<u@d{number}.test>")
        it.tell("delivery.outcome", id=id_, destination=f"u@d{number}.test", outcome="failed", code=code)
        it.tell("rcpt.refused", ip="192.0.2.1", code=code, reason=f"d{number}.test")
        it.tell("message.answered", id=id_, code=code, text=f"no d{number}.test")

    found = shown(tmp_path / "m", it.numbers)
    assert len(found) < 400
    words = {value for _, labels in found for _, value in labels}
    assert not [word for word in words if "@" in word or ".test" in word or "192." in word]
    assert sum(value for (name, _), value in found.items() if name == "forwarder_messages_total") == 10_000


def test_more_label_values_than_there_are_words_for_are_counted_together() -> None:
    counter, histogram = Counter("c", "help", ("x",)), Histogram("h", "help", ("x",))
    for number in range(3 * MAX_SERIES):
        counter.add(str(number))
        histogram.observe(0.1, str(number))

    assert len(counter.values) == MAX_SERIES + 1
    assert counter.values["other",] == 2 * MAX_SERIES
    assert sum(map(sum, histogram.buckets.values())) == 3 * MAX_SERIES
    assert len(histogram.buckets) == MAX_SERIES + 1


def test_messages_that_never_end_are_forgotten_and_a_broken_event_hurts_nobody() -> None:
    it = Watched()
    for number in range(5000):
        it.tell("message.received", id=str(number), size=1)
    it.tell("message.answered", id="0", code=250)
    it.tell("message.answered", nonsense=True)

    assert len(it.journal._open) <= 4096
    assert it.numbers.messages.values == {("accepted",): 1}
    assert it.numbers.events.values["metrics.fault",] == 1
    assert len(it.log.events) == 5002


@pytest.mark.parametrize(
    ("peer", "want"),
    [
        ("aspmx.l.google.com[192.0.2.1]:25", "google"),
        ("Example-org.MAIL.protection.outlook.com.[2001:db8::1]:25", "microsoft"),
        ("mx1.mine.test[192.0.2.1]:25", "mine.test"),
        ("google.com.evil.test[192.0.2.1]:25", "other"),
        ("notgoogle.com[192.0.2.1]:25", "other"),
        (None, "none"),
        ("[192.0.2.1]:25", "other"),
    ],
)
def test_a_mail_host_belongs_to_the_provider_that_its_name_ends_with(peer: str | None, want: str) -> None:
    assert Providers(["mine.test"]).name(peer) == want


WORKER = """
import sys, pathlib
from forwarder.metrics import NumberFiles, Numbers
numbers = Numbers()
numbers.messages.add("delivered", by=int(sys.argv[2]))
numbers.stages.observe(0.003, "verify")
numbers.sessions.set("mail", to=int(sys.argv[2]))
numbers.store_up.set(to=int(sys.argv[3]))
NumberFiles(pathlib.Path(sys.argv[1]), numbers, {}).write()
print("written", flush=True)
sys.stdin.read()
"""


def test_one_answer_is_for_all_workers_and_a_dead_one_has_no_sessions(tmp_path: Path) -> None:
    clear(tmp_path)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(count), str(up)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        for count, up in ((3, 1), (4, 0))
    ]
    try:
        for one in workers:
            assert one.stdout is not None
            assert one.stdout.readline() == b"written\n"
        found = samples(render(tmp_path, NOTHING))
        assert found["forwarder_messages_total", (("outcome", "delivered"),)] == 7
        assert found["forwarder_sessions", (("listener", "mail"),)] == 7
        assert found["forwarder_store_up", ()] == 0
        assert found["forwarder_stage_seconds_bucket", (("le", "0.0025"), ("stage", "verify"))] == 0
        assert found["forwarder_stage_seconds_bucket", (("le", "0.005"), ("stage", "verify"))] == 2
        assert found["forwarder_stage_seconds_count", (("stage", "verify"),)] == 2
        workers[1].kill()
        workers[1].communicate()
        found = samples(render(tmp_path, NOTHING))
        assert found["forwarder_messages_total", (("outcome", "delivered"),)] == 7
        assert found["forwarder_sessions", (("listener", "mail"),)] == 3
        assert found["forwarder_store_up", ()] == 1
    finally:
        for one in workers:
            one.kill()
            one.communicate()
    clear(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_the_store_holds_is_on_the_page_or_not_at_all(tmp_path: Path) -> None:
    assert not [name for name, _ in shown(tmp_path, Numbers()) if "queue" in name]
    found = shown(tmp_path, Numbers(), Seen(QueueSize(5, 1, 1000, 61.5, 2), {"version": "1"}))
    assert found["forwarder_queue_items", (("state", "waiting"),)] == 5
    assert found["forwarder_queue_oldest_seconds", ()] == 61.5
    assert found["forwarder_dead_letters", ()] == 2
    assert found["forwarder_build_info", (("version", "1"),)] == 1


def test_every_series_there_can_be_has_room_in_its_file(tmp_path: Path) -> None:
    numbers = Numbers()
    for family in numbers:
        for number in range(MAX_SERIES):
            labels = tuple(f"{label}{number:030}" for label in family.labels)
            match family:
                case Counter():
                    family.add(*labels)
                case Histogram():
                    family.observe(0.1, *labels)
    # Ten times more than there is, and the files neither grow (a full disk would end the process) nor break.
    assert len(shown(tmp_path, numbers)) > 1000
    assert {file.stat().st_size for file in tmp_path.glob("*.db")} == {256 * 1024}


def test_names_are_those_that_prometheus_recommends() -> None:
    names = [family.name for family in Numbers()]
    assert len(set(names)) == len(names)
    for family in Numbers():
        assert family.name.startswith("forwarder_")
        assert not family.name.endswith("_total")
        assert family.help.endswith(".")
        if isinstance(family, Histogram):
            assert family.name.endswith("_seconds")


def test_signatures_are_counted_on_any_thread() -> None:
    class Key:
        domain, selector, algorithm = "a.test", "s", "rsa-sha256"

        def sign(self, data: bytes) -> bytes:
            return data[::-1]

        async def signature(self, data: bytes) -> bytes:
            return b"together " + data

    class Ring:
        def mailkey(self, domain: str) -> Key | None:
            return None

        def dkim(self, domain: str) -> list[Key]:
            return [key]

        def arc(self) -> Key:
            return key

        def srs_secrets(self) -> list[bytes]:
            return [b"s"]

        def srs_legacies(self) -> list[Any]:
            return []

    key, counts = Key(), dict[tuple[str, str], Ticks]()
    ring = CountedKeys(Ring(), counts)
    threads = [
        threading.Thread(target=lambda: [ring.dkim("a.test")[0].sign(b"ab") for _ in range(2000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    arc = ring.arc()
    assert arc is not None
    assert arc.sign(b"ab") == b"ba"
    assert run(arc.signature(b"ab")) == b"together ab"
    assert ring.mailkey("a.test") is None
    assert ring.dkim("a.test")[0] is ring.dkim("b.test")[0]
    assert {kind: ticks.value for kind, ticks in counts.items()} == {
        ("dkim", "rsa-sha256"): 8000,
        ("arc", "rsa-sha256"): 2,
    }
    assert [ticks.value for ticks in counts.values()] == [8000, 2]


def test_a_number_file_says_whose_it_is(tmp_path: Path) -> None:
    shown(tmp_path, numbers := Numbers())
    numbers.workers.set(to=1)
    numbers.events.add("x")
    files = NumberFiles(tmp_path, numbers, {})
    files.write()
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {f"gauge_livesum_{os.getpid()}.db", f"counter_{os.getpid()}.db"}
    files.close()
    assert [file.name for file in tmp_path.iterdir()] == [f"counter_{os.getpid()}.db"]
    assert list(itertools.chain(render(tmp_path, NOTHING)))
