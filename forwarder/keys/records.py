"""What is to be published for a key? RFC 6376 section 3.6.1 (DKIM), RFC 8463 section 4 (ed25519), docs/mailkey.md (mailkey)."""

from __future__ import annotations

import base64

from forwarder.keys.files import Key

__all__ = ["dkim_name", "dkim_record", "mailkey_name", "mailkey_record", "public_record", "record_name"]


def mailkey_name(key: Key) -> str:
    """Where a mailkey's record is."""
    return f"{key.selector}.mailkey.{key.domain}" if key.selector else f"mailkey.{key.domain}"


def dkim_name(key: Key) -> str:
    """Where a DKIM or ARC key's record is."""
    return f"{key.selector}._domainkey.{key.domain}"


def record_name(kind: str, key: Key) -> str:
    """Where the record of a key of this kind, "mailkey" or "dkim", is."""
    return mailkey_name(key) if kind == "mailkey" else dkim_name(key)


def public_record(key: Key) -> str:
    """The value of ``p=``."""
    return base64.b64encode(key.public()).decode("ascii")


def dkim_record(key: Key) -> str:
    """The TXT record at ``<selector>._domainkey.<domain>`` (RFC 6376 section 3.6.1)."""
    return f"v=DKIM1; k={key.algorithm.partition('-')[0]}; p={public_record(key)}"


def mailkey_record(key: Key, policy: str = "all") -> str:
    """The TXT record at ``mailkey.<domain>``, or at ``<selector>.mailkey.<domain>`` for a named key."""
    if policy not in ("all", "some", "test"):
        raise ValueError("the policy is all, some or test")
    return f"v=mailkey1; k={key.algorithm.partition('-')[0]}; p={public_record(key)}; o={policy}"
