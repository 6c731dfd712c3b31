"""Bounces: whom they concern, what comes out of them, and that what is behind the alias never does."""

from __future__ import annotations

import base64
import email
import html
import quopri
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder import bounce, notify
from forwarder.bounce.hide import MAX_TEXT, Secrets
from forwarder.mail.dsn import Action, Reason, RecipientStatus, Report, parse_report
from forwarder.mail.header import parse_message
from forwarder.model import Address, Deferred, Envelope, Failed, Peer, Recipient, Reply
from forwarder.ports import Forwarded
from tests.fakes import message

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
HOST = "mx.fwd.test"
BOB = Address("bob", "sender.test")
ALIAS = Address("alias", "fwd.test")
DEST = Address("dest.box+tag", "sink.test")
PEER = "mx1.sink.test[192.0.2.7]:25"
REVERSIBLE = Address("SRS0=KABC=XY=sender.test=bob", "fwd.test")
KNOWN = Forwarded(REVERSIBLE, BOB, ALIAS, DEST, "<1@sender.test>", "01JDX", NOW)


def scrub(text: str, hidden: Address = DEST) -> str:
    return bounce.scrub(text, hidden=hidden, alias=ALIAS, peer=PEER)


# --- matching ---------------------------------------------------------------------------------------------------------


def test_a_report_names_those_it_was_sent_to_first_and_each_once() -> None:
    report = Report(
        (
            RecipientStatus(Action.FAILED, "a@b.test", "deep@c.test"),
            RecipientStatus(Action.FAILED, None, "A@B.test"),
            RecipientStatus(Action.FAILED, "no address", "|/bin/sh"),
            RecipientStatus(Action.FAILED, "a@b.test", None),
        )
    )
    assert bounce.destinations(report) == (
        Address("a", "b.test"),
        Address("deep", "c.test"),
        Address("A", "b.test"),
    )


def test_what_the_ledger_found_makes_the_return() -> None:
    returned = bounce.evaluate_report(REVERSIBLE, BOB, KNOWN, REPORT)
    assert (returned.sender, returned.alias, returned.destination) == (BOB, ALIAS, DEST)
    assert "01JDX" in returned.reason


def test_without_the_ledger_the_address_alone_counts() -> None:
    returned = bounce.evaluate_report(REVERSIBLE, BOB, None, REPORT)
    assert (returned.sender, returned.alias, returned.destination) == (BOB, None, None)


def about(
    recipient: str | None = None, message_id: str | None = None, envid: str | None = None, header: bytes = b""
) -> Report:
    return Report((RecipientStatus(Action.FAILED, None, recipient, "5.1.1"),), None, envid, header, message_id)


@pytest.mark.parametrize(
    ("report", "evidence"),
    [
        (about("dest.box+tag@sink.test", "<1@sender.test>"), ["message-id", "recipient"]),
        (about("x@y.test", "<1@sender.test>"), ["message-id"]),
        (about(None, "<2@sender.test>", "a b"), ["envelope-id"]),
        (
            about(None, None, None, b"Received: by mx.fwd.test\r\n\twith ESMTP id 01JDX\r\n\tfor <x>; y\r\n"),
            ["envelope-id"],
        ),
        (about(None, None, None, b"Received: by mx.fwd.test with ESMTP id 01JDXY; y\r\n"), []),
        (about("DEST.box+tag@Sink.test"), ["recipient"]),
        (about("alias@fwd.test", "<2@sender.test>", "other"), ["recipient"]),
        (about("x@y.test"), []),
    ],
)
def test_what_a_report_has_in_common_with_the_message_is_on_record(report: Report, evidence: list[str]) -> None:
    known = replace(KNOWN, envid="a+20b")
    assert list(bounce.evaluate_report(REVERSIBLE, BOB, known, report).matched) == evidence


@pytest.mark.parametrize(
    ("evidence", "enough_for"),
    [
        (("message-id",), "strict known lenient"),
        (("envelope-id", "recipient"), "strict known lenient"),
        (("recipient",), "known lenient"),
        ((), "lenient"),
    ],
)
def test_how_much_is_enough_is_for_the_operator_to_say(evidence: tuple[str, ...], enough_for: str) -> None:
    assert [one for one in bounce.Matching if bounce.is_enough(one, evidence)] == enough_for.split()


