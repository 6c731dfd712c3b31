"""How does an envelope sender become an address of ours, and back? Sender Rewriting Scheme, with a MAC that holds.

Four shapes, all starting like the SRS that other forwarders know (libsrs2, Mail::SRS, Exim), so that they can shorten ours
to SRS1 and hand bounces to us, the hop before them:

    SRS0=KMMMMMMMMMMMMM=TT=sender.example=bob@fwd.example    stateless: the sender itself
    SRS0=KMMMMMMMMMMMMM=TT=-=TOKEN@fwd.example               opaque: the store knows what TOKEN stands for
    SRS0=KMMMMMMMMMMMMM=TT=+=TOKEN@fwd.example               one-way: nobody verified the sender, bounces end here
    SRS1=KTTMMMMMMMMMMMMM=first.example==rest@fwd.example    a foreign SRS0 address: bounces go to its forwarder

and one that is no return path but stands in From, where that had to become ours (mail.author). Answers go by it to the author:

    reply=KMMMMMMMMMMMMM=TT=author.example=bob@fwd.example   or =-=TOKEN, as above

K names the secret, TT is the day, M the MAC: 13 base32 characters, 65 bits of HMAC-SHA256 over the shape, K, TT, our domain
and the parts, each with its length before it, all in lower case. Relays fold case on the way (so the alphabet and the MAC do
not care) and peers use MACs of 16 to 32 bits that can be searched; 65 bits over SMTP cannot.
"-" and "+" are no domain names, so the shapes cannot be taken for one another; and as the MAC covers the shape, none becomes
another by its name.

Secrets and the day are arguments: this file knows no clock and no randomness.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import date, timedelta
from enum import Enum

from forwarder.macs import mac_text
from forwarder.model import Address
from forwarder.values import value

__all__ = [
    "MAX_AGE_DAYS",
    "Encoded",
    "OneWay",
    "Reversed",
    "Token",
    "WhyNot",
    "decode",
    "decode_reply",
    "encode",
    "encode_one_way",
    "encode_reply",
    "is_fresh",
    "is_reply",
    "is_srs",
    "made_with",
    "minted_on",
    "secret_name",
    "token_in",
]

#: RFC 5321 section 4.5.3.1.1. Beyond it the address is opaque, whatever the sender's own length was.
MAX_LOCAL_PART = 64
#: Days a reversible address is good for. MTAs give up after 5 days and bounce at once; 21 is what libsrs2 allows.
MAX_AGE_DAYS = 21
#: Days that the next hop's clock (or another node's) may be ahead of ours.
CLOCK_SKEW_DAYS = 1

_MAC_LENGTH = 13
_DAYS = 1024
_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_OPAQUE = "-"
_ONE_WAY = "+"

# A sender is carried as it is only where every relay will take the result for a dot-atom (RFC 5321 section 4.1.2).
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*\Z")
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\Z")
# Relays fold ASCII case. Without re.ASCII a long s (U+017F) is an S too, and the Kelvin sign a K, which no MAC has in it.
_ASCII_CASE = re.IGNORECASE | re.ASCII
_FOREIGN_SRS0 = re.compile(r"SRS0([=+-])(.+)\Z", _ASCII_CASE)
_SRS = re.compile(r"SRS[01][=+-]", _ASCII_CASE)
_OUR_SRS0 = re.compile(
    r"SRS0[=+-](?P<key>[A-Z2-7])(?P<mac>[A-Z2-7]{13})=(?P<day>[A-Z2-7]{2})=(?P<host>[^=]+)=(?P<local>.+)\Z",
    _ASCII_CASE,
)
_REPLY = re.compile(
    r"reply=(?P<key>[A-Z2-7])(?P<mac>[A-Z2-7]{13})=(?P<day>[A-Z2-7]{2})=(?P<host>[^=]+)=(?P<local>.+)\Z",
    _ASCII_CASE,
)
_OUR_SRS1 = re.compile(
    r"SRS1[=+-](?P<key>[A-Z2-7])(?P<day>[A-Z2-7]{2})(?P<mac>[A-Z2-7]{13})=(?P<host>[^=]+)=(?P<rest>[=+-].+)\Z",
    _ASCII_CASE,
)


@value
class Encoded:
    """``address`` is ours; ``token`` is what the store must keep for it before it is used (``None``: nothing)."""

    address: Address
    token: str | None = None


@value
class Reversed:
    """The address verified and carries its sender (a foreign SRS0 address for one of shape SRS1)."""

    sender: Address


@value
class Token:
    """The address verified and the store knows the sender behind it."""

    token: str


@value
class OneWay:
    """The address verified and leads nowhere, as it was made to."""


class WhyNot(Enum):
    """Why an address does not decode. For the log: the peer hears one answer for all of them."""

    NOT_SRS = "not an SRS address"
    MALFORMED = "not of a shape that we mint"
    BAD_MAC = "bad MAC"
    EXPIRED = "expired"


Decoded = Reversed | Token | OneWay | WhyNot


def is_srs(local: str) -> bool:
    """Does this local part look like SRS, ours or anybody's?"""
    return _SRS.match(local) is not None


