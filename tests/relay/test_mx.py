"""forwarder/relay/mx.py"""

from __future__ import annotations

import asyncio
from collections import Counter
from ipaddress import ip_address
from random import Random
from typing import Any

import pytest

from forwarder.model import Deferred, Failed
from forwarder.ports import Answer, DnsStatus
from forwarder.public import is_public
from forwarder.relay import RelaySettings
from forwarder.relay.mx import Route, lookup_route, order_targets, parse_smarthost
from forwarder.resolver import DnsResolver
from tests.fakes import FakeResolver, Zone
from tests.peers.dns_server import run_dns_server, zone_text

PUBLIC = {"A": ["8.8.8.8"]}
PRIVATE = {"A": ["10.0.0.1"]}


async def look_up(zone: Zone, domain: str = "d.test", rng: Random | None = None, **settings: Any) -> Any:
    given = RelaySettings(**({"hostname": "us.test"} | settings))
    return await lookup_route(FakeResolver(zone), domain, given, rng or Random(1))


async def targets(zone: Zone, domain: str = "d.test", **settings: Any) -> list[str]:
    """The order in which they would be asked, as "host address"."""
    route = await look_up(zone, domain, **settings)
    assert isinstance(route, Route), route
    return [f"{one.host} {one.address}" for one in order_targets(route, Random(1))]


def enhanced(result: object) -> str | None:
    assert isinstance(result, Failed), result
    return result.reply.enhanced


async def test_hosts_come_by_preference() -> None:
    zone = {
        "d.test": {"MX": ["20 b.test", "10 a.test", "30 c.test"]},
        "a.test": {"A": ["8.8.8.1"]},
        "b.test": {"A": ["8.8.8.2"]},
        "c.test": {"A": ["8.8.8.3"]},
    }
    assert await targets(zone) == ["a.test 8.8.8.1", "b.test 8.8.8.2", "c.test 8.8.8.3"]


async def test_equals_are_shuffled_for_each_delivery() -> None:
    zone = {
        "d.test": {"MX": ["10 a.test", "10 b.test", "20 c.test"]},
        "a.test": PUBLIC,
        "b.test": PUBLIC,
        "c.test": PUBLIC,
    }
    route = await look_up(zone)
    rng = Random(7)
    orders = Counter(tuple(one.host for one in order_targets(route, rng)) for _ in range(200))
    assert set(orders) == {("a.test", "b.test", "c.test"), ("b.test", "a.test", "c.test")}
    assert min(orders.values()) > 60


async def test_both_families_take_turns_beginning_with_ipv4() -> None:
    zone = {"d.test": {"MX": ["10 a.test"]}, "a.test": {"A": ["8.8.8.1", "8.8.8.2"], "AAAA": ["2600::1"]}}
    assert await targets(zone) == ["a.test 8.8.8.1", "a.test 2600::1", "a.test 8.8.8.2"]


async def test_a_host_with_ipv6_only_is_a_host() -> None:
    assert await targets({"d.test": {"MX": ["10 a.test"]}, "a.test": {"AAAA": ["2600::1"]}}) == ["a.test 2600::1"]


async def test_without_mx_the_domain_itself_is_the_host() -> None:
    assert await targets({"d.test": PUBLIC}) == ["d.test 8.8.8.8"]


async def test_the_implicit_mx_is_not_a_fallback_for_bad_mx() -> None:
    """RFC 5321 section 5.1"""
    assert enhanced(await look_up({"d.test": {"MX": ["10 gone.test"], **PUBLIC}})) == "5.4.4"


