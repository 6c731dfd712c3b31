"""When is it certain that a client has read our 250? Each case is a client's way to end, over a real socket."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import pytest

from forwarder.edge.tls import make_self_signed, server_context
from forwarder.edge.trust import Trust
from forwarder.heard import MAX_AWAITED, MAX_HEARD, MAX_OF_ONE, Heard
from forwarder.smtp import reply
from tests import waiting
from tests.edge.test_session import HEADER, Edge, RecordingAcceptor, edge

MESSAGE = HEADER + b"x\r\n.\r\n"
Way = Callable[[socket.socket], None]


def connected(it: Edge, ahead: bytes = b"") -> socket.socket:
    """A client whose next octets are a message's."""
    sock = socket.create_connection(("127.0.0.1", it.port), 5)
    # Nagle's algorithm would hold a second write back until the answer to the first.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(ahead)
    until(sock, b"220 ")
    ready(sock)
    return sock


def ready(sock: socket.socket) -> None:
    for command, code in (
        (b"EHLO client.example", b"250 "),
        (b"MAIL FROM:<bob@sender.example>", b"250 "),
        (b"RCPT TO:<alias@fwd.example>", b"250 "),
        (b"DATA", b"354 "),
    ):
        sock.sendall(command + b"\r\n")
        until(sock, code)


def until(sock: socket.socket, code: bytes, times: int = 1) -> None:
    got = b""
    while (b"\r\n" + got).count(b"\r\n" + code) < times or not got.endswith(b"\r\n"):
        more = sock.recv(65536)
        assert more, got
        got += more


def arrived(sock: socket.socket) -> None:
    """An answer lies there, unread."""
    assert sock.recv(1, socket.MSG_PEEK)


def next_command(sock: socket.socket) -> None:
    sock.sendall(MESSAGE)
    until(sock, b"250 ")
    sock.sendall(b"RSET\r\n")
    until(sock, b"250 ")
    reset(sock)


def closes(sock: socket.socket) -> None:
    sock.sendall(MESSAGE)
    until(sock, b"250 ")
    sock.close()


def quits(sock: socket.socket) -> None:
    sock.sendall(MESSAGE)
    until(sock, b"250 ")
    sock.sendall(b"QUIT\r\n")
    reset(sock)


def quits_at_once_and_closes(sock: socket.socket) -> None:
    sock.sendall(MESSAGE + b"QUIT\r\n")
    until(sock, b"221 ")
    sock.close()


def another_behind_two(sock: socket.socket) -> None:
    sock.sendall(MESSAGE + b"MAIL FROM:<bob@sender.example>\r\nRCPT TO:<alias@fwd.example>\r\nDATA\r\n")
    until(sock, b"354 ")
    sock.sendall(MESSAGE)
    until(sock, b"250 ")
    sock.sendall(b"NOOP\r\n")
    until(sock, b"250 ")
    reset(sock)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def resets(sock: socket.socket) -> None:
    sock.sendall(MESSAGE)
    arrived(sock)
    reset(sock)


def dies(sock: socket.socket) -> None:
    sock.sendall(MESSAGE)
    arrived(sock)
    # Over what it has not read: as the kernel does for a process that is killed.
    sock.close()


def dies_behind_quit(sock: socket.socket) -> None:
    sock.sendall(MESSAGE + b"QUIT\r\n")
    arrived(sock)
    sock.close()


def is_lost_behind_quit(sock: socket.socket) -> None:
    sock.sendall(MESSAGE + b"QUIT\r\n")
    until(sock, b"221 ")
    reset(sock)


def closes_its_side_at_once(sock: socket.socket) -> None:
    # One segment, FIN included.
    sock.send(MESSAGE, socket.MSG_MORE)
    sock.shutdown(socket.SHUT_WR)
    until(sock, b"250 ")
    sock.close()


def closes_its_side_behind_quit(sock: socket.socket) -> None:
    sock.send(MESSAGE + b"QUIT\r\n", socket.MSG_MORE)
    sock.shutdown(socket.SHUT_WR)
    until(sock, b"221 ")
    sock.close()


def speaks_on_at_once(sock: socket.socket) -> None:
    sock.sendall(MESSAGE + b"RSET\r\n")
    until(sock, b"250 ", 2)
    reset(sock)


@pytest.mark.parametrize(
    ("way", "times"),
    [
        (next_command, 1),
        (closes, 1),
        (quits, 1),
        (quits_at_once_and_closes, 1),
        (another_behind_two, 2),
        (resets, 0),
        (dies, 0),
        (dies_behind_quit, 0),
        (is_lost_behind_quit, 0),
        (closes_its_side_at_once, 0),
        (closes_its_side_behind_quit, 0),
        (speaks_on_at_once, 0),
    ],
)
async def test_what_proves_that_a_client_has_read_the_answer(way: Way, times: int) -> None:
    async with edge() as (_, it):
        await asyncio.to_thread(lambda: way(connected(it)))
        await ended(it)
        assert len(it.acceptor.accepted) == max(times, 1)
        assert it.acceptor.heard_of == [one.id for one, _ in it.acceptor.accepted][:times]


