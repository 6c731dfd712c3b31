"""Whole messages, from the octets behind DATA to every check, and what reports and results in them say."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from itertools import pairwise

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from forwarder.auth.canonical import body_hash
from forwarder.auth.dkim import build_dkim_signature
from forwarder.auth.signed import sign_now
from forwarder.auth.verify import verify
from forwarder.bounce.hide import scrub
from forwarder.edge.data import find_end, refuse_bytes, unstuff
from forwarder.mail import authres
from forwarder.mail.address import parse_from
from forwarder.mail.arf import parse_complaint
from forwarder.mail.author import replace_author
from forwarder.mail.autoreply import parse_auto_reply
from forwarder.mail.dsn import parse_report
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.mail.notice import read_notice
from forwarder.mail.oldbounce import is_auto_reply
from forwarder.mail.received import find_own_received
from forwarder.mail.tlswish import tls_wish
from forwarder.model import Address, Envelope, Field, Message, Peer, Recipient, Result
from forwarder.screen import screen_loop, screen_message
from forwarder.smtp import reply
from forwarder.smtp.stuffing import has_bare_newline, stuff
from tests.auth.signers import Signer
from tests.fakes import FakeResolver
from tests.fuzz.target import Target, holds, is_clean_reply

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
ALIAS = Address("alias", "fwd.test")
HIDDEN = Address("secret.person", "hidden-host.test")
US = "mx.fwd.test"
_ENVELOPE = Envelope(
    "0123456789abcdef",
    Peer(IPv4Address("192.0.2.1"), "mx.sender.test"),
    Address("bob", "sender.test"),
    (Recipient(ALIAS),),
    NOW,
)
#: Fixed, so that the seeds are the same octets each time.
_SIGNER = Signer("sender.test", "ed", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
_OURS = Signer("fwd.test", "ed", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
_ZONE = {
    "sender.test": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"]},
    "mx.sender.test": {"TXT": ["v=spf1 -all"]},
    "_dmarc.sender.test": {"TXT": ["v=DMARC1; p=reject"]},
    "mailkey.sender.test": {"TXT": ["v=mailkey1; o=all"]},
    _SIGNER.key_name: {"TXT": [_SIGNER.record]},
    _OURS.key_name: {"TXT": [_OURS.record]},
}

# --- a message behind DATA ----------------------------------------------------------------------------------------------


class Messages:
    """The checks want a running loop for their deadline; one serves all inputs."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._resolver = FakeResolver(_ZONE)

    def run(self, data: bytes) -> None:
        """What a client sends behind DATA, up to the first end of it."""
        end = find_end(data, 0)
        data = data if end < 0 else data[:end]
        if (refused := refuse_bytes(data)) is not None:
            is_clean_reply(refused)
            return
        raw = unstuff(data)
        _goes_on_as_it_is(raw)
        try:
            message = parse_message(raw)
        except MalformedMessage as error:
            is_clean_reply(reply.malformed(str(error)))
            return
        _is_all_of(message, raw)
        if self._runner is None:
            self._runner = asyncio.Runner()
        self._runner.run(self._check(message))
        read_reports(message)

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()

    async def _check(self, message: Message) -> None:
        author = parse_from(message)
        for refusal in (screen_message(message, author), screen_loop(message, [ALIAS], [b"s" * 32])):
            if refusal is not None:
                is_clean_reply(refusal.reply)
        self._resolver.queries.clear()
        envelope = replace(_ENVELOPE, sender=None) if len(message.body) % 5 == 0 else _ENVELOPE
        verdict = await verify(self._resolver, envelope, message, author, receiver=US, now=NOW)
        holds(len(self._resolver.queries) <= 100, f"{len(self._resolver.queries)} questions")
        value = authres.render(US, verdict, envelope)
        holds(not has_bare_newline(value) and value.isascii(), "our results are no lines of ASCII")
        holds(max(map(len, value.split(b"\r\n"))) <= 998, "a line of our results is too long")
        results = authres.parse(value, strict=True)
        ours = authres.results_of(verdict, envelope)
        holds(results.authserv_id == US, "our results have another name")
        holds([one[:2] for one in results.results] == [one[:2] for one in ours], "our results read otherwise")
        holds(authres.claims(Field(b"authentication-results", authres.build_field(value)), [US]), "ours are not ours")
        tls_wish(envelope, message)
        find_own_received(message.fields, US)
        if author.author is not None:
            _is_replaced(message)
        if message.fields:
            await self._is_signed(message)

    async def _is_signed(self, message: Message) -> None:
        field = sign_now(build_dkim_signature(message.fields, body_hash(message, "relaxed"), _OURS, now=NOW))
        holds(not has_bare_newline(field), "our signature is no field")
        signed = parse_message(field + message.header + message.separator + message.body)
        author = parse_from(signed)
        verdict = await verify(self._resolver, _ENVELOPE, signed, author, receiver=US, now=NOW)
        if message.first(b"from") is not None and len(message.all(b"dkim-signature")) < 9:
            holds(verdict.dkim[0].result is Result.PASS, f"our signature: {verdict.dkim[0]}")


