"""What the border does when the server stops, hangs, refuses, restarts or forgets. With real servers throughout."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from forwarder.ports import StoreAway
from forwarder.store.client import PACKED_A_SLICE, Script, StoreClient, StoreUrlError, describe_url, load_script
from forwarder.store.server import EmbeddedStore, find_server
from tests.fakes import MemoryJournal
from tests.store.servers import BOUND, SYSTEM_REDIS

LIMIT = 0.25
#: Adds one to a number.
_TEXT = b"#!lua\nreturn redis.call('INCR', KEYS[1])"
INCREMENT = Script("increment", _TEXT, hashlib.sha1(_TEXT, usedforsecurity=False).hexdigest())


@pytest.fixture
async def hasty(server: EmbeddedStore, journal: MemoryJournal) -> AsyncIterator[StoreClient]:
    """With the time limit of real life, and asking again at once after a failure."""
    client = StoreClient(server.admin_url, journal=journal, timeout=LIMIT, pause=0)
    yield client
    await client.close()


@pytest.fixture
def frozen(server: EmbeddedStore) -> Iterator[None]:
    """The server hangs during the test, or until the test continues it."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    yield
    os.kill(server.pid, signal.SIGCONT)


async def ask_until_it_works(client: StoreClient, *command: str) -> None:
    async with asyncio.timeout(BOUND):
        while True:
            try:
                await client.command(*(command or ("PING",)))
                return
            except StoreAway:
                await asyncio.sleep(0)


# --- a server that hangs ---


@pytest.mark.usefixtures("frozen")
async def test_a_hanging_store_is_away_within_the_time_limit_and_then_at_once(
    server: EmbeddedStore, journal: MemoryJournal
) -> None:
    client = StoreClient(server.admin_url, journal=journal, timeout=LIMIT, pause=60)
    clock = asyncio.get_running_loop().time
    began = clock()
    with pytest.raises(StoreAway):
        await client.command("PING")
    waited, at_once = clock() - began, []
    for _ in range(5):
        began = clock()
        with pytest.raises(StoreAway):
            await client.command("PING")
        at_once.append(clock() - began)
    # A library's own limits and second tries would make seconds of it; and of five, one is in no moment of a busy machine.
    assert LIMIT * 0.9 < waited < LIMIT * 8
    assert min(at_once) < LIMIT / 5
    assert [one["reason"] for one in journal.named("store_away")] == ["timeout"]
    await client.close()


@pytest.mark.usefixtures("frozen")
async def test_what_a_hasty_client_knows_to_be_away_is_asked_by_one_call_of_a_patient_one_at_a_time(
    server: EmbeddedStore, journal: MemoryJournal
) -> None:
    scout = StoreClient(server.admin_url, journal=journal, timeout=LIMIT, pause=60)
    patient = StoreClient(server.admin_url, journal=journal, timeout=BOUND, scout=scout)
    with pytest.raises(StoreAway):
        await scout.command("PING")
    looks = asyncio.ensure_future(patient.command("PING"))
    await asyncio.sleep(0)
    # Its own patience is four times that.
    async with asyncio.timeout(BOUND / 4):
        with pytest.raises(StoreAway):
            await patient.command("PING")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGCONT)
    # It was only slow.
    assert await looks == b"PONG"
    assert await patient.command("PING") == b"PONG"
    with pytest.raises(StoreAway):
        await scout.command("PING")
    await patient.close()
    await scout.close()


@pytest.mark.usefixtures("frozen")
async def test_everybody_who_waits_for_a_hanging_store_is_told(hasty: StoreClient) -> None:
    async with asyncio.timeout(BOUND):
        answers = await asyncio.gather(*(hasty.command("PING") for _ in range(100)), return_exceptions=True)
    assert {type(one) for one in answers} == {StoreAway}


