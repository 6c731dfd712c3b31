"""The way out: deliver to the next hop over SMTP (RFC 5321). ``SmtpRelay`` stands behind the Relay door."""

from forwarder.relay.attempt import MAYBE_DELIVERED
from forwarder.relay.relay import SmtpRelay
from forwarder.relay.rules import Level, TlsRules
from forwarder.relay.settings import RelaySettings, Timeouts

__all__ = [
    "MAYBE_DELIVERED",
    "Level",
    "RelaySettings",
    "SmtpRelay",
    "Timeouts",
    "TlsRules",
]
