"""Has this client come back? ``ports.Greylist`` on Redis.

Kinds of keys (names: ``forwarder.store.records``):

    h  heard  when a network first offered mail from a sender for an alias, by the store's clock (``window``)
    k  known  mark: it came back, so it is a mail server (``keep`` from the last message on)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from forwarder.model import Address
from forwarder.ports import ComeBack
from forwarder.store.client import Commands, load_script
from forwarder.store.ledger import RedisLedger

__all__ = ["RedisGreylist"]

_GREYLIST = load_script("greylist")
_SECOND = 1_000_000


class RedisGreylist:
    """The names come from the ledger, which knows the salt."""

    def __init__(self, client: Commands, ledger: RedisLedger) -> None:
        self._client = client
        self._ledger = ledger

    async def wait(self, network: str, sender: Address | None, aliases: Sequence[Address], rule: ComeBack) -> float:
        """See ``ports.Greylist``."""
        names = await self._ledger.names()
        who = str(sender).lower() if sender is not None else ""
        heard = dict.fromkeys(names.key(b"h", network, who, str(one).lower()) for one in aliases)
        arguments = (int(rule.delay * _SECOND), math.ceil(rule.window), math.ceil(rule.keep))
        left = await self._client.run(_GREYLIST, [names.key(b"k", network), *heard], arguments)
        return float(left) / _SECOND
