"""Who sends what to whom? One SMTP transaction as the client stated it."""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

from forwarder.model.callers import Caller
from forwarder.values import value


@value(order=True)
class Address:
    """A mailbox as it stands in an SMTP path (RFC 5321 section 4.1.2), without the angle brackets.

    ``local`` is the wire form: a quoted string keeps its quotes and its case. ``domain`` is lower-cased; it is A-labels,
    U-labels (SMTPUTF8) or an address literal with its brackets. The null sender is ``None`` where an ``Address | None``
    is asked for, never an ``Address`` with empty parts.
    """

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"


@value
class Tls:
    """The TLS session of a peer: protocol and cipher as OpenSSL names them (``TLSv1.3``, ``TLS_AES_256_GCM_SHA384``)."""

    version: str
    cipher: str


@value
class Peer:
    """The client at the other end. ``helo`` is what it called itself: syntactically checked, never believed. ``named``: it was
    one; else this is the client's address. ``ip_text`` is ``str(ip)``, which each of its messages wants three times."""

    ip: IPv4Address | IPv6Address
    helo: str
    esmtp: bool = True
    tls: Tls | None = None
    named: bool = True
    ip_text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ip_text", str(self.ip))


@value
class Identity:
    """A client of a submission listener whom we know: by ``login``, or by its network (``authenticated`` is false then, and
    ``name`` the network). ``owns`` are the senders it may use: ``example.org``, ``*.example.org`` (every subdomain, not the
    domain itself) or ``bob@example.org``, in the form of ``ownership.canonical_owner``."""

    name: str
    owns: frozenset[str]
    null_sender: bool = False
    authenticated: bool = True


class BodyKind(StrEnum):
    """RFC 6152 / RFC 3030 BODY= parameter."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"


class TlsWish(StrEnum):
    """RFC 8689: what the sender asks of every hop. ``REQUIRED``: protection against whoever is in between, or no delivery;
    ``INDIFFERENT``: delivery, whatever protection the destination or the operator asks for."""

    NONE = ""
    REQUIRED = "required"
    INDIFFERENT = "indifferent"


@value
class Recipient:
    """One RCPT TO with its RFC 3461 parameters, case and xtext kept as received; ``None`` when the client gave none."""

    address: Address
    notify: str | None = None
    orcpt: str | None = None


@value
class Envelope:
    """One SMTP transaction as the client stated it. ``sender`` is ``None`` for the null reverse-path ``<>``. ``identity`` is
    who submits it; ``None``: nobody we know (port 25). ``require_tls`` is MAIL's REQUIRETLS (RFC 8689). ``caller`` is what was
    found out about the client; ``None``: nobody was asked."""

    id: str
    peer: Peer
    sender: Address | None
    recipients: tuple[Recipient, ...]
    received_at: datetime
    smtputf8: bool = False
    body: BodyKind = BodyKind.SEVEN_BIT
    envid: str | None = None
    ret: str | None = None
    identity: Identity | None = None
    require_tls: bool = False
    caller: Caller | None = None

    def recipient(self, address: Address) -> Recipient | None:
        """The RCPT TO that named this address, letter for letter."""
        for one in self.recipients:
            if one.address == address:
                return one
        return None
