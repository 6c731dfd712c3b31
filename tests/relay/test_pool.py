"""forwarder/relay/pool.py, seen from outside: which connections a server gets."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from forwarder.model import Deferred, Delivered
from forwarder.relay import MAYBE_DELIVERED, RelaySettings
from forwarder.relay.connection import Connection
from forwarder.relay.mx import Target
from forwarder.relay.pool import Pool, key_of
from forwarder.relay.tls import NoTls
from forwarder.smtp.client import Event, Finished
from tests.peers.smtp_sink import DEFAULT, DROP, HANG, RESET, Action, Drip, SmtpSink, Then
from tests.relay.bench import ONE, SHORT, bench, delivery, mx, results, short, summary


async def test_messages_share_a_connection() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        for _ in range(5):
            await it.deliver()
        assert len(it.journal.named("relay.connect")) == 1
    assert (sink.connections, len(sink.messages)) == (1, 5)


async def test_hosts_of_several_domains_share_a_connection() -> None:
    zone = ONE | {"other.test": {"MX": ["10 mail.other.test"]}, "mail.other.test": {"A": ["127.0.0.1"]}}
    async with SmtpSink() as sink, bench(zone, sink.port) as it:
        await it.deliver()
        (result,) = results(await it.deliver("r@other.test"))
    assert isinstance(result, Delivered)
    assert sink.connections == 1


@pytest.mark.parametrize(
    "farewell",
    [DROP, RESET, Then(b"421 4.4.2 idle\r\n", DROP), Then(b"rubbish\r\n", DROP)],
    ids=["drop", "reset", "421", "rubbish"],
)
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_a_connection_that_died_while_idle_costs_nothing(verb: str, farewell: Action) -> None:
    """The server closes it when the next command arrives: the client cannot know before."""
    async with SmtpSink({verb: [DEFAULT, farewell, DEFAULT]}) as sink, bench(ONE, sink.port) as it:
        assert summary(await it.deliver()) == [("Delivered", 250)]
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert (sink.connections, len(sink.messages)) == (2, 2)


@pytest.mark.parametrize("verb", ["MAIL", "RSET"])
async def test_a_connection_that_went_silently_costs_a_moment(verb: str) -> None:
    """A firewall forgot it: nobody closes it and nobody answers."""
    nobody = b"550 5.1.1 nobody\r\n"
    script = {"MAIL": [DEFAULT, HANG, DEFAULT]} if verb == "MAIL" else {"RCPT": [nobody, DEFAULT], "RSET": HANG}
    async with SmtpSink(script) as sink, bench(ONE, sink.port, short(reused=0.05)) as it:
        await it.deliver()
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert sink.connections == 2


async def test_a_server_that_answers_slowly_on_a_fresh_connection_is_waited_for() -> None:
    async with (
        SmtpSink({"MAIL": Drip(b"250 2.1.0 Ok\r\n", 0.01)}) as sink,
        bench(ONE, sink.port, short(reused=0.02)) as it,
    ):
        assert summary(await it.deliver()) == [("Delivered", 250)]
        assert summary(await it.deliver()) == [("Delivered", 250)], "on another one"
    assert sink.connections == 2


async def test_a_message_that_takes_long_on_a_used_connection_is_waited_for() -> None:
    script = {"DOT": [DEFAULT, Drip(b"250 2.0.0 Ok\r\n", 0.02)]}
    async with SmtpSink(script) as sink, bench(ONE, sink.port, short(reused=0.05)) as it:
        await it.deliver()
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert (sink.connections, len(sink.messages)) == (1, 2)


async def test_a_connection_that_the_server_closed_is_not_used() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        await it.deliver()
        sink.drop_all()
        await sink.until_open(0)
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert sink.connections == 2
    assert sink.verbs(2)[0] == "EHLO"


async def test_a_farewell_to_an_idle_connection_is_heard() -> None:
    async with SmtpSink({"DOT": [Then(b"250 Ok\r\n", Then(b"421 4.3.2 restarting\r\n", HANG)), DEFAULT]}) as sink:
        async with bench(ONE, sink.port) as it:
            await it.deliver()
            await asyncio.sleep(0.02)
            assert summary(await it.deliver()) == [("Delivered", 250)]
        assert sink.connections == 2


@pytest.mark.parametrize("farewell", [DROP, RESET, Then(b"rubbish\r\n", DROP)], ids=["drop", "reset", "rubbish"])
async def test_a_message_that_was_sent_to_its_dot_is_not_sent_again(farewell: Action) -> None:
    async with SmtpSink({"DOT": [DEFAULT, farewell, DEFAULT]}) as sink, bench(ONE, sink.port) as it:
        await it.deliver()
        (result,) = results(await it.deliver())
    assert isinstance(result, Deferred)
    assert result.reason.startswith(MAYBE_DELIVERED)
    assert (sink.connections, len(sink.messages)) == (1, 1)


async def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next_one() -> None:
    """The attempt is cancelled in the moment in which its answer comes."""
    async with SmtpSink({"RCPT": [DEFAULT, b"550 no\r\n"]}) as sink, bench(ONE, sink.port) as it:
        attempt = asyncio.ensure_future(it.relay.deliver(delivery()))
        put = Connection._put

        def cancel_then_put(self: Connection, event: Event) -> None:
            if isinstance(event, Finished) and not attempt.done():
                attempt.cancel()
            put(self, event)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Connection, "_put", cancel_then_put)
            with pytest.raises(asyncio.CancelledError):
                await attempt
        assert summary(await it.deliver()) == [("Failed", 550)]


async def test_only_once_is_a_fresh_connection_tried() -> None:
    async with SmtpSink({"MAIL": [DEFAULT, DROP, DROP]}) as sink, bench(ONE, sink.port) as it:
        await it.deliver()
        assert summary(await it.deliver()) == [("Deferred", None)]
    assert sink.connections == 2


async def test_a_recipient_refused_before_the_connection_died_stays_refused() -> None:
    script = {"RCPT": [DEFAULT, b"550 no\r\n", DEFAULT], "DATA": [DEFAULT, DROP, DEFAULT]}
    async with SmtpSink(script) as sink, bench(ONE, sink.port) as it:
        await it.deliver()
        outcome = await it.deliver("no@sink.test", "yes@sink.test")
    assert summary(outcome) == [("Failed", 550), ("Delivered", 250)]
    assert sink.messages[1].rcpts == [b"TO:<yes@sink.test>"]


async def test_a_connection_carries_so_many_messages_and_no_more() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port, connection_messages=2) as it:
        for _ in range(5):
            await it.deliver()
        await sink.until_open(1)
    assert sink.connections == 3
    assert sink.verbs(1)[-1] == "QUIT"


async def test_a_connection_grows_so_old_and_no_older() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port, connection_age=0.0) as it:
        await it.deliver()
        await it.deliver()
        await sink.until_open(0)
    assert sink.connections == 2


async def test_an_idle_connection_is_closed_with_quit() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port, idle=0.02) as it:
        await it.deliver()
        await sink.until_open(0)
        assert it.relay._pool._peers == {}, "nothing is left of a host that is not talked to"
    assert sink.verbs()[-1] == "QUIT"


async def test_so_many_idle_connections_are_kept_in_all() -> None:
    zone = mx("10 mx.sink.test 127.0.0.1")
    async with SmtpSink() as sink, bench(zone, sink.port, idle_connections=2) as it:
        await asyncio.gather(*(it.deliver() for _ in range(6)))
        await sink.until_open(2)
    assert sink.connections > 2


async def test_deliveries_wait_in_turn_for_a_connection() -> None:
    order: list[str] = []
    async with SmtpSink() as sink, bench(ONE, sink.port, connections=3) as it:

        async def one(name: str) -> None:
            assert summary(await it.deliver(f"{name}@sink.test")) == [("Delivered", 250)]
            order.append(name)

        names = [f"r{n:02}" for n in range(20)]
        await asyncio.gather(*map(one, names))
        assert it.relay._pool._peers.popitem()[1].busy == 0
    assert sink.most_open <= 3
    assert sink.connections <= 3
    assert [abs(order.index(name) - at) <= 3 for at, name in enumerate(names)] == [True] * 20, order


async def test_who_waits_too_long_is_deferred() -> None:
    async with (
        SmtpSink({"MAIL": [HANG, DEFAULT]}) as sink,
        bench(ONE, sink.port, short(slot=0.03), connections=1) as it,
    ):
        first = asyncio.ensure_future(it.deliver())
        await asyncio.sleep(0)
        (result,) = results(await it.deliver())
        first.cancel()
        assert summary(await it.deliver()) == [("Delivered", 250)]
    assert result == Deferred("all connections to this host are busy")


async def test_who_stops_waiting_takes_nobodys_turn() -> None:
    async with SmtpSink({"MAIL": [HANG, DEFAULT]}) as sink, bench(ONE, sink.port, connections=1) as it:
        first, second, third = (asyncio.ensure_future(it.relay.deliver(delivery())) for _ in range(3))
        await asyncio.wait_for(sink.hanging.wait(), 30)
        first.cancel()
        second.cancel()
        ends = await asyncio.gather(first, second, return_exceptions=True)
        assert list(map(type, ends)) == [asyncio.CancelledError] * 2
        assert summary(await third) == [("Delivered", 250)]
        assert it.relay._pool._peers.popitem()[1].busy == 0


async def test_a_turn_that_comes_too_late_goes_to_the_next() -> None:
    settings = RelaySettings("us.test", connections=1, timeouts=SHORT)
    pool = Pool(settings)
    key = key_of(Target("x", "127.0.0.1", 25, 0), NoTls())
    await pool.acquire(key)
    second, third = (asyncio.ensure_future(pool.acquire(key)) for _ in range(2))
    await asyncio.sleep(0)
    pool.release(key, None)
    second.cancel()
    assert await asyncio.wait_for(third, 4) is None
    assert second.cancelled()


async def test_equal_hosts_share_the_load() -> None:
    zone = mx("10 one.sink.test 127.0.0.1", "10 two.sink.test 127.0.0.2")
    async with (
        SmtpSink() as one,
        SmtpSink(host="127.0.0.2", port=one.port) as two,
        bench(zone, one.port, connection_messages=1) as it,
    ):
        for _ in range(40):
            await it.deliver()
    counts = Counter(one=len(one.messages), two=len(two.messages))
    assert min(counts.values()) >= 10


async def test_among_equals_an_open_connection_is_used_first() -> None:
    zone = mx("10 one.sink.test 127.0.0.1", "10 two.sink.test 127.0.0.2")
    async with SmtpSink() as one, SmtpSink(host="127.0.0.2", port=one.port) as two, bench(zone, one.port) as it:
        for _ in range(10):
            await it.deliver()
    assert one.connections + two.connections == 1


async def test_close_says_quit_and_waits_for_it() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        await asyncio.gather(*(it.deliver() for _ in range(4)))
        await it.relay.close()
        await sink.until_open(0)
    assert sink.verbs().count("QUIT") == sink.connections


async def test_close_does_not_wait_for_ever() -> None:
    async with SmtpSink({"QUIT": HANG}) as sink, bench(ONE, sink.port, short(quit=0.05)) as it:
        await it.deliver()
        await asyncio.wait_for(it.relay.close(), 30)
        sink.drop_all()


async def test_after_close_nothing_is_kept() -> None:
    async with SmtpSink() as sink, bench(ONE, sink.port) as it:
        await it.relay.close()
        assert summary(await it.deliver()) == [("Delivered", 250)]
        await sink.until_open(0)
