"""Which TLS policy holds for this host of this domain? What the operator decided, and what the domain publishes.

the operator named this domain, with less than TLS in any case      that: it is an exception, made on purpose
usable TLSA records                                                 a certificate that they are for
an MTA-STS policy that is enforced                                  a valid certificate, for a host that it names
the operator asks for TLS                                           that
TLSA records that cannot be used                                    TLS
else                                                                opportunistic, or none if that is the default
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from forwarder.auth.dnsname import dns_name, parent
from forwarder.ports import StsMode, StsPolicy
from forwarder.relay.tls import Dane, NoTls, Opportunistic, Required, Tested, TlsPolicy, Unlisted, Verified

__all__ = ["Level", "TlsRules", "is_listed"]


class Level(StrEnum):
    """The words of ``relay.tls``, each more than the one before."""

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    REQUIRE = "require"
    VERIFY = "verify"


#: Where the operator says so of one domain, nothing that it publishes counts: else broken records could not be got around.
_EXCEPTIONS = (Level.NONE, Level.OPPORTUNISTIC)
_NO_TLS, _OPPORTUNISTIC, _REQUIRED, _UNLISTED = NoTls(), Opportunistic(), Required(), Unlisted()


@dataclass(frozen=True, slots=True)
class TlsRules:
    """``domains`` maps a domain in A-labels, or ``.domain`` for all names below it, to what holds instead of ``default``.
    ``roots`` is a PEM file of authorities, ``""``: the system's. ``observe``: MTA-STS policies in testing are tried, to be
    reported on."""

    default: Level = Level.OPPORTUNISTIC
    domains: Mapping[str, Level] = field(default_factory=dict)
    roots: str = ""
    observe: bool = False

    def named(self, domain: str) -> Level | None:
        """What the operator says of this very domain, by its name or by the nearest parent's; ``None``: nothing."""
        name = dns_name(domain) if self.domains else None
        if name is None:
            return None
        found = self.domains.get(name)
        while found is None and (name := parent(name)):
            found = self.domains.get(f".{name}")
        return found

    def excepts(self, domain: str) -> bool:
        """Does nothing count that this domain publishes?"""
        return self.named(domain) in _EXCEPTIONS

    def policy(
        self, domain: str, host: str, dane: Dane | Required | None = None, sts: StsPolicy | None = None
    ) -> TlsPolicy:
        """For connections to the mail host ``host`` of ``domain``; ``dane`` is what its TLSA records ask for, ``sts`` what the
        domain promises."""
        named = self.named(domain)
        if named in _EXCEPTIONS:
            return _NO_TLS if named is Level.NONE else _OPPORTUNISTIC
        if isinstance(dane, Dane):
            # RFC 8461 section 2: a policy never loosens DANE.
            return dane
        if sts is not None and sts.mode is StsMode.ENFORCE:
            return Verified((host,), self.roots) if is_listed(host, sts) else _UNLISTED
        match named or self.default:
            case Level.VERIFY:
                return Verified((host,), self.roots)
            case Level.REQUIRE:
                return _REQUIRED
            case _ if dane is not None:
                return dane
            case Level.OPPORTUNISTIC:
                tried = self.observe and sts is not None and sts.mode is StsMode.TESTING
                return Tested((host,), self.roots) if tried else _OPPORTUNISTIC
            case Level.NONE:
                return _NO_TLS


def is_listed(host: str, sts: StsPolicy) -> bool:
    """RFC 8461 section 4.1: does the policy name this host? ``*`` stands for one label, the leftmost."""
    name = dns_name(host)
    return name is not None and bool({name, f"*.{parent(name)}"} & set(sts.hosts))