def encode(sender: Address, domain: str, secrets: Sequence[bytes], today: date) -> Encoded:
    """The address under ``domain`` that brings bounces back to ``sender``. ``secrets[0]`` mints."""
    day = _day(today)
    foreign = _FOREIGN_SRS0.match(sender.local)
    if foreign and _HOST_NAME.match(sender.domain):
        separator, rest = foreign.groups()
        # The forwarder before us knows the way from there: its part is carried untouched and its own MAC still protects it.
        local = _srs1(sender.domain, separator + rest, domain, secrets[0], day)
    else:
        local = _srs0(sender.domain, sender.local, domain, secrets[0], day)
    if len(local) <= MAX_LOCAL_PART and _DOT_ATOM.match(sender.local) and _HOST_NAME.match(sender.domain):
        return Encoded(Address(local, domain))
    token = _token(sender, domain, secrets[0], "opaque")
    return Encoded(Address(_srs0(_OPAQUE, token, domain, secrets[0], day), domain), token)


def encode_one_way(sender: Address, domain: str, secrets: Sequence[bytes], today: date) -> Address:
    """An address under ``domain`` that verifies and leads nowhere. The sender cannot be read from it, nor told from another."""
    token = _token(sender, domain, secrets[0], "one-way")
    return Address(_srs0(_ONE_WAY, token, domain, secrets[0], _day(today)), domain)


def decode(address: Address, secrets: Sequence[bytes], today: date, max_age: int = MAX_AGE_DAYS) -> Decoded:
    """What an address under one of our domains stands for. Never raises."""
    if not is_srs(address.local):
        return WhyNot.NOT_SRS
    match = _OUR_SRS0.match(address.local)
    if match:
        key, mac, day, host, local = match.groups()
        if not _verifies(_srs0_fields(host, local, address.domain), key, day, mac, secrets):
            return WhyNot.BAD_MAC
        if not is_fresh(day, today, max_age):
            return WhyNot.EXPIRED
        if host == _OPAQUE:
            return Token(local.upper())
        return OneWay() if host == _ONE_WAY else Reversed(Address(local, host.lower()))
    match = _OUR_SRS1.match(address.local)
    if match:
        key, day, mac, host, rest = match.groups()
        if not _verifies(("1", address.domain, host, rest), key, day, mac, secrets):
            return WhyNot.BAD_MAC
        if not is_fresh(day, today, max_age):
            return WhyNot.EXPIRED
        return Reversed(Address("SRS0" + rest, host.lower()))
    return WhyNot.MALFORMED


def is_reply(local: str) -> bool:
    """Does this local part look like a reply address of ours?"""
    return local[:6].lower() == "reply="


def encode_reply(author: Address, domain: str, secrets: Sequence[bytes], today: date) -> Encoded:
    """The address under ``domain`` that brings answers to ``author``. It is good for as long as a reversible address."""
    day = _day(today)
    local = _reply(author.domain, author.local, domain, secrets[0], day)
    if len(local) <= MAX_LOCAL_PART and _DOT_ATOM.match(author.local) and _HOST_NAME.match(author.domain):
        return Encoded(Address(local, domain))
    token = _token(author, domain, secrets[0], "opaque")
    return Encoded(Address(_reply(_OPAQUE, token, domain, secrets[0], day), domain), token)


def decode_reply(
    address: Address, secrets: Sequence[bytes], today: date, max_age: int = MAX_AGE_DAYS
) -> Reversed | Token | WhyNot:
    """Whom an answer to this address is for. Never raises."""
    match = _REPLY.match(address.local)
    if match is None:
        return WhyNot.MALFORMED if is_reply(address.local) else WhyNot.NOT_SRS
    key, mac, day, host, local = match.groups()
    if not _verifies(("reply", address.domain, host, local), key, day, mac, secrets):
        return WhyNot.BAD_MAC
    if not is_fresh(day, today, max_age):
        return WhyNot.EXPIRED
    return Token(local.upper()) if host == _OPAQUE else Reversed(Address(local, host.lower()))