# --- scrubbing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5.1.1 <dest.box+tag@sink.test>: User unknown", "5.1.1 <alias@fwd.test>: User unknown"),
        ("5.1.1 <DEST.box+TAG@Sink.TEST>: User unknown", "5.1.1 <alias@fwd.test>: User unknown"),
        ("dest.box+tag @ sink.test is no user", "<alias@fwd.test> is no user"),
        ("dest.box+t ag@sin k.test is no user", "<alias@fwd.test> is no user"),
        ('no such user "other one"@elsewhere.test', "no such user <alias@fwd.test>"),
        ("host mx1.sink.test[192.0.2.7] said: 550-5.1.1 no", "host [hidden] said: 550-5.1.1 no"),
        ("see https://sink.test/help?u=dest for 2.0 help", "see [hidden] for 2.0 help"),
        ("blocked 2001:db8::7 and 198.51.100.1, code 5.7.1", "blocked [hidden] and [hidden], code 5.7.1"),
        (
            "mailbox dest.box+tag is full (102% of 5.5 GB) at 12:30:05",
            "mailbox [hidden] is full (102% of 5.5 GB) at 12:30:05",
        ),
        ("Dest Box moved to Sink", "[hidden] moved to [hidden]"),
        ("a\r\nX-Evil: b\x1b[31m\x00c", "a X-Evil: b [31m c"),
        ("plain words stay, 100 of them", "plain words stay, 100 of them"),
        ("naïve", "na?ve"),
        ("", ""),
    ],
)
def test_addresses_hosts_and_names_go_and_codes_and_words_stay(text: str, expected: str) -> None:
    assert scrub(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "dest.box%2Btag%40sink.test",
        "dest%252Ebox%252Btag%2540sink.test",
        "dest.box+2Btag+40sink.test",
        "dest=2Ebox=2Btag=40sink=2Etest",
        "dest.box&#43;tag&#64;sink.test",
        "dest.box&plus;tag&commat;sink.test",
        "dest.box\\x{2B}tag\\x{40}sink.test",
        "dest.box\\u002btag\\u0040sink.test",
        "ZGVzdC5ib3grdGFnQHNpbmsudGVzdA==",
        "ZGVzdC5ib3grdGFnQHNpbmsudGVzdA",
        "646573742e626f782b7461674073696e6b2e74657374",
        "=?utf-8?B?ZGVzdC5ib3grdGFn?= =?utf-8?Q?=40sink=2Etest?=",
        "=?unknown?Q?dest.box+tag=40sink.test?=",
        "".join(chr(ord(one) + 0xFEE0) for one in "dest.box+tag@sink.test"),
        "dest\u200b.box+tag@si\u00adnk.test",
        "dest.box+tag@sink\u3002test",
        "user destbox at sink",
        "dest.box",
        "https://sink.test/dest.box",
        "mx1",
    ],
)
def test_the_destination_is_found_in_every_disguise(text: str) -> None:
    said = scrub(f"550 5.1.1 {text} unknown")
    assert said in (
        "550 5.1.1 [hidden] unknown",
        "550 5.1.1 <alias@fwd.test> unknown",
        "550 5.1.1 user [hidden] at [hidden] unknown",
    )


def test_an_internationalized_destination_is_found_in_both_spellings() -> None:
    hidden = Address("döst", "bücher.test")
    for text in ("döst@bücher.test", "DÖST@xn--bcher-kva.test", "d\\x{F6}st@bücher.test", "d=C3=B6st@x"):
        assert scrub(f"no {text} here", hidden) in ("no <alias@fwd.test> here", "no [hidden] here")
    assert scrub("no Do\u0308st here", hidden) == "no [hidden] here"


def test_an_alias_of_the_same_name_is_still_named() -> None:
    said = bounce.scrub(
        "john@sink.test: john is away", hidden=Address("john", "sink.test"), alias=Address("john", "fwd.test")
    )
    assert said == "<john@fwd.test>: [hidden] is away"


