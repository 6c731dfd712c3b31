"""How does our DKIM-Signature come about? RFC 6376 section 5, relaxed/relaxed, with what matters signed once too
often."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from forwarder.auth.signed import Selected, Signing, select_fields
from forwarder.auth.template import BODY_HASH, KEPT_TEMPLATES, Tag, Template, Written, encode_base64, gap, lay_out
from forwarder.model import Field
from forwarder.ports import SigningKey

__all__ = ["build_dkim_signature", "sign_dkim"]


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
    made = yield from sign_dkim(selected, body_hash, key, now=now, expires_in=expires_in)
    return made.raw


def sign_dkim(
    selected: Selected, body_hash: bytes, key: SigningKey, *, now: datetime, expires_in: int | None = None
) -> Signing[Written]:
    """The same, over what is ``selected`` already."""
    time = int(now.timestamp())
    times = (b"%d" % time,) if expires_in is None else (b"%d" % time, b"%d" % (time + expires_in))
    template = _template(key.algorithm, key.domain, key.selector, selected.names, *map(len, times))
    before = (*times, encode_base64(body_hash))
    # A SigningKey hashes by itself, so it gets the octets and not their digest.
    signature = yield key, selected.octets + template.signed_form(before)
    return template.close(signature, before)


@lru_cache(maxsize=KEPT_TEMPLATES)
def _template(algorithm: str, domain: str, selector: str, names: bytes, time: int, expiry: int = 0) -> Template:
    """``time`` and ``expiry``: digits; no expiry is 0."""
    tags: list[Tag] = [
        (b"v", b"1"),
        (b"a", algorithm.encode()),
        (b"c", b"relaxed/relaxed"),
        (b"d", domain.encode()),
        (b"s", selector.encode()),
        (b"t", gap(time)),
    ]
    if expiry:
        tags.append((b"x", gap(expiry)))
    return lay_out(b"DKIM-Signature", [*tags, (b"h", names), (b"bh", gap(BODY_HASH))])
