"""Whose connection does a proxy hand us? The header in every form and every piece, then real connections that begin with one."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.edge import conversation
from forwarder.edge.proxy import MAX_HEADER, Introduction, ProxyError, parse_proxy
from forwarder.edge.trust import Trust
from forwarder.smtp import reply
from tests.edge.test_session import HEADER, edge
from tests.waiting import until

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOOPBACK = [ip_network("127.0.0.0/8")]
V1 = b"PROXY TCP4 198.51.100.7 192.0.2.25 40000 25\r\n"


def v2(command: int = 0x21, family: int = 0x11, rest: bytes = b"", size: int | None = None) -> bytes:
    return SIGNATURE + bytes((command, family)) + (len(rest) if size is None else size).to_bytes(2, "big") + rest


V4 = bytes((198, 51, 100, 7, 192, 0, 2, 25)) + b"\x9c\x40\0\x19"
V6 = ip_address("2001:db8::7").packed + ip_address("2001:db8::25").packed + b"\x9c\x40\0\x19"
MAPPED = ip_address("::ffff:198.51.100.7").packed + ip_address("::ffff:192.0.2.25").packed + b"\x9c\x40\0\x19"
TLV = b"\x02\0\x04mail" + b"\x04\0\x03abc"

GOOD = [
    pytest.param(V1, "198.51.100.7", id="v1 IPv4"),
    pytest.param(b"PROXY TCP6 2001:db8::7 2001:db8::25 0 65535\r\n", "2001:db8::7", id="v1 IPv6"),
    pytest.param(b"PROXY TCP6 ::ffff:198.51.100.7 ::1 1 25\r\n", "198.51.100.7", id="v1 IPv4 through an IPv6 socket"),
    pytest.param(b"PROXY UNKNOWN\r\n", None, id="v1 unknown"),
    pytest.param(b"PROXY UNKNOWN ffff:f...f:ffff ffff 65535 65535\r\n", None, id="v1 unknown, with words behind"),
    pytest.param(v2(rest=V4), "198.51.100.7", id="v2 IPv4"),
    pytest.param(v2(family=0x21, rest=V6), "2001:db8::7", id="v2 IPv6"),
    pytest.param(v2(family=0x21, rest=MAPPED), "198.51.100.7", id="v2 IPv4 through an IPv6 socket"),
    pytest.param(v2(rest=V4 + TLV), "198.51.100.7", id="v2 with TLVs"),
    pytest.param(v2(0x20, 0x00), None, id="v2 LOCAL"),
    pytest.param(v2(0x20, 0x11, V4), None, id="v2 LOCAL with addresses"),
]
BAD = [
    pytest.param(b"EHLO client.example\r\n", "no PROXY header", id="SMTP"),
    pytest.param(b"\x16\x03\x01\x02\0", "no PROXY header", id="TLS"),
    pytest.param(b"PROXY TCP4 198.51.100.7 192.0.2.25 40000 25\n", "malformed version 1", id="v1 bare LF"),
    pytest.param(b"PROXY TCP4 198.51.100.7 192.0.2.25 40000 65536\r\n", "malformed version 1", id="v1 port too large"),
    pytest.param(b"PROXY TCP4 198.51.100.7 192.0.2.25 040 25\r\n", "malformed version 1", id="v1 port with a zero"),
    pytest.param(b"PROXY TCP4 198.51.100.07 192.0.2.25 40 25\r\n", "malformed version 1", id="v1 address with a zero"),
    pytest.param(b"PROXY TCP4 198.51.100.7 192.0.2.256 40 25\r\n", "malformed version 1", id="v1 no address of ours"),
    pytest.param(b"PROXY TCP4 2001:db8::7 2001:db8::25 40 25\r\n", "malformed version 1", id="v1 the wrong family"),
    pytest.param(
        b"PROXY TCP6 198.51.100.7 192.0.2.25 40 25\r\n", "malformed version 1", id="v1 the other wrong family"
    ),
    pytest.param(b"PROXY TCP4  198.51.100.7 192.0.2.25 40 25\r\n", "malformed version 1", id="v1 two spaces"),
    pytest.param(b"PROXY UDP4 198.51.100.7 192.0.2.25 40 25\r\n", "malformed version 1", id="v1 UDP"),
    pytest.param(b"PROXY UNKNOWNS\r\n", "malformed version 1", id="v1 another word"),
    pytest.param(b"PROXY UNKNOWN " + b"f" * 100, "longer than 107", id="v1 without an end"),
    pytest.param(b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n", "longer than 107", id="v1 of 108 octets"),
    pytest.param(v2(0x11, rest=V4), "not version 2", id="v2 of version 1"),
    pytest.param(v2(0x22, rest=V4), "unknown command", id="v2 with another command"),
    pytest.param(v2(family=0x12, rest=V4), "not TCP", id="v2 UDP"),
    pytest.param(v2(family=0x31, rest=b"x" * 216), "not TCP", id="v2 a Unix socket"),
    pytest.param(v2(family=0x00), "not TCP", id="v2 unspecified"),
    pytest.param(v2(rest=V4[:-1]), "shorter than its addresses", id="v2 too short"),
    pytest.param(v2(size=MAX_HEADER - 15), "longer than 2048", id="v2 too long"),
]


@pytest.mark.parametrize(("header", "ip"), GOOD)
def test_a_header_is_read_whole_and_waited_for_in_every_piece(header: bytes, ip: str | None) -> None:
    want = Introduction(ip_address(ip) if ip else None, len(header))
    assert parse_proxy(header + b"EHLO x\r\n") == want
    assert parse_proxy(header) == want
    for cut in range(len(header)):
        assert parse_proxy(header[:cut]) is None


@pytest.mark.parametrize(("octets", "why"), BAD)
def test_what_is_wrong_is_said(octets: bytes, why: str) -> None:
    with pytest.raises(ProxyError, match=why):
        parse_proxy(octets)


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]))
def test_nothing_but_a_proxy_error_comes_of_garbage(octets: bytes, beginning: bytes) -> None:
    try:
        said = parse_proxy(beginning + octets)
    except ProxyError:
        return
    assert said is None or 15 <= said.size <= MAX_HEADER


@pytest.mark.parametrize("header", [V1, v2(rest=V4 + TLV)], ids=["v1", "v2"])
async def test_the_client_is_who_the_proxy_says(header: bytes) -> None:
    async with edge(trust=Trust(proxy=LOOPBACK)) as (_, it):
        client = await it.connect(header)
        assert (await client.answer()).startswith("220 ")
        await client.ready()
        assert (await client.data(HEADER + b"x\r\n.\r\n")).startswith("250 ")
        [(envelope, _)] = it.acceptor.accepted
        assert envelope.peer.ip == ip_address("198.51.100.7")


async def test_a_header_may_come_in_pieces_and_a_greeting_waits_for_all_of_it() -> None:
    async with edge(trust=Trust(proxy=LOOPBACK)) as (_, it):
        client = await it.connect()
        for octet in v2(rest=V4):
            client.writer.write(bytes([octet]))
            await client.writer.drain()
        assert (await client.answer()).startswith("220 ")


async def test_who_speaks_behind_the_header_before_the_greeting_is_an_early_talker_still() -> None:
    async with edge(trust=Trust(proxy=LOOPBACK)) as (_, it):
        client = await it.connect(V1 + b"EHLO client.example\r\n")
        assert await client.answer() == f"{reply.EARLY_TALKER}"
        assert it.journal.named("limits.over")[-1]["ip"] == "198.51.100.7"


async def test_a_health_check_is_the_proxys_own() -> None:
    async with edge(trust=Trust(proxy=LOOPBACK)) as (_, it):
        client = await it.connect(v2(0x20, 0))
        assert (await client.answer()).startswith("220 ")
        assert (await client.say(b"QUIT\r\n")).startswith("221 ")


async def test_a_proxy_that_sends_no_header_is_told_and_closed() -> None:
    async with edge(trust=Trust(proxy=LOOPBACK)) as (_, it):
        client = await it.connect(b"EHLO client.example\r\n")
        assert await client.answer() == f"{reply.NO_PROXY_HEADER}"
        assert await client.answer() == ""
        assert it.journal.named("proxy.refused")[-1]["reason"] == "no PROXY header"


async def test_a_proxy_that_says_nothing_does_not_wait_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "PROXY_TIMEOUT", 0.05)
    async with edge(trust=Trust(proxy=LOOPBACK)) as (_, it):
        client = await it.connect(b"PROXY TCP4 198.51")
        assert await client.answer() == f"{reply.NO_PROXY_HEADER}"
        assert await client.answer() == ""


async def test_who_comes_past_the_proxy_is_refused_whatever_it_says() -> None:
    async with edge(trust=Trust(proxy=[ip_network("10.0.0.0/8")])) as (_, it):
        client = await it.connect(V1)
        assert await client.answer() == f"{reply.NOT_A_PROXY}"
        assert await client.answer() == ""
        await until(lambda: len(it.server) == 0)


async def test_clients_of_one_proxy_are_counted_each_for_itself() -> None:
    async with edge(trust=Trust(proxy=LOOPBACK), sessions_per_address=1, sessions_per_network=3) as (_, it):
        first = await it.connect(V1)
        assert (await first.answer()).startswith("220 ")
        other = await it.connect(b"PROXY TCP4 198.51.100.8 192.0.2.25 40000 25\r\n")
        assert (await other.answer()).startswith("220 ")
        again = await it.connect(V1)
        assert await again.answer() == f"{reply.TOO_MANY_SESSIONS}"
        assert await again.answer() == ""
        assert (await first.say(b"QUIT\r\n")).startswith("221 ")
        # The first connection of all has not said whose it is.
        await until(lambda: len(it.server) == 2)
        once_more = await it.connect(V1)
        assert (await once_more.answer()).startswith("220 ")


async def test_without_the_setting_a_header_is_no_command() -> None:
    async with edge() as (client, it):
        assert (await client.say(V1)).startswith("500 ")
        await client.ready()
        assert (await client.data(HEADER + b"x\r\n.\r\n")).startswith("250 ")
        assert it.acceptor.accepted[0][0].peer.ip == ip_address("127.0.0.1")
