"""What do we say about this message to those who read ARC? RFC 8617 section 5.1: one more ARC Set.

A chain that arrived broken is never continued as if it were whole: its one last set says cv=fail and signs only itself
(section 5.1.2), and after such a set nothing is added any more.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime

from forwarder.auth.arc.chain import MAX_SETS, BrokenChain, newest_instance, parse_chain
from forwarder.auth.canonical import relax_field, relaxed_field
from forwarder.auth.signed import Signing, Tag, open_field, select_fields, sign_field
from forwarder.model import ArcCheck, Field, Result
from forwarder.ports import SigningKey

__all__ = ["build_arc_set"]

# The tags stand in the order of their names and b= in one piece. Nothing asks for that, but then there is one way to
# write a set, and what two sealers make of the same message with the same key can be compared octet by octet.
_A: Tag = (b"a", b"rsa-sha256")
_STATUS = {Result.NONE: b"none", Result.PASS: b"pass", Result.FAIL: b"fail"}


def build_arc_set(
    fields: Sequence[Field],
    body_hash: bytes,
    chain: ArcCheck,
    *,
    authres_value: bytes,
    key: SigningKey,
    now: datetime,
    headers: Sequence[bytes] | None = None,
) -> Signing[tuple[bytes, bytes, bytes] | None]:
    """ARC-Seal, ARC-Message-Signature and ARC-Authentication-Results, in the order in which they go on top of
    ``fields``.

    ``chain`` is what ``verify_arc`` found on arrival, ``fields`` the header as it is to be signed, our DKIM-Signature
    on it already (RFC 8617 section 5.1). ``authres_value`` is the value of Authentication-Results from the authserv-id
    on, comments and folds kept. ``None``: no set may be added, as the chain says cv=fail already, has its 50 sets, or
    could not be checked.
    """
    if key.algorithm != "rsa-sha256":
        raise ValueError("ARC knows no algorithm but rsa-sha256")
    newest, failed = newest_instance(fields)
    instance = newest + 1
    before = _sets_to_seal(fields, chain)
    if before is None or failed or instance > MAX_SETS:
        return None
    results = b"ARC-Authentication-Results: i=%d; %b\r\n" % (instance, authres_value.strip(b" \t\r\n"))
    message_signature = yield from _build_message_signature(fields, body_hash, instance, key, now, headers)
    field = open_field(b"ARC-Seal", [_A], [(b"cv", _STATUS[chain.result]), *_owner(key, instance, now)])
    # RFC 8617 section 5.1.1
    sealed = b"".join((*map(relaxed_field, before), relax_field(results), relax_field(message_signature)))
    signature = yield key, sealed + field.signed_form
    return field.close(signature, folded=False), message_signature, results


def _owner(key: SigningKey, instance: int, now: datetime) -> list[Tag]:
    return [
        (b"d", key.domain.encode()),
        (b"i", b"%d" % instance),
        (b"s", key.selector.encode()),
        (b"t", b"%d" % int(now.timestamp())),
    ]


def _build_message_signature(
    fields: Sequence[Field],
    body_hash: bytes,
    instance: int,
    key: SigningKey,
    now: datetime,
    headers: Sequence[bytes] | None,
) -> Signing[bytes]:
    # RFC 8617 section 4.1.2: DKIM-Signature fields, but no ARC field and no Authentication-Results.
    selected = select_fields(fields, headers, also=(b"dkim-signature",))
    domain, *rest = _owner(key, instance, now)
    tags: list[Tag] = [
        (b"bh", b64encode(body_hash)),
        (b"c", b"relaxed/relaxed"),
        domain,
        (b"h", selected.names),
        *rest,
    ]
    return (yield from sign_field(selected, open_field(b"ARC-Message-Signature", [_A], tags), key, folded=False))


def _sets_to_seal(fields: Sequence[Field], chain: ArcCheck) -> list[bytes] | None:
    """The fields of earlier sets that our seal covers; ``None``: no seal can be true."""
    if chain.result is Result.FAIL:
        # RFC 8617 section 5.1.2
        return []
    if chain.result not in _STATUS:
        return None
    try:
        sets = parse_chain(fields)
    except BrokenChain:
        return None
    # A cv= that was found for other fields than these would be a lie.
    if len(sets) != chain.sets:
        return None
    return [field.raw for one in sets for field in (one.results, one.message_signature, one.seal)]
