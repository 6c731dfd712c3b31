"""What has arrived, how often, and was each further copy on record? The books of the destination."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from forwarder.app import StartError, open_state
from forwarder.config import load
from tests.fakes import MemoryJournal
from tests.peers.smtp_sink import Received

#: Seconds between two looks at the queue.
PAUSE = 0.3

_NAME = re.compile(rb"^Message-ID: <(\S+)@sender\.test>\r$", re.MULTILINE)
#: Of our own Received, the first in the message: the attempt that made this copy.
_ID = re.compile(rb"^Received: [^;]*? id ([^\s;]+)", re.MULTILINE | re.DOTALL)


class Running(Protocol):
    """A service whose log can be asked: a process (service.py) or the lab's (tests/e2e/lab.py)."""

    folder: Path

    def events(self, name: str) -> list[dict[str, Any]]: ...


def name_of(data: bytes) -> str:
    """Of a message, or of that which a report is about."""
    found = _NAME.search(data)
    assert found is not None
    return found[1].decode()


def count(messages: Iterable[Received]) -> Counter[str]:
    """How often each has arrived."""
    return Counter(name_of(one.data) for one in messages)


def on_record(it: Running) -> set[str]:
    """Attempts of which the log says that they may make a further copy, or that somebody has to look whether they did."""
    names = ("claim.again", "claim.taken_over", "queue.taken_over", "queue.dead")
    return {one["id"] for name in names for one in it.events(name)}


def unflagged(it: Running, messages: Iterable[Received]) -> set[str]:
    """Messages with more than one copy, none of which is of an attempt on record."""
    flagged = on_record(it)
    attempts = defaultdict(list)
    for one in messages:
        found = _ID.search(one.data)
        assert found is not None
        attempts[name_of(one.data)].append(found[1].decode())
    return {name for name, ids in attempts.items() if len(ids) > 1 and not flagged.intersection(ids)}


async def settled(it: Running, seconds: float = 60) -> None:
    """Until the queue is empty: then no further copy can come. A store that is away for a moment does not say."""
    for _ in range(int(seconds / PAUSE)):
        with suppress(StartError):
            if not await waiting(it):
                return
        await asyncio.sleep(PAUSE)
    raise AssertionError("the queue does not become empty")


async def dead_letters(it: Running) -> list[str]:
    """The messages that an operator has to look at."""
    async with open_state(load(it.folder / "forwarder.toml"), MemoryJournal()) as state:
        letters = [await state.queue.read(one.id) async for one in state.queue.list(dead=True)]
    return [name_of(b"".join(one.delivery.data)) for one in letters if one is not None]


async def waiting(it: Running) -> int:
    """How many deliveries are in the queue, dead letters aside."""
    async with open_state(load(it.folder / "forwarder.toml"), MemoryJournal()) as state:
        return len([one async for one in state.queue.list() if one.dead is None])
