"""How is a connection to the next hop protected? RFC 3207 STARTTLS, RFC 7435.

``Opportunistic`` is RFC 7435: encrypt where it is offered, whoever the peer is, and go on in clear where it fails, because an
attacker who can break the handshake could have removed the offer. ``Required`` never goes on in clear. ``Verified`` is for a
domain of which it is known what to expect: no mail without a certificate for one of ``names``.

Which of them holds for a host is said by ``forwarder.relay.rules``.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, ClassVar

__all__ = ["NoTls", "Opportunistic", "Required", "TlsPolicy", "Verified", "certificate_matches", "client_context"]


@dataclass(frozen=True, slots=True)
class NoTls:
    """In clear, whatever is offered."""

    #: No mail in clear.
    required: ClassVar[bool] = False
    #: A connection under this policy is one to the host that was meant, and to nobody in between.
    verified: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Opportunistic:
    """TLS without a check of the certificate where it works, in clear where it does not."""

    required: ClassVar[bool] = False
    verified: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Required:
    """TLS without a check of the certificate, or no delivery."""

    required: ClassVar[bool] = True
    verified: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Verified:
    """TLS with a certificate for one of ``names``, from an authority in the PEM file ``roots`` (``""``: the system's), or no
    delivery."""

    names: tuple[str, ...]
    roots: str = ""

    required: ClassVar[bool] = True
    verified: ClassVar[bool] = True


TlsPolicy = NoTls | Opportunistic | Required | Verified


def client_context(policy: TlsPolicy) -> ssl.SSLContext:
    """TLS 1.2 and up. A peer that has less gets opportunistic mail in clear, which protects about as much."""
    return _context(policy.roots if isinstance(policy, Verified) else None)


@lru_cache(maxsize=16)
def _context(roots: str | None) -> ssl.SSLContext:
    """Made once for all names: to read the system's certificates takes as long as many messages."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A certificate may do for one of several names (RFC 7672 section 3.2.2), so the names are compared here.
    context.check_hostname = False
    if roots is None:
        context.verify_mode = ssl.CERT_NONE
    elif roots:
        context.load_verify_locations(roots)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def certificate_matches(certificate: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    """Is this (``SSLObject.getpeercert()``) a certificate for one of these host names or addresses? RFC 6125 section 6.4: DNS
    names of the subjectAltName only; ``*`` stands for the whole leftmost label. RFC 9525 section 6.5: an address is itself."""
    sans = certificate.get("subjectAltName", ())
    if ({_ip(name) for name in names} & {_ip(value) for kind, value in sans if kind == "IP Address"}) - {None}:
        return True
    held = {value.lower() for kind, value in sans if kind == "DNS"}
    wanted = {name.lower().rstrip(".") for name in names if _ip(name) is None}
    return bool(held & (wanted | {f"*.{parent}" for _, dot, parent in (name.partition(".") for name in wanted) if dot}))


def _ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
