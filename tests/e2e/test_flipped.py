"""What if octets in the store are not what was written? A miss, and never an exception or mail to somebody else.

Kind by kind: one octet of each of its values is another, then mail, a bounce and what waits go on.
"""

from __future__ import annotations

from pathlib import Path

from forwarder.ports import StoreAway
from forwarder.store.client import StoreClient
from tests.e2e.lab import MESSAGE, Lab, lab, store_of
from tests.waiting import until

EXTRA = '[domains."held.test"]\nhold = "always"\n[domains."held.test".aliases]\nalias = ["one@away.test"]\n'
#: What the story leaves in the store at least: whatever else it comes to leave is tried too.
KINDS = {b"birth", b"c", b"f", b"m", b"qa", b"qb", b"qd", b"qi", b"qn", b"qw", b"s", b"salt", b"t"}
#: Nobody is there.
ZONE = {"away.test": {"MX": ["10 mx.away.test"]}, "mx.away.test": {"A": ["127.0.0.51"]}}
LONG = "bob.with.a.very.long.local.part.that.fits.nowhere@sender.test"


def flipped(value: bytes) -> bytes:
    at = len(value) // 2
    return value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]


async def flip(store: StoreClient, key: bytes) -> None:
    match await store.command("TYPE", key):
        case b"string":
            value = await store.command("GET", key)
            if value:
                await store.command("SET", key, flipped(value), "KEEPTTL")
        case b"hash":
            found = await store.command("HGETALL", key)
            for field, value in zip(found[::2], found[1::2], strict=True):
                if value:
                    await store.command("HSET", key, field, flipped(value))
        case b"set":
            for member in await store.command("SMEMBERS", key):
                await store.command("SREM", key, member)
                await store.command("SADD", key, flipped(member))
        case b"zset":
            for member in await store.command("ZRANGE", key, 0, -1):
                score = await store.command("ZSCORE", key, member)
                await store.command("ZREM", key, member)
                await store.command("ZADD", key, score, flipped(member))
        case b"list":
            for index, value in enumerate(await store.command("LRANGE", key, 0, -1)):
                await store.command("LSET", key, index, flipped(value))
        case other:
            raise AssertionError(other)


async def story(it: Lab, number: int) -> set[str]:
    """The codes that were heard. One in session, its bounce, one by an opaque address, one that waits."""

    def mail(name: bytes) -> bytes:
        return MESSAGE.replace(b"<one@", b"<%b%d@" % (name, number))

    heard = {(await it.send(it.signed(mail(b"n"))))[:3]}
    if not it.sink.waiting.empty():
        arrived = await it.next(it.sink)
        heard.add((await it.bounce(arrived))[:3])
    heard.add((await it.send(it.signed(mail(b"l"), sender=LONG), sender=LONG))[:3])
    held = it.signed(mail(b"h"), recipients=("alias@held.test",))
    heard.add((await it.send(held, recipient="alias@held.test"))[:3])
    assert it.app.standings is not None
    await it.app.standings.refresh()
    it.app.wake_queue()
    return heard


async def test_a_flipped_octet_of_any_kind_is_a_miss(tmp_path: Path) -> None:
    async with lab(tmp_path, extra=EXTRA, zone=ZONE) as it, store_of(it) as store:
        assert await story(it, 0) == {"250"}
        await until(lambda: it.events("queue.outcome"))
        kinds = sorted({one.split(b":")[1] for one in await store.command("KEYS", "{fwd0}:*")})
        assert set(kinds) >= KINDS
        for number, kind in enumerate(kinds, 1):
            for key in await store.command("KEYS", b"{fwd0}:" + kind + b"*"):
                if key.split(b":")[1] == kind:
                    await flip(store, key)
            try:
                heard = await story(it, number)
            except StoreAway as away:
                raise AssertionError((kind, away)) from away
            assert heard <= {"250", "451", "550"}, (kind, heard)
            assert not it.events("fault"), (kind, it.events("fault"))
            assert not it.events("store_refused"), (kind, it.events("store_refused"))
        for receiver, names in ((it.sink, {"hidden.destination@sink.test"}), (it.sender, {"bob@sender.test", LONG})):
            while not receiver.waiting.empty():
                arrived = receiver.waiting.get_nowait()
                assert set(arrived.recipients) <= names, arrived.recipients
        assert {one["kind"] for one in it.events("store_value_unreadable")} >= {"forward", "standing"}
