"""A sender whose key is at its HTTPS key host alone, through the running service."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from forwarder.keys import mailkey_record
from tests.e2e.lab import Lab, lab
from tests.peers.https_server import HttpsServer, response, run_https_server

ZONE = {"mailkey.sender.test": {"TXT": ["v=mailkey1; u=https; o=all"], "A": ["127.0.0.10"]}}


def configured(folder: Path, server: HttpsServer) -> str:
    ca = folder / "roots.pem"
    return f'[mailkey]\nfetch_port = {server.port}\nfetch_private = true\nfetch_ca_file = "{ca}"'


def key_host(folder: Path) -> ssl.SSLContext:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "roots.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("mailkey.sender.test").configure_cert(context)
    return context


def record(it: Lab) -> bytes:
    key = it.keys.mailkey("sender.test")
    assert key is not None
    return mailkey_record(key).encode() + b"\n"


async def test_a_sender_with_its_key_at_the_key_host_verifies(tmp_path: Path) -> None:
    async with (
        run_https_server(key_host(tmp_path), "127.0.0.10") as server,
        lab(tmp_path, zone=ZONE, extra=configured(tmp_path, server)) as it,
    ):
        server.answer = response(record(it))
        assert (await it.send(it.signed())).startswith("250 2.0.0")
        assert b"mailkey=pass" in (await it.next(it.sink)).data
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (response(b"", "503 Later"), "451 4.7.5"),
        (b"", "451 4.7.5"),
        (response(b"", "404 Not Found"), "550 5.7.1"),
        (response(b"v=mailkey1; p="), "550 5.7.1"),
    ],
)
async def test_a_key_host_that_fails_is_451_and_one_without_the_key_550(
    tmp_path: Path, answer: bytes, reply: str
) -> None:
    async with (
        run_https_server(key_host(tmp_path), "127.0.0.10") as server,
        lab(tmp_path, zone=ZONE, extra=configured(tmp_path, server)) as it,
    ):
        server.answer = answer
        assert (await it.send(it.signed())).startswith(reply)
        assert it.sink.waiting.empty()


async def test_a_private_key_host_is_not_asked(tmp_path: Path) -> None:
    async with (
        run_https_server(key_host(tmp_path), "127.0.0.10") as server,
        lab(
            tmp_path,
            zone=ZONE,
            extra=configured(tmp_path, server).replace("fetch_private = true", "fetch_private = false"),
        ) as it,
    ):
        server.answer = response(record(it))
        assert (await it.send(it.signed())).startswith("550 5.7.1")
        assert not server.requests


async def test_without_u_https_no_key_host_is_asked(tmp_path: Path) -> None:
    async with (
        run_https_server(key_host(tmp_path), "127.0.0.10") as server,
        lab(tmp_path, extra=configured(tmp_path, server)) as it,
    ):
        assert (await it.send(it.signed())).startswith("250")
        assert not server.requests


async def test_the_service_serves_its_own_keys(tmp_path: Path) -> None:
    async with lab(tmp_path, extra='[web]\nlisten = ["127.0.0.25:0"]') as it:
        host, _, port = it.app.web_addresses[0].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /.well-known/mailkey HTTP/1.0\r\nHost: mailkey.fwd.test\r\n\r\n")
        answer = (await reader.read()).decode()
        writer.close()
        assert answer.endswith(f"\r\n\r\n{it.records['mailkey.fwd.test']['TXT'][0]}\n")
