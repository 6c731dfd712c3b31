"""What a mail host shows in its handshake, and what a proxy or mail server says of its client."""

from __future__ import annotations

from base64 import b64decode
from hashlib import sha256

from forwarder.edge.proxy import MAX_HEADER, ProxyError, parse_proxy
from forwarder.ports import Tlsa
from forwarder.relay.certificate import dane_fault, public_key
from forwarder.relay.tls import Dane
from forwarder.smtp.commands import CommandError
from forwarder.smtp.xclient import XCLIENT, XFORWARD, parse_claim
from tests.fuzz.target import Target, holds, is_clean_reply

# --- certificates -------------------------------------------------------------------------------------------------------

#: An authority and a server's certificate from it, good until 2124. Fixed, so that the inputs are the same each time.
_AUTHORITY = b64decode(
    """
    MIHdMIGQoAMCAQICAQEwBQYDK2VwMA0xCzAJBgNVBAMMAkNBMCAXDTI0MDEwMTAwMDAwMFoYDzIxMjQwMTAxMDAwMDAwWjANMQswCQYDVQQDDAJDQTAq
    MAUGAytlcAMhAEPNwCPSLV+eEH0aBpNFfTXR0Q630hxyEZL1b13kBmXToxMwETAPBgNVHRMBAf8EBTADAQH/MAUGAytlcANBAJIh17hW5ahz2iHw2DOW
    zqw5zOCXLhl5wwMK2YzVhHPDsQvVbKc7+YxcOeopi7dv2pvf+Lq3OF0rzDZ8AUAsNAg=
    """
)
_SERVER = b64decode(
    """
    MIHiMIGVoAMCAQICAQIwBQYDK2VwMA0xCzAJBgNVBAMMAkNBMCAXDTI0MDEwMTAwMDAwMFoYDzIxMjQwMTAxMDAwMDAwWjANMQswCQYDVQQDDAJteDAq
    MAUGAytlcAMhAEge3nctoVeFyeWaCGIBuMP5wwcSnj/G1/NKpN/tWBTloxgwFjAUBgNVHREEDTALgglteC5hLnRlc3QwBQYDK2VwA0EAf7eR2f/jPbmk
    eHOs+eZzbg613pblKbTkouQt5vm8KGoT6wrLx8AR9JOtA6Gpnw44ksc6f71LM2XAGgp93v1XDA==
    """
)
_BETWEEN = b"\0--\0"
_BY_KEY = Dane((Tlsa(2, 1, 1, sha256(public_key(_AUTHORITY) or b"").digest()),), "mx.a.test", ("mx.a.test",))
_WHOLE = Dane((Tlsa(2, 0, 0, _AUTHORITY),), "mx.a.test", ("mx.a.test",))
_OWN = Dane((Tlsa(3, 1, 1, sha256(public_key(_SERVER) or b"").digest()),), "mx.a.test", ("mx.a.test",))


def run_chain(data: bytes) -> None:
    """The chain of a server under TLSA records for its authority, and for its own key."""
    chain = data.split(_BETWEEN)
    for policy in (_BY_KEY, _WHOLE):
        fault = dane_fault(policy, chain)
        holds(fault is not None or chain[0] == _SERVER, "a certificate that the authority did not sign")
        holds(fault is None or (fault.isascii() and len(fault) <= 200), f"a reason {fault!r}")
    own = dane_fault(_OWN, chain)
    holds(own is not None or public_key(chain[0]) == public_key(_SERVER), "another key")


CHAINS = Target(
    "chains",
    run_chain,
    (_SERVER + _BETWEEN + _AUTHORITY, _SERVER, _AUTHORITY + _BETWEEN + _SERVER, _AUTHORITY),
    (
        *(
            _BETWEEN,
            b"\x30\x80",
            b"\x30\x81\xff",
            b"\x30\x82\xff\xff",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\xff",
            b"\x30\x00",
            b"\xa0\x03\x02\x01\x02",
        ),
        *(
            b"\x02\x01\xff",
            b"\x05\x00",
            b"\x06\x03\x2b\x65\x70",
            b"\x17\x0d240101000000Z",
            b"\x18\x0f99991231235959Z",
            b"\xa3\x00",
            b"\x04\x00",
        ),
        *(
            b"\x13\x02CA",
            b"\x1e\x02\xd8\x00",
            b"\x82\x09mx.a.test",
            b"\x82\x06*.test",
            b"\x01\x01\xff",
            b"\x03\x00",
            b"\x55\x1d\x11",
            b"\x55\x1d\x1e",
        ),
    ),
    20_000,
)

# --- who is calling -----------------------------------------------------------------------------------------------------


def run_introduction(data: bytes) -> None:
    """A PROXY header, whole and octet by octet; and the same octets as the argument of XCLIENT and XFORWARD."""
    whole = _introduced(data)
    if not isinstance(whole, str) and whole is not None:
        holds(whole.size <= min(len(data), MAX_HEADER), f"a header of {whole.size} octets")
        holds(_introduced(data[: whole.size]) == whole, "what follows the header counts")
        holds(all(_introduced(data[:at]) is None for at in range(1, whole.size, 7)), "a part of a header is a header")
    for offered in (XCLIENT, XFORWARD):
        try:
            claim = parse_claim(data, offered)
        except CommandError as error:
            is_clean_reply(error.reply)
            continue
        holds(claim.helo is None or (claim.helo.isascii() and claim.helo.isprintable()), f"HELO {claim.helo!r}")


def _introduced(data: bytes) -> object:
    try:
        return parse_proxy(data)
    except ProxyError as error:
        return str(error)


_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
INTRODUCTIONS = Target(
    "introductions",
    run_introduction,
    (
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 25\r\nEHLO x\r\n",
        b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 1 25\r\n",
        b"PROXY UNKNOWN whatever\r\n",
        _SIGNATURE + b"\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x10\x00\x00\x19EHLO",
        _SIGNATURE + b"\x21\x21\x00\x27" + bytes(range(36)) + b"\x04\x00\x00",
        _SIGNATURE + b"\x20\x00\x00\x00",
        b"NAME=mx.a.test ADDR=192.0.2.1 PROTO=ESMTP HELO=mx.a.test",
        b"ADDR=IPv6:2001:db8::1 PORT=25 HELO=[TEMPUNAVAIL] IDENT=x SOURCE=REMOTE",
    ),
    (
        *(
            b"PROXY ",
            b"TCP4 ",
            b"TCP6 ",
            b"UNKNOWN",
            b"\r\n",
            b"\n",
            b" ",
            b"  ",
            b"\t",
            b"\0",
            b"65536",
            b"0",
            b"00",
            b"+25",
            b"-1",
            b"255.255.255.255",
        ),
        *(
            _SIGNATURE,
            b"\x21\x11",
            b"\x21\x21",
            b"\x21\x31",
            b"\x22",
            b"\xff\xff",
            b"\x08\x00",
            b"::",
            b"::1%lo",
            b"%",
            b"\xd9\xa1",
            b"\xff",
        ),
        *(
            b"ADDR=",
            b"HELO=",
            b"PROTO=",
            b"LOGIN=x",
            b"NAME=",
            b"=",
            b"+",
            b"+0D+0A",
            b"+zz",
            b"[UNAVAILABLE]",
            b"IPV6:",
            b"\x0b",
            b"\x85",
        ),
    ),
    3000,
)