def _goes_on_as_it_is(raw: bytes) -> None:
    """Stuffed for the next hop, in pieces or not, and read by it, it is the same."""
    if not raw.endswith(b"\r\n"):
        return
    middle = len(raw) // 2
    for chunks in ((raw,), (raw[:middle], raw[middle:])):
        sent = b"".join(stuff(chunks))
        holds(find_end(sent + b".\r\n", 0) == len(sent), "the message ends elsewhere for the next hop")
        holds(unstuff(sent) == raw, "the next hop reads another message")


def _is_all_of(message: Message, raw: bytes) -> None:
    holds(message.header + message.separator + message.body == raw, "the parts are not the whole")
    holds(b"".join(one.raw for one in message.fields) == message.header, "the fields are not the header")
    for one in message.fields:
        holds(one.raw.endswith(b"\r\n") and one.raw[:1] not in (b" ", b"\t"), "a field is no field")
        inner = pairwise(one.raw.split(b"\r\n")[:-1])
        holds(all(later[:1] in (b" ", b"\t") for _, later in inner), "a field holds another")


def _is_replaced(message: Message) -> None:
    ours = Address("reply=x", "fwd.test")
    replaced = replace_author(message, ours, ALIAS)
    if replaced is None:
        return
    again = parse_message(replaced.header + replaced.separator + replaced.body)
    holds(again.fields == replaced.fields, "the fields with our author read otherwise")
    holds(parse_from(again).author == ours, "our author is not the author")


# --- reports ------------------------------------------------------------------------------------------------------------


def read_reports(message: Message) -> None:
    """Every reader of what comes back."""
    parse_report(message)
    parse_complaint(message)
    parse_auto_reply(message)
    read_notice(message)
    is_auto_reply(message)


def run_report(data: bytes) -> None:
    """A message with its line ends as they come."""
    with suppress(MalformedMessage):
        read_reports(parse_message(data.replace(b"\r\n", b"\n").replace(b"\r", b"").replace(b"\n", b"\r\n")))


def run_said(data: bytes) -> None:
    """What a next hop said about the hidden address goes to the sender."""
    said = data.decode("utf-8", "replace")
    shown = scrub(said, hidden=HIDDEN, alias=ALIAS, peer="mx.hidden-host.test[192.0.2.9]:25")
    holds(shown.isascii() and (not shown or shown.isprintable()), f"shown {shown!r}")
    for secret in (HIDDEN.local, HIDDEN.domain, "192.0.2.9", b64encode(str(HIDDEN).encode()).decode().rstrip("=")):
        holds(secret.lower() not in shown.lower(), f"told {shown!r}")


# --- results ------------------------------------------------------------------------------------------------------------


