"""Large messages go in chunks where that is offered (RFC 3030, docs/decisions/0013-bdat.md), to real servers on loopback."""

from __future__ import annotations

import asyncio

import pytest

from forwarder.cli.demo_lab import free_port
from forwarder.model import BodyKind, Deferred, Failed, Reply
from forwarder.relay import MAYBE_DELIVERED
from forwarder.relay.attempt import CHUNKED_FROM
from tests.peers.postfix import needs_postfix, needs_root, postfix
from tests.peers.smtp_sink import DEFAULT, DROP, HANG, RESET, Action, SmtpSink, Then
from tests.relay.bench import MESSAGE, ONE, bench, delivery, mx, results, short, summary
from tests.waiting import until

OFFERS = [b"PIPELINING", b"8BITMIME", b"SIZE", b"CHUNKING"]
HEAD = b"From: a@a.test\r\nSubject: hello\r\n\r\n"
BODY = b".one\r\n..two \xc3\xa4\r\n.\r\n" * 8000
LARGE = (HEAD, BODY)
TWO = mx("10 one.sink.test 127.0.0.1", "20 two.sink.test 127.0.0.2")


@pytest.mark.parametrize("extensions", [OFFERS, [b"CHUNKING", b"8BITMIME"]], ids=["pipelining", "lockstep"])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(BODY, id="one block"),
        pytest.param(BODY * 20, id="many blocks"),
        pytest.param(BODY + b"no line end", id="no line end"),
        pytest.param(b"x" * (256 * 1024 - len(b"BDAT 262144 LAST\r\n")), id="just a block"),
    ],
)
async def test_a_large_message_arrives_byte_for_byte(extensions: list[bytes], body: bytes) -> None:
    async with SmtpSink(extensions=extensions) as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver(data=(HEAD, body))) == [("Delivered", 250)]
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert [one.data for one in sink.messages] == [HEAD + body, b"".join(MESSAGE)]
    assert [line for _, line in sink.commands if line.startswith((b"BDAT", b"DATA"))] == [
        b"BDAT %d" % len(HEAD),
        b"BDAT %d LAST" % len(body),
        b"DATA",
    ]


async def test_the_envelope_and_the_head_leave_in_one_flight() -> None:
    async with SmtpSink(extensions=OFFERS) as sink, bench(ONE, sink.port) as it:
        await it.deliver(data=LARGE)
    size = len(HEAD + BODY)
    mail = b"MAIL FROM:<s@us.test> SIZE=%d BODY=8BITMIME\r\nRCPT TO:<r@sink.test>\r\nBDAT %d\r\n" % (size, len(HEAD))
    assert sink.flights[1] == mail + HEAD


@pytest.mark.parametrize(
    ("data", "verb"),
    [
        pytest.param((HEAD, b"x" * (CHUNKED_FROM - len(HEAD))), "BDAT", id="large"),
        pytest.param((HEAD, b"x" * (CHUNKED_FROM - len(HEAD) - 1)), "DATA", id="small"),
        pytest.param((HEAD + b"x" * CHUNKED_FROM,), "DATA", id="one piece"),
        pytest.param((HEAD + b"x" * CHUNKED_FROM, b"x"), "DATA", id="a head of unusual size"),
        pytest.param((HEAD + b"x" * (CHUNKED_FROM - len(HEAD)), b""), "BDAT", id="no body"),
    ],
)
async def test_what_is_small_goes_behind_data(data: tuple[bytes, ...], verb: str) -> None:
    async with SmtpSink(extensions=OFFERS) as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver(data=data)) == [("Delivered", 250)]
    assert sink.verbs()[3] == verb
    assert sink.messages[0].data.removesuffix(b"\r\n") == b"".join(data)


async def test_where_chunks_are_not_offered_it_goes_behind_data() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver(data=LARGE)) == [("Delivered", 250)]
    assert "BDAT" not in sink.verbs()
    assert sink.messages[0].data == HEAD + BODY


async def test_with_everyone_refused_the_body_is_not_sent_and_the_connection_stays() -> None:
    script = {"RCPT": [b"550 5.1.1 nobody\r\n", DEFAULT]}
    async with SmtpSink(script, OFFERS) as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver(data=LARGE)) == [("Failed", 550)]
        assert summary(await it.deliver(data=LARGE)) == [("Delivered", 250)]
    assert sink.connections == 1
    assert sink.verbs() == ["EHLO", "MAIL", "RCPT", "BDAT", "RSET", "MAIL", "RCPT", "BDAT", "BDAT", "QUIT"]


@pytest.mark.parametrize("verb", ["BDAT", "DOT"])
async def test_a_refused_chunk_is_an_answer(verb: str) -> None:
    async with SmtpSink({verb: b"554 5.7.1 we do not like it\r\n"}, OFFERS) as sink, bench(ONE, sink.port) as it:
        (result,) = results(await it.deliver(data=LARGE))
        sink.script = {}
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert isinstance(result, Failed)
    assert result.reply == Reply(554, "5.7.1", "we do not like it")
    assert sink.connections == 1


@pytest.mark.parametrize("code", [500, 502, 503])
async def test_a_server_that_does_not_understand_it_gets_the_message_behind_data(code: int) -> None:
    """On a fresh connection: what a server does with the octets of a chunk that it did not expect nobody knows."""
    script = {"BDAT": b"%d 5.5.1 what?\r\n" % code}
    async with SmtpSink(script, OFFERS) as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver(data=LARGE)) == [("Delivered", 250)]
    assert (sink.connections, len(sink.messages)) == (2, 1)
    assert sink.verbs(1) == ["EHLO", "MAIL", "RCPT", "BDAT"]
    assert sink.verbs(2) == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]