_encodings: list[Callable[[str], str]] = [
    str,
    str.upper,
    urllib.parse.quote,
    lambda text: "".join(f"%{ord(one):02x}" for one in text),
    lambda text: "".join(f"={ord(one):02X}" for one in text),
    lambda text: "".join(f"+{ord(one):02X}" for one in text),
    lambda text: "".join(f"&#{ord(one)};" for one in text),
    lambda text: html.escape(text).replace("@", "&#x40;"),
    lambda text: base64.b64encode(text.encode()).decode(),
    lambda text: f"=?utf-8?b?{base64.b64encode(text.encode()).decode()}?=",
    lambda text: quopri.encodestring(text.encode(), quotetabs=True).decode().replace("@", "=40"),
    lambda text: text.encode().hex(),
    lambda text: " ".join((text[:3], text[3:])),
    lambda text: f'"{text}"',
    lambda text: f"<{text}>",
]
_noise = st.text(st.characters(codec="utf-8"), max_size=30)


@settings(max_examples=300)
@given(
    _noise,
    st.sampled_from(_encodings),
    st.sampled_from(["dest.box+tag@sink.test", "mx1.sink.test", "sink.test"]),
    _noise,
)
def test_nothing_that_scrub_returns_tells_the_destination(
    before: str, encode: Callable[[str], str], secret: str, behind: str
) -> None:
    said = scrub(f"{before} {encode(secret)} {behind}")
    assert len(said) <= MAX_TEXT
    assert said.isascii()
    assert said.isprintable()
    squeezed = said.lower().replace(" ", "").replace("<alias@fwd.test>", "")
    assert "sink.test" not in squeezed
    assert "dest.box" not in squeezed
    assert not Secrets.of([DEST], known=[ALIAS]).told_by(said)


@given(st.text(max_size=300))
def test_no_text_raises(text: str) -> None:
    said = scrub(text)
    assert said.isascii()
    assert said.isprintable() or said == ""
    assert bounce.scrub(text, hidden=None, alias=None).isascii()


