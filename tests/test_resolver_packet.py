"""DNS messages: what we read out of octets is what dnspython reads, and no octets do harm."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.ports import DnsStatus
from forwarder.resolver.packet import (
    MAX_RECORDS,
    TYPES,
    Contradiction,
    Loop,
    Response,
    build_query,
    encode_name,
    parse_response,
)

IDENT = 0x1234
NAMES = ["a.test.", "b.test.", "c.x.test.", "A.Test.", "long-label-of-some-octets.example.org.", "test.", "."]
DATA = {
    "A": ["192.0.2.1", "198.51.100.7"],
    "AAAA": ["2001:db8::1", "::"],
    "MX": ["10 a.test.", "0 .", "65535 Mail.Example.org."],
    "PTR": ["a.test.", "C.x.test."],
    "TXT": ['"v=spf1 -all"', '"a" "" "b"', '"' + "x" * 255 + '" "y"', '""', '"\\000\\255"'],
    "CNAME": ["a.test.", "B.TEST.", "c.x.test."],
    "NS": ["ns.test."],
    "SOA": ["ns.test. host.test. 1 2 3 4 60", ". . 1 2 3 4 0"],
}

rrsets = st.builds(
    lambda name, ttl, rdtype, picks: (
        name,
        ttl,
        rdtype,
        sorted({DATA[rdtype][pick % len(DATA[rdtype])] for pick in picks}),
    ),
    st.sampled_from(NAMES[:6]),
    st.sampled_from([0, 1, 300, 86400, 2**31 - 1]),
    st.sampled_from(list(DATA)),
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
)


def query_for(name: str, rdtype: str, *, edns: bool = True) -> bytes:
    return build_query(IDENT, encode_name(name.rstrip(".").lower()), TYPES[rdtype], edns=edns, ad=False)


def answer_to(
    query: bytes, answer: Sequence[Any] = (), authority: Sequence[Any] = (), rcode: int = 0
) -> dns.message.QueryMessage:
    request = dns.message.from_wire(query)
    assert isinstance(request, dns.message.QueryMessage)
    response = dns.message.make_response(request)
    assert isinstance(response, dns.message.QueryMessage)
    response.set_rcode(dns.rcode.Rcode.make(rcode))
    for section, rrsets in ((response.answer, answer), (response.authority, authority)):
        for name, ttl, rdtype, data in rrsets:
            section.append(dns.rrset.from_text_list(dns.name.from_text(name), ttl, "IN", rdtype, data))
    return response


def parse(query: bytes, response: dns.message.Message | bytes) -> Response:
    parsed = parse_response(query, response if isinstance(response, bytes) else response.to_wire())
    assert parsed is not None
    return parsed


@pytest.mark.parametrize("edns", [True, False])
@pytest.mark.parametrize("ad", [True, False])
def test_a_question_reads_as_what_was_asked(edns: bool, ad: bool) -> None:
    octets = build_query(IDENT, encode_name("selector._domainkey.example.org"), TYPES["TXT"], edns=edns, ad=ad)
    query = dns.message.from_wire(octets)
    assert query.id == IDENT
    assert query.flags == dns.flags.RD | (dns.flags.AD if ad else 0)
    assert [one.to_text() for one in query.question] == ["selector._domainkey.example.org. IN TXT"]
    assert (query.edns, query.payload) == ((0, 1232) if edns else (-1, 0))
    assert query.to_wire() == octets


@given(
    st.sampled_from(NAMES[:6]),
    st.sampled_from(list(TYPES)),
    st.lists(rrsets, max_size=6, unique_by=lambda one: (one[0].lower(), one[2])),
    st.lists(rrsets, max_size=2, unique_by=lambda one: (one[0].lower(), one[2])),
    st.sampled_from([0, 3]),
)
def test_an_answer_reads_as_dnspython_reads_it(
    name: str, rdtype: str, answer: list[Any], authority: list[Any], rcode: int
) -> None:
    query = query_for(name, rdtype)
    # Two CNAMEs for one name are no DNS; which of them is followed is nobody's right answer.
    answer = [(owner, ttl, kind, data[:1] if kind == "CNAME" else data) for owner, ttl, kind, data in answer]
    message = answer_to(query, answer, authority, rcode)
    octets = message.to_wire()
    reference = dns.message.from_wire(octets)
    assert isinstance(reference, dns.message.QueryMessage)
    try:
        chain = reference.resolve_chaining()
    except (dns.message.ChainTooLong, dns.message.AnswerForNXDOMAIN):
        with pytest.raises((Loop, Contradiction)):
            parse(query, octets).read(rdtype)
        return
    reading = parse(query, octets).read(rdtype)

    assert reading.target == encode_name(chain.canonical_name.to_text(omit_final_dot=True).lower())
    assert list(reading.records) == [value_of(rdtype, one) for one in chain.answer or ()]
    if chain.answer is not None:
        assert (reading.status, reading.ttl) == (DnsStatus.OK, chain.minimum_ttl)
    elif any(
        kind == "SOA" and chain.canonical_name.is_subdomain(dns.name.from_text(one)) for one, _, kind, _ in authority
    ):
        assert reading.status is (DnsStatus.NXDOMAIN if rcode else DnsStatus.NODATA)
        assert reading.ttl <= chain.minimum_ttl
    elif rcode:
        assert (reading.status, reading.ttl) == (DnsStatus.NXDOMAIN, 0)
    else:
        assert reading.status is (None if chain.cnames and reading.target != encode_name(name.rstrip(".").lower()) else
                                  DnsStatus.NODATA)  # fmt: skip


def value_of(rdtype: str, rdata: Any) -> object:
    """What ports.Resolver promises of this record, taken from dnspython's."""
    match rdtype:
        case "MX":
            return rdata.preference, rdata.exchange.to_text().removesuffix(".")
        case "PTR":
            return rdata.target.to_text().removesuffix(".")
        case "TXT":
            return b"".join(rdata.strings)
    return ip_address(rdata.address)


