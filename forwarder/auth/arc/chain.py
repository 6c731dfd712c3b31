"""Which ARC Sets does a header hold, and do they form a chain? RFC 8617 sections 4.1, 4.2 and 5.2 steps 1 to 3."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from forwarder.auth.tags import TagError, parse_tags
from forwarder.model import Field, Message

__all__ = [
    "AAR",
    "AMS",
    "AS",
    "MAX_SETS",
    "ArcSet",
    "BrokenChain",
    "arc_fields",
    "chain_of",
    "newest_instance",
    "parse_chain",
]

AAR = b"arc-authentication-results"
AMS = b"arc-message-signature"
AS = b"arc-seal"

_MEMBERS = frozenset({AAR, AMS, AS})

#: RFC 8617 section 4.2.1: the highest instance there may be.
MAX_SETS = 50

# RFC 8617 section 4.2.1: 1 to 50. ARC-Authentication-Results is no tag-list; it begins with i= and a semicolon ends
# that.
_INSTANCE = re.compile(rb"[0-9]{1,2}\Z")
_SPACE = rb"(?:[ \t\r\n]|\([^()\\]*\))*"
_AAR_INSTANCE = re.compile(_SPACE + rb"i" + _SPACE + rb"=" + _SPACE + rb"([0-9]{1,2})" + _SPACE + rb";")


class BrokenChain(Exception):
    """The fields form no chain, and why."""


@dataclass(frozen=True, slots=True)
class ArcSet:
    """One set: the three fields, and the tags of the two signatures among them."""

    results: Field
    message_signature: Field
    seal: Field
    message_tags: dict[bytes, bytes]
    seal_tags: dict[bytes, bytes]


def chain_of(message: Message) -> list[ArcSet]:
    """As ``parse_chain``, of a message: most have none."""
    if message.first(AAR) is None and message.first(AMS) is None and message.first(AS) is None:
        return []
    return parse_chain(message.fields)


def parse_chain(fields: Sequence[Field]) -> list[ArcSet]:
    """The sets, i=1 first; none where there is no ARC field at all. Raises BrokenChain."""
    found: dict[int, dict[bytes, tuple[Field, dict[bytes, bytes]]]] = {}
    for field in arc_fields(fields):
        instance, tags = _parse_instance(field)
        members = found.setdefault(instance, {})
        if field.name in members:
            raise BrokenChain(f"{field.name.decode()} i={instance} twice")
        members[field.name] = field, tags
    if not found:
        return []
    # RFC 8617 section 5.2 step 3: one of each, from 1 on without a gap.
    if len(found) != max(found):
        raise BrokenChain("an instance is missing")
    for instance, members in found.items():
        if len(members) != 3:
            raise BrokenChain(f"set i={instance} is not complete")
    return [
        ArcSet(members[AAR][0], members[AMS][0], members[AS][0], members[AMS][1], members[AS][1])
        for _, members in sorted(found.items())
    ]


def arc_fields(fields: Iterable[Field]) -> list[Field]:
    """Those of ARC."""
    return [one for one in fields if one.name in _MEMBERS]


def _parse_instance(field: Field) -> tuple[int, dict[bytes, bytes]]:
    if field.name == AAR:
        match = _AAR_INSTANCE.match(field.value)
        text, tags = match[1] if match else b"", dict[bytes, bytes]()
    else:
        try:
            tags = parse_tags(field.value)
        except TagError as error:
            raise BrokenChain(f"{field.name.decode()}: {error}") from None
        text = tags.get(b"i", b"")
    if not _INSTANCE.match(text) or not 1 <= int(text) <= MAX_SETS:
        raise BrokenChain(f"{field.name.decode()} without an instance of 1 to {MAX_SETS}")
    return int(text), tags


def newest_instance(fields: Sequence[Field]) -> tuple[int, bool]:
    """The highest instance that any ARC field names, chain or not (0: none does), and whether a seal of it says
    cv=fail."""
    newest, failed = 0, False
    for field in arc_fields(fields):
        with suppress(BrokenChain):
            instance, tags = _parse_instance(field)
            if instance > newest:
                newest, failed = instance, False
            failed |= instance == newest and tags.get(b"cv") == b"fail"
    return newest, failed
