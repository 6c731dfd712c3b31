"""Which name servers are to be asked? ``ip`` or ``ip:port`` as configured, or the system's."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

__all__ = ["Server", "parse_server", "system_nameservers"]

_PORT = 53
#: resolv.conf(5): the resolver library reads three.
_MAX_SYSTEM_SERVERS = 3


class Server(NamedTuple):
    """Where a name server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_server(text: str) -> Server:
    """``192.0.2.1``, ``192.0.2.1:5353``, ``2001:db8::1`` or ``[2001:db8::1]:5353``. Raises ValueError."""
    try:
        return Server(str(ip_address(text)), _PORT)
    except ValueError:
        host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 1 << 16:
        raise ValueError(f"name server {text!r} is neither an IP address nor address:port")
    if host.startswith("[") and host.endswith("]"):
        return Server(str(IPv6Address(host[1:-1])), int(port))
    return Server(str(IPv4Address(host)), int(port))


def system_nameservers(path: Path = Path("/etc/resolv.conf")) -> tuple[str, ...]:
    """The ``nameserver`` lines of resolv.conf(5); ``()`` where there are none."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ()
    words = [line.split() for line in lines]
    servers = tuple(line[1] for line in words if len(line) > 1 and line[0] == "nameserver")
    return tuple(one for one in servers if _is_server(one))[:_MAX_SYSTEM_SERVERS]


def _is_server(text: str) -> bool:
    try:
        parse_server(text)
    except ValueError:
        return False
    return True
