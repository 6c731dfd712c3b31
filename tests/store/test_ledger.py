"""The contract of ports.Ledger, on every server that we support."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from forwarder.model import Address
from forwarder.ports import Claim, Forwarded
from forwarder.store import ledger as module
from forwarder.store.client import StoreClient
from forwarder.store.ledger import DELIVERED_FOR, FORWARD_FOR, MAX_DESTINATIONS, TOKEN_FOR, RedisLedger
from forwarder.store.server import EmbeddedStore
from tests.fakes import MemoryJournal
from tests.store.servers import BOUND

A, B, C = (hashlib.sha256(one).digest() for one in (b"a", b"b", b"c"))
REVERSIBLE = Address("SRS0=hhhh=tt=sender.example=bob", "fwd.test")
BOB = Address("bob", "sender.example")
DEST = Address("dest", "sink.test")
OTHER = Address("other", "two.test")
FORWARDED = Forwarded(
    reversible=REVERSIBLE,
    sender=BOB,
    alias=Address("alias", "fwd.test"),
    destination=DEST,
    message_id="<1@sender.example>",
    envelope_id="E1",
    at=datetime(2026, 11, 23, 12, 30, 0, 123456, tzinfo=UTC),
)


@pytest.fixture
def ledger(ours: StoreClient, journal: MemoryJournal) -> RedisLedger:
    return RedisLedger(ours, journal=journal)


@pytest.fixture
async def neighbour(server: EmbeddedStore, journal: MemoryJournal) -> AsyncIterator[RedisLedger]:
    """The ledger of another worker."""
    client = StoreClient(server.url, journal=journal, timeout=BOUND)
    yield RedisLedger(client, journal=journal)
    await client.close()


async def keys(client: StoreClient) -> list[bytes]:
    return sorted(await client.command("KEYS", "*"))


# --- claim and settle ---


async def test_what_was_never_seen_is_fresh(ledger: RedisLedger) -> None:
    assert await ledger.claim([A, B], "one") == [Claim.FRESH, Claim.FRESH]


async def test_what_another_attempt_has_claimed_is_busy(ledger: RedisLedger, neighbour: RedisLedger) -> None:
    await ledger.claim([A], "one")
    assert await neighbour.claim([A, B], "two") == [Claim.BUSY, Claim.FRESH]


async def test_the_same_attempt_may_ask_again(ledger: RedisLedger) -> None:
    await ledger.claim([A], "one")
    assert await ledger.claim([A], "one") == [Claim.FRESH]


async def test_what_was_delivered_stays_delivered_for_every_attempt(
    ledger: RedisLedger, neighbour: RedisLedger
) -> None:
    await ledger.claim([A, B], "one")
    await ledger.settle("one", [A], [B], [])
    assert await neighbour.claim([A, B], "two") == [Claim.DELIVERED, Claim.FRESH]
    assert await ledger.claim([A], "one") == [Claim.DELIVERED]


async def test_nobody_gives_back_what_another_attempt_has(ledger: RedisLedger) -> None:
    await ledger.claim([A], "one")
    await ledger.settle("two", [], [A], [])
    assert await ledger.claim([A], "three") == [Claim.BUSY]


async def test_a_delivered_mark_is_never_given_back(ledger: RedisLedger) -> None:
    await ledger.claim([A], "one")
    await ledger.settle("one", [A], [], [])
    await ledger.settle("one", [], [A], [])
    assert await ledger.claim([A], "two") == [Claim.DELIVERED]


async def test_delivered_counts_even_after_the_lease_ran_out(ledger: RedisLedger, client: StoreClient) -> None:
    await ledger.claim([A], "one")
    await client.command("DEL", *[one for one in await keys(client) if b":c:" in one])
    await ledger.settle("one", [A], [], [])
    assert await ledger.claim([A], "two") == [Claim.DELIVERED]


async def test_settling_twice_changes_nothing(ledger: RedisLedger, client: StoreClient) -> None:
    await ledger.claim([A, B], "one")
    await ledger.settle("one", [A], [B], [FORWARDED])
    before = await keys(client)
    await ledger.settle("one", [A], [B], [FORWARDED])
    assert await keys(client) == before


async def test_of_many_at_once_one_gets_the_claim(ledger: RedisLedger, neighbour: RedisLedger) -> None:
    answers = await asyncio.gather(
        *(one.claim([A], f"{name}{number}") for number in range(40) for name, one in [("l", ledger), ("n", neighbour)])
    )
    assert sorted(str(one[0].value) for one in answers) == ["busy"] * 79 + ["fresh"]


async def test_a_claim_ends_with_its_lease_and_who_takes_it_over_is_on_record(
    ledger: RedisLedger, client: StoreClient, journal: MemoryJournal
) -> None:
    await ledger.claim([A], "one")
    [claim] = [one for one in await keys(client) if b":c:" in one]
    mark = await client.command("GET", claim)
    assert 0 < await client.command("TTL", claim) <= DELIVERED_FOR == 48 * 3600
    await client.command("SET", claim, mark[:2] + b"0" * 13 + mark[15:])
    assert await ledger.claim([A], "two") == [Claim.FRESH]
    assert journal.named("claim.taken_over") == [{"id": "two", "destinations": 1, "maybe_dup": True}]
    assert await ledger.claim([A], "three") == [Claim.BUSY]
    await ledger.settle("one", [], [A], [])
    assert await ledger.claim([A], "three") == [Claim.BUSY]


async def test_to_claim_again_renews_the_lease(ledger: RedisLedger, client: StoreClient) -> None:
    await ledger.claim([A], "one")
    [claim] = [one for one in await keys(client) if b":c:" in one]
    mark = await client.command("GET", claim)
    await client.command("SET", claim, mark[:2] + b"0" * 13 + mark[15:])
    assert await ledger.claim([A], "one") == [Claim.FRESH]
    assert await ledger.claim([A], "two") == [Claim.BUSY]


@pytest.mark.parametrize("many", [1, 100])
async def test_claim_and_settle_are_one_command_each_however_many(
    ledger: RedisLedger, client: StoreClient, many: int
) -> None:
    fingerprints = [hashlib.sha256(b"%d" % one).digest() for one in range(many)]
    forwards = [replace(FORWARDED, destination=Address(f"d{one}", "sink.test")) for one in range(many)]
    await ledger.claim(fingerprints, "zero")
    await ledger.settle("zero", [], fingerprints, forwards)
    await client.command("CONFIG", "RESETSTAT")
    await ledger.claim(fingerprints, "one")
    await ledger.settle("one", fingerprints, [], forwards)
    stats = (await client.command("INFO", "commandstats")).decode()
    assert re.search(r"cmdstat_evalsha:calls=(\d+)", stats)[1] == "2"  # type: ignore[index]
    assert "cmdstat_eval:" not in stats


async def test_nothing_to_ask_costs_no_command(ledger: RedisLedger, client: StoreClient) -> None:
    assert await ledger.claim([], "one") == []
    await ledger.settle("one", [], [], [])
    assert await keys(client) == []


async def test_what_a_bounce_is_matched_against_lies_packed(ledger: RedisLedger, client: StoreClient) -> None:
    """It is kept for ten days, and every message leaves one."""
    await ledger.settle("one", [A], [], [FORWARDED])
    [name] = [one for one in await keys(client) if one.startswith(b"{fwd0}:m:")]
    assert await client.command("OBJECT", "ENCODING", name) == b"listpack"


# --- what is under way at another host ---


@pytest.fixture
def host(client: StoreClient, journal: MemoryJournal) -> RedisLedger:
    return RedisLedger(client, journal=journal, lease=30, shared=True)


async def test_other_hosts_see_what_is_under_way_for_as_long_as_the_lease(
    host: RedisLedger, client: StoreClient
) -> None:
    about = (REVERSIBLE, "<1@sender.example>")
    assert not await host.is_begun(about)
    await host.claim([A], "one", begun=[about])
    assert await host.is_begun(about)
    assert await host.is_begun((Address(REVERSIBLE.local.upper(), "FWD.test"), "<1@sender.example>"))
    assert not await host.is_begun((REVERSIBLE, "<2@sender.example>"))
    assert not await host.is_begun((REVERSIBLE, None))
    [mark] = [one for one in await keys(client) if one.startswith(b"{fwd0}:e:")]
    assert 0 < await client.command("TTL", mark) <= 30
    await client.command("EXPIRE", mark, 5)
    await host.claim([A], "one", begun=[about])
    assert await client.command("TTL", mark) > 5, "who still works claims again"


async def test_what_another_has_is_not_told_and_without_a_message_id_it_is(host: RedisLedger) -> None:
    await host.claim([A], "one")
    await host.settle("one", [A], [], [])
    await host.claim([B], "one")
    assert await host.claim([A, B], "two", begun=[(REVERSIBLE, "<1@sender.example>")]) == [Claim.DELIVERED, Claim.BUSY]
    assert not await host.is_begun((REVERSIBLE, "<1@sender.example>"))
    await host.claim([C], "two", begun=[(REVERSIBLE, None)])
    # All mail without a Message-ID would share one mark.
    assert not await host.is_begun((REVERSIBLE, None))


async def test_on_a_store_of_one_host_nothing_is_told(ledger: RedisLedger, client: StoreClient) -> None:
    about = (REVERSIBLE, "<1@sender.example>")
    await ledger.claim([A], "one", begun=[about])
    assert not await ledger.is_begun(about)
    assert not [one for one in await keys(client) if one.startswith(b"{fwd0}:e:")]


# --- find_forward ---


async def test_a_forward_is_found_by_message_and_destination(ledger: RedisLedger) -> None:
    later = replace(FORWARDED, message_id="<2@sender.example>", envelope_id="E2")
    await ledger.settle("one", [], [], [FORWARDED, later])
    assert await ledger.find_forward(REVERSIBLE, "<1@sender.example>", [OTHER, DEST]) == FORWARDED


async def test_a_forward_is_found_by_its_destination_when_the_message_is_not_known(ledger: RedisLedger) -> None:
    later = replace(FORWARDED, message_id="<2@sender.example>", envelope_id="E2")
    await ledger.settle("one", [], [], [FORWARDED])
    await ledger.settle("two", [], [], [later])
    assert await ledger.find_forward(REVERSIBLE, None, [DEST]) == later
    assert await ledger.find_forward(REVERSIBLE, "<9@else.example>", [DEST]) == later


async def test_of_several_that_had_a_message_the_alias_tells_which_where_it_was_sent_on(ledger: RedisLedger) -> None:
    second = replace(FORWARDED, alias=Address("team", "fwd.test"), destination=OTHER)
    await ledger.settle("one", [], [], [FORWARDED, second])
    asked = [Address("Team", "fwd.test"), Address("moved", "three.test")]
    assert await ledger.find_forward(REVERSIBLE, "<1@sender.example>", asked) == second
    assert await ledger.find_forward(REVERSIBLE, "<1@sender.example>", asked[1:]) is None


async def test_a_forward_is_found_by_its_message_alone_when_only_one_destination_had_it(ledger: RedisLedger) -> None:
    await ledger.settle("one", [], [], [FORWARDED])
    assert await ledger.find_forward(REVERSIBLE, "<1@sender.example>", []) == FORWARDED
    assert await ledger.find_forward(REVERSIBLE, "<1@sender.example>", [Address("moved", "three.test")]) == FORWARDED


async def test_a_message_alone_is_ambiguous_when_two_destinations_had_it(ledger: RedisLedger) -> None:
    await ledger.settle("one", [], [], [FORWARDED, replace(FORWARDED, destination=OTHER)])
    assert await ledger.find_forward(REVERSIBLE, "<1@sender.example>", []) is None
    found = await ledger.find_forward(REVERSIBLE, "<1@sender.example>", [OTHER])
    assert found is not None
    assert found.destination == OTHER


async def test_another_reversible_address_finds_nothing(ledger: RedisLedger) -> None:
    await ledger.settle("one", [], [], [FORWARDED])
    stranger = Address("SRS0=gggg=tt=else.example=eve", "fwd.test")
    assert await ledger.find_forward(stranger, "<1@sender.example>", [DEST]) is None


async def test_addresses_are_matched_in_any_case(ledger: RedisLedger) -> None:
    await ledger.settle("one", [], [], [FORWARDED])
    folded = Address(REVERSIBLE.local.lower(), "fwd.test")
    found = await ledger.find_forward(folded, None, [Address("DEST", "sink.test")])
    assert found == replace(FORWARDED, reversible=folded)


async def test_without_message_and_destination_nothing_is_found(ledger: RedisLedger) -> None:
    await ledger.settle("one", [], [], [FORWARDED])
    assert await ledger.find_forward(REVERSIBLE, None, []) is None
    assert await ledger.find_forward(REVERSIBLE, "", []) is None


async def test_a_forward_without_a_message_id_is_found_by_its_destination(ledger: RedisLedger) -> None:
    one = replace(FORWARDED, message_id=None)
    await ledger.settle("one", [], [], [one])
    assert await ledger.find_forward(REVERSIBLE, "<1@sender.example>", [DEST]) == one


async def test_an_endless_message_id_is_not_kept(ledger: RedisLedger) -> None:
    endless = replace(FORWARDED, message_id="<" + "x" * 5000 + "@sender.example>")
    await ledger.settle("one", [], [], [endless])
    assert await ledger.find_forward(REVERSIBLE, endless.message_id, [DEST]) == replace(endless, message_id=None)


async def test_a_message_to_very_many_is_remembered_up_to_a_bound_and_beyond_it_by_destination(
    ledger: RedisLedger, client: StoreClient
) -> None:
    many = [replace(FORWARDED, destination=Address(f"d{one}", "sink.test")) for one in range(MAX_DESTINATIONS + 20)]
    await ledger.settle("one", [], [], many)
    [message] = [one for one in await keys(client) if b":m:" in one]
    assert await client.command("HLEN", message) == MAX_DESTINATIONS
    assert await ledger.find_forward(REVERSIBLE, "<1@sender.example>", [many[-1].destination]) == many[-1]


async def test_a_report_that_names_thousands_of_destinations_is_answered(ledger: RedisLedger) -> None:
    await ledger.settle("one", [], [], [FORWARDED])
    thousands = [Address(f"d{one}", "sink.test") for one in range(10_000)]
    assert await ledger.find_forward(REVERSIBLE, None, thousands) is None
    assert await ledger.find_forward(REVERSIBLE, None, [DEST, *thousands]) == FORWARDED


# --- tokens ---


async def test_a_token_stands_for_its_sender_in_any_case(ledger: RedisLedger, neighbour: RedisLedger) -> None:
    await ledger.put_token("k7q2abcdefgh", BOB)
    await ledger.put_token("k7q2abcdefgh", BOB)
    assert await neighbour.look_up_token("K7Q2ABCDEFGH") == BOB


async def test_an_unknown_token_stands_for_nobody(ledger: RedisLedger) -> None:
    assert await ledger.look_up_token("unknown") is None


async def test_a_token_that_is_used_lives_on(ledger: RedisLedger, client: StoreClient) -> None:
    await ledger.put_token("k7q2", BOB)
    [token] = [one for one in await keys(client) if b":t:" in one]
    assert await client.command("TTL", token) == TOKEN_FOR == 40 * 86400
    await client.command("EXPIRE", token, 100)
    await ledger.look_up_token("k7q2")
    assert await client.command("TTL", token) == TOKEN_FOR


# --- budgets ---


async def test_ten_reports_of_a_message_pass_and_no_more(ledger: RedisLedger) -> None:
    assert [await ledger.spend_bounce(REVERSIBLE, "<1@x>") for _ in range(12)] == [True] * 10 + [False] * 2
    assert await ledger.spend_bounce(REVERSIBLE, "<2@x>") is True


async def test_the_days_budget_covers_all_messages_of_an_address(client: StoreClient, journal: MemoryJournal) -> None:
    ledger = RedisLedger(client, journal=journal, per_message=2, per_day=3)
    spent = [await ledger.spend_bounce(REVERSIBLE, name) for name in ("<1@x>", "<2@x>", None, None, "<3@x>")]
    assert spent == [True, True, True, False, False]
    assert await ledger.spend_bounce(Address("SRS0=other", "fwd.test"), None) is True


async def test_a_refused_report_costs_nothing(client: StoreClient, journal: MemoryJournal) -> None:
    ledger = RedisLedger(client, journal=journal, per_message=1, per_day=2)
    for _ in range(5):
        await ledger.spend_bounce(REVERSIBLE, "<1@x>")
    assert await ledger.spend_bounce(REVERSIBLE, "<2@x>") is True


async def test_a_refund_gives_back_one_and_never_more_than_was_spent(
    client: StoreClient, journal: MemoryJournal
) -> None:
    ledger = RedisLedger(client, journal=journal, per_message=2)
    for _ in range(3):
        await ledger.refund_bounce(REVERSIBLE, "<1@x>")
    assert [await ledger.spend_bounce(REVERSIBLE, "<1@x>") for _ in range(3)] == [True, True, False]
    await ledger.refund_bounce(REVERSIBLE, "<1@x>")
    assert [await ledger.spend_bounce(REVERSIBLE, "<1@x>") for _ in range(2)] == [True, False]


async def test_a_budget_begins_anew_after_a_day(ledger: RedisLedger, client: StoreClient) -> None:
    await ledger.spend_bounce(REVERSIBLE, None)
    [budget] = [one for one in await keys(client) if b":b:" in one]
    await client.command("EXPIRE", budget, 500)
    await ledger.spend_bounce(REVERSIBLE, None)
    await ledger.refund_bounce(REVERSIBLE, None)
    assert await client.command("TTL", budget) == 500


# --- what lies in the store ---


async def fill(ledger: RedisLedger) -> None:
    await ledger.claim([A, B], "one")
    await ledger.settle("one", [A], [], [FORWARDED])
    await ledger.put_token("secrettoken", BOB)
    await ledger.spend_bounce(REVERSIBLE, "<1@sender.example>")


async def test_every_key_expires_has_the_hash_tag_and_names_nobody(ledger: RedisLedger, client: StoreClient) -> None:
    await fill(ledger)
    names = await keys(client)
    assert len({name.split(b":")[1] for name in names}) == 7
    for name in names:
        assert re.fullmatch(rb"\{fwd0\}:(salt|birth|[a-z]:[A-Za-z0-9+/]{24})", name)
        assert 0 < await client.command("TTL", name) <= 400 * 86400


async def test_forwards_are_kept_as_long_as_asked(client: StoreClient, journal: MemoryJournal) -> None:
    assert FORWARD_FOR == 10 * 86400
    await RedisLedger(client, journal=journal, forward_for=1234).settle("one", [], [], [FORWARDED])
    kept = [await client.command("TTL", one) for one in await keys(client) if b":m:" in one or b":f:" in one]
    assert kept == [1234, 1234]


async def use(ledger: RedisLedger) -> None:
    """Ask everything: the answer is the truth or a miss, and never an exception."""
    assert (await ledger.claim([A], "two"))[0] in (Claim.DELIVERED, Claim.FRESH, Claim.BUSY)
    assert (await ledger.claim([B], "two"))[0] in (Claim.BUSY, Claim.FRESH)
    assert await ledger.find_forward(REVERSIBLE, "<1@sender.example>", [DEST]) in (None, FORWARDED)
    assert await ledger.find_forward(REVERSIBLE, None, [DEST]) in (None, FORWARDED)
    assert await ledger.look_up_token("secrettoken") in (None, BOB)
    assert isinstance(await ledger.spend_bounce(REVERSIBLE, "<1@sender.example>"), bool)
    await ledger.refund_bounce(REVERSIBLE, "<1@sender.example>")
    await ledger.settle("two", [], [A, B], [])


async def test_a_flipped_bit_anywhere_is_a_miss(ledger: RedisLedger, client: StoreClient) -> None:
    await fill(ledger)
    whole = {name: await client.command("DUMP", name) for name in await keys(client)}
    for name in whole:
        if b":m:" in name:
            [field, value] = await client.command("HGETALL", name)
            write: tuple[str | bytes, ...] = ("HSET", name, field)
        else:
            value = await client.command("GET", name)
            write = ("SET", name)
        for place in range(len(value)):
            broken = bytearray(value)
            broken[place] ^= 1 << (place % 8)
            await client.command(*write, bytes(broken))
            await use(ledger)
            await asyncio.gather(
                *(client.command("RESTORE", one, 100_000, content, "REPLACE") for one, content in whole.items())
            )


@pytest.mark.parametrize(
    "rubbish", [b"", b"\x01", b"\x01D!", b"\x01P", b"\x02D", b"{}", b"\x01-5", b"\x011e9", b"\xff" * 99]
)
async def test_rubbish_in_any_key_is_a_miss_and_is_told(
    ledger: RedisLedger, client: StoreClient, journal: MemoryJournal, rubbish: bytes
) -> None:
    await fill(ledger)
    for name in await keys(client):
        if b":m:" in name:
            [field, _] = await client.command("HGETALL", name)
            await client.command("HSET", name, field, rubbish)
        else:
            await client.command("SET", name, rubbish)
    assert await ledger.claim([A], "two") == [Claim.FRESH]
    assert await ledger.find_forward(REVERSIBLE, "<1@sender.example>", [DEST]) is None
    assert await ledger.look_up_token("secrettoken") is None
    assert await ledger.spend_bounce(REVERSIBLE, "<1@sender.example>") is True
    assert {one["kind"] for one in journal.named("store_value_unreadable")} == {"claim", "forward", "token", "budget"}


async def test_keys_of_the_wrong_type_are_a_miss_too(ledger: RedisLedger, client: StoreClient) -> None:
    await fill(ledger)
    for name in await keys(client):
        await client.command("DEL", name)
        await client.command("SADD", name, "what")
    assert await ledger.claim([A], "two") == [Claim.FRESH]
    assert await ledger.find_forward(REVERSIBLE, "<1@sender.example>", [DEST]) is None
    assert await ledger.spend_bounce(REVERSIBLE, "<1@sender.example>") is True
    await ledger.settle("two", [A], [], [FORWARDED])
    assert await ledger.find_forward(REVERSIBLE, "<1@sender.example>", [DEST]) == FORWARDED


async def test_workers_agree_on_the_salt(ledger: RedisLedger, neighbour: RedisLedger) -> None:
    await asyncio.gather(ledger.claim([A], "one"), neighbour.claim([B], "two"))
    assert await neighbour.claim([A], "three") == [Claim.BUSY]
    assert await ledger.claim([B], "four") == [Claim.BUSY]


@pytest.mark.parametrize("damage", ["FLUSHALL", "rubbish"])
async def test_after_the_store_was_wiped_workers_agree_again(
    ledger: RedisLedger,
    neighbour: RedisLedger,
    client: StoreClient,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    monkeypatch.setattr(module, "SALT_CHECK", 0.0)
    await ledger.claim([C], "zero")
    await client.command(*(["FLUSHALL"] if damage == "FLUSHALL" else ["SET", "{fwd0}:salt", "rubbish"]))
    await neighbour.claim([A], "one")
    assert await ledger.claim([A], "two") == [Claim.BUSY]
    assert await client.command("TTL", "{fwd0}:salt") > 0


@pytest.mark.parametrize("damage", ["FLUSHALL", "salt", "birth"])
async def test_since_when_the_store_remembers_is_told_and_begins_anew_with_what_it_holds(
    ledger: RedisLedger, client: StoreClient, damage: str
) -> None:
    today = datetime.now(UTC).date()
    assert await ledger.remembers_since() == today
    days = (today - date(1970, 1, 1)).days
    await client.command("SET", "{fwd0}:birth", b"\1%d" % (days - 30))
    assert await ledger.remembers_since() == today - timedelta(days=30)
    match damage:
        case "FLUSHALL":
            await client.command("FLUSHALL")
        case "salt":
            await client.command("SET", "{fwd0}:salt", "rubbish")
        case _:
            # Nobody knows: then whatever the store does not know may be older than it.
            await client.command("SET", "{fwd0}:birth", "rubbish")
            assert await ledger.remembers_since() == date.max
    assert await ledger.remembers_since() in (today, date.max)
    assert await ledger.remembers_since() == today
    assert await client.command("TTL", "{fwd0}:birth") > 0


# --- replays and notes ---


def many(start: int, stop: int) -> list[Address]:
    return [Address(f"r{one}", "fwd.test") for one in range(start, stop)]


async def test_a_signature_reaches_so_many_recipients_and_no_more(ledger: RedisLedger, neighbour: RedisLedger) -> None:
    assert await ledger.count_recipients(A, many(0, 2), most=3, seconds=60)
    assert await neighbour.count_recipients(A, many(2, 3), most=3, seconds=60)
    assert not await ledger.count_recipients(A, many(3, 4), most=3, seconds=60)
    assert await ledger.count_recipients(B, many(3, 4), most=3, seconds=60), "another signature"


async def test_a_retry_is_not_counted_again(ledger: RedisLedger) -> None:
    spelled = [Address("R0", "FWD.test"), *many(0, 3), *many(0, 3)]
    for _ in range(3):
        assert await ledger.count_recipients(A, spelled, most=3, seconds=60)
    assert not await ledger.count_recipients(A, many(3, 4), most=3, seconds=60)
    assert await ledger.count_recipients(A, many(0, 3), most=3, seconds=60), "who had it before the limit"


async def test_what_is_refused_takes_no_room(ledger: RedisLedger, client: StoreClient) -> None:
    await ledger.count_recipients(A, many(0, 2), most=3, seconds=60)
    for start in range(2, 500, 2):
        assert not await ledger.count_recipients(A, many(start, start + 2), most=3, seconds=60)
    [key] = [one for one in await keys(client) if b":r:" in one]
    assert await client.command("SCARD", key) == 2
    assert await ledger.count_recipients(A, many(2, 3), most=3, seconds=60)


async def test_the_count_of_a_signature_ends_with_it(ledger: RedisLedger, client: StoreClient) -> None:
    await ledger.count_recipients(A, many(0, 1), most=3, seconds=4242)
    [key] = [one for one in await keys(client) if b":r:" in one]
    assert await client.command("TTL", key) == 4242
    await ledger.count_recipients(A, many(0, 2), most=3, seconds=-5)
    assert await client.command("TTL", key) in (1, -2)


async def test_thousands_of_recipients_fit(ledger: RedisLedger) -> None:
    assert await ledger.count_recipients(A, many(0, 10000), most=10000, seconds=60)
    assert not await ledger.count_recipients(A, many(10000, 10001), most=10000, seconds=60)


async def test_a_damaged_count_begins_anew(ledger: RedisLedger, client: StoreClient, journal: MemoryJournal) -> None:
    await ledger.count_recipients(A, many(0, 1), most=1, seconds=60)
    [key] = [one for one in await keys(client) if b":r:" in one]
    await client.command("SET", key, b"nonsense")
    assert await ledger.count_recipients(A, many(1, 2), most=1, seconds=60)
    assert journal.named("store_value_unreadable") == [{"kind": "replay"}]
    assert not await ledger.count_recipients(A, many(2, 3), most=1, seconds=60)


async def test_a_domain_gets_one_note_a_day(ledger: RedisLedger, neighbour: RedisLedger, client: StoreClient) -> None:
    assert await ledger.take_note("sender.test")
    assert not await neighbour.take_note("SENDER.test")
    assert await ledger.take_note("other.test")
    assert all([await client.command("TTL", one) == 86400 for one in await keys(client) if b":n:" in one])


async def test_of_many_at_once_one_takes_the_note(ledger: RedisLedger, neighbour: RedisLedger) -> None:
    taken = await asyncio.gather(*(one.take_note("sender.test") for _ in range(40) for one in (ledger, neighbour)))
    assert taken.count(True) == 1


async def test_neither_recipients_nor_domains_can_be_read_in_the_store(
    ledger: RedisLedger, client: StoreClient
) -> None:
    await ledger.count_recipients(A, [Address("secretive", "fwd.test")], most=3, seconds=60)
    await ledger.take_note("secretive.test")
    for key in await keys(client):
        assert b"secretive" not in key
        if b":r:" in key:
            assert all(b"secretive" not in one for one in await client.command("SMEMBERS", key))
