"""Does a user with our ACL do all that the program does, and nothing else?"""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from forwarder.cli.main import main
from forwarder.ports import StoreAway
from forwarder.store.acl import COMMANDS, NOT_NEEDED, acl_line
from forwarder.store.client import StoreClient
from forwarder.store.records import HASH_TAG
from forwarder.store.server import EmbeddedStore
from forwarder.store.traces import CLUSTER_TAGS
from tests.fakes import MemoryJournal
from tests.store.servers import BOUND
from tests.suites import ROOT


def sent_by_us() -> Iterator[str]:
    """The commands of the source: what the scripts call, and what goes through ``StoreClient.command``."""
    for path in (ROOT / "forwarder" / "store" / "scripts").glob("*.lua"):
        yield from re.findall(r"redis\.p?call\('([A-Z]+)'", path.read_text())
    for path in (ROOT / "forwarder").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "command":
                first = node.args[0]
                if isinstance(first, ast.Starred):
                    continue  # passed on
                assert isinstance(first, ast.Constant), f"{path}:{node.lineno}: which command?"
                yield str(first.value)
    yield from ("EVAL", "EVALSHA", "WAIT", "SELECT", "ROLE", "CLUSTER|SHARDS")  # the client's own


def test_the_list_is_what_the_source_sends() -> None:
    assert {one.lower() for one in sent_by_us()} - NOT_NEEDED == set(COMMANDS)


@pytest.fixture
async def ours(client: StoreClient, server: EmbeddedStore) -> AsyncIterator[StoreClient]:
    _, user, *rules = acl_line("guest", b"hunter2hunter2").split()
    assert await client.command("ACL", "SETUSER", user, *rules) == b"OK"
    url = server.admin_url.replace("unix://", "unix://guest:hunter2hunter2@")
    user_client = StoreClient(url, journal=MemoryJournal(), timeout=BOUND, pause=0)
    yield user_client
    await user_client.close()


@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",),
        ("FLUSHDB",),
        ("CONFIG", "GET", "requirepass"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("SAVE",),
        ("SHUTDOWN",),
        ("DEBUG", "SLEEP", "0"),
        ("ACL", "LIST"),
        ("SCRIPT", "FLUSH"),
        ("REPLICAOF", "127.0.0.1", "1"),
        ("PUBLISH", "c", "x"),
        ("GET", "others"),
        ("SET", "{fw0}:x", "y"),
        ("SET", "{fwd}:x", "y"),
        ("SET", "{fwdings}:1", "y"),
        ("SET", "{fwds1}:x", "y"),
        ("EVAL", "return redis.call('FLUSHALL')", "0"),
        ("EVAL", "return redis.call('SET', 'others', 'x')", "0"),
        ("EVAL", "return redis.call('CONFIG', 'GET', 'dir')", "0"),
    ],
    ids=" ".join,
)
async def test_what_is_not_ours_is_refused(
    client: StoreClient, ours: StoreClient, server: EmbeddedStore, command: tuple[str, ...]
) -> None:
    await client.command("SET", "others", "theirs")
    on_our_own_server = StoreClient(server.url, journal=MemoryJournal(), timeout=BOUND, pause=0)
    for user in (ours, on_our_own_server):
        with pytest.raises(StoreAway, match=r"NOPERM|ACL|not allowed|user executing the script can't"):
            await user.command(*command)
    await on_our_own_server.close()
    assert await client.command("GET", "others") == b"theirs"


async def test_all_hash_tags_are_ours(ours: StoreClient) -> None:
    for tag in (HASH_TAG, *CLUSTER_TAGS):
        await ours.command("SET", tag + b":x", "y")
    assert await ours.command("MGET", *(tag + b":x" for tag in CLUSTER_TAGS)) == [b"y"] * len(CLUSTER_TAGS)


@pytest.mark.usefixtures("ours")
async def test_a_wrong_password_is_told_and_not_shown(server: EmbeddedStore) -> None:
    journal = MemoryJournal()
    stranger = StoreClient(server.admin_url.replace("unix://", "unix://guest:guess@"), journal=journal, timeout=BOUND)
    with pytest.raises(StoreAway):
        await stranger.command("GET", "{fwd0}:x")
    await stranger.close()
    assert "guess" not in repr(journal.events)


@pytest.mark.parametrize(
    ("written", "user"),
    [
        ('store = "rediss://forwarder@store.test:6380"\nstore_password_file = "password"\n', "forwarder"),
        ('store = "rediss://store.test"\nstore_password_file = "password"\n', "default"),
        ('store = "rediss://fwd%40x:p%2Fss@store.test"\n', "fwd@x"),
    ],
)
def test_the_command_prints_the_line_for_the_configured_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], written: str, user: str
) -> None:
    config = configured(tmp_path, written)
    assert main(["store", "acl", "--config", str(config)]) == 0
    assert capsys.readouterr().out == acl_line(user, b"p/ss") + "\n"


def test_without_a_password_there_is_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "acl", "--config", str(configured(tmp_path, ""))]) == 1
    assert "store_password_file" in capsys.readouterr().err


def configured(folder: Path, written: str) -> Path:
    (folder / "secret").write_text("a secret of sixteen octets\n")
    (folder / "password").write_text("p/ss\n")
    config = folder / "forwarder.toml"
    config.write_text(f'hostname = "mx.fwd.test"\n{written}[srs]\ndomain = "fwd.test"\nsecret_file = "secret"\n')
    for one in folder.iterdir():
        one.chmod(0o600)
    return config
