"""Which key signs for a domain? ``ports.KeyRing``, with the keys that wait beside those in use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from forwarder.keys.files import (
    LEAST_DKIM_BITS,
    LEAST_MAILKEY_BITS,
    Key,
    KeyFile,
    KeyFileError,
    LegacyFile,
    canonical_domain,
    load_key,
    load_legacy,
    load_secrets,
)
from forwarder.keys.staged import find_staged
from forwarder.ports import Legacy

__all__ = ["Keys", "Slot"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Slot:
    """One signature that is made: by the first of ``keys`` that may be used. ``kind`` is "mailkey" or "dkim" (ARC's too).
    ``configured`` are those of the configuration; ``keys`` begins with the one staged last."""

    kind: str
    configured: tuple[Key, ...]
    keys: tuple[Key, ...]

    def signer(self, unusable: frozenset[Key]) -> Key | None:
        """``None``: mail leaves without this signature."""
        for one in self.keys:
            if one not in unusable:
                return one
        return None

    def take_up(self) -> tuple[Slot, tuple[Key, ...], tuple[KeyFileError, ...]]:
        """With the keys that are staged in files now; which of them are new; and why some cannot be used (yet)."""
        known = {one.path: one for one in self.keys}
        least = LEAST_MAILKEY_BITS if self.kind == "mailkey" else LEAST_DKIM_BITS
        keys: list[Key] = []
        new: list[Key] = []
        faults: list[KeyFileError] = []
        for base in self.configured:
            for file in find_staged(base.path, base.domain) if base.path is not None else ():
                try:
                    key = known.get(file.path) or load_key(file, least_bits=least)
                except KeyFileError as fault:
                    faults.append(fault)
                    continue
                keys.append(key)
                if file.path not in known:
                    new.append(key)
            keys.append(base)
        return replace(self, keys=tuple(keys)), tuple(new), tuple(faults)


class Keys:
    """``ports.KeyRing``. ``load`` makes one from files. ``slots`` and ``unusable`` are replaced, never changed in place:
    a message that is being signed keeps the key it was given."""

    def __init__(
        self,
        mailkey: Iterable[Key],
        dkim: Iterable[Key],
        arc: Key | None,
        srs_secrets: Sequence[bytes],
        srs_legacies: Sequence[Legacy] = (),
    ) -> None:
        # Several mailkeys of one domain: the first signs.
        slots = [Slot("mailkey", tuple(keys), tuple(keys)) for keys in _by_domain(mailkey).values()]
        slots += [Slot("dkim", (key,), (key,)) for key in dkim]
        self._has_arc = arc is not None
        if arc is not None:
            slots.append(Slot("dkim", (arc,), (arc,)))
        self._srs_secrets = tuple(srs_secrets)
        self._srs_legacies = tuple(srs_legacies)
        if not self._srs_secrets:
            raise ValueError("no SRS secret")
        self.unusable: frozenset[Key] = frozenset()
        self.replace_slots(slots)

    @classmethod
    def load(
        cls,
        *,
        srs_secret_file: Path,
        mailkey: Iterable[KeyFile] = (),
        dkim: Iterable[KeyFile] = (),
        arc: KeyFile | None = None,
        srs_legacies: Iterable[LegacyFile] = (),
    ) -> Keys:
        """Read and try every file. Raises KeyFileError for the first that cannot be used."""
        return cls(
            [load_key(one, least_bits=LEAST_MAILKEY_BITS) for one in mailkey],
            [load_key(one) for one in dkim],
            None if arc is None else load_key(arc),
            load_secrets(srs_secret_file),
            [load_legacy(one) for one in srs_legacies],
        )

    def content(self) -> tuple[object, ...]:
        """What was configured, to be compared: equal content signs alike."""
        slots = [(one.kind, tuple(map(_identity, one.configured))) for one in self._slots]
        return (*slots, self._has_arc, self._srs_secrets, self._srs_legacies)

    def forget_nothing(self, before: Keys) -> None:
        """Keys that ``before`` has put away are not used here either, until the DNS was asked again."""
        away = {_identity(one) for one in before.unusable}
        self.unusable |= {key for slot in self._slots for key in slot.keys if _identity(key) in away}

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every signature that may be made."""
        return self._slots

    def replace_slots(self, slots: Sequence[Slot]) -> None:
        """The same signatures, with other keys waiting."""
        self._slots = tuple(slots)
        self._mailkey = {one.configured[0].domain: one for one in slots if one.kind == "mailkey"}
        others = [one for one in slots if one.kind == "dkim"]
        self._arc = others.pop() if self._has_arc else None
        self._dkim: dict[str, list[Slot]] = {}
        for slot in sorted(others, key=lambda one: one.configured[0].algorithm != "rsa-sha256"):
            self._dkim.setdefault(slot.configured[0].domain, []).append(slot)

    def mailkey(self, domain: str) -> Key | None:
        """See ``ports.KeyRing``."""
        slot = _nearest(self._mailkey, domain)
        return slot.signer(self.unusable) if slot is not None else None

    def mailkeys(self) -> tuple[Key, ...]:
        """Every mailkey that is held, those that do not sign (yet, or any more) too."""
        return tuple(key for slot in self._slots if slot.kind == "mailkey" for key in slot.keys)

    def dkim(self, domain: str) -> Sequence[Key]:
        """See ``ports.KeyRing``. Keys of the nearest parent sign where the domain has none: relaxed alignment holds."""
        slots = _nearest(self._dkim, domain) or ()
        return [key for slot in slots if (key := slot.signer(self.unusable)) is not None]

    def arc(self) -> Key | None:
        """See ``ports.KeyRing``."""
        return self._arc.signer(self.unusable) if self._arc is not None else None

    def srs_secrets(self) -> Sequence[bytes]:
        """See ``ports.KeyRing``."""
        return self._srs_secrets

    def srs_legacies(self) -> Sequence[Legacy]:
        """See ``ports.KeyRing``."""
        return self._srs_legacies


def _identity(key: Key) -> tuple[str, str, Path | None, bytes]:
    return key.domain, key.selector, key.path, key.public()


def _by_domain(keys: Iterable[Key]) -> dict[str, list[Key]]:
    found: dict[str, list[Key]] = {}
    for key in keys:
        found.setdefault(key.domain, []).append(key)
    return found


def _nearest(table: Mapping[str, T], domain: str) -> T | None:
    name = canonical_domain(domain)
    while name:
        if name in table:
            return table[name]
        name = name.partition(".")[2]
    return None
