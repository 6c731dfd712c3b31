"""What does the DNS say? ``ports.Resolver`` over name servers with a cache, or over a zone that somebody wrote down."""

from __future__ import annotations

from forwarder.resolver.caching import DnsResolver
from forwarder.resolver.servers import system_nameservers
from forwarder.resolver.stats import ResolverStats
from forwarder.resolver.zone import ZoneError, ZoneResolver

__all__ = ["DnsResolver", "ResolverStats", "ZoneError", "ZoneResolver", "system_nameservers"]
