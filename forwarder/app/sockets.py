"""On which sockets do we listen? They outlive a reload: a connection that nobody has taken yet is taken after it."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from forwarder.app.activation import Passed, endpoint_of, name_of
from forwarder.app.errors import StartError
from forwarder.edge.server import bind

__all__ = ["Key", "Listening", "Sockets", "Table", "endpoint_of", "keys_of", "name_of", "open_here"]

#: Address as configured, and which of those alike (port 0 is another port each time).
Key = tuple[str, int]


class Listening(NamedTuple):
    """``shared``: others have it too (the service manager, other workers). Giving it up ends nothing for them."""

    sock: socket.socket
    shared: bool = False


Table = dict[Key, Listening]


def keys_of(addresses: Sequence[str]) -> Iterator[Key]:
    """One for each, in order."""
    seen: Counter[str] = Counter()
    for address in addresses:
        yield address, seen[address]
        seen[address] += 1


def open_here(passed: Passed) -> Callable[[Key], Listening]:
    """Where this process listens by itself: what was passed to it, else a socket of its own."""

    def open_one(key: Key) -> Listening:
        for sock in passed.all(*key)[:1]:
            return Listening(sock, shared=True)
        return Listening(bind(key[0]))

    return open_one


class Sockets:
    """What is open for one kind of listener. What is handed out are duplicates: ours stays open until it is given up."""

    def __init__(self, open_one: Callable[[Key], Listening]) -> None:
        """``open_one`` may raise OSError."""
        self._open_one = open_one
        self._bound: Table = {}

    def bind(self, addresses: Sequence[str]) -> Table:
        """Listening on all of them; what listens already stays as it is. Raises StartError, and then nothing is changed."""
        table: Table = {}
        for key in keys_of(addresses):
            try:
                table[key] = self._bound[key] if key in self._bound else self._open_one(key)
            except OSError as error:
                self.discard(table)
                raise StartError(f"cannot listen on {key[0]}: {error.strerror or error}") from error
        return table

    def discard(self, table: Table) -> None:
        """It will not be used."""
        for key, one in table.items():
            if key not in self._bound:
                one.sock.close()

    def adopt(self, table: Table) -> None:
        """Listen here and nowhere else."""
        for key, one in self._bound.items():
            if key not in table:
                # Duplicates of it may be open for a moment: nobody connects to them.
                with suppress(OSError):
                    if not one.shared:
                        one.sock.shutdown(socket.SHUT_RDWR)
                one.sock.close()
        self._bound = table

    @property
    def bound(self) -> tuple[Listening, ...]:
        """Ours, for who wants to look at them."""
        return tuple(self._bound.values())

    def close(self) -> None:
        """Listen nowhere."""
        self.adopt({})
