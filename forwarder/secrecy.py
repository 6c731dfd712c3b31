"""Can anybody read our keys out of our memory? Not from a core file, and not by another process of our own user.

A limit of no octets for core files is not heeded where the kernel hands them to a program (``core_pattern`` with a pipe, which is
what systemd sets): only a process that is not dumpable has none. It cannot be traced by others of its user either (ptrace(2),
/proc/PID/mem), and ``/proc/PID/environ`` and ``fd`` are root's.
"""

from __future__ import annotations

import resource
import sys
from contextlib import suppress

__all__ = ["hide_memory"]

#: prctl(2).
_PR_SET_DUMPABLE = 4


def hide_memory() -> None:
    """Of this process; those that it starts have no core files. Never raises: what the system refuses stays as it is."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only where it is needed

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
