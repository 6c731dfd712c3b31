"""Who signed this message, and how do we sign? DKIM: RFC 6376, with RFC 8301, 8463 and 8616."""

from __future__ import annotations

from forwarder.auth.dkim.sign import build_dkim_signature, sign_dkim
from forwarder.auth.dkim.verify import key_names, verify_dkim

__all__ = ["build_dkim_signature", "key_names", "sign_dkim", "verify_dkim"]
