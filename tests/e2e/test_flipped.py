"""What if octets in the store are not what was written? A miss, and never an exception or mail to somebody else.

For each kind of keys that the source names there is a story that leaves some of it in the store. One octet of each of its values,
and then of each of its names inside the key, is another; then the story goes on, and so do mail and what waits.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, Session
from aiosmtpd.smtp import Envelope as SmtpEnvelope

from forwarder.app import open_state
from forwarder.cli.demo_lab import SENDER, SINK, Received, Receiver
from forwarder.config import load
from forwarder.model import Address
from forwarder.ports import StoreAway, StsPolicy
from forwarder.store.client import StoreClient
from forwarder.store.ledger import RedisLedger
from forwarder.store.policies import RedisPolicies
from forwarder.store.queue import Carried, Do
from tests.e2e.lab import MESSAGE, Lab, bounce_of, lab, store_of
from tests.suites import ROOT
from tests.waiting import until

SLOW = "127.0.0.51"
RUNS = range(100)
LONG = "bob.with.a.very.long.local.part.that.fits.nowhere@sender.test"
CONFIG = """
[domains."held.test"]
hold = "always"
[domains."held.test".aliases]
slow = ["one@slow.test"]
gone = ["gone@slow.test"]
away = ["one@away.test"]
other = ["one@other.test"]
[mailkey]
replay_recipients = 100
[greylist]
enabled = true
delay = 0.01
[rates]
alias = 600
[queue.destinations."slow.test"]
per_minute = 60
"""
RELAY = "tls_reports = true"
ALIASES = "\n".join(
    f'{kind}{run} = {{targets = ["one@{domain}"], owner = "olga{kind}{run}@sender.test", bounces = {{hard = "digest"}}}}'
    for run in RUNS
    for kind, domain in (("x", f"x{run}.test"), ("y", f"y{run}.test"))
)
ZONE: dict[str, dict[str, list[str]]] = {
    "away.test": {"MX": ["10 mx.away.test"]},
    "mx.away.test": {"A": ["127.0.0.52"]},
    "slow.test": {"MX": ["10 mx.slow.test"]},
    "mx.slow.test": {"A": [SLOW]},
    "other.test": {"MX": ["10 mx.sink.test"]},
    # It has no mailkey, and is told how to get one.
    "plain.test": {"MX": ["10 mx.sender.test"], "TXT": [f"v=spf1 ip4:{SENDER} -all"]},
    # Its mail is refused for what it says of itself.
    "strict.test": {"MX": ["10 mx.sender.test"], "TXT": [f"v=spf1 ip4:{SENDER} -all"]},
    "_dmarc.strict.test": {"TXT": ["v=DMARC1; p=reject"]},
    # Nobody vouches for it.
    "nobody.test": {"MX": ["10 mx.sender.test"]},
}
for _run in RUNS:
    for _domain in (f"x{_run}.test", f"y{_run}.test"):
        # Hosts of their own: a connection that is there already is no session more.
        ZONE[_domain] = {"MX": [f"10 mx.{_domain}"]}
        ZONE[f"mx.{_domain}"] = {"A": [SINK]}
        ZONE[f"_smtp._tls.{_domain}"] = {"TXT": ["v=TLSRPTv1; rua=mailto:tls@sender.test"]}
    ZONE[f"_mta-sts.x{_run}.test"] = {"TXT": ["v=STSv1; id=1"]}


# --- which kinds there are --------------------------------------------------------------------------------------------


def kinds_of_the_source() -> set[str]:
    """As the package names them: by ``Names.key``, behind the hash tag, and in scripts."""
    store = ROOT / "forwarder" / "store"
    found: set[str] = set()
    for path in store.glob("*.py"):
        text = path.read_text()
        found |= set(re.findall(r"\.key\(\s*b\"([a-z]+)\"", text))
        found |= set(re.findall(r"HASH_TAG \+ b\":([a-z]+)", text))
        found |= {one.strip(":") for one in re.findall(r"b\"(:q[a-z]:)\"", text)}
        assert len(re.findall(r"\.key\(", text)) == len(re.findall(r"\.key\(\s*b\"[a-z]+\"", text)), path
    for path in (store / "scripts").glob("*.lua"):
        found |= set(re.findall(r"tag \.\. ':([a-z]+)", path.read_text()))
    return found


# --- mail, and who may get it -----------------------------------------------------------------------------------------


def mark(address: str) -> str:
    """Stands for it where its name would be taken out."""
    return sha256(address.encode()).hexdigest()[:12]


class Slow(Receiver):
    """Takes a message when it may, and never one for ``gone``."""

    may: asyncio.Event
    asked: int = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: SmtpEnvelope) -> str:
        self.asked += 1
        await self.may.wait()
        if envelope.rcpt_tos[0].startswith("gone"):
            return "550 5.1.1 nobody of that name"
        return await super().handle_DATA(server, session, envelope)


@dataclass
class Town:
    """The lab, its store, and a destination more. ``run``: a number that no other story has."""

    it: Lab
    store: StoreClient
    slow: Slow
    run: int = 0
    signed: dict[tuple[int, str, str], bytes] = field(default_factory=dict)

    def mail(self, sender: str, to: str, what: str = "") -> bytes:
        """It says where it comes from and where it must go."""
        subject = f"Subject: from {mark(sender)} to {mark(to)}".encode()
        raw = MESSAGE.replace(b"<one@", b"<%d%b@" % (self.run, what.encode()))
        return raw.replace(b"Subject: hello", subject).replace(b"bob@sender.test", sender.encode(), 1)

    async def send(
        self, to: str, what: str = "", *, sender: str = "bob@sender.test", alias: str = "alias@fwd.test"
    ) -> str:
        """Signed by the sender's domain, if that is sender.test; twice the same octets. The code."""
        known = (self.run, to, what)
        if known not in self.signed:
            raw = self.mail(sender, to, what)
            self.signed[known] = self.it.signed(raw, sender, (alias,)) if sender.endswith("@sender.test") else raw
        return (await self.it.send(self.signed[known], sender, alias))[:3]

    async def arrived(self) -> Received | None:
        """The next at the destination; ``None``: it was not delivered, as the reply said."""
        return None if self.it.sink.waiting.empty() else self.it.sink.waiting.get_nowait()

    async def bounce(self, one: Received | None, number: int = 0) -> str:
        if one is None:
            return "451"
        raw = bounce_of(one, message_id=f"<{self.run}.{number}@mx.sink.test>")
        return (await self.it.bounce(one, data=raw))[:3]

    async def until_kept(self, kind: str) -> None:
        for _ in range(400):
            if await self.store.command("KEYS", f"{{fwd0}}:{kind}*"):
                return
            await asyncio.sleep(0.01)
        raise AssertionError(kind)


