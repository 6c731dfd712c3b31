"""How does a report of ours leave? With the null sender, signed, and as the queue keeps it. RFC 5321 section 4.5.5."""

from __future__ import annotations

from forwarder import seal
from forwarder.auth.signed import sign_now
from forwarder.model import Address, Delivery, Envelope, TlsWish
from forwarder.pipeline.doors import Doors, Settings
from forwarder.ports import Held, Waiting

__all__ = ["seal_report"]


def seal_report(
    raw: bytes,
    to: Address,
    cause: Envelope,
    *,
    id: str,  # noqa: A002 - what Held calls it
    srs_domain: str,
    settings: Settings,
    doors: Doors,
    fingerprint: bytes = b"",
) -> Held:
    """``raw`` is the whole report; ``cause`` the transaction that it is about; the same ``id`` is the same report, and so is
    the same ``fingerprint`` in the ledger. Nobody hears of its failure (RFC 5321 section 6.1)."""
    now = doors.clock.now()
    data = sign_now(
        seal.seal_own(
            raw,
            (to,),
            srs_domain=srs_domain,
            names=settings.names,
            keys=doors.keys,
            now=now,
            bind=settings.bind_recipients,
        )
    )
    delivery = Delivery(
        id=id,
        sender=None,
        recipients=(to,),
        next_hop=to.domain,
        data=data,
        expires_at=now + settings.lifetime,
        smtputf8=not (to.local.isascii() and to.domain.isascii()),
        # RFC 8689 section 5: what is told of such a message is protected like it.
        tls=TlsWish.REQUIRED if cause.require_tls else TlsWish.NONE,
    )
    return Held(
        id=id,
        delivery=delivery,
        waiting=(Waiting(to, fingerprint, None),),
        envelope=cause,
        report_to=None,
        srs_domain=srs_domain,
        header_at=0,
        queued_at=now,
    )
