"""A name server that answers from a rule: any number of domains, and no zone. Some answers may fail or never come."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import cast

__all__ = ["MX", "TXT", "A", "Rule", "a_record", "mx_record", "run_names", "txt_record"]

A, MX, TXT = 1, 15, 16
_OK, _SERVFAIL, _NXDOMAIN = 0, 2, 3
#: Name in lower case and type → data of the records; none: the name has no such records; ``None``: there is no such name.
Rule = Callable[[str, int], Sequence[bytes] | None]


def txt_record(text: str) -> bytes:
    """RFC 1035 section 3.3.14: in strings of up to 255 octets."""
    octets = text.encode()
    parts = [octets[at : at + 255] for at in range(0, len(octets), 255)] or [b""]
    return b"".join(bytes((len(one),)) + one for one in parts)


def a_record(ip: str) -> bytes:
    """RFC 1035 section 3.4.1."""
    return IPv4Address(ip).packed


def mx_record(host: str) -> bytes:
    """RFC 1035 section 3.3.9, at preference 10."""
    return b"\0\x0a" + b"".join(bytes((len(one),)) + one.encode() for one in host.split(".")) + b"\0"


class _Names(asyncio.DatagramProtocol):
    def __init__(self, rule: Rule, ttl: int, faults: float, rng: random.Random) -> None:
        self._rule = rule
        self._ttl = ttl.to_bytes(4, "big")
        self._faults = faults
        self._rng = rng

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        at, labels = 12, []
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]])
            at += 1 + data[at]
        end = at + 5
        found: Sequence[bytes] | None = ()
        code = _OK
        if self._faults and self._rng.random() < self._faults:
            if self._rng.random() < 0.5:
                return  # it never comes
            code = _SERVFAIL
        else:
            found = self._rule(
                b".".join(labels).decode("ascii", "replace").lower(), int.from_bytes(data[at + 1 : at + 3], "big")
            )
            code = _NXDOMAIN if found is None else _OK
        answers = b"".join(
            b"\xc0\x0c" + data[at + 1 : end] + self._ttl + len(one).to_bytes(2, "big") + one for one in found or ()
        )
        counts = b"\0\1" + len(found or ()).to_bytes(2, "big") + b"\0\0\0\0"
        # RFC 1035 section 4.1.1: an answer, recursion desired and available.
        self._transport.sendto(data[:2] + bytes((0x81, 0x80 | code)) + counts + data[12:end] + answers, addr)


@asynccontextmanager
async def run_names(
    rule: Rule, *, ttl: int = 3600, faults: float = 0.0, rng: random.Random | None = None
) -> AsyncIterator[str]:
    """Its address, "ip:port". ``faults``: the share of questions that get SERVFAIL, or no answer."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Names(rule, ttl, faults, rng or random.Random()), local_addr=("127.0.0.1", 0)
    )
    try:
        host, port = transport.get_extra_info("sockname")[:2]
        yield f"{host}:{port}"
    finally:
        transport.close()