@pytest.mark.parametrize(
    ("zone", "status"),
    [
        pytest.param({}, "5.1.2", id="no such domain"),
        pytest.param({"d.test": {"MX": ["0 ."]}}, "5.1.10", id="null MX"),
        pytest.param({"d.test": {"TXT": ["x"]}}, "5.4.4", id="a domain with neither MX nor address"),
        pytest.param({"d.test": {"MX": ["10 a.test"]}, "a.test": {"TXT": ["x"]}}, "5.4.4", id="MX without address"),
        pytest.param({"d.test": {"MX": ["10 8.8.8.8"]}}, "5.4.4", id="an address in the place of a name"),
        pytest.param({"d.test": {"MX": ["10 a.test"]}, "a.test": PRIVATE}, "5.4.4", id="private"),
        pytest.param({"d.test": {"A": ["127.0.0.1"]}}, "5.4.4", id="loopback"),
        pytest.param({"d.test": {"AAAA": ["::ffff:127.0.0.1"]}}, "5.4.4", id="loopback in disguise"),
        pytest.param({"d.test": {"MX": ["10 us.test"]}, "us.test": PUBLIC}, "5.4.6", id="only ourselves"),
        pytest.param(
            {"d.test": {"MX": ["10 us.test", "10 a.test", "20 b.test"]}, "a.test": PUBLIC, "b.test": PUBLIC},
            "5.4.6",
            id="ourselves among the best",
        ),
    ],
)
async def test_a_domain_can_rule_mail_out(zone: Zone, status: str) -> None:
    assert enhanced(await look_up(zone)) == status


@pytest.mark.parametrize(
    "zone",
    [
        pytest.param({"d.test": {"MX": "SERVFAIL", **PUBLIC}}, id="MX"),
        pytest.param({"d.test": {"MX": ["10 a.test"]}, "a.test": {"*": "TIMEOUT"}}, id="address"),
        pytest.param({"d.test": {"MX": ["10 a.test", "20 b.test"]}, "a.test": {"*": "TIMEOUT"}}, id="one of two hosts"),
        pytest.param(
            {"d.test": {"MX": ["10 a.test", "20 b.test"]}, "a.test": {"*": "TIMEOUT"}, "b.test": PRIVATE},
            id="other private",
        ),
        pytest.param({"d.test": {"MX": ["10 a.test"]}, "a.test": {"A": "SERVFAIL", "AAAA": []}}, id="one family"),
        pytest.param({"d.test": {"*": "SERVFAIL"}}, id="all"),
    ],
)
async def test_a_fault_of_the_dns_is_never_no(zone: Zone) -> None:
    result = await look_up(zone)
    assert isinstance(result, Deferred)
    assert result.reason.isascii()
    assert ("SERVFAIL" in result.reason) or ("TIMEOUT" in result.reason)


async def test_a_fault_of_the_dns_with_one_host_does_not_keep_from_another() -> None:
    zone = {"d.test": {"MX": ["10 a.test", "20 b.test"]}, "a.test": {"*": "TIMEOUT"}, "b.test": PUBLIC}
    assert await targets(zone) == ["b.test 8.8.8.8"]


async def test_the_list_is_cut_at_our_name() -> None:
    zone = {
        "d.test": {"MX": ["10 a.test", "20 MX.us.test", "20 b.test", "30 c.test"]},
        "a.test": {"A": ["8.8.8.1"]},
        "b.test": {"A": ["8.8.8.2"]},
        "c.test": {"A": ["8.8.8.3"]},
    }
    assert await targets(zone, own_hosts=frozenset({"mx.US.test"})) == ["a.test 8.8.8.1"]


async def test_the_list_is_cut_at_our_address_under_any_name() -> None:
    zone = {
        "d.test": {"MX": ["10 a.test", "20 alias.test", "30 c.test"]},
        "a.test": {"A": ["8.8.8.1"]},
        "alias.test": {"AAAA": ["2600::25"], "A": ["8.8.8.2"]},
        "c.test": {"A": ["8.8.8.3"]},
    }
    assert await targets(zone, own_addresses=frozenset({ip_address("2600::25")})) == ["a.test 8.8.8.1"]


