"""When did each key last sign? A small file, so that a restart goes on where the service was and an old record is kept
long enough."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path

from forwarder.auth.mailkey.sign import LIFETIME
from forwarder.keys.files import Key
from forwarder.keys.records import record_name
from forwarder.keys.ring import Slot

__all__ = ["KEEP", "Role", "Usage", "roles"]

#: How long after its last signature a key's record has to stay. A mailkey signature ends after LIFETIME; a day for clocks
#: and for what one check was late. A DKIM signature has no end of ours: a queue holds a message for 5 days, the next
#: forwarder's another 5, and some readers check when they open the message.
KEEP = {"mailkey": LIFETIME + timedelta(days=1), "dkim": timedelta(days=14)}
#: Octets of the file that are read.
_MAX_FILE = 1 << 20


class Role(Enum):
    """What a key is for now."""

    STAGED = "staged"
    IN_USE = "in use"
    RETIRING = "retiring"
    RETIRED = "retired"


class Usage:
    """Record name of a key → the last time that it was the one to sign. A file that is missing or damaged is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = _read(path)

    def last(self, kind: str, key: Key) -> datetime | None:
        """``None``: it never signed, as far as is known."""
        return self._last.get(record_name(kind, key))

    def note(self, kind: str, key: Key, now: datetime) -> None:
        """It may have signed until now. Counts on disk after ``save``."""
        self._last[record_name(kind, key)] = now

    def save(self) -> None:
        """Whole or not at all. What other processes have noted since is kept. Raises OSError."""
        for name, at in _read(self._path).items():
            self._last[name] = max(at, self._last.get(name, at))
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        text = json.dumps({name: int(at.timestamp()) for name, at in sorted(self._last.items())}, indent=1)
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)


def _read(path: Path) -> dict[str, datetime]:
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_FILE))
        return {str(name): datetime.fromtimestamp(int(at), UTC) for name, at in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}


def roles(slot: Slot, usage: Usage, now: datetime) -> list[tuple[Key, Role, datetime | None]]:
    """Each key of the slot, what it is for, and from when the record of an old one may go (``None``: not to be said)."""
    last = {key: usage.last(slot.kind, key) for key in slot.keys}
    used = [key for key in slot.keys if last[key] is not None]
    # The newest wins a tie: both signed until the check that switched.
    current = max(used, key=lambda one: last[one] or now, default=slot.configured[0])
    at = slot.keys.index(current)
    found: list[tuple[Key, Role, datetime | None]] = []
    for number, key in enumerate(slot.keys):
        signed = last[key]
        if number < at:
            found.append((key, Role.STAGED, None))
        elif number == at:
            found.append((key, Role.IN_USE, None))
        elif signed is None:
            found.append((key, Role.RETIRED, None))
        else:
            until = signed + KEEP[slot.kind]
            found.append((key, Role.RETIRING if now < until else Role.RETIRED, until))
    return found
