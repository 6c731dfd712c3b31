from __future__ import annotations

from forwarder.store.breaker import Breaker


def test_a_closed_breaker_admits_everybody() -> None:
    breaker = Breaker(0.5)
    assert [breaker.admits(0.0), breaker.admits(0.0)] == [True, True]


def test_after_a_failure_nobody_is_admitted_until_the_pause_is_over() -> None:
    breaker = Breaker(0.5)
    breaker.failed(10.0)
    assert [breaker.admits(10.0), breaker.admits(10.49)] == [False, False]


def test_after_the_pause_one_probe_is_admitted_and_no_second_one() -> None:
    breaker = Breaker(0.5)
    breaker.failed(10.0)
    assert [breaker.admits(10.5), breaker.admits(10.5), breaker.admits(99.0)] == [True, False, False]


def test_to_ask_whether_it_refuses_sends_no_probe() -> None:
    breaker = Breaker(0.5)
    assert breaker.refuses(10.0) is False
    breaker.failed(10.0)
    assert [breaker.refuses(10.4), breaker.refuses(10.5), breaker.refuses(10.5)] == [True, False, False]
    breaker.admits(10.5)
    assert breaker.refuses(10.5) is True


def test_a_failed_probe_begins_another_pause() -> None:
    breaker = Breaker(0.5)
    breaker.failed(10.0)
    breaker.admits(10.5)
    breaker.failed(10.7)
    assert [breaker.admits(11.0), breaker.admits(11.2)] == [False, True]


def test_a_probe_that_worked_admits_everybody_again() -> None:
    breaker = Breaker(0.5)
    breaker.failed(10.0)
    breaker.admits(10.5)
    breaker.worked()
    assert [breaker.admits(10.5), breaker.admits(10.5)] == [True, True]


def test_the_beginning_and_the_end_of_an_outage_are_told_once() -> None:
    breaker = Breaker(0.5)
    assert breaker.worked() is False
    assert [breaker.failed(1.0), breaker.failed(1.1)] == [True, False]
    assert [breaker.worked(), breaker.worked()] == [True, False]
