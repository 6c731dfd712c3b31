"""What do a mail host's TLSA records ask for? RFC 7672 sections 2 and 3.1, over RFC 6698 and 7671.

To be asked only where the DNS vouches for the way to the host. The answer is ``Dane`` (a certificate that these records name,
or no mail), ``Required`` (records that nobody can use: TLS all the same), ``None`` (nothing is published), or the trouble in
words: then the host must not be used, as whoever can stop one answer could otherwise switch this off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forwarder.ports import Answer, DnsStatus, Resolver, Tlsa
from forwarder.relay.tls import DIGESTS, Dane, Required, Usage

__all__ = ["DaneAnswer", "Place", "lookup_dane"]

#: Records of one host that are looked at; who rolls keys needs four.
_MAX_RECORDS = 32
#: Seconds; the answers that were asked say less.
_MAX_TTL = 86400


@dataclass(frozen=True, slots=True)
class Place:
    """A mail host as it was looked up. ``canonical`` is its name behind CNAMEs, ``""`` without; ``secure``: the DNS vouches for
    all its addresses. ``domains``: the next-hop domain and what that is an alias of, where an MX led here."""

    host: str
    port: int
    canonical: str
    secure: bool
    domains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DaneAnswer:
    """For ``ttl`` seconds. ``trouble``: a look-up failed."""

    policy: Dane | Required | None
    ttl: int = _MAX_TTL
    trouble: str | None = None


async def lookup_dane(resolver: Resolver, place: Place) -> DaneAnswer:
    """Ask under each name that the records may have; no question where there is none."""
    bases = await _lookup_bases(resolver, place)
    if isinstance(bases, Answer):
        return _failed(bases)
    ttl = _MAX_TTL
    for base in bases:
        answer = await resolver.tlsa(f"_{place.port}._tcp.{base}")
        # RFC 7672 section 2.1.2: an answer that cannot be had is not "no records".
        if answer.status is DnsStatus.TEMPERROR:
            return _failed(answer)
        ttl = min(ttl, max(0, answer.ttl - answer.age))
        # RFC 7672 section 2.2: what the DNS does not vouch for, anybody may have written.
        if answer.records and answer.authentic:
            return DaneAnswer(_evaluate(answer.records, base, place), ttl)
    return DaneAnswer(None, ttl)


async def _lookup_bases(resolver: Resolver, place: Place) -> Sequence[str] | Answer[str]:
    """RFC 7672 section 2.2.2, 2.2.3: the TLSA base domains, the name behind CNAMEs first."""
    if place.secure:
        return (place.canonical, place.host) if place.canonical else (place.host,)
    if not place.canonical:
        return ()
    # An alias that leads out of what is signed may itself be signed.
    alias = await resolver.cname(place.host)
    if alias.status is DnsStatus.TEMPERROR:
        return alias
    return (place.host,) if alias.authentic else ()


def _evaluate(records: Sequence[Tlsa], base: str, place: Place) -> Dane | Required:
    usable = _strongest([one for one in records[:_MAX_RECORDS] if _is_usable(one)])
    if not usable:
        # RFC 7672 section 2.2: whoever publishes records has TLS.
        return Required()
    return Dane(usable, base, tuple(dict.fromkeys((base, *place.domains))))


def _is_usable(record: Tlsa) -> bool:
    # RFC 7672 section 3.1.3: the usages of public authorities, PKIX-TA and PKIX-EE, are not for SMTP.
    if record.usage not in set(Usage) or record.selector not in (0, 1):
        return False
    if record.matching == 0:
        return bool(record.data)
    return record.matching in DIGESTS and len(record.data) == DIGESTS[record.matching]().digest_size


def _strongest(records: Sequence[Tlsa]) -> tuple[Tlsa, ...]:
    """RFC 7671 section 9: of the digests of one thing only the strongest kind counts."""
    best: dict[tuple[int, int], int] = {}
    for one in records:
        what = (one.usage, one.selector)
        best[what] = max(best.get(what, 0), one.matching)
    return tuple(one for one in records if one.matching in (0, best[one.usage, one.selector]))


def _failed(answer: Answer[str] | Answer[Tlsa]) -> DaneAnswer:
    detail = "".join(one if " " <= one <= "~" else "?" for one in answer.detail[:100])
    return DaneAnswer(None, 0, f"TLSA look-up failed: {detail}" if detail else "TLSA look-up failed")
