"""What goes to one next hop?"""

from __future__ import annotations

from datetime import datetime

from forwarder.model.envelope import Address, BodyKind, TlsWish
from forwarder.values import value


@value
class Notice:
    """What a next hop is asked for one recipient (RFC 3461 section 4.1, 4.2), in the form of a command; ``None``: nothing."""

    notify: str | None = None
    orcpt: str | None = None


@value
class SecondForm:
    """What a message may become where it is refused for its authentication: one from ``alias``, by an address under ``domain``.
    ``author_domain`` is whose policy it is, ``header_at`` where the sender's own header begins in ``Delivery.data[0]``.
    ``ask``: who refused such mail before is given the second form first."""

    alias: Address
    domain: str
    author_domain: str
    header_at: int
    ask: bool


@value
class Delivery:
    """One message for one next hop. ``recipients`` share the domain ``next_hop``; ``data`` are the chunks whose
    concatenation is the message (the body is one chunk, never copied). ``expires_at`` is when giving up is due.
    ``notices`` are in the order of ``recipients``, or empty where nothing is asked; with ``envid`` and ``ret`` they go to a
    next hop that offers DSN. ``second``: it may be tried in another form."""

    id: str
    sender: Address | None
    recipients: tuple[Address, ...]
    next_hop: str
    data: tuple[bytes, ...]
    expires_at: datetime
    smtputf8: bool = False
    body: BodyKind = BodyKind.EIGHT_BIT_MIME
    attempts: int = 0
    tls: TlsWish = TlsWish.NONE
    notices: tuple[Notice, ...] = ()
    envid: str | None = None
    ret: str | None = None
    second: SecondForm | None = None