HIDDEN = "hidden.destination@sink.test"
#: Up to here it leaves its kinds in the store, one octet of which is another when it goes on. It yields what it heard.
Story = Callable[[Town], AsyncIterator[list[str]]]


async def passed_on(town: Town) -> AsyncIterator[list[str]]:
    heard = [await town.send(HIDDEN)]
    one = await town.arrived()
    heard.append(await town.bounce(one))
    yield heard
    heard.append(await town.bounce(one, 1))
    if one is not None:
        # By its destination alone, and by nothing that was there.
        for message_id in (b"", b"Message-ID: <never@sender.test>\r\n"):
            raw = bounce_of(one, message_id=f"<{len(message_id)}@x>")
            raw = raw.replace(b"Message-ID: <%d@sender.test>\r\n" % town.run, message_id)
            heard += [(await town.it.bounce(one, data=raw))[:3]]
    # The same octets are known, or a second copy.
    heard += [await town.send(HIDDEN), await town.send(HIDDEN, "b")]
    async with open_state(load(town.it.folder / "forwarder.toml"), town.it.journal) as state:
        await state.ledger.secrets_seen()


async def by_an_opaque_address(town: Town) -> AsyncIterator[list[str]]:
    heard = [await town.send(HIDDEN, sender=LONG)]
    one = await town.arrived()
    yield heard
    heard += [await town.bounce(one), await town.send(HIDDEN, "b", sender=LONG)]


