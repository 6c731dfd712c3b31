"""A zone that somebody wrote down: data as RFC 1035 presents them, and what follows from what is not there."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest

from forwarder.ports import DnsStatus, Tlsa
from forwarder.resolver import ZoneError, ZoneResolver

ZONE: dict[str, Any] = {
    "Example.TEST.": {
        "TXT": ["v=spf1 -all", '"v=DKIM1; " "p=abc"', '"a\\"b" "\\\\c\\100\\000"'],
        "A": ["192.0.2.1", " 192.0.2.2 "],
        "AAAA": ["2001:DB8::1"],
        "MX": ["10 mx.example.test.", "20 MX2.example.test", "0 ."],
        "NS": ["whatever"],
    },
    "alias.test": {"CNAME": ["Alias2.test."]},
    "alias2.test": {"CNAME": ["example.test"]},
    "lost.test": {"CNAME": ["nowhere.test"]},
    "loop.test": {"CNAME": ["loop.test."]},
    "own.test": {"CNAME": ["example.test"], "A": ["192.0.2.9"]},
    "deep.down.test": {"A": ["192.0.2.3"]},
    "empty.test": {"TXT": []},
    "bare.test": {},
    "slow.test": {"*": "TIMEOUT"},
    "half.test": {"A": ["192.0.2.4"], "*": "servfail"},
    "txt.test": {"TXT": "SERVFAIL"},
    "*.wild.test": {"A": ["192.0.2.5"]},
    "some.wild.test": {"TXT": ["x"]},
    "_25._tcp.example.test": {"TLSA": ["3 1 1 ab 01"]},
    "b\u00fccher.test": {"A": ["192.0.2.6"]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["Host.Test."]},
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.D.0.1.0.0.2.ip6.arpa": {"PTR": ["host6.test"]},
}


@pytest.fixture
def zone() -> ZoneResolver:
    return ZoneResolver(ZONE)


async def test_each_type_is_read_into_its_values(zone: ZoneResolver) -> None:
    assert (await zone.txt("example.test")).records == (b"v=spf1 -all", b"v=DKIM1; p=abc", b'a"b\\cd\0')
    assert (await zone.a("EXAMPLE.test.")).records == (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"))
    assert (await zone.aaaa("example.test")).records == (IPv6Address("2001:db8::1"),)
    assert (await zone.mx("example.test")).records == ((10, "mx.example.test"), (20, "MX2.example.test"), (0, ""))
    assert (await zone.ptr(IPv4Address("192.0.2.1"))).records == ("Host.Test",)
    assert (await zone.ptr(IPv6Address("2001:db8::1"))).records == ("host6.test",)
    assert (await zone.tlsa("_25._tcp.example.test")).records == (Tlsa(3, 1, 1, b"\xab\x01"),)
    assert (await zone.cname("alias.test")).records == ("alias2.test",)
    assert zone.stats.queries == 8


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("example.test", DnsStatus.OK),
        ("alias.test", DnsStatus.OK),
        ("own.test", DnsStatus.OK),
        ("lost.test", DnsStatus.NXDOMAIN),
        ("loop.test", DnsStatus.TEMPERROR),
        ("nowhere.test", DnsStatus.NXDOMAIN),
        ("a.example.test", DnsStatus.NXDOMAIN),
        ("deep.down.test", DnsStatus.OK),
        ("down.test", DnsStatus.NODATA),
        ("test", DnsStatus.NODATA),
        ("empty.test", DnsStatus.NODATA),
        ("bare.test", DnsStatus.NODATA),
        ("txt.test", DnsStatus.NODATA),
        ("slow.test", DnsStatus.TEMPERROR),
        ("half.test", DnsStatus.OK),
        ("any.wild.test", DnsStatus.OK),
        ("any.thing.wild.test", DnsStatus.OK),
        ("wild.test", DnsStatus.NODATA),
        ("some.wild.test", DnsStatus.NODATA),
        ("x.some.wild.test", DnsStatus.NXDOMAIN),
        ("xn--bcher-kva.test", DnsStatus.OK),
        ("no..name", DnsStatus.NXDOMAIN),
        ("", DnsStatus.NXDOMAIN),
    ],
)
async def test_an_address_is_there_or_not(zone: ZoneResolver, name: str, status: DnsStatus) -> None:
    assert (await zone.a(name)).status is status


@pytest.mark.parametrize(
    ("name", "fault"), [("slow.test", "TIMEOUT"), ("half.test", "SERVFAIL"), ("txt.test", "SERVFAIL")]
)
async def test_a_word_in_place_of_data_is_that_fault(zone: ZoneResolver, name: str, fault: str) -> None:
    answer = await zone.txt(name)
    assert (answer.status, answer.detail) == (DnsStatus.TEMPERROR, fault)


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ('"one" "two"', b"onetwo"),
        ('"one"  "two" ', b"onetwo"),
        ('""', b""),
        ("", b""),
        ("plain \\100 text", b"plain \\100 text"),
        ('"open', b'"open'),
        ('"a" b', b'"a" b'),
        ('say "hi"', b'say "hi"'),
        ("caf\u00e9", b"caf\xc3\xa9"),
        ('"\\200"', b"\xc8"),
        ('"' + "x" * 4000 + '"', b"x" * 4000),
    ],
)
async def test_a_text_is_in_quotes_or_stands_as_it_is(text: str, octets: bytes) -> None:
    assert (await ZoneResolver({"t.test": {"TXT": [text]}}).txt("t.test", fresh=True)).records == (octets,)


@pytest.mark.parametrize(
    "zone",
    [
        {"a..test": {}},
        {"a.test": []},
        {"a.test": {"TXT": "hello"}},
        {"a.test": {"TXT": [1]}},
        {"a.test": {"A": ["192.0.2.256"]}},
        {"a.test": {"AAAA": ["192.0.2.1"]}},
        {"a.test": {"MX": ["mx.test"]}},
        {"a.test": {"CNAME": ["."]}},
        {"a.test": {"TXT": ['"\\300"']}},
        {"a.test": {"TLSA": ["3 1 1 xy"]}},
        {"a.test": {"TLSA": ["3 1"]}},
        {"a.test": {"DNSSEC": "broken"}},
        {"a.test": {"DNSSEC": ["secure"]}},
    ],
)
def test_a_zone_that_cannot_be_read_is_refused_and_says_where(zone: Any) -> None:
    with pytest.raises(ZoneError, match=r"a\.+test"):
        ZoneResolver(zone)


SIGNED: dict[str, Any] = {
    "signed.test": {"DNSSEC": "secure", "A": ["192.0.2.1"]},
    "a.signed.test": {"A": ["192.0.2.1"]},
    "hole.signed.test": {"DNSSEC": "insecure", "A": ["192.0.2.1"]},
    "out.signed.test": {"CNAME": ["plain.test"]},
    "in.signed.test": {"CNAME": ["a.signed.test"]},
    "plain.test": {"A": ["192.0.2.1"]},
    "into.test": {"CNAME": ["a.signed.test"]},
}


@pytest.mark.parametrize(
    ("name", "authentic", "canonical"),
    [
        ("signed.test", True, ""),
        ("A.signed.test", True, ""),
        ("nothing.signed.test", True, ""),
        ("hole.signed.test", False, ""),
        ("b.hole.signed.test", False, ""),
        ("out.signed.test", False, "plain.test"),
        ("in.signed.test", True, "a.signed.test"),
        ("into.test", False, "a.signed.test"),
        ("plain.test", False, ""),
        ("test", False, ""),
    ],
)
async def test_what_is_signed_is_said_in_the_zone(name: str, canonical: str, *, authentic: bool) -> None:
    answer = await ZoneResolver(SIGNED).a(name)
    assert (answer.authentic, answer.canonical) == (authentic, canonical)


async def test_an_alias_may_be_signed_where_it_leads_out() -> None:
    assert (await ZoneResolver(SIGNED).cname("out.signed.test")).authentic


async def test_a_zone_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "zone.json"
    path.write_text(json.dumps(ZONE))
    assert (await ZoneResolver.from_file(path).a("example.test")).status is DnsStatus.OK
    path.write_text("[]")
    with pytest.raises(ZoneError, match="name -> type"):
        ZoneResolver.from_file(path)
    path.write_text("{")
    with pytest.raises(ZoneError, match=r"zone\.json"):
        ZoneResolver.from_file(path)
    with pytest.raises(OSError, match="No such file"):
        ZoneResolver.from_file(tmp_path / "absent")
