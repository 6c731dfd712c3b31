"""A disk that loses its power: ext4 in a file, shut down without its journal, so that what was not synced is gone.

What a power cut takes from a real disk is what the kernel had not yet written; the ioctl takes just that. A disk that lies about
its own cache is another matter.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.programs import find, run

__all__ = ["Busy", "Disk", "NotHere", "disk", "needs_disks"]

#: linux/fs/ext4/ext4.h: shut down at once, the journal is not flushed.
_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2
#: Seconds within which nobody may use a disk any more whose power is gone.
_LEAVE = 10.0


def _missing() -> str | None:
    if os.geteuid() != 0:
        return "root"
    if find("mkfs.ext4") is None:
        return "mkfs.ext4 (package e2fsprogs)"
    # A container has neither the device nor the right to mount.
    return None if Path("/dev/loop-control").exists() else "/dev/loop-control"


needs_disks = pytest.mark.skipif(_missing() is not None, reason=f"a disk to cut off needs {_missing()}")


class NotHere(Exception):
    """No loop mount on this machine, and what mount says."""


class Busy(Exception):
    """Somebody still uses the disk: what is found on it afterwards proves nothing."""


@dataclass
class Disk:
    """``at`` is where it is mounted."""

    image: Path
    at: Path

    async def mount(self) -> None:
        """Raises NotHere."""
        code, said = await run("mount", "-o", "loop", str(self.image), str(self.at))
        if code != 0:
            raise NotHere(said)

    def cut(self) -> None:
        """From now on nothing reaches the disk, and nothing that had not reached it is there."""
        handle = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(handle)

    async def back(self) -> None:
        """The power is there again. Raises Busy."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LEAVE
        while (await run("umount", str(self.at)))[0] != 0:
            if loop.time() > deadline:
                raise Busy
            await asyncio.sleep(0.05)
        await self.mount()
        if not self.is_mounted_well():
            raise Busy

    def is_mounted_well(self) -> bool:
        """Once, and alive."""
        mounted = [line for line in Path("/proc/mounts").read_text().splitlines() if f" {self.at} " in line]
        return len(mounted) == 1 and "shutdown" not in mounted[0]


@asynccontextmanager
async def disk(image: Path, at: Path, megabytes: int) -> AsyncIterator[Disk]:
    """An empty one, mounted, with nothing in it; gone with the block."""
    _make(image, at, megabytes)
    code, said = await run("mkfs.ext4", "-q", "-F", str(image))
    assert code == 0, said
    it = Disk(image, at)
    try:
        await it.mount()
    except NotHere as why:
        pytest.skip(f"a disk to cut off needs a loop mount: {why}")
    try:
        yield it
    finally:
        if (await run("umount", str(at)))[0] != 0:
            await run("umount", "-l", str(at))
        os.unlink(image)  # noqa: PTH108 - an awaiting function must not call Path


def _make(image: Path, at: Path, megabytes: int) -> None:
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    at.mkdir()
