"""A Redis and a validating resolver, as their makers ship them, each on a free port of 127.0.0.1 with a folder of its own."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from forwarder.cli.demo_lab import free_port
from tests.peers.programs import find

__all__ = ["redis_server", "unbound"]

_UNBOUND = """\
server:
  interface: 127.0.0.1
  port: {port}
  directory: "{folder}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  do-ip6: no
  do-not-query-localhost: no
  # Names under test. are answered by Unbound itself else (RFC 6761).
  local-zone: "test." nodefault
  domain-insecure: "test."
remote-control:
  control-enable: no
forward-zone:
  name: "test."
  forward-addr: {upstream}
"""


@asynccontextmanager
async def redis_server(folder: Path) -> AsyncIterator[str]:
    """Its URL."""
    port = free_port("127.0.0.1")
    options = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--appendonly", "yes")
    async with _running("redis-server", *options, ready=b"Ready to accept connections"):
        yield f"redis://127.0.0.1:{port}"


@asynccontextmanager
async def unbound(folder: Path, upstream: str) -> AsyncIterator[str]:
    """The address of an Unbound that asks ``upstream`` ("ip:port") for everything under test."""
    port = free_port("127.0.0.1")
    config = folder / "unbound.conf"
    config.write_text(_UNBOUND.format(folder=folder, port=port, upstream=upstream.replace(":", "@")))
    async with _running("unbound", "-d", "-p", "-c", str(config), ready=b"start of service"):
        yield f"127.0.0.1:{port}"


@asynccontextmanager
async def _running(program: str, *arguments: str, ready: bytes) -> AsyncIterator[None]:
    """The program, from the line that says ``ready`` to the end of the context."""
    path = find(program)
    assert path is not None
    process = await asyncio.create_subprocess_exec(
        path, *arguments, stdin=DEVNULL, stdout=PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    said = b""
    try:
        async with asyncio.timeout(15):
            while ready not in said:
                line = await process.stdout.readline()
                said += line
                assert line, said.decode("utf-8", "replace")
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        # Reads to the end, so that a full pipe keeps nobody from ending.
        await process.communicate()
