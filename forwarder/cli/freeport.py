"""Which port is free, and stays so until somebody listens there?

A port that the system was asked for (port 0) and that was let go again is its to give to anybody: to a connection that leaves
from the same address, to somebody else's port 0. Between asking and listening a store starts and keys are made. So ports are
taken from below those that systems give out by themselves, and each process takes from a row of its own.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from functools import cache
from itertools import cycle, islice

__all__ = ["free_port"]

#: Ports of one process. A connection that was closed keeps a port for a minute.
_ROW = 200
#: The first port of each row. Linux gives out 32768 and more, others what RFC 6335 section 6 says: 49152 and more.
_ROWS = range(10000, 32768 - _ROW + 1, _ROW)


def free_port(*hosts: str) -> int:
    """A TCP port that is free on all of these addresses. Raises OSError."""
    for port in islice(_ports(), _ROW):
        try:
            for host in hosts:
                with socket.socket() as probe:
                    probe.bind((host, port))
        except OSError:
            continue
        return port
    raise OSError(f"no port is free on all of {', '.join(hosts)}")


@cache
def _ports() -> Iterator[int]:
    """Those of this process, over and over again."""
    for first in random.sample(_ROWS, len(_ROWS)):
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", first))
        except OSError:
            holder.close()
            continue
        # Open as long as the process lives, so that no other has this row.
        holder.detach()
        return cycle(range(first + 1, first + _ROW))
    raise OSError("every row of ports has its process")