async def ended(it: Edge) -> None:
    """All sessions but the fixture's own."""
    await waiting.until(lambda: len(it.server) <= 1)


async def test_what_is_said_before_the_answer_proves_nothing() -> None:
    acceptor = RecordingAcceptor(hold=asyncio.Event())
    async with edge(acceptor) as (_, it):
        speaking, ending = await asyncio.to_thread(lambda: (connected(it), connected(it)))
        # Each in a segment of its own.
        await asyncio.to_thread(speaking.sendall, MESSAGE)
        await asyncio.to_thread(ending.sendall, MESSAGE)
        await asyncio.to_thread(speaking.sendall, b"RSET\r\n")
        ending.close()
        assert acceptor.hold is not None
        acceptor.hold.set()
        await asyncio.to_thread(until, speaking, b"250 ", 2)
        reset(speaking)
        await ended(it)
        assert len(acceptor.accepted) == 2
        assert acceptor.heard_of == []


async def test_a_message_that_was_not_taken_is_not_heard_of() -> None:
    async with edge(RecordingAcceptor(answer=reply.FAULT)) as (_, it):

        def fails(sock: socket.socket) -> None:
            sock.sendall(MESSAGE)
            until(sock, b"451 ")
            sock.sendall(b"NOOP\r\n")
            until(sock, b"250 ")
            sock.close()

        await asyncio.to_thread(lambda: fails(connected(it)))
        await ended(it)
        assert it.acceptor.heard_of == []


async def test_a_proxy_proves_nothing() -> None:
    async with edge(trust=Trust(proxy=(ip_network("127.0.0.0/8"),))) as (_, it):
        header = b"PROXY TCP4 198.51.100.7 192.0.2.25 40000 25\r\n"
        await asyncio.to_thread(lambda: next_command(connected(it, header)))
        await asyncio.to_thread(lambda: closes(connected(it, header)))
        await ended(it)
        assert len(it.acceptor.accepted) == 2
        assert it.acceptor.heard_of == []


async def test_under_tls_the_next_command_proves_it(tmp_path: Path) -> None:
    context = server_context(*make_self_signed(tmp_path, "mx.fwd.example", datetime.now(UTC)))
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE

    def converse(way: Way) -> None:
        sock = socket.create_connection(("127.0.0.1", it.port), 5)
        until(sock, b"220 ")
        sock.sendall(b"EHLO client.example\r\n")
        until(sock, b"250 ")
        sock.sendall(b"STARTTLS\r\n")
        until(sock, b"220 ")
        with trusting.wrap_socket(sock) as tls:
            ready(tls)
            way(tls)

    async with edge(context=context) as (_, it):
        await asyncio.to_thread(converse, next_command)
        await ended(it)
        assert it.acceptor.heard_of == [one.id for one, _ in it.acceptor.accepted]
        await asyncio.to_thread(converse, speaks_on_at_once)
        await ended(it)
        assert len(it.acceptor.accepted) == 2
        assert len(it.acceptor.heard_of) == 1


def test_the_same_octets_are_another_message_each_time_their_answer_was_read() -> None:
    heard, one, other = Heard(), b"1" * 32, b"2" * 32
    assert heard.distinguish("m1", [one, other]) == [one, other]
    assert heard.distinguish("m2", [one]) == [one]  # nobody has read that m1 is here
    heard.read("m1")
    second = heard.distinguish("m3", [one, other])
    assert not {*second} & {one, other}
    assert heard.distinguish("m4", [one]) == second[:1]
    heard.read("m3")
    heard.read("m3")
    third = heard.distinguish("m5", [one, other])
    assert not {*third} & {one, other, *second}


def test_the_memory_of_what_was_heard_is_bounded() -> None:
    heard = Heard()
    for number in range(MAX_HEARD + MAX_AWAITED):
        heard.distinguish(str(number), [number.to_bytes(32, "big")])
        if number < MAX_HEARD + 10:
            heard.read(str(number))
    assert len(heard._times) == MAX_HEARD
    assert len(heard._awaited) <= MAX_AWAITED
    # The first is a repetition again, and the latest is not.
    assert heard.distinguish("again", [bytes(32)]) == [bytes(32)]
    latest = (MAX_HEARD + 9).to_bytes(32, "big")
    assert heard.distinguish("again", [latest]) != [latest]
    many = [number.to_bytes(32, "little") for number in range(1, MAX_OF_ONE + 2)]
    heard.distinguish("list", many)
    heard.read("list")
    assert heard.distinguish("list", many[-1:]) == many[-1:]
