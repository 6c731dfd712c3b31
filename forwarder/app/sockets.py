"""On which sockets do we listen? They outlive a reload: a connection that nobody has taken yet is taken after it."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

from forwarder.app.errors import StartError
from forwarder.edge.server import bind

__all__ = ["Sockets", "Table", "endpoint_of", "name_of"]

#: Address as configured, and which of those alike (port 0 is another port each time) → the socket.
Table = dict[tuple[str, int], socket.socket]


class Sockets:
    """What is bound for one kind of listener. What is handed out are duplicates: ours stays open until it is given up."""

    def __init__(self) -> None:
        self._bound: Table = {}

    def bind(self, addresses: Sequence[str]) -> Table:
        """Listening on all of them; what listens already stays as it is. Raises StartError, and then nothing is changed."""
        seen: Counter[str] = Counter()
        table: Table = {}
        for address in addresses:
            key = (address, seen[address])
            seen[address] += 1
            try:
                table[key] = self._bound[key] if key in self._bound else bind(address)
            except OSError as error:
                self.discard(table)
                raise StartError(f"cannot listen on {address}: {error.strerror or error}") from error
        return table

    def discard(self, table: Table) -> None:
        """It will not be used."""
        for key, sock in table.items():
            if key not in self._bound:
                sock.close()

    def adopt(self, table: Table) -> None:
        """Listen here and nowhere else."""
        for key, sock in self._bound.items():
            if key not in table:
                # Duplicates of it may be open for a moment: nobody connects to them.
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
        self._bound = table

    @property
    def bound(self) -> tuple[socket.socket, ...]:
        """Ours, for who wants to look at them."""
        return tuple(self._bound.values())

    def close(self) -> None:
        """Listen nowhere."""
        self.adopt({})


def endpoint_of(address: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Address and port of "ip:port" or "[ip6]:port"."""
    host, _, port = address.rpartition(":")
    return ip_address(host.strip("[]")), int(port)


def name_of(sock: socket.socket) -> str:
    """As the configuration writes it."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
