"""A milter on loopback: Sendmail's libmilter, by Debian's python3-milter, in a process of its own.

The message says what it does: ``X-Test: reject`` (``tempfail``, ``discard``, ``quarantine``, ``reply``, ``change``, ``die``).
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest

from forwarder.cli.demo_lab import free_port

__all__ = ["milter", "needs_milter"]

#: The one that Debian's packages are for.
_PYTHON = "/usr/bin/python3"

_PROGRAM = '''\
import os
import sys

import Milter


class Test(Milter.Base):
    """Tells what it was told."""

    def __init__(self):
        self.id = Milter.uniqueID()
        self.wish, self.told, self.size = "", [], 0

    def connect(self, name, family, address):
        self.told.append(f"connect {name} {address[0]}")
        return Milter.CONTINUE

    def hello(self, name):
        self.told.append(f"helo {name}")
        return Milter.CONTINUE

    def envfrom(self, sender, *rest):
        self.told.append(f"mail {sender} {self.getsymval('i') or ''}")
        return Milter.CONTINUE

    def envrcpt(self, to, *rest):
        self.told.append(f"rcpt {to}")
        return Milter.CONTINUE

    def header(self, name, value):
        if name == "X-Test":
            self.wish = value
        if name == "X-Folded":
            self.told.append(f"folded {value!r}")
        return Milter.CONTINUE

    def body(self, chunk):
        self.size += len(chunk)
        return Milter.CONTINUE

    def eom(self):
        if self.wish == "die":
            os._exit(1)
        if self.wish == "reply":
            self.setreply("554", "5.7.9", "a word of the filter")
            return Milter.REJECT
        if self.wish == "quarantine":
            self.quarantine("it looks odd")
        if self.wish == "change":
            self.chgheader("Subject", 1, "another one")
            self.replacebody(b"nobody wrote this\\r\\n" * 9000)
            self.addrcpt("<else@sink.test>")
            self.delrcpt("<alias@fwd.test>")
            self.chgfrom("<else@sender.test>")
        self.addheader("X-Test-Told", "; ".join(self.told) + f"; body {self.size}", -1)
        self.addheader("X-Test-Folded", "one\\n two", 0)
        return {"reject": Milter.REJECT, "tempfail": Milter.TEMPFAIL, "discard": Milter.DISCARD}.get(
            self.wish, Milter.ACCEPT
        )


Milter.factory = Test
Milter.set_flags(
    Milter.ADDHDRS | Milter.CHGHDRS | Milter.CHGBODY | Milter.ADDRCPT | Milter.DELRCPT | Milter.CHGFROM | Milter.QUARANTINE
)
Milter.runmilter("test", sys.argv[1], 60)
'''


@cache
def _is_there() -> bool:
    try:
        return (
            subprocess.run([_PYTHON, "-c", "import Milter"], check=False, capture_output=True, timeout=20).returncode
            == 0
        )
    except OSError:
        return False


needs_milter = pytest.mark.skipif(not _is_there(), reason="python3-milter is not installed: scripts/peers installs it")


@asynccontextmanager
async def milter(*, unix: bool = False) -> AsyncIterator[str]:
    """The socket of one, as the configuration names it."""
    with tempfile.TemporaryDirectory(prefix="milter") as name:
        (Path(name) / "program.py").write_text(_PROGRAM)
        port = free_port("127.0.0.1")
        # libmilter's own spelling has the port first.
        theirs, ours = (
            (f"unix:{name}/socket", f"unix:{name}/socket")
            if unix
            else (f"inet:{port}@127.0.0.1", f"inet:127.0.0.1:{port}")
        )
        process = await asyncio.create_subprocess_exec(
            _PYTHON, f"{name}/program.py", theirs, stdout=PIPE, stderr=STDOUT
        )
        try:
            await _listening(ours, process)
            yield ours
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def _listening(socket: str, process: asyncio.subprocess.Process) -> None:
    kind, _, place = socket.partition(":")
    host, _, port = place.rpartition(":")
    async with asyncio.timeout(15):
        while process.returncode is None:
            try:
                _, writer = await (
                    asyncio.open_unix_connection(place) if kind == "unix" else asyncio.open_connection(host, int(port))
                )
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
    raise AssertionError("the milter has ended")
