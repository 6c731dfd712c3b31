"""What does a DMARC policy record say? RFC 9989 sections 4.7 and 4.8.

The standard forgives: only the version decides whether a text is a record at all, and what is wrong behind it counts as
absent. What of this leaves no policy to apply is for section 4.10.1, and ``DmarcRecord.usable`` says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

__all__ = ["MAX_RECORD", "DmarcRecord", "Policy", "parse_record"]

Policy = Literal["none", "quarantine", "reject"]

#: Octets. Records hold a policy and a few report addresses; beyond this is no policy but somebody's experiment.
MAX_RECORD = 4096

# RFC 9989 section 4.8: dmarc-version, the one case-sensitive value. It MUST come first.
_VERSION = re.compile(rb"[vV][ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
_POLICIES: dict[str, Policy] = {"none": "none", "quarantine": "quarantine", "reject": "reject"}

# RFC 3986 section 3. The size behind "!" is of RFC 7489 and of no meaning now (RFC 9990 section 2.1.1 has it ignored).
_SIZE = re.compile(r"![0-9]+[kmgtKMGT]?\Z")
_MAILTO = re.compile(r"mailto:[^\s@!]+@[^\s@!]+\Z", re.IGNORECASE)
_URI = re.compile(r"(?!mailto:)[A-Za-z][A-Za-z0-9+.-]*:[^\s!]+\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    """``policy`` is for the domain itself, ``subdomain`` and ``nonexistent`` for names below it, each with what the
    record says when it is silent. ``usable`` is False where no DMARC processing follows from the record."""

    policy: Policy
    subdomain: Policy
    nonexistent: Policy
    strict_dkim: bool
    strict_spf: bool
    testing: bool
    psd: Literal["y", "n", "u"]
    usable: bool


def parse_record(text: bytes) -> DmarcRecord | None:
    """``None``: not a DMARC record, whatever else it is."""
    return _parse_record(text) if len(text) <= MAX_RECORD else None


@lru_cache(maxsize=2048)
def _parse_record(text: bytes) -> DmarcRecord | None:
    version = _VERSION.match(text)
    if version is None:
        return None
    tags = _parse_tags(text[version.end() :].decode("ascii", "replace"))
    wanted = {name: _POLICIES.get(tags[name].lower()) for name in ("p", "sp", "np") if name in tags}
    if "p" not in wanted or None in wanted.values():
        # RFC 9989 section 4.10.1: p=none for an owner who wants reports, no DMARC at all for another.
        policy = subdomain = nonexistent = _POLICIES["none"]
        usable = any(map(_is_uri, tags.get("rua", "").split(",")))
    else:
        # RFC 9989 section 4.7: np falls back to sp, and sp to p.
        policy = wanted["p"] or "none"
        subdomain = wanted.get("sp") or policy
        nonexistent = wanted.get("np") or subdomain
        usable = True
    psd = tags.get("psd", "u").lower()
    return DmarcRecord(
        policy=policy,
        subdomain=subdomain,
        nonexistent=nonexistent,
        strict_dkim=tags.get("adkim", "r").lower() == "s",
        strict_spf=tags.get("aspf", "r").lower() == "s",
        testing=tags.get("t", "n").lower() == "y",
        psd="y" if psd == "y" else "n" if psd == "n" else "u",
        usable=usable,
    )


def _parse_tags(text: str) -> dict[str, str]:
    """RFC 6376 section 3.2 forbids a tag twice. Which of the two was meant is not for us to say: it counts as absent."""
    tags: dict[str, str] = {}
    repeated: set[str] = set()
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        if equals:
            name = name.strip(" \t").lower()
            if name in tags:
                repeated.add(name)
            tags[name] = value.strip(" \t")
    return {name: value for name, value in tags.items() if name not in repeated}


def _is_uri(text: str) -> bool:
    uri = _SIZE.sub("", text.strip(" \t"))
    return uri.isascii() and bool(_MAILTO.match(uri) or _URI.match(uri))
