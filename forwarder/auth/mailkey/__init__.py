"""Does the domain in MAIL FROM vouch for this message? mailkey version 1, as docs/mailkey.md specifies it."""

from __future__ import annotations

from forwarder.auth.mailkey.record import MailkeyRecord, parse_mailkey_record
from forwarder.auth.mailkey.sign import build_mailkey_signature, sign_mailkey
from forwarder.auth.mailkey.verify import verify_mailkey

__all__ = ["MailkeyRecord", "build_mailkey_signature", "parse_mailkey_record", "sign_mailkey", "verify_mailkey"]
