"""What does a domain say about its mailkey? docs/mailkey.md section 3, the TXT record at ``mailkey.<domain>``."""

from __future__ import annotations

import re
from functools import lru_cache

from forwarder.auth.publickey import BadKey, PublicKey, load_key
from forwarder.auth.tags import TagError, parse_exact_base64, parse_tags
from forwarder.ports import Answer, DnsStatus
from forwarder.values import value

__all__ = [
    "ALL",
    "MIN_RSA_BITS",
    "MailkeyRecord",
    "MalformedRecord",
    "NoRecord",
    "evaluate_answer",
    "evaluate_key_text",
    "parse_mailkey_record",
]

ALL = "all"
#: From the mildest to the strictest.
_POLICIES = ("test", "some", ALL)
MIN_RSA_BITS = 2048
#: Octets of a record, from the DNS or from a key host.
_MAX_RECORD = 8192

# v= comes first and says exactly this; what begins otherwise is somebody else's TXT record.
_BEGINNING = re.compile(rb"[ \t]*v[ \t]*=[ \t]*mailkey1[ \t]*(?:;|\Z)")
_ANY_POLICY = re.compile(rb";[ \t]*o[ \t]*=[ \t]*(all|some|test)[ \t]*(?=;|\Z)")


@value
class MailkeyRecord:
    """``kind`` is k=. ``problem`` says why ``key`` is ``None``: that matters only to who needs this key, as the
    record at ``mailkey.<domain>`` carries the policy for named keys too. ``elsewhere``: the key is at the HTTPS key
    host alone."""

    policy: str
    kind: str = ""
    key: PublicKey | None = None
    problem: str | None = None
    elsewhere: bool = False


@value
class MalformedRecord:
    """A v=mailkey1 record, or several, that cannot be read; ``policy`` is the strictest o= in it, ``all`` without
    one."""

    policy: str
    reason: str


@value
class NoRecord:
    """No mailkey at this name; ``temporary``: the DNS did not say."""

    temporary: bool = False


@lru_cache(maxsize=1024)
def parse_mailkey_record(text: bytes) -> MailkeyRecord | MalformedRecord | None:
    """``None``: this TXT record is no mailkey record."""
    if not _BEGINNING.match(text):
        return None
    if len(text) > _MAX_RECORD:
        return MalformedRecord(ALL, "mailkey record too large")
    try:
        tags = parse_tags(text)
        policy = tags.get(b"o", ALL.encode()).decode("ascii", "replace")
        if policy not in _POLICIES:
            raise TagError("unknown o=")
        return _parse_key(tags, policy)
    except TagError as error:
        return MalformedRecord(_strictest(_ANY_POLICY.findall(text)), f"mailkey record: {error}")


def _parse_key(tags: dict[bytes, bytes], policy: str) -> MailkeyRecord:
    if b"p" not in tags:
        if tags.get(b"u") == b"https":
            return MailkeyRecord(policy, problem="the key is at the https key host alone", elsewhere=True)
        raise TagError("p= is missing")
    if not tags[b"p"]:
        return MailkeyRecord(policy, problem="mailkey revoked")
    kind = tags.get(b"k", b"ed25519")
    key = load_key(kind, parse_exact_base64(tags, b"p"), MIN_RSA_BITS)
    if isinstance(key, BadKey):
        return MailkeyRecord(policy, problem=key.reason)
    return MailkeyRecord(policy, kind.decode(), key)


def _strictest(policies: list[bytes]) -> str:
    return max((one.decode() for one in policies), key=_POLICIES.index, default=ALL)


def evaluate_answer(answer: Answer[bytes]) -> MailkeyRecord | MalformedRecord | NoRecord:
    """The one mailkey record at a name; several are a permerror."""
    if answer.status is DnsStatus.TEMPERROR:
        return NoRecord(temporary=True)
    records = [record for text in sorted(set(answer.records)) if (record := parse_mailkey_record(text)) is not None]
    if not records:
        return NoRecord()
    if len(records) > 1:
        return MalformedRecord(_strictest([one.policy.encode() for one in records]), "several mailkey records")
    return records[0]


def evaluate_key_text(text: bytes) -> MailkeyRecord | MalformedRecord:
    """The record that a key host serves; line ends around it do not count."""
    record = parse_mailkey_record(text.strip(b" \t\r\n"))
    if record is None:
        return MalformedRecord(ALL, "mailkey record: the key host serves something else")
    if isinstance(record, MailkeyRecord) and record.elsewhere:
        # No further: a record here that sends us here again names no key.
        return MalformedRecord(record.policy, "mailkey record: p= is missing")
    return record
