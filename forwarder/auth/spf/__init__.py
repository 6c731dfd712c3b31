"""May this client use this domain in MAIL FROM or HELO? Sender Policy Framework, RFC 7208."""

from __future__ import annotations

from forwarder.auth.spf.verify import verify_spf

__all__ = ["verify_spf"]