async def told_of(town: Town) -> AsyncIterator[list[str]]:
    heard = [await town.send(HIDDEN)]
    assert town.it.app.tracing is not None
    await town.it.app.tracing.flush()
    await town.until_kept("i")
    async with open_state(load(town.it.folder / "forwarder.toml"), town.it.journal) as state:
        known, *_ = await state.traces.find("bob@sender.test")
        yield heard
        heard.append(await town.send(HIDDEN, "b"))
        await town.it.app.tracing.flush()
        await state.traces.read(known)
        await state.traces.find("bob@sender.test")


async def told_of_mailkey(town: Town) -> AsyncIterator[list[str]]:
    heard = [await town.send(HIDDEN, sender="carol@plain.test")]
    heard += [await town.bounce(await town.arrived())]
    yield heard
    heard += [await town.send(HIDDEN, "b", sender="carol@plain.test")]
    heard += [await town.bounce(await town.arrived(), 1)]


async def counted(town: Town) -> AsyncIterator[list[str]]:
    heard = [await town.send(HIDDEN)]
    yield heard
    heard.append(await town.send(HIDDEN, "b"))


async def come_back(town: Town) -> AsyncIterator[list[str]]:
    it, raw, known = town.it, town.mail("eve@nobody.test", HIDDEN), f"127.1.{town.run}.1"
    heard = [(await it.send(raw, "eve@nobody.test", source=known))[:3]]
    await asyncio.sleep(0.02)
    heard += [(await it.send(raw, "eve@nobody.test", source=known))[:3]]
    heard += [(await it.send(raw, "eve@nobody.test", source=f"127.2.{town.run}.1"))[:3]]
    yield heard
    await asyncio.sleep(0.02)
    heard += [(await it.send(raw, "eve@nobody.test", source=f"127.2.{town.run}.1"))[:3]]
    heard += [(await it.send(town.mail("eve@nobody.test", HIDDEN, "b"), "eve@nobody.test", source=known))[:3]]


async def held_against_it(town: Town) -> AsyncIterator[list[str]]:
    heard = [await town.send(HIDDEN)]
    heard.append(await town.bounce(await town.arrived()))
    assert town.it.app.standings is not None
    yield heard
    await town.it.app.standings.refresh()
    heard.append(await town.send(HIDDEN, "b"))
    await town.it.app.standings.flush()
    await town.it.app.standings.refresh()


async def refused_for_its_author(town: Town) -> AsyncIterator[list[str]]:
    heard = [await town.send(HIDDEN, sender="dora@strict.test")]
    yield heard
    heard.append(await town.send(HIDDEN, "b", sender="dora@strict.test"))


async def in_a_digest(town: Town) -> AsyncIterator[list[str]]:
    heard, today = [], town.it.app.clock.now().date()
    for kind in "xy":
        to, alias = f"one@{kind}{town.run}.test", f"{kind}{town.run}@fwd.test"
        heard.append(await town.send(to, kind, alias=alias))
        heard.append(await town.bounce(await town.arrived(), ord(kind)))
        if kind == "x":
            await town.it.app.send_digests(today)
    yield heard
    heard.append(await town.send(f"one@y{town.run}.test", "z", alias=f"y{town.run}@fwd.test"))
    heard.append(await town.bounce(await town.arrived(), ord("z")))
    await town.it.app.send_digests(today)


async def in_a_report_of_tls(town: Town) -> AsyncIterator[list[str]]:
    heard, today = [], town.it.app.clock.now().date()
    for kind in "xy":
        heard.append(await town.send(f"one@{kind}{town.run}.test", kind, alias=f"{kind}{town.run}@fwd.test"))
        # Whatever is asked for, what was counted is put down.
        await town.it.app.report_tls(today if kind == "x" else today.replace(year=2000))
    yield heard
    heard.append(await town.send(f"one@y{town.run}.test", "z", alias=f"y{town.run}@fwd.test"))
    await town.it.app.report_tls(today)


