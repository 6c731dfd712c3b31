"""A Redis, a signing name server and a validating resolver, as their makers ship them, each on a free port of 127.0.0.1 with a
folder of its own."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from forwarder.cli.demo_lab import free_port
from tests.peers.programs import find, run

__all__ = ["knot", "redis_server", "unbound"]

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
  {trust}
remote-control:
  control-enable: no
forward-zone:
  name: "test."
  forward-addr: {upstream}
"""

_KNOT = """\
server:
  listen: 127.0.0.1@{port}
  rundir: {folder}
database:
  storage: {folder}
log:
  - target: stderr
    any: info
zone:
"""
_KNOT_ZONE = """\
  - domain: {name}.
    file: {folder}/{name}.zone
    dnssec-signing: {signed}
    zonefile-sync: -1
    journal-content: none
"""


@asynccontextmanager
async def redis_server(folder: Path) -> AsyncIterator[str]:
    """Its URL."""
    port = free_port("127.0.0.1")
    options = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--appendonly", "yes")
    async with _running("redis-server", *options, ready=b"Ready to accept connections"):
        yield f"redis://127.0.0.1:{port}"


@asynccontextmanager
async def unbound(folder: Path, upstream: str, anchor: str | None = None) -> AsyncIterator[str]:
    """The address of an Unbound that asks ``upstream`` ("ip:port") for everything under test., and believes what ``anchor`` (a
    DNSKEY record of test.) signs; without one, nothing there is signed."""
    port = free_port("127.0.0.1")
    config = folder / "unbound.conf"
    trust = f'trust-anchor: "{anchor}"' if anchor else 'domain-insecure: "test."'
    config.write_text(_UNBOUND.format(folder=folder, port=port, upstream=upstream.replace(":", "@"), trust=trust))
    async with _running("unbound", "-d", "-p", "-c", str(config), ready=b"start of service"):
        yield f"127.0.0.1:{port}"


@asynccontextmanager
async def knot(folder: Path, signed: str, unsigned: Mapping[str, str]) -> AsyncIterator[tuple[str, str]]:
    """Its address, and the DNSKEY of test. that all else rests on. ``signed`` is what stands in test., ``unsigned`` are zones
    below it; how they are delegated stands in ``signed``."""
    port = free_port("127.0.0.1")
    config = folder / "knot.conf"
    text = _KNOT.format(folder=folder, port=port)
    for name, records in {"test": signed, **unsigned}.items():
        text += _KNOT_ZONE.format(folder=folder, name=name, signed="on" if name == "test" else "off")
        head = f"{name}. 300 IN SOA ns.test. hostmaster.test. 1 3600 600 86400 300\n{name}. 300 IN NS ns.test.\n"
        (folder / f"{name}.zone").write_text(f"{head}{records}\n")
    config.write_text(text)
    async with _running("knotd", "-c", str(config), ready=b"server started"):
        code, printed = await run("keymgr", "-c", str(config), "test.", "dnskey")
        assert code == 0, printed
        yield f"127.0.0.1:{port}", printed.strip().splitlines()[-1]


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
