"""Which TLS do other domains promise over HTTPS? ``ports.StsPolicies`` (MTA-STS, RFC 8461)."""

from __future__ import annotations

from forwarder.mtasts.caching import StsClient

__all__ = ["StsClient"]