async def with_a_policy(town: Town) -> AsyncIterator[list[str]]:
    policies = RedisPolicies(town.store, RedisLedger(town.store, journal=town.it.journal), journal=town.it.journal)
    await policies.put_policy(f"x{town.run}.test", StsPolicy("1", "testing", (f"mx.x{town.run}.test",), 86400))
    yield []
    await town.send(f"one@x{town.run}.test", alias=f"x{town.run}@fwd.test")


async def replayed(town: Town) -> AsyncIterator[list[str]]:
    raw = town.it.signed(town.mail("bob@sender.test", HIDDEN), recipients=())
    heard = [(await town.it.send(raw, source=SINK, helo="mx.sink.test"))[:3]]
    yield heard
    heard += [(await town.it.send(raw, source=SINK, helo="mx.sink.test"))[:3]]


async def begun_elsewhere(town: Town) -> AsyncIterator[list[str]]:
    """What another host is told, where hosts share a store."""
    ledger = RedisLedger(town.store, journal=town.it.journal, shared=True)
    begun = (Address("srs0=x", "fwd.test"), f"<{town.run}@sender.test>")
    await ledger.claim([b"f" * 32], "elsewhere", begun=[begun])
    assert await ledger.is_begun(begun)
    yield []
    await ledger.is_begun(begun)
    await ledger.claim([b"f" * 32], "elsewhere", begun=[begun])


async def that_waits(town: Town) -> AsyncIterator[list[str]]:
    heard = [await town.send("one@away.test", alias="away@held.test")]
    await town.until_kept("qk")
    yield heard
    for key in (b"{fwd0}:qd", *await keys_of(town.store, "qw")):
        # As if its time had come.
        for member in await town.store.command("ZRANGE", key, 0, -1):
            await town.store.command("ZADD", key, "1", member)
    await look_at_all(town)
    heard += [await town.send("one@away.test", "b", alias="away@held.test")]


async def under_way(town: Town) -> AsyncIterator[list[str]]:
    asked = town.slow.asked
    town.slow.may.clear()
    heard = [await town.send("one@slow.test", alias="slow@held.test")]
    await until(lambda: town.slow.asked > asked)
    yield heard
    town.slow.may.set()
    await until(lambda: not town.slow.waiting.empty())
    heard += [await town.send("one@slow.test", "b", alias="slow@held.test")]


async def that_died(town: Town) -> AsyncIterator[list[str]]:
    raw, network = town.mail("eve@nobody.test", "gone@slow.test"), f"127.3.{town.run}.1"
    for _ in range(2):
        heard = [(await town.it.send(raw, "eve@nobody.test", "gone@held.test", source=network))[:3]]
        await asyncio.sleep(0.02)
    await town.until_kept("qx")
    yield heard
    await look_at_all(town)


async def look_at_all(town: Town) -> None:
    """As an operator does, who also wants the dead to be tried again."""
    async with open_state(load(town.it.folder / "forwarder.toml"), town.it.journal) as state:
        for dead in (False, True):
            for one in [one async for one in state.queue.list(dead=dead)]:
                await state.queue.read(one.id)
                if dead:
                    await state.queue.do(one.id, Do.RETRY)
        await state.queue.size()
        await state.queue.held_octets()
    town.it.app.wake_queue()


async def that_left(town: Town) -> AsyncIterator[list[str]]:
    heard = [await town.send("one@other.test", alias="other@held.test")]
    await town.until_kept("qt")
    yield heard
    heard += [await town.send("one@other.test", alias="other@held.test")]
    await look_at_all(town)