# --- what is no answer ------------------------------------------------------------------------------------------------

QUERY = query_for("a.test.", "TXT")
GOOD = answer_to(QUERY, [("A.test.", 300, "TXT", ['"x"'])]).to_wire()


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(GOOD[:11], id="half a header"),
        pytest.param(b"\0\0" + GOOD[2:], id="another id"),
        pytest.param(QUERY, id="the question itself"),
        pytest.param(GOOD[:2] + bytes((GOOD[2] | 0x10,)) + GOOD[3:], id="another opcode"),
        pytest.param(GOOD[:-1], id="cut short"),
        pytest.param(GOOD + b"\0", id="with something behind it"),
        pytest.param(GOOD.replace(b"\x01a\x04test", b"\x01b\x04test", 1), id="for another name"),
        pytest.param(GOOD[:5] + b"\0" + GOOD[6:12] + GOOD[24:], id="without the question"),
        pytest.param(GOOD[:6] + b"\xff\xff" + GOOD[8:], id="counts that are not kept"),
        pytest.param(answer_to(query_for("a.test.", "A")).to_wire(), id="for another type"),
    ],
)
def test_what_is_not_the_answer_is_not_looked_at(octets: bytes) -> None:
    assert parse_response(QUERY, octets) is None


@pytest.mark.parametrize(
    ("flags", "rcode", "taken"),
    [
        (0x8180, dns.rcode.SERVFAIL, True),
        (0x8180, dns.rcode.REFUSED, True),
        (0x8380, dns.rcode.NOERROR, True),
        (0x8180, dns.rcode.NOERROR, False),
        (0x8180, dns.rcode.NXDOMAIN, False),
    ],
)
def test_the_question_may_be_missing_where_nothing_is_claimed_of_a_name(flags: int, rcode: int, taken: bool) -> None:
    header = QUERY[:2] + (flags | rcode).to_bytes(2, "big") + bytes(8)
    assert (parse_response(QUERY, header) is not None) is taken


def test_the_extended_response_code_counts() -> None:
    """Without it BADVERS would read as "there is no such record"."""
    response = answer_to(QUERY)
    response.use_edns(0)
    response.set_rcode(dns.rcode.BADVERS)
    assert parse(QUERY, response).rcode == dns.rcode.BADVERS


def record(name: bytes, rdtype: int, data: bytes) -> bytes:
    return name + rdtype.to_bytes(2, "big") + b"\0\1\0\0\1\0" + len(data).to_bytes(2, "big") + data


