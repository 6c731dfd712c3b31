"""Our own records over HTTP and HTTPS, read by curl and by raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from forwarder.edge.server import bind
from forwarder.https import HttpsSettings
from forwarder.keyhost import KeyHostClient
from forwarder.ports import KeyText, NoKeyText
from forwarder.web.server import MAX_CONNECTIONS, WebServer
from forwarder.web.wellknown import mailkey_routes
from tests.fakes import FakeResolver, MemoryJournal

RECORDS = {("fwd.test", ""): "v=mailkey1; p=one", ("fwd.test", "k1"): "v=mailkey1; p=two"}
PLACE = "/.well-known/mailkey"


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None, lifetime: float = 30) -> AsyncIterator[int]:
    """The port."""
    sock = bind("127.0.0.1:0")
    port: int = sock.getsockname()[1]
    server = WebServer(mailkey_routes(lambda: RECORDS), tls, MemoryJournal(), lifetime=lifetime)
    await server.start([sock])
    try:
        yield port
    finally:
        await server.stop()


async def ask(port: int, request: str) -> str:
    """All that comes back until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request.encode())
        async with asyncio.timeout(30):
            return (await reader.read()).decode()
    except ConnectionError:
        return ""
    finally:
        writer.transport.abort()


def get(path: str, host: str = "mailkey.fwd.test", method: str = "GET") -> str:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (get(PLACE), 200, "v=mailkey1; p=one\n"),
        (get(f"{PLACE}/k1"), 200, "v=mailkey1; p=two\n"),
        (get(f"{PLACE}/K1", "MAILKEY.FWD.TEST:8080"), 200, "v=mailkey1; p=two\n"),
        (get(PLACE, method="HEAD"), 200, ""),
        (get(f"{PLACE}/k2"), 404, "no such key\n"),
        (get(f"{PLACE}/%2e%2e/x"), 404, None),
        (get("/"), 404, None),
        (get(PLACE, "fwd.test"), 400, None),
        (get(PLACE, "mailkey.other.test"), 400, None),
        (get(PLACE, "127.0.0.1"), 400, None),
        (get(PLACE, "[::1]:80"), 400, None),
        (f"GET {PLACE} HTTP/1.0\r\n\r\n", 400, None),
        (get(PLACE, method="POST"), 405, None),
    ],
)
async def test_each_key_is_served_at_its_place_for_its_host(request_: str, status: int, body: str | None) -> None:
    async with serving() as port:
        head, _, got = (await ask(port, request_)).partition("\r\n\r\n")
        assert head.split(" ")[1] == str(status)
        assert body is None or got == body
        assert "aiohttp" not in head
        if status == 200:
            assert "Content-Type: text/plain; charset=utf-8" in head
            assert "Cache-Control: max-age=3600" in head


@pytest.mark.parametrize("request_", [get("/" + "a" * 5000), get(PLACE, "a" * 5000), "\0\r\n\r\n", "EHLO x\r\n"])
async def test_what_is_too_long_or_no_http_is_refused_and_its_text_not_logged(
    request_: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving() as port:
        assert (await ask(port, request_)).startswith("HTTP/1.0 400")
    assert not caplog.records
    assert capsys.readouterr().err == ""


async def test_a_fault_of_ours_is_told_and_500() -> None:
    def broken() -> dict[tuple[str, str], str]:
        raise RuntimeError("oh")

    journal, sock = MemoryJournal(), bind("127.0.0.1:0")
    server = WebServer(mailkey_routes(broken), None, journal)
    await server.start([sock])
    try:
        assert (await ask(sock.getsockname()[1], get(PLACE))).startswith("HTTP/1.1 500")
    finally:
        await server.stop()
    assert journal.named("web.fault") == [{"error": "RuntimeError: oh"}]


async def test_a_connection_that_says_nothing_or_never_ends_is_closed() -> None:
    async with serving(lifetime=0.2) as port:
        assert await ask(port, "") == ""
        assert await ask(port, f"GET {PLACE} HTTP/1.1\r\nHost: mailkey") == ""


async def test_connections_are_bounded_and_freed() -> None:
    async with serving() as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        assert await ask(port, get(PLACE)) == ""
        for _, writer in idle:
            writer.transport.abort()
        answers = [await ask(port, get(PLACE)) for _ in range(20)]
        assert answers[-1].startswith("HTTP/1.1 200")


async def test_connections_that_shake_no_hands_are_counted_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forwarder.web.server._HANDSHAKE_SECONDS", 2)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("mailkey.fwd.test").configure_cert(context)
    async with serving(context) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        assert not any(one.at_eof() for one, _ in idle)
        async with asyncio.timeout(30):
            await asyncio.gather(*(one.read() for one, _ in idle), return_exceptions=True)
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        writer.write(get(PLACE).encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        for _, one in [*idle, (reader, writer)]:
            one.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_and_our_own_client_read_it_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    roots = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(str(roots))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("mailkey.fwd.test").configure_cert(context)
    async with serving(context) as port:
        to = f"mailkey.fwd.test:{port}"
        curl = await asyncio.create_subprocess_exec(
            *("curl", "-sS", "--cacert", str(roots), "--noproxy", "*", "--resolve", f"{to}:127.0.0.1"),
            f"https://{to}{PLACE}/k1",
            stdout=asyncio.subprocess.PIPE,
        )
        assert (await curl.communicate())[0] == b"v=mailkey1; p=two\n"
        client = KeyHostClient(
            FakeResolver({"mailkey.fwd.test": {"A": ["127.0.0.1"]}}),
            HttpsSettings(port, allow_private=True, ca_file=roots),
            MemoryJournal(),
            monotonic=asyncio.get_running_loop().time,
        )
        assert await client.fetch("fwd.test", None) == KeyText(b"v=mailkey1; p=one\n")
        assert await client.fetch("fwd.test", "k9") == NoKeyText("key host: no such key (404)", temporary=False)
