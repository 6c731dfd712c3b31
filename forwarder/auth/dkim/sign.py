"""How does our DKIM-Signature come about? RFC 6376 section 5, relaxed/relaxed, with what matters signed once too
often."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime

from forwarder.auth.signed import Signing, Tag, open_field, select_fields, sign_field
from forwarder.model import Field
from forwarder.ports import SigningKey

__all__ = ["build_dkim_signature"]


def build_dkim_signature(
    fields: Sequence[Field],
    body_hash: bytes,
    key: SigningKey,
    *,
    now: datetime,
    headers: Sequence[bytes] | None = None,
    expires_in: int | None = None,
) -> Signing[bytes]:
    """The whole field with its CRLF, to go on top of ``fields``.

    ``body_hash`` is ``canonical.body_hash(message, "relaxed")``; ``headers`` is an h= of the caller's own;
    ``expires_in`` are seconds for x=.
    """
    selected = select_fields(fields, headers)
    time = int(now.timestamp())
    tags: list[Tag] = [
        (b"v", b"1"),
        (b"a", key.algorithm.encode()),
        (b"c", b"relaxed/relaxed"),
        (b"d", key.domain.encode()),
        (b"s", key.selector.encode()),
        (b"t", b"%d" % time),
    ]
    if expires_in is not None:
        tags.append((b"x", b"%d" % (time + expires_in)))
    tags += [(b"h", selected.names), (b"bh", b64encode(body_hash))]
    return (yield from sign_field(selected, open_field(b"DKIM-Signature", tags), key))
