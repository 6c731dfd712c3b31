"""The whole program as a process that can be killed: started, killed with -9, started again, on the same state."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forwarder.cli import demo_lab
from tests.suites import ROOT
from tests.waiting import PATIENT

LISTEN, SINK, SOURCE = "127.0.0.25", "127.0.0.50", "127.0.0.10"

CONFIG = """\
hostname = "{hostname}"
listen = ["{listen}:{port}"]
state_dir = "state"
store = "{store}"
store_timeout = {store_timeout}
[srs]
domain = "fwd.test"
secret_file = "keys/srs.secret"
[dns]
zone_file = "zone.json"
[[keys.dkim]]
domain = "fwd.test"
selector = "ed"
key = "keys/fwd.ed25519.pem"
[relay]
port = {port}
allow_private = true
{relay}
[queue]
first_retry = {retry[0]}
max_retry = {retry[1]}
lease = {lease}
{queue}
[domains."fwd.test".aliases]
alias = ["dest@sink.test"]
{aliases}
"""
ZONE = {
    "sender.test": {"TXT": ["v=spf1 ip4:127.0.0.0/8 -all"], "MX": ["10 mx.sender.test"]},
    "mx.sender.test": {"A": [SOURCE]},
    "sink.test": {"MX": ["10 mx.sink.test"]},
    "mx.sink.test": {"A": [SINK]},
}


@dataclass
class Service:
    """``events`` are those that the log has told so far, over all lives of the process."""

    folder: Path
    port: int
    host: str = LISTEN
    process: asyncio.subprocess.Process | None = None
    kills: int = 0
    log: list[Path] = field(default_factory=list)

    async def start(self, **environment: str) -> None:
        """Returns when it listens."""
        await self.spawn(**environment)
        assert self.process is not None
        async with asyncio.timeout(30):
            while not await self._listens():
                if self.process.returncode is not None:
                    raise AssertionError(self.log[-1].read_text()[-2000:])
                await asyncio.sleep(0.05)

    async def spawn(self, **environment: str) -> None:
        """Returns at once; ``environment`` is for this life only."""
        self.log.append(self.folder / f"log.{len(self.log)}")
        with self.log[-1].open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", "forwarder", "serve", "--config", str(self.folder / "forwarder.toml")),
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
            )

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        writer.close()
        return True

    async def kill(self) -> None:
        """-9: nothing is flushed, nothing is said."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()
        self.kills += 1

    async def died(self, seconds: float = 30) -> None:
        """Returns when it has ended by itself, as by -9."""
        assert self.process is not None
        async with asyncio.timeout(seconds):
            assert await self.process.wait() == -signal.SIGKILL, self.log[-1].read_text()[-2000:]
        self.kills += 1

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            async with asyncio.timeout(40):
                await self.process.wait()

    def events(self, name: str) -> list[dict[str, Any]]:
        wanted = f'"{name}"'.encode()
        lines = [line for log in self.log for line in log.read_bytes().splitlines() if wanted in line]
        # A line that the kill cut in two is none.
        found = [json.loads(line) for line in lines if line.endswith(b"}")]
        return [one for one in found if one.get("event") == name]


@asynccontextmanager
async def service(
    folder: Path,
    *,
    store: str = "embedded",
    store_timeout: float = PATIENT,
    relay: str = "",
    queue: str = "",
    aliases: str = "",
    lease: float = 2,
    retry: tuple[float, float] = (0.2, 1),
    start: bool = True,
    hostname: str = "mx.fwd.test",
    host: str = LISTEN,
    port: int | None = None,
) -> AsyncIterator[Service]:
    """Configured and started; ended with the block. ``retry``: seconds until the first, and between any two at most. Keys that
    are there are used. ``store_timeout``: seconds; HASTY for what is about a store that does not answer."""
    if not (folder / "keys").exists():
        demo_lab.make_keys(folder / "keys")
    port = port or demo_lab.free_port(host, SINK, SOURCE)
    (folder / "zone.json").write_text(json.dumps(ZONE))
    (folder / "forwarder.toml").write_text(
        CONFIG.format(
            hostname=hostname,
            listen=host,
            port=port,
            store=store,
            store_timeout=store_timeout,
            relay=relay,
            queue=queue,
            aliases=aliases,
            lease=lease,
            retry=retry,
        )
    )
    it = Service(folder, port, host)
    try:
        if start:
            await it.start()
        yield it
    finally:
        await it.stop()
