"""What do the content filters say? ``ports.ContentFilters``: all that are configured, asked at once.

rspamd   over HTTP
milter   over Sendmail's filter protocol (``forwarder.milter``)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from forwarder.model import Address, ContentCheck, Envelope, Message

__all__ = ["Filter", "FilterFault", "Filters", "Told"]


class FilterFault(Exception):
    """It cannot be asked, or its answer is none. In words of ours."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a filter is told: ``recipients`` are the addresses that the mail was for, never where it goes."""

    envelope: Envelope
    message: Message
    recipients: Sequence[Address]


class Filter(Protocol):
    """One of them."""

    @property
    def name(self) -> str:
        """As the configuration calls it."""

    def check(self, told: Told) -> Awaitable[ContentCheck]:
        """Within its own time limits. Raises FilterFault."""

    async def aclose(self) -> None:
        """It is asked no more."""


class Filters:
    """See ``ports.ContentFilters``. Beside each filter: octets of a message beyond which it is not asked, 0: any number."""

    def __init__(self, filters: Sequence[tuple[Filter, int]]) -> None:
        self._filters = filters

    async def check(
        self, envelope: Envelope, message: Message, recipients: Sequence[Address]
    ) -> Sequence[ContentCheck]:
        """See ``ports.ContentFilters``."""
        told = Told(envelope, message, recipients)
        if len(self._filters) == 1:
            return (await _ask(*self._filters[0], told),)
        return await asyncio.gather(*(_ask(one, most, told) for one, most in self._filters))

    async def aclose(self) -> None:
        """Nobody is asked any more."""
        for one, _ in self._filters:
            await one.aclose()


async def _ask(one: Filter, most: int, told: Told) -> ContentCheck:
    if 0 < most < told.message.size:
        return ContentCheck(one.name, "too large to be asked about")
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        found = await one.check(told)
    except FilterFault as fault:
        found = ContentCheck(one.name, failure=str(fault))
    return replace(found, milliseconds=round(1000 * (loop.time() - began), 1))
