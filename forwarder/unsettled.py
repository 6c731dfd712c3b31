"""What did this process do that the store does not know? In memory, for while the store is away; docs/decisions/0018.

Without the ledger a message for one destination is delivered all the same. A sender that comes back for it, or for what the
queue may have taken with its last breath, would get a second copy of which nobody knows: so it is remembered here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from forwarder.ports import Claim

__all__ = ["MAX_UNSETTLED", "Unsettled"]

#: Fingerprints that are remembered (3 MB); the oldest is forgotten first.
MAX_UNSETTLED = 20_000


class Unsettled:
    """``DELIVERED``: the next hop has it. ``BUSY``: the queue may have it."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Claim] = OrderedDict()

    def note(self, fingerprints: Iterable[bytes], claim: Claim) -> None:
        """Remember it. What was delivered stays so."""
        for one in fingerprints:
            if self._known.get(one) is not Claim.DELIVERED:
                self._known[one] = claim
            self._known.move_to_end(one)
        while len(self._known) > MAX_UNSETTLED:
            self._known.popitem(last=False)

    def forget(self, fingerprints: Iterable[bytes]) -> None:
        """The store knows now."""
        for one in fingerprints:
            self._known.pop(one, None)

    def recall(self, fingerprint: bytes) -> Claim:
        """``FRESH``: nothing is known."""
        return self._known.get(fingerprint, Claim.FRESH)

    def correct(self, fingerprints: Sequence[bytes], claims: Sequence[Claim]) -> list[Claim]:
        """What the ledger answers, and what it has not heard yet. It does know what is in the queue."""
        if not self._known:
            return list(claims)
        corrected = []
        for fingerprint, claim in zip(fingerprints, claims, strict=True):
            delivered = self._known.get(fingerprint) is Claim.DELIVERED
            if not delivered:
                self._known.pop(fingerprint, None)
            corrected.append(Claim.DELIVERED if delivered else claim)
        return corrected