def run_results(data: bytes) -> None:
    """An Authentication-Results value of somebody else's."""
    line = data.replace(b"\r", b"").replace(b"\n", b"\r\n ")
    field = Field(b"authentication-results", b"Authentication-Results:" + line + b"\r\n")
    claimed = authres.claims(field, [US])
    for strict in (True, False):
        try:
            found = authres.parse(field.value, strict=strict)
        except authres.MalformedResults as error:
            holds(str(error).isprintable(), f"a reason {error!r}")
            continue
        holds(claimed or found.authserv_id.lower() != US, "our name is on it, and it stays")
        once = authres.render_results(found)
        holds(not has_bare_newline(once) and once.isascii(), "written results are no lines of ASCII")
        if strict:
            again = authres.parse(once)
            holds(authres.render_results(again) == once, f"{once!r} reads otherwise")


_MESSAGES = Messages()
close_messages = _MESSAGES.close

_PLAIN = (
    b"From: Bob <bob@sender.test>\r\nTo: alias@fwd.test\r\nSubject: x\r\nMessage-ID: <1@a.test>\r\n\r\nHello\r\n.\r\n"
)


def _signed() -> bytes:
    message = parse_message(_PLAIN.removesuffix(b".\r\n"))
    return sign_now(build_dkim_signature(message.fields, body_hash(message, "relaxed"), _SIGNER, now=NOW)) + _PLAIN


_DSN = b"""\
From: MAILER-DAEMON@mx.sink.test\r
Subject: Undelivered\r
Auto-Submitted: auto-replied\r
Content-Type: multipart/report; (x) report-type=delivery-status; boundary="b1 (x)"\r
\r
--b1 (x)\r
\r
It failed: <dest@sink.test>: host mx.sink.test[192.0.2.1] said: 550 5.1.1 no such user\r
--b1 (x)\r
Content-Type: message/delivery-status\r
Content-Transfer-Encoding: quoted-printable\r
\r
Reporting-MTA: dns; mx.sink.test\r
Original-Envelope-Id: Q+1\r
\r
Original-Recipient: rfc822;dest@sink.test\r
Final-Recipient: RFC822; <deep@store.test>\r
Action: Failed (permanent)\r
Status: 5.01.1 (no such user)\r
Diagnostic-Code: smtp; 550 5.1.1\r
 no such user\r
--b1 (x)\r
Content-Type: message/rfc822\r
\r
Received: from a by b; x\r
Message-ID:\r
 <1@sender.test>\r
\r
Body.\r
--b1 (x)--\r
"""
_ARF = b"""\
From: abuse@provider.test\r
Content-Type: multipart/report; report-type=feedback-report; boundary=b\r
\r
--b\r
Content-Type: message/feedback-report\r
\r
Feedback-Type: abuse\r
Original-Mail-From: <SRS0=x@fwd.test>\r
Arrival-Date: Thu, 8 Mar 2026 14:00:00 EDT\r
Source-IP: 192.0.2.1\r
Incidents: 3\r
Reported-Uri: http://sender.test/a\r
--b\r
Content-Type: text/rfc822-headers\r
Content-Transfer-Encoding: base64\r
\r
RnJvbTogYUBiLnRlc3QNCk1lc3NhZ2UtSUQ6IDwxQHNlbmRlci50ZXN0Pg0K\r
--b--\r
"""
_OLD = b"""\
From: <>\r
Subject: failure notice\r
X-Failed-Recipients: dest@sink.test\r
\r
Hi. This is the mail system at mx.sink.test.\r
\r
<dest@sink.test>:\r
192.0.2.1 does not like recipient.\r
Remote host said: 550 5.1.1 unknown\r
\r
--- Below this line is a copy of the message.\r
\r
Return-Path: <SRS0=x@fwd.test>\r
Message-ID: <1@sender.test>\r
"""
_ARC = (
    b"ARC-Seal: i=1; a=rsa-sha256; cv=none; d=sender.test; s=ed; t=1700000000; b=AAAA\r\n"
    b"ARC-Message-Signature: i=1; a=rsa-sha256; c=relaxed/relaxed; d=sender.test; s=ed; h=from;"
    b" bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
    b"ARC-Authentication-Results: i=1; mx.sender.test; spf=pass smtp.mailfrom=a.test\r\n"
)
_RESULTS = b'Authentication-Results: mx.fwd.test; spf=pass smtp.mailfrom="a b"@c.test reason="x"; dkim=none (c (d))\r\n'
_MAILKEY = (
    b"Mailkey-Signature: v=1; a=ed25519-sha256; d=sender.test; mf=bob@sender.test; t=1763900000; x=1800000000; h=from:to;\r\n"
    b"\tbh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
)
_COMMON = (
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\r\n ",
        b"\r\n\t",
        b":",
        b" :",
        b"From: ",
        b"From:",
        b"\r\n.",
        b"\r\n..",
        b"..\r\n",
        b"\r\n.\r\n",
        b"<",
        b">",
        b"@",
    ),
    *(
        b'"',
        b"\\",
        b"(",
        b")",
        b",",
        b";",
        b"=?utf-8?B?",
        b"=?utf-8?Q?=C3=BC?=",
        b"?=",
        b"=?idna?Q?xn--a?=",
        b"=?punycode?Q?a-?=",
        b"=?rot13?Q?a?=",
    ),
    *(
        b"=?unicode_escape?Q?=5Cq?=",
        b"=?undefined?Q?a?=",
        b"=?utf-7?Q?+AAA?=",
        b"\xff",
        b"\xc3\xbc",
        b"\xe2\x80\xae",
        b"\xed\xa0\x80",
        b"\0",
        b"\x7f",
    ),
    *(
        b"Content-Type: ",
        b"multipart/report",
        b"boundary=",
        b"--b",
        b"--b--",
        b"charset=",
        b"base64",
        b"quoted-printable",
        b"message/rfc822",
    ),
)

