"""The embedded store's file is damaged: may it be cut off there?

A power cut can leave half of what was being written at the end of the file. Nobody was told that this was kept, so it may go.
Damage before that is another matter: what is behind it was kept, and would go too. The two are told apart by what is behind
the damage: the half of one step, or whole ones.

    torn    a step begins and does not end, or its octets make no sense, and no other step is behind it
    damaged anything else: somebody has to decide

What is cut off is put aside and never deleted. The server's own reader finds the place: its binary is ``valkey-check-aof`` too,
when it is called so.
"""

from __future__ import annotations

import asyncio
import os
import re
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Damage", "cut_off", "find_damage"]

#: Octets behind the damage that are looked through. One step is smaller by far.
MAX_TORN = 64 << 20
#: Seconds for the reader: a gigabyte takes a few.
_CHECK_LIMIT = 600.0

_PLACE = re.compile(rb"size=(\d+), ok_up_to=(\d+)")
_NEWEST = re.compile(r"^file (\S+) seq (\d+) type i\b", re.MULTILINE)
#: How the server writes a command, and the beginning and the end of a step of several.
_COMMAND = re.compile(rb"\r\n\*[0-9]+\r\n\$[0-9]+\r\n")
_BEGIN, _END = b"*1\r\n$5\r\nMULTI\r\n", b"\r\n*1\r\n$4\r\nEXEC\r\n"


@dataclass(frozen=True, slots=True)
class Damage:
    """``intact`` octets of ``size`` can be read."""

    file: Path
    intact: int
    size: int
    torn: bool


async def find_damage(binary: Path, directory: Path) -> Damage | None:
    """In the file that is written to; ``None``: there is none, or nobody can tell where. ``directory`` is the server's."""
    folder = directory / "appendonlydir"
    try:
        manifest = (folder / "appendonly.aof.manifest").read_text("ascii", "replace")
    except OSError:
        return None
    found = _NEWEST.findall(manifest)
    if not found:
        return None
    file = folder / Path(max(found, key=lambda one: int(one[1]))[0]).name
    place = _PLACE.search(await _check(binary, file))
    if place is None:
        return None
    size, intact = int(place[1]), int(place[2])
    return Damage(file, intact, size, _is_torn(file, intact, size)) if intact < size else None


def cut_off(damage: Damage, directory: Path) -> Path:
    """Put what is behind the damage into a file of ``directory`` and take it off. Returns that file. Raises OSError."""
    aside = directory / f"cut-off-{damage.file.stat().st_mtime_ns}.aof"
    with damage.file.open("rb") as file, aside.open("wb") as tail:
        file.seek(damage.intact)
        tail.write(file.read())
        tail.flush()
        os.fsync(tail.fileno())
    with damage.file.open("rb+") as file:
        file.truncate(damage.intact)
        os.fsync(file.fileno())
    return aside


async def _check(binary: Path, file: Path) -> bytes:
    name = "redis-check-aof" if "redis" in binary.name else "valkey-check-aof"
    process = await asyncio.create_subprocess_exec(
        name, str(file), executable=binary, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
    )
    try:
        async with asyncio.timeout(_CHECK_LIMIT):
            printed, _ = await process.communicate()
    except TimeoutError:
        return b""
    finally:
        if process.returncode is None:
            process.kill()
    return printed


def _is_torn(file: Path, intact: int, size: int) -> bool:
    if size - intact > MAX_TORN:
        return False
    with file.open("rb") as opened:
        opened.seek(intact)
        tail = opened.read()
    if tail.startswith(_BEGIN):
        return _END not in tail
    return not tail.startswith(_END[2:]) and _COMMAND.search(tail) is None
