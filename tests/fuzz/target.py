"""What is fuzzed, and what must hold? A target takes octets that a stranger could send, and raises when a promise is broken."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from forwarder.model import Reply

__all__ = ["Broken", "Target", "holds", "is_clean_reply"]

#: What Python calls its faults, and what its exceptions say: none of it belongs into a reply.
_EXCEPTION_TEXT = re.compile(
    r"Traceback|Exception|[A-Z][a-z]+Error\b|invalid literal|codec can't|object has no|NoneType|b'|not subscriptable"
)
_LINE = re.compile(r"[ -~]*\Z")
#: RFC 5321 section 4.5.3.1.5, with its CRLF.
_MAX_LINE = 512


class Broken(AssertionError):
    """A promise of the program's does not hold for this input."""


@dataclass(frozen=True, slots=True)
class Target:
    """``seeds`` are whole inputs, ``words`` what they are made of; the generator changes the one with the other. ``run`` takes
    any octets, up to ``max_size`` of them, and raises for none."""

    name: str
    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    max_size: int = 4096


def holds(promise: bool, what: str) -> None:
    """Raises Broken."""
    if not promise:
        raise Broken(what)


def is_clean_reply(reply: Reply) -> None:
    """Raises Broken for a reply that breaks its line, or tells what went wrong inside us."""
    line = str(reply)
    holds(200 <= reply.code <= 599, f"a reply code {reply.code}")
    holds(_LINE.match(line) is not None, f"a reply that is no line of printable ASCII: {line!r}")
    holds(len(line) + 2 <= _MAX_LINE, f"a reply of {len(line)} octets")
    holds(_EXCEPTION_TEXT.search(line) is None, f"a reply with the text of an exception: {line!r}")
