"""One server follows another on the same socket, under load, on both event loops: nobody who connects is lost."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import uvloop

from forwarder.accepting import Accepting
from forwarder.edge.tls import make_self_signed, server_context
from forwarder.handshakes import Handshakes

SERVERS, CLIENTS, CONNECTIONS = 60, 8, 40

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


class Says(asyncio.Protocol):
    """Which server met the client?"""

    def __init__(self, number: int) -> None:
        self._number = number

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        transport.write(b"%d" % self._number)  # type: ignore[union-attr]  # uvloop's is no subclass
        transport.close()


def listening() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0), backlog=100)
    sock.setblocking(False)
    return sock


async def ask(port: int, tls: ssl.SSLContext | None) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    said = await reader.read()
    writer.close()
    return said


async def crowd(port: int, tls: ssl.SSLContext | None = None) -> list[bytes]:
    """What many who connect one after the other are told."""

    async def one() -> list[bytes]:
        return [await ask(port, tls) for _ in range(CONNECTIONS)]

    return [said for many in await asyncio.gather(*(one() for _ in range(CLIENTS))) for said in many]


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_in_clear_text_nobody_is_lost(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def follow() -> list[bytes]:
        with listening() as sock:
            asking = asyncio.create_task(crowd(sock.getsockname()[1]))
            servers = [Accepting(partial(Says, number)) for number in range(SERVERS)]
            await servers[0].start(sock.dup())
            for now, after in pairwise(servers):
                await after.start(sock.dup())
                now.leave(after)
                await asyncio.sleep(0)
            said = await asking
            # Who comes now is met by the last, also where an earlier one still accepts.
            said += await crowd(sock.getsockname()[1])
            for one in servers:
                one.close()
        return said

    with asyncio.Runner(loop_factory=loop) as runner:
        said = runner.run(follow())
    assert b"" not in said
    assert set(said[CLIENTS * CONNECTIONS :]) == {b"%d" % (SERVERS - 1)}


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_in_tls_nobody_is_lost(loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path) -> None:
    context = server_context(*make_self_signed(tmp_path, "mx.fwd.test", datetime.now(UTC)))
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE

    async def follow() -> list[bytes]:
        with listening() as sock:
            asking = asyncio.create_task(crowd(sock.getsockname()[1], client))
            servers = [Handshakes(5, lambda _: False) for _ in range(SERVERS)]
            for number, after in enumerate(servers):
                after.accept(sock.dup(), partial(Says, number), context)
                if number:
                    servers[number - 1].leave()
                await asyncio.sleep(0.005)
            said = await asking
            for one in servers:
                one.leave()
                await one.ended()
        return said

    with asyncio.Runner(loop_factory=loop) as runner:
        said = runner.run(follow())
    assert b"" not in said
    assert len(set(said)) > 1


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_in_tls_without_a_file_it_waits_and_goes_on(
    loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    context = server_context(*make_self_signed(tmp_path, "mx.fwd.test", datetime.now(UTC)))
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def starve() -> bytes:
        with listening() as sock, listening() as spare:
            server = Handshakes(5, lambda _: False)
            server.accept(sock.dup(), lambda: Says(1), context)
            late = socket.socket()
            late.setblocking(False)
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare.fileno() + 1, before[1]))
            try:
                assert late.connect_ex(sock.getsockname()) in (0, errno.EINPROGRESS)
                # A few turns, in which it sees that somebody is there and has no file for it.
                for _ in range(10):
                    await asyncio.sleep(0)
                assert len(server) == 0
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            reader, writer = await asyncio.open_connection(sock=late, ssl=client, server_hostname="mx.fwd.test")
            said = await reader.read()
            writer.close()
            server.close()
        return said

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(starve()) == b"1"