async def test_a_dead_connection_and_then_a_server_without_chunks_cost_two_fresh_ones() -> None:
    script = {"MAIL": [DEFAULT, DROP, DEFAULT], "BDAT": b"502 5.5.1 what?\r\n"}
    async with SmtpSink(script, OFFERS) as sink, bench(ONE, sink.port) as it:
        await it.deliver()
        assert summary(await it.deliver(data=LARGE)) == [("Delivered", 250)]
    assert (sink.connections, len(sink.messages)) == (3, 2)


# --- what breaks off


@pytest.mark.parametrize(
    "action", [DROP, RESET, b"rubbish\r\n", b"354 go\r\n"], ids=["drop", "reset", "rubbish", "354"]
)
async def test_before_the_last_chunk_nothing_is_lost_by_asking_the_next_host(action: Action) -> None:
    async with (
        SmtpSink({"BDAT": action}, OFFERS) as one,
        SmtpSink(extensions=OFFERS, host="127.0.0.2", port=one.port) as two,
        bench(TWO, one.port) as it,
    ):
        assert summary(await it.deliver(data=LARGE)) == [("Delivered", 250)]
    assert (len(one.messages), len(two.messages)) == (0, 1)


async def test_a_connection_that_died_while_idle_costs_nothing() -> None:
    async with SmtpSink({"BDAT": [DEFAULT, DROP, DEFAULT]}, OFFERS) as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver(data=LARGE)) == [("Delivered", 250)]
        assert summary(await it.deliver(data=LARGE)) == [("Delivered", 250)]
    assert (sink.connections, len(sink.messages)) == (2, 2)


@pytest.mark.parametrize("action", [DROP, RESET, HANG, b"rubbish\r\n"], ids=["drop", "reset", "hang", "rubbish"])
@pytest.mark.parametrize("times", [1, 20], ids=["one block", "many blocks"])
async def test_silence_after_the_last_chunk_is_maybe_delivered(action: Action, times: int) -> None:
    async with (
        SmtpSink({"DOT": action}, OFFERS) as one,
        SmtpSink(host="127.0.0.2", port=one.port) as two,
        bench(TWO, one.port, short(dot=0.3)) as it,
    ):
        (result,) = results(await it.deliver(data=(HEAD, BODY * times)))
    assert isinstance(result, Deferred)
    assert result.reason.startswith(MAYBE_DELIVERED)
    assert two.connections == 0


async def test_a_reader_that_stops_in_the_middle_has_not_got_it() -> None:
    stops = {"BDAT": Then(b"250 go\r\n", HANG)}
    async with SmtpSink(stops, OFFERS) as sink, bench(ONE, sink.port, short(block=0.05)) as it:
        (result,) = results(await it.deliver(data=(HEAD, BODY * 200)))
    assert isinstance(result, Deferred)
    assert result.reason.startswith("timed out: message")
    assert not result.maybe_delivered


async def test_a_server_may_refuse_in_the_middle_of_the_last_chunk() -> None:
    refuses = {"BDAT": Then(b"250 go\r\n", Then(b"552 5.3.4 too much\r\n", HANG))}
    async with SmtpSink(refuses, OFFERS) as sink, bench(ONE, sink.port) as it:
        (result,) = results(await it.deliver(data=(HEAD, BODY * 100)))
    assert isinstance(result, Failed)
    assert result.reply == Reply(552, "5.3.4", "too much")


async def test_before_dot_is_awaited_before_any_octet_of_the_last_chunk() -> None:
    async with SmtpSink(extensions=OFFERS) as sink, bench(ONE, sink.port) as it:
        seen: list[tuple[list[str], int]] = []

        async def mark() -> None:
            await asyncio.sleep(0.01)
            seen.append((sink.verbs(), len(sink.flights)))

        assert summary(await it.relay.deliver(delivery(data=LARGE), before_dot=mark)) == [("Delivered", 250)]
    assert seen == [(["EHLO", "MAIL", "RCPT", "BDAT"], 2)]


# --- a server that others wrote


@needs_postfix
@needs_root
async def test_postfix_takes_chunks() -> None:
    port, host = free_port("127.0.0.51"), "127.0.0.51"
    async with SmtpSink() as behind:
        settings = {
            "relay_domains": "sink.test",
            "relay_recipient_maps": "inline:{r@sink.test=x}",
            "transport_maps": f"inline:{{ {{ sink.test = smtp:[127.0.0.1]:{behind.port} }} }}",
            "smtp_tls_policy_maps": f"inline:{{ {{ [127.0.0.1]:{behind.port} = none }} }}",
        }
        async with postfix(host, port, "mx.sink.test", settings), bench(mx(f"10 mx.sink.test {host}"), port) as it:
            outcome = await it.deliver("r@sink.test", "no@sink.test", data=LARGE, body=BodyKind.EIGHT_BIT_MIME)
            again = await it.deliver("no@sink.test", data=LARGE)
            third = await it.deliver("r@sink.test", data=LARGE)
            assert len(it.journal.named("relay.connect")) == 1
            await until(lambda: len(behind.messages) == 2)
    assert summary(outcome) == [("Delivered", 250), ("Failed", 550)]
    assert summary(again) == [("Failed", 550)]
    assert summary(third) == [("Delivered", 250)]
    assert all(one.data.endswith(b"\r\n\r\n" + BODY) for one in behind.messages)
