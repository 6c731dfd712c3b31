"""How do we show a server who we are? The client's side of AUTH (RFC 4954): PLAIN (RFC 4616), and LOGIN for servers that have
no other (draft-murchison-sasl-login). Both give the password away, so whoever sends these lines must know who reads them.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Collection
from dataclasses import dataclass, field

__all__ = ["Login", "choose_mechanism", "open_exchange"]

#: The better one first.
_MECHANISMS = ("PLAIN", "LOGIN")
#: Octets of a user name and of a password (RFC 4616 section 2).
_MAX_OCTETS = 255
#: Octets of a command with its CRLF (RFC 4954 section 4: an initial response that makes it longer is sent by itself).
_MAX_COMMAND = 512
_FORBIDDEN = re.compile(r"[\x00\r\n]")


@dataclass(frozen=True, slots=True)
class Login:
    """What a server knows us by. Raises ValueError, which tells neither."""

    user: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        for what, text in (("user name", self.user), ("password", self.password)):
            if not text or len(text.encode()) > _MAX_OCTETS or _FORBIDDEN.search(text):
                raise ValueError(f"the {what} must have 1 to {_MAX_OCTETS} octets in one line")


def choose_mechanism(offered: Collection[str]) -> str | None:
    """Of those behind AUTH in the EHLO reply; ``None``: none that we have."""
    return next((one for one in _MECHANISMS if one in offered), None)


def open_exchange(login: Login, mechanism: str) -> tuple[bytes, tuple[bytes, ...]]:
    """The AUTH command, and what answers the server's challenges, in order. All of them lines with CRLF."""
    if mechanism == "LOGIN":
        return b"AUTH LOGIN\r\n", (_line(login.user), _line(login.password))
    # RFC 4616 section 2: no authorization identity, as we act for nobody else.
    message = _line(f"\0{login.user}\0{login.password}")
    command = b"AUTH PLAIN " + message
    return (command, ()) if len(command) <= _MAX_COMMAND else (b"AUTH PLAIN\r\n", (message,))


def _line(text: str) -> bytes:
    return b64encode(text.encode()) + b"\r\n"
