"""Who refuses whose mail for its authentication? ``ports.Refusals`` on Redis.

Kind of keys (names: ``forwarder.store.records``): a  author  mark: this provider took mail of this domain only with another From
(30 days)
"""

from __future__ import annotations

from forwarder.store.client import Commands
from forwarder.store.ledger import RedisLedger
from forwarder.store.records import VERSION

__all__ = ["REFUSED_FOR", "RedisRefusals"]

#: After that the message is tried as it is once more: policies change, on both sides.
REFUSED_FOR = 30 * 86400


class RedisRefusals:
    """The names come from the ledger, which knows the salt."""

    def __init__(self, client: Commands, ledger: RedisLedger) -> None:
        self._client = client
        self._ledger = ledger

    async def was_refused(self, author_domain: str, provider: str) -> bool:
        """See ``ports.Refusals``."""
        return bool(await self._client.command("EXISTS", await self._key(author_domain, provider)))

    async def note_refusal(self, author_domain: str, provider: str) -> None:
        """See ``ports.Refusals``."""
        await self._client.command("SET", await self._key(author_domain, provider), VERSION, "EX", REFUSED_FOR)

    async def _key(self, author_domain: str, provider: str) -> bytes:
        names = await self._ledger.names()
        return names.key(b"a", author_domain.lower(), provider.lower())
