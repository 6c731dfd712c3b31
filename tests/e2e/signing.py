"""How does a domain that takes part sign what it sends? With the program's own signers, so that only the lab is the test's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from forwarder.auth import canonical
from forwarder.auth.dkim import build_dkim_signature
from forwarder.auth.mailkey import build_mailkey_signature
from forwarder.auth.signed import sign_now
from forwarder.keys import Key
from forwarder.mail.address import parse_address
from forwarder.mail.header import parse_message

__all__ = ["signed"]


def signed(
    raw: bytes,
    sender: str,
    recipients: Sequence[str] = (),
    *,
    mailkey: Key | None = None,
    dkim: Sequence[Key] = (),
    now: datetime,
    lifetime: timedelta = timedelta(days=7),
) -> bytes:
    """``raw`` with signatures on top. ``sender`` may be empty; without ``recipients`` the mailkey binds none."""
    message = parse_message(raw)
    body_hash = canonical.body_hash(message, "relaxed")
    fields = [sign_now(build_dkim_signature(message.fields, body_hash, one, now=now)) for one in dkim]
    if mailkey is not None:
        ours = sign_now(
            build_mailkey_signature(
                message.fields,
                body_hash,
                mailkey,
                sender=parse_address(sender) if sender else None,
                recipients=[parse_address(one) for one in recipients],
                now=now,
                lifetime=lifetime,
            )
        )
        fields.insert(0, ours)
    return b"".join((*fields, raw))
