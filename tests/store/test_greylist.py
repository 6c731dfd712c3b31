"""The contract of ports.Greylist, on every server that we support."""

from __future__ import annotations

import asyncio

import pytest

from forwarder.model import Address
from forwarder.ports import ComeBack
from forwarder.store.client import StoreClient
from forwarder.store.greylist import RedisGreylist
from forwarder.store.ledger import RedisLedger
from tests.fakes import MemoryJournal

BOB, ALIAS, OTHER = Address("bob", "sender.test"), Address("alias", "fwd.test"), Address("other", "fwd.test")
NETWORK, ELSEWHERE = "192.0.2.0/24", "198.51.100.0/24"
LONG = ComeBack(300, 86400, 1000)
SHORT = ComeBack(0.2, 60, 1000)


@pytest.fixture
def greylist(ours: StoreClient, journal: MemoryJournal) -> RedisGreylist:
    return RedisGreylist(ours, RedisLedger(ours, journal=journal))


async def passes(greylist: RedisGreylist, *aliases: Address, network: str = NETWORK) -> None:
    """Come back until it is taken."""
    for _ in range(100):
        if not await greylist.wait(network, BOB, aliases, SHORT):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it is never taken")


async def test_who_comes_back_too_early_waits_for_what_is_left(greylist: RedisGreylist) -> None:
    assert await greylist.wait(NETWORK, BOB, [ALIAS], LONG) == 300
    assert 290 < await greylist.wait(NETWORK, Address("BOB", "sender.test"), [ALIAS], LONG) < 300


async def test_who_comes_back_in_time_is_known_by_its_network_from_then_on(
    greylist: RedisGreylist, client: StoreClient
) -> None:
    await passes(greylist, ALIAS)
    assert await greylist.wait(NETWORK, None, [OTHER], LONG) == 0
    assert await greylist.wait(ELSEWHERE, BOB, [ALIAS], LONG) == 300
    (known,) = [one for one in await client.command("KEYS", "*") if one.startswith(b"{fwd0}:k:")]
    assert 990 < await client.command("TTL", known) <= 1000


async def test_every_recipient_must_have_been_offered(greylist: RedisGreylist) -> None:
    assert await greylist.wait(NETWORK, BOB, [ALIAS], SHORT) > 0
    assert await greylist.wait(NETWORK, BOB, [ALIAS, OTHER, ALIAS], LONG) == 300
    await passes(greylist, ALIAS, OTHER)


async def test_another_sender_is_another_message(greylist: RedisGreylist) -> None:
    await greylist.wait(NETWORK, BOB, [ALIAS], LONG)
    for sender in (None, Address("eve", "sender.test")):
        assert await greylist.wait(NETWORK, sender, [ALIAS], LONG) == 300


async def test_what_is_there_ends_and_names_nobody(greylist: RedisGreylist, client: StoreClient) -> None:
    await greylist.wait(NETWORK, BOB, [ALIAS], LONG)
    (key,) = [one for one in await client.command("KEYS", "*") if one.startswith(b"{fwd0}:h:")]
    assert b"bob" not in key
    assert 86390 < await client.command("TTL", key) <= 86400


@pytest.mark.parametrize("value", [b"", b"junk", b"\x01", b"\x0199999999999999999", b"\x01" + b"9" * 400])
async def test_what_is_damaged_is_as_if_it_had_not_been_there(
    greylist: RedisGreylist, client: StoreClient, value: bytes
) -> None:
    await greylist.wait(NETWORK, BOB, [ALIAS], LONG)
    (key,) = [one for one in await client.command("KEYS", "*") if one.startswith(b"{fwd0}:h:")]
    await client.command("SET", key, value)
    assert await greylist.wait(NETWORK, BOB, [ALIAS], LONG) == 300
    assert await greylist.wait(NETWORK, BOB, [ALIAS], LONG) < 300
    await client.command("DEL", key)
    await client.command("RPUSH", key, b"x")
    assert await greylist.wait(NETWORK, BOB, [ALIAS], LONG) == 300


async def test_all_at_once_count_as_the_first(greylist: RedisGreylist) -> None:
    waits = await asyncio.gather(*(greylist.wait(NETWORK, BOB, [ALIAS], LONG) for _ in range(50)))
    assert max(waits) == 300
    assert min(waits) > 290
