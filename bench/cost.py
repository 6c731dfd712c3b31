"""What did a process and its children cost? CPU and memory of a whole tree, as Linux accounts for them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["cpu_ms", "files", "memory_mb", "private_mb", "tree", "without_store"]

_PROC = Path("/proc")


def tree(root: int) -> list[int]:
    """``root`` and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                # The name in brackets may hold anything, brackets too.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    todo = [root]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def without_store(root: int) -> list[int]:
    """``root`` and its workers: what is not the embedded store."""
    return [pid for pid in tree(root) if "python" in _name(pid)]


def _name(pid: int) -> str:
    with suppress(OSError):
        return (_PROC / str(pid) / "exe").readlink().name
    return ""


def files(pid: int) -> int:
    """Open file descriptors of one process."""
    with suppress(OSError):
        return len(list((_PROC / str(pid) / "fd").iterdir()))
    return 0


def cpu_ms(*roots: int) -> float:
    """Milliseconds on a processor so far, of every thread of these trees and of the children that they had and waited for. Those
    of threads that have ended are not in it."""
    total = 0.0
    for root in roots:
        for pid in tree(root):
            with suppress(OSError):
                for thread in (_PROC / str(pid) / "task").iterdir():
                    with suppress(OSError):
                        total += int((thread / "schedstat").read_text().split()[0]) / 1e6
                total += _reaped_ms(pid)
    return total


def _reaped_ms(pid: int) -> float:
    """What the children of a process that are no more have used, and theirs: cutime and cstime of proc(5)."""
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) * 1000 / os.sysconf("SC_CLK_TCK")


def private_mb(pids: list[int]) -> float:
    """Of these processes: pages that each has written to and nobody else has, whatever else runs on the machine."""
    return _memory_mb(pids, "Private_Dirty:")


def memory_mb(root: int, pids: list[int] | None = None) -> float:
    """Proportional set size of the tree, or of ``pids`` of it: shared pages count once."""
    return _memory_mb(tree(root) if pids is None else pids, "Pss:")


def _memory_mb(pids: list[int], kind: str) -> float:
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith(kind):
                    total += int(line.split()[1])
    return total / 1024