MESSAGES = Target(
    "messages",
    _MESSAGES.run,
    (
        _PLAIN,
        _signed(),
        _ARC + _signed(),
        _MAILKEY + _RESULTS + _PLAIN,
        b"Received: from a by mx.fwd.test with ESMTP id 1; x\r\nDelivered-To: alias@fwd.test\r\nTLS-Required: No\r\n"
        + _PLAIN,
        b"From: a@b.test, Group: c@d.test, (x) e@f.test;\r\nReply-To: x@y.test\r\n\r\n",
        _DSN,
        _ARF,
        _OLD,
    ),
    (
        *_COMMON,
        *(
            b"DKIM-Signature: ",
            b"ARC-Seal: i=2; ",
            b"ARC-Message-Signature: i=1; ",
            b"ARC-Authentication-Results: i=1; ",
            b"Mailkey-Signature: ",
        ),
        *(
            b"Authentication-Results: mx.fwd.test",
            b"d=sender.test",
            b"c=simple",
            b"l=5",
            b"bh=",
            b"Received: ",
            b"Delivered-To: ",
            _MAILKEY,
            _ARC,
        ),
        *(
            b"DKIM-Signature: v=1; a=ed25519-sha256; d=a.test; s=ed; h=from; bh=AAAA; b=AAAA\r\n",
            b"TLS-Required: No\r\n",
            b"i=50",
            b"cv=pass",
        ),
    ),
    200_000,
)

REPORTS = Target(
    "reports",
    run_report,
    (
        _DSN,
        _ARF,
        _OLD,
        b"From: a@b.test\r\nAuto-Submitted: auto-replied (vacation)\r\nSubject: Re: x\r\n\r\nAway.\r\n",
        (
            b'From: n@ses.test\r\nContent-Type: text/plain\r\n\r\n{"notificationType": "Bounce", "bounce": {"bounceType":'
            b' "Permanent", "bouncedRecipients": [{"emailAddress": "a@b.c", "status": "5.1"}]}, "mail": {"messageId": "x"}}\r\n'
        ),
    ),
    (
        *_COMMON,
        *(
            b"Final-Recipient: rfc822; ",
            b"Original-Recipient: ",
            b"Action: failed",
            b"Status: 5.1.1",
            b"Diagnostic-Code: smtp; 550 ",
            b"Remote-MTA: dns; ",
        ),
        *(
            b"Feedback-Type: ",
            b"Arrival-Date: ",
            b"Thu, 99 Foo 99999 99:99:99 +9999",
            b"Incidents: 99999999999",
            b"Content-Transfer-Encoding: ",
        ),
        *(
            b"<a@b.test>: ",
            b"550 5.1.1 ",
            b"said: ",
            b"host x[192.0.2.1]",
            b"----- ",
            b"Auto-Submitted: ",
            b"{",
            b"}",
            b"[",
            b"]",
            b'":',
            b"null",
            b"1e999",
        ),
        *(
            b"----- The following addresses had permanent fatal errors -----\r\n",
            b"Message-ID: <",
            b"X-Failed-Recipients: ",
            b'{"bounce":',
        ),
    ),
    300_000,
)

