"""Did the domain in From take part in this message, and what does it ask for if not? DMARC, RFC 9989."""

from __future__ import annotations

from forwarder.auth.dmarc.verify import verify_dmarc
from forwarder.auth.dmarc.walk import organizational_domain

__all__ = ["organizational_domain", "verify_dmarc"]
