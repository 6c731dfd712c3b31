"""What did other domains promise of their TLS? ``ports.PolicyStore`` on Redis: MTA-STS policies outlive a restart.

Kind of keys (names: ``forwarder.store.records``): p  policy  the domain's, for its max_age
"""

from __future__ import annotations

import asyncio

from forwarder.ports import Journal, StsPolicy
from forwarder.store.client import Commands
from forwarder.store.ledger import RedisLedger
from forwarder.store.records import open_policy, seal_policy

__all__ = ["RedisPolicies"]


class RedisPolicies:
    """The names come from the ledger, which knows the salt."""

    def __init__(self, client: Commands, ledger: RedisLedger, *, journal: Journal) -> None:
        self._client = client
        self._ledger = ledger
        self._journal = journal

    async def look_up_policy(self, domain: str) -> tuple[StsPolicy, int] | None:
        """See ``ports.PolicyStore``. The two commands leave together."""
        names = await self._ledger.names()
        key = names.key(b"p", domain)
        value, left = await asyncio.gather(self._client.command("GET", key), self._client.command("TTL", key))
        if value is None or left < 0:
            return None
        policy = open_policy(names, key, value)
        if policy is None:
            self._journal.event("store_value_unreadable", kind="policy")
            return None
        return policy, left

    async def put_policy(self, domain: str, policy: StsPolicy) -> None:
        """See ``ports.PolicyStore``."""
        names = await self._ledger.names()
        key = names.key(b"p", domain)
        if policy.max_age > 0:
            await self._client.command("SET", key, seal_policy(names, key, policy), "EX", policy.max_age)
        else:
            await self._client.command("DEL", key)
