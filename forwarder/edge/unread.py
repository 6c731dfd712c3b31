"""Has the client read our 250? Only what TCP proves counts: docs/decisions/0036.

    a further command   it came after the client's kernel acknowledged the answer, and nothing of it lay here before
    an orderly end      FIN, with all of ours acknowledged: a socket that is closed over unread octets is reset instead
                        (RFC 1122 section 4.2.2.13, RFC 2525 section 2.17)

What was sent along with the final dot, an end that came before the answer, a reset and silence prove nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import struct
import termios
from collections.abc import Callable

__all__ = ["Unread"]

#: Messages of one session whose answers wait to be read; those beyond are not noted.
MAX_UNREAD = 64
_NUMBER = struct.Struct("i")


class Unread:
    """The messages of one session that were answered 250, over the socket of this number. ``heard`` is told each one whose
    answer was read."""

    __slots__ = ("_descriptor", "_heard", "_left", "_quiet", "_ready", "messages")

    def __init__(self, heard: Callable[[str], None], descriptor: int) -> None:
        self._heard = heard
        self._descriptor = descriptor
        self._ready: select.poll | None = None
        self.messages: list[str] = []
        #: Has the answer left?
        self._left = False
        #: Was there nothing of the client's when it did?
        self._quiet = False

    def said(self, message: str) -> None:
        """Its 250 is to leave."""
        if len(self.messages) < MAX_UNREAD:
            self.messages.append(message)
            self._left = False

    def leaves(self, *, buffered: bool) -> None:
        """All that was said is about to leave. ``buffered``: octets of the client lie here, sent before it can have read this."""
        waiting = self._waiting()
        if waiting & select.POLLRDHUP:
            self.messages.clear()
        self._left = True
        self._quiet = not (buffered or waiting)

    def spoken(self, transport: asyncio.Transport) -> None:
        """More octets came."""
        if self._left and self._quiet and self._unacknowledged(transport) == 0:
            self._all_read()
        # What comes behind octets that were on their way may have been on its way as well.
        self._quiet = False

    def ended(self, transport: asyncio.Transport, *, parting: bool) -> None:
        """The client has closed its side. ``parting``: ours is closed, and its FIN may be unacknowledged."""
        if self._left and 0 <= self._unacknowledged(transport) <= parting:
            self._all_read()

    def _all_read(self) -> None:
        for one in self.messages:
            self._heard(one)
        self.messages.clear()

    def _waiting(self) -> int:
        """What lies in the kernel: POLLIN where there are octets, with POLLRDHUP where the client has closed its side."""
        try:
            if self._ready is None:
                self._ready = select.poll()
                self._ready.register(self._descriptor, select.POLLIN | select.POLLRDHUP)
            events = self._ready.poll(0)
        except (OSError, ValueError):
            return select.POLLRDHUP
        return events[0][1] if events else 0

    def _unacknowledged(self, transport: asyncio.Transport) -> int:
        """Octets of ours that the client's kernel has not acknowledged; -1: nobody knows."""
        try:
            octets = fcntl.ioctl(self._descriptor, termios.TIOCOUTQ, bytes(_NUMBER.size))
        except (OSError, ValueError):
            return -1
        sent: int = _NUMBER.unpack(octets)[0]
        return sent + transport.get_write_buffer_size()
