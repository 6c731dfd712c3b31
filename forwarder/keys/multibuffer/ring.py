"""Which keys have their signatures made together? ``ports.KeyRing``, with the RSA keys of each size behind one queue."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from forwarder.keys.files import Key
from forwarder.keys.multibuffer.library import LaneKey, Lanes
from forwarder.keys.multibuffer.waiting import Waiting, agree, find_least
from forwarder.keys.ring import Keys
from forwarder.ports import Journal, Legacy, SigningKey

__all__ = ["MultibufferKeys"]


class _TogetherKey:
    """``ports.SigningKey``."""

    def __init__(self, key: Key, lane_key: LaneKey, waiting: Waiting) -> None:
        self.domain = key.domain
        self.selector = key.selector
        self.algorithm = key.algorithm
        self.sign = key.sign
        self._lane_key = lane_key
        self._waiting = waiting

    async def signature(self, data: bytes) -> bytes:
        """See ``ports.SigningKey``."""
        return await self._waiting.signature(self._lane_key, self.sign, data)


class MultibufferKeys:
    """A key is tried with the library when it first signs (1 ms, and 5 for the first of its size), one of them at once, so that
    the journal tells at the start. Needs a running loop when something is signed."""

    def __init__(self, keys: Keys, lanes: Lanes, journal: Journal) -> None:
        self._keys = keys
        self._lanes = lanes
        self._journal = journal
        self._known: dict[Key, SigningKey] = {}
        #: By the size of keys in bits; ``None``: made one by one.
        self._waiting: dict[int, Waiting | None] = {}

        rsa = (key for slot in keys.slots for key in slot.keys if isinstance(key.private, RSAPrivateKey))
        if (first := next(rsa, None)) is not None:
            self._together(first)

    def _together(self, key: Key) -> SigningKey:
        known = self._known.get(key)
        if known is None:
            known = self._behind_queue(key) or key
            # A rotation brings new keys; those that are gone are forgotten with it.
            still = {one for slot in self._keys.slots for one in slot.keys}
            self._known = {one: signer for one, signer in self._known.items() if one in still} | {key: known}
        return known

    def _behind_queue(self, key: Key) -> SigningKey | None:
        if self._lanes.failed or not isinstance(key.private, RSAPrivateKey):
            return None
        try:
            lane_key = LaneKey(key.private)
            if not agree(self._lanes, lane_key, key.sign):
                raise ValueError("the library's signatures with it are not valid")
        except ValueError as error:
            self._journal.event("multibuffer.not_for", domain=key.domain, selector=key.selector, reason=str(error))
            return None
        if lane_key.bits not in self._waiting:
            self._waiting[lane_key.bits] = self._queue_for(key, lane_key)
        waiting = self._waiting[lane_key.bits]
        return _TogetherKey(key, lane_key, waiting) if waiting is not None else None

    def _queue_for(self, key: Key, lane_key: LaneKey) -> Waiting | None:
        least = find_least(self._lanes, lane_key, key.sign)
        self._journal.event("multibuffer.ready", bits=lane_key.bits, together_from=least)
        return Waiting(self._lanes, lane_key.bits, least, self._journal) if least is not None else None

    def mailkey(self, domain: str) -> SigningKey | None:
        """See ``ports.KeyRing``."""
        key = self._keys.mailkey(domain)
        return None if key is None else self._together(key)

    def dkim(self, domain: str) -> Sequence[SigningKey]:
        """See ``ports.KeyRing``."""
        return [self._together(key) for key in self._keys.dkim(domain)]

    def arc(self) -> SigningKey | None:
        """See ``ports.KeyRing``."""
        key = self._keys.arc()
        return None if key is None else self._together(key)

    def srs_secrets(self) -> Sequence[bytes]:
        """See ``ports.KeyRing``."""
        return self._keys.srs_secrets()

    def srs_legacies(self) -> Sequence[Legacy]:
        """See ``ports.KeyRing``."""
        return self._keys.srs_legacies()
