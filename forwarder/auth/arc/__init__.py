"""Who handled this message before, and what did they see? ARC: RFC 8617. Sealed for others; trusted only by name."""

from __future__ import annotations

from forwarder.auth.arc.seal import build_arc_set, seal_set
from forwarder.auth.arc.trust import restoring_sealer
from forwarder.auth.arc.verify import key_names, verify_arc

__all__ = ["build_arc_set", "key_names", "restoring_sealer", "seal_set", "verify_arc"]
