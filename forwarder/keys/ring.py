"""Which key signs for a domain? ``ports.KeyRing``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from forwarder.keys.files import LEAST_MAILKEY_BITS, Key, KeyFile, canonical_domain, load_key, load_secrets

__all__ = ["Keys"]

T = TypeVar("T")


class Keys:
    """``ports.KeyRing``. ``load`` makes one from files."""

    def __init__(
        self, mailkey: Iterable[Key], dkim: Iterable[Key], arc: Key | None, srs_secrets: Sequence[bytes]
    ) -> None:
        self._mailkeys = tuple(mailkey)
        # Several mailkeys of one domain are a rotation: the first signs.
        self._mailkey = {domain: keys[0] for domain, keys in _by_domain(self._mailkeys).items()}
        self._dkim = {
            domain: sorted(keys, key=lambda one: one.algorithm != "rsa-sha256")
            for domain, keys in _by_domain(dkim).items()
        }
        self._arc = arc
        self._srs_secrets = tuple(srs_secrets)
        if not self._srs_secrets:
            raise ValueError("no SRS secret")

    @classmethod
    def load(
        cls,
        *,
        srs_secret_file: Path,
        mailkey: Iterable[KeyFile] = (),
        dkim: Iterable[KeyFile] = (),
        arc: KeyFile | None = None,
    ) -> Keys:
        """Read and try every file. Raises KeyFileError for the first that cannot be used."""
        return cls(
            [load_key(one, least_bits=LEAST_MAILKEY_BITS) for one in mailkey],
            [load_key(one) for one in dkim],
            None if arc is None else load_key(arc),
            load_secrets(srs_secret_file),
        )

    def mailkey(self, domain: str) -> Key | None:
        """See ``ports.KeyRing``."""
        return _nearest(self._mailkey, domain)

    def mailkeys(self) -> tuple[Key, ...]:
        """Every mailkey that is held, those that do not sign (yet, or any more) too."""
        return self._mailkeys

    def dkim(self, domain: str) -> Sequence[Key]:
        """See ``ports.KeyRing``. Keys of the nearest parent sign where the domain has none: relaxed alignment holds."""
        return _nearest(self._dkim, domain) or ()

    def arc(self) -> Key | None:
        """See ``ports.KeyRing``."""
        return self._arc

    def srs_secrets(self) -> Sequence[bytes]:
        """See ``ports.KeyRing``."""
        return self._srs_secrets


def _by_domain(keys: Iterable[Key]) -> dict[str, list[Key]]:
    found: dict[str, list[Key]] = {}
    for key in keys:
        found.setdefault(canonical_domain(key.domain), []).append(key)
    return found


def _nearest(table: Mapping[str, T], domain: str) -> T | None:
    name = canonical_domain(domain)
    while name:
        if name in table:
            return table[name]
        name = name.partition(".")[2]
    return None