@pytest.mark.parametrize(
    "unit", ["a", "@", "a@", ". ", ".", "a.", "=40", "%40", "&#64;", "=?a?q?b?= ", "\\x{40}", "a:", "1.", " ", "é"]
)
def test_a_long_text_costs_little(unit: str) -> None:
    started = time.process_time()
    scrub(unit * (100_000 // len(unit)))
    assert time.process_time() - started < 0.3


# --- the report that goes on ------------------------------------------------------------------------------------------

RETURNED = b"""\
Return-Path: <SRS0=KABC=XY=sender.test=bob@fwd.test>
Received: from mx.fwd.test by mx1.sink.test; x
Mailkey-Signature: v=1
Received: from out.sender.test ([192.0.2.1])
\tby mx.fwd.test with ESMTPS id 01JDX
\tfor <alias@fwd.test>; x
Received: from pc by out.sender.test; x
DKIM-Signature: v=1; d=sender.test
From: Bob <bob@sender.test>
To: alias@fwd.test
Cc: dest.box+tag@sink.test
Subject: Hello
Message-ID: <1@sender.test>
X-MS-Exchange-Organization: sink-tenant.onsink.test
""".replace(b"\n", b"\r\n")

REPORT = Report(
    (
        RecipientStatus(Action.DELIVERED, None, "neighbour@sink.test", "2.0.0"),
        RecipientStatus(
            Action.FAILED,
            "dest.box+tag@sink.test",
            "deep@store.test",
            "5.1.1",
            "550 5.1.1 <deep@store.test>: no user deep, says store.test[192.0.2.9]",
            "store.test",
        ),
    ),
    "mx1.sink.test",
    None,
    RETURNED,
    "<1@sender.test>",
)
SECRET_WORDS = (b"sink", b"dest", b"store", b"deep", b"neighbour", b"192.0.2.7", b"192.0.2.9")


def compose(report: Report = REPORT, known: Forwarded | None = KNOWN, note: str | None = None) -> bytes:
    returned = bounce.evaluate_report(REVERSIBLE, BOB, known, report)
    return bounce.compose_return(report, returned, hostname=HOST, now=NOW, id="01JDY", note=note)


def test_the_sender_reads_about_the_alias_and_gets_back_what_it_sent() -> None:
    raw = compose(note="Someone may have forged your address.")
    found = parse_report(parse_message(raw))
    assert found is not None
    assert found.reporting_mta == HOST
    assert found.recipients == (
        RecipientStatus(
            Action.FAILED,
            None,
            "alias@fwd.test",
            "5.1.1",
            "550 5.1.1 <alias@fwd.test>: no user [hidden], says [hidden]",
            reason=Reason.UNKNOWN_USER,
            hard=True,
        ),
    )
    assert found.returned_header.splitlines() == [
        b"Received: from pc by out.sender.test; x",
        b"DKIM-Signature: v=1; d=sender.test",
        b"From: Bob <bob@sender.test>",
        b"To: alias@fwd.test",
        b"Subject: Hello",
        b"Message-ID: <1@sender.test>",
    ]
    parsed = email.message_from_bytes(raw)
    assert parsed["to"] == "<bob@sender.test>"
    assert parsed["references"] == "<1@sender.test>"
    text = parsed.get_payload(0).get_payload()  # type: ignore[union-attr]
    assert "<alias@fwd.test>" in text
    assert "Someone may have forged your address." in text


@pytest.mark.parametrize(
    ("orcpt", "decoded"),
    [
        pytest.param("rfc822;Al+2Bias@x.test", "Al+ias@x.test", id="another address"),
        pytest.param("rfc822;ALIAS@fwd.test", "ALIAS@fwd.test", id="the alias, spelled in another way"),
        pytest.param("rfc822;guess@sink.test", "guess@sink.test", id="a right guess of where it leads"),
        pytest.param("rfc822;dest.box+2Btag@sink.test", "dest.box+tag@sink.test", id="the destination itself"),
    ],
)
def test_whom_the_sender_meant_comes_back_and_costs_nothing_of_the_rest(orcpt: str, decoded: str) -> None:
    """What it says of itself is no secret, and the report is the same whether it guessed right or wrong."""
    statuses = tuple(replace(one, original_recipient=decoded) for one in REPORT.recipients)
    raw = compose(replace(REPORT, recipients=statuses), replace(KNOWN, orcpt=orcpt, envid="Q+2B1"))
    found = parse_report(parse_message(raw))
    assert found is not None
    assert (found.recipients[0].original_recipient, found.original_envelope_id) == (decoded, "Q+1")
    assert b"Subject: Hello" in found.returned_header
    assert found.recipients[0].diagnostic == "550 5.1.1 <alias@fwd.test>: no user [hidden], says [hidden]"
    assert [word for word in SECRET_WORDS if word in raw.replace(decoded.encode(), b"").lower()] == []


def test_what_a_next_hop_claims_of_the_senders_own_words_is_not_believed() -> None:
    claimed = replace(REPORT, original_envelope_id="hidden-at-sink.test")
    assert b"Original-Envelope-Id" not in compose(claimed)
    assert b"Original-Recipient" not in compose(claimed)


def test_nothing_behind_the_alias_is_told() -> None:
    raw = compose().lower()
    assert [word for word in SECRET_WORDS if word in raw] == []


def test_without_our_received_field_only_harmless_fields_are_shown() -> None:
    header = RETURNED.replace(b"by mx.fwd.test with", b"by mx.other.test with")
    found = parse_report(parse_message(compose(replace(REPORT, returned_header=header))))
    assert found is not None
    assert [line.partition(b":")[0] for line in found.returned_header.splitlines()] == [
        b"From",
        b"To",
        b"Subject",
        b"Message-ID",
    ]


def test_a_header_that_came_back_mangled_is_cut_all_the_same() -> None:
    mangled = RETURNED.replace(b"\r\n", b"\n").replace(b"Received: from out", b"no field here\nRECEIVED:   from out")
    found = parse_report(parse_message(compose(replace(REPORT, returned_header=mangled))))
    assert found is not None
    assert found.returned_header.startswith(b"Received: from pc by out.sender.test; x\r\n")


def test_what_leaks_in_the_returned_header_is_dropped_field_by_field() -> None:
    header = (
        b"Received: by mx.fwd.test; x\r\n"
        b"Subject: =?utf-8?B?Zm9yIGRlc3QuYm94K3RhZ0BzaW5rLnRlc3Q=?=\r\n"
        b"To: x%40mx1.sink.test\r\n"
        b"References: <1@mx1.sink.test>\r\n"
        b"From: Bob <bob@sender.test>\r\n"
        b"Date: today\r\n"
        b"Cc: dest.box@other.test, x@y.test,\r\n deep@\r\n store.test\r\n"
    )
    found = parse_report(parse_message(compose(replace(REPORT, returned_header=header))))
    assert found is not None
    assert found.returned_header == b"From: Bob <bob@sender.test>\r\nDate: today\r\n"


def test_a_sender_and_an_alias_of_the_destinations_name_keep_theirs() -> None:
    john = Address("john", "sender.test")
    known = Forwarded(REVERSIBLE, john, Address("john", "fwd.test"), Address("john", "sink.test"), None, "01JDX", NOW)
    header = b"Received: by mx.fwd.test; x\r\nFrom: john@sender.test\r\nTo: john@fwd.test\r\nCc: john@sink.test\r\n"
    report = Report(
        (RecipientStatus(Action.FAILED, None, "john@sink.test", "5.1.1", "550 no john"),), None, None, header
    )
    returned = bounce.evaluate_report(REVERSIBLE, john, known, report)
    found = parse_report(parse_message(bounce.compose_return(report, returned, hostname=HOST, now=NOW, id="1")))
    assert found is not None
    assert found.recipients[0].diagnostic == "550 no [hidden]"
    assert found.returned_header == b"From: john@sender.test\r\nTo: john@fwd.test\r\n"


def test_a_sender_at_the_destinations_provider_is_told_its_own_fields() -> None:
    known = replace(KNOWN, sender=Address("bob", "sink.test"))
    header = b"Received: by mx.fwd.test; x\r\nFrom: bob@sink.test\r\nTo: alias@fwd.test\r\n"
    returned = bounce.evaluate_report(REVERSIBLE, Address("bob", "sink.test"), known, REPORT)
    report = replace(REPORT, returned_header=header)
    found = parse_report(parse_message(bounce.compose_return(report, returned, hostname=HOST, now=NOW, id="1")))
    assert found is not None
    assert found.returned_header == b"From: bob@sink.test\r\nTo: alias@fwd.test\r\n"


def test_where_all_else_fails_nothing_in_free_words_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    # The last look is for what the steps before it missed; a message id is the one text that only it looks at.
    raw = compose(replace(REPORT, message_id="<dest.box+tag@sink.test>"))
    found = parse_report(parse_message(raw))
    assert found is not None
    unknown = RecipientStatus(Action.FAILED, None, "alias@fwd.test", "5.1.1", reason=Reason.UNKNOWN_USER, hard=True)
    assert found.recipients == (unknown,)
    assert found.returned_header == b""
    assert [word for word in SECRET_WORDS if word in raw.lower()] == []


def test_a_report_that_matches_nothing_names_nobody() -> None:
    raw = compose(known=None)
    assert b"Final-Recipient: rfc822; undisclosed@fwd.test" in raw
    assert [word for word in SECRET_WORDS if word in raw.lower()] == []


@pytest.mark.parametrize(
    ("action", "status", "subject", "expected"),
    [
        (Action.FAILED, None, "Undelivered mail returned to sender", "5.0.0"),
        (Action.DELAYED, None, "Delayed mail", "4.0.0"),
        (Action.DELAYED, "4.4.1", "Delayed mail", "4.4.1"),
        (Action.RELAYED, None, "Delivered mail", "2.0.0"),
    ],
)
def test_the_action_is_told_as_it_was(action: Action, status: str | None, subject: str, expected: str) -> None:
    raw = compose(Report((RecipientStatus(action, None, "dest.box+tag@sink.test", status),)))
    found = parse_report(parse_message(raw))
    assert found is not None
    assert (found.recipients[0].action, found.recipients[0].status) == (action, expected)
    assert parse_message(raw).first(b"subject").value.strip() == subject.encode()  # type: ignore[union-attr]


_lines = st.lists(
    st.tuples(
        st.sampled_from(
            ["Received", "Subject", "To", "X-A", "From", "Cc", "References", "Received: by mx.fwd.test; x\r\nTo"]
        ),
        _noise,
        st.sampled_from(_encodings),
        st.sampled_from(["dest.box+tag@sink.test", "mx1.sink.test", "deep@store.test"]),
    ),
    max_size=6,
)


@settings(max_examples=200)
@given(_lines, _noise, st.sampled_from(_encodings))
def test_no_report_of_a_hostile_next_hop_makes_us_tell(
    lines: list[tuple[str, str, Callable[[str], str], str]], noise: str, encode: Callable[[str], str]
) -> None:
    header = "".join(f"{name}: {words} {code(secret)}\r\n" for name, words, code, secret in lines)
    status = RecipientStatus(
        Action.FAILED, noise, "deep@store.test", "5.1.1", f"{noise} {encode('dest.box+tag@sink.test')}", "mx1.sink.test"
    )
    report = Report((status,), "mx1.sink.test", None, header.encode("utf-8", "replace"), encode("<deep@store.test>"))
    raw = compose(report)
    parsed = email.message_from_bytes(raw)
    told = raw + b"\n".join(part.get_payload(decode=True) or b"" for part in parsed.walk() if not part.is_multipart())  # type: ignore[misc]
    squeezed = b"".join(told.lower().split())
    assert b"sink.test" not in squeezed
    assert b"deep@store.test" not in squeezed
    assert b"dest.box+tag" not in squeezed
    assert not Secrets.of([DEST], known=[ALIAS, BOB]).told_by(told.decode())


# --- failures of our own ----------------------------------------------------------------------------------------------

ENVELOPE = Envelope(
    "01JDX",
    Peer(IPv4Address("192.0.2.1"), "out.sender.test"),
    BOB,
    (Recipient(ALIAS, "FAILURE", "rfc822;Al+2Bias@x.test"), Recipient(Address("team", "fwd.test"))),
    NOW,
    envid="Q+2B1",
)
MESSAGE = message("From: bob@sender.test\nTo: alias@fwd.test\nSubject: Hello\nMessage-ID: <1@sender.test>\n\nBody.\n")
FULL = Failed("refused", Reply(550, "5.2.2", "<dest.box+tag@sink.test>: mailbox full, see http://sink.test/"), PEER)
NO_MX = Failed("null MX", Reply(556, "5.1.10", "sink.test takes no mail"))


def test_failed_recipients_are_reported_as_their_aliases() -> None:
    team = Address("team", "fwd.test")
    raw = bounce.compose_failure(
        [(ALIAS, DEST, FULL), (team, DEST, NO_MX), (team, Address("two", "sink.test"), FULL)],
        ENVELOPE,
        MESSAGE,
        hostname=HOST,
        now=NOW,
        note="A note.",
    )
    found = parse_report(parse_message(raw))
    assert found is not None
    assert found.recipients == (
        RecipientStatus(
            Action.FAILED,
            "Al+ias@x.test",
            "alias@fwd.test",
            "5.2.2",
            "550 5.2.2 <alias@fwd.test>: mailbox full, see [hidden]",
            reason=Reason.MAILBOX_FULL,
        ),
        RecipientStatus(
            Action.FAILED,
            None,
            "team@fwd.test",
            "5.1.10",
            "556 5.1.10 [hidden] takes no mail",
            reason=Reason.DNS,
            hard=True,
        ),
    )
    assert found.original_envelope_id == "Q+1"
    assert found.returned_header == MESSAGE.header
    assert found.message_id == "<1@sender.test>"
    assert [word for word in SECRET_WORDS if word in raw.lower()] == []
    assert b"A note." in raw
    assert b"Body." not in raw


WAITING = Deferred("not now", PEER, Reply(451, "4.2.0", "<dest.box+tag@sink.test> is busy at sink.test"))


def test_a_delay_is_reported_of_the_alias_with_until_when_it_is_tried() -> None:
    waiting = [(ALIAS, DEST, WAITING), (ALIAS, Address("two", "sink.test"), WAITING)]
    raw = bounce.compose_delay(waiting, ENVELOPE, MESSAGE, retry_until=NOW, hostname=HOST, now=NOW)
    found = parse_report(parse_message(raw))
    assert found is not None
    (only,) = found.recipients
    assert (only.action, only.status, only.original_recipient) == (Action.DELAYED, "4.2.0", "Al+ias@x.test")
    assert b"still being tried" in raw
    assert b"Will-Retry-Until: " in raw
    assert [word for word in SECRET_WORDS if word in raw.lower()] == []


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(Deferred("no connection"), "4.4.1"), (Deferred("x", PEER, Reply(421, "2.0.0", "bye")), "4.0.0")],
)
def test_a_delay_without_a_word_or_with_a_wrong_one_has_a_status_all_the_same(outcome: Deferred, status: str) -> None:
    raw = bounce.compose_delay([(ALIAS, DEST, outcome)], ENVELOPE, MESSAGE, retry_until=NOW, hostname=HOST, now=NOW)
    assert f"Status: {status}\r\n".encode() in raw


