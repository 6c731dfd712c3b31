"""What keeps one client from taking what all need: seats, room in memory, time. Each has its answer and its line in the log."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from forwarder.edge.budget import Budget
from forwarder.edge.clients import address_key, network_key
from forwarder.edge.conversation import EdgeSettings
from forwarder.edge.limits import Limits
from forwarder.edge.overlimit import PAUSE, OverLimit
from forwarder.edge.server import bind
from forwarder.edge.shaking import Shaking
from forwarder.edge.tls import make_self_signed, server_context
from forwarder.model import Refuse
from forwarder.smtp import reply
from tests.edge.test_session import HEADER, RecordingAcceptor, edge
from tests.fakes import MemoryJournal
from tests.waiting import until

TURNED_AWAY = f"{reply.TOO_MANY_SESSIONS}"


# --- headers ----------------------------------------------------------------------------------------------------------


def header_of(octets: int) -> bytes:
    """So many, folded."""
    begun = b"From: a@b.example\r\nX: y\r\n"
    rest = octets - len(begun)
    return begun + b" " + b"y" * (rest % 100 + 97) + b"\r\n" + (b" " + b"y" * 97 + b"\r\n") * (rest // 100 - 1)


@pytest.mark.parametrize(
    ("raw", "limit"),
    [
        (header_of(20_000), None),
        (header_of(20_001), "header_size"),
        (b"From: a@b.example\r\n" + b"X: y\r\n z\r\n\tz\r\n" * 119, None),
        (b"From: a@b.example\r\n" + b"X: y\r\n z\r\n\tz\r\n" * 120, "header_fields"),
    ],
    ids=["all octets", "one octet more", "all fields", "one field more"],
)
async def test_a_header_is_taken_up_to_its_limits_and_refused_beyond_them(raw: bytes, limit: str | None) -> None:
    async with edge(header_size=20_000, header_fields=120) as (client, it):
        await client.ready()
        answer = await client.data(raw + b"\r\nx\r\n.\r\n")
        if limit is None:
            assert answer.startswith("250")
            assert it.acceptor.accepted[0][1] == raw + b"\r\nx\r\n"
        else:
            assert answer.startswith("552 5.3.4")
            assert it.acceptor.accepted == []
            assert [one["limit"] for one in it.journal.named("limits.over")] == [limit]
        # The session goes on, and so does its budget.
        await client.ready()
        assert (await client.data(HEADER + b"x\r\n.\r\n")).startswith("250")
        assert it.settings.budget.held == 0


# --- who counts as one -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same_address", "same_network"),
    [
        ("192.0.2.1", "192.0.2.1", True, True),
        ("192.0.2.1", "192.0.2.255", False, True),
        ("192.0.2.1", "192.0.3.1", False, False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True, True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False, True),
        ("2001:db8:1:2::1", "2001:db8:2:2::1", False, False),
    ],
)
def test_whoever_has_an_ipv6_address_has_its_network(
    one: str, other: str, *, same_address: bool, same_network: bool
) -> None:
    a, b = ip_address(one), ip_address(other)
    assert (address_key(a) == address_key(b)) is same_address
    assert (network_key(a) == network_key(b)) is same_network


def test_the_first_network_that_fits_has_its_own_limits() -> None:
    narrow, wide, usual = Limits(errors=1), Limits(errors=2), Limits(errors=3)
    networks = [(ip_network("192.0.2.128/25"), narrow), (ip_network("192.0.2.0/24"), wide)]
    settings = EdgeSettings("mx.fwd.example", usual, lambda: None, "fwd.example", networks=networks)
    assert settings.limits_for(ip_address("192.0.2.129")) is narrow
    assert settings.limits_for(ip_address("192.0.2.1")) is wide
    assert settings.limits_for(ip_address("2001:db8::1")) is usual
    assert settings.clients["::ffff:192.0.2.1"] == (ip_address("192.0.2.1"), wide)


def test_a_client_that_comes_again_is_remembered_until_there_are_others_or_other_settings() -> None:
    before = EdgeSettings("mx.fwd.example", Limits(), lambda: None, "fwd.example")
    assert before.clients["192.0.2.1"] is before.clients["192.0.2.1"]
    after = replace(before, limits=Limits(sessions=7))
    assert after.clients["192.0.2.1"][1].sessions == 7
    for number in range(10_000):
        assert before.clients[f"10.0.{number >> 8}.{number & 255}"][0] == ip_address(0x0A000000 + number)
    assert len(before.clients) < 5000


# --- seats -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["sessions_per_address", "sessions_per_network", "sessions"])
async def test_one_more_than_allowed_hears_421_until_another_leaves(limit: str) -> None:
    async with edge(**{limit: 2}) as (first, it):
        await it.connect()
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
            assert await reader.readline() == f"{TURNED_AWAY}\r\n".encode()
            assert await reader.read() == b""
            writer.close()
        [told] = it.journal.named("limits.over")
        assert (told["limit"], told["ip"]) == (limit, "127.0.0.1")
        assert (await first.say(b"QUIT\r\n")).startswith("221")
        await until(lambda: len(it.server) == 1)
        third = await it.connect()
        assert (await third.say(b"NOOP\r\n")).startswith("250")


async def test_nothing_is_left_of_a_seat_that_was_given_back() -> None:
    async with edge() as (client, it):
        seats = it.server._seats
        assert ([*seats.addresses.values()], [*seats.networks.values()]) == ([1], [1])
        second = await it.connect()
        assert ([*seats.addresses.values()], [*seats.networks.values()]) == ([2], [2])
        await second.say(b"QUIT\r\n")
        await client.say(b"QUIT\r\n")
        await until(lambda: len(it.server) == 0)
        assert (seats.sessions, seats.addresses, seats.networks) == ({}, {}, {})


def test_a_flood_is_one_line_a_second_for_each_limit() -> None:
    journal = MemoryJournal()
    over, ip = OverLimit(journal), ip_address("192.0.2.1")
    for number in range(1000):
        over.tell("sessions", ip, 10.0 + number / 2000)
    over.tell("errors", ip, 10.0)
    over.tell("sessions", ip, 10.0 + PAUSE)
    told = [(one["limit"], one["others"]) for one in journal.named("limits.over")]
    assert told == [("sessions", 0), ("errors", 0), ("sessions", 999)]


def test_recipients_that_are_told_to_wait_are_one_line_a_second_for_each_reason() -> None:
    journal = MemoryJournal()
    over, ip = OverLimit(journal), ip_address("192.0.2.1")
    rate, paused = Refuse(reply.rate_over("for this recipient", 5), "over"), Refuse(reply.PAUSED_ALIAS, "paused")
    for number in range(1000):
        over.tell_put_off(rate, ip, 10.0 + number / 2000)
    over.tell_put_off(paused, ip, 10.0)
    over.tell_put_off(rate, ip, 10.0 + PAUSE)
    told = [(one["code"], one["reason"], one["others"]) for one in journal.named("rcpt.refused")]
    assert told == [(451, "over", 0), (451, "paused", 0), (451, "over", 999)]


# --- room in memory ----------------------------------------------------------------------------------------------------


def test_a_budget_takes_all_or_nothing() -> None:
    budget = Budget()
    assert budget.take(6, 10)
    assert not budget.take(5, 10)
    assert budget.take(4, 10)
    budget.give(6)
    assert budget.held == 4


async def test_messages_that_do_not_fit_hear_452_and_those_that_do_go_on() -> None:
    async with edge(in_flight=100_000) as (first, it):
        second = await it.connect()
        for client in (first, second):
            await client.ready()
            assert (await client.say(b"DATA\r\n")).startswith("354")
        first.writer.write(HEADER + b"x" * 60_000)
        await until(lambda: it.settings.budget.held > 60_000)
        # It is read to its end, so that the client hears why.
        assert await second.say(HEADER + b"x" * 60_000 + b"\r\n.\r\n") == f"{reply.NO_ROOM}"
        assert (await second.say(b"NOOP\r\n")).startswith("250")
        assert (await first.say(b"\r\n.\r\n")).startswith("250 2.0.0")
        assert it.settings.budget.held == 0
        await second.ready()
        assert (await second.data(HEADER + b"x" * 60_000 + b"\r\n.\r\n")).startswith("250 2.0.0")
        assert [one["limit"] for one in it.journal.named("limits.over")] == ["in_flight"]


async def test_what_is_being_delivered_counts_and_a_size_that_cannot_fit_is_refused_at_mail() -> None:
    acceptor = RecordingAcceptor(hold=asyncio.Event())
    async with edge(acceptor, in_flight=100_000) as (first, it):
        await first.ready()
        assert (await first.say(b"DATA\r\n")).startswith("354")
        first.writer.write(HEADER + b"x" * 60_000 + b"\r\n.\r\n")
        await until(lambda: it.settings.budget.held > 60_000)
        second = await it.connect()
        await second.say(b"EHLO c.example\r\n")
        assert await second.say(b"MAIL FROM:<> SIZE=60000\r\n") == f"{reply.NO_ROOM}"
        assert (await second.say(b"MAIL FROM:<> SIZE=100\r\n")).startswith("250")
        assert acceptor.hold is not None
        acceptor.hold.set()
        assert (await first.answer()).startswith("250")
        await until(lambda: it.settings.budget.held == 0)


async def test_chunks_that_do_not_fit_hear_452_too() -> None:
    async with edge(in_flight=100_000) as (first, it):
        second = await it.connect()
        for client in (first, second):
            await client.ready()
        assert (await first.say(b"BDAT 60000\r\n" + b"x" * 60_000)).startswith("250")
        assert await second.say(b"BDAT 60000 LAST\r\n" + b"x" * 60_000) == f"{reply.NO_ROOM}"
        assert (await second.say(b"NOOP\r\n")).startswith("250")
        assert (await first.say(b"RSET\r\n")).startswith("250")
        assert it.settings.budget.held == 0


async def test_a_client_that_hangs_up_in_a_message_gives_its_room_back() -> None:
    async with edge() as (client, it):
        await client.ready()
        await client.say(b"DATA\r\n")
        client.writer.write(b"x" * 60_000)
        await until(lambda: it.settings.budget.held == 60_000)
        client.writer.close()
        await until(lambda: it.settings.budget.held == 0)


# --- time --------------------------------------------------------------------------------------------------------------


async def test_a_message_that_drips_is_ended_long_before_its_time_is_over() -> None:
    async with edge(data_timeout=60, data_grace=0.2, min_data_rate=10_000) as (client, it):
        await client.ready()
        await client.say(b"DATA\r\n")
        begun = time.monotonic()
        while not client.reader.at_eof() and time.monotonic() - begun < 30:
            client.writer.write(b"x")
            if await asyncio.wait_for(_line_within(client.reader), 30) == f"{reply.TOO_SLOW}\r\n".encode():
                break
        # Its time is a minute; a busy machine stands still for seconds at the most.
        assert 0.2 < time.monotonic() - begun < 20
        assert it.journal.named("session.timeout")[0]["reason"] == reply.TOO_SLOW.text


async def _line_within(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.readline(), 0.05)
    except TimeoutError:
        return b""


async def test_a_message_that_keeps_its_rate_is_not_hurried() -> None:
    async with edge(data_grace=0.1, min_data_rate=1000) as (client, _):
        await client.ready()
        await client.say(b"DATA\r\n")
        client.writer.write(HEADER + b"x" * 10_000)
        begun = time.monotonic()
        assert await _line_within(client.reader) == b""
        while time.monotonic() - begun < 0.6:
            assert await _line_within(client.reader) == b""
        assert (await client.say(b"\r\n.\r\n")).startswith("250")


async def test_a_command_that_drips_has_the_time_of_a_command() -> None:
    async with edge(command_timeout=0.3) as (client, it):
        begun = time.monotonic()
        # If each octet began its time anew, this would go on to the end.
        while time.monotonic() - begun < 10:
            client.writer.write(b"x")
            if await _line_within(client.reader):
                break
        assert time.monotonic() - begun < 10
        assert it.journal.named("session.timeout")[0]["reason"] == reply.TIMED_OUT.text


# --- order -------------------------------------------------------------------------------------------------------------


async def test_who_speaks_before_the_greeting_is_sent_away() -> None:
    async with edge(greet_delay=60) as (_, it):
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"EHLO early.example\r\n")
        begun = time.monotonic()
        assert await reader.readline() == f"{reply.EARLY_TALKER}\r\n".encode()
        assert await reader.read() == b""
        assert time.monotonic() - begun < 30
        writer.close()


async def test_who_waits_for_the_greeting_gets_it_when_the_time_is_over() -> None:
    async with edge(greet_delay=0.05) as (client, _):
        assert (await client.say(b"EHLO c.example\r\n")).startswith("250")


@pytest.mark.parametrize("verb", [b"EHLO", b"HELO"])
async def test_who_speaks_before_ehlo_was_answered_is_sent_away(verb: bytes) -> None:
    async with edge() as (client, it):
        answer = await client.say(verb + b" c.example\r\nMAIL FROM:<>\r\nRCPT TO:<alias@fwd.example>\r\n")
        assert answer == f"{reply.EARLY_TALKER}"
        assert await client.answer() == ""
        assert it.acceptor.accepted == []


# --- guesses -----------------------------------------------------------------------------------------------------------


async def test_a_network_that_tries_many_unknown_addresses_learns_no_more_of_any() -> None:
    async with edge(unknown_recipients=1000, unknown_per_hour=5) as (client, it):
        await client.say(b"EHLO c.example\r\n")
        await client.say(b"MAIL FROM:<bob@sender.example>\r\n")
        for number in range(5):
            assert (await client.say(b"RCPT TO:<u%d@fwd.example>\r\n" % number)).startswith("550 5.1.1")
        for address in (b"u9@fwd.example", b"alias@fwd.example"):
            again = await it.connect()
            await again.say(b"EHLO c.example\r\n")
            await again.say(b"MAIL FROM:<bob@sender.example>\r\n")
            assert await again.say(b"RCPT TO:<" + address + b">\r\n") == f"{reply.TOO_MANY_UNKNOWN}"
            assert await again.answer() == ""
        assert [one["limit"] for one in it.journal.named("limits.over")] == ["unknown_per_hour"]


async def test_a_network_that_sends_good_mail_as_well_is_no_guesser() -> None:
    async with edge(unknown_recipients=1000, unknown_per_hour=3) as (client, _):
        for _ in range(4):
            await client.ready()
            assert (await client.say(b"RCPT TO:<nobody@fwd.example>\r\n")).startswith("550 5.1.1")
            assert (await client.data(HEADER + b".\r\n")).startswith("250")


# --- handshakes --------------------------------------------------------------------------------------------------------


def test_one_address_has_an_eighth_of_all_handshakes() -> None:
    shaking, one, other = Shaking(), ip_address("2001:db8:1:2::1"), ip_address("192.0.2.1")
    assert [shaking.begin(one, 16) for _ in range(3)] == [True, True, False]
    assert not shaking.begin(ip_address("2001:db8:1:2::2"), 16)
    assert shaking.begin(other, 16)
    assert not shaking.begin(other, 3), "of fewer in all"
    shaking.end(one)
    assert shaking.begin(one, 16)


async def test_starttls_while_too_many_shake_hands_is_454_and_the_session_goes_on(tmp_path: Path) -> None:
    context = server_context(*make_self_signed(tmp_path, "mx.fwd.example", datetime.now(UTC)))
    async with edge(context=context, handshakes=8) as (first, it):
        await first.say(b"EHLO c.example\r\n")
        second = await it.connect()
        await second.say(b"EHLO c.example\r\n")
        # It never sends its part.
        assert (await first.say(b"STARTTLS\r\n")).startswith("220")
        assert await second.say(b"STARTTLS\r\n") == f"{reply.TLS_BUSY}"
        assert (await second.say(b"NOOP\r\n")).startswith("250")
        assert [one["limit"] for one in it.journal.named("limits.over")] == ["handshakes"]
        first.writer.close()
        await until(lambda: it.settings.shaking.begin(ip_address("127.0.0.1"), 8))
        it.settings.shaking.end(ip_address("127.0.0.1"))
        assert (await second.say(b"STARTTLS\r\n")).startswith("220")


async def test_a_tls_port_hangs_up_on_the_handshake_that_is_too_many_and_takes_the_next(tmp_path: Path) -> None:
    context = server_context(*make_self_signed(tmp_path, "mx.fwd.example", datetime.now(UTC)))
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with edge(handshakes=8) as (_, it):
        sock = bind("127.0.0.1:0")
        port = sock.getsockname()[1]
        await it.server.start([sock], tls=context)
        _, idle = await asyncio.open_connection("127.0.0.1", port)
        reader, late = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        late.close()
        idle.close()
        await until(lambda: it.settings.shaking.begin(ip_address("127.0.0.1"), 8))
        it.settings.shaking.end(ip_address("127.0.0.1"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        assert (await reader.readline()).startswith(b"220 ")
        writer.close()
