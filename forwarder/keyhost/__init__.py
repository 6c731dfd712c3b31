"""What do other domains' mailkey hosts serve over HTTPS? ``ports.KeyHost`` (docs/mailkey.md section 4)."""

from __future__ import annotations

from forwarder.keyhost.caching import KeyHostClient
from forwarder.keyhost.settings import KeyHostSettings

__all__ = ["KeyHostClient", "KeyHostSettings"]
