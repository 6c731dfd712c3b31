"""What content filters say: the packets of a milter, and rspamd's JSON; and what is put on a message for it."""

from __future__ import annotations

import struct
from contextlib import suppress
from ipaddress import ip_address

from forwarder.auth.covered import Covered
from forwarder.content import MAX_FIELDS, ContentRule, added_fields, judge
from forwarder.filters.rspamd import BadAnswer, read_answer
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.milter import Broken, Finished, MilterClient, MilterMail, Phase
from forwarder.milter.packets import BadPacket, PacketParser
from forwarder.model import ContentAction, ContentCheck
from forwarder.smtp import reply
from tests.fuzz.target import Target, holds, is_clean_reply

_NAMES = ("X-Spam", "X-Virus", "X-Told-Key")
_RULE = ContentRule(
    "f",
    {"reject": ContentAction.REJECT, "add header": ContentAction.TAG, "quarantine": ContentAction.QUARANTINE},
    ((6.0, ContentAction.TAG), (15.0, ContentAction.REJECT)),
    fields={"X-Spam-Status": "{result}, score={score} required={required} {action} {symbols}"},
    accepted=frozenset(one.lower() for one in _NAMES),
)
_PEER = ip_address("192.0.2.1")
_NOTHING = Covered({}, parse_message(b"From: a@a.test\r\n\r\n"))


def _check_what_follows(check: ContentCheck) -> None:
    """Fields that stand in a header as they are, and no word of the filter's in a reply."""
    judge([_RULE], [check])
    is_clean_reply(reply.content_refused(_RULE.name))
    added = added_fields([_RULE], [check], _NOTHING)
    holds(len(added) <= MAX_FIELDS + len(_RULE.fields), f"{len(added)} fields")
    header = b"".join(one.raw for one in added)
    holds(header.isascii() and b"\0" not in header, f"a header that is not ASCII: {header!r}")
    holds(all(len(line) <= 998 for line in header.split(b"\r\n")), "a line that is too long")
    try:
        read = parse_message(header + b"From: a@a.test\r\n\r\n")
    except MalformedMessage as error:
        raise AssertionError(f"a header that nobody can read: {error}") from error
    names = [one.name for one in read.fields[:-1]]
    holds(names == [one.name for one in added], f"other fields than were added: {names}")


# --- a milter's side of a session -----------------------------------------------------------------------------------------

_MAIL = MilterMail(
    _PEER, "mx.a.test", "a.test", b"<a@a.test>", (b"<b@b.test>",), ((b"From", b" a@a.test\r\n"),), b"x" * 70000
)
_ACTIONS = {"accept", "reject", "tempfail", "discard", "quarantine"}


def _said(data: bytes, step: int) -> Finished | Broken | None:
    client = MilterClient(_MAIL)
    client.start()
    for at in range(0, len(data), step):
        _told(client)
        ended = client.receive_data(data[at : at + step])
        if ended is not None:
            holds(client.phase is Phase.OVER, "it goes on behind its end")
            return ended
    _told(client)
    return client.receive_data(b"")


def _told(client: MilterClient) -> None:
    """Everything that it may be told by now."""
    for _ in range(100):
        if not client.take_output():
            return
    holds(False, "there is always more to tell")


def _packets(data: bytes, step: int) -> list[object]:
    parser, found = PacketParser(), list[object]()
    try:
        for at in range(0, len(data), step):
            found += parser.feed(data[at : at + step])
    except BadPacket as error:
        found.append(str(error))
    return found


def run_milter(data: bytes) -> None:
    """Its side of a session, in pieces. What it says before it is asked may count or not, so only its packets are compared."""
    step = 1 + (data[0] % 7 if data else 0)
    stream = data[1:1000]
    holds(_packets(stream, 1000) == _packets(stream, step), "packets in pieces are read otherwise")
    ended = _said(data[1:], len(data) if step > 4 else 100 * step)
    match ended:
        case Finished():
            holds(ended.action in _ACTIONS, f"an action {ended.action!r}")
            _check_what_follows(
                ContentCheck("f", ended.action, fields=ended.fields, undone=ended.undone, said=ended.said)
            )
        case Broken():
            holds(ended.reason.isascii() and ended.reason.isprintable(), f"a reason {ended.reason!r}")
        case None:
            holds(False, "it neither ends nor breaks")


