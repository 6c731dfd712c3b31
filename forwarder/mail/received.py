"""Who handed us this message, and where in a trace do we stand? RFC 5321 section 4.4, RFC 3848, RFC 6531 section 4.3.

The field is made of what the client said about itself, so every part of it is either checked or left out: nothing a
stranger sends can end the line, close the comment or pass for a clause.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from ipaddress import IPv6Address

from forwarder.mail.address import wire
from forwarder.mail.date import render_date
from forwarder.mail.header import unfold
from forwarder.model import Address, Envelope, Field, Peer

__all__ = ["MARK_SIGN", "build_received", "find_own_received", "is_ours"]

#: How the comment with a mark begins.
MARK_SIGN = "(mark"

_HELO = re.compile(r"[A-Za-z0-9._-]{1,255}|\[[A-Za-z0-9:.]{1,64}\]")
_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,128}")
_TLS_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BY = re.compile(rb"(?:\A|[ \t])by(?=[ \t]+([A-Za-z0-9._-]+))", re.IGNORECASE)


def build_received(
    envelope: Envelope, *, by: str, for_: Address | None, now: datetime, hide_client: bool = False, mark: str = ""
) -> bytes:
    """The whole field, folded, with its final CRLF.

    ``for_`` is the one recipient this copy is for; ``None`` where there are several (RFC 5321 section 7.2 and 7.6) or
    where it must not be told. ``hide_client`` leaves out the from clause, which RFC 5321 wants: a user's own machine and
    where it stands are nobody's business. ``mark`` is an atom that goes into a comment (``forwarder.loopmark``).
    """
    peer = envelope.peer
    from_ = "" if hide_client else f" from {_checked(_HELO, peer.helo)} ({_literal(peer)})\r\n\t"
    return (
        f"Received:{from_ or ' '}"
        f"by {by} with {_protocol(envelope)} id {_checked(_ATOM, envelope.id)}{_tls(peer)}"
        f"{_marked(mark)}{_for(for_)};\r\n"
        f"\t{render_date(now)}\r\n"
    ).encode("ascii")


def _checked(pattern: re.Pattern[str], text: str) -> str:
    return text if pattern.fullmatch(text) else "unknown"


def _literal(peer: Peer) -> str:
    # RFC 5321 section 4.1.3; a zone id (fe80::1%eth0) names an interface of ours and is nobody's business.
    return f"[IPv6:{peer.ip_text.partition('%')[0]}]" if isinstance(peer.ip, IPv6Address) else f"[{peer.ip_text}]"


def _protocol(envelope: Envelope) -> str:
    # RFC 3848, RFC 6531 section 4.3
    if not envelope.peer.esmtp:
        return "SMTP"
    name = "UTF8SMTP" if envelope.smtputf8 else "ESMTP"
    name = name if envelope.peer.tls is None else name + "S"
    return name + "A" if envelope.identity is not None and envelope.identity.authenticated else name


def _tls(peer: Peer) -> str:
    if peer.tls is None:
        return ""
    return f"\r\n\t({_checked(_TLS_NAME, peer.tls.version)} {_checked(_TLS_NAME, peer.tls.cipher)})"


def _marked(mark: str) -> str:
    return f"\r\n\t{MARK_SIGN} {mark})" if mark else ""


def _for(address: Address | None) -> str:
    # A quoted local part (of a catch-all, chosen by the client) could spell anything that follows a semicolon.
    if address is None or not _ATOM.fullmatch(address.local):
        return ""
    return f"\r\n\tfor {wire(address).decode('ascii')}"


# --- finding ourselves ------------------------------------------------------------------------------------------------


def is_ours(field: Field, hostname: str) -> bool:
    """Is this the Received field of a host that calls itself ``hostname``? It may have been folded anew on its way."""
    if field.name != b"received":
        return False
    value = unfold(field.value).replace(b"\r", b" ").replace(b"\n", b" ")
    ours = hostname.encode().rstrip(b".").lower()
    return any(by.rstrip(b".").lower() == ours for by in _BY.findall(value))


def find_own_received(fields: Sequence[Field], hostname: str) -> int | None:
    """The index of our lowest Received field: what is above it was added by us or after us, what is below was received.

    The lowest, not the topmost: a message that went through an alias behind an alias was here twice, and only what lies
    below the first visit is the sender's own.
    """
    return max((at for at, field in enumerate(fields) if is_ours(field, hostname)), default=None)
