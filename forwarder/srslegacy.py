"""What do the reversible addresses stand for that another program minted here, before this one took its place?

Mail that left before a migration bounces for days after it. Three dialects, none of which is minted here (``srs.py`` says why):

    postsrsd    SRS0=HHHH=TT=host=local, SRS1=HHHH=first==rest: PostSRSd, libsrs2, Mail::SRS, pysrs, srs-milter. H is the start of
                base64(HMAC-SHA1(secret, lower(TT host local))), of any length from ``hash_length`` on, compared without case
    exim        SRS0=HHHH=tt=host=local: four hexadecimal digits of HMAC-MD5(secret, lower(local@host)), which leave TT uncovered
    opensmtpd   as postsrsd, four letters of base64(SHA1(key, TT=host=local@domain)), compared with case

These MACs have 16 to 24 bits and no bounds between their fields: whoever may try a million times finds an address that
verifies. So they count until a day that the operator names, for reports alone, and the edge ends a session that guesses.

Secrets and the day are arguments: this file knows no clock.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import date

from forwarder.mail.address import AddressError, parse_address
from forwarder.model import Address
from forwarder.ports import Dialect, Legacy
from forwarder.srs import Reversed, WhyNot, is_fresh

__all__ = ["decode"]

_SRS0 = re.compile(
    r"SRS0[=+-](?P<rest>(?P<mac>[^=]+)=(?P<day>[A-Z2-7]{2})=(?P<host>[^=]+)=(?P<local>.*))\Z",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
_SRS1 = re.compile(r"SRS1[=+-](?P<mac>[^=]+)=(?P<host>[^=]+)=(?P<rest>[=+-].*)\Z", re.IGNORECASE | re.ASCII | re.DOTALL)
#: Letters of base64(SHA-1) without its padding.
_MAX_MAC = 27
# PostSRSd 2 writes base64url.
_BASE64URL = str.maketrans("-_", "+/")


def decode(address: Address, legacies: Sequence[Legacy], today: date) -> Reversed | WhyNot:
    """The sender behind an address of one of these kinds, or the reason nearest to one. Never raises."""
    reason = WhyNot.NOT_SRS
    for legacy in legacies:
        if legacy.domain != address.domain:
            continue
        found = _decode(address, legacy, today)
        if isinstance(found, Reversed):
            return found
        reason = max(reason, found, key=_NEARNESS.index)
    return reason


_NEARNESS = (WhyNot.NOT_SRS, WhyNot.MALFORMED, WhyNot.BAD_MAC, WhyNot.EXPIRED)


def _decode(address: Address, legacy: Legacy, today: date) -> Reversed | WhyNot:
    if today > legacy.until:
        return WhyNot.EXPIRED
    if match := _SRS0.match(address.local):
        return _decode_srs0(match, address, legacy, today)
    match = _SRS1.match(address.local)
    # Exim wraps an SRS0 address once more and mints no SRS1.
    if match and legacy.dialect is not Dialect.EXIM:
        return _decode_srs1(match, address, legacy)
    return WhyNot.MALFORMED


def _decode_srs0(match: re.Match[str], address: Address, legacy: Legacy, today: date) -> Reversed | WhyNot:
    mac, day, host, local = match["mac"], match["day"], match["host"], match["local"]
    match legacy.dialect:
        case Dialect.POSTSRSD:
            good = _verifies_postsrsd(mac, f"{day}{host}{local}", legacy)
        case Dialect.EXIM:
            good = _verifies_exim(mac, f"{local}@{host}", legacy)
        case Dialect.OPENSMTPD:
            good = _verifies_opensmtpd(mac, f"{day}={host}={local}@{address.domain}", legacy)
    if not good:
        return WhyNot.BAD_MAC
    return _sender(local, host) if is_fresh(day, today, legacy.max_age) else WhyNot.EXPIRED


def _decode_srs1(match: re.Match[str], address: Address, legacy: Legacy) -> Reversed | WhyNot:
    # It bears no day of its own, and the one inside belongs to the forwarder that it leads to: ``until`` alone ends it.
    mac, host, rest = match["mac"], match["host"], match["rest"]
    if legacy.dialect is Dialect.POSTSRSD:
        good = _verifies_postsrsd(mac, f"{host}{rest}", legacy)
    else:
        good = _verifies_opensmtpd(mac, f"{host}={rest}@{address.domain}", legacy)
    if not good:
        return WhyNot.BAD_MAC
    return _sender(f"SRS0{rest}", host)


def _sender(local: str, host: str) -> Reversed | WhyNot:
    """What these programs took for an address need not be one, and some of it must not be sent to."""
    if host.isdecimal():
        # PostSRSd with a database: the sender was kept there, and is gone with it.
        return WhyNot.MALFORMED
    try:
        return Reversed(parse_address(f"{local}@{host}"))
    except AddressError:
        return WhyNot.MALFORMED


# --- MACs -------------------------------------------------------------------------------------------------------------
# Every secret is tried and nothing is skipped: the time taken tells no one which of them was close.


def _verifies_postsrsd(mac: str, covered: str, legacy: Legacy) -> bool:
    if not legacy.hash_length <= len(mac) <= _MAX_MAC:
        return False
    good = False
    for secret in legacy.secrets:
        whole = base64.b64encode(hmac.digest(secret, _octets(covered.lower()), "sha1")).decode()
        # Relays fold case on the way, so both sides always compared without it.
        good |= _same(mac.translate(_BASE64URL).lower(), whole[: len(mac)].lower())
    return good


def _verifies_exim(mac: str, covered: str, legacy: Legacy) -> bool:
    good = False
    for secret in legacy.secrets:
        good |= _same(mac.lower(), hmac.new(secret, _octets(covered.lower()), "md5").hexdigest()[:4])
    return good


def _verifies_opensmtpd(mac: str, covered: str, legacy: Legacy) -> bool:
    good = False
    for secret in legacy.secrets:
        digest = hashlib.sha1(secret + _octets(covered), usedforsecurity=False).digest()
        good |= _same(mac, base64.b64encode(digest).decode()[:4])
    return good


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(_octets(one), _octets(other))


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
