"""What name servers answer, and what zones and policies say."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import dns.message
import dns.name
import dns.rrset

from forwarder.mtasts.text import PolicyError, is_host, parse_policy
from forwarder.mtasts.text import parse_record as parse_sts_record
from forwarder.resolver.wire import Fault, Query, parse_response, read_response
from forwarder.resolver.zone import ZoneError, ZoneResolver
from tests.fuzz.target import Target, holds

# --- octets of an answer ------------------------------------------------------------------------------------------------

_ZONE = {
    "TXT": 'a.test. 300 IN CNAME b.test.\nb.test. 300 IN TXT "v=spf1 " "-all"\nb.test. 300 IN TXT "x"',
    "MX": "a.test. 300 IN MX 10 mx.a.test.\na.test. 300 IN MX 0 .",
    "A": "a.test. 300 IN A 192.0.2.1\na.test. 0 IN A 192.0.2.2",
    "AAAA": "a.test. 2147483647 IN AAAA 2001:db8::1",
    "PTR": "a.test. 300 IN PTR host.a.test.",
    "CNAME": "a.test. 300 IN CNAME b.test.",
    "TLSA": "a.test. 300 IN TLSA 3 1 1 " + "ab" * 32,
}
_TYPES = tuple(_ZONE)


def _query(rdtype: str) -> Query:
    return replace(Query.make(dns.name.from_text("a.test"), rdtype, edns=True, ad=False), id=0x4142)


def _seed(number: int, rdtype: str) -> bytes:
    """The type's number, then the answer without its id."""
    response = dns.message.make_response(dns.message.make_query("a.test", rdtype, use_edns=0))
    for line in _ZONE[rdtype].splitlines():
        name, ttl, _, kind, data = line.split(" ", 4)
        response.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, data))
    response.authority.append(dns.rrset.from_text("test.", 60, "IN", "SOA", "ns.test. h.test. 1 2 3 4 5"))
    return bytes([number]) + response.to_wire()[2:]


_QUERIES = tuple(map(_query, _TYPES))


def run_answer(data: bytes) -> None:
    """A response of any octets to each kind of question."""
    number = data[0] % len(_TYPES) if data else 0
    query, rdtype = _QUERIES[number], _TYPES[number]
    response = parse_response(query, b"\x41\x42" + data[1:])
    if response is None:
        return
    with suppress(Fault):
        reading = read_response(response, rdtype)
        holds(reading.ttl >= 0, f"a TTL of {reading.ttl}")
        if rdtype in ("MX", "PTR", "CNAME"):
            names = [one[1] if rdtype == "MX" else one for one in reading.records]
            holds(all(len(one) <= 1100 and one.isascii() for one in names), f"names {names}")


ANSWERS = Target(
    "answers",
    run_answer,
    tuple(_seed(number, rdtype) for number, rdtype in enumerate(_TYPES)),
    (
        *(
            b"\xc0\x0c",
            b"\xc0\x00",
            b"\xc0",
            b"\x00",
            b"\x01a\x04test\x00",
            b"\x3f" + b"a" * 63,
            b"\x40",
            b"\x80",
            b"\xff\xff",
        ),
        *(
            b"\x00\x01",
            b"\x00\x05\x00\x01",
            b"\x00\x10\x00\x01",
            b"\x00\x34\x00\x01",
            b"\x00\x29",
            b"\x7f\xff\xff\xff",
            b"\xff\xff\xff\xff",
        ),
        *(
            b"\x84\x00",
            b"\x81\x83",
            b"\x83\x80",
            b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00",
            b"\x01.\x00",
            b"\x02\x00\n\x00",
        ),
    ),
    65_000,
)

# --- zone files ---------------------------------------------------------------------------------------------------------


def run_zone(data: bytes) -> None:
    """A zone that an operator wrote."""
    try:
        zone = json.loads(data)
        resolver = ZoneResolver(zone) if isinstance(zone, dict) else None
    except (ZoneError, ValueError, RecursionError):
        return
    if resolver is None:
        return
    for name in [*zone, "a.test", "x.w.test"]:
        for look_up in (resolver.txt, resolver.mx, resolver.a, resolver.tlsa, resolver.cname):
            with suppress(StopIteration):
                look_up(name).send(None)  # type: ignore[attr-defined]  # a coroutine that waits for nothing


ZONES = Target(
    "zones",
    run_zone,
    (
        b'{"a.test": {"TXT": ["v=spf1 -all", "\\"a\\" \\"b\\\\032\\""], "MX": ["10 mx.a.test."], "A": ["192.0.2.1"]}}',
        b'{"b.test": {"CNAME": ["a.test"], "DNSSEC": "secure"}, "*.w.test": {"TXT": ["x"], "*": "SERVFAIL"}}',
        b'{"_25._tcp.mx.test": {"TLSA": ["3 1 1 abcd"]}, "c.test": {"AAAA": ["::1"], "PTR": ["x"], "TXT": "TIMEOUT"}}',
    ),
    (
        *(
            b'"',
            b"\\",
            b"{",
            b"}",
            b"[",
            b"]",
            b":",
            b",",
            b"null",
            b"1e999",
            b"\\ud800",
            b"\\u0000",
            b'"TXT"',
            b'"MX"',
            b'"TLSA"',
            b'"A"',
        ),
        *(
            b"..",
            b"*",
            b"*.",
            b"xn--",
            b"\xc3\xbc",
            b'["',
            b'"]',
            b"99999999999999999999",
            b"\\\\999",
            b'\\"',
            b"a" * 64,
            b'"CNAME": ["b.test"]',
        ),
    ),
)

# --- MTA-STS ------------------------------------------------------------------------------------------------------------


def run_policy(data: bytes) -> None:
    """A policy as a web server gives it, and the records that point to it."""
    holds_id = parse_sts_record([data])
    holds(holds_id is None or (holds_id.isascii() and len(holds_id) <= 32), f"an id {holds_id!r}")
    try:
        policy = parse_policy(data, "1")
    except PolicyError as error:
        holds(str(error).isascii() and str(error).isprintable(), f"a reason {error!r}")
        return
    holds(all(map(is_host, (one.removeprefix("*.") for one in policy.hosts))), f"hosts {policy.hosts}")
    holds(0 <= policy.max_age <= 31557600, f"max_age {policy.max_age}")


POLICIES = Target(
    "policies",
    run_policy,
    (
        b"version: STSv1\r\nmode: enforce\r\nmx: mail.a.test\r\nmx: *.b.test\r\nmax_age: 604800\r\n",
        b"version: STSv1\nmode: none\nmax_age: 86400\n",
        b"v=STSv1; id=20260101T000000;",
    ),
    (
        *(
            b"version:",
            b"STSv1",
            b"mode: ",
            b"testing",
            b"mx: ",
            b"*.",
            b"max_age: ",
            b"\r\n",
            b"\n",
            b"\r",
            b";",
            b"id=",
            b"99999999999",
        ),
        *(
            b" ",
            b"\t",
            b"\xff",
            b"\xc3\xbc",
            b"xn--",
            b"..",
            b"-",
            b"\0",
            b"\xd9\xa1",
            b"\xc2\x85",
            b"\xe2\x80\xa8",
            b"mx: a.test\n",
        ),
    ),
    70_000,
)