async def test_a_store_that_hung_works_again_and_both_are_told_once(
    server: EmbeddedStore, hasty: StoreClient, journal: MemoryJournal
) -> None:
    assert server.pid is not None
    await hasty.command("PING")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            with pytest.raises(StoreAway):
                await hasty.command("PING")
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await ask_until_it_works(hasty)
    assert [name for name, _ in journal.events] == ["store_away", "store_back"]


async def test_only_one_probe_asks_a_store_that_was_away(server: EmbeddedStore, hasty: StoreClient) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreAway):
            await hasty.command("PING")
        probe = asyncio.ensure_future(hasty.command("PING"))
        await asyncio.sleep(0)
        with pytest.raises(StoreAway):
            await hasty.command("PING")
        assert not probe.done()
        with pytest.raises(StoreAway):
            await probe
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await ask_until_it_works(hasty)


async def test_answers_do_not_get_mixed_up_after_a_timeout(server: EmbeddedStore, hasty: StoreClient) -> None:
    assert server.pid is not None
    await hasty.command("PING")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreAway):
            await hasty.command("ECHO", "lost")
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await ask_until_it_works(hasty)
    assert await hasty.command("ECHO", "found") == b"found"


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_who_joins_a_group_in_the_moment_in_which_its_connection_goes_is_told_as_the_others_are(
    server: EmbeddedStore, journal: MemoryJournal, run: Callable[[Coroutine[None, None, None]], None]
) -> None:
    """uvloop closes a transport one turn before its reader hears of it, and raises RuntimeError for what is written then."""

    async def scene(turns: int) -> None:
        client = StoreClient(server.admin_url, journal=journal, timeout=LIMIT, pause=60)
        await client.command("PING")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            first = asyncio.ensure_future(client.command("PING"))
            while client._joinable is None:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
            client._connection._writer.transport.abort()
            for _ in range(turns):
                await asyncio.sleep(0)
            answers = await asyncio.gather(first, count_at_once(client), return_exceptions=True)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert {type(one) for one in answers} == {StoreAway}
        await client.close()

    for turns in range(6):
        run(scene(turns))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_loop_that_was_blocked_does_not_blame_the_store(
    server: EmbeddedStore, journal: MemoryJournal, run: Callable[[Coroutine[None, None, None]], None]
) -> None:
    """A huge message blocks the loop; when it is free again, uvloop looks at its timers before it reads."""

    async def scene() -> None:
        client = StoreClient(server.admin_url, journal=journal, timeout=LIMIT, pause=0)
        await client.command("PING")
        asked = asyncio.ensure_future(client.command("ECHO", "there"))
        for _ in range(3):
            await asyncio.sleep(0)
        time.sleep(2 * LIMIT)  # noqa: ASYNC251  (the fault itself)
        assert await asked == b"there"
        await client.close()

    run(scene())
    assert journal.events == []


# --- a server that is gone or comes back ---


async def test_a_store_that_is_not_there_is_away(tmp_path: Path, journal: MemoryJournal) -> None:
    client = StoreClient(f"unix://{tmp_path}/nobody.sock", journal=journal)
    with pytest.raises(StoreAway):
        await client.command("PING")
    await client.close()


async def test_a_store_that_refuses_tcp_is_away(journal: MemoryJournal, unused_tcp_port: int) -> None:
    client = StoreClient(f"redis://:hunter2@127.0.0.1:{unused_tcp_port}/0", journal=journal)
    with pytest.raises(StoreAway) as caught:
        await client.command("PING")
    assert "hunter2" not in f"{caught.value!r} {journal.events}"
    await client.close()


async def test_a_restart_of_the_store_is_not_noticed(tmp_path: Path, journal: MemoryJournal) -> None:
    store = EmbeddedStore(tmp_path, journal=journal)
    await store.start()
    client = StoreClient(store.admin_url, journal=journal, timeout=BOUND)
    await client.command("SET", "k", "v")
    await store.stop()
    await store.start()
    assert await client.command("GET", "k", again=False) == b"v"
    assert journal.named("store_away") == []
    await client.close()
    await store.stop()


