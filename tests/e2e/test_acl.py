"""The whole program as a user with our ACL, on a server that writes down whatever it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from forwarder.cli.main import main
from forwarder.store.acl import acl_line
from forwarder.store.client import StoreClient
from forwarder.store.server import EmbeddedStore
from tests.e2e.lab import lab
from tests.fakes import MemoryJournal
from tests.waiting import STEP, until

PASSWORD = "a/password@with:all#of?it"


@asynccontextmanager
async def guarded(folder: Path) -> AsyncIterator[tuple[str, StoreClient]]:
    """A server, its URL without the password, and a client that may do all."""
    server = EmbeddedStore(folder / "guarded", journal=MemoryJournal())
    await server.start()
    admin = StoreClient(server.admin_url, journal=MemoryJournal(), timeout=20)
    try:
        _, user, *rules = acl_line("guest", PASSWORD.encode()).split()
        await admin.command("ACL", "SETUSER", user, *rules)
        yield server.admin_url.replace("unix://", "unix://guest@"), admin
    finally:
        await admin.close()
        await server.stop()


async def refused(admin: StoreClient) -> list[bytes]:
    """What the server has refused to anybody. Its settings hold its passwords: they are not for us."""
    entries = [dict(zip(one[::2], one[1::2], strict=True)) for one in await admin.command("ACL", "LOG")]
    return [one[b"object"] for one in entries if not one[b"object"].startswith(b"config")]


async def test_mail_bounces_the_queue_and_the_commands_need_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    password.chmod(0o600)
    async with guarded(tmp_path) as (url, admin):
        top = 'store_password_file = "password"'
        extra = '[domains."held.test"]\nhold = "always"\n[domains."held.test".aliases]\nalias = ["one@other.test"]\n'
        async with lab(tmp_path, store=url, top=top, extra=extra, relay="tls_reports = true") as it:
            sent = it.signed()
            assert (await it.send(sent)).startswith("250")
            arrived = await it.next(it.sink)
            assert (await it.bounce(arrived)).startswith("250")
            assert (await it.next(it.sender)).sender == ""
            # One that has to wait: nobody is at other.test.
            held = it.signed(recipients=("alias@held.test",))
            reply = await it.send(held, recipient="alias@held.test")
            assert reply.startswith("250"), it.events("store_refused")
            await until(lambda: bool(it.events("queue.outcome")))
            long = "bob.with.a.very.long.local.part.that.fits.nowhere@sender.test"
            assert (await it.send(it.signed(sender=long), sender=long)).startswith("250")
            assert (await it.bounce(await it.next(it.sink))).startswith("250")
            assert it.app.standings is not None
            await it.app.standings.refresh()
            await it.app.report_tls(it.app.clock.now().date())

            config = ["--config", str(tmp_path / "forwarder.toml")]
            commands: list[list[str]] = [
                ["queue", "ls", *config],
                ["queue", "summary", *config],
                ["queue", "hold", "--all", *config],
                ["queue", "release", "--all", *config],
                ["queue", "export", "--all", "--remove", "--output", str(tmp_path / "queue.jsonl"), *config],
                ["queue", "import", str(tmp_path / "queue.jsonl"), *config],
                ["queue", "drop", "--all", *config],
                ["reputation", "block", "sender.test", *config],
                ["reputation", "ls", *config],
                ["reputation", "forgive", "sender.test", *config],
                ["srs", "secrets", "status", *config],
                ["destinations", "pause", "one@other.test", *config],
                ["destinations", "ls", *config],
                ["destinations", "resume", "one@other.test", *config],
            ]
            for words in commands:
                assert await asyncio.to_thread(main, words) == 0, (words, capsys.readouterr().err)
            # What is told of a message is put down behind it.
            for _ in range(200):
                if not await asyncio.to_thread(main, ["trace", "bob@sender.test", *config]):
                    break
                await asyncio.sleep(STEP)
            else:
                pytest.fail(capsys.readouterr().err)
            assert not it.events("store_refused")
        assert await refused(admin) == []
    assert PASSWORD not in repr(it.journal.events)
