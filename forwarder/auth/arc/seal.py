"""What do we say about this message to those who read ARC? RFC 8617 section 5.1: one more ARC Set.

A chain that arrived broken is never continued as if it were whole: its one last set says cv=fail and signs only itself
(section 5.1.2), and after such a set nothing is added any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from forwarder.auth.arc.chain import MAX_SETS, BrokenChain, arc_fields, newest_instance, parse_chain
from forwarder.auth.canonical import relax_field, relaxed_field
from forwarder.auth.signed import Selected, Signing, index_fields, select_fields, select_ours
from forwarder.auth.template import BODY_HASH, KEPT_TEMPLATES, Tag, Template, encode_base64, gap, lay_out
from forwarder.model import ArcCheck, Field, Result
from forwarder.ports import SigningKey

__all__ = ["build_arc_set", "seal_set"]

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
    # RFC 8617 section 4.1.2: DKIM-Signature fields, but no ARC field and no Authentication-Results.
    selected = (
        select_fields(fields, headers)
        if headers is not None
        else select_ours(index_fields(fields), (b"dkim-signature",))
    )
    return (yield from seal_set(fields, selected, body_hash, chain, authres_value=authres_value, key=key, now=now))


def seal_set(
    fields: Sequence[Field],
    selected: Selected,
    body_hash: bytes,
    chain: ArcCheck,
    *,
    authres_value: bytes,
    key: SigningKey,
    now: datetime,
) -> Signing[tuple[bytes, bytes, bytes] | None]:
    """The same, where what the message signature covers is ``selected`` already. Of ``fields`` those of ARC matter."""
    if key.algorithm != "rsa-sha256":
        raise ValueError("ARC knows no algorithm but rsa-sha256")
    there = arc_fields(fields)
    newest, failed = newest_instance(there)
    instance = newest + 1
    before = _sets_to_seal(there, chain)
    if before is None or failed or instance > MAX_SETS:
        return None
    results = b"ARC-Authentication-Results: i=%d; %b\r\n" % (instance, authres_value.strip(b" \t\r\n"))
    time = b"%d" % int(now.timestamp())
    owner = key.domain, key.selector, instance, len(time)
    template, after = _message_template(selected.names, *owner), (encode_base64(body_hash), time)
    signature = yield key, selected.octets + template.signed_form((), after)
    message_signature = template.close(signature, (), after, folded=False)
    template = _seal_template(_STATUS[chain.result], *owner)
    # RFC 8617 section 5.1.1
    sealed = b"".join((*map(relaxed_field, before), relax_field(results), message_signature.relaxed))
    signature = yield key, sealed + template.signed_form((), (time,))
    return template.close(signature, (), (time,), folded=False).raw, message_signature.raw, results


@lru_cache(maxsize=KEPT_TEMPLATES)
def _message_template(names: bytes, domain: str, selector: str, instance: int, time: int) -> Template:
    owner, *rest = _owner(domain, selector, instance, time)
    tags = [(b"bh", gap(BODY_HASH)), (b"c", b"relaxed/relaxed"), owner, (b"h", names), *rest]
    return lay_out(b"ARC-Message-Signature", [_A], tags)


@lru_cache(maxsize=KEPT_TEMPLATES)
def _seal_template(status: bytes, domain: str, selector: str, instance: int, time: int) -> Template:
    return lay_out(b"ARC-Seal", [_A], [(b"cv", status), *_owner(domain, selector, instance, time)])


def _owner(domain: str, selector: str, instance: int, time: int) -> list[Tag]:
    """``time``: digits."""
    return [(b"d", domain.encode()), (b"i", b"%d" % instance), (b"s", selector.encode()), (b"t", gap(time))]


def _sets_to_seal(there: Sequence[Field], chain: ArcCheck) -> list[bytes] | None:
    """The fields of earlier sets that our seal covers; ``None``: no seal can be true."""
    if chain.result is Result.FAIL:
        # RFC 8617 section 5.1.2
        return []
    if chain.result not in _STATUS:
        return None
    try:
        sets = parse_chain(there)
    except BrokenChain:
        return None
    # A cv= that was found for other fields than these would be a lie.
    if len(sets) != chain.sets:
        return None
    return [field.raw for one in sets for field in (one.results, one.message_signature, one.seal)]
