"""Which header fields do good signatures cover? Whoever adds or takes out such a field breaks what vouches for the message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from forwarder.auth.tags import TagError, parse_names, parse_tags
from forwarder.model import Field, Message, Result, Verdict

__all__ = ["Covered", "covered_fields"]


class Covered:
    """By lower-case name: how often the signature that names it most often does."""

    def __init__(self, named: dict[bytes, int], message: Message) -> None:
        self._named = named
        self._there = Counter(one.name for one in message.fields)

    def may_remove(self, name: bytes) -> bool:
        """True: no good signature covers a field of this name."""
        return name not in self._named

    def may_add(self, name: bytes) -> bool:
        """True: another field of this name, on top, breaks no good signature. RFC 6376 section 5.4.2: names select from the
        bottom up, and one more than there are says that there are no more."""
        return self._named.get(name, 0) <= self._there[name]


def covered_fields(message: Message, verdict: Verdict) -> Covered:
    """Of the signatures that passed: DKIM, ARC, mailkey."""
    named: dict[bytes, int] = {}
    for one in _good(message, verdict):
        for name, count in Counter(_names(one)).items():
            named[name] = max(count, named.get(name, 0))
    return Covered(named, message)


def _good(message: Message, verdict: Verdict) -> Iterator[Field]:
    signatures = message.all(b"dkim-signature")
    # One check for each field (auth.dkim), but where the time was up: then nothing has passed.
    for one, check in zip(signatures, verdict.dkim, strict=False):
        if check.result is Result.PASS:
            yield one
    if verdict.arc.result is Result.PASS:
        yield from message.all(b"arc-message-signature")
    if verdict.mailkey.result is Result.PASS:
        yield from message.all(b"mailkey-signature")


def _names(signature: Field) -> tuple[bytes, ...]:
    try:
        return parse_names(parse_tags(signature.value))
    except TagError:
        return ()
