"""forwarder/relay: deliveries to real SMTP servers on loopback, and what becomes of each recipient."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

import pytest

from forwarder.model import Address, BodyKind, Deferred, Delivered, Failed, Reply
from forwarder.relay import MAYBE_DELIVERED, Level, RelaySettings, SmtpRelay, Timeouts, TlsRules
from tests.fakes import FakeResolver, MemoryJournal
from tests.peers.smtp_sink import DEFAULT, DROP, HANG, RESET, Action, Drip, SmtpSink, Then
from tests.relay.bench import MESSAGE, ONE, bench, delivery, mx, results, short, summary

SENT = b"".join(MESSAGE)
TWO = mx("10 one.sink.test 127.0.0.1", "20 two.sink.test 127.0.0.2")


def for_recipient(**replies: bytes) -> Action:
    """A reply for each local part; the others are accepted."""
    return lambda argument: next(
        (reply for name, reply in replies.items() if f"<{name}@".encode() in argument), DEFAULT
    )


# --- it goes through


async def test_a_message_arrives_byte_for_byte() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        outcome = await it.deliver()
    (result,) = results(outcome)
    peer = f"mx.sink.test[127.0.0.1]:{sink.port}"
    assert result == Delivered(peer, Reply(250, "2.0.0", "Ok: queued as 4TEST"))
    assert [one.data for one in sink.messages] == [SENT]
    assert sink.verbs() == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]


async def test_envelope_and_message_leave_in_two_flights() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        await it.deliver("r@sink.test", "q@sink.test")
        envelope = (
            b"MAIL FROM:<s@us.test> SIZE=%d BODY=8BITMIME\r\nRCPT TO:<r@sink.test>\r\nRCPT TO:<q@sink.test>\r\nDATA\r\n"
        )
        assert sink.flights[1:] == [envelope % len(SENT), SENT.replace(b"\r\n.", b"\r\n..") + b".\r\n"]


async def test_the_null_sender_goes_as_it_is() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        await it.deliver(sender=None)
    assert sink.messages[0].mail.startswith(b"FROM:<> ")


async def test_a_server_without_pipelining_is_waited_for() -> None:
    async with SmtpSink(extensions=[b"SIZE"]) as sink, bench(ONE, sink.port) as it:
        outcome = await it.deliver("r@sink.test", "q@sink.test")
        assert [flight.count(b"\r\n") for flight in sink.flights[:5]] == [1, 1, 1, 1, 1]
    assert summary(outcome) == [("Delivered", 250)] * 2


async def test_a_server_from_before_esmtp_is_spoken_to() -> None:
    async with SmtpSink({"EHLO": b"500 what?\r\n"}) as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert sink.verbs()[:3] == ["EHLO", "HELO", "MAIL"]
    assert sink.messages[0].mail == b"FROM:<s@us.test>"


@pytest.mark.parametrize("size", [300_000, 5_000_000])
async def test_a_large_message_arrives_whole(size: int) -> None:
    line = b".dots and text of a line\r\n"
    body = line * (size // len(line))
    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        outcome = await it.deliver(data=(*MESSAGE[:2], body))
    assert summary(outcome) == [("Delivered", 250)]
    assert sink.messages[0].data == b"".join(MESSAGE[:2]) + body


async def test_an_empty_message_is_a_message() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver(data=())) == [("Delivered", 250)]
    assert sink.messages[0].data == b""


async def test_a_message_without_a_line_end_gets_one() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        await it.deliver(data=(b"A: b\r\n\r\nend",))
    assert sink.messages[0].data == b"A: b\r\n\r\nend\r\n"


async def test_ipv6_is_a_way_too() -> None:
    async with SmtpSink(host="::1") as sink, bench(mx("10 mx.sink.test ::1"), sink.port) as it:
        (result,) = results(await it.deliver())
    assert isinstance(result, Delivered)
    assert result.peer == f"mx.sink.test[::1]:{sink.port}"


async def test_the_smarthost_gets_everything() -> None:
    async with SmtpSink() as sink, bench({}, 1, smarthost=f"127.0.0.1:{sink.port}", allow_private=False) as it:
        assert summary(await it.deliver("r@nowhere.test")) == [("Delivered", 250)]
        assert it.resolver.queries == []


async def test_the_source_address_can_be_chosen() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port, sources=(ip_address("::1"), ip_address("127.0.0.9"))) as it:
        await it.deliver()
    assert sink.clients == ["127.0.0.9"]


# --- recipients


async def test_each_recipient_has_its_own_answer() -> None:
    script = {"RCPT": for_recipient(no=b"550 5.1.1 nobody\r\n", later=b"451 4.7.1 greylisted\r\n")}
    async with SmtpSink(script) as sink, bench(ONE, sink.port) as it:
        outcome = await it.deliver("yes@sink.test", "no@sink.test", "later@sink.test", "too@sink.test")
    assert [str(address) for address, _ in outcome.results] == [f"{x}@sink.test" for x in ("yes", "no", "later", "too")]
    assert summary(outcome) == [("Delivered", 250), ("Failed", 550), ("Deferred", 451), ("Delivered", 250)]
    refused = results(outcome)[1]
    assert isinstance(refused, Failed)
    assert (refused.reply, refused.reason) == (Reply(550, "5.1.1", "nobody"), "RCPT refused")
    assert [one.rcpts for one in sink.messages] == [[b"TO:<yes@sink.test>", b"TO:<too@sink.test>"]]


@pytest.mark.parametrize("pipelining", [True, False])
async def test_with_everyone_refused_no_message_is_sent_and_the_connection_stays(pipelining: bool) -> None:
    script = {"RCPT": [b"550 5.1.1 nobody\r\n", b"550 5.1.1 nobody\r\n", DEFAULT]}
    async with SmtpSink(script, [b"PIPELINING"] if pipelining else []) as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver("a@sink.test", "b@sink.test")) == [("Failed", 550)] * 2
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert sink.connections == 1
    assert "RSET" in sink.verbs()
    assert len(sink.messages) == 1


async def test_a_354_for_nobody_gets_an_empty_message() -> None:
    """RFC 2920 section 3.1"""
    async with (
        SmtpSink({"RCPT": b"550 no\r\n", "DATA": b"354 go\r\n", "DOT": b"554 no\r\n"}) as sink,
        bench(ONE, sink.port) as it,
    ):
        assert summary(await it.deliver()) == [("Failed", 550)]
    assert sink.messages == []


@pytest.mark.parametrize("too_many", [b"452 4.5.3 too many\r\n", b"452 too many\r\n", b"552 too many\r\n"])
async def test_too_many_recipients_are_sent_to_in_several_transactions(too_many: bytes) -> None:
    script = {"RCPT": [DEFAULT, DEFAULT, too_many, too_many, too_many, DEFAULT, DEFAULT, too_many, DEFAULT]}
    async with SmtpSink(script) as sink, bench(ONE, sink.port) as it:
        outcome = await it.deliver(*(f"{name}@sink.test" for name in "abcde"))
    assert summary(outcome) == [("Delivered", 250)] * 5
    assert [len(one.rcpts) for one in sink.messages] == [2, 2, 1]
    assert sink.connections == 1


@pytest.mark.parametrize(("reply", "result"), [(b"452 4.2.2 full\r\n", "Deferred"), (b"552 5.2.2 full\r\n", "Failed")])
async def test_a_full_mailbox_is_not_too_many_recipients(reply: bytes, result: str) -> None:
    async with SmtpSink({"RCPT": for_recipient(full=reply)}) as sink, bench(ONE, sink.port) as it:
        outcome = await it.deliver("a@sink.test", "full@sink.test")
    assert [kind for kind, _ in summary(outcome)] == ["Delivered", result]
    assert sink.verbs().count("MAIL") == 1


async def test_552_to_the_only_recipient_is_final() -> None:
    async with SmtpSink({"RCPT": b"552 full\r\n"}) as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver()) == [("Failed", 552)]


# --- refusals


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "DOT"])
@pytest.mark.parametrize("extensions", [[b"PIPELINING"], []], ids=["pipelining", "lockstep"])
async def test_5xx_is_final_and_no_other_host_is_asked(verb: str, extensions: list[bytes]) -> None:
    async with (
        SmtpSink({verb: b"550-5.7.1 we do not\r\n550 5.7.1 like you\r\n"}, extensions) as one,
        SmtpSink(host="127.0.0.2", port=one.port) as two,
        bench(TWO, one.port) as it,
    ):
        (result,) = results(await it.deliver())
    assert isinstance(result, Failed)
    assert result.reply == Reply(550, "5.7.1", "we do not like you")
    assert two.connections == 0


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "DOT"])
@pytest.mark.parametrize("action", [b"451 4.3.0 later\r\n", Then(b"421 4.3.2 bye\r\n", DROP)], ids=["451", "421"])
async def test_after_4xx_the_next_host_is_asked(verb: str, action: Action) -> None:
    async with (
        SmtpSink({verb: action}) as one,
        SmtpSink(host="127.0.0.2", port=one.port) as two,
        bench(TWO, one.port) as it,
    ):
        (result,) = results(await it.deliver())
    assert isinstance(result, Delivered)
    assert result.peer.startswith("two.sink.test")
    assert (one.messages, len(two.messages)) == ([], 1)


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "DOT"])
async def test_4xx_from_everyone_is_deferred_with_the_reply(verb: str) -> None:
    async with SmtpSink({verb: b"451 4.3.0 later\r\n"}) as sink, bench(ONE, sink.port) as it:
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)
    assert (result.reply, result.peer) == (Reply(451, "4.3.0", "later"), f"mx.sink.test[127.0.0.1]:{sink.port}")


async def test_only_those_who_were_deferred_are_asked_for_at_the_next_host() -> None:
    async with (
        SmtpSink({"RCPT": for_recipient(later=b"450 later\r\n", no=b"550 no\r\n")}) as one,
        SmtpSink(host="127.0.0.2", port=one.port) as two,
        bench(TWO, one.port) as it,
    ):
        outcome = await it.deliver("yes@sink.test", "later@sink.test", "no@sink.test")
    assert summary(outcome) == [("Delivered", 250), ("Delivered", 250), ("Failed", 550)]
    assert [one.rcpts for one in two.messages] == [[b"TO:<later@sink.test>"]]


async def test_a_4xx_from_a_host_outranks_the_silence_of_the_next() -> None:
    async with SmtpSink({"RCPT": b"450 4.2.1 later\r\n"}) as one, bench(TWO, one.port) as it:
        assert summary(await it.deliver()) == [("Deferred", 450)]


@pytest.mark.parametrize("greeting", [b"554 5.7.1 not you\r\n", b"521 5.3.2 no mail here\r\n"])
async def test_a_host_that_wants_no_mail_at_all_is_the_answer_if_all_say_so(greeting: bytes) -> None:
    async with (
        SmtpSink({"CONNECT": greeting}) as one,
        SmtpSink({"CONNECT": [greeting, DEFAULT]}, host="127.0.0.2", port=one.port),
        bench(TWO, one.port) as it,
    ):
        assert summary(await it.deliver()) == [("Failed", int(greeting[:3]))]
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert one.verbs(1) == ["QUIT"], "RFC 5321 section 3.1: such a server waits for it"


async def test_a_host_that_wants_no_mail_and_one_that_is_down_is_not_for_ever() -> None:
    async with SmtpSink({"CONNECT": b"554 not you\r\n"}) as one, bench(TWO, one.port) as it:
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)


async def test_a_host_that_wants_no_mail_is_not_the_answer_while_another_cannot_be_looked_up() -> None:
    zone = mx("10 one.sink.test 127.0.0.1") | {"two.sink.test": {"*": "SERVFAIL"}}
    zone["sink.test"]["MX"].append("20 two.sink.test")
    async with SmtpSink({"CONNECT": b"554 not you\r\n"}) as one, bench(zone, one.port) as it:
        (result,) = results(await it.deliver())
        one.script = {"MAIL": b"550 5.7.1 never\r\n"}
        (final,) = results(await it.deliver())
    assert isinstance(result, Deferred)
    assert isinstance(final, Failed), "what it says of the mail is another matter"


@pytest.mark.parametrize("name", [b"us.test", b"US.test hello", b"us.test."])
@pytest.mark.parametrize("verb", ["EHLO", "HELO"])
async def test_a_host_that_goes_by_our_name_is_ourselves(name: bytes, verb: str) -> None:
    """Behind an address that we do not know as ours."""
    script = {"EHLO": b"502 what?\r\n", verb: b"250 " + name + b"\r\n"}
    async with SmtpSink(script) as sink, bench(ONE, sink.port) as it:
        (result,) = results(await it.deliver())
        await sink.until_open(0)
    assert isinstance(result, Failed)
    assert result.reply.enhanced == "5.4.6"
    assert sink.verbs()[-1] == "QUIT"
    assert "MAIL" not in sink.verbs()


async def test_another_host_than_ourselves_is_asked() -> None:
    async with (
        SmtpSink({"EHLO": b"250 us.test\r\n"}) as one,
        SmtpSink(host="127.0.0.2", port=one.port),
        bench(TWO, one.port) as it,
    ):
        assert summary(await it.deliver()) == [("Delivered", 250)]


async def test_a_smarthost_may_share_our_name() -> None:
    """It may well be another program on this host."""
    async with (
        SmtpSink({"EHLO": b"250 us.test\r\n"}) as sink,
        bench({}, 1, smarthost=f"127.0.0.1:{sink.port}") as it,
    ):
        assert summary(await it.deliver()) == [("Delivered", 250)]


async def test_a_greylisting_farm_is_not_walked_through() -> None:
    zone = mx(*(f"{n} m{n}.sink.test 127.0.0.{n}" for n in range(1, 6)))
    async with SmtpSink({"RCPT": b"450 later\r\n"}) as one, bench(zone, one.port, max_sessions=2) as it:
        others = [SmtpSink({"RCPT": b"450 later\r\n"}, host=f"127.0.0.{n}", port=one.port) for n in range(2, 6)]
        for sink in others:
            await sink.__aenter__()
        assert summary(await it.deliver()) == [("Deferred", 450)]
        assert [sink.connections for sink in (one, *others)] == [1, 1, 0, 0, 0]
        for sink in others:
            await sink.__aexit__(None, None, None)


# --- hosts of no use


async def test_a_dead_host_is_passed_over_and_then_asked_last() -> None:
    zone = mx("10 dead.sink.test 127.0.0.3", "20 mx.sink.test 127.0.0.1")
    async with SmtpSink() as sink, bench(zone, sink.port) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
        assert summary(await it.deliver()) == [("Delivered", 250)]
        errors = [event["error"] for event in it.journal.named("relay.connect") if "error" in event]
    assert errors == ["Connection refused"], "the second message did not try it"


async def test_nobody_at_home_is_deferred() -> None:
    async with SmtpSink() as sink, bench(mx("10 dead.sink.test 127.0.0.3"), sink.port) as it:
        (result,) = results(await it.deliver())
    assert result == Deferred("Connection refused")


async def test_what_a_host_said_is_told_rather_than_the_silence_of_the_next() -> None:
    async with SmtpSink({"CONNECT": b"421 4.3.2 busy\r\n"}) as one, bench(TWO, one.port) as it:
        (result,) = results(await it.deliver())
    assert result.reply == Reply(421, "4.3.2", "busy")


async def test_no_more_addresses_are_tried_than_may_be() -> None:
    zone = mx("10 dead.sink.test " + " ".join(f"127.0.1.{n}" for n in range(1, 9)), "20 mx.sink.test 127.0.0.1")
    async with SmtpSink() as sink, bench(zone, sink.port, max_addresses=3) as it:
        assert summary(await it.deliver()) == [("Deferred", None)]
        assert len(it.journal.named("relay.connect")) == 3


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize(
    "action",
    [
        pytest.param(DROP, id="drop"),
        pytest.param(RESET, id="reset"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n<html>\r\n", id="rubbish"),
        pytest.param(b"\x00\x1b[2J\xff" * 50_000, id="binary without end"),
        pytest.param(b"250-and\r\n" * 500, id="lines without end"),
    ],
)
async def test_before_the_dot_nothing_is_lost_by_asking_the_next_host(verb: str, action: Action) -> None:
    async with (
        SmtpSink({verb: action}) as one,
        SmtpSink(host="127.0.0.2", port=one.port) as two,
        bench(TWO, one.port) as it,
    ):
        assert summary(await it.deliver()) == [("Delivered", 250)]
        assert len(two.messages) == 1
        one.script = {}
        assert one.open <= 1
    assert one.messages == []


def test_a_next_hop_has_the_time_that_the_rfc_gives_it() -> None:
    """RFC 5321 section 4.5.3.2: from its minimums on, in its order; EHLO has none, and is given as long as the others."""
    given = Timeouts()
    assert (given.greeting, given.ehlo, given.mail, given.rcpt) == (300, 300, 300, 300)
    assert (given.data, given.block, given.dot) == (120, 180, 600)


@pytest.mark.parametrize(
    ("verb", "timeouts"),
    [
        ("CONNECT", short(greeting=0.05)),
        ("EHLO", short(ehlo=0.05)),
        ("MAIL", short(mail=0.05)),
        ("RCPT", short(rcpt=0.05)),
        ("DATA", short(data=0.05)),
    ],
)
@pytest.mark.parametrize("extensions", [[b"PIPELINING"], []], ids=["pipelining", "lockstep"])
async def test_silence_is_waited_for_as_long_as_that_command_may_take(
    verb: str, timeouts: Any, extensions: list[bytes]
) -> None:
    async with SmtpSink({verb: HANG}, extensions) as sink, bench(ONE, sink.port, timeouts) as it:
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)
    assert result.reason.startswith("timed out: ")
    assert result.peer == f"mx.sink.test[127.0.0.1]:{sink.port}"


@pytest.mark.parametrize(("verb", "timeouts"), [("CONNECT", short(greeting=0.1)), ("MAIL", short(mail=0.1))])
async def test_a_byte_now_and_then_is_no_answer(verb: str, timeouts: Any) -> None:
    drip = Drip(b"250-" + b"x" * 1000 + b"\r\n", 0.01)
    async with SmtpSink({verb: drip}) as sink, bench(ONE, sink.port, timeouts) as it:
        (result,) = results(await asyncio.wait_for(it.deliver(), 5))
    assert isinstance(result, Deferred)
    assert result.reason.startswith("timed out: ")


async def test_a_slow_server_is_listened_to_to_the_end() -> None:
    script = {
        "EHLO": Drip(b"250-sink.test\r\n250 PIPELINING\r\n", 0.0001),
        "DOT": Drip(b"250-2.0.0 taken\r\n250 2.0.0 it\r\n", 0.0001),
    }
    async with SmtpSink(script) as sink, bench(ONE, sink.port) as it:
        (result,) = results(await it.deliver())
    assert result.reply == Reply(250, "2.0.0", "taken it")


async def test_a_reader_that_stops_reading_is_given_up_on() -> None:
    def stop(_: bytes) -> Action:
        return Then(b"354 go\r\n", HANG)

    async with SmtpSink({"DATA": stop}) as sink, bench(ONE, sink.port, short(block=0.05)) as it:
        (result,) = results(await it.deliver(data=(*MESSAGE[:2], (b"x" * 78 + b"\r\n") * 400_000)))
    assert isinstance(result, Deferred)
    assert result.reason.startswith("timed out: message")


# --- after the dot


@pytest.mark.parametrize(
    "action", [DROP, RESET, HANG, b"rubbish\r\n", b"354 what?\r\n"], ids=["drop", "reset", "hang", "rubbish", "354"]
)
async def test_silence_after_the_dot_is_maybe_delivered_and_no_other_host_is_asked(action: Action) -> None:
    async with (
        SmtpSink({"DOT": action}) as one,
        SmtpSink(host="127.0.0.2", port=one.port) as two,
        bench(TWO, one.port, short(dot=0.05)) as it,
    ):
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)
    assert result.reason.startswith(MAYBE_DELIVERED)
    assert (result.peer, result.reply) == (f"one.sink.test[127.0.0.1]:{one.port}", None)
    assert two.connections == 0


async def test_an_attempt_without_an_end_forgets_nothing_of_what_it_began() -> None:
    """No second copy for who has it, and none in silence for who may have it."""
    later = b"450 4.2.1 later\r\n"
    async with (
        SmtpSink({"RCPT": for_recipient(two=later, three=later)}) as one,
        SmtpSink({"RCPT": for_recipient(three=later), "DOT": HANG}, host="127.0.0.2", port=one.port) as two,
        bench(TWO, one.port, short(attempt=0.5)) as it,
    ):
        got = results(await it.deliver("one@sink.test", "two@sink.test", "three@sink.test"))
    assert [type(each) for each in got] == [Delivered, Deferred, Deferred]
    assert [getattr(each, "maybe_delivered", False) for each in got] == [False, True, False]
    assert (len(one.messages), two.connections) == (1, 1)


@pytest.mark.parametrize("script", [{"CONNECT": HANG}, {"MAIL": HANG}])
async def test_an_attempt_without_an_end_is_not_maybe_delivered_before_its_dot(script: Any) -> None:
    async with SmtpSink(script) as sink, bench(ONE, sink.port, short(attempt=0.3)) as it:
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)
    assert (result.reason, result.maybe_delivered) == ("the attempt took too long", False)


async def test_who_was_refused_before_is_not_maybe_delivered() -> None:
    async with SmtpSink({"RCPT": for_recipient(no=b"550 no\r\n"), "DOT": DROP}) as sink, bench(ONE, sink.port) as it:
        refused, maybe = results(await it.deliver("no@sink.test", "yes@sink.test"))
    assert isinstance(refused, Failed)
    assert isinstance(maybe, Deferred)
    assert maybe.reason.startswith(MAYBE_DELIVERED)


async def test_421_after_the_dot_is_an_answer() -> None:
    async with SmtpSink({"DOT": Then(b"421 4.3.2 bye\r\n", DROP)}) as sink, bench(ONE, sink.port) as it:
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)
    assert result.reply == Reply(421, "4.3.2", "bye")


@pytest.mark.parametrize("reply", [b"552 5.3.4 too much\r\n", b"451 4.3.0 disk full\r\n"])
async def test_a_server_may_refuse_in_the_middle_of_a_large_message(reply: bytes) -> None:
    body = (b"x" * 78 + b"\r\n") * 200_000
    async with SmtpSink({"DATA": Then(b"354 go\r\n", Then(reply, HANG))}) as sink, bench(ONE, sink.port) as it:
        (result,) = results(await it.deliver(data=(*MESSAGE[:2], body)))
    assert result.reply is not None
    assert result.reply.code == int(reply[:3])
    assert sink.messages == []


# --- what the next hop cannot take


def misfit(result: object) -> str | None:
    assert isinstance(result, Failed)
    assert result.peer is None, "it was we who said no"
    return result.reply.enhanced


EIGHT_BIT = (*MESSAGE[:2], b"caf\xc3\xa9\r\n")


@pytest.mark.parametrize(
    ("extensions", "body", "data", "parameter"),
    [
        ([b"8BITMIME"], BodyKind.EIGHT_BIT_MIME, EIGHT_BIT, b" BODY=8BITMIME"),
        ([b"8BITMIME"], BodyKind.EIGHT_BIT_MIME, MESSAGE, b" BODY=8BITMIME"),
        ([b"8BITMIME"], BodyKind.SEVEN_BIT, EIGHT_BIT, b" BODY=8BITMIME"),
        ([b"8BITMIME"], BodyKind.SEVEN_BIT, MESSAGE, b""),
        ([], BodyKind.EIGHT_BIT_MIME, MESSAGE, b""),
        ([], BodyKind.SEVEN_BIT, EIGHT_BIT, b""),
    ],
)
async def test_8bit_text_goes_as_it_came(
    extensions: list[bytes], body: BodyKind, data: tuple[bytes, ...], parameter: bytes
) -> None:
    async with SmtpSink(extensions=extensions) as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver(data=data, body=body)) == [("Delivered", 250)]
    assert sink.messages[0].mail == b"FROM:<s@us.test>" + parameter
    assert sink.messages[0].data == b"".join(data)


async def test_declared_8bit_text_is_not_sent_where_it_is_not_taken() -> None:
    async with SmtpSink(extensions=[]) as sink, bench(ONE, sink.port) as it:
        (result,) = results(await it.deliver(data=EIGHT_BIT))
    assert misfit(result) == "5.6.3"
    assert "MAIL" not in sink.verbs()


async def test_a_message_beyond_the_stated_size_is_not_sent() -> None:
    async with SmtpSink(extensions=[b"SIZE 40"]) as sink, bench(ONE, sink.port) as it:
        (result,) = results(await it.deliver())
    assert misfit(result) == "5.3.4"
    assert "MAIL" not in sink.verbs()


@pytest.mark.parametrize("size", [b"SIZE", b"SIZE 0", b"SIZE 60"])
async def test_a_message_within_the_stated_size_is_sent(size: bytes) -> None:
    async with SmtpSink(extensions=[size]) as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver(data=(b"x" * 58 + b"\r\n",))) == [("Delivered", 250)]
    assert b"SIZE=60" in sink.messages[0].mail


UTF8_HEADER = ("Subject: h\u00e9\r\n".encode(), b"\r\n", b"x\r\n")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        pytest.param({"data": UTF8_HEADER, "smtputf8": True}, "5.6.7", id="header"),
        pytest.param({"sender": "h\u00e9@us.test"}, "5.6.7", id="sender"),
        pytest.param({"data": (b"A: b\r\n\r\n", "\u00e9\r\n".encode()), "smtputf8": True}, None, id="body only"),
        pytest.param({"smtputf8": True}, None, id="asked for without need"),
        pytest.param({"data": UTF8_HEADER}, None, id="8-bit header, never declared"),
        pytest.param({"sender": "s@h\u00e9.test"}, None, id="a domain has A-labels"),
    ],
)
async def test_mail_that_needs_smtputf8_is_not_sent_where_it_is_not_offered(
    message: dict[str, Any], code: str | None
) -> None:
    async with SmtpSink(extensions=[b"8BITMIME"]) as sink, bench(ONE, sink.port) as it:
        (result,) = results(await it.deliver(**message))
    if code is None:
        assert isinstance(result, Delivered)
        assert b"SMTPUTF8" not in sink.messages[0].mail
    else:
        assert misfit(result) == code


async def test_only_the_recipient_who_needs_smtputf8_fails_for_it() -> None:
    async with SmtpSink(extensions=[b"8BITMIME"]) as sink, bench(ONE, sink.port) as it:
        outcome = await it.deliver("h\u00e9@sink.test", "a@sink.test")
    assert summary(outcome) == [("Failed", 553), ("Delivered", 250)]


async def test_smtputf8_is_asked_for_where_it_is_needed() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver("h\u00e9@sink.test", data=UTF8_HEADER, smtputf8=True)) == [("Delivered", 250)]
    assert sink.messages[0].mail.endswith(b" BODY=8BITMIME SMTPUTF8")
    assert sink.messages[0].rcpts == ["TO:<h\u00e9@sink.test>".encode()]


@pytest.mark.parametrize("header", [b"X: a\nMAIL FROM:<x>\r\n", b"X: a\rb\r\n", b"X: a\r\n\n.\r\n"])
async def test_a_bare_newline_of_our_own_making_is_not_sent(header: bytes) -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        (result,) = results(await it.deliver(data=(header, b"\r\n", b"x\r\n")))
    assert isinstance(result, Deferred), "never Failed for a fault of ours"
    assert sink.connections == 0


async def test_a_line_end_across_two_chunks_is_a_line_end() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver(data=(b"X: a\r", b"\n\r\n.x\r\n"))) == [("Delivered", 250)]
    assert sink.messages[0].data == b"X: a\r\n\r\n.x\r\n"


async def test_an_address_that_cannot_be_encoded_fails_alone() -> None:
    bad = Address("r", "\u0378.test")
    async with SmtpSink() as sink:
        relay = SmtpRelay(
            FakeResolver(ONE), RelaySettings("us.test", port=sink.port, allow_private=True), MemoryJournal()
        )
        one = delivery("a@sink.test")
        outcome = await relay.deliver(
            type(one)("d", None, (bad, *one.recipients), "sink.test", MESSAGE, one.expires_at)
        )
        await relay.close()
    assert summary(outcome) == [("Failed", 553), ("Delivered", 250)]


# --- no way there


@pytest.mark.parametrize(
    ("zone", "kind", "enhanced"),
    [
        ({}, "Failed", "5.1.2"),
        ({"sink.test": {"MX": ["0 ."]}}, "Failed", "5.1.10"),
        ({"sink.test": {"MX": "SERVFAIL"}}, "Deferred", None),
        ({"sink.test": {"MX": ["10 us.test"]}, "us.test": {"A": ["127.0.0.1"]}}, "Failed", "5.4.6"),
    ],
)
async def test_no_route_is_an_outcome_for_everyone(zone: Any, kind: str, enhanced: str | None) -> None:
    async with bench(zone, 25) as it:
        for result in results(await it.deliver("a@sink.test", "b@sink.test")):
            assert type(result).__name__ == kind
            assert (result.reply.enhanced if result.reply else None) == enhanced


async def test_a_private_destination_is_not_connected_to() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port, allow_private=False) as it:
        (result,) = results(await it.deliver())
        literal = results(await it.deliver("r@[127.0.0.1]"))[0]
    for one in (result, literal):
        assert isinstance(one, Failed)
        assert one.reply.enhanced == "5.4.4"
    assert sink.connections == 0


async def test_a_literal_domain_is_connected_to() -> None:
    async with SmtpSink() as sink, bench({}, sink.port) as it:
        (result,) = results(await it.deliver("r@[127.0.0.1]"))
    assert isinstance(result, Delivered)
    assert result.peer == f"[127.0.0.1][127.0.0.1]:{sink.port}"


@pytest.mark.parametrize("settings", [RelaySettings("us.test", smarthost="relay"), RelaySettings("two words")])
def test_a_malformed_setting_is_said_at_once(settings: RelaySettings) -> None:
    with pytest.raises(ValueError, match="host"):
        SmtpRelay(FakeResolver(), settings, MemoryJournal())


async def test_a_route_is_looked_up_once_for_many_messages() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        for _ in range(3):
            await it.deliver()
        assert it.resolver.queries == [("sink.test", "MX"), ("mx.sink.test", "A"), ("mx.sink.test", "AAAA")]


# --- before_dot, cancellation


async def test_before_dot_is_awaited_when_the_host_is_ready_and_before_any_of_the_message() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        seen: list[tuple[list[str], int]] = []

        async def mark() -> None:
            await asyncio.sleep(0.01)
            seen.append((sink.verbs(), len(sink.flights)))

        outcome = await it.relay.deliver(delivery(), before_dot=mark)
    assert summary(outcome) == [("Delivered", 250)]
    assert seen == [(["EHLO", "MAIL", "RCPT", "DATA"], 2)]


async def test_if_before_dot_raises_nothing_is_sent() -> None:
    async def fail() -> None:
        raise LookupError("no")

    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        with pytest.raises(LookupError):
            await it.relay.deliver(delivery(), before_dot=fail)
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert len(sink.messages) == 1
    assert sink.connections == 2, "the first was not good for another message"


async def test_before_dot_is_not_awaited_where_nobody_is_accepted() -> None:
    async def fail() -> None:
        raise LookupError("no")

    async with SmtpSink({"RCPT": b"550 no\r\n"}) as sink, bench(ONE, sink.port) as it:
        assert summary(await it.relay.deliver(delivery(), before_dot=fail)) == [("Failed", 550)]


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "DATA", "DOT"])
async def test_a_cancelled_attempt_leaves_nothing_behind(verb: str) -> None:
    async with SmtpSink({verb: [HANG, DEFAULT]}) as sink, bench(ONE, sink.port, connections=1) as it:
        attempt = asyncio.ensure_future(it.relay.deliver(delivery()))
        await asyncio.wait_for(sink.hanging.wait(), 30)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        assert summary(await it.deliver()) == [("Delivered", 250)], "the slot was given back"


# --- what the log gets


async def test_the_log_tells_what_happened_without_naming_recipients() -> None:
    script = {"RCPT": for_recipient(no=b"550 5.1.1 nobody\r\n")}
    async with SmtpSink(script) as sink, bench(ONE, sink.port) as it:
        await it.deliver("a@sink.test", "no@sink.test", "b@sink.test")
    peer = f"mx.sink.test[127.0.0.1]:{sink.port}"
    assert it.journal.named("relay.connect") == [{"id": "d1", "peer": peer}]
    (sent,) = it.journal.named("relay.sent")
    assert (sent["id"], sent["peer"], sent["code"], sent["recipients"], sent["tls"]) == ("d1", peer, 250, 2, None)
    (failed,) = it.journal.named("relay.failed")
    assert (failed["code"], failed["enhanced"], failed["recipients"], failed["reason"]) == (
        550,
        "5.1.1",
        1,
        "RCPT refused",
    )
    assert not any("@sink.test" in str(event) for event in it.journal.events)


async def test_a_deferred_delivery_is_told() -> None:
    async with bench({"sink.test": {"MX": "SERVFAIL"}}, 25) as it:
        await it.deliver()
    (event,) = it.journal.named("relay.deferred")
    assert (event["id"], event["peer"], event["code"]) == ("d1", None, None)
    assert event["reason"] == "MX look-up failed: SERVFAIL"


# --- no TLS here


async def test_an_offer_of_tls_can_be_left_alone() -> None:
    extensions = [b"STARTTLS"]
    async with SmtpSink(extensions=extensions) as sink, bench(ONE, sink.port, tls=TlsRules(Level.NONE)) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert "STARTTLS" not in sink.verbs()
