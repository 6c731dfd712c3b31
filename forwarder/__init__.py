"""mailkey-forwarder: accept mail for aliases, verify it, rewrite it reversibly, sign it, deliver it, bring bounces home."""

__version__ = "0.1.0"
