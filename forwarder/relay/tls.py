"""How is a connection to the next hop protected? RFC 3207 STARTTLS, RFC 7435.

``Opportunistic`` is RFC 7435: encrypt where it is offered, whoever the peer is, and go on in clear where it fails, because an
attacker who can break the handshake could have removed the offer. ``Required`` never goes on in clear. ``Verified`` and ``Dane``
are for a domain of which it is known what to expect: no mail without the certificate that was named.

Which of them holds for a host is said by ``forwarder.relay.rules``.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from hashlib import sha256, sha512
from typing import ClassVar

from forwarder.ports import Tlsa

__all__ = [
    "DIGESTS",
    "Dane",
    "NoTls",
    "Opportunistic",
    "Required",
    "Tested",
    "TlsPolicy",
    "Unlisted",
    "Usage",
    "Verified",
    "client_context",
    "forget_roots",
]

#: RFC 6698 section 2.1.3: the matching types that are digests, the stronger the higher.
DIGESTS = {1: sha256, 2: sha512}


class Usage(IntEnum):
    """RFC 7218 section 2.1: those of TLSA that count for mail."""

    DANE_TA = 2
    DANE_EE = 3


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


@dataclass(frozen=True, slots=True)
class Tested(Verified):
    """As ``Verified``, but what fails is only told: the domain tries its MTA-STS policy out."""

    required: ClassVar[bool] = False
    verified: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Dane:
    """TLS with a certificate that one of these TLSA records is for, or no delivery. ``base`` is the name under which they are,
    ``names`` are those that count where a record is for an authority."""

    records: tuple[Tlsa, ...]
    base: str
    names: tuple[str, ...]

    required: ClassVar[bool] = True
    verified: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Unlisted:
    """No delivery: the domain's MTA-STS policy does not name this host."""

    required: ClassVar[bool] = True
    verified: ClassVar[bool] = False


TlsPolicy = NoTls | Opportunistic | Required | Verified | Tested | Dane | Unlisted


def client_context(policy: TlsPolicy) -> ssl.SSLContext:
    """TLS 1.2 and up. A peer that has less gets opportunistic mail in clear, which protects about as much."""
    return _context(policy.roots if isinstance(policy, Verified) else None)


def forget_roots() -> None:
    """The files of trusted certificates may have changed: they are read again for the next connection."""
    _context.cache_clear()


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
