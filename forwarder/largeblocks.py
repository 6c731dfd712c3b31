"""How does a large message grow in memory? In a mapping of its own, which the system extends without copying it.

glibc does so for what is large, and by itself takes back what it calls large: once 29 MB were given back, up to that size is cut
from its heap, where to grow is to copy, 5 to 10 ms for each eighth of such a message, with the event loop waiting; and what is
given back there stays with the process.
"""

from __future__ import annotations

import sys
from contextlib import suppress

__all__ = ["map_large_blocks"]

#: Octets from which on a block has a mapping of its own. A smaller one is used again sooner than the system could give another.
LARGE = 4 * 1024 * 1024
#: mallopt(3).
_M_MMAP_THRESHOLD = -3


def map_large_blocks() -> bool:
    """From now on, in this process and in those that it becomes. False: its C library knows no such thing."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only where it is needed

        with suppress(OSError, AttributeError):
            return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE))
    return False
