"""Is this domain one under which strangers register names? The Public Suffix List as the package carries it.

RFC 9989 does without the list and so do we by default: it says what can never be one organization (mailkey's ``d=``),
and it is the fallback of ``forwarder.auth.dmarc`` where an operator turns that on. Nothing is fetched; a newer list is
a newer ``publicsuffixlist``. Its private section counts too: two customers of ``github.io`` are strangers.
"""

from __future__ import annotations

from functools import lru_cache

from publicsuffixlist import PublicSuffixList

from forwarder.auth.dnsname import dns_name

__all__ = ["is_public_suffix", "registrable_domain"]


def is_public_suffix(domain: str) -> bool:
    """Is ``domain`` itself a public suffix (``com``, ``co.uk``, ``github.io``)? An unlisted top-level domain is one."""
    name = dns_name(domain)
    return name is not None and _registrable_domain(name) is None


def registrable_domain(domain: str) -> str | None:
    """The public suffix and one label more, in A-labels; ``None`` for a public suffix and for what is no domain."""
    name = dns_name(domain)
    return None if name is None else _registrable_domain(name)


@lru_cache(maxsize=4096)
def _registrable_domain(name: str) -> str | None:
    return _suffixes().privatesuffix(name)


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    """Read at first use: 15,000 rules take 0.15 s and a process that asks nothing should not wait for them."""
    return PublicSuffixList()
