"""Which listening sockets has each worker? One of its own for each address, open here for as long as the address is served.

The kernel spreads those who connect over the sockets of an address (SO_REUSEPORT). As they are the supervisor's, nobody is lost
with a worker that dies: who waits on its socket is taken by the one that is started in its place. Sockets that the service
manager passed are dealt out; where there are fewer than workers, several have the same one, and whoever is first takes a client.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from forwarder.app import Passed, StartError
from forwarder.app.sockets import Key, keys_of, name_of
from forwarder.edge.server import bind

__all__ = ["Listeners", "Rows"]

#: For each address the sockets, one a worker in order (the same one several times where it is passed and single).
Rows = dict[Key, list[socket.socket]]


class Listeners:
    """Those of one kind, mail or web."""

    def __init__(self, passed: Passed, workers: int, send_away: Callable[[socket.socket], None]) -> None:
        """``send_away`` tells whoever waits on a socket to come later."""
        self._send_away = send_away
        self._passed = passed
        self._workers = workers
        self._rows: Rows = {}
        self._theirs: set[Key] = set()

    def open(self, addresses: Sequence[str]) -> Rows:
        """On all of them; what is open already stays. Raises StartError, and then nothing is changed."""
        rows: Rows = {}
        for key in keys_of(addresses):
            try:
                rows[key] = self._rows[key] if key in self._rows else self._open(key)
            except OSError as error:
                self.discard(rows)
                raise StartError(f"cannot listen on {key[0]}: {error.strerror or error}") from error
        return rows

    def _open(self, key: Key) -> list[socket.socket]:
        address, number = key
        # One passed socket for each of those alike that is left; all of them, where the address is named once.
        if passed := self._passed.all(address, number):
            self._theirs.add(key)
            return [passed[index % len(passed)] for index in range(self._workers)]
        # With SO_REUSEPORT a second service would be let in on the same address, and get half of the mail.
        bind(address, listen=False).close()
        row: list[socket.socket] = []
        try:
            for _ in range(self._workers):
                row.append(bind(name_of(row[0]) if row else address, reuse_port=True))
        except OSError:
            _close(row)
            raise
        return row

    def new(self, rows: Rows) -> list[Key]:
        """Those that are not served yet."""
        return [key for key in rows if key not in self._rows]

    def discard(self, rows: Rows) -> None:
        """They will not be used."""
        for key in self.new(rows):
            _close(rows[key])
            self._theirs.discard(key)

    def adopt(self, rows: Rows) -> None:
        """Listen here and nowhere else."""
        for key, row in self._rows.items():
            if key in rows:
                continue
            if key not in self._theirs:
                for sock in row:
                    # The workers' duplicates may be open for a moment: nobody connects to them.
                    with suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)
            _close(row)
            self._theirs.discard(key)
        self._rows = rows

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where we listen."""
        return tuple(name_of(row[0]) for row in self._rows.values())

    def row_of(self, index: int, rows: Rows | None = None) -> dict[Key, socket.socket]:
        """What the worker of this index has."""
        return {key: row[index] for key, row in (self._rows if rows is None else rows).items()}

    def send_away(self, index: int) -> list[tuple[socket.socket, Callable[[], None]]]:
        """Its sockets that nobody else accepts on, with what tells those who connect to come later."""
        return [
            (row[index], functools.partial(self._send_away, row[index]))
            for key, row in self._rows.items()
            if key not in self._theirs
        ]

    def leave_all_but(self, index: int | None) -> None:
        """In a child: close what is others'."""
        for row in self._rows.values():
            for sock in row:
                if index is None or sock is not row[index]:
                    sock.close()

    def close(self) -> None:
        """Listen nowhere. Who waits, and was taken by nobody, is sent away; on passed sockets the next start takes them."""
        for key, row in self._rows.items():
            if key not in self._theirs:
                for sock in row:
                    self._send_away(sock)
        self.adopt({})


def _close(row: Sequence[socket.socket]) -> None:
    for sock in row:
        sock.close()