async def test_our_name_is_found_beyond_the_hosts_that_are_looked_up() -> None:
    """Among 50 equals, a loop must not depend on which ones were drawn."""
    zone: dict[str, Any] = {"d.test": {"MX": [*(f"10 m{n}.test" for n in range(50)), "10 us.test"]}}
    zone |= {f"m{n}.test": PUBLIC for n in range(50)}
    for seed in range(5):
        assert enhanced(await look_up(zone, rng=Random(seed))) == "5.4.6"


async def test_private_addresses_are_left_out_where_there_are_others() -> None:
    zone = {"d.test": {"MX": ["10 a.test"]}, "a.test": {"A": ["127.0.0.1", "8.8.8.8"], "AAAA": ["fe80::1", "2600::1"]}}
    assert await targets(zone) == ["a.test 8.8.8.8", "a.test 2600::1"]


async def test_private_addresses_are_taken_where_that_is_allowed() -> None:
    zone = {"d.test": {"MX": ["10 a.test"]}, "a.test": {"A": ["127.0.0.1"]}}
    assert await targets(zone, allow_private=True) == ["a.test 127.0.0.1"]


async def test_no_more_hosts_are_looked_up_than_may_be_asked() -> None:
    zone: dict[str, Any] = {"d.test": {"MX": [f"{n} m{n}.test" for n in range(1000)]}}
    zone |= {f"m{n}.test": {"A": [f"8.8.{n}.{k}" for k in range(200)]} for n in range(100)}
    resolver = FakeResolver(zone)
    route = await lookup_route(resolver, "d.test", RelaySettings(hostname="us.test", max_hosts=3), Random(1))
    assert isinstance(route, Route)
    assert len(resolver.queries) == 1 + 3 * 2
    assert len(order_targets(route, Random(1))) == 3 * 8


async def test_hosts_beyond_the_first_few_are_looked_up_where_those_have_no_address() -> None:
    zone: dict[str, Any] = {"d.test": {"MX": [f"{n} m{n}.test" for n in range(15)]}, "m14.test": PUBLIC}
    assert await targets(zone, max_hosts=5) == ["m14.test 8.8.8.8"]


async def test_hosts_that_nobody_looked_up_are_no_reason_for_a_verdict() -> None:
    zone: dict[str, Any] = {"d.test": {"MX": [f"{n} m{n}.test" for n in range(1000)]}}
    resolver = FakeResolver(zone)
    route = await lookup_route(resolver, "d.test", RelaySettings(hostname="us.test", max_hosts=3), Random(1))
    assert isinstance(route, Deferred)
    assert len(resolver.queries) == 1 + 4 * 3 * 2


@pytest.mark.parametrize(
    "name", ["a b.test", "a\x1b.test", "-" * 64 + ".test", "a..test", "x." * 127 + "test", "<script>"]
)
async def test_an_exchange_that_is_no_host_name_is_not_asked(name: str) -> None:
    zone = {"d.test": {"MX": [(10, name)]}, name: PUBLIC}
    assert enhanced(await look_up(zone)) == "5.4.4"


async def test_a_null_mx_among_others_is_passed_over() -> None:
    assert await targets({"d.test": {"MX": ["0 .", "10 a.test"]}, "a.test": PUBLIC}) == ["a.test 8.8.8.8"]


@pytest.mark.parametrize(
    ("literal", "expected"), [("[8.8.8.8]", "[8.8.8.8] 8.8.8.8"), ("[IPv6:2600::1]", "[IPv6:2600::1] 2600::1")]
)
async def test_a_literal_is_asked_without_the_dns(literal: str, expected: str) -> None:
    assert await targets({}, literal) == [expected]


@pytest.mark.parametrize(
    ("literal", "status"),
    [("[127.0.0.1]", "5.4.4"), ("[IPv6:::1]", "5.4.4"), ("[8.8.4.4]", "5.4.6"), ("[x]", "5.1.2"), ("[", "5.1.2")],
)
async def test_a_literal_can_be_no_way(literal: str, status: str) -> None:
    assert enhanced(await look_up({}, literal, own_addresses=frozenset({ip_address("8.8.4.4")}))) == status


