"""May what a trusted forwarder found before us restore a DMARC verdict that forwarding broke? RFC 8617 section 7.2.1.

Only where the chain passes, *every* sealer in it is on the operator's list, and the first of them, which saw the message before
anybody had changed it, says dmarc=pass for the same Author Domain. A chain proves who said what, not that it is true: anyone may
seal a lie ("Forward Pass", 2023), so a sealer that is not on the list restores nothing, wherever it stands in the chain.
"""

from __future__ import annotations

from collections.abc import Collection

from forwarder.auth.arc.chain import BrokenChain, chain_of
from forwarder.mail import authres
from forwarder.mail.address import ascii_domain
from forwarder.model import ArcCheck, Message, Result

__all__ = ["restoring_sealer"]


def restoring_sealer(message: Message, arc: ArcCheck, author_domain: str, trusted: Collection[str]) -> str | None:
    """The d= of the first sealer, if its finding counts; else ``None``. ``trusted``: lower-case domains, exact."""
    if arc.result is not Result.PASS or not arc.sealers or not trusted:
        return None
    if any(one.lower() not in trusted for one in arc.sealers):
        return None
    try:
        first = chain_of(message)[0]
        found = authres.parse(first.results.value)
    except (BrokenChain, authres.MalformedResults):
        return None
    for one in found.results:
        if one.method == "dmarc" and one.result == "pass":
            claimed = dict(one.properties).get("header.from", "")
            if claimed and ascii_domain(claimed.rpartition("@")[2].lower()) == author_domain:
                return arc.sealers[0]
    return None
