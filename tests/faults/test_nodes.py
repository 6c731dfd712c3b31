"""Three nodes on one store come and go while mail flows: nothing is lost, and what a dead one had begun another takes over.

Real processes with addresses and names of their own, the same keys, and a sender that goes on to the next MX. ``./scripts/faults
nodes`` runs the full measure (10,000 messages, a hundred deaths; a lease of 60 seconds); here a short form of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from forwarder.cli import demo_lab
from tests.faults.copies import count, dead_letters, name_of, settled, unflagged
from tests.faults.mta import Mta, beside
from tests.faults.service import SINK, SOURCE, ZONE, Service, service
from tests.faults.test_kills import BODY, moody
from tests.faults.test_stop import HEADER, client
from tests.faults.test_workers import report
from tests.peers.smtp_sink import DEFAULT, HANG, SmtpSink
from tests.peers.topologies import Cluster, Sentinels, cluster, sentinels
from tests.peers.valkey import Valkey, valkey
from tests.waiting import HASTY, PATIENT, until

MESSAGES = int(os.environ.get("FAULT_NODES_MESSAGES", "120"))
DEATHS = int(os.environ.get("FAULT_NODES_DEATHS", "2"))
#: Seconds of the lease that is taken over.
LEASE = float(os.environ.get("FAULT_NODES_LEASE", "1"))
#: One server; or a cluster, or a primary with replicas and sentinels, of which the primary dies halfway.
STORES = {"server": valkey, "cluster": cluster, "sentinels": sentinels}
STORE = os.environ.get("FAULT_NODES_STORE", "server")
#: Of so many one goes as by SIGTERM, the others as by -9.
ORDERLY = 3
#: Messages that arrive while a node is away, at least.
AWAY = 15
RUN = 60 + MESSAGES / 20 + DEATHS * 10 + LEASE * 3
HOSTS = ("127.0.0.25", "127.0.0.26", "127.0.0.27")


@dataclass
class Nodes:
    """As one service whose log can be asked."""

    each: list[Service]
    store: Valkey | Cluster | Sentinels

    @property
    def folder(self) -> Path:
        return self.each[0].folder

    @property
    def port(self) -> int:
        return self.each[0].port

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for one in self.each for event in one.events(name)]


#: A next hop with a pace: what is for it waits in the queue first.
PACED = 'destinations = {"paced.test" = {per_minute = 600000}}'


@asynccontextmanager
async def nodes(folder: Path, *, lease: float = 2) -> AsyncIterator[Nodes]:
    """Configured, not started."""
    port = demo_lab.free_port(*HOSTS, SINK, SOURCE)
    demo_lab.make_keys(folder / "keys")
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(STORES[STORE](folder / "store"))
        each = []
        for number, host in enumerate(HOSTS):
            own = folder / f"node{number}"
            own.mkdir()
            (own / "keys").symlink_to(folder / "keys")
            node = service(
                own,
                store=store.url,
                store_timeout=PATIENT if STORE == "server" else HASTY,
                lease=lease,
                # A busy machine needs long to start a node.
                relay="in_session = 120",
                queue=PACED,
                aliases='paced = ["dest@paced.test"]',
                start=False,
                hostname=f"mx{number}.fwd.test",
                host=host,
                port=port,
            )
            each.append(await stack.enter_async_context(node))
            (own / "zone.json").write_text(json.dumps(ZONE | {"paced.test": {"MX": ["10 mx.sink.test"]}}))
        yield Nodes(each, store)


def sender(it: Nodes, hosts: tuple[str, ...] = HOSTS) -> Mta:
    return Mta(hosts[0], it.port, SOURCE, others=hosts[1:])


async def come_and_go(it: Nodes, sink: SmtpSink, rng: random.Random) -> None:
    """One after the other is away for a while, spread over the run by how much has arrived."""
    for number in range(DEATHS):
        target = MESSAGES * (number + rng.uniform(0.2, 1)) / (DEATHS + 1)
        await until(lambda: len(sink.messages) >= target, RUN)  # noqa: B023 - waited for at once
        if number == DEATHS // 2 and not isinstance(it.store, Valkey):
            await lose_primary(it.store)
        await asyncio.sleep(rng.random() * 0.05)
        one = it.each[number % len(it.each)]
        await (one.stop() if number % ORDERLY == 1 else one.kill())
        back = min(len(sink.messages) + AWAY, MESSAGES)
        await until(lambda: len(sink.messages) >= back, RUN)  # noqa: B023 - the same
        await one.start()


async def lose_primary(store: Cluster | Sentinels) -> None:
    """That of our keys; a replica has taken over when this returns."""
    owner = await store.owner(key_slot(b"fwd0")) if isinstance(store, Cluster) else 0
    replicas = [store.servers[owner + 3]] if isinstance(store, Cluster) else store.servers[1:]
    await store.servers[owner].kill()
    async with asyncio.timeout(30):
        while not any([await one.is_primary() for one in replicas]):  # noqa: ASYNC110 - a server tells nobody
            await asyncio.sleep(0.05)


@pytest.mark.timeout(RUN)
async def test_nodes_come_and_go_under_load_and_nothing_is_lost(tmp_path: Path) -> None:
    rng = random.Random(8)
    names = [f"m{number}" for number in range(MESSAGES)]
    async with nodes(tmp_path) as it, SmtpSink({"DOT": moody(rng)}, host=SINK, port=it.port) as sink:
        await asyncio.gather(*(one.start() for one in it.each))
        mta = sender(it)
        async with beside(mta.send_all(names, BODY)):
            await come_and_go(it, sink, rng)
        await settled(it)
        copies, dead = count(sink.messages), set(await dead_letters(it))

        kills = sum(one.kills for one in it.each)
        extra = sum(copies.values()) - len(copies)
        lost = set(names) - copies.keys() - dead
        damaged = [
            one
            for one in sink.messages
            if not one.data.endswith(b"\r\n\r\n" + name_of(one.data).encode() + b"\r\n" + BODY)
        ]
        taken = Counter(one["id"] for name in ("claim.taken_over", "queue.taken_over") for one in it.events(name))
        answered = [len(one.events("message.answered")) for one in it.each]
        print(
            f"\nstore: {STORE}; "
            f"{MESSAGES} messages, {DEATHS} deaths ({kills} by -9): lost {len(lost)}, damaged {len(damaged)}, "
            f"extra copies {extra}, on record as maybe a copy {len(taken)}, dead letters {len(dead)}, "
            f"tries {sum(mta.books.tries.values())}, broken connections {mta.books.broken}, answered by each {answered}"
        )
        assert mta.books.acknowledged == set(names)
        assert not mta.books.refused
        assert not lost
        assert not damaged
        assert all(answered)
        assert it.events("fault") == []
        # A death may leave a copy for each message that was between the next hop's answer and our record of it.
        assert not unflagged(it, sink.messages)
        assert extra <= kills * mta.workers
        # A message that was at its dot at two deaths: nobody knows whether it has arrived, and an operator has it.
        assert len(dead) <= kills


@pytest.mark.timeout(RUN)
async def test_what_a_dead_node_had_begun_another_takes_over_when_its_lease_ends(tmp_path: Path) -> None:
    """In session, where the sender comes back to another MX, and from the queue."""
    names = [f"n{number}" for number in range(6)]
    script = {"DATA": [*[HANG] * len(names), DEFAULT]}
    async with nodes(tmp_path, lease=LEASE) as it, SmtpSink(script, host=SINK, port=it.port) as sink:
        first, second = it.each[:2]
        await first.start()
        mta = sender(it, HOSTS[:2])
        mta.recipient = lambda name: "paced@fwd.test" if int(name[1:]) % 2 else "alias@fwd.test"
        async with beside(mta.send_all(names, BODY)):
            # Those that begin at the second MX find nobody there, and go on to the first.
            await until(lambda: sink.verbs().count("DATA") == len(names), 30)
            await second.start()
            assert len(mta.books.acknowledged) == len(names) / 2
            loop = asyncio.get_running_loop()
            died = loop.time()
            await first.kill()
            await until(lambda: len(sink.messages) == len(names), LEASE + 30)
            took = loop.time() - died
        await settled(it)

        print(f"\na lease of {LEASE:.0f} s: the last of it was delivered by another node {took:.1f} s after the death")
        assert mta.books.acknowledged == set(names)
        assert count(sink.messages) == Counter(names)
        assert {one["id"] for one in second.events("claim.taken_over")}
        assert len(second.events("queue.outcome")) == len(names) / 2
        # By the store's clock; the rest is what the machine takes. What no lease ends is under way for good.
        assert took < LEASE + 20


@pytest.mark.timeout(RUN)
@pytest.mark.skipif(STORE != "server", reason="with one server")
async def test_a_report_that_comes_to_another_host_than_its_message_is_not_refused(tmp_path: Path) -> None:
    """A next hop that forwards in session reports before it answers: in session, and to the queue."""
    async with nodes(tmp_path) as it, SmtpSink({"DOT": [HANG, HANG, DEFAULT]}, host=SINK, port=it.port) as sink:
        first, second = it.each[:2]
        await asyncio.gather(first.start(), second.start())
        assert isinstance(it.store, Valkey)
        async with client(first) as one, client(first) as other:
            for session, recipient in ((one, b"alias"), (other, b"paced")):
                await session.say(b"MAIL FROM:<bob@sender.test>")
                await session.say(b"RCPT TO:<%s@fwd.test>" % recipient)
                await session.say(b"DATA")
                session.writer.write(HEADER % recipient + b"Hello.\r\n.\r\n")
                # The sink hangs at the dot of the one, then of the other.
                async with asyncio.timeout(30):
                    await sink.hanging.wait()
                sink.hanging.clear()
                # A store that began to remember today takes reports of what it does not know. It did, by then.
                await it.store.ask("SET", "{fwd0}:birth", "\x0110000")
                mails = [line for _, line in sink.commands if line.upper().startswith(b"MAIL FROM:<S")]
                reversible = mails[-1].partition(b"<")[2].partition(b">")[0]
                answer = await report(second, reversible, 1, recipient)
                assert answer.startswith(b"451 4.4.1"), recipient
                assert (await report(second, reversible, 1, b"another")).startswith(b"550")
