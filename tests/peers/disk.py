"""A small disk that a test can fill."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

__all__ = ["MB", "leave", "small_disk"]

MB = 1 << 20


@contextmanager
def small_disk(folder: Path, octets: int) -> Iterator[Path]:
    """A file system of that size there, while the context lasts."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={octets}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here (root, CAP_SYS_ADMIN): {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        # Whoever still has a file open there does not keep it.
        subprocess.run(["umount", "-l", str(folder)], check=True)


def leave(folder: Path, octets: int) -> Path:
    """A file that takes all but so many octets of it."""
    ballast = folder / "ballast"
    handle = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    try:
        for _ in range(100):
            found = os.statvfs(folder)
            # Somebody may write meanwhile, and then there was less.
            with suppress(OSError):
                os.posix_fallocate(handle, 0, max(found.f_bavail * found.f_frsize - octets, 1))
                return ballast
    finally:
        os.close(handle)
    raise AssertionError("the disk could not be filled")
