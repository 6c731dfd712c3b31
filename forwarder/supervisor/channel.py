"""What do the supervisor and its children tell each other? One JSON object a packet, with descriptors where it says so.

    to a worker     {"do": "ping"}                           and it answers {"is": "alive"}
                    {"do": "prepare", "mail": …, "web": …}   {"is": "prepared", "digest": …} or {"is": "refused", "reason": …}
                    {"do": "commit"}                         {"is": "committed"} or {"is": "refused", "reason": …}
                    {"do": "abandon"}, {"do": "stop"}
    from a child    {"is": "ready"} or {"is": "failed", "reason": …}

``mail`` and ``web`` name sockets that are open from now on, in the order in which their descriptors come along: [address, which
of those alike]. The end of the channel is the end of the other side.
"""

from __future__ import annotations

import array
import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

__all__ = ["Channel", "Packet"]

#: Octets of one packet, and descriptors with it (the kernel's own limit is 253).
_MOST = 65_536
_MOST_FDS = 250


class Packet(NamedTuple):
    """``sockets`` belong to whoever has the packet."""

    words: dict[str, Any]
    sockets: list[socket.socket]


class Channel:
    """One end. Neither end waits for the other."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.setblocking(False)

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        # SOCK_SEQPACKET keeps packets apart and tells of the end; macOS has none.
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, words: dict[str, Any], sockets: Sequence[socket.socket] = ()) -> bool:
        """False: the other side is gone, or so far behind that it must be taken for gone."""
        fds = array.array("i", [one.fileno() for one in sockets])
        told = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
        try:
            self._end.sendmsg([json.dumps(words).encode()], told)
        except OSError:
            return False
        return True

    def receive(self) -> Packet | None:
        """``None``: the other side is gone. Raises BlockingIOError where nothing has come."""
        try:
            data, fds, _, _ = socket.recv_fds(self._end, _MOST, _MOST_FDS)
        except BlockingIOError:
            raise
        except OSError:
            return None
        sockets = [socket.socket(fileno=one) for one in fds]
        for one in sockets:
            # recv_fds takes flags and leaves MSG_CMSG_CLOEXEC out.
            one.set_inheritable(False)
        if not data:
            return None
        return Packet(json.loads(data), sockets)

    def close(self) -> None:
        """Safe to call at any time."""
        with suppress(OSError):
            self._end.close()
