"""XCLIENT and XFORWARD on a real connection: who may, for how long, and what counts then."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from forwarder.edge.trust import Trust
from forwarder.smtp import reply
from tests.edge.test_session import HEADER, Client, Edge, edge
from tests.waiting import until

LOOPBACK = [ip_network("127.0.0.0/8")]
V4 = ip_address("198.51.100.7")
HERE = ip_address("127.0.0.1")


async def send(client: Client, it: Edge) -> tuple[str, str]:
    """One message; the client's address and name as the acceptor got them."""
    await client.ready()
    assert (await client.data(HEADER + b"x\r\n.\r\n")).startswith("250 ")
    peer = it.acceptor.accepted[-1][0].peer
    return str(peer.ip), peer.helo


async def test_they_are_offered_to_whom_they_are_for() -> None:
    for trust, want in (
        (Trust(), set()),
        (Trust(xclient=[ip_network("10.0.0.0/8")], xforward=[ip_network("10.0.0.0/8")]), set()),
        (Trust(xclient=LOOPBACK), {"XCLIENT NAME ADDR PORT PROTO HELO"}),
        (Trust(xforward=LOOPBACK), {"XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"}),
    ):
        async with edge(trust=trust) as (client, _):
            offered = await client.say(b"EHLO client.example\r\n")
            assert {one[4:] for one in offered.splitlines() if one[4:].startswith("X")} == want


@pytest.mark.parametrize("command", [b"XCLIENT ADDR=198.51.100.7\r\n", b"XFORWARD ADDR=198.51.100.7\r\n"])
async def test_from_others_they_are_no_commands(command: bytes) -> None:
    async with edge(trust=Trust(xclient=[ip_network("10.0.0.0/8")])) as (client, it):
        await client.say(b"EHLO client.example\r\n")
        assert await client.say(command) == f"{reply.UNKNOWN_COMMAND}"
        assert await send(client, it) == ("127.0.0.1", "client.example")


async def test_xclient_makes_it_another_clients_session() -> None:
    async with edge(trust=Trust(xclient=LOOPBACK)) as (client, it):
        await client.say(b"EHLO proxy.example\r\n")
        assert (await client.say(b"XCLIENT ADDR=198.51.100.7 NAME=[UNAVAILABLE]\r\n")).startswith("220 mx.fwd.example")
        # RFC 5321: nothing of the session before is left.
        assert (await client.say(b"MAIL FROM:<>\r\n")).startswith("503 ")
        assert await send(client, it) == ("198.51.100.7", "client.example")
        assert await send(client, it) == ("198.51.100.7", "client.example")
        assert [str(one.ip) for one in it.server._seats.sessions] == ["198.51.100.7"]
        # It is the proxy's connection still.
        assert (await client.say(b"XCLIENT ADDR=IPV6:2001:db8::7 HELO=b.example\r\n")).startswith("220 ")
        assert await send(client, it) == ("2001:db8::7", "b.example")


async def test_xclient_counts_the_client_and_refuses_where_there_is_no_room_for_it() -> None:
    async with edge(trust=Trust(xclient=LOOPBACK), sessions_per_address=1) as (client, it):
        assert (await client.say(b"XCLIENT ADDR=198.51.100.7\r\n")).startswith("220 ")
        other = await it.connect()
        assert await other.say(b"XCLIENT ADDR=198.51.100.7\r\n") == f"{reply.TOO_MANY_SESSIONS}"
        assert await other.answer() == ""
        await until(lambda: len(it.server) == 1)


async def test_xclient_within_a_transaction_or_with_more_behind_it_is_out_of_order() -> None:
    async with edge(trust=Trust(xclient=LOOPBACK, xforward=LOOPBACK)) as (client, it):
        await client.ready()
        for command in (b"XCLIENT ADDR=198.51.100.7\r\n", b"XFORWARD ADDR=198.51.100.7\r\n"):
            assert await client.say(command) == f"{reply.BAD_SEQUENCE}"
        assert (await client.say(b"RSET\r\n")).startswith("250 ")
        assert (await client.say(b"XCLIENT LOGIN=bob\r\n")).startswith("501 5.5.4")
        assert await send(client, it) == ("127.0.0.1", "client.example")
        assert await client.say(b"XCLIENT ADDR=198.51.100.7\r\nEHLO x.example\r\n") == f"{reply.EARLY_TALKER}"


@pytest.mark.parametrize("ended_by", [b"", b"RSET\r\n", b"EHLO relay.example\r\n"], ids=["message", "RSET", "EHLO"])
async def test_xforward_is_for_one_message(ended_by: bytes) -> None:
    async with edge(trust=Trust(xforward=LOOPBACK)) as (client, it):
        await client.say(b"EHLO relay.example\r\n")
        assert (await client.say(b"XFORWARD NAME=a.example ADDR=198.51.100.7 PORT=40000\r\n")) == f"{reply.OK}"
        assert (await client.say(b"XFORWARD PROTO=ESMTP HELO=a.example SOURCE=REMOTE\r\n")) == f"{reply.OK}"
        if ended_by:
            assert (await client.say(ended_by)).startswith("250")
        await client.say(b"MAIL FROM:<>\r\n")
        await client.say(b"RCPT TO:<alias@fwd.example>\r\n")
        assert (await client.data(HEADER + b"x\r\n.\r\n")).startswith("250 ")
        peer = it.acceptor.accepted[-1][0].peer
        want = (HERE, "relay.example") if ended_by else (V4, "a.example")
        assert (peer.ip, peer.helo) == want
        await client.say(b"MAIL FROM:<>\r\n")
        await client.say(b"RCPT TO:<alias@fwd.example>\r\n")
        await client.data(HEADER + b"x\r\n.\r\n")
        assert it.acceptor.accepted[-1][0].peer.ip == HERE


async def test_guesses_are_held_against_the_client_that_was_named() -> None:
    async with edge(trust=Trust(xforward=LOOPBACK), unknown_per_hour=1) as (client, it):
        await client.say(b"EHLO relay.example\r\n")
        await client.say(b"XFORWARD ADDR=198.51.100.7\r\n")
        await client.say(b"MAIL FROM:<>\r\n")
        assert await client.say(b"RCPT TO:<nobody@fwd.example>\r\n") == f"{reply.UNKNOWN_ALIAS}"
        assert await client.say(b"RCPT TO:<nobody@fwd.example>\r\n") == f"{reply.TOO_MANY_UNKNOWN}"
        assert it.settings.unknowns.exhausted(V4, 0)
        assert not it.settings.unknowns.exhausted(HERE, 0)
