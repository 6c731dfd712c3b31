"""Did the server show the certificate that was asked for? RFC 6125 for names, RFC 7671 and 7672 section 3 for DANE."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    ServerVerifier,
    Store,
    VerificationError,
)

from forwarder.ports import Tlsa
from forwarder.relay.tls import DIGESTS, Dane, TlsPolicy, Usage, Verified

__all__ = ["certificate_fault", "certificate_matches", "dane_fault", "public_key"]

#: Certificates of a chain that are looked at.
_MAX_CHAIN = 10
#: ssl's own ENCODING_DER.
_DER = 2


def certificate_fault(policy: TlsPolicy, session: ssl.SSLObject) -> str | None:
    """What is wrong after a handshake that went well; ``None``: nothing."""
    match policy:
        case Verified(names):
            try:
                matches = certificate_matches(session.getpeercert() or {}, names)
            except (OSError, ValueError):
                # What a trusted authority signed may still hold octets that ssl cannot read.
                return "TLS certificate cannot be read"
            return None if matches else "TLS certificate is for another name"
        case Dane():
            fault = dane_fault(policy, _peer_chain(session))
            return fault and f"TLS certificate is not what DANE asks for: {fault}"
        case _:
            return None


def certificate_matches(certificate: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    """Is this (``SSLObject.getpeercert()``) a certificate for one of these host names or addresses? RFC 6125 section 6.4: DNS
    names of the subjectAltName only; ``*`` stands for the whole leftmost label. RFC 9525 section 6.5: an address is itself."""
    sans = certificate.get("subjectAltName", ())
    if ({_ip(name) for name in names} & {_ip(value) for kind, value in sans if kind == "IP Address"}) - {None}:
        return True
    held = {value.lower() for kind, value in sans if kind == "DNS"}
    wanted = {name.lower().rstrip(".") for name in names if _ip(name) is None}
    return bool(held & (wanted | {f"*.{parent}" for _, dot, parent in (name.partition(".") for name in wanted) if dot}))


def _ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def dane_fault(policy: Dane, chain: Sequence[bytes]) -> str | None:
    """``chain`` is what the server sent, DER, its own certificate first; nobody has judged it."""
    if not chain:
        return "there is none"
    # RFC 7672 section 3.1.1: names and dates do not count.
    if any(_is_for(one, chain[0]) for one in policy.records if one.usage == Usage.DANE_EE):
        return None
    authorities = [one for one in policy.records if one.usage == Usage.DANE_TA]
    return _authority_fault(authorities, chain[:_MAX_CHAIN], policy.names) if authorities else "no record is for it"


def _peer_chain(session: ssl.SSLObject) -> list[bytes]:
    # Python has a public name for it from 3.13 on.
    if hasattr(session, "get_unverified_chain"):
        return list(session.get_unverified_chain())
    return [one.public_bytes(_DER) for one in session._sslobj.get_unverified_chain() or ()]  # type: ignore[attr-defined]


def _is_for(record: Tlsa, certificate: bytes) -> bool:
    """RFC 6698 section 2.1: is the record for this certificate?"""
    selected = certificate if record.selector == 0 else public_key(certificate)
    if selected is None:
        return False
    return record.data == (selected if record.matching == 0 else DIGESTS[record.matching](selected).digest())


# --- authorities -------------------------------------------------------------------------------------------------------


def _authority_fault(records: Sequence[Tlsa], chain: Sequence[bytes], names: Sequence[str]) -> str | None:
    """RFC 7672 section 3.1.2, 3.2.2: a chain to an authority that a record is for, and one of the names."""
    found = [one for one in chain[1:] if any(_is_for(record, one) for record in records)]
    # RFC 7671 section 5.2.1: a whole certificate in a record need not be sent.
    found += [one.data for one in records if (one.selector, one.matching) == (0, 0)]
    try:
        leaf, *others = map(x509.load_der_x509_certificate, chain)
        anchors = list(map(x509.load_der_x509_certificate, found))
    except Exception:  # noqa: BLE001 - hostile octets: whatever the parser raises (and not all is a ValueError), they are none
        return "it is malformed"
    if not anchors:
        return "no record is for it or its authorities"
    faults = [_chain_fault(anchors, leaf, others, name) for name in names]
    return None if None in faults else faults[0]


def _chain_fault(
    anchors: list[x509.Certificate], leaf: x509.Certificate, others: list[x509.Certificate], name: str
) -> str | None:
    try:
        _verifier(anchors, name).verify(leaf, others)
    except (VerificationError, ValueError) as error:
        # The rest quotes the certificate.
        return str(error).removeprefix("validation failed: ").partition(" (encountered")[0][:200]
    except Exception:  # noqa: BLE001 - as above: extensions are read only now
        return "it is malformed"
    return None


def _verifier(anchors: list[x509.Certificate], name: str) -> ServerVerifier:
    builder = PolicyBuilder().store(Store(anchors))
    return builder.extension_policies(ca_policy=_AUTHORITY, ee_policy=_SERVER).build_server_verifier(x509.DNSName(name))


def _may_sign(_: Policy, __: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("an issuer is no authority")


def _may_sign_certificates(_: Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("an issuer may not sign certificates")


def _may_serve(_: Policy, __: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    if usage is not None and not {_SERVER_AUTH, _ANY_USAGE} & set(usage):
        raise ValueError("it is not for a server")


_SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
_ANY_USAGE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
# A domain's own authority is made by hand: what RFC 5280 needs is asked for, and not what browsers add.
_AUTHORITY = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _may_sign)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign_certificates)
)
_SERVER = (
    ExtensionPolicy.permit_all()
    .require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _may_serve)
)


# --- DER ---------------------------------------------------------------------------------------------------------------

# X.690 section 8.1: what TBSCertificate (RFC 5280 section 4.1) begins with.
_SEQUENCE, _VERSION = 0x30, 0xA0
#: serialNumber, signature, issuer, validity, subject.
_BEFORE_KEY = 5


def public_key(certificate: bytes) -> bytes | None:
    """The octets of the SubjectPublicKeyInfo as they stand; ``None``: this is no certificate.

    A library would load the key and write it anew, which fails for kinds that it does not know, and is not the same octets
    for some that it does (RSASSA-PSS).
    """
    try:
        _, start, _ = _element(certificate, 0, _SEQUENCE)
        _, at, _ = _element(certificate, start, _SEQUENCE)
        tag, _, end = _element(certificate, at)
        at = end if tag == _VERSION else at
        for _ in range(_BEFORE_KEY):
            _, _, at = _element(certificate, at)
        _, _, end = _element(certificate, at, _SEQUENCE)
    except (IndexError, ValueError):
        return None
    return certificate[at:end]


def _element(data: bytes, at: int, wanted: int | None = None) -> tuple[int, int, int]:
    """Tag, and where the contents begin and end."""
    tag, length, start = data[at], data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(data[start : start + size], "big"), start + size
    if start + length > len(data) or (wanted is not None and tag != wanted):
        raise ValueError("not what a certificate is made of")
    return tag, start, start + length
