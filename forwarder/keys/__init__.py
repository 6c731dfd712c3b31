"""Private keys and secrets: ``files`` reads and makes them, ``records`` says what is published for them, ``ring`` which key
signs; ``staged`` finds the new ones, ``published`` what the DNS shows, ``usage`` remembers, ``watch`` switches;
``multibuffer`` makes several signatures at once.
"""

from forwarder.keys.files import (
    LEAST_DKIM_BITS,
    LEAST_MAILKEY_BITS,
    MAX_FILE,
    Key,
    KeyFile,
    KeyFileError,
    LegacyFile,
    generate_ed25519,
    generate_rsa,
    generate_secret,
    load_key,
    load_legacy_secrets,
    load_secrets,
    read_private,
)
from forwarder.keys.records import dkim_name, dkim_record, mailkey_name, mailkey_record, public_record, record_name
from forwarder.keys.ring import Keys

__all__ = [
    "LEAST_DKIM_BITS",
    "LEAST_MAILKEY_BITS",
    "MAX_FILE",
    "Key",
    "KeyFile",
    "KeyFileError",
    "Keys",
    "LegacyFile",
    "dkim_name",
    "dkim_record",
    "generate_ed25519",
    "generate_rsa",
    "generate_secret",
    "load_key",
    "load_legacy_secrets",
    "load_secrets",
    "mailkey_name",
    "mailkey_record",
    "public_record",
    "read_private",
    "record_name",
]
