"""What does the DNS say?"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Generic, Protocol, TypeVar

from forwarder.values import value

__all__ = ["Answer", "DnsStatus", "Resolver", "Tlsa"]

T = TypeVar("T")


class DnsStatus(Enum):
    """How a look-up ended. ``TEMPERROR`` covers SERVFAIL, REFUSED, time-outs and lies: it is never "no record"."""

    OK = "ok"
    NODATA = "nodata"
    NXDOMAIN = "nxdomain"
    TEMPERROR = "temperror"


@value
class Answer(Generic[T]):
    """One DNS answer. ``records`` is empty unless ``status`` is OK. ``ttl`` in seconds. ``authentic`` is the AD bit of a
    resolver that is trusted to set it. ``age`` is how many seconds it has lain in the cache. ``detail`` explains a
    TEMPERROR in words. ``canonical`` is the name at the end of a CNAME chain, ``""`` where there was none."""

    status: DnsStatus
    records: tuple[T, ...] = ()
    ttl: int = 0
    authentic: bool = False
    age: int = 0
    detail: str = ""
    canonical: str = ""


@value
class Tlsa:
    """RFC 6698 section 2.1: which certificates a server may have. The numbers are not judged yet."""

    usage: int
    selector: int
    matching: int
    data: bytes


class Resolver(Protocol):
    """DNS. Names are presentation format, any case, final dot optional, U-labels or A-labels. A name that is no legal DNS
    name answers NXDOMAIN without a query. No method raises for what the network or the name does."""

    async def txt(self, name: str, *, fresh: bool = False) -> Answer[bytes]:
        """TXT records, the character-strings of each joined (RFC 7208 section 3.3). ``fresh`` goes past the cache."""

    async def a(self, name: str) -> Answer[IPv4Address]:
        """IPv4 addresses."""

    async def aaaa(self, name: str) -> Answer[IPv6Address]:
        """IPv6 addresses."""

    async def mx(self, name: str) -> Answer[tuple[int, str]]:
        """(preference, exchange) pairs; the exchange without its final dot, ``""`` for the root (null MX, RFC 7505)."""

    async def tlsa(self, name: str) -> Answer[Tlsa]:
        """TLSA records; the name begins with port and transport (``_25._tcp.mx.example.org``)."""

    async def cname(self, name: str) -> Answer[str]:
        """What this name is an alias of, without its final dot: the first step, and not the end of the chain."""

    def prefetch_txt(self, names: Iterable[str]) -> None:
        """Begin to look these TXT records up, those that are not cached, all at once and in the background: what the
        checks will ask one after the other is then on its way already."""

    async def ptr(self, ip: IPv4Address | IPv6Address) -> Answer[str]:
        """Host names of an address, without their final dot."""
