"""The Received field: what it says, that nothing gets into it, and that we know our own when it comes back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.mail.date import render_date
from forwarder.mail.header import parse_message
from forwarder.mail.received import build_received, find_own_received, is_ours
from forwarder.model import Address, Envelope, Field, Peer, Tls
from tests.fakes import message

NOW = datetime(2026, 11, 3, 4, 5, 6, tzinfo=UTC)
PEER = Peer(IPv4Address("192.0.2.1"), "client.sender.test")
ENVELOPE = Envelope("01JDX", PEER, None, (), NOW)
TLS = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384")
ALIAS = Address("alias", "fwd.test")


def received(envelope: Envelope = ENVELOPE, for_: Address | None = None) -> bytes:
    return build_received(envelope, by="mx.fwd.test", for_=for_, now=NOW)


def test_the_field_says_who_gave_it_to_whom_how_and_when() -> None:
    assert received(replace(ENVELOPE, peer=replace(PEER, tls=TLS)), ALIAS).decode().splitlines() == [
        "Received: from client.sender.test ([192.0.2.1])",
        "\tby mx.fwd.test with ESMTPS id 01JDX",
        "\t(TLSv1.3 TLS_AES_256_GCM_SHA384)",
        "\tfor <alias@fwd.test>;",
        "\tTue, 3 Nov 2026 04:05:06 +0000",
    ]


def test_a_mark_stands_in_a_comment() -> None:
    field = build_received(ENVELOPE, by="mx.fwd.test", for_=None, now=NOW, mark="MARK")
    assert b"with ESMTP id 01JDX\r\n\t(mark MARK);" in field
    assert is_ours(parse_message(field).fields[0], "mx.fwd.test")


def test_an_ipv6_client_stands_as_a_literal_without_the_name_of_our_interface() -> None:
    assert b"([IPv6:2001:db8::1])" in received(replace(ENVELOPE, peer=Peer(IPv6Address("2001:db8::1"), "c.test")))
    assert b"([IPv6:fe80::1])" in received(replace(ENVELOPE, peer=Peer(IPv6Address("fe80::1%eth0"), "c.test")))


@pytest.mark.parametrize(
    ("esmtp", "smtputf8", "tls", "keyword"),
    [
        (False, False, None, b" with SMTP id"),
        (True, False, None, b" with ESMTP id"),
        (True, False, TLS, b" with ESMTPS id"),
        (True, True, None, b" with UTF8SMTP id"),
        (True, True, TLS, b" with UTF8SMTPS id"),
    ],
)
def test_the_protocol_word_tells_of_extensions_and_tls(
    esmtp: bool, smtputf8: bool, tls: Tls | None, keyword: bytes
) -> None:
    assert keyword in received(replace(ENVELOPE, peer=replace(PEER, esmtp=esmtp, tls=tls), smtputf8=smtputf8))


def test_a_recipient_that_could_pass_for_a_clause_is_left_out() -> None:
    assert b"for <" not in received(for_=Address('"x; Mon, 1 Jan 2001 00:00:00 +0000"', "fwd.test"))
    assert b"for <" not in received(for_=Address("älias", "fwd.test"))
    assert b"for <alias@xn--bcher-kva.test>" in received(for_=Address("alias", "bücher.test"))


_ips = st.ip_addresses() | st.just(ip_address("fe80::1%x;y"))


@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), _ips)
def test_nothing_a_client_says_leaves_its_place(
    helo: str, identity: str, cipher: str, local: str, ip: IPv4Address | IPv6Address
) -> None:
    envelope = replace(ENVELOPE, id=identity, peer=Peer(ip, helo, tls=Tls(cipher, cipher)))
    raw = received(envelope, Address(local, "fwd.test"))
    parsed = parse_message(raw)
    assert len(parsed.fields) == 1
    assert raw.count(b";") == 1
    assert raw.count(b"(") == raw.count(b")") == 2
    assert raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n")
    assert is_ours(parsed.fields[0], "mx.fwd.test")


# --- finding ourselves ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        b"from a by mx.fwd.test with ESMTP; Mon, 1 Jan 2001",
        b"from a\r\n\tby\r\n MX.FWD.TEST.\r\n with ESMTP; x",
        b"from a by mx.fwd.test; x",
        b"by mx.fwd.test; x",
        b"from by ([192.0.2.1])\r\n by mx.fwd.test; x",
        b"from by by mx.fwd.test; x",
    ],
)
def test_our_field_is_known_however_it_was_folded(value: bytes) -> None:
    assert is_ours(Field(b"received", b"Received: " + value + b"\r\n"), "mx.fwd.test")


@pytest.mark.parametrize(
    "value",
    [b"from mx.fwd.test by b; x", b"from a by mx.fwd.test.other.test; x", b"from a by notmx.fwd.test; x", b""],
)
def test_a_field_of_another_host_is_not_ours(value: bytes) -> None:
    assert not is_ours(Field(b"received", b"Received: " + value + b"\r\n"), "mx.fwd.test")


def test_the_lowest_of_our_fields_is_where_the_senders_part_begins() -> None:
    parsed = message(
        "Received: from b by dest.test; x\n"
        "Received: from a by mx.fwd.test; x\n"
        "X-Of-Ours: x\n"
        "Received: from c by mx.fwd.test; x\n"
        "Received: from d by sender.test; x\n"
        "Subject: x\n\n"
    )
    assert find_own_received(parsed.fields, "mx.fwd.test") == 3
    assert find_own_received(parsed.fields, "other.test") is None


def test_a_date_is_written_in_utc_and_in_english() -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    assert render_date(datetime(2026, 1, 1, 3, 0, tzinfo=east)) == "Wed, 31 Dec 2025 21:30:00 +0000"
