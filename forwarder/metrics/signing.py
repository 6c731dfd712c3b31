"""How many signatures of which kind? ``ports.KeyRing`` with a count behind each key."""

from __future__ import annotations

from collections.abc import Sequence

from forwarder.metrics.tally import Ticks
from forwarder.ports import KeyRing, Legacy, SigningKey

__all__ = ["CountedKeys"]

#: Keys that are known; rotations bring new ones.
_MAX_KNOWN = 1000


class _CountedKey:
    """``ports.SigningKey``. Signing may happen on any thread."""

    def __init__(self, key: SigningKey, count: Ticks) -> None:
        self.domain = key.domain
        self.selector = key.selector
        self.algorithm = key.algorithm
        self._sign = key.sign
        self._signature = key.signature
        self._count = count

    def sign(self, data: bytes) -> bytes:
        """See ``ports.SigningKey``."""
        self._count.tick()
        return self._sign(data)

    async def signature(self, data: bytes) -> bytes:
        """See ``ports.SigningKey``."""
        self._count.tick()
        return await self._signature(data)


class CountedKeys:
    """``counts`` is shared with the rings before and after a reload: (kind, algorithm) → signatures."""

    def __init__(self, keys: KeyRing, counts: dict[tuple[str, str], Ticks]) -> None:
        self._keys = keys
        self._counts = counts
        self._known: dict[tuple[str, SigningKey], _CountedKey] = {}

    def _counted(self, kind: str, key: SigningKey) -> _CountedKey:
        counted = self._known.get((kind, key))
        if counted is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            count = self._counts.setdefault((kind, key.algorithm), Ticks())
            counted = self._known[kind, key] = _CountedKey(key, count)
        return counted

    def mailkey(self, domain: str) -> SigningKey | None:
        """See ``ports.KeyRing``."""
        key = self._keys.mailkey(domain)
        return None if key is None else self._counted("mailkey", key)

    def dkim(self, domain: str) -> Sequence[SigningKey]:
        """See ``ports.KeyRing``."""
        return [self._counted("dkim", key) for key in self._keys.dkim(domain)]

    def arc(self) -> SigningKey | None:
        """See ``ports.KeyRing``."""
        key = self._keys.arc()
        return None if key is None else self._counted("arc", key)

    def srs_secrets(self) -> Sequence[bytes]:
        """See ``ports.KeyRing``."""
        return self._keys.srs_secrets()

    def srs_legacies(self) -> Sequence[Legacy]:
        """See ``ports.KeyRing``."""
        return self._keys.srs_legacies()
