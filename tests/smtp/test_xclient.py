"""What does a mail server of ours say of its client? The arguments of XCLIENT and XFORWARD."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from forwarder.model import Peer
from forwarder.smtp.commands import CommandError
from forwarder.smtp.xclient import NO_CLAIM, XCLIENT, XFORWARD, Claim, parse_claim

V4, V6 = ip_address("198.51.100.7"), ip_address("2001:db8::7")


@pytest.mark.parametrize(
    ("argument", "want"),
    [
        (b"ADDR=198.51.100.7", Claim(V4)),
        (b"addr=198.51.100.7 NAME=[UNAVAILABLE]", Claim(V4)),
        (b"ADDR=IPV6:2001:db8::7", Claim(V6)),
        (b"ADDR=2001:db8::7", Claim(V6)),
        (b"ADDR=IPV6:::ffff:198.51.100.7", Claim(V4)),
        (b"NAME=a.example ADDR=198.51.100.7 PORT=40000 PROTO=ESMTP HELO=a.example", Claim(V4, "a.example", True)),
        (b"PROTO=smtp HELO=[198.51.100.7]", Claim(None, "[198.51.100.7]", False)),
        (b"HELO=a+2Eexample", Claim(None, "a.example")),
        (b"ADDR=[UNAVAILABLE] HELO=[TEMPUNAVAIL]", NO_CLAIM),
        (b"IDENT=4F1B0C0DE SOURCE=REMOTE", NO_CLAIM),
    ],
    ids=str,
)
def test_attributes_are_read(argument: bytes, want: Claim) -> None:
    assert parse_claim(argument, XFORWARD) == want


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        (b"", "syntax"),
        (b"ADDR", "syntax"),
        (b"ADDR=", "syntax"),
        (b"ADDR=198.51.100.7=", "syntax"),
        (b"ADDR=198.51.100.7\x80", "syntax"),
        (b"NAME=a+2", "syntax"),
        (b"LOGIN=bob", "not offered"),
        (b"IDENT=1", "not offered"),
        (b"ADDR=198.51.100.7 ADDR=198.51.100.8", "twice"),
        (b"ADDR=198.51.100", "IP address"),
        (b"ADDR=unknown", "IP address"),
        (b"ADDR=fe80::1+25eth0", "IP address"),
        (b"PROTO=LMTP", "SMTP or ESMTP"),
        (b"HELO=a+0D+0Ab", "host name"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said(argument: bytes, why: str) -> None:
    with pytest.raises(CommandError, match=why):
        parse_claim(argument, XCLIENT)


def test_what_is_said_goes_over_what_was_said() -> None:
    peer = Peer(ip_address("127.0.0.1"), "proxy.example")
    assert NO_CLAIM.applied(peer) is peer
    claim = Claim(helo="b.example").over(Claim(V4, "a.example", esmtp=False))
    assert claim == Claim(V4, "b.example", esmtp=False)
    assert claim.applied(peer) == Peer(V4, "b.example", esmtp=False)
