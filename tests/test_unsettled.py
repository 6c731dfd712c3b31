from __future__ import annotations

from forwarder import unsettled
from forwarder.ports import Claim
from forwarder.unsettled import Unsettled

ONE, TWO = b"1" * 32, b"2" * 32


def test_what_was_delivered_is_known_until_the_store_knows_it() -> None:
    it = Unsettled()
    it.note([ONE], Claim.DELIVERED)
    assert (it.recall(ONE), it.recall(TWO)) == (Claim.DELIVERED, Claim.FRESH)
    assert it.correct([ONE, TWO], [Claim.FRESH, Claim.FRESH]) == [Claim.DELIVERED, Claim.FRESH]
    it.forget([ONE])
    assert it.recall(ONE) is Claim.FRESH


def test_what_was_delivered_stays_so() -> None:
    it = Unsettled()
    it.note([ONE], Claim.DELIVERED)
    it.note([ONE], Claim.BUSY)
    assert it.recall(ONE) is Claim.DELIVERED


def test_what_the_queue_may_have_is_the_ledgers_to_tell() -> None:
    it = Unsettled()
    it.note([ONE], Claim.BUSY)
    assert it.recall(ONE) is Claim.BUSY
    assert it.correct([ONE], [Claim.FRESH]) == [Claim.FRESH]
    assert it.recall(ONE) is Claim.FRESH


def test_it_does_not_grow_with_the_outage() -> None:
    it = Unsettled()
    many = [number.to_bytes(32, "big") for number in range(unsettled.MAX_UNSETTLED + 1)]
    it.note(many, Claim.DELIVERED)
    assert (it.recall(many[0]), it.recall(many[1])) == (Claim.FRESH, Claim.DELIVERED)
