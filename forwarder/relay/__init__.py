"""The way out: deliver to the next hop over SMTP (RFC 5321). ``SmtpRelay`` stands behind the Relay door."""

from forwarder.relay.attempt import MAYBE_DELIVERED
from forwarder.relay.relay import SmtpRelay
from forwarder.relay.settings import RelaySettings, Timeouts
from forwarder.relay.tls import NoTls, Opportunistic, TlsPolicy, Verified

__all__ = [
    "MAYBE_DELIVERED",
    "NoTls",
    "Opportunistic",
    "RelaySettings",
    "SmtpRelay",
    "Timeouts",
    "TlsPolicy",
    "Verified",
]
