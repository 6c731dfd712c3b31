"""What did the checks find? Facts, no advice."""

from __future__ import annotations

from enum import StrEnum

from forwarder.values import value


class Result(StrEnum):
    """Result words of RFC 8601 section 2.7, shared by every method."""

    NONE = "none"
    PASS = "pass"
    FAIL = "fail"
    SOFTFAIL = "softfail"
    NEUTRAL = "neutral"
    POLICY = "policy"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"

    # As the word that it is equal to. An enum hashes its name, and takes a call in Python for it.
    __hash__ = str.__hash__


@value
class SpfCheck:
    """RFC 7208. ``domain`` is the <domain> that was checked; ``explanation`` only on ``fail`` (section 6.2)."""

    result: Result
    domain: str | None = None
    reason: str | None = None
    explanation: str | None = None


@value
class DkimCheck:
    """One DKIM-Signature (RFC 6376). ``signature`` is the start of ``b=`` for ``header.b``; ``testing`` is the key's t=y."""

    result: Result
    domain: str | None = None
    selector: str | None = None
    reason: str | None = None
    identity: str | None = None
    algorithm: str | None = None
    signature: str | None = None
    testing: bool = False


@value
class ArcCheck:
    """The ARC chain as received (RFC 8617 section 5.2). ``sealers`` are the d= of the seals, i=1 first."""

    result: Result
    sets: int = 0
    oldest_pass: int | None = None
    reason: str | None = None
    sealers: tuple[str, ...] = ()


@value
class DmarcCheck:
    """RFC 9989. ``domain`` is the Author Domain; ``policy`` what its record asks for; ``applied`` what is left of it after
    the ``t`` flag; ``aligned_by`` names the identifier that aligned (``"dkim:d.example"``, ``"spf:m.example"``);
    ``signed_by`` is the d= of an aligned signature that passed and so outlives forwarding, looked for where the policy
    makes it matter."""

    result: Result
    domain: str | None = None
    policy_domain: str | None = None
    policy: str | None = None
    applied: str | None = None
    aligned_by: str | None = None
    reason: str | None = None
    signed_by: str | None = None


@value
class OpenSignature:
    """A mailkey signature that is good and has no rt=, so that it is as good for any other recipient. ``digest`` is what was
    signed (32 octets), ``expires_at`` when it ends (Unix time)."""

    digest: bytes
    expires_at: int


@value
class MailkeyCheck:
    """mailkey version 1 (docs/mailkey.md). ``domain`` is the one the MAIL FROM (or EHLO) names; ``signer`` the d= that
    covers it; ``policy`` is o= (``all``, ``some``, ``test``), ``None`` without a record; ``bound`` tells of rt=; ``open`` is
    what a pass without rt= rests on."""

    result: Result
    domain: str | None = None
    signer: str | None = None
    selector: str | None = None
    policy: str | None = None
    bound: bool | None = None
    reason: str | None = None
    open: OpenSignature | None = None


@value
class Verdict:
    """All that was found out about a message: facts, no advice."""

    mailkey: MailkeyCheck
    spf: SpfCheck
    spf_helo: SpfCheck
    dkim: tuple[DkimCheck, ...]
    arc: ArcCheck
    dmarc: DmarcCheck
    #: Which check vouches for the envelope sender's domain ("mailkey", "spf", "dkim"); None: nothing does.
    sender_verified_by: str | None = None
