"""Which program of another maker is here, and what does it say? scripts/peers installs them all."""

from __future__ import annotations

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL, PIPE, STDOUT

import pytest

__all__ = ["find", "needs", "run"]

#: Daemons live outside a user's PATH.
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


def find(program: str) -> str | None:
    """Where it is."""
    return shutil.which(program, path=_PATH)


def needs(program: str, package: str | None = None) -> pytest.MarkDecorator:
    """Skip a test on a machine that lacks this program, and say what to do about it."""
    return pytest.mark.skipif(
        find(program) is None, reason=f"{package or program} is not installed: scripts/peers installs it"
    )


async def run(program: str, *arguments: str, seconds: float = 40, stdin: bytes | None = None) -> tuple[int, str]:
    """The exit code, and what was printed on both outputs. The program is killed if it takes longer."""
    path = find(program)
    assert path is not None
    process = await asyncio.create_subprocess_exec(
        path, *arguments, stdin=DEVNULL if stdin is None else PIPE, stdout=PIPE, stderr=STDOUT
    )
    try:
        async with asyncio.timeout(seconds):
            printed, _ = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, printed.decode("utf-8", "replace")
