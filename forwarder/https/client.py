"""What does a host that a stranger named answer to one request over HTTPS? RFC 9110 over TLS, with nothing in it to be used.

The name is resolved here, every address is judged, and the connection goes to an address that was judged: no second look-up, so
no name that is public when asked and private when connected to. No redirects, cookies, proxies or compression.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from forwarder.https import HttpsFault, HttpsSettings, trusting
from forwarder.ports import DnsStatus, Resolver
from forwarder.public import is_public

__all__ = ["HttpsResponse", "get", "judged_addresses", "post"]

#: Octets of one header line, and of the status line.
_MAX_FIELD = 4096
#: Addresses tried of one host.
_MAX_ADDRESSES = 4


@dataclass(frozen=True, slots=True)
class HttpsResponse:
    """``body`` is empty unless ``status`` is 200 and it was asked for. ``cache_control`` and ``age`` as they were sent, ``""``
    without."""

    status: int
    content_type: str
    cache_control: str
    age: str
    body: bytes = b""


async def get(resolver: Resolver, host: str, path: str, settings: HttpsSettings, *, most: int) -> HttpsResponse:
    """``most``: octets of the body. Raises HttpsFault, in words that hold nothing of what the host sent."""
    return await _ask(resolver, _Request("GET", host, path), settings, most)


async def post(
    resolver: Resolver, host: str, path: str, settings: HttpsSettings, *, body: bytes, content_type: str
) -> HttpsResponse:
    """The body of the answer is not looked at. Raises HttpsFault, as ``get``."""
    return await _ask(resolver, _Request("POST", host, path, body, content_type), settings, 0)


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    host: str
    path: str
    body: bytes | None = None
    content_type: str = ""


async def _ask(resolver: Resolver, request: _Request, settings: HttpsSettings, most: int) -> HttpsResponse:
    try:
        async with asyncio.timeout(settings.timeout):
            addresses = await judged_addresses(resolver, request.host, settings)
            return await _exchange(request, addresses, settings, most)
    except TimeoutError:
        raise HttpsFault(f"no answer within {settings.timeout:g} s", temporary=True) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        certificate = isinstance(error, aiohttp.ClientConnectorCertificateError)
        raise HttpsFault(_cause(error), temporary=True, certificate=certificate) from None


async def judged_addresses(resolver: Resolver, host: str, settings: HttpsSettings) -> list[IPv4Address | IPv6Address]:
    """Where we may connect. Raises a fault where that is nowhere."""
    v4, v6 = await asyncio.gather(resolver.a(host), resolver.aaaa(host))
    found: list[IPv4Address | IPv6Address] = [*v6.records, *v4.records]
    if not found:
        silent = DnsStatus.TEMPERROR in (v4.status, v6.status)
        raise HttpsFault("no answer from the DNS for it" if silent else "it has no address", temporary=silent)
    allowed = [one for one in found if settings.allow_private or is_public(one)]
    if not allowed:
        raise HttpsFault("it has no public address", temporary=False)
    return allowed[:_MAX_ADDRESSES]


async def _exchange(
    request: _Request, addresses: list[IPv4Address | IPv6Address], settings: HttpsSettings, most: int
) -> HttpsResponse:
    url = f"https://{request.host}:{settings.port}{request.path}"
    headers = {"Accept": "text/plain", "Accept-Encoding": "identity", "User-Agent": "mailkey-forwarder"}
    if request.body is not None:
        headers["Content-Type"] = request.content_type
    connector = aiohttp.TCPConnector(
        resolver=_Judged(addresses),
        ssl=trusting(settings.ca_file),
        use_dns_cache=False,
        force_close=True,
    )
    async with (
        aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=max(most, _MAX_FIELD),
            max_line_size=_MAX_FIELD,
            max_field_size=_MAX_FIELD,
            headers=headers,
        ) as session,
        session.request(request.method, url, data=request.body, allow_redirects=False) as response,
    ):
        if response.status != 200 or request.method != "GET":
            return _answer(response, b"")
        if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise HttpsFault("compressed although not asked for", temporary=False)
        return _answer(response, await _read(response.content, most))


def _answer(response: aiohttp.ClientResponse, body: bytes) -> HttpsResponse:
    headers = response.headers
    cache_control = ",".join(headers.getall("Cache-Control", ()))
    return HttpsResponse(response.status, response.content_type, cache_control, headers.get("Age", ""), body)


async def _read(stream: aiohttp.StreamReader, most: int) -> bytes:
    body = bytearray()
    while chunk := await stream.read(most + 1 - len(body)):
        body += chunk
        if len(body) > most:
            raise HttpsFault(f"more than {most} octets", temporary=False)
    return bytes(body)


def _cause(error: Exception) -> str:
    """In words that hold nothing of what the host sent."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "no valid certificate for its name"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "TLS failed"
    if isinstance(error, aiohttp.ClientConnectorError | OSError):
        return "cannot connect"
    return "no proper HTTP answer"


class _Judged(AbstractResolver):
    """Gives out the addresses that were judged, for whatever name, and asks nobody."""

    def __init__(self, addresses: list[IPv4Address | IPv6Address]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(one),
                port=port,
                family=socket.AF_INET6 if one.version == 6 else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for one in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""
