"""Which TLS policy holds for this host of this domain? What the operator decided (RFC 7435 section 4, RFC 8314 section 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from forwarder.auth.dnsname import dns_name, parent
from forwarder.relay.tls import NoTls, Opportunistic, Required, TlsPolicy, Verified

__all__ = ["Level", "TlsRules"]


class Level(StrEnum):
    """The words of ``relay.tls``, each more than the one before."""

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    REQUIRE = "require"
    VERIFY = "verify"


_OPPORTUNISTIC = Opportunistic()


@dataclass(frozen=True, slots=True)
class TlsRules:
    """``domains`` maps a domain in A-labels, or ``.domain`` for all names below it, to what holds instead of ``default``.
    ``roots`` is a PEM file of authorities, ``""``: the system's."""

    default: Level = Level.OPPORTUNISTIC
    domains: Mapping[str, Level] = field(default_factory=dict)
    roots: str = ""

    def named(self, domain: str) -> Level | None:
        """What the operator says of this very domain, by its name or by the nearest parent's; ``None``: nothing."""
        name = dns_name(domain) if self.domains else None
        if name is None:
            return None
        found = self.domains.get(name)
        while found is None and (name := parent(name)):
            found = self.domains.get(f".{name}")
        return found

    def policy(self, domain: str, host: str) -> TlsPolicy:
        """For connections to the mail host ``host`` of ``domain``."""
        match self.named(domain) or self.default:
            case Level.NONE:
                return NoTls()
            case Level.OPPORTUNISTIC:
                return _OPPORTUNISTIC
            case Level.REQUIRE:
                return Required()
            case Level.VERIFY:
                return Verified((host,), self.roots)