async def test_a_killed_connection_is_not_noticed(client: StoreClient, journal: MemoryJournal) -> None:
    # The answer to CLIENT KILL comes first; what follows it in the same write is lost with the connection.
    me = await client.command("CLIENT", "ID")
    kill = client.command("CLIENT", "KILL", "ID", me, "SKIPME", "no")
    answers = await asyncio.gather(kill, client.command("ECHO", "again"))
    assert answers[1] == b"again"
    assert journal.events == []


async def test_what_must_not_run_twice_is_not_sent_twice(client: StoreClient) -> None:
    me = await client.command("CLIENT", "ID")
    kill = client.command("CLIENT", "KILL", "ID", me, "SKIPME", "no")
    lost, kept = await asyncio.gather(
        asyncio.gather(kill, client.command("INCR", "n", again=False), return_exceptions=True),
        client.command("ECHO", "again"),
    )
    assert isinstance(lost[1], StoreAway)
    assert kept == b"again"
    assert await client.command("GET", "n") in (None, b"1")


async def test_what_is_large_has_more_time_than_what_is_small(server: EmbeddedStore, journal: MemoryJournal) -> None:
    """As the claims of a list of ten thousand, which take longer on a busy machine than a hanging store is waited for."""
    client = StoreClient(server.admin_url, journal=journal, timeout=0.02, pause=0)
    await ask_until_it_works(client)
    # 50 ms, and twenty times that on the busiest machine.
    busy = b"""#!lua
for _ = 1, 15000000 do end
return #ARGV[1]"""
    script = Script("busy", busy, hashlib.sha1(busy, usedforsecurity=False).hexdigest())

    assert await client.run(script, (), (b"x" * 3_000_000,)) == 3_000_000
    with pytest.raises(StoreAway):
        await client.run(script, (), (b"x",))
    await client.close()


# --- a server that says no ---


async def test_a_refusal_is_away_at_once_told_once_and_closes_nothing(
    client: StoreClient, journal: MemoryJournal
) -> None:
    await client.command("SET", "k", "v")
    await client.command("CONFIG", "SET", "maxmemory", "1")
    try:
        for _ in range(3):
            with pytest.raises(StoreAway, match="OOM"):
                await client.command("SET", "k", "w")
        assert await client.command("GET", "k") == b"v"
    finally:
        await client.command("CONFIG", "SET", "maxmemory", "0")
    await client.command("SET", "k", "w")
    assert [name for name, _ in journal.events] == ["store_refused"]


@pytest.mark.parametrize(
    ("break_it", "mend_it", "word"),
    [
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "READONLY"),
        (
            ("CONFIG", "SET", "min-replicas-to-write", "1"),
            ("CONFIG", "SET", "min-replicas-to-write", "0"),
            "NOREPLICAS",
        ),
        (("ACL", "SETUSER", "default", "-set"), ("ACL", "SETUSER", "default", "+@all"), "NOPERM"),
    ],
)
async def test_every_refusal_is_store_away(
    client: StoreClient, break_it: tuple[str, ...], mend_it: tuple[str, ...], word: str
) -> None:
    await client.command(*break_it)
    try:
        with pytest.raises(StoreAway, match=word):
            await client.command("SET", "k", "v")
        script = Script("set", b"return redis.call('SET', KEYS[1], 'v')", "")
        with pytest.raises(StoreAway):
            await client.run(Script("set", script.text, "0" * 40), [b"k"])
    finally:
        await client.command(*mend_it)
    await client.command("SET", "k", "v")


async def test_a_password_is_used_and_never_told(
    client: StoreClient, server: EmbeddedStore, journal: MemoryJournal
) -> None:
    await client.command("CONFIG", "SET", "requirepass", "correct horse/battery@staple")
    path = server.admin_url.removeprefix("unix://")
    right = StoreClient(f"unix://:correct%20horse%2Fbattery%40staple@{path}", journal=journal)
    wrong = StoreClient(f"unix://:hunter2@{path}", journal=journal)
    try:
        assert await right.command("ECHO", "in") == b"in"
        with pytest.raises(StoreAway) as caught:
            await wrong.command("ECHO", "in")
        assert "hunter2" not in f"{caught.value!r} {journal.events}"
    finally:
        await client.command("CONFIG", "SET", "requirepass", "")
        await right.close()
        await wrong.close()