@pytest.mark.parametrize(
    ("smarthost", "expected"),
    [
        ("127.0.0.1:2599", ["127.0.0.1 127.0.0.1"]),
        ("[::1]:2599", ["::1 ::1"]),
        ("localhost:2599", ["localhost 127.0.0.1", "localhost ::1"]),
        ("relay.test:2599", ["relay.test 10.0.0.1"]),
    ],
)
async def test_everything_goes_to_the_smarthost_wherever_it_is(smarthost: str, expected: list[str]) -> None:
    zone = {"relay.test": PRIVATE, "d.test": {"MX": ["0 ."]}}
    assert await targets(zone, smarthost=smarthost) == expected


@pytest.mark.parametrize("zone", [{}, {"relay.test": {"TXT": ["x"]}}, {"relay.test": {"*": "SERVFAIL"}}])
async def test_a_smarthost_that_cannot_be_found_fails_nobody(zone: Zone) -> None:
    assert isinstance(await look_up(zone, smarthost="relay.test:25"), Deferred)


@pytest.mark.parametrize(
    "text",
    ["", "relay.test", "relay.test:", "relay.test:0", "relay.test:65536", ":25", "a b:25", "[::x]:25", "relay:२५"],
)
def test_a_smarthost_is_host_and_port(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_smarthost(text)


class _TtlResolver(FakeResolver):
    async def mx(self, name: str) -> Answer[tuple[int, str]]:
        return Answer(DnsStatus.OK, ((10, "a.test"),), ttl=100, age=70)


async def test_a_route_holds_as_long_as_the_shortest_of_its_answers() -> None:
    settings = RelaySettings(hostname="us.test")
    route = await lookup_route(_TtlResolver({"a.test": PUBLIC}), "d.test", settings, Random(1))
    assert isinstance(route, Route)
    assert route.ttl == 30


_NOT_PUBLIC = """
127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 0.0.0.0 100.64.0.1 224.0.0.1 240.0.0.1 255.255.255.255 192.0.2.1
198.18.0.1 :: ::1 fe80::1 fc00::1 fec0::1 ff02::1 2001:db8::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 2002:7f00:1::1
64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::7f00:1 192.0.0.2 192.0.0.170 192.88.99.1 3fff::1 100.127.255.254 0.1.2.3
"""


@pytest.mark.parametrize("address", _NOT_PUBLIC.split())
def test_not_of_the_public_internet(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2600::1", "2a00:1450::1", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"]
)
def test_of_the_public_internet(address: str) -> None:
    assert is_public(ip_address(address))


async def test_aliases_are_followed_as_the_dns_has_them() -> None:
    """RFC 5321 section 5.1: the domain, and the host of an MX record, which should not be one (RFC 2181 section 10.3)."""
    zone: dict[str, dict[str, list[str]]] = {
        "d.test": {"CNAME": ["e.test."]},
        "e.test": {"MX": ["10 mx.e.test."]},
        "mx.e.test": {"CNAME": ["host.e.test."]},
        "host.e.test": {"A": ["8.8.8.8"]},
        "plain.test": {"CNAME": ["host.e.test."]},
        "lost.test": {"CNAME": ["nowhere.test."]},
        "round.test": {"CNAME": ["round.test."]},
    }
    settings = RelaySettings("us.test")
    async with run_dns_server(zone_text(zone)) as dns:
        resolver = DnsResolver([dns.address], monotonic=asyncio.get_running_loop().time)
        found = {
            name: await lookup_route(resolver, f"{name}.test", settings, Random(1))
            for name in ("d", "plain", "lost", "round")
        }
    for name, host in (("d", "mx.e.test"), ("plain", "plain.test")):
        route = found[name]
        assert isinstance(route, Route)
        assert [f"{one.host} {one.address}" for one in order_targets(route, Random(1))] == [f"{host} 8.8.8.8"]
    assert enhanced(found["lost"]) == "5.1.2"
    assert isinstance(found["round"], Deferred)
