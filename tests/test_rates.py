"""What a message takes from its rates, and what is remembered of them while the store is away or a rate is over."""

from __future__ import annotations

import pytest

from forwarder import rates as module
from forwarder.model import Address
from forwarder.ports import Charge, RateKind, RateOver
from forwarder.rates import RateMemory, Rates

ALIAS = Address("alias", "fwd.test")
NOW = 1_800_000_000.0
RATES = Rates({RateKind.ALIAS: 10}, size_unit=1000)


def alias(subject: Address | str = ALIAS, octets: int = 0, rates: Rates = RATES) -> Charge:
    return rates.charge(RateKind.ALIAS, subject, octets)


def passes(memory: RateMemory, *charges: Charge, now: float = NOW) -> bool:
    try:
        memory.take(charges, now)
    except RateOver:
        return False
    return True


@pytest.mark.parametrize(
    ("octets", "takes"), [(0, 360), (999, 360), (1000, 720), (2500, 1080), (9000, 3600), (10**9, 3600)]
)
def test_a_message_takes_more_the_larger_it_is_and_never_more_than_there_is(octets: int, takes: float) -> None:
    assert alias(octets=octets) == Charge(RateKind.ALIAS, ALIAS, takes, 3600, 360)


def test_one_message_always_fits_however_slow_the_rate_is() -> None:
    charge = alias(rates=Rates({RateKind.ALIAS: 1}, burst=60))
    assert charge.takes == charge.most == 3600
    assert passes(RateMemory(), charge)


@pytest.mark.parametrize("burst", [360, 3600, 7200])
def test_so_many_pass_at_once_as_the_burst_holds(burst: float) -> None:
    memory, charge = RateMemory(), alias(rates=Rates({RateKind.ALIAS: 10}, burst=burst))
    assert [passes(memory, charge) for _ in range(25)].count(True) == burst // 360


@pytest.mark.parametrize("per_hour", [1, 3, 7, 13, 49, 100])
def test_as_many_pass_as_the_rate_says_and_no_more(per_hour: int) -> None:
    memory, charge = RateMemory(), alias(rates=Rates({RateKind.ALIAS: per_hour}))
    assert [passes(memory, charge) for _ in range(per_hour + 5)].count(True) == per_hour


def test_what_was_taken_comes_back_with_time() -> None:
    memory = RateMemory()
    assert [passes(memory, alias()) for _ in range(11)] == [True] * 10 + [False]
    with pytest.raises(RateOver) as over:
        memory.take([alias()], NOW + 100)
    assert over.value.wait == 260
    assert passes(memory, alias(), now=NOW + 360)
    assert not passes(memory, alias(), now=NOW + 361)


def test_all_are_taken_from_or_none_and_the_longest_wait_is_told() -> None:
    memory = RateMemory()
    slow = Rates({RateKind.ALIAS: 1, RateKind.CLAIMED: 2}).charge
    assert passes(memory, slow(RateKind.ALIAS, "a"), slow(RateKind.CLAIMED, "b"))
    for _ in range(5):
        with pytest.raises(RateOver) as over:
            memory.take([slow(RateKind.CLAIMED, "b"), slow(RateKind.ALIAS, "a")], NOW)
        assert (over.value.charge.subject, over.value.wait) == ("a", 3600)
    assert passes(memory, slow(RateKind.CLAIMED, "b"))


def test_a_subject_is_one_however_it_is_spelled() -> None:
    memory, rates = RateMemory(), Rates({RateKind.ALIAS: 1})
    assert passes(memory, alias(rates=rates))
    assert not passes(memory, alias(Address("ALIAS", "fwd.test"), rates=rates))


def test_a_clock_that_was_put_back_keeps_nobody_waiting_for_longer_than_a_full_rate() -> None:
    memory = RateMemory()
    for _ in range(10):
        assert passes(memory, alias())
    with pytest.raises(RateOver) as over:
        memory.take([alias()], NOW - 10**6)
    assert over.value.wait <= 360


def test_memory_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SUBJECTS", 3)
    memory = RateMemory()
    full = Rates({RateKind.ALIAS: 1})
    for number in range(5):
        assert passes(memory, alias(f"a{number}", rates=full))
        memory.note(RateOver(alias(f"a{number}", rates=full), 60), NOW)
    assert [memory.wait(RateKind.ALIAS, f"a{number}", NOW) for number in range(5)] == [0, 0, 60, 60, 60]
    assert [passes(memory, alias(f"a{number}", rates=full)) for number in range(4, 0, -1)] == [False] * 3 + [True]


# --- what is known to be over


def test_who_is_over_is_known_until_the_smallest_message_passes() -> None:
    memory = RateMemory()
    assert memory.wait(RateKind.ALIAS, ALIAS, NOW) == 0
    memory.note(RateOver(alias(), 100), NOW)
    assert memory.wait(RateKind.ALIAS, Address("Alias", "fwd.test"), NOW + 40) == 60
    assert memory.wait(RateKind.DESTINATION, ALIAS, NOW) == 0
    assert memory.wait(RateKind.ALIAS, ALIAS, NOW + 100) == 0
    assert memory.wait(RateKind.ALIAS, ALIAS, NOW + 40) == 0, "it was forgotten"


def test_a_large_message_that_has_to_wait_keeps_no_small_one_out() -> None:
    memory = RateMemory()
    memory.note(RateOver(alias(octets=2000), 700), NOW)
    assert memory.wait(RateKind.ALIAS, ALIAS, NOW) == 0
    memory.note(RateOver(alias(octets=2000), 730), NOW)
    assert memory.wait(RateKind.ALIAS, ALIAS, NOW) == 10


def test_a_flood_is_told_once_a_second_for_each_kind() -> None:
    memory = RateMemory()
    assert memory.unsaid(RateKind.ALIAS, NOW) == 0
    assert [memory.unsaid(RateKind.ALIAS, NOW + 0.5) for _ in range(3)] == [None] * 3
    assert memory.unsaid(RateKind.NETWORK, NOW + 0.5) == 0
    assert memory.unsaid(RateKind.ALIAS, NOW + 1) == 3