async def carried(town: Town) -> AsyncIterator[list[str]]:
    heard = [await town.send("one@away.test", alias="away@held.test")]
    await town.until_kept("qk")
    async with open_state(load(town.it.folder / "forwarder.toml"), town.it.journal) as state:
        (listed,) = [one async for one in state.queue.list()]
        taken = (await state.queue.take([listed.id], "export", 60))[listed.id]
        assert isinstance(taken, Carried)
        assert list(await state.queue.carried_away([listed.id], "export")) == [True]
        yield heard
        await state.queue.carried_away([listed.id], "export")
        await state.queue.bring(taken)


#: Which kinds does which story leave?
STORIES: tuple[tuple[Story, set[str]], ...] = (
    (passed_on, {"b", "c", "f", "m", "s"}),
    (by_an_opaque_address, {"t"}),
    (told_of, {"i", "l"}),
    (told_of_mailkey, {"n"}),
    (counted, {"w"}),
    (come_back, {"h", "k"}),
    (held_against_it, {"u", "v"}),
    (refused_for_its_author, {"a"}),
    (in_a_digest, {"g", "o", "z"}),
    (in_a_report_of_tls, {"d", "x", "y"}),
    (with_a_policy, {"p"}),
    (replayed, {"r"}),
    (begun_elsewhere, {"e"}),
    (that_waits, {"qa", "qb", "qd", "qi", "qk", "qn", "qw"}),
    (under_way, {"qc", "qh", "ql", "qo", "qr"}),
    (that_died, {"qx"}),
    (that_left, {"qt"}),
    (carried, {"qe"}),
    # Last: with another salt, who has known the old one looks elsewhere for a minute.
    (passed_on, {"birth", "salt"}),
)
#: Hashes have names and values, sets and sorted sets only names, and the rest only values.
HASHES = {"g", "m", "qb", "qc", "qh", "qi", "qk", "qn", "s", "u", "x"}
SETS = {"d", "o", "qa", "qd", "ql", "qw", "qx", "r"}
#: Whose values bear a MAC, and what the log calls them.
SEALED = {"f": "forward", "m": "forward", "t": "token", "l": "trace", "u": "standing", "g": "digest", "o": "digest"}
SEALED |= {"p": "policy", "qb": "queue", "qi": "queue", "salt": "salt"}


# --- what is done to it -----------------------------------------------------------------------------------------------


def flipped(value: bytes, mask: int) -> bytes:
    """In the middle, or, where no digit and no letter comes of it, at the start."""
    at = len(value) // 2 if mask < 0x80 else 0
    return value[:at] + bytes([value[at] ^ mask]) + value[at + 1 :] if value else value


async def flip(store: StoreClient, key: bytes, mask: int, *, names: bool) -> bool:
    """In its values, or in the names of fields and members. False: it has no such."""
    match await store.command("TYPE", key), names:
        case b"string", False:
            value = await store.command("GET", key)
            await store.command("SET", key, flipped(value, mask), "KEEPTTL")
        case b"hash", _:
            found = await store.command("HGETALL", key)
            for name, value in zip(found[::2], found[1::2], strict=True):
                if names:
                    await store.command("HDEL", key, name)
                    await store.command("HSET", key, flipped(name, mask), value)
                else:
                    await store.command("HSET", key, name, flipped(value, mask))
        case b"set", True:
            for member in await store.command("SMEMBERS", key):
                await store.command("SREM", key, member)
                await store.command("SADD", key, flipped(member, mask))
        case b"zset", True:
            for member in await store.command("ZRANGE", key, 0, -1):
                score = await store.command("ZSCORE", key, member)
                await store.command("ZREM", key, member)
                await store.command("ZADD", key, score, flipped(member, mask))
        case b"list", False:
            for index, value in enumerate(await store.command("LRANGE", key, 0, -1)):
                await store.command("LSET", key, index, flipped(value, mask))
        case _:
            return False
    return True


async def keys_of(store: StoreClient, kind: str) -> list[bytes]:
    found = await store.command("KEYS", f"{{fwd0}}:{kind}*")
    return [one for one in found if one.split(b":")[1] == kind.encode()]


