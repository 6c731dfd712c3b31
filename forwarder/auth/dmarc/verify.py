"""Is the author's domain aligned with one that was authenticated? RFC 9989 sections 4.4, 4.10 and 5.3.

The order is the cheap one: the policy record decides whether anything else is needed; identical domains are aligned in
either mode and need no walk; and an identifier outside of the author's organization cannot be aligned, whatever its own walk
would find, so that a stranger's signatures cost no queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from forwarder.auth.dmarc.record import Policy as PolicyWord
from forwarder.auth.dmarc.walk import DnsFaultError, Policy, Presence, Walker
from forwarder.auth.dnsname import MAX_NAME, dns_name
from forwarder.model import DkimCheck, DmarcCheck, Result, SpfCheck
from forwarder.ports import DnsStatus, Resolver

__all__ = ["MAX_IDENTIFIERS", "verify_dmarc"]

#: Authenticated domains that are looked at. The DKIM check looks at no more signatures than this either.
MAX_IDENTIFIERS = 10

#: The policies from mild to strict, and what t=y leaves of each: the level below (RFC 9989 section 4.7).
_LOWERED: dict[PolicyWord, PolicyWord] = {"none": "none", "quarantine": "none", "reject": "quarantine"}


class _Identifier(NamedTuple):
    method: str
    domain: str
    strict: bool


async def verify_dmarc(
    resolver: Resolver, *, author_domain: str, spf: SpfCheck, dkim: Sequence[DkimCheck], psl: bool = False
) -> DmarcCheck:
    """``spf`` is the check of the MAIL FROM identity. ``psl`` lets the Public Suffix List say where an organization begins
    when no ``psd`` tag does: off by default, as RFC 9989 does without it."""
    author = dns_name(author_domain)
    if author is None or author_domain.startswith("["):
        return DmarcCheck(Result.NONE, author_domain[: MAX_NAME + 2], reason="the author has no domain name")
    walker = Walker(resolver, psl=psl)
    try:
        policy = await _lookup_policy(walker, author)
        if isinstance(policy, str):
            return DmarcCheck(Result.NONE, author, reason=policy)
    except DnsFaultError as fault:
        return DmarcCheck(Result.TEMPERROR, author, reason=str(fault))
    result, reason, aligned = await _evaluate_alignment(walker, author, policy, spf, dkim)
    try:
        wanted = await _select_policy(resolver, walker, author, policy)
    except DnsFaultError as fault:
        # Whether the name exists is no matter to a pass. For the rest, the caller has to know what is at stake.
        wanted = max(policy.record.subdomain, policy.record.nonexistent, key=list(_LOWERED).index)
        if result is not Result.PASS:
            result, reason = Result.TEMPERROR, str(fault)
    applied = _LOWERED[wanted] if policy.record.testing else wanted
    signed_by = None
    if aligned is not None and applied != "none":
        signed_by = await _find_signer(walker, author, policy, aligned, dkim)
    return DmarcCheck(
        result,
        author,
        policy_domain=policy.domain,
        policy=wanted,
        applied=applied,
        aligned_by=f"{aligned.method}:{aligned.domain}" if aligned is not None else None,
        reason=reason,
        signed_by=signed_by,
    )


async def _lookup_policy(walker: Walker, author: str) -> Policy | str:
    """The record that applies, or why there is none. Raises DnsFaultError."""
    if (await walker.look_up(author)).presence is Presence.SEVERAL:
        # RFC 9989 section 4.10 discards them all and reads as if the walk went on. An owner who published a policy here,
        # however badly, did not ask for that of the organization: as in RFC 7489 section 6.6.3, no policy applies.
        return f"_dmarc.{author} holds several records"
    policy = await walker.policy(author)
    if policy is None:
        return "no policy record"
    if not policy.record.usable:
        # RFC 9989 section 4.10.1.
        return f"the record of {policy.domain} has no valid policy"
    return policy


async def _select_policy(resolver: Resolver, walker: Walker, author: str, policy: Policy) -> PolicyWord:
    """RFC 9989 section 4.10.1: p for the domain itself, sp below it, np for what does not exist. Raises DnsFaultError."""
    record = policy.record
    if policy.domain == author:
        return record.policy
    if record.nonexistent == record.subdomain or (await walker.look_up(author)).exists:
        return record.subdomain
    # RFC 9989 section 3.2.13: NXDOMAIN, whatever the type. TXT is the one that SPF has asked for already.
    answer = await resolver.txt(author)
    if answer.status is DnsStatus.TEMPERROR:
        raise DnsFaultError(f"TXT of {author}: {answer.detail}")
    return record.nonexistent if answer.status is DnsStatus.NXDOMAIN else record.subdomain


async def _find_signer(
    walker: Walker, author: str, policy: Policy, aligned: _Identifier, dkim: Sequence[DkimCheck]
) -> str | None:
    """Whose aligned signature is good wherever the message goes? An SPF pass ends here. A look-up that fails finds none."""
    if aligned.method == "dkim":
        return aligned.domain
    try:
        signed = await _find_aligned(walker, author, _identifiers(Result.PASS, policy, SpfCheck(Result.NONE), dkim))
    except DnsFaultError:
        return None
    return signed.domain if signed is not None else None


async def _evaluate_alignment(
    walker: Walker, author: str, policy: Policy, spf: SpfCheck, dkim: Sequence[DkimCheck]
) -> tuple[Result, str, _Identifier | None]:
    """Result, reason, and the identifier that aligned."""
    identical = _find_identical(author, policy, spf, dkim)
    if identical is not None:
        return Result.PASS, f"{author} is aligned", identical
    fault = None
    try:
        aligned = await _find_aligned(walker, author, _identifiers(Result.PASS, policy, spf, dkim))
        if aligned is not None:
            return Result.PASS, f"{aligned.domain} is aligned", aligned
        # RFC 9989 section 5.3.6: what may have been an aligned pass, had the DNS answered, is no fail. Only such: a
        # signature of a stranger whose key cannot be had changes nothing.
        unknown = await _find_aligned(walker, author, _identifiers(Result.TEMPERROR, policy, spf, dkim))
        if unknown is not None:
            fault = f"{unknown.method} of {unknown.domain} could not be checked"
    except DnsFaultError as error:
        fault = str(error)
    if fault is not None:
        return Result.TEMPERROR, fault, None
    return Result.FAIL, "no aligned domain was authenticated", None


def _find_identical(author: str, policy: Policy, spf: SpfCheck, dkim: Sequence[DkimCheck]) -> _Identifier | None:
    """What was authenticated and is the author domain itself, as of most mail: neither the mode nor an organization matters."""
    for one in dkim:
        if one.result is Result.PASS and dns_name(one.domain or "") == author:
            return _Identifier("dkim", author, policy.record.strict_dkim)
    if spf.result is Result.PASS and dns_name(spf.domain or "") == author:
        return _Identifier("spf", author, policy.record.strict_spf)
    return None


def _identifiers(result: Result, policy: Policy, spf: SpfCheck, dkim: Sequence[DkimCheck]) -> list[_Identifier]:
    """RFC 9989 section 4.4: the d= of signatures and the MAIL FROM domain, of checks with this result."""
    domains = [("dkim", one.domain, policy.record.strict_dkim) for one in dkim if one.result is result]
    if spf.result is result:
        domains.append(("spf", spf.domain, policy.record.strict_spf))
    names = ((method, dns_name(domain or ""), strict) for method, domain, strict in domains)
    return list(dict.fromkeys(_Identifier(method, name, strict) for method, name, strict in names if name is not None))


async def _find_aligned(walker: Walker, author: str, identifiers: Sequence[_Identifier]) -> _Identifier | None:
    """The first that is identical to the author domain, else the first of its organization. Raises DnsFaultError where
    none could be found because the DNS did not answer."""
    for one in identifiers:
        if one.domain == author:
            return one
    relaxed = [one for one in identifiers if not one.strict and _share_top_level(one.domain, author)]
    if not relaxed:
        return None
    organization = await walker.organization(author)
    fault = None
    within = [one for one in relaxed if _is_within(one.domain, organization)]
    for one in within[:MAX_IDENTIFIERS]:
        try:
            if await walker.organization(one.domain) == organization:
                return one
        except DnsFaultError as error:
            fault = error
    if fault is not None:
        raise fault
    return None


def _share_top_level(name: str, other: str) -> bool:
    return name.rpartition(".")[2] == other.rpartition(".")[2]


def _is_within(name: str, domain: str) -> bool:
    return name == domain or name.endswith("." + domain)
