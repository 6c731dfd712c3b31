"""How does our Mailkey-Signature come about? docs/mailkey.md sections 5 to 7."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta

from forwarder.auth.mailkey.signature import bind_recipient
from forwarder.auth.signed import (
    Signing,
    Tag,
    fold_base64,
    fold_list,
    open_field,
    select_fields,
    sign_field,
)
from forwarder.mail.address import wire
from forwarder.model import Address, Field
from forwarder.ports import SigningKey

__all__ = ["LIFETIME", "build_mailkey_signature"]

#: From t= to x=: longer than most queues hold a message, shorter than the 14 days that a verifier takes.
LIFETIME = timedelta(days=7)


def build_mailkey_signature(
    fields: Sequence[Field],
    body_hash: bytes,
    key: SigningKey,
    *,
    sender: Address | None,
    recipients: Sequence[Address],
    now: datetime,
    lifetime: timedelta = LIFETIME,
) -> Signing[bytes]:
    """The whole field with its CRLF, to go on top of ``fields``.

    ``body_hash`` is ``canonical.body_hash(message, "relaxed")``; ``recipients`` are those of one transaction and go
    into rt=, which is left out where there are none.
    """
    selected = select_fields(fields)
    time, expiry = b"%d" % int(now.timestamp()), b"%d" % int((now + lifetime).timestamp())
    body_hash_text = b64encode(body_hash)
    tags: list[Tag] = [(b"v", b"1"), (b"a", key.algorithm.encode()), (b"d", key.domain.encode())]
    if key.selector:
        tags.append((b"s", key.selector.encode()))
    tags += [(b"t", time), (b"x", expiry), (b"mf", fold_base64(b64encode(wire(sender))))]
    if recipients:
        bindings = [b64encode(bind_recipient(time, body_hash_text, one)) for one in recipients]
        tags.append((b"rt", fold_list(bindings, b",")))
    tags += [(b"h", selected.names), (b"bh", body_hash_text)]
    return (yield from sign_field(selected, open_field(b"Mailkey-Signature", tags), key))
