"""What do other domains' mailkey hosts serve over HTTPS? ``ports.KeyHost`` (docs/mailkey.md section 4)."""

from __future__ import annotations

from forwarder.keyhost.caching import KeyHostClient

__all__ = ["KeyHostClient"]
