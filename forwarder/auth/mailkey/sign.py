"""How does our Mailkey-Signature come about? docs/mailkey.md sections 5 to 7."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from forwarder.auth.mailkey.signature import bind_recipient
from forwarder.auth.signed import Selected, Signing, select_fields
from forwarder.auth.template import (
    BODY_HASH,
    KEPT_TEMPLATES,
    Tag,
    Template,
    base64_lines,
    encode_base64,
    fold_list,
    gap,
    gaps,
    lay_out,
)
from forwarder.mail.address import wire
from forwarder.model import Address, Field
from forwarder.ports import SigningKey

__all__ = ["LIFETIME", "build_mailkey_signature", "sign_mailkey"]

#: From t= to x=: longer than most queues hold a message, shorter than the 14 days that a verifier takes.
LIFETIME = timedelta(days=7)
#: Octets of an item of rt=, in base64.
_BINDING = 24


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
    return (
        yield from sign_mailkey(
            selected, body_hash, key, sender=sender, recipients=recipients, now=now, lifetime=lifetime
        )
    )


def sign_mailkey(
    selected: Selected,
    body_hash: bytes,
    key: SigningKey,
    *,
    sender: Address | None,
    recipients: Sequence[Address],
    now: datetime,
    lifetime: timedelta = LIFETIME,
) -> Signing[bytes]:
    """The same, over what is ``selected`` already."""
    time, expiry = b"%d" % int(now.timestamp()), b"%d" % int((now + lifetime).timestamp())
    body_hash_text = encode_base64(body_hash)
    path = base64_lines(wire(sender))
    bindings = [encode_base64(bind_recipient(time, body_hash_text, one)) for one in recipients]
    template = _template(
        key.algorithm,
        key.domain,
        key.selector,
        selected.names,
        (len(time), len(expiry)),
        tuple(map(len, path)),
        len(bindings),
    )
    before = (time, expiry, *path, *bindings, body_hash_text)
    signature = yield key, selected.octets + template.signed_form(before)
    return template.close(signature, before).raw


@lru_cache(maxsize=KEPT_TEMPLATES)
def _template(
    algorithm: str,
    domain: str,
    selector: str,
    names: bytes,
    times: tuple[int, int],
    path: tuple[int, ...],
    bindings: int,
) -> Template:
    """``times``: digits of t= and x=; ``path``: the widths of the lines of mf=; ``bindings``: how many are in rt=."""
    tags: list[Tag] = [(b"v", b"1"), (b"a", algorithm.encode()), (b"d", domain.encode())]
    if selector:
        tags.append((b"s", selector.encode()))
    tags += [(b"t", gap(times[0])), (b"x", gap(times[1])), (b"mf", gaps(path))]
    if bindings:
        tags.append((b"rt", fold_list([gap(_BINDING)] * bindings, b",")))
    return lay_out(b"Mailkey-Signature", [*tags, (b"h", names), (b"bh", gap(BODY_HASH))])
