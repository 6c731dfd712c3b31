"""Does the DNS show the record of this key? What each server says, read as a verifier reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from forwarder.auth import keyrecord
from forwarder.auth.mailkey import record as mailkeyrecord
from forwarder.keys.files import Key
from forwarder.keys.records import record_name
from forwarder.ports import Answer, DnsStatus, Resolver

__all__ = ["Finding", "Seen", "agree", "look_up", "look_up_everywhere"]


class Seen(Enum):
    """What a server says of a key. UNKNOWN: it did not say; that is never taken for MISSING."""

    HERE = "published"
    MISSING = "missing"
    DIFFERENT = "different"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen, and why it is not HERE."""

    seen: Seen
    reason: str = ""


async def look_up(resolver: Resolver, kind: str, key: Key) -> Finding:
    """Past any cache of ours. ``kind`` is "mailkey" or "dkim"."""
    answer = await resolver.txt(record_name(kind, key), fresh=True)
    if answer.status is DnsStatus.TEMPERROR:
        return Finding(Seen.UNKNOWN, answer.detail or "the DNS did not answer")
    return (_judge_mailkey if kind == "mailkey" else _judge_dkim)(answer, key)


async def look_up_everywhere(resolvers: Sequence[Resolver], kind: str, key: Key) -> tuple[Finding, ...]:
    """What each of them says, in their order."""
    return tuple(await asyncio.gather(*(look_up(one, kind, key) for one in resolvers)))


def agree(findings: Iterable[Finding]) -> Finding:
    """One server's definite no is a no; HERE takes all of them; otherwise nothing is known."""
    found = tuple(findings)
    for one in found:
        if one.seen in (Seen.MISSING, Seen.DIFFERENT):
            return one
    return next((one for one in found if one.seen is Seen.UNKNOWN), Finding(Seen.HERE))


def _judge_mailkey(answer: Answer[bytes], key: Key) -> Finding:
    match mailkeyrecord.evaluate_answer(answer):
        case mailkeyrecord.NoRecord():
            return Finding(Seen.MISSING, "no v=mailkey1 record")
        case mailkeyrecord.MalformedRecord(reason=reason):
            return Finding(Seen.DIFFERENT, reason)
        case mailkeyrecord.MailkeyRecord(elsewhere=True):
            return Finding(Seen.UNKNOWN, "the key is at the https key host alone")
        case mailkeyrecord.MailkeyRecord(key=None, problem=problem):
            return Finding(Seen.DIFFERENT, problem or "no key")
        case mailkeyrecord.MailkeyRecord(key=theirs):
            return _compare(theirs, key)


def _judge_dkim(answer: Answer[bytes], key: Key) -> Finding:
    if not answer.records:
        return Finding(Seen.MISSING, "no TXT record")
    match keyrecord.evaluate_answer(answer):
        case keyrecord.NoKey(reason=reason):
            return Finding(Seen.DIFFERENT, reason)
        case keyrecord.KeyRecord(key=theirs):
            return _compare(theirs, key)


def _compare(theirs: object, key: Key) -> Finding:
    if theirs == key.private.public_key():
        return Finding(Seen.HERE)
    return Finding(Seen.DIFFERENT, "the record holds another key")
