"""The next hop refuses, breaks off, answers late or talks rubbish at every step: the sender hears 250, nobody gets a report, and
one copy arrives. Only what is said for good is said on, in session.

Each case has a domain, an alias and a mail host of its own, and all of them go through one service. ``./scripts/faults hops``
runs the full measure of the last test.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from forwarder.app import parts
from forwarder.relay import RelaySettings, Timeouts
from tests.e2e.lab import MESSAGE, Lab, lab
from tests.faults.copies import count, dead_letters, on_record, settled, unflagged
from tests.faults.mta import Mta
from tests.faults.service import LISTEN, SINK, SOURCE, service
from tests.faults.test_kills import BODY
from tests.peers.smtp_sink import DEFAULT, DROP, HANG, LOST, RESET, Action, Drip, Script, SmtpSink, Then
from tests.waiting import until

#: Connections that break behind the final dot.
DROPS = int(os.environ.get("FAULT_DROPS", "20"))
RUN = 60 + DROPS / 2

#: Seconds for each answer of a next hop: the real ones by a thousandth.
SHORT = Timeouts(
    connect=0.4, tls=0.4, greeting=0.4, ehlo=0.4, mail=0.4, rcpt=0.4, data=0.4, block=0.4, dot=1.5, quit=0.4, slot=5
)
SOON = "[queue]\nfirst_retry = 0.05\nmax_retry = 0.1\n"
#: An answer that takes longer than a session of 0.1 seconds, and less than the time limit of that step.
LATE = Drip(b"250 2.0.0 slow and sure\r\n", 0.01)


@dataclass(frozen=True)
class Case:
    """``dots``: how many final dots are read, all but the last without an answer."""

    name: str
    script: Script
    extensions: Sequence[bytes] = (b"PIPELINING", b"8BITMIME", b"ENHANCEDSTATUSCODES")
    tls: ssl.SSLContext | None = None
    dots: int = 1
    copies: int = 1


def at(verb: str, *actions: Action) -> Script:
    """These first, and then what a good server says."""
    return {verb: [*actions, DEFAULT]}


BREAKS: dict[str, Action] = {"closes": DROP, "resets": RESET, "is silent": HANG}
RUBBISH: dict[str, Action] = {
    "no SMTP": b"hello there\r\n",
    "no line end": Then(b"250 for ever", HANG),
    "a line of a megabyte": b"250 " + b"x" * (1 << 20) + b"\r\n",
    "NUL": b"\0\0\0\0\r\n",
    "yes and no in one reply": b"250-yes\r\n550 no\r\n",
    "an unknown class": b"999 what\r\n",
    "354 where nobody asked": b"354 go on\r\n",
    "binary": bytes(range(256)) * 4 + b"\r\n",
    "lines without end": b"250-more\r\n" * 5000,
}
_VERBS = ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA")


def cases(certificates: dict[str, ssl.SSLContext]) -> list[Case]:
    """Every fault that passes."""
    found = [Case(f"{verb} {code}", at(verb, b"%d 4.3.0 not now\r\n" % code)) for verb in _VERBS for code in (421, 450)]
    found += [Case(f"{verb} {how}", at(verb, action)) for verb in _VERBS for how, action in BREAKS.items()]
    found += [
        Case(f"{verb} {what}", at(verb, action))
        for verb, rubbish in (("CONNECT", RUBBISH), ("EHLO", RUBBISH), ("RCPT", RUBBISH))
        for what, action in rubbish.items()
        # A greeting or EHLO reply of 250 lines is odd, but it is a yes.
        if not (verb != "RCPT" and what == "lines without end")
    ]
    found += [Case(f"DOT {code}", at("DOT", b"%d 4.3.0 not now\r\n" % code)) for code in (421, 451, 452)]
    found += [
        # Once more, on record; the first was not kept.
        *(Case(f"DOT {how}", at("DOT", action), dots=2) for how, action in BREAKS.items()),
        Case("DOT rubbish", at("DOT", b"what?\r\n"), dots=2),
        Case("DOT 354", at("DOT", b"354 go on\r\n"), dots=2),
        # And here it was.
        Case("DOT lost", at("DOT", LOST), dots=2, copies=2),
        Case("DATA answered with yes", at("DATA", b"250 ok\r\n")),
        Case("ESC in every reply", {"MAIL": b"250 \x1b[31mred\r\n", "DOT": b"250 \x1b]0;title\x07\r\n"}),
        Case("late", {"DOT": LATE}),
        Case("without PIPELINING, RCPT closes", at("RCPT", DROP), extensions=()),
        Case("STARTTLS refused", {"STARTTLS": b"454 4.7.0 not now\r\n"}, tls=certificates["self-signed"]),
        Case("STARTTLS unknown", {"STARTTLS": b"502 5.5.1 what?\r\n"}, tls=certificates["self-signed"]),
        Case("STARTTLS rubbish", at("STARTTLS", b"what?\r\n"), tls=certificates["self-signed"]),
        Case("STARTTLS closes", at("STARTTLS", DROP), tls=certificates["self-signed"]),
        Case("handshake hangs", at("STARTTLS", Then(b"220 go\r\n", HANG)), tls=certificates["self-signed"]),
        Case("handshake closes", at("STARTTLS", Then(b"220 go\r\n", DROP)), tls=certificates["self-signed"]),
        Case("injected plain text", at("STARTTLS", b"220 go\r\n250 evil\r\n"), tls=certificates["self-signed"]),
        *(Case(f"certificate {what}", {}, tls=context) for what, context in certificates.items()),
    ]
    return found


@pytest.fixture(scope="module")
def certificates() -> dict[str, ssl.SSLContext]:
    def context(name: str) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert(name).configure_cert(made)
        return made

    # Nobody here trusts trustme's authority.
    return {
        "self-signed": context("mx.sink.test"),
        "of another name": context("elsewhere.test"),
        "none": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
    }


@pytest.fixture
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting: too short makes second copies."""
    monkeypatch.setattr(parts, "RelaySettings", functools.partial(RelaySettings, timeouts=SHORT))


