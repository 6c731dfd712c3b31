"""Which listening sockets were opened for us by whoever started us? systemd's socket activation: sd_listen_fds(3).

They are adopted by address: one that ``listen`` or ``web.listen`` names is used where we would open our own, so that the service
needs no right to bind port 25. They stay open where they came from: who connects between a stop and the next start waits, and
is taken then.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from forwarder.app.errors import StartError

__all__ = ["Passed", "endpoint_of", "name_of"]

#: sd_listen_fds(3): where they begin.
_FIRST = 3
#: How many may come; systemd's own limit is higher, and nobody listens on as many addresses.
_MOST = 250


class Passed:
    """``sockets`` are listening TCP sockets; they are ours to keep."""

    def __init__(self, sockets: Sequence[socket.socket] = ()) -> None:
        self._sockets = tuple(sockets)

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Passed:
        """What LISTEN_PID and LISTEN_FDS tell; the variables are taken out, as they are about this process alone. Raises
        StartError for what is no listening TCP socket."""
        told = {name: environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
        if told["LISTEN_PID"] != str(os.getpid()) or not told["LISTEN_FDS"].isdecimal():
            return cls()
        count = int(told["LISTEN_FDS"])
        if count > _MOST:
            raise StartError(f"LISTEN_FDS: {count} sockets are more than {_MOST}")
        return cls([_listening(number) for number in range(_FIRST, _FIRST + count)])

    def all(self, address: str, number: int = 0) -> list[socket.socket]:
        """Duplicates of those on this address; ``number``: without so many of them, which others have."""
        wanted = endpoint_of(address)
        return [one.dup() for one in self._sockets if endpoint_of(name_of(one)) == wanted][number:]

    def unused(self, addresses: Sequence[str]) -> list[str]:
        """Where nobody is served."""
        wanted = {endpoint_of(one) for one in addresses}
        return [name_of(one) for one in self._sockets if endpoint_of(name_of(one)) not in wanted]


def _listening(number: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=number)
        listens = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
        listens = listens and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError as error:
        raise StartError(f"LISTEN_FDS: descriptor {number}: {error.strerror or error}") from error
    if not listens:
        raise StartError(f"LISTEN_FDS: descriptor {number} is no listening TCP socket")
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock


def endpoint_of(address: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Address and port of "ip:port" or "[ip6]:port"."""
    host, _, port = address.rpartition(":")
    return ip_address(host.strip("[]")), int(port)


def name_of(sock: socket.socket) -> str:
    """As the configuration writes it."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
