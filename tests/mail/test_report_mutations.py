"""Reports and complaints with anything in them: no exception, no hang. ``MUTATIONS=20000`` makes more of them."""

from __future__ import annotations

import os
import random
import time

import pytest

from forwarder.mail.arf import parse_complaint
from forwarder.mail.dsn import parse_report
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.mail.oldbounce import is_auto_reply
from forwarder.mail.reasons import standard_rules
from tests.fakes import message
from tests.mail.test_arf import arf
from tests.mail.test_dsn import EXIM, QMAIL, report

MUTATIONS = int(os.environ.get("MUTATIONS", "400"))
#: CPU seconds for one message, on a slow machine.
LIMIT = 0.25
SENDMAIL = """\
From: Mail Delivery Subsystem <MAILER-DAEMON@mx.sink.test>
To: SRS0=x@fwd.test
Subject: =?utf-8?b?UmV0dXJuZWQgbWFpbDo=?= User unknown

   ----- Transcript of session follows -----
While talking to mx.sink.test:
>>> RCPT To:<dest@sink.test>
<<< 550 5.1.1 No such user here.
550 <dest@sink.test>... User unknown
554 <other@sink.test>... 550 Host unknown (Authoritative answer from name server)

   ----- Unsent message follows -----
Received: by mx.sink.test
From: bob@sender.test
To: alias@fwd.test
Message-ID: <1@sender.test>

Body
"""
HTML = """\
From: postmaster@sink.test
Subject: Undeliverable
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/html; charset=utf-8

<p>Your message<br>&nbsp; To: list@sink.test<BR>did not reach the following recipient(s):<br><br>dest@sink.test on Thu</p>
--b
Content-Type: message/rfc822

Message-ID: <1@sender.test>

x
--b--
"""
SEEDS = [
    one.encode() for one in (report(), report(returned_type="text/rfc822-headers"), QMAIL, EXIM, SENDMAIL, HTML, arf())
]
PIECES = [
    *(
        b"\n",
        b"\n\n",
        b"--",
        b"--b\n",
        b"<",
        b">",
        b"@",
        b":",
        b" ",
        b'"',
        b"(",
        b";",
        b"*",
        b"=",
        b"\xff",
        b"<a ",
        b"<br>",
    ),
    *(b"550 ", b"550-", b"5.1.1 ", b"4.4.7", b"a@b.test ", b"From: ", b"RCPT TO:<a@b.c>", b"=?utf-8?b?", b"base64"),
    *(b"Content-Type: multipart/mixed; boundary=x\n", b"Final-Recipient: rfc822; ", b"user ", b"unknown in "),
]


def mutated(choice: random.Random) -> bytes:
    raw = bytearray(choice.choice(SEEDS))
    for _ in range(choice.randint(1, 8)):
        at = choice.randrange(len(raw) + 1)
        match choice.randrange(5):
            case 0:
                raw[at:at] = choice.choice(PIECES) * choice.choice([1, 1, 3, 100, 3000])
            case 1:
                del raw[at : at + choice.randint(1, 200)]
            case 2:
                other = choice.choice(SEEDS)
                raw[at:at] = other[choice.randrange(len(other)) :][:500]
            case 3:
                raw[at:at] = bytes(raw[at : at + choice.randint(1, 60)]) * choice.choice([2, 50, 2000])
            case _:
                raw[at:at] = choice.randbytes(choice.randint(1, 20))
    return bytes(raw).replace(b"\r", b"").replace(b"\n", b"\r\n") + b"\r\n"


@pytest.mark.timeout(600)
def test_no_mutation_raises_or_takes_long() -> None:
    standard_rules()
    read = 0
    slowest = 0.0
    for seed in range(MUTATIONS):
        try:
            parsed = parse_message(mutated(random.Random(seed)))
        except MalformedMessage:
            continue
        started = time.process_time()
        found = parse_report(parsed)
        parse_complaint(parsed)
        is_auto_reply(parsed)
        slowest = max(slowest, time.process_time() - started)
        assert slowest < LIMIT, seed
        read += found is not None
    print(f"{MUTATIONS} mutations, {read} read as reports, slowest {slowest * 1000:.0f} ms")
    assert read > MUTATIONS / 4


@pytest.mark.parametrize("word", ["x", "user ", "unknown in ", "a@b.test ", "550 ", "<", "mailbox * exceeded "])
def test_a_hundred_recipients_with_long_reasons_cost_little(word: str) -> None:
    standard_rules()
    costs = []
    # The least of three is what it costs, as a busy machine adds to the others; each has texts of its own, so none is remembered.
    for round_number in range(3):
        reasons = "".join(
            f"Final-Recipient: rfc822; a{number}@b.test\nAction: failed\nDiagnostic-Code: smtp; 599 {round_number}{number} "
            f"{word * (2000 // len(word))}\n\n"
            for number in range(100)
        )
        parsed = message(report(reasons))
        started = time.process_time()
        found = parse_report(parsed)
        costs.append(time.process_time() - started)
    assert min(costs) < LIMIT
    assert found is not None
    assert len(found.recipients) == 100