SAID = Target(
    "said",
    run_said,
    (
        b"550 5.1.1 <secret.person@hidden-host.test>: Recipient address rejected: mx.hidden-host.test[192.0.2.9]",
        b"see https://hidden-host.test/x?u=secret.person%40hidden-host or =?utf-8?B?c2VjcmV0LnBlcnNvbkBoaWRkZW4taG9zdC50ZXN0?=",
        b"secret dot person at hidden-host dot test, c2VjcmV0LnBlcnNvbkBoaWRkZW4taG9zdC50ZXN0, 7365637265742e706572736f6e",
    ),
    (
        *(
            b"secret.person",
            b"hidden-host.test",
            b"@",
            b"%40",
            b" at ",
            b" dot ",
            b".",
            b"=?utf-8?B?",
            b"=?utf-8?Q?",
            b"?=",
            b"&#64;",
            b"&commat;",
        ),
        *(
            b"\\u0040",
            b"\\x40",
            b"=40",
            b"%2540",
            b"c2VjcmV0LnBlcnNvbg",
            b"192.0.2.9",
            b"::ffff:192.0.2.9",
            b"http://",
            b"\xe2\x80\x8b",
            b"\xcc\x81",
        ),
        *(
            b"<",
            b">",
            b'"',
            b"\\",
            b"[",
            b"]",
            b" ",
            b"\t",
            b"\r\n",
            b"SECRET",
            b"s e c r e t",
            b"%73",
            b"&",
            b"&#x",
            b"%",
            b"\\",
            b"5.1.1",
            b"+AEA-",
        ),
    ),
    8_000,
)

RESULTS = Target(
    "results",
    run_results,
    (
        b' mx.a.test; spf=pass smtp.mailfrom=a.test; dkim=fail (bad (nested)) header.d=b.test header.b=ab/c= reason="x \\" y"',
        b" mx.fwd.test 1; none",
        b" i=1; mx.fwd.test; arc=pass (i=1 spf=pass)",
        b' "mx.fwd.test"/1; dmarc=pass header.from=c.test policy.dmarc=none',
        b" spf=pass (sender IP is 192.0.2.1) smtp.mailfrom=a.test; dkim=none (message not signed) header.d=none;",
    ),
    (
        *(
            b";",
            b"=",
            b"(",
            b")",
            b'"',
            b"\\",
            b".",
            b"/",
            b" ",
            b"\n",
            b"\t",
            b"none",
            b"mx.fwd.test",
            b"MX.FWD.TEST",
            b"spf=pass",
            b"reason=",
        ),
        *(
            b"smtp.mailfrom=",
            b"header.d=",
            b"i=1;",
            b"i=1",
            b"=?utf-8?Q?mx.fwd.test?=",
            b"=?us-ascii?B?bXguZndkLnRlc3Q=?=",
            b"(x)",
            b"mx",
            b"fwd",
        ),
        *(
            b"\xff",
            b"\xc3\xbc",
            b"\xef\xbd\x8d\xef\xbd\x98.fwd.test",
            b"@",
            b"1",
            b"999999999",
            b",",
            b"\0",
            b"\x7f",
            b"\xc2\xad",
            b"mx.fwd.test.",
        ),
    ),
    20_000,
)
