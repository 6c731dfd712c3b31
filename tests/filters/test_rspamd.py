"""What is made of rspamd's answers, and of what only looks like rspamd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from forwarder.filters import FilterFault, Filters, Told
from forwarder.filters.rspamd import MAX_ANSWER, Rspamd
from forwarder.model import Address, Caller, ContentCheck, Envelope, Identity, IprevCheck, Peer, Recipient, Result, Tls
from tests.fakes import message

ALIAS = Address("alias", "fwd.test")
TOLD = Told(
    Envelope(
        id="q1",
        peer=Peer(ip_address("2001:db8::1"), "helo.test", tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
        sender=Address("bob", "sender.test"),
        recipients=(Recipient(ALIAS),),
        received_at=datetime(2026, 11, 27, tzinfo=UTC),
        identity=Identity("bob", frozenset({"sender.test"})),
        caller=Caller(iprev=IprevCheck(Result.PASS, "mx.sender.test")),
    ),
    message(b"From: bob@sender.test\r\n\r\n" + b"x" * 700_000 + b"\r\n"),
    (ALIAS, Address("b\u00fccher", "fwd.test")),
)


@asynccontextmanager
async def answering(answer: bytes, asked: list[bytes] | None = None) -> AsyncIterator[Rspamd]:
    """Reads one question, and says this."""
    took = asked if asked is not None else []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        took.append(head + await reader.readexactly(TOLD.message.size))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    port = server.sockets[0].getsockname()[1]
    filter_ = Rspamd("one", f"http://127.0.0.1:{port}/", hostname="mx.fwd.test", timeout=10, password="let me in")
    try:
        yield filter_
    finally:
        await filter_.aclose()
        server.close()


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def test_what_is_asked_is_the_message_with_its_envelope() -> None:
    asked: list[bytes] = []
    async with answering(http(b'{"action": "no action"}'), asked) as one:
        assert await one.check(TOLD) == ContentCheck("one", "no action", 0.0)
    head, _, body = asked[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /checkv2 HTTP/1.1"
    for line in (
        f"Content-Length: {TOLD.message.size}",
        "IP: 2001:db8::1",
        "Helo: helo.test",
        "From: bob@sender.test",
        "Rcpt: alias@fwd.test",
        "Rcpt: b\u00fccher@fwd.test",
        "Queue-Id: q1",
        "MTA-Name: mx.fwd.test",
        "Hostname: mx.sender.test",
        "User: bob",
        "TLS-Version: TLSv1.3",
        "Password: let me in",
    ):
        assert line in lines
    assert body == TOLD.message.header + b"\r\n" + TOLD.message.body


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        (b'{"action": "reject", "score": 16.5, "required_score": 15}', ContentCheck("one", "reject", 16.5, 15.0)),
        (
            b'{"action": "add header", "symbols": {"GOOD": {}, "bad name": {}}, "messages": {"smtp_message": "why"}}',
            ContentCheck("one", "add header", 0.0, symbols=("GOOD",), said="why"),
        ),
        (
            (
                b'{"action": "x", "milter": {"add_headers": {"X-A": "1", "X-B": {"value": "2", "order": 0}, '
                b'"X-C": ["3", {"value": "4"}, 5], "X-D": null}}}'
            ),
            ContentCheck("one", "x", 0.0, fields=(("X-A", b"1"), ("X-B", b"2"), ("X-C", b"3"), ("X-C", b"4"))),
        ),
        (b'{"action": "x", "symbols": {}, "messages": {"smtp_message": 5}, "new": [1]}', ContentCheck("one", "x", 0.0)),
    ],
)
async def test_what_is_made_of_an_answer(answer: bytes, want: ContentCheck) -> None:
    async with answering(http(answer)) as one:
        assert await one.check(TOLD) == want


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "no proper HTTP answer"),
        (b"SSH-2.0-OpenSSH\r\n", "no proper HTTP answer"),
        (http(b"no", "403 Forbidden"), "status 403"),
        (http(b"", "302 Found\r\nLocation: http://127.0.0.1:1/"), "status 302"),
        (http(b"[]"), "an answer that is no JSON of its kind"),
        (http(b'{"score": 1}'), "an answer that is no JSON of its kind"),
        (http(b'{"action": "x", "score": "high"}'), "an answer that is no JSON of its kind"),
        (http(b"[" * 100_000), "an answer that is no JSON of its kind"),
        (http(b'{"action": "x", "symbols": ' + b'{"a": ' * 100_000), "an answer that is no JSON of its kind"),
        (http(b'{"action": "\xff"}'), "an answer that is no JSON of its kind"),
        (http(b'{"action": "' + b"x" * MAX_ANSWER + b'"}'), f"an answer of more than {MAX_ANSWER} octets"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "no proper HTTP answer"),
    ],
)
async def test_what_is_no_answer_is_said_in_words_of_ours(answer: bytes, why: str) -> None:
    async with answering(answer) as one:
        with pytest.raises(FilterFault) as fault:
            await one.check(TOLD)
    assert str(fault.value) == why


async def test_a_message_that_is_too_large_is_not_asked_about() -> None:
    asked: list[bytes] = []
    async with answering(http(b"{}"), asked) as one:
        filters = Filters([(one, TOLD.message.size - 1)])
        [found] = await filters.check(TOLD.envelope, TOLD.message, TOLD.recipients)
    assert (found.action, found.failure, asked) == ("too large to be asked about", None, [])
