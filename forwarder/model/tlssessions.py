"""How were next hops connected to?"""

from __future__ import annotations

from enum import StrEnum

from forwarder.values import value


class TlsResult(StrEnum):
    """How TLS with a mail host went: RFC 8460 section 4.3."""

    SUCCESS = "success"
    NOT_SUPPORTED = "starttls-not-supported"
    HOST_MISMATCH = "certificate-host-mismatch"
    EXPIRED = "certificate-expired"
    NOT_TRUSTED = "certificate-not-trusted"
    FAILURE = "validation-failure"
    POLICY_FETCH = "sts-policy-fetch-error"
    POLICY_INVALID = "sts-policy-invalid"
    POLICY_CERTIFICATE = "sts-webpki-invalid"


@value
class TlsSession:
    """One kind of connection to the mail hosts of ``domain``, to be counted. ``kind`` (``tlsa``, ``sts`` or ``no-policy-found``),
    ``policy`` and ``patterns`` are policy-type, policy-string and mx-host of RFC 8460 section 4.2. ``host``, ``address`` and
    ``reason`` are empty where all went well."""

    domain: str
    kind: str
    policy: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    result: TlsResult = TlsResult.SUCCESS
    host: str = ""
    address: str = ""
    reason: str = ""