@asynccontextmanager
async def hops(
    folder: Path, these: Sequence[Case], relay: str = "", aliases: str = ""
) -> AsyncIterator[tuple[Lab, list[SmtpSink]]]:
    """A domain cN.test with an alias cN and a mail host for each case."""
    hosts = [f"127.0.1.{number + 1}" for number in range(len(these))]
    zone = {f"c{number}.test": {"MX": [f"10 mx.c{number}.test."]} for number in range(len(these))}
    zone |= {f"mx.c{number}.test": {"A": [host]} for number, host in enumerate(hosts)}
    aliases += "\n" + "\n".join(f'c{number} = ["x@c{number}.test"]' for number in range(len(these)))
    async with lab(folder, zone=zone, aliases=aliases, relay=relay, extra=SOON) as it, AsyncExitStack() as stack:
        sinks = [
            await stack.enter_async_context(
                SmtpSink(case.script, extensions=case.extensions, tls=case.tls, host=host, port=it.port)
            )
            for case, host in zip(these, hosts, strict=True)
        ]
        yield it, sinks


async def send(it: Lab, number: int) -> str:
    alias = f"c{number}@fwd.test"
    data = it.signed(MESSAGE.replace(b"<one@", b"<c%d@" % number), recipients=(alias,))
    return await it.send(data, recipient=alias)


@pytest.mark.usefixtures("short_times")
@pytest.mark.parametrize(
    "relay",
    [
        pytest.param("", id="in session"),
        pytest.param(
            "in_session = 0.1",
            id="behind the session",
            marks=pytest.mark.skipif("FAULT_DROPS" not in os.environ, reason="scripts/faults hops"),
        ),
    ],
)
async def test_no_fault_of_a_next_hop_that_passes_is_a_refusal_or_a_report(
    tmp_path: Path, certificates: dict[str, ssl.SSLContext], relay: str
) -> None:
    these = cases(certificates)
    async with hops(tmp_path, these, relay) as (it, sinks):
        answers = await asyncio.gather(*(send(it, number) for number in range(len(these))))
        refused = {case.name: answer for case, answer in zip(these, answers, strict=True) if answer[:3] != "250"}
        assert refused == {}
        await until(lambda: all(len(sink.messages) >= case.copies for case, sink in zip(these, sinks, strict=True)))
        await until(lambda: not still_waiting(it))
        copies = {case.name: len(sink.messages) for case, sink in zip(these, sinks, strict=True)}
        assert copies == {case.name: case.copies for case in these}
        flagged = {str(one["alias"]) for one in it.journal.named("queue.outcome") if one["maybe_dup"]}
        assert flagged == {f"c{number}@fwd.test" for number, case in enumerate(these) if case.dots > 1}
        assert it.sender.waiting.empty()
        assert not it.journal.named("queue.dead")
        assert not it.journal.named("fault")


