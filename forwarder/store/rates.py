"""How much of it was there lately? What a claim takes from rates, for ``scripts/rates.lua``: names and microseconds.

    w  rate  when all that was taken has come back, by the store's clock (until then)      claim

There is no trip of its own: the ledger's claim takes from the rates in the same script, so that all processes and hosts of one
store count together, and a message that is over a rate claims nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from forwarder.ports import Charge
from forwarder.store.records import Names

__all__ = ["SECOND", "rate_keys", "to_take"]

#: In the store's units.
SECOND = 1_000_000


def rate_keys(names: Names, charges: Sequence[Charge]) -> list[bytes]:
    """However a subject is spelled, it is one."""
    return [names.key(b"w", one.kind, str(one.subject).lower()) for one in charges]


def to_take(charges: Sequence[Charge]) -> list[int]:
    """Of each what it takes and the most. Rounded down: as many messages as the operator wrote fit."""
    return [part for one in charges for part in (max(1, int(one.takes * SECOND)), int(one.most * SECOND))]
