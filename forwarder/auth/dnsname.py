"""Which DNS name does this text stand for? RFC 1035 section 2.3.4, RFC 5890 for U-labels, RFC 8616 for mail.

The one place where a domain becomes what is asked and compared: lower case, A-labels, without the final dot. Octets
that no host name has (a space, a colon) are legal in the DNS and pass, as SPF macros make such names (RFC 7208 section
7.3); control characters do not, as "Composition Kills" A3 lets one reader cut the name there and the next not.
"""

from __future__ import annotations

import re
import unicodedata

import idna

from forwarder.kept import Kept

__all__ = ["MAX_NAME", "dns_name", "parent"]

#: RFC 1035 section 2.3.4: 255 octets on the wire, which are 253 characters without the first length and the root.
MAX_NAME = 253

_NAME = re.compile(r"[^.\x00-\x1f\x7f]{1,63}(?:\.[^.\x00-\x1f\x7f]{1,63})*\Z")


def parent(name: str) -> str:
    """The name without its first label; ``""`` above a top-level domain."""
    return name.partition(".")[2]


def _dns_name(text: str) -> str | None:
    # A text that long is none whatever its labels become; the bound keeps normalization small.
    if len(text) > 2 * MAX_NAME:
        return None
    name = text.removesuffix(".")
    if not name.isascii():
        labels = [_a_label(label) for label in name.split(".")]
        if None in labels:
            return None
        name = ".".join(label for label in labels if label is not None)
    name = name.lower()
    return name if len(name) <= MAX_NAME and _NAME.match(name) else None


#: The name in lower-case A-labels without the final dot; ``None``: this is no DNS name, or it is the root.
dns_name = Kept(_dns_name, most=16384, longest=2 * MAX_NAME).__getitem__


def _a_label(label: str) -> str | None:
    """RFC 5891 section 5, label by label: the underscore labels of ``_dmarc`` and ``_domainkey`` are ASCII and pass."""
    if label.isascii():
        return label
    try:
        # RFC 5895 section 2: case and composition are mapped, nothing else; U+3002 stays the illegal character it is.
        return idna.alabel(unicodedata.normalize("NFC", label.lower())).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return None
