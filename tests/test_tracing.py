"""Does what the journal is told of a message come to be kept, without anybody waiting for it?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from forwarder import tracing
from forwarder.model import Address
from forwarder.ports import StoreAway, Traced, TraceEvent
from forwarder.tracing import Tracing
from tests.fakes import FixedClock, MemoryJournal

BOB = Address("Bob", "sender.example")


@dataclass
class Kept:
    """A door of ours: what would be in the store."""

    lives: dict[str, Traced] = field(default_factory=dict)
    #: What came in one piece: of which message, how many events.
    groups: list[tuple[str, int]] = field(default_factory=list)
    away: bool = False

    async def append(self, lives: Sequence[Traced], *, last: bool = False) -> Sequence[Traced]:
        if self.away:
            raise StoreAway("gone")
        for one in lives:
            self.groups.append((one.id, len(one.events)))
            life = self.lives.setdefault(one.id, Traced(one.id))
            life.events += one.events
            life.dropped += one.dropped
        return ()

    async def find(self, name: str) -> Sequence[str]:
        return [one.id for one in self.lives.values() if name in one.found_by()]

    async def read(self, id: str) -> Traced | None:  # noqa: A002 - what the door calls it
        return self.lives.get(id)


async def test_events_of_a_message_are_kept_and_lead_to_it() -> None:
    kept, journal = Kept(), MemoryJournal()
    it = Tracing(journal, kept, FixedClock())
    it.event("message.received", id="m1", sender=BOB, size=7)
    it.event("message.verified", id="m1", message_id="<1@x>", spf=None)
    it.event("relay.tls", peer="x")
    await it.close()
    assert [one.name for one in kept.lives["m1"].events] == ["message.received", "message.verified"]
    assert kept.lives["m1"].found_by() == ["bob@sender.example", "<1@x>"]
    assert kept.lives["m1"].events[0].fields == {"sender": BOB, "size": 7}
    assert [name for name, _ in journal.events] == ["message.received", "message.verified", "relay.tls"]


async def test_a_life_that_has_just_begun_waits_for_its_end_and_leaves_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "PAUSE", 0)
    kept = Kept()
    it = Tracing(MemoryJournal(), kept, FixedClock())
    it.event("message.received", id="m1")
    await asyncio.sleep(0)
    it.event("message.received", id="m2")
    await asyncio.sleep(0)
    it.event("message.answered", id="m2")
    await asyncio.sleep(0)
    assert kept.groups == [("m1", 1), ("m2", 2)]


async def test_a_few_lives_leave_at_a_time_each_as_old_as_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "PAUSE", 0)
    kept = Kept()
    it = Tracing(MemoryJournal(), kept, FixedClock(), trips=3)

    # A round of the loop is a trip.
    for number in range(6):
        it.event("message.received", id=f"m{number}")
        it.event("message.received", id=f"n{number}")
        await asyncio.sleep(0)
        it.event("message.answered", id=f"m{number}")
        it.event("message.answered", id=f"n{number}")

    assert kept.groups == [(f"{letter}{number}", 2) for number in range(3) for letter in "mn"]
    await it.close()
    assert len(kept.lives) == 12


async def test_what_waits_is_kept_when_the_store_is_back_in_its_order() -> None:
    kept = Kept(away=True)
    it = Tracing(MemoryJournal(), kept, FixedClock())
    it.event("one", id="m1")
    await it.flush()
    it.event("two", id="m1")
    kept.away = False
    await it.close()
    assert [one.name for one in kept.lives["m1"].events] == ["one", "two"]


async def test_while_the_store_is_away_memory_is_bounded_and_what_is_lost_is_told() -> None:
    kept, journal = Kept(away=True), MemoryJournal()
    it = Tracing(journal, kept, FixedClock())
    for number in range(tracing.MAX_WAITING + 3):
        it.event("x", id=f"m{number}")
    for _ in range(tracing.MAX_EVENTS + 2):
        it.event("y", id="m9")
    await it.flush()
    assert [one["message"] for one in journal.named("trace.dropped")] == ["m0", "m1", "m2"]
    kept.away = False
    await it.close()
    assert len(kept.lives) == tracing.MAX_WAITING
    assert (len(kept.lives["m9"].events), kept.lives["m9"].dropped) == (tracing.MAX_EVENTS, 3)


async def test_what_is_told_does_not_pile_up_before_it_is_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MAX_TOLD", 10)
    kept = Kept()
    it = Tracing(MemoryJournal(), kept, FixedClock())
    for _ in range(tracing.MAX_EVENTS + 20):
        it.event("x", id="m1")
        assert len(it._told) < 10
    await it.close()
    assert (len(kept.lives["m1"].events), kept.lives["m1"].dropped) == (tracing.MAX_EVENTS, 20)


async def test_after_the_end_nothing_is_kept_and_the_journal_is_still_told() -> None:
    kept, journal = Kept(away=True), MemoryJournal()
    it = Tracing(journal, kept, FixedClock())
    it.event("x", id="m1")
    await it.close()
    it.event("y", id="m1")
    assert [name for name, _ in journal.events][-1] == "y"


async def test_what_cannot_be_kept_costs_nothing_but_itself() -> None:
    class Broken(Kept):
        async def append(self, lives: Sequence[Traced], *, last: bool = False) -> Sequence[Traced]:
            if any(one.id == "bad" for one in lives):
                raise ValueError("cannot be written down")
            return await super().append(lives, last=last)

    kept, journal = Broken(), MemoryJournal()
    it = Tracing(journal, kept, FixedClock())
    it.event("one", id="bad")
    await it.flush()
    it.event("two", id="good")
    await it.close()
    assert list(kept.lives) == ["good"]
    assert [fields["message"] for name, fields in journal.events if name == "trace.dropped"] == ["bad"]


class Parted(Kept):
    """Lives of ``dead``, and what leads to them, are at a server that is away."""

    dead: frozenset[str] = frozenset()

    async def append(self, lives: Sequence[Traced], *, last: bool = False) -> Sequence[Traced]:
        self.asked = [one.id for one in lives]
        await asyncio.sleep(0)
        await super().append([one for one in lives if one.id not in self.dead], last=last)
        return [one for one in lives if one.id in self.dead]


async def test_what_one_server_did_not_take_goes_with_the_next_trip_and_the_others_are_not_sent_again() -> None:
    kept = Parted()
    kept.dead = frozenset({"m1"})
    it = Tracing(MemoryJournal(), kept, FixedClock())
    it.event("one", id="m1")
    it.event("one", id="m2")
    await it.flush()
    it.event("two", id="m1")
    it.event("one", id="m3")
    await it.flush()
    assert kept.groups == [("m2", 1), ("m3", 1)]
    kept.dead = frozenset()
    await it.flush()
    await it.close()
    assert [one.name for one in kept.lives["m1"].events] == ["one", "two"]
    assert kept.groups == [("m2", 1), ("m3", 1), ("m1", 2)]


async def test_an_event_that_comes_while_its_message_is_on_the_way_in_vain_is_behind_it() -> None:
    kept = Parted()
    kept.dead = frozenset({"m1"})
    it = Tracing(MemoryJournal(), kept, FixedClock())
    it.event("one", id="m1")
    trip = asyncio.ensure_future(it.flush())
    await asyncio.sleep(0)
    it.event("two", id="m1")
    await trip
    kept.dead = frozenset()
    await it.close()
    assert [one.name for one in kept.lives["m1"].events] == ["one", "two"]


async def test_what_is_left_comes_behind_what_is_new_and_is_dropped_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MAX_WAITING", 6)
    monkeypatch.setattr(tracing, "MAX_TOLD", 1)
    monkeypatch.setattr(tracing, "BATCH", 4)
    kept, journal = Parted(), MemoryJournal()
    kept.dead = frozenset({"d0", "d1", "d2", "d3"})
    it = Tracing(journal, kept, FixedClock())
    for id_ in sorted(kept.dead):
        it.event("x", id=id_)
    await it.flush()
    for id_ in ("m0", "m1", "m2"):
        it.event("x", id=id_)
    assert [one["message"] for one in journal.named("trace.dropped")] == ["d0"]
    await it.flush()
    assert kept.asked == ["m0", "m1", "m2", "d1"]
    await it.flush()
    # Each has its turn.
    assert kept.asked == ["d2", "d3", "d1"]
    await it.close()
    assert sorted(kept.lives) == ["m0", "m1", "m2"]


@dataclass
class Slow(Parted):
    """Answers when it is let."""

    asked_once: asyncio.Event = field(default_factory=asyncio.Event)
    let: asyncio.Event = field(default_factory=asyncio.Event)

    async def append(self, lives: Sequence[Traced], *, last: bool = False) -> Sequence[Traced]:
        self.asked_once.set()
        await self.let.wait()
        return await super().append(lives, last=last)


async def test_a_trip_that_is_under_way_at_the_end_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "PAUSE", 0)
    kept, journal = Slow(), MemoryJournal()
    it = Tracing(journal, kept, FixedClock())
    it.event("x", id="m1")
    await kept.asked_once.wait()
    it.event("x", id="m2")
    end = asyncio.ensure_future(it.close())
    await asyncio.sleep(0)
    kept.let.set()
    await end
    assert kept.groups == [("m1", 1), ("m2", 1)]
    assert not journal.named("trace.dropped")


async def test_who_was_silent_is_asked_once_more_at_the_end() -> None:
    class Silent(Kept):
        async def append(self, lives: Sequence[Traced], *, last: bool = False) -> Sequence[Traced]:
            return await super().append(lives, last=last) if last else lives

    kept, journal = Silent(), MemoryJournal()
    it = Tracing(journal, kept, FixedClock())
    it.event("x", id="m1")
    await it.flush()
    assert not kept.groups
    await it.close()
    assert kept.groups == [("m1", 1)]
    assert not journal.named("trace.dropped")


async def test_what_is_not_kept_at_the_end_is_told() -> None:
    kept, journal = Parted(), MemoryJournal()
    kept.dead = frozenset({"d1"})
    it = Tracing(journal, kept, FixedClock())
    it.event("x", id="d1")
    await it.flush()
    kept.away = True
    it.event("x", id="m1")
    await it.close()
    await it.close()
    assert sorted(one["message"] for one in journal.named("trace.dropped")) == ["d1", "m1"]


async def test_what_is_on_the_way_when_nobody_waits_for_the_end_is_told() -> None:
    kept, journal = Slow(), MemoryJournal()
    it = Tracing(journal, kept, FixedClock())
    it.event("x", id="m1")
    end = asyncio.ensure_future(it.close())
    await kept.asked_once.wait()
    end.cancel()
    with pytest.raises(asyncio.CancelledError):
        await end
    assert [one["message"] for one in journal.named("trace.dropped")] == ["m1"]


async def test_a_trip_in_vain_drops_what_is_left_before_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MAX_WAITING", 4)
    monkeypatch.setattr(tracing, "MAX_TOLD", 1)
    monkeypatch.setattr(tracing, "BATCH", 2)
    kept, journal = Slow(), MemoryJournal()
    kept.let.set()
    kept.dead = frozenset({"d0", "d1"})
    it = Tracing(journal, kept, FixedClock())
    for id_ in ("d0", "d1"):
        it.event("x", id=id_)
    await it.flush()
    kept.let.clear()
    for id_ in ("m0", "m1"):
        it.event("x", id=id_)
    trip = asyncio.ensure_future(it.flush())
    await asyncio.sleep(0)
    for id_ in ("m2", "m3"):
        it.event("x", id=id_)
    kept.away = True
    kept.let.set()
    await trip
    assert [one["message"] for one in journal.named("trace.dropped")] == ["d0", "d1"]
    kept.away = False
    await it.close()
    assert list(kept.lives) == ["m0", "m1", "m2", "m3"]


async def test_a_trip_in_vain_makes_nothing_new_of_what_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MAX_WAITING", 4)
    monkeypatch.setattr(tracing, "MAX_TOLD", 1)
    kept, journal = Parted(), MemoryJournal()
    kept.dead = frozenset({"d0", "d1"})
    it = Tracing(journal, kept, FixedClock())
    for id_ in ("d0", "d1"):
        it.event("x", id=id_)
    await it.flush()
    kept.away = True
    it.event("x", id="m0")
    await it.flush()
    for id_ in ("m1", "m2", "m3"):
        it.event("x", id=id_)
    assert [one["message"] for one in journal.named("trace.dropped")] == ["d0", "d1"]


async def test_what_is_left_of_a_message_that_goes_on_joins_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MAX_WAITING", 3)
    monkeypatch.setattr(tracing, "MAX_TOLD", 1)
    kept, journal = Parted(), MemoryJournal()
    kept.dead = frozenset({"d0", "m1"})
    it = Tracing(journal, kept, FixedClock())
    for id_ in ("d0", "m1"):
        it.event("one", id=id_)
    trip = asyncio.ensure_future(it.flush())
    await asyncio.sleep(0)
    for id_ in ("m1", "m2", "m3"):
        it.event("two", id=id_)
    await trip
    # It is as new as they are.
    assert [one["message"] for one in journal.named("trace.dropped")] == ["d0"]
    kept.dead = frozenset()
    await it.close()
    assert [one.name for one in kept.lives["m1"].events] == ["one", "two"]
    assert list(kept.lives) == ["m1", "m2", "m3"]


@pytest.mark.parametrize("away", [True, False], ids=["all", "in part"])
async def test_a_life_grows_no_longer_while_trips_are_in_vain(away: bool) -> None:
    kept = Parted(away=away)
    kept.dead = frozenset({"m1"})
    it = Tracing(MemoryJournal(), kept, FixedClock())
    for _ in range(3):
        for _ in range(tracing.MAX_EVENTS - 100):
            it.event("x", id="m1")
        trip = asyncio.ensure_future(it.flush())
        await asyncio.sleep(0)
        for _ in range(tracing.MAX_EVENTS - 100):
            it.event("x", id="m1")
        await trip
    kept.away, kept.dead = False, frozenset()
    await it.close()
    life = kept.lives["m1"]
    assert (len(life.events), life.dropped) == (tracing.MAX_EVENTS, 6 * (tracing.MAX_EVENTS - 100) - tracing.MAX_EVENTS)


async def test_what_only_its_names_are_missing_of_is_told_when_it_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nameless(Kept):
        async def append(self, lives: Sequence[Traced], *, last: bool = False) -> Sequence[Traced]:
            await super().append(lives, last=last)
            return [Traced(one.id, leads=tuple(one.found_by())) for one in lives]

    monkeypatch.setattr(tracing, "MAX_WAITING", 1)
    monkeypatch.setattr(tracing, "MAX_TOLD", 1)
    kept, journal = Nameless(), MemoryJournal()
    it = Tracing(journal, kept, FixedClock())
    it.event("x", id="m1", sender=BOB, message_id="<1@x>")
    await it.flush()
    it.event("x", id="m2")
    assert journal.named("trace.dropped") == [{"message": "m1", "events": 0, "names": 2}]
    await it.close()


def test_what_leads_to_a_message_already_does_not_again() -> None:
    one = Traced("m1", leads=("<1@x>",), found=frozenset({"bob@sender.example"}))
    one.events.append(TraceEvent(1.0, "x", {"sender": BOB, "alias": Address("alias", "fwd.example")}))
    assert one.found_by() == ["<1@x>", "alias@fwd.example"]