# --- scripts ---


@pytest.mark.parametrize("name", ["claim", "settle", "find", "spend", "refund", "salt"])
async def test_every_script_compiles_and_is_known_by_the_servers_name_for_it(client: StoreClient, name: str) -> None:
    script = load_script(name, behind=("remember",) if name == "settle" else ())
    assert (await client.command("SCRIPT", "LOAD", script.text)).decode() == script.sha


async def test_a_script_that_the_server_forgot_is_sent_again(client: StoreClient) -> None:
    salt = load_script("salt")
    for _ in range(2):
        await client.command("SCRIPT", "FLUSH")
        assert await client.run(salt, [b"{fwd0}:salt", b"{fwd0}:birth"], [b"x", 10]) == b"x"


async def test_a_fault_in_a_script_is_store_away_and_told(client: StoreClient, journal: MemoryJournal) -> None:
    with pytest.raises(StoreAway):
        await client.run(Script("bad", b"return redis.call('NO SUCH')", "0" * 40), [])
    assert journal.named("store_refused")


# --- callers that go away ---


async def test_a_cancelled_caller_disturbs_nobody(client: StoreClient) -> None:
    gone = asyncio.ensure_future(client.command("ECHO", "gone"))
    others = [asyncio.ensure_future(client.command("ECHO", f"{one}")) for one in range(10)]
    await asyncio.sleep(0)
    gone.cancel()
    assert await asyncio.gather(*others) == [b"%d" % one for one in range(10)]


async def test_a_cancelled_probe_is_not_the_last_one(server: EmbeddedStore, hasty: StoreClient) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreAway):
            await hasty.command("PING")
        probe = asyncio.ensure_future(hasty.command("PING"))
        await asyncio.sleep(0)
        probe.cancel()
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await asyncio.wait([probe])
    await ask_until_it_works(hasty)


@pytest.mark.usefixtures("frozen")
async def test_closing_tells_those_who_wait(server: EmbeddedStore, journal: MemoryJournal) -> None:
    client = StoreClient(server.admin_url, journal=journal, timeout=BOUND)
    waiting = [asyncio.ensure_future(client.command("PING")) for _ in range(3)]
    await asyncio.sleep(0)
    await client.close()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(one) for one in answers} == {StoreAway}
    with pytest.raises(StoreAway):
        await client.command("PING")


async def test_values_of_megabytes_go_both_ways(client: StoreClient) -> None:
    value = os.urandom(8 << 20)
    await client.command("SET", "big", value)
    assert await client.command("GET", "big") == value


async def test_commands_that_wait_together_leave_together(client: StoreClient) -> None:
    await client.command("PING")
    before = await _reads(client)
    await asyncio.gather(*(client.command("INCR", "n") for _ in range(100)))
    assert await _reads(client) - before < 10
    assert await client.command("GET", "n") == b"100"


async def waits_for_a_push(client: StoreClient, other: StoreClient) -> asyncio.Task[Any]:
    """A command whose reply does not come before something is pushed to "list"; it is with the server when this returns."""
    task = asyncio.ensure_future(client.command("BLPOP", "list", 0))
    await _until(other, lambda clients: any(" flags=b" in one for one in clients))
    return task


async def _until(other: StoreClient, so: Callable[[list[str]], bool]) -> None:
    async with asyncio.timeout(BOUND):
        while not so((await other.command("CLIENT", "LIST")).decode().splitlines()):
            pass


async def count_at_once(client: StoreClient) -> Any:
    return await client.run(INCREMENT, [b"n"], at_once=True)


