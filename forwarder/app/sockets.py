"""On which sockets do we listen?"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from forwarder.app.errors import StartError
from forwarder.edge.server import bind

__all__ = ["bind_all", "endpoint_of", "name_of"]


def bind_all(addresses: Sequence[str]) -> list[socket.socket]:
    """Listening on all of them, or on none. Raises StartError."""
    sockets: list[socket.socket] = []
    for address in addresses:
        try:
            sockets.append(bind(address))
        except OSError as error:
            for one in sockets:
                one.close()
            raise StartError(f"cannot listen on {address}: {error.strerror or error}") from error
    return sockets


def endpoint_of(address: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Address and port of "ip:port" or "[ip6]:port"."""
    host, _, port = address.rpartition(":")
    return ip_address(host.strip("[]")), int(port)


def name_of(sock: socket.socket) -> str:
    """As the configuration writes it."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