def _packet(letter: bytes, data: bytes = b"") -> bytes:
    return struct.pack("!I", 1 + len(data)) + letter + data


def _agreed(steps: int) -> bytes:
    return _packet(b"O", struct.pack("!III", 6, 0xFF, steps))


_C = _packet(b"c")
_CHANGES = (
    _packet(b"h", b"X-Spam\0Yes\n it is\0"),
    _packet(b"i", b"\0\0\0\1X-Virus\0none\0"),
    _packet(b"m", b"\0\0\0\1Subject\0\0"),
    _packet(b"q", b"why\0"),
    _packet(b"y", b"554 5.7.1 no\0"),
    _packet(b"b", b"another body"),
    _packet(b"+", b"<c@c.test>\0"),
    _packet(b"l", b"\0\0\0\1{auth_type}\0"),
)
MILTER = Target(
    "milter",
    run_milter,
    (
        b"\0" + _agreed(0) + _C * 9 + b"".join(_CHANGES[:4]) + _packet(b"a"),
        b"\1" + _agreed(0x1FFFFF) + b"".join(_CHANGES) + _C,
        b"\2" + _agreed(0x7F) + _packet(b"p") * 5 + _CHANGES[0] * 200 + _packet(b"d"),
        b"\3" + _agreed(0x400) + _C * 7 + _packet(b"s") + _CHANGES[2] + _packet(b"t"),
    ),
    (
        *(
            _C,
            *_CHANGES,
            _agreed(0),
            _agreed(0xFF400),
            *(_packet(one) for one in (b"a", b"r", b"t", b"d", b"s", b"p", b"f", b"4")),
        ),
        *(
            b"\0",
            b"\0\0\0\1",
            b"\0\0\0\0",
            b"\xff\xff\xff\xff",
            b"\0\x10\0\1",
            b"X-Spam",
            b"X-Told-Key",
            b"\r\n",
            b"\n",
            b"\r",
        ),
        *(b"\n ", b"\nBcc: x", b"\xff", b"\xc3\xbc", b"x" * 1000, b"550 ", b"999 ", b"4"),
        *(
            _packet(b"h", b"X-Spam\0" + value + b"\0")
            for value in (b"\n", b"\n \n", b"a\nB: c", b"a\r", b"\xff", b" " * 3000)
        ),
    ),
    8192,
)


# --- rspamd ---------------------------------------------------------------------------------------------------------------


def run_rspamd(data: bytes) -> None:
    """What it answers is read, or is none of its answers."""
    with suppress(BadAnswer):
        check = read_answer("f", data)
        holds(len(check.action) <= 40 and len(check.said) <= 200, "a word without an end")
        _check_what_follows(check)


RSPAMD = Target(
    "rspamd",
    run_rspamd,
    (
        b"""{"action":"add header","score":7.5,"required_score":15,"symbols":{"A_B":{"score":1.0,"options":["x"]},"C":{}},
        "messages":{"smtp_message":"why"},"milter":{"add_headers":{"X-Spam":"Yes","X-Virus":{"value":"none","order":1},
        "X-Told-Key":["1",{"value":"2"},3]},"remove_headers":{"X-Spam":0}},"is_skipped":false,"message-id":"1@a.test"}""",
        b'{"action":"reject","score":-1e3}',
    ),
    (
        *(
            b'"',
            b"{",
            b"}",
            b"[",
            b"]",
            b":",
            b",",
            b"null",
            b"true",
            b"-1",
            b"1e999",
            b"1e308",
            b"NaN",
            b"0.1",
            b"9" * 400,
        ),
        *(
            b'"action":',
            b'"score":',
            b'"symbols":',
            b'"milter":',
            b'"add_headers":',
            b'"value":',
            b'"smtp_message":',
            b'"X-Spam"',
        ),
        *(
            b"\\n",
            b"\\r\\n",
            b"\\r\\nBcc: x",
            b"\\n x",
            b"\\u0000",
            b"\\ud800",
            b"\\u212a",
            b"\xe2\x84\xaa",
            b"\xff",
            b"\xc3\xbc",
        ),
        *(b'{"a":' * 600, b"[" * 3000, b'"X-Told-\\u212aey":"1",', b"x" * 1000, b" " * 500, b'"required_score":'),
    ),
    8192,
)