def still_waiting(it: Lab) -> set[str]:
    """Items that were put and have no final outcome."""
    put = {str(one["item"]) for one in it.journal.named("queue.put")}
    return put - {str(one["item"]) for one in it.journal.named("queue.outcome") if one["outcome"] == "delivered"}


FOR_GOOD: dict[str, Script] = {
    "CONNECT 554": {"CONNECT": b"554 5.7.1 no mail here\r\n"},
    "HELO 550": {"EHLO": b"550 no\r\n", "HELO": b"550 no\r\n"},
    **{f"{verb} 550": {verb: b"550 5.7.1 \x1b[31mx@c0.test no\0\r\n"} for verb in ("MAIL", "RCPT", "DATA", "DOT")},
    "MAIL 555": {"MAIL": b"555 5.5.4 parameters\r\n"},
}


async def test_what_is_refused_for_good_the_sender_hears_in_session_and_nobody_gets_a_report(tmp_path: Path) -> None:
    these = [Case(name, script) for name, script in FOR_GOOD.items()]
    async with hops(tmp_path, these) as (it, sinks):
        answers = await asyncio.gather(*(send(it, number) for number in range(len(these))))
        assert {answer[:1] for answer in answers} == {"5"}
        assert all(answer.isprintable() and "c0.test" not in answer for answer in answers)
        assert not any(sink.messages for sink in sinks)
        assert it.sender.waiting.empty()
        assert not it.journal.named("queue.put")


async def test_each_recipient_of_one_transaction_has_its_own_fate(tmp_path: Path) -> None:
    turns = {b"later": 1, b"both": 1}

    def rcpt(argument: bytes) -> Action:
        name = argument.partition(b"<")[2].partition(b"@")[0]
        if name == b"never":
            return b"550 5.1.1 nobody\r\n"
        if turns.get(name):
            turns[name] -= 1
            return b"450 4.2.1 later\r\n"
        return DEFAULT

    case = Case("mixed", {"RCPT": rcpt, "DATA": [b"451 4.3.0 not now\r\n", DEFAULT]})  # type: ignore[dict-item]
    aliases = 'many = ["now@c0.test", "later@c0.test", "both@c0.test", "never@c0.test"]'
    async with hops(tmp_path, [case], aliases=aliases) as (it, [sink]):
        sent = it.signed(recipients=("many@fwd.test",))
        assert (await it.send(sent, recipient="many@fwd.test")).startswith("250")
        report = await it.next(it.sender)
        assert report.data.count(b"Final-Recipient:") == 1
        assert b"Status: 5.1.1" in report.data
        await until(lambda: sum(len(one.rcpts) for one in sink.messages) == 3)
        await until(lambda: not still_waiting(it))
        reached = sorted(rcpt for one in sink.messages for rcpt in one.rcpts)
        assert reached == [b"TO:<both@c0.test>", b"TO:<later@c0.test>", b"TO:<now@c0.test>"]
        assert it.sender.waiting.empty()


@pytest.mark.timeout(RUN)
async def test_a_thousand_disconnects_behind_the_dot_lose_nothing_and_every_second_copy_is_on_record(
    tmp_path: Path,
) -> None:
    """F20: half of the messages were kept by the next hop that did not say so."""
    rng, drops = random.Random(20), 0

    def answer(_: bytes) -> Action:
        nonlocal drops
        if drops < DROPS and rng.random() < 0.5:
            drops += 1
            return LOST if rng.random() < 0.5 else DROP
        return DEFAULT

    names = [f"d{number}" for number in range(DROPS * 3 // 2)]
    async with (
        service(tmp_path) as it,
        SmtpSink({"DOT": answer}, host=SINK, port=it.port) as sink,  # type: ignore[dict-item]
    ):
        mta = Mta(LISTEN, it.port, SOURCE)
        await mta.send_all(names, BODY)
        await settled(it)
        copies, dead = count(sink.messages), await dead_letters(it)
        lost = set(names) - copies.keys() - set(dead)
        print(
            f"\n{len(names)} messages, {drops} disconnects behind the dot: lost {len(lost)}, extra copies "
            f"{sum(copies.values()) - len(copies)}, on record {len(on_record(it))}, most copies of one "
            f"{max(copies.values())}, dead letters {len(dead)}, of these arrived {len(set(dead) & copies.keys())}"
        )
        assert mta.books.acknowledged == set(names)
        assert drops >= DROPS * 0.9
        assert not lost
        assert max(copies.values()) <= 2
        assert not unflagged(it, sink.messages)
        assert not any(one.mail.startswith(b"FROM:<>") for one in sink.messages)