async def test_what_a_next_hop_has_taken_does_not_wait_for_the_replies_of_others(
    client: StoreClient, hasty: StoreClient
) -> None:
    """It is with the server at once, and is carried out even if we are killed in the next moment; whoever waits already."""
    assert await count_at_once(client) == 1
    first = await waits_for_a_push(client, hasty)
    waits = asyncio.ensure_future(client.command("GET", "n"))
    await asyncio.sleep(0)
    joined = [asyncio.ensure_future(count_at_once(client)) for _ in range(3)]
    await _until(hasty, lambda clients: any(" flags=b" in one and " qbuf=0 " not in one for one in clients))
    await hasty.command("RPUSH", "list", "x")
    assert await first == [b"list", b"x"]
    assert await asyncio.gather(*joined) == [2, 3, 4]
    assert await waits == b"4"


async def test_other_commands_wait_for_each_other_and_leave_together(client: StoreClient, hasty: StoreClient) -> None:
    first = await waits_for_a_push(client, hasty)
    before = await _reads(hasty)
    behind = [asyncio.ensure_future(client.command("INCR", "n")) for _ in range(3)]
    for _ in range(3):
        await asyncio.sleep(0)
        assert " qbuf=0 " in next(
            one for one in (await hasty.command("CLIENT", "LIST")).decode().splitlines() if " flags=b" in one
        )
    await hasty.command("RPUSH", "list", "x")
    assert await first == [b"list", b"x"]
    assert await asyncio.gather(*behind) == [1, 2, 3]
    # Three lists, a push, this question, and one read for the three that waited.
    assert await _reads(hasty) - before == 6


async def test_a_large_value_waits_its_turn(client: StoreClient, hasty: StoreClient) -> None:
    await count_at_once(client)
    first = await waits_for_a_push(client, hasty)
    large = asyncio.ensure_future(client.run(INCREMENT, [b"n" * 20000], at_once=True))
    small = asyncio.ensure_future(count_at_once(client))
    await asyncio.sleep(0)
    assert client._waiting
    assert client._joinable is not None
    assert len(client._joinable) == 2
    await hasty.command("RPUSH", "list", "x")
    assert await asyncio.gather(first, large, small) == [[b"list", b"x"], 1, 2]


async def test_who_asks_for_little_goes_ahead_while_much_is_written_down(client: StoreClient) -> None:
    values = [b"%d" % number for number in range(2 * PACKED_A_SLICE)]
    pushed, there = await asyncio.gather(client.command("RPUSH", "many", *values), client.command("EXISTS", "many"))
    assert (pushed, there) == (len(values), 0)
    assert await client.command("LRANGE", "many", 0, -1) == values


async def test_a_lost_connection_is_told_only_to_who_must_not_run_twice(
    client: StoreClient, hasty: StoreClient
) -> None:
    await count_at_once(client)
    first = await waits_for_a_push(client, hasty)
    once = asyncio.ensure_future(client.run(INCREMENT, [b"once"], again=False, at_once=True))
    twice = asyncio.ensure_future(count_at_once(client))
    await asyncio.sleep(0)
    await hasty.command("CLIENT", "KILL", "SKIPME", "yes")
    with pytest.raises(StoreAway, match="connection lost"):
        await once
    await hasty.command("RPUSH", "list", "x")
    assert await first == [b"list", b"x"]
    assert await twice in (2, 3)


async def _reads(client: StoreClient) -> int:
    facts = (await client.command("INFO", "stats")).decode().split("\r\n")
    return next(int(one.partition(":")[2]) for one in facts if one.startswith("total_reads_processed:"))


# --- replicas ---


@pytest.fixture
def replica_of(tmp_path: Path, unused_tcp_port: int) -> Iterator[tuple[str, int]]:
    """A primary on loopback, the pid of its replica."""
    binary = SYSTEM_REDIS if SYSTEM_REDIS.exists() else find_server()
    common = [str(binary), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path), "--loglevel", "warning"]
    primary = subprocess.Popen([*common, "--port", str(unused_tcp_port), "--repl-diskless-sync-delay", "0"])
    replica = subprocess.Popen(
        [
            *common,
            "--port",
            "0",
            "--unixsocket",
            f"{tmp_path}/replica.sock",
            "--replicaof",
            "127.0.0.1",
            str(unused_tcp_port),
        ]
    )
    yield f"redis://127.0.0.1:{unused_tcp_port}/0", replica.pid
    for process in (replica, primary):
        process.kill()
        process.wait()


