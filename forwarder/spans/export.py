"""How do spans get to a collector without mail waiting for it? From a thread, by the official SDK, which ``start`` imports: it is
no dependency of the program, but of "mailkey-forwarder[otel]".

What waits has a bound, and a collector that is slow or away costs mail nothing: spans that find no room, or could not be handed
over, are counted and forgotten, and ``spans.dropped`` tells how many.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forwarder.ports import Journal
from forwarder.spans.journal import Span

if TYPE_CHECKING:
    from forwarder.spans.sdk import Sender

__all__ = ["ExportSettings", "Exporter"]

#: Seconds between two looks at what was dropped.
LOOK = 10.0


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """``endpoint``: the collector's URL, to which /v1/traces is added. ``instance`` and ``version`` are ours. Seconds: ``pause``
    for others to come along, ``timeout`` for one request with all its tries, ``patience`` twice for the last spans at a stop."""

    endpoint: str
    instance: str
    version: str
    #: Spans that wait; a message has some six.
    waiting: int = 4096
    pause: float = 2.0
    timeout: float = 5.0
    patience: float = 2.0


class Exporter:
    """Of one process: ``start`` comes after the fork, since threads do not survive it."""

    def __init__(self, settings: ExportSettings, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal
        self._sender: Sender | None = None
        self._task: asyncio.Task[None] | None = None
        self._said = 0
        self._stopped = False

    @property
    def dropped(self) -> int:
        """Spans that no collector has."""
        return self._sender.dropped if self._sender is not None else 0

    @property
    def exported(self) -> int:
        """Spans that a collector has taken."""
        return self._sender.exported if self._sender is not None else 0

    def start(self) -> None:
        """Raises ImportError where the SDK is not installed."""
        from forwarder.spans.sdk import Sender  # noqa: PLC0415 - it is not installed everywhere

        self._sender = Sender(self._settings)
        self._task = asyncio.create_task(self._look())

    def tell(self, span: Span) -> None:
        """Takes some microseconds; nothing waits. Before ``start`` and after ``stop`` it is lost."""
        if self._sender is not None and not self._stopped:
            self._sender.take(span)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            self._say()

    def _say(self) -> None:
        dropped = self.dropped
        if dropped > self._said:
            self._journal.event("spans.dropped", count=dropped - self._said, endpoint=self._settings.endpoint)
            self._said = dropped

    async def stop(self) -> None:
        """Hand over what waits, for twice ``patience`` seconds and no longer. Safe to call at any time."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._sender is not None and not self._stopped:
            self._stopped = True
            await self._close(self._sender)
            self._say()

    async def _close(self, sender: Sender) -> None:
        """On a thread that nobody waits for longer: a request that is under way cannot be broken off."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            sender.close()
            with suppress(RuntimeError):  # the loop is no more
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=close, daemon=True).start()
        for step in (sender.abort, sender.give_up):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.patience):
                    await done.wait()
                    return
            step()
