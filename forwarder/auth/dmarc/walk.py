"""Which records speak for a domain, and where does its organization begin? The DNS Tree Walk of RFC 9989 section 4.10.

The names above an author domain and above the identifiers that might be aligned with it overlap, so one ``Walker`` serves
one message and asks each name once.
"""

from __future__ import annotations

from enum import Enum

from forwarder.auth.dmarc.record import DmarcRecord, parse_record
from forwarder.auth.dnsname import dns_name, parent
from forwarder.auth.suffix import registrable_domain
from forwarder.ports import DnsStatus, Resolver
from forwarder.values import value

__all__ = ["MAX_QUERIES", "DnsFaultError", "Lookup", "Policy", "Presence", "Walker", "organizational_domain"]

#: RFC 9989 section 4.10: queries of one walk, so that a domain of a hundred labels does not cost a hundred.
MAX_QUERIES = 8


class DnsFaultError(Exception):
    """A query that the outcome hangs on was not answered: neither "pass" nor "fail" (RFC 9989 section 5.3.6)."""


class Presence(Enum):
    """What ``_dmarc.<domain>`` holds."""

    ONE = "one record"
    SEVERAL = "several records"
    NOTHING = "no record"


@value
class Lookup:
    """One query of a walk. ``exists``: the answer proves that the domain itself exists."""

    domain: str
    presence: Presence
    record: DmarcRecord | None
    exists: bool


@value
class Policy:
    """The record that applies to an author domain, and the domain that published it."""

    domain: str
    record: DmarcRecord


async def organizational_domain(resolver: Resolver, domain: str) -> str | None:
    """The organizational domain of ``domain``, in A-labels (RFC 9989 section 4.10.2). ``None``: it is no DNS name, or the
    DNS did not answer."""
    name = dns_name(domain)
    if name is None:
        return None
    try:
        return await Walker(resolver).organization(name)
    except DnsFaultError:
        return None


class Walker:
    """The walks of one message. ``psl``: where no ``psd`` tag decides, the Public Suffix List does, as in RFC 7489."""

    def __init__(self, resolver: Resolver, *, psl: bool = False) -> None:
        self._resolver = resolver
        self._psl = psl
        self._lookups: dict[str, Lookup] = {}

    async def look_up(self, domain: str) -> Lookup:
        """What the domain publishes itself. Raises DnsFaultError."""
        known = self._lookups.get(domain)
        if known is not None:
            return known
        answer = await self._resolver.txt(f"_dmarc.{domain}")
        if answer.status is DnsStatus.TEMPERROR:
            raise DnsFaultError(f"TXT of _dmarc.{domain}: {answer.detail}")
        # RFC 9989 section 4.10 step 2: what is no record is discarded, and several records are, all of them.
        records = [record for record in map(parse_record, answer.records) if record is not None]
        presence = Presence.NOTHING if not records else Presence.ONE if len(records) == 1 else Presence.SEVERAL
        only = records[0] if len(records) == 1 else None
        # RFC 8020: what exists below a name proves the name.
        lookup = Lookup(domain, presence, only, answer.status is not DnsStatus.NXDOMAIN)
        self._lookups[domain] = lookup
        return lookup

    async def policy(self, author: str) -> Policy | None:
        """RFC 9989 section 4.10.1: the author domain's record, else its organization's, else its public suffix's."""
        own = await self.look_up(author)
        if own.record is not None:
            return Policy(author, own.record)
        found = await self._walk(author)
        if not found:
            return None
        organization = _select(author, found)
        # The walk ends at a psd tag: if that is the public suffix's, the organization's record came before it.
        return next((one for one in found if one.domain == organization), found[-1])

    async def organization(self, domain: str) -> str:
        """RFC 9989 section 4.10.2."""
        found = await self._walk(domain)
        if self._psl and not any(one.record.psd != "u" for one in found):
            return registrable_domain(domain) or _select(domain, found)
        return _select(domain, found)

    async def _walk(self, domain: str) -> list[Policy]:
        """The records on the way up, the longest name first. Raises DnsFaultError."""
        found = []
        for name in _names(domain):
            record = (await self.look_up(name)).record
            if record is not None:
                found.append(Policy(name, record))
                if record.psd != "u":
                    break
        return found


def _names(domain: str) -> list[str]:
    """RFC 9989 section 4.10 steps 3, 4 and 7: the domain, then from at most seven labels one less each time."""
    labels = domain.split(".")
    above = labels[1:][-(MAX_QUERIES - 1) :]
    return [domain, *(".".join(above[at:]) for at in range(len(above)))]


def _select(domain: str, found: list[Policy]) -> str:
    """RFC 9989 section 4.10.2: psd=n, else the name below psd=y, else the highest name with a record, else itself."""
    if not found:
        return domain
    last = found[-1]
    if last.record.psd == "y" and last.domain != domain:
        return _label_below(domain, last.domain)
    return last.domain


def _label_below(domain: str, suffix: str) -> str:
    while parent(domain) != suffix:
        domain = parent(domain)
    return domain
