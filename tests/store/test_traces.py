"""store/traces.py: the lives of messages, on Valkey and on Redis."""

from __future__ import annotations

import pytest

from forwarder.model import Address
from forwarder.ports import Traced, TraceEvent
from forwarder.store.client import StoreClient
from forwarder.store.ledger import RedisLedger
from forwarder.store.traces import INDEX_OCTETS, MAX_GROUPS, RedisTraces
from tests.fakes import MemoryJournal

BOB = Address("bob", "sender.example")


@pytest.fixture
def traces(ours: StoreClient, journal: MemoryJournal) -> RedisTraces:
    return RedisTraces(ours, RedisLedger(ours, journal=journal), journal=journal, keep=3600)


def part(id: str = "m1", at: float = 1.0, name: str = "message.received", found_by: tuple[str, ...] = ()) -> Traced:  # noqa: A002
    leads = {f"to{n}": Address(*one.split("@")) for n, one in enumerate(found_by) if one[0] != "<"}
    named = dict(zip(("message_id", "about"), (one for one in found_by if one[0] == "<"), strict=False))
    return Traced(id, [TraceEvent(at, name, {"size": 7, "dkim": ["pass a", "fail b"], "absent": None} | leads | named)])


async def test_parts_of_a_life_come_together_in_their_order(traces: RedisTraces) -> None:
    await traces.append([part(found_by=("bob@sender.example",)), part("m2", found_by=("bob@sender.example", "<1@x>"))])
    await traces.append([part(at=2.5, name="delivery.outcome")])
    life = await traces.read("m1")
    assert life is not None
    assert [(one.at, one.name) for one in life.events] == [(1.0, "message.received"), (2.5, "delivery.outcome")]
    assert life.events[0].fields == {"size": 7, "dkim": ["pass a", "fail b"], "to0": BOB}
    assert life.dropped == 0
    assert sorted(await traces.find("bob@sender.example")) == ["m1", "m2"]
    assert await traces.find("<1@x>") == ["m2"]
    assert await traces.find("nobody@x.example") == []
    assert await traces.read("m3") is None


async def test_the_latest_are_found_first_and_no_index_grows_without_end(
    traces: RedisTraces, client: StoreClient
) -> None:
    names = [f"m{n:015}" for n in range(1000)]
    for first in range(0, len(names), 100):
        await traces.append([part(one, found_by=("a@x.example",)) for one in names[first : first + 100]])
    found = await traces.find("a@x.example")
    assert found == names[: -len(found) - 1 : -1]
    (key,) = [one for one in await client.command("KEYS", "*") if b":i:" in one]
    assert 2000 < await client.command("STRLEN", key) <= INDEX_OCTETS


async def test_a_message_is_found_once_by_what_it_was_kept_under_twice(traces: RedisTraces) -> None:
    await traces.append([part(found_by=("a@x.example",))])
    await traces.append([part("m2", found_by=("a@x.example",))])
    await traces.append([part(found_by=("a@x.example",))])
    assert await traces.find("a@x.example") == ["m1", "m2"]


async def test_a_life_keeps_its_latest_groups(traces: RedisTraces) -> None:
    for number in range(MAX_GROUPS + 5):
        await traces.append([part(at=float(number))])
    life = await traces.read("m1")
    assert life is not None
    assert [life.events[0].at, life.events[-1].at, len(life.events)] == [5.0, MAX_GROUPS + 4.0, MAX_GROUPS]


async def test_every_key_ends_and_no_name_holds_an_address(traces: RedisTraces, client: StoreClient) -> None:
    await traces.append([part(found_by=("bob@sender.example",))])
    keys = await client.command("KEYS", "*")
    ours = [one for one in keys if b":l:" in one or b":i:" in one]
    assert len(ours) == 2
    assert not any(b"sender" in one for one in keys)
    assert all([0 < await client.command("TTL", one) <= 3600 for one in ours])


async def test_what_is_far_too_long_is_missing_and_said_to_be(traces: RedisTraces) -> None:
    await traces.append([Traced("m1", [TraceEvent(1.0, "x", {"text": "x" * 40_000})])])
    life = await traces.read("m1")
    assert life is not None
    assert (life.events, life.dropped) == ([], 1)


async def test_a_damaged_group_is_missing_and_said_to_be(
    traces: RedisTraces, client: StoreClient, journal: MemoryJournal
) -> None:
    await traces.append([part()])
    (key,) = [one for one in await client.command("KEYS", "*") if b":l:" in one]
    value = bytearray((await client.command("LRANGE", key, 0, 0))[0])
    value[-3] ^= 1
    await client.command("LSET", key, 0, bytes(value))
    await traces.append([part(at=9.0)])
    life = await traces.read("m1")
    assert life is not None
    assert ([one.at for one in life.events], life.dropped) == ([9.0], 1)
    assert journal.named("store_value_unreadable") == [{"kind": "trace"}]


async def test_what_cannot_be_written_down_is_missing_and_costs_the_others_nothing(traces: RedisTraces) -> None:
    await traces.append([Traced("m1", [TraceEvent(1.0, "x", {"text": "half a \ud800"})]), part("m2")])
    life = await traces.read("m1")
    assert life is not None
    assert (life.events, life.dropped) == ([], 1)
    assert await traces.read("m2") is not None


async def test_a_list_leaves_nothing_out_and_is_found_by_what_is_named_alone_first(traces: RedisTraces) -> None:
    destinations = [[Address(f"r{event}.{number}", "sink.example") for number in range(50)] for event in range(200)]
    events = [
        TraceEvent(float(at), "queue.outcome", {"destinations": each, "alias": Address("list", "fwd.example")})
        for at, each in enumerate(destinations)
    ]
    await traces.append([Traced("m1", events)])
    life = await traces.read("m1")
    assert life is not None
    assert [one.fields["destinations"] for one in life.events] == destinations
    assert life.dropped == 0
    assert await traces.find("list@fwd.example") == await traces.find("r0.0@sink.example") == ["m1"]