def message(*records: bytes) -> bytes:
    question = QUERY[12:-11]
    return QUERY[:2] + b"\x81\x80\0\1" + len(records).to_bytes(2, "big") + bytes(4) + question + b"".join(records)


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(record(b"\xc0\x18", 16, b"\1x"), id="a pointer to itself"),
        pytest.param(record(b"\xc0\xff", 16, b"\1x"), id="a pointer ahead"),
        pytest.param(record(b"\x01a\xc0\x18", 16, b"\1x"), id="a pointer into its own labels"),
        pytest.param(record(b"\x80a\0", 16, b"\1x"), id="a label of a kind that was never used"),
        pytest.param(record(b"\x3f" + b"a" * 63 + b"\0", 16, b"\2x"), id="a string beyond its record"),
        pytest.param(record((b"\x3f" + b"a" * 63) * 4 + b"\0", 16, b"\1x"), id="a name of 257 octets"),
        pytest.param(record(b"\xc0\x0c", 1, b"abc"), id="three quarters of an address"),
        pytest.param(record(b"\xc0\x0c", 28, b"abcd"), id="a quarter of an address"),
        pytest.param(record(b"\xc0\x0c", 15, b"\0\1"), id="a mail exchanger without a host"),
        pytest.param(record(b"\xc0\x0c", 15, b"\0\1\0x"), id="a mail exchanger and more"),
        pytest.param(record(b"\xc0\x0c", 5, b""), id="an alias of nothing"),
        pytest.param(record(b"\xc0\x0c", 6, b"\0\0" + bytes(16)), id="a short SOA"),
    ],
)
def test_a_record_that_cannot_be_read_spoils_the_message(octets: bytes) -> None:
    assert parse_response(QUERY, message(record(b"\xc0\x0c", 16, b"\1x"))) is not None
    assert parse_response(QUERY, message(octets)) is None


@pytest.mark.parametrize(
    ("octets", "records"),
    [
        pytest.param(record(b"\xc0\x0c", 16, b""), (b"",), id="no string at all"),
        pytest.param(record(b"\xc0\x0c", 16, b"\0"), (b"",), id="an empty string"),
        pytest.param(record(b"\xc0\x0c", 16, b"\1x").replace(b"\0\1\0", b"\0\3\0", 1), (), id="not of the Internet"),
    ],
)
def test_an_odd_text_reads_as(octets: bytes, records: tuple[bytes, ...]) -> None:
    assert parse(QUERY, message(octets)).read("TXT").records == records


def test_records_that_a_server_repeats_are_one() -> None:
    texts = [record(b"\xc0\x0c", 16, data) for data in (b"\2ab", b"\2ab", b"\1a\1b")]
    assert parse(QUERY, message(*texts)).read("TXT").records == (b"ab", b"ab")


def test_a_host_with_a_dot_or_odd_octets_in_a_label_is_no_other_host() -> None:
    query = query_for("a.test.", "PTR")
    octets = (
        query[:2]
        + b"\x81\x80\0\1\0\1"
        + bytes(4)
        + query[12:-11]
        + record(b"\xc0\x0c", 12, b"\4evil\x08a.b\0\xff\x20c\\\0")
    )
    assert parse(query, octets).read("PTR").records == ("evil.a\\.b\0\\xff c\\",)


def test_a_ttl_beyond_what_is_allowed_is_none() -> None:
    octets = message(record(b"\xc0\x0c", 16, b"\1x").replace(b"\0\1\0\0\1\0", b"\0\1\x80\0\0\1"))
    assert parse(QUERY, octets).read("TXT").ttl == 0


@given(st.lists(st.tuples(st.integers(2, 400), st.integers(0, 255)), max_size=8), st.integers(0, 60))
def test_no_octets_do_harm(changes: list[tuple[int, int]], cut: int) -> None:
    answer = [
        ("A.test.", 300, "CNAME", ["b.test."]),
        *((name, 60, kind, DATA[kind]) for name in ("a.test.", "b.test.") for kind in TYPES),
    ]
    octets = bytearray(answer_to(QUERY, answer, [("test.", 300, "SOA", DATA["SOA"][:1])]).to_wire())
    for at, value in changes:
        if at < len(octets):
            octets[at] = value
    parsed = parse_response(QUERY, bytes(octets[: len(octets) - cut]))
    if parsed is not None:
        for rdtype in TYPES:
            with suppress(Contradiction, Loop):
                parsed.read(rdtype)


def test_the_worst_message_costs_little() -> None:
    labels = b"\1a" * 100 + b"\0"
    pointers = [record(b"\1b\xc0\x24", 5, b"\1b\xc0\x24")] * (MAX_RECORDS - 1)
    octets = message(record(labels, 16, b"\1x"), *pointers)
    started = time.process_time()
    for _ in range(10):
        parsed = parse(QUERY, octets)
        parsed.read("TXT")
    assert (time.process_time() - started) / 10 < 0.1
    assert parse_response(QUERY, message(*[record(b"\0", 16, b"\1x")] * (MAX_RECORDS + 1))) is None
