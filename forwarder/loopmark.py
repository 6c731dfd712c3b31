"""Has this message been through this alias before? A mark in our Received that only we can make. RFC 5321 section 6.3.

Delivered-To says so in clear (RFC 9228), and forwarders that strip it, or put their own in its place, would let a loop go on to
its hundredth hop. Received is left alone by everybody. The mark is an HMAC over the alias and what names the message for all its
life, so nobody can make one that gets somebody else's mail refused; copied into another message it is not that message's.
It is looked for in the whole header, under whatever name a host on the way has put it.
"""

from __future__ import annotations

from collections.abc import Sequence

from forwarder.macs import mac_text
from forwarder.mail.received import MARK_SIGN
from forwarder.model import Address, Message

__all__ = ["bears_mark", "make_mark"]

_SIGN = MARK_SIGN.encode()
#: What names a message, the first of these that there is: Message-ID alone, as hosts on the way mend dates.
_NAMES = ((b"message-id",), (b"date", b"from"))


def make_mark(secret: bytes, alias: Address, message: Message) -> str:
    """16 characters of an atom."""
    whose = f"{alias.local.lower()}@{alias.domain}".encode("utf-8", "surrogatepass")
    return mac_text(secret, _PURPOSE + _packed(whose) + _packed(_name(message)))


def bears_mark(message: Message, alias: Address, secrets: Sequence[bytes]) -> bool:
    """Did one of these make the mark that this message bears?"""
    if _SIGN not in message.header:
        return False
    return any(make_mark(one, alias, message).encode() in message.header for one in secrets)


def _name(message: Message) -> bytes:
    for names in _NAMES:
        found = [field for name in names if (field := message.first(name)) is not None]
        if found:
            # Without white space: every host folds in its own places.
            return b"\0".join([b"".join(one.value.split()) for one in found])
    return b""


def _packed(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part


_PURPOSE = _packed(b"loop mark")
