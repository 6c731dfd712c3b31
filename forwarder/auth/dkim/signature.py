"""What does a DKIM-Signature or an ARC-Message-Signature field claim? RFC 6376 section 3.5, RFC 8617 section 4.1.2."""

from __future__ import annotations

import re

from forwarder.auth.canonical import Form
from forwarder.auth.dnsname import dns_name
from forwarder.auth.tags import (
    TagError,
    parse_base64,
    parse_domain,
    parse_names,
    parse_number,
    required,
    without_space,
)
from forwarder.values import value

__all__ = ["ALGORITHMS", "Signature", "parse_forms", "parse_signature"]

#: RFC 8301 section 3.1, RFC 8463 section 3. rsa-sha1 is not one of them: it must not count as signed.
ALGORITHMS = {b"rsa-sha256": "rsa", b"ed25519-sha256": "ed25519"}

_EACH: tuple[Form, Form] = ("simple", "relaxed")
#: By what c= says. RFC 6376 section 3.5: without its second half it means simple for the body.
_FORMS: dict[bytes, tuple[Form, Form]] = {
    **{f"{header}/{body}".encode(): (header, body) for header in _EACH for body in _EACH},
    **{f"{header}{end}".encode(): (header, "simple") for header in _EACH for end in ("", "/")},
}
# RFC 6376 section 3.5: up to 76 digits.
_LENGTH = re.compile(rb"[0-9]{1,76}\Z")
# RFC 6376 section 3.5: an expiry of more than 12 digits may be taken as never.
_NEVER = re.compile(rb"[0-9]{13,}\Z")
_QUOTED_OCTET = re.compile(rb"=([0-9A-F]{2})")


@value
class Signature:
    """The claims, syntax checked. ``key_kind`` is the ``k=`` that the algorithm needs; ``identity`` the text of
    ``i=``."""

    algorithm: str
    key_kind: str
    value: bytes
    body_hash: bytes
    header_form: Form
    body_form: Form
    domain: str
    selector: str
    names: tuple[bytes, ...]
    length: int | None
    signed_at: int | None
    expires_at: int | None
    identity: str
    identity_domain: str

    @property
    def key_name(self) -> str:
        """The DNS name of the key record (RFC 6376 section 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"


def parse_signature(
    tags: dict[bytes, bytes], *, default_forms: bytes = b"simple/simple", identity_tag: bytes | None = None
) -> Signature:
    """The tags that DKIM and ARC share: all but ``v=`` and ``i=``. Raises TagError.

    ``default_forms`` is what a missing c= means (RFC 6376 section 3.5 for DKIM, while ARC has its own),
    ``identity_tag`` the i= of DKIM, which is something else in ARC.
    """
    algorithm = required(tags, b"a")
    if algorithm == b"rsa-sha1":
        # RFC 8301 section 3.1
        raise TagError("rsa-sha1 is not accepted")
    if algorithm not in ALGORITHMS:
        raise TagError("unknown a=")
    domain = parse_domain(tags, b"d")
    header_form, body_form = parse_forms(tags.get(b"c", default_forms))
    signed_at, expires_at = parse_number(tags, b"t"), _parse_expiry(tags)
    if signed_at is not None and expires_at is not None and expires_at <= signed_at:
        # RFC 6376 section 3.5
        raise TagError("x= is not after t=")
    # RFC 6376 section 3.5: of several query methods one that is known will do.
    if b"q" in tags and b"dns/txt" not in without_space(tags[b"q"]).split(b":"):
        raise TagError("unknown q=")
    identity, identity_domain = _parse_identity(identity_tag, domain)
    return Signature(
        algorithm=algorithm.decode(),
        key_kind=ALGORITHMS[algorithm],
        value=parse_base64(tags, b"b"),
        body_hash=parse_base64(tags, b"bh"),
        header_form=header_form,
        body_form=body_form,
        domain=domain,
        selector=parse_domain(tags, b"s"),
        # An h= that is there and empty signs no field: DKIM refuses that for the want of From, ARC does not ask.
        names=parse_names(tags) if tags.get(b"h") != b"" else (),
        length=_parse_length(tags),
        signed_at=signed_at,
        expires_at=expires_at,
        identity=identity,
        identity_domain=identity_domain,
    )


def parse_forms(value: bytes) -> tuple[Form, Form]:
    """Of c=: how the header is signed, and how the body. Raises TagError."""
    if (forms := _FORMS.get(value)) is None:
        raise TagError("unknown c=")
    return forms


def _parse_expiry(tags: dict[bytes, bytes]) -> int | None:
    return None if b"x" not in tags or _NEVER.match(tags[b"x"]) else parse_number(tags, b"x")


def _parse_length(tags: dict[bytes, bytes]) -> int | None:
    if b"l" not in tags:
        return None
    if not _LENGTH.match(tags[b"l"]):
        raise TagError("l= is no number")
    return int(tags[b"l"])


def _parse_identity(tag: bytes | None, domain: str) -> tuple[str, str]:
    """``i=`` as it stands and its domain, which is ``domain`` or a part of it. Raises TagError."""
    if tag is None:
        return f"@{domain}", domain
    text = without_space(tag)
    # RFC 6376 section 3.5: i= is dkim-quoted-printable.
    decoded = _QUOTED_OCTET.sub(lambda octet: bytes.fromhex(octet[1].decode()), text)
    _, at, part = decoded.rpartition(b"@")
    try:
        identity, identity_domain = text.decode(), dns_name(part.decode())
    except UnicodeDecodeError:
        raise TagError("i= is not UTF-8") from None
    if not at or identity_domain is None or not f".{identity_domain}".endswith(f".{domain}"):
        # RFC 6376 section 6.1.1
        raise TagError("i= is not in the domain of d=")
    return identity, identity_domain
