"""What came behind DATA? A message as received, never printed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import NamedTuple

from forwarder.values import value


class Field(NamedTuple):
    """One header field: ``name`` lower-cased without the colon, ``raw`` every byte of it with folds and final CRLF."""

    name: bytes
    raw: bytes

    @property
    def value(self) -> bytes:
        """The bytes behind the colon, folds and final CRLF included."""
        return self.raw[self.raw.index(b":") + 1 :]


@value(eq=False)
class Content:
    """What came behind DATA, not looked at yet: the octets up to the first empty line, that line (CRLF; ``b""`` where there is
    none), and the octets behind it. ``body_hashes`` as in ``Message``: what was hashed while it came."""

    header: bytes
    separator: bytes
    body: bytes
    body_hashes: dict[tuple[str, int | None], bytes] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> int:
        """Octets in all."""
        return len(self.header) + len(self.separator) + len(self.body)


@value(eq=False)
class Message:
    """A message as received, never printed again: ``header + separator + body`` is byte for byte what came.

    ``header`` ends with the CRLF of its last field; ``separator`` is the empty line (CRLF), or ``b""`` where the message
    ended with its header; ``fields`` are the fields of ``header`` from the top. ``body_hashes`` is filled by
    ``auth.canonical`` so that every check and every signature of this message shares one pass over the body.
    """

    header: bytes
    separator: bytes
    body: bytes
    fields: tuple[Field, ...]
    body_hashes: dict[tuple[str, int | None], bytes] = field(default_factory=dict, repr=False)
    _named: dict[bytes, list[Field]] = field(default_factory=dict, init=False, repr=False)

    @property
    def named(self) -> Mapping[bytes, Sequence[Field]]:
        """The fields of each lower-cased name, from the top."""
        return self._named or self._index()

    def all(self, name: bytes) -> Sequence[Field]:
        """Fields of this lower-cased name, from the top."""
        return (self._named or self._index()).get(name, ())

    def first(self, name: bytes) -> Field | None:
        """The topmost field of this lower-cased name."""
        found = (self._named or self._index()).get(name)
        return found[0] if found else None

    def _index(self) -> dict[bytes, list[Field]]:
        # Every check asks for a few names, of a message that is the same for all of them.
        named = self._named
        for one in self.fields:
            # Most names stand once.
            if (name := one.name) in named:
                named[name].append(one)
            else:
                named[name] = [one]
        return named

    @property
    def size(self) -> int:
        """Octets of the whole message."""
        return len(self.header) + len(self.separator) + len(self.body)
