"""Who may tell us who the client is? Per listener, by network: a proxy, or a mail server of ours before us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

__all__ = ["NOBODY", "Networks", "Trust", "within"]

Networks = Sequence[IPv4Network | IPv6Network]


@dataclass(frozen=True, slots=True)
class Trust:
    """``proxy``: whose connections begin with a PROXY header, and nobody else connects there; ``()``: it is no port for proxies.
    ``xclient``, ``xforward``: who may use Postfix's commands of these names."""

    proxy: Networks = ()
    xclient: Networks = ()
    xforward: Networks = ()


NOBODY = Trust()


def within(ip: IPv4Address | IPv6Address, networks: Networks) -> bool:
    """Is it in one of them?"""
    return bool(networks) and any(ip in one for one in networks)
