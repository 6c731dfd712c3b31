"""What does one key host answer to one request? RFC 9110 over TLS, with nothing in it that a stranger could use.

The name is resolved here, every address is judged, and the connection goes to an address that was judged: no second look-up, so
no name that is public when asked and private when connected to. No redirects, cookies, proxies or compression.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from forwarder.keyhost.settings import KeyHostSettings
from forwarder.ports import DnsStatus, KeyText, NoKeyText, Resolver
from forwarder.public import is_public

__all__ = ["MAX_TEXT", "ask", "judged_addresses"]

#: docs/mailkey.md section 4.
MAX_TEXT = 8192
#: Octets of one header line, and of the status line.
_MAX_FIELD = 4096
#: Addresses tried of one host.
_MAX_ADDRESSES = 4

_MAX_AGE = re.compile(r"(?:\A|,)[ \t]*max-age[ \t]*=[ \t]*\"?([0-9]{1,10})\"?[ \t]*(?=,|\Z)", re.IGNORECASE)
_NOT_STORED = re.compile(r"(?:\A|,)[ \t]*no-(?:store|cache)\b", re.IGNORECASE)


class _Fault(Exception):
    """No text; ``found`` says why."""

    def __init__(self, reason: str, *, temporary: bool) -> None:
        super().__init__(reason)
        self.found = NoKeyText(f"key host: {reason}", temporary)


async def ask(
    resolver: Resolver, settings: KeyHostSettings, domain: str, selector: str | None
) -> tuple[KeyText | NoKeyText, int | None]:
    """The text, or why there is none; and the seconds for which Cache-Control lets it be kept. Never raises."""
    host = f"mailkey.{domain}"
    try:
        async with asyncio.timeout(settings.timeout):
            addresses = await judged_addresses(resolver, host, settings)
            return await _request(host, addresses, selector, settings)
    except _Fault as fault:
        return fault.found, None
    except TimeoutError:
        return NoKeyText(f"key host: no answer within {settings.timeout:g} s", temporary=True), None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return NoKeyText(f"key host: {_cause(error)}", temporary=True), None


async def judged_addresses(resolver: Resolver, host: str, settings: KeyHostSettings) -> list[IPv4Address | IPv6Address]:
    """Where we may connect. Raises a fault where that is nowhere."""
    v4, v6 = await asyncio.gather(resolver.a(host), resolver.aaaa(host))
    found: list[IPv4Address | IPv6Address] = [*v6.records, *v4.records]
    if not found:
        silent = DnsStatus.TEMPERROR in (v4.status, v6.status)
        raise _Fault("no answer from the DNS for it" if silent else "it has no address", temporary=silent)
    allowed = [one for one in found if settings.allow_private or is_public(one)]
    if not allowed:
        raise _Fault("it has no public address", temporary=False)
    return allowed[:_MAX_ADDRESSES]


async def _request(
    host: str, addresses: list[IPv4Address | IPv6Address], selector: str | None, settings: KeyHostSettings
) -> tuple[KeyText | NoKeyText, int | None]:
    # RFC 8615: the place that the host keeps for this.
    url = f"https://{host}:{settings.port}/.well-known/mailkey" + (f"/{selector}" if selector else "")
    connector = aiohttp.TCPConnector(
        resolver=_Judged(addresses),
        ssl=_trusting(settings.ca_file),
        use_dns_cache=False,
        force_close=True,
    )
    async with (
        aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=MAX_TEXT,
            max_line_size=_MAX_FIELD,
            max_field_size=_MAX_FIELD,
            headers={"Accept": "text/plain", "Accept-Encoding": "identity", "User-Agent": "mailkey-forwarder"},
        ) as session,
        session.get(url, allow_redirects=False) as response,
    ):
        _judge(response)
        text = await _read(response.content)
        return KeyText(text), _lifetime(response)


@lru_cache(maxsize=1)
def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Made once: to read the system's certificates takes as long as many messages."""
    return ssl.create_default_context(cafile=ca_file)


def _judge(response: aiohttp.ClientResponse) -> None:
    """The table of docs/mailkey.md section 4: which answers are no text."""
    status = response.status
    if status in (404, 410):
        raise _Fault(f"no such key ({status})", temporary=False)
    if 300 <= status < 400:
        raise _Fault(f"a redirect ({status}), which is not followed", temporary=False)
    if status != 200:
        raise _Fault(f"status {status}", temporary=True)
    if response.content_type != "text/plain":
        raise _Fault("not text/plain", temporary=False)
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise _Fault("compressed although not asked for", temporary=False)


async def _read(stream: aiohttp.StreamReader) -> bytes:
    text = bytearray()
    while chunk := await stream.read(MAX_TEXT + 1 - len(text)):
        text += chunk
        if len(text) > MAX_TEXT:
            raise _Fault(f"more than {MAX_TEXT} octets", temporary=False)
    return bytes(text)


def _lifetime(response: aiohttp.ClientResponse) -> int | None:
    """RFC 9111 section 4.2: what is left of max-age. ``None``: it does not say."""
    directives = ",".join(response.headers.getall("Cache-Control", ()))
    if _NOT_STORED.search(directives):
        return 0
    found = _MAX_AGE.search(directives)
    if found is None:
        return None
    age = response.headers.get("Age", "0")
    return int(found[1]) - (int(age) if re.fullmatch(r"[0-9]{1,10}", age) else 0)


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
