"""What does rspamd say of a message? Its HTTP protocol: POST /checkv2, the envelope in header fields, an answer in JSON.

What rspamd finds out about SPF, DKIM and DMARC it finds out by itself. Nothing in its answer is believed beyond its shape.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import msgspec

from forwarder.filters import FilterFault, Told
from forwarder.model import ContentCheck, IprevCheck, Result

__all__ = ["MAX_ANSWER", "BadAnswer", "Rspamd", "read_answer"]

#: Octets of an answer: it lists every symbol with its options.
MAX_ANSWER = 1 << 20
#: Octets of the body that are written at once.
_CHUNK = 1 << 18
#: Questions at once; more of them wait, within their time limit.
_AT_ONCE = 64
_SYMBOL = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: What the network or the other side may do.
_FAULTS = (aiohttp.ClientError, OSError, ValueError)


class BadAnswer(ValueError):
    """Not JSON, or not of this kind."""


class _Milter(msgspec.Struct):
    """What its milter_headers module wants on the message: name → value, or values with their places."""

    add_headers: dict[str, Any] = {}


class _Answer(msgspec.Struct):
    action: str
    score: float = 0.0
    required_score: float | None = None
    symbols: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    milter: _Milter | None = None


_decoder = msgspec.json.Decoder(_Answer)
#: What it raises for what is no answer: text that is not UTF-8 and values within values are no DecodeError.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Rspamd:
    """``url``: ``http://host:port``, or ``unix:/path`` of its socket. ``timeout`` in seconds, for all of it."""

    def __init__(self, name: str, url: str, *, hostname: str, timeout: float, password: str | None = None) -> None:
        self.name = name
        self._path = url.removeprefix("unix:") if url.startswith("unix:") else None
        self._url = ("http://localhost" if self._path else url.rstrip("/")) + "/checkv2"
        self._hostname = hostname
        self._timeout = timeout
        self._password = password
        self._session: aiohttp.ClientSession | None = None

    async def check(self, told: Told) -> ContentCheck:
        """See ``Filter``."""
        try:
            async with asyncio.timeout(self._timeout):
                return read_answer(self.name, await self._post(told))
        except BadAnswer:
            raise FilterFault("an answer that is no JSON of its kind") from None
        except TimeoutError:
            raise FilterFault(f"no answer within {self._timeout:g} s") from None
        except _FAULTS as error:
            raise FilterFault(_cause(error)) from None

    async def aclose(self) -> None:
        """See ``Filter``."""
        if self._session is not None:
            await self._session.close()

    async def _post(self, told: Told) -> bytes:
        headers = [*self._headers(told), ("Content-Length", str(told.message.size))]
        session = self._session = self._session or self._connect()
        async with session.post(self._url, data=_octets(told), headers=headers, allow_redirects=False) as response:
            if response.status != 200:
                raise FilterFault(f"status {response.status}")
            answer = bytearray()
            while chunk := await response.content.read(MAX_ANSWER + 1 - len(answer)):
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    raise FilterFault(f"an answer of more than {MAX_ANSWER} octets")
            return bytes(answer)

    def _connect(self) -> aiohttp.ClientSession:
        # A connection for each question: one that was kept may have ended just when the next message comes.
        connector: aiohttp.BaseConnector = (
            aiohttp.UnixConnector(self._path, limit=_AT_ONCE, force_close=True)
            if self._path is not None
            else aiohttp.TCPConnector(limit=_AT_ONCE, force_close=True)
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"User-Agent": "mailkey-forwarder", "Content-Type": "application/octet-stream"},
        )

    def _headers(self, told: Told) -> Iterator[tuple[str, str]]:
        envelope, peer = told.envelope, told.envelope.peer
        yield "IP", peer.ip_text
        yield "Helo", _plain(peer.helo)
        yield "From", _plain(str(envelope.sender or ""))
        for one in told.recipients:
            yield "Rcpt", _plain(str(one))
        yield "Queue-Id", _plain(envelope.id)
        yield "MTA-Name", self._hostname
        iprev: IprevCheck | None = envelope.caller.iprev if envelope.caller is not None else None
        if iprev is not None and iprev.result is Result.PASS and iprev.name:
            yield "Hostname", _plain(iprev.name)
        if envelope.identity is not None:
            yield "User", _plain(envelope.identity.name)
        if peer.tls is not None:
            yield "TLS-Version", _plain(peer.tls.version)
            yield "TLS-Cipher", _plain(peer.tls.cipher)
        if self._password is not None:
            yield "Password", self._password


def read_answer(name: str, body: bytes) -> ContentCheck:
    """What the rspamd of this ``name`` says. Raises BadAnswer."""
    try:
        answer = _decoder.decode(body)
    except _UNREADABLE:
        raise BadAnswer from None
    score = answer.score if math.isfinite(answer.score) else None
    said = answer.messages.get("smtp_message", "")
    return ContentCheck(
        name,
        answer.action[:40],
        score,
        answer.required_score,
        tuple(one for one in answer.symbols if _SYMBOL.match(one)),
        tuple(_fields(answer.milter.add_headers if answer.milter is not None else {})),
        said=said[:200] if isinstance(said, str) else "",
    )


def _fields(wanted: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """``{"X-Spam": "Yes"}``, ``{"X-Spam": {"value": "Yes", "order": 1}}``, or a list of either."""
    for name, values in wanted.items():
        for one in values if isinstance(values, list) else [values]:
            value = one.get("value") if isinstance(one, dict) else one
            if isinstance(value, str):
                yield name, value.encode("utf-8", "replace")


async def _octets(told: Told) -> AsyncIterator[bytes | memoryview]:
    message = told.message
    yield message.header + message.separator
    body = memoryview(message.body)
    for at in range(0, len(body), _CHUNK):
        yield body[at : at + _CHUNK]


def _plain(text: str) -> str:
    """A stranger's words as the value of a field."""
    return _CONTROL.sub("?", text)


def _cause(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError | FileNotFoundError | ConnectionRefusedError):
        return "cannot connect"
    return "no proper HTTP answer"
