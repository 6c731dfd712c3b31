"""Does any message, however damaged, end in something else than a verdict? Every check at once, on mutations of a signed one.

``MUTATIONS=100000`` runs as many as docs/conformance.md speaks of; the default keeps the run short.
"""

from __future__ import annotations

import os
import random
import time
from datetime import timedelta
from ipaddress import IPv4Address

from forwarder.auth import canonical
from forwarder.auth.arc import build_arc_set
from forwarder.auth.dkim import build_dkim_signature
from forwarder.auth.mailkey import build_mailkey_signature
from forwarder.auth.signed import sign_now
from forwarder.auth.verify import verify
from forwarder.mail import authres
from forwarder.mail.address import parse_from
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.model import Address, ArcCheck, Envelope, Peer, Recipient, Result, Verdict
from tests.auth.signers import NOW, Signer, ed25519_key, rsa_key
from tests.fakes import FakeResolver

COUNT = int(os.environ.get("MUTATIONS", "1500"))
BOB, ALICE = Address("bob", "sender.example"), Address("alice", "fwd.example")
ENVELOPE = Envelope("id", Peer(IPv4Address("192.0.2.1"), "mx.sender.example"), BOB, (Recipient(ALICE),), NOW)
RSA, ED25519 = Signer("sender.example", "rsa", rsa_key()), Signer("sender.example", "ed", ed25519_key())
MAILKEY = Signer("sender.example", "", ed25519_key())
RECORDS = {
    "sender.example": {"TXT": ["v=spf1 ip4:192.0.2.0/24 include:other.example -all"], "MX": ["10 mx.sender.example"]},
    "_dmarc.sender.example": {"TXT": ["v=DMARC1; p=reject; sp=none"]},
    RSA.key_name: {"TXT": [RSA.record]},
    ED25519.key_name: {"TXT": [ED25519.record]},
    MAILKEY.mailkey_name: {"TXT": [MAILKEY.mailkey_record]},
}
PLAIN = (
    b'Received: from a (b [192.0.2.1]) by c; Mon, 23 Nov 2026 12:30:00 +0000\r\nFrom: "Bob, B." <bob@sender.example>\r\n'
    b"To: alice@fwd.example\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n  folded\r\nMessage-ID: <1@sender.example>\r\n"
    b"Authentication-Results: mx.fwd.example; spf=pass smtp.mailfrom=bob@sender.example\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\nHello  there,\t\r\n\r\nBob\r\n\r\n"
)
#: What stands at the borders of every syntax that these checks read, and what is at none of them.
PIECES = [b";", b"=", b":", b"\r\n", b"\r\n ", b" ", b"\t", b'"', b"(", b")", b"<", b">", b"@", b",", b".", b"\\", b"%"]
PIECES += [b"\0", b"\xff", b"\xc3\xa9", b"\r\nFrom: x@y\r\n", b"b=", b"h=from", b"d=sender.example;", b"l=1;", b"i=2;"]


def signed() -> bytes:
    """With a mailkey, two DKIM signatures and an ARC set on it, all of them good."""
    message = parse_message(PLAIN)
    digest = canonical.body_hash(message, "relaxed")
    dkim = b"".join(sign_now(build_dkim_signature(message.fields, digest, key, now=NOW)) for key in (RSA, ED25519))
    mailkey = sign_now(
        build_mailkey_signature(message.fields, digest, MAILKEY, sender=BOB, recipients=[ALICE], now=NOW)
    )
    arc = sign_now(
        build_arc_set(
            message.fields, digest, ArcCheck(Result.NONE), authres_value=b"mx.sender.example; none", key=RSA, now=NOW
        )
    )
    assert arc is not None
    return b"".join((mailkey, *arc, dkim, PLAIN))


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """One to six small wounds, most of them in the header."""
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(raw))
        match rng.randrange(6):
            case 0:
                raw = raw[:at] + rng.choice(PIECES) + raw[at:]
            case 1:
                raw = raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :]
            case 2:
                raw = raw[:at] + raw[at + rng.randint(1, 40) :]
            case 3:
                raw = raw[:at] + raw[at : at + rng.randint(1, 200)] * rng.randint(2, 20) + raw[at:]
            case 4:
                other = rng.randrange(len(raw))
                raw = raw[:at] + raw[other : other + rng.randint(1, 80)] + raw[at:]
            case _:
                raw = raw[:at] + rng.choice(PIECES) * rng.randint(2, 300) + raw[at:]
        raw = raw[:100_000] or b"x"
    return raw


async def verdict_on(raw: bytes) -> Verdict | None:
    """``None``: the header is none, which is an answer too."""
    try:
        message = parse_message(raw)
    except MalformedMessage:
        return None
    author = parse_from(message)
    now = NOW + timedelta(minutes=1)
    verdict = await verify(FakeResolver(RECORDS), ENVELOPE, message, author, receiver="mx.fwd.example", now=now)
    results = authres.render("mx.fwd.example", verdict, ENVELOPE)
    assert b"\r" not in results.replace(b"\r\n\t", b"").replace(b"\r\n ", b"")
    return verdict


async def test_what_is_whole_passes_every_check() -> None:
    verdict = await verdict_on(signed())

    assert verdict is not None
    assert verdict.mailkey.result is verdict.spf.result is verdict.arc.result is verdict.dmarc.result is Result.PASS
    assert {one.result for one in verdict.dkim} == {Result.PASS}


async def test_no_mutation_raises_or_hangs() -> None:
    rng, whole, slowest = random.Random(20261127), signed(), 0.0
    readable = 0
    for number in range(COUNT):
        raw = mutated(whole, rng)
        start = time.process_time()
        try:
            readable += await verdict_on(raw) is not None
        except Exception as error:
            raise AssertionError(f"mutation {number}: {raw!r}") from error
        slowest = max(slowest, time.process_time() - start)

    print(f"{COUNT} mutations, {readable} readable, slowest {slowest * 1000:.1f} ms of CPU")
    assert COUNT // 10 < readable < COUNT
    assert slowest < 1