@pytest.mark.parametrize("action", [Action.RELAYED, Action.EXPANDED, Action.DELIVERED])
def test_success_is_reported_of_the_alias_with_the_header_only(action: Action) -> None:
    destinations = [DEST, Address("two", "sink.test")]
    full = replace(ENVELOPE, ret="FULL")
    raw = bounce.compose_success(
        action, ALIAS, destinations, full, MESSAGE, hostname=HOST, now=NOW, note="At sink.test."
    )
    found = parse_report(parse_message(raw))
    assert found is not None
    assert found.recipients == (RecipientStatus(action, "Al+ias@x.test", "alias@fwd.test", "2.0.0"),)
    assert found.original_envelope_id == "Q+1"
    assert b"Body." not in raw
    assert [word for word in SECRET_WORDS if word in raw.lower()] == []


@pytest.mark.parametrize(
    ("ret", "require_tls", "whole"),
    [("FULL", False, True), ("full", False, True), ("HDRS", False, False), ("FULL", True, False)],
)
def test_the_whole_message_goes_back_where_it_was_asked_for(ret: str, require_tls: bool, whole: bool) -> None:
    """Unless it may only travel over TLS (RFC 8689 section 5)."""
    envelope = replace(ENVELOPE, ret=ret, require_tls=require_tls)
    raw = bounce.compose_failure([(ALIAS, DEST, FULL)], envelope, MESSAGE, hostname=HOST, now=NOW)
    assert (b"Body." in raw) is whole