async def test_a_write_counts_only_when_a_replica_has_it(replica_of: tuple[str, int], journal: MemoryJournal) -> None:
    url, replica = replica_of
    client = StoreClient(url, journal=journal, timeout=LIMIT, pause=0, replicas=1)
    await ask_until_it_works(client, "SET", "k", "v")
    os.kill(replica, signal.SIGSTOP)
    with pytest.raises(StoreAway, match="0 of 1 replicas"):
        await client.command("SET", "k", "x")
    os.kill(replica, signal.SIGCONT)
    await ask_until_it_works(client, "SET", "k", "y")
    await client.close()


# --- TLS ---


@pytest.fixture
def tls_server(tmp_path: Path, unused_tcp_port: int) -> Iterator[str]:
    """The URL of a server that speaks TLS, its certificate authority to be added."""
    if not SYSTEM_REDIS.exists():
        pytest.skip(f"{SYSTEM_REDIS} is not installed, and the wheel's server has no TLS")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    options = ["--tls-port", str(unused_tcp_port), "--port", "0", "--bind", "127.0.0.1", "--save", ""]
    for name, file in [("cert-file", "server.pem"), ("key-file", "server.pem"), ("ca-cert-file", "ca.pem")]:
        options += [f"--tls-{name}", f"{tmp_path}/{file}"]
    server = subprocess.Popen([SYSTEM_REDIS, *options, "--tls-auth-clients", "no"], cwd=tmp_path)
    yield f"rediss://localhost:{unused_tcp_port}"
    server.kill()
    server.wait()


async def test_a_server_behind_tls_is_asked_only_when_its_certificate_is_good(
    tls_server: str, tmp_path: Path, journal: MemoryJournal
) -> None:
    good = StoreClient(f"{tls_server}?ssl_ca_certs={tmp_path}/ca.pem", journal=journal, timeout=BOUND, pause=0)
    await ask_until_it_works(good)
    assert await good.command("ECHO", "in") == b"in"
    await good.close()
    stranger = StoreClient(tls_server, journal=journal, timeout=BOUND)
    with pytest.raises(StoreAway, match="certificate"):
        await stranger.command("ECHO", "in")
    await stranger.close()


# --- URLs ---


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://a,b",
        "redis+cluster://a:7000",
        "redis+elsewhere://a:7000",
        "http://localhost",
        "",
        "embedded",
        "unix://",
        "redis://:pa/hunter2@localhost",
        "redis://user:1234/hunter2@localhost",
        "redis://localhost:hunter2",
        "unix://:pa/hunter2@/run/redis.sock",
        "redis://localhost/0?socket_timeout=99",
        "redis://localhost/0?ssl_ca_certs=/ca.pem",
        "unix:///run/redis.sock?protocol=3",
        "redis://localhost/?db=hunter2",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_in_words_without_its_password(url: str, journal: MemoryJournal) -> None:
    with pytest.raises(StoreUrlError, match=r"^store: ") as caught:
        StoreClient(url, journal=journal)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("unix:///run/x.sock", "unix:///run/x.sock"),
        ("unix://u:hunter2@/run/x.sock?db=1", "unix:///run/x.sock"),
        ("redis://h:1", "redis://h:1"),
        ("redis://u:hunter2@h:1/2?password=hunter2", "redis://h:1"),
        ("rediss://:hunter2@[2001:db8::1]", "rediss://[2001:db8::1]:6379"),
        ("redis://:pa/hunter2@h", "a malformed URL"),
    ],
)
def test_a_url_is_shown_without_user_password_and_options(url: str, shown: str) -> None:
    assert describe_url(url) == shown