def token_in(address: Address) -> str | None:
    """The token of an opaque address, not verified: for addresses of our own records."""
    match = _OUR_SRS0.match(address.local)
    return match["local"].upper() if match and match["host"] == _OPAQUE else None


def minted_on(address: Address, today: date) -> date | None:
    """The day on which an address of ours was minted, not verified: for one that ``decode`` took. ``None``: of no shape of
    ours."""
    match = _OUR_SRS0.match(address.local) or _OUR_SRS1.match(address.local)
    if match is None:
        return None
    age = _age(match["day"], today)
    return today - timedelta(days=age if age < _DAYS - CLOCK_SKEW_DAYS else age - _DAYS)


def made_with(address: Address, secrets: Sequence[bytes], today: date) -> bytes | None:
    """The secret that made this address, which may be a reply address; ``None``: it does not verify."""
    read = decode_reply if is_reply(address.local) else decode
    return next((one for one in secrets if not isinstance(read(address, (one,), today), WhyNot)), None)


def secret_name(secret: bytes) -> bytes:
    """8 octets that name a secret and tell nothing of it: 256 bits are hashed, and no name is ever guessed back."""
    return hashlib.sha256(b"mailkey-forwarder srs secret name" + secret).digest()[:8]


def _srs0(host: str, local: str, domain: str, secret: bytes, day: str) -> str:
    return f"SRS0={_key_id(secret)}{_mac(_srs0_fields(host, local, domain), day, secret)}={day}={host}={local}"


def _srs0_fields(host: str, local: str, domain: str) -> tuple[str, ...]:
    return ("0", domain, host, local)


def _reply(host: str, local: str, domain: str, secret: bytes, day: str) -> str:
    return f"reply={_key_id(secret)}{_mac(('reply', domain, host, local), day, secret)}={day}={host}={local}"


def _srs1(host: str, rest: str, domain: str, secret: bytes, day: str) -> str:
    return f"SRS1={_key_id(secret)}{day}{_mac(('1', domain, host, rest), day, secret)}={host}={rest}"


def _token(sender: Address, domain: str, secret: bytes, purpose: str) -> str:
    """80 bits that stand for a sender: the same for the same sender, so that a thousand messages keep one entry."""
    return mac_text(secret, _packed(("token", purpose, domain, sender.local, sender.domain)))


def _mac(fields: tuple[str, ...], day: str, secret: bytes) -> str:
    lowered = [one.lower() for one in (*fields, _key_id(secret), day)]
    return mac_text(secret, _packed(lowered))[:_MAC_LENGTH]


def _packed(fields: Sequence[str]) -> bytes:
    """Length before each field: no two lists of fields give the same octets."""
    return b"".join([len(one).to_bytes(4, "big") + one for one in [field.encode() for field in fields]])


def _verifies(fields: tuple[str, ...], key: str, day: str, mac: str, secrets: Sequence[bytes]) -> bool:
    # Every secret is tried and nothing is skipped: the time taken tells no one which of them was close.
    good = False
    for secret in secrets:
        matches = hmac.compare_digest(_mac(fields, day.upper(), secret), mac.upper())
        good |= matches and _key_id(secret) == key.upper()
    return good


@functools.lru_cache(maxsize=64)
def _key_id(secret: bytes) -> str:
    return _BASE32[hashlib.sha256(b"mailkey-forwarder srs key id" + secret).digest()[0] >> 3]


@functools.lru_cache(maxsize=8)
def _day(today: date) -> str:
    number = (today - date(1970, 1, 1)).days % _DAYS
    return _BASE32[number >> 5] + _BASE32[number & 31]


def is_fresh(day: str, today: date, max_age: int) -> bool:
    """Was an address with this day of two base32 letters minted in the last ``max_age`` days, as clocks agree?"""
    age = _age(day, today)
    return age <= max_age or age >= _DAYS - CLOCK_SKEW_DAYS


def _age(day: str, today: date) -> int:
    """In days; what is almost ``_DAYS`` may be tomorrow."""
    minted = _BASE32.index(day[0].upper()) << 5 | _BASE32.index(day[1].upper())
    return ((today - date(1970, 1, 1)).days - minted) % _DAYS