def test_a_status_that_is_no_failure_becomes_the_general_one() -> None:
    outcome = Failed("gave up", Reply(450, "4.2.2", "full"))
    raw = bounce.compose_failure([(ALIAS, DEST, outcome)], ENVELOPE, MESSAGE, hostname=HOST, now=NOW)
    assert b"Status: 5.0.0\r\n" in raw


def test_the_null_sender_is_never_told() -> None:
    with pytest.raises(AssertionError):
        bounce.compose_failure([(ALIAS, DEST, FULL)], replace(ENVELOPE, sender=None), MESSAGE, hostname=HOST, now=NOW)


@pytest.mark.parametrize(
    ("said", "expected"),
    [(None, True), ("FAILURE", True), ("success,failure", True), ("NEVER", False), ("DELAY", False)],
)
def test_a_sender_that_wants_no_failure_reports_gets_none(said: str | None, expected: bool) -> None:
    envelope = replace(ENVELOPE, recipients=(Recipient(ALIAS, said),))
    assert notify.wants_failure(envelope, ALIAS) is expected


# --- the note ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("note", "kept"),
    [("See https://mk.test/how for sender.test.", True), ("See https://www.sink.test/how for sender.test.", False)],
)
def test_a_note_that_names_the_hidden_host_is_left_out(note: str, kept: bool) -> None:
    """Its URL is the operator's, and may lead to where somebody's mail is hidden."""
    envelope = Envelope("01JDX", Peer(IPv4Address("192.0.2.1"), "h"), BOB, (Recipient(ALIAS),), NOW)
    failed = [(ALIAS, DEST, Failed("refused", Reply(550, "5.1.1", "no such user"), PEER))]
    original = message("From: bob@sender.test\nMessage-ID: <1@sender.test>\n\n")
    ours = bounce.compose_failure(failed, envelope, original, hostname=HOST, now=NOW, note=note)
    assert (note.encode() in ours) is kept
    assert b"sink.test" not in ours.replace(note.encode(), b"") or kept


def test_what_one_destination_says_of_another_is_hidden_too() -> None:
    other = Address("wilhelmina", "two.test")
    failed = [(ALIAS, DEST, Failed("RCPT", Reply(550, "5.1.1", "no dest.box here, ask wilhelmina"), PEER))]
    failed.append((ALIAS, other, Failed("RCPT", Reply(550, "5.1.1", "gone"), None)))
    envelope = Envelope("01J", Peer(IPv4Address("192.0.2.1"), "a.test"), BOB, (Recipient(ALIAS),), NOW)
    raw = bounce.compose_failure(failed, envelope, message("From: bob@sender.test\n\nx\n"), hostname=HOST, now=NOW)
    assert b"wilhelmina" not in raw


def test_an_encoded_word_that_a_fold_breaks_is_read_all_the_same() -> None:
    hidden = Address("alice", "zebrafish.example")
    said = "no: =?utf-8?b?\r\n emVicmFmaXM=?= =?utf-8?b?aC5leGFtcGxl?= is full"
    told = bounce.scrub(said, hidden=hidden, alias=Address("alias", "fwd.example"))
    assert told == "no: [hidden] is full"