def check_addressees(town: Town) -> None:
    """Whatever arrived says for whom it is."""
    for receiver in (town.it.sink, town.slow):
        while not receiver.waiting.empty():
            one = receiver.waiting.get_nowait()
            assert f" to {mark(one.recipients[0])}\r\n".encode() in one.data, one
            assert len(one.recipients) == 1
    while not town.it.sender.waiting.empty():
        one = town.it.sender.waiting.get_nowait()
        (to,) = one.recipients
        ours = to == "tls@sender.test" or re.fullmatch(r"olga[xy]\d+@sender\.test", to)
        assert ours or f"Subject: from {mark(to)} to ".encode() in one.data, one


async def refuse_the_strict(it: Lab) -> None:
    """As a provider does that believes DMARC."""
    take = Receiver.handle_DATA

    async def handle_data(server: SMTP, session: Session, envelope: SmtpEnvelope) -> str:
        content = envelope.content or b""
        assert isinstance(content, bytes)
        if b"\r\nFrom: Bob <dora@strict.test>" in content:
            return "550 5.7.26 not accepted due to the domain's DMARC policy"
        return await take(it.sink, server, session, envelope)

    it.sink.handle_DATA = handle_data  # type: ignore[method-assign]


def test_each_kind_of_the_source_has_its_story() -> None:
    told = [kind for _, kinds in STORIES for kind in kinds]
    assert sorted(told) == sorted(kinds_of_the_source())


@pytest.mark.parametrize(("mask", "names"), [(0x01, False), (0x80, False), (0x01, True), (0x80, True)])
async def test_a_flipped_octet_of_any_kind_is_a_miss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mask: int, *, names: bool
) -> None:
    async with lab(tmp_path, extra=CONFIG, zone=ZONE, relay=RELAY, aliases=ALIASES) as it, store_of(it) as store:
        await refuse_the_strict(it)
        slow = Slow(SLOW, it.port, "mx.slow.test")
        slow.may = asyncio.Event()
        slow.may.set()
        await slow.start()
        town = Town(it, store, slow)
        fell: list[object] = []
        try:
            for story, kinds in STORIES:
                for kind in sorted(kinds & (HASHES | SETS) if names else kinds - SETS):
                    town.run += 1
                    fell += [(kind, one) for one in await damaged(town, story, kind, mask, names=names)]
        finally:
            slow.stop()
        assert fell == []
    # Nor did a task end in one that nobody was there to hear of.
    assert [one.getMessage() for one in caplog.records if one.exc_info] == []


async def damaged(town: Town, story: Story, kind: str, mask: int, *, names: bool) -> list[object]:
    """What went wrong."""
    it, store = town.it, town.store
    it.journal.events.clear()
    telling = story(town)
    heard = await anext(telling)
    assert set(heard) <= {"250", "451"}, (kind, heard)
    found = await keys_of(store, kind)
    assert found, kind
    assert all([await flip(store, key, mask, names=names) for key in found]), kind
    fell: list[object] = []
    try:
        await anext(telling, None)
        if kind.startswith("q"):
            # Whatever is damaged stops nobody else's mail.
            assert await town.send("one@other.test", "end", alias="other@held.test") == "250"
            await until(lambda: any(str(one["destination"]) == "one@other.test" for one in it.events("queue.outcome")))
        if kind in SEALED and names is (kind == "o"):
            # The members of a set are its values.
            await until(lambda: any(one["kind"] == SEALED[kind] for one in it.events("store_value_unreadable")))
    except (AssertionError, StoreAway, ValueError) as fault:
        fell.append(fault)
    fell += [one for name in ("fault", "store_refused") for one in it.events(name)]
    if not set(heard) <= {"250", "451", "550"}:
        fell.append(heard)
    check_addressees(town)
    town.slow.may.set()
    # The salt is asked for once a minute, and a secret noted once a day.
    for key in await store.command("KEYS", "*"):
        if key.split(b":")[1] not in (b"salt", b"birth", b"s"):
            await store.command("DEL", key)
    return fell
