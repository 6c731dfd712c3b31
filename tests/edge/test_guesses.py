"""Are guesses held against the network that made them, for an hour, and nobody else?"""

from __future__ import annotations

from ipaddress import ip_address

from forwarder.edge import guesses
from forwarder.edge.guesses import Guesses

A, B = ip_address("192.0.2.1"), ip_address("192.0.2.2")


def test_ten_are_allowed_within_an_hour() -> None:
    made = Guesses(10)
    for number in range(10):
        assert not made.exhausted(A, 100.0)
        made.note(A, float(number))
    assert made.exhausted(A, 100.0)
    assert not made.exhausted(B, 100.0)
    assert made.exhausted(A, guesses.PERIOD - 1)
    assert not made.exhausted(A, guesses.PERIOD)
    made.note(A, guesses.PERIOD)
    assert not made.exhausted(A, guesses.PERIOD)


def test_an_ipv6_client_does_not_go_on_from_its_next_address() -> None:
    made = Guesses(1)
    made.note(ip_address("2001:db8:1:2::1"), 0.0)
    assert made.exhausted(ip_address("2001:db8:1:2:ffff::9"), 1.0)
    assert not made.exhausted(ip_address("2001:db8:1:3::1"), 1.0)


def test_networks_are_bounded_and_the_quietest_goes_first() -> None:
    made = Guesses(2)
    for number in range(guesses.MAX_NETWORKS):
        made.note(ip_address(number + 1), 0.0)
    made.note(ip_address(1), 1.0)
    made.note(ip_address("203.0.113.1"), 2.0)
    assert made.exhausted(ip_address(1), 3.0)
    made.note(ip_address(2), 3.0)
    assert not made.exhausted(ip_address(2), 3.0), "it was forgotten, so this is its first"


def test_good_mail_makes_up_for_as_many_misses() -> None:
    made = Guesses(2)
    made.forgive(A)
    for _ in range(2):
        made.note(A, 0.0)
    assert made.exhausted(A, 1.0)
    assert not made.exhausted(A, 1.0, 3)
    made.forgive(A)
    assert not made.exhausted(A, 1.0)
    for _ in range(3):
        made.forgive(A)
    made.note(A, 1.0)
    assert not made.exhausted(A, 2.0), "nobody saves up"
    made.note(A, 1.0)
    assert made.exhausted(A, 2.0)


def test_whoever_has_a_whole_network_cannot_go_on_from_its_next_address() -> None:
    guesses = Guesses(10, by_site=100)
    made = 0
    for subnet in range(65536):
        ip = ip_address(int(ip_address("2001:db8:1::")) + (subnet << 64))
        if guesses.exhausted(ip, 1.0):
            break
        guesses.note(ip, 1.0)
        made += 1
    assert made == 100
    assert not guesses.exhausted(ip_address("2001:db8:2::1"), 1.0)
    assert not guesses.exhausted(ip_address("2001:db8:1:ffff::1"), 4000.0)
