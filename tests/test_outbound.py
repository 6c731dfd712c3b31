"""What leaves us can be read in one way only: random messages from the wire through edge, seal and client to the next wire.

``OUTBOUND_MESSAGES=200000`` is the long run.
"""

from __future__ import annotations

import os
import random
import re
from ipaddress import ip_address
from pathlib import Path

import pytest

from forwarder import seal
from forwarder.auth.signed import sign_now
from forwarder.auth.verify import verify
from forwarder.cli.demo_lab import make_keys
from forwarder.edge.data import find_end, refuse_bytes, unstuff
from forwarder.keys import KeyFile, Keys, dkim_record
from forwarder.mail.address import parse_from
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.model import Address, Envelope, Message, Peer, Recipient, Result
from forwarder.resolver import ZoneResolver
from forwarder.screen import screen_message
from forwarder.smtp.client import Mail, SmtpClient
from forwarder.smtp.stuffing import stuff
from tests.fakes import FixedClock

MESSAGES = int(os.environ.get("OUTBOUND_MESSAGES", "400"))
#: Signatures are looked at once in so many messages: that takes longer than all the rest.
CHECKED = 20
ALIAS, DESTINATION = Address("alias", "fwd.test"), Address("dest", "sink.test")
NAMES = seal.Names("mx.fwd.test", "mx.fwd.test")
#: RFC 5321 section 4.1.1.4 and 4.5.2, as a reader has it that knows CRLF and nothing else.
WIRE = re.compile(rb"(?:[^\r\n]*\r\n)*?\.\r\n\Z")

FIELDS = [
    b"From: Bob <bob@sender.test>",
    b"Subject: .dots",
    b"Subject: two\r\n .lines",
    b".odd: field",
    b"X: \xe9\xff",
    b"X:",
    b"DKIM-Signature: v=1; a=rsa-sha256; d=sender.test; s=s; h=from; bh=x; b=x",
    b"Authentication-Results: mx.fwd.test; spf=pass",
    b"no field",
    b" folded",
]
PIECES = [
    b".",
    b"..",
    b"\r\n",
    b"\r\n.",
    b"\r\n..",
    b"\r\n.\r\nx",
    b"\r\n\r\n",
    b"a",
    b"text ",
    b"\xe9",
    b" ",
    b"\t\r\n",
    b".",
]
#: What must never be taken.
BAD = [b"\r", b"\n", b"\0", b"\n.\n", b"\r.\r", b"\n.\r\n"]


def on_the_wire(rng: random.Random) -> bytes:
    """What a client may write behind DATA."""
    fields = [FIELDS[0], *rng.choices(FIELDS, k=rng.randrange(4))]
    rng.shuffle(fields)
    pieces = rng.choices(PIECES, k=rng.randrange(40))
    if rng.random() < 0.1:
        pieces.insert(rng.randrange(len(pieces) + 1), rng.choice(BAD))
    return b"".join((*(one + b"\r\n" for one in fields), rng.choice((b"\r\n", b"")), *pieces, b"\r\n.\r\n"))


def taken(wire: bytes) -> Message | None:
    """As the session and the pipeline take it; ``None``: it is refused."""
    raw = wire[: find_end(wire, 0)]
    if refuse_bytes(raw) is not None:
        return None
    try:
        message = parse_message(unstuff(raw))
    except MalformedMessage:
        return None
    return message if screen_message(message, parse_from(message)) is None else None


def next_wire(chunks: tuple[bytes, ...]) -> bytes:
    """Everything that the next hop reads behind its 354."""
    client = SmtpClient("mx.fwd.test")
    client.receive_data(b"220 hi\r\n")
    client.receive_data(b"250 hi\r\n")
    client.begin(Mail(b"<bob@sender.test>", (b"<dest@sink.test>",), sum(map(len, chunks))))
    for answer in (b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n"):
        client.receive_data(answer)
        client.take_output()
    return b"".join(stuff(chunks)) + client.finish_message()


def read(wire: bytes) -> bytes:
    """RFC 5321 section 4.5.2, line by line."""
    lines = wire.split(b"\r\n")
    assert lines[-2:] == [b".", b""]
    assert b"." not in lines[:-2], "nothing ends the message before its end"
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:-2])


@pytest.mark.timeout(120 + MESSAGES / 50)
async def test_what_was_accepted_leaves_in_one_reading_and_is_what_was_signed(tmp_path: Path) -> None:
    make_keys(tmp_path)
    keys = Keys.load(
        mailkey=[KeyFile("fwd.test", "", tmp_path / "fwd.mailkey.pem")],
        dkim=[KeyFile("fwd.test", "ed", tmp_path / "fwd.ed25519.pem")],
        arc=KeyFile("fwd.test", "rsa", tmp_path / "fwd.rsa.pem"),
        srs_secret_file=tmp_path / "srs.secret",
    )
    now = FixedClock().now()
    resolver = ZoneResolver({"ed._domainkey.fwd.test": {"TXT": [dkim_record(keys.dkim("fwd.test")[0])]}})
    sender = Address("bob", "sender.test")
    envelope = Envelope("one", Peer(ip_address("192.0.2.1"), "mx.sender.test"), sender, (Recipient(ALIAS),), now)
    seed = int(os.environ.get("OUTBOUND_SEED", "1"))
    rng, accepted, refused = random.Random(seed), 0, 0
    arrived = parse_message(b"From: Bob <bob@sender.test>\r\n\r\nx\r\n")
    verdict = await verify(resolver, envelope, arrived, parse_from(arrived), receiver="mx.fwd.test", now=now)
    while accepted < MESSAGES:
        message = taken(on_the_wire(rng))
        if message is None:
            refused += 1
            continue
        accepted += 1
        sealed = sign_now(
            seal.seal_message(message, envelope, verdict, ALIAS, srs_domain="fwd.test", names=NAMES, keys=keys, now=now)
        )
        chunks = sign_now(seal.address_to(sealed, sender, (DESTINATION,), domain="fwd.test", keys=keys, now=now))
        wire = next_wire(chunks)
        assert WIRE.match(wire)
        assert not re.search(rb"(?<!\r)\n|\r(?!\n)", wire)
        assert read(wire) == b"".join(chunks)
        if accepted % CHECKED == 0:
            there = parse_message(read(wire))
            seen = await verify(resolver, envelope, there, parse_from(there), receiver="mx.sink.test", now=now)
            assert Result.PASS in {one.result for one in seen.dkim if one.domain == "fwd.test"}, wire
    print(f"{accepted} accepted, {refused} refused, seed {seed}")
    assert refused
