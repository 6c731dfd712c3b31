"""The cases of docs/mailkey.md section 12, and which of its reasons a text of the program is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "vectors" / "mailkey"
CASES: list[dict[str, Any]] = json.loads((FOLDER / "cases.json").read_text())

#: docs/mailkey.md section 9: the reasons and how the program's texts for them begin. What is none of these tells of a
#: tag of the field.
WORDS = {
    "no-domain": ("no domain that could have a mailkey",),
    "no-record": ("no mailkey record",),
    "unsigned": ("not signed",),
    "dns": (
        "no answer from the DNS for the mailkey",
        "no answer from the DNS for the key",
        "not answered within the deadline",
    ),
    "several-records": ("several mailkey records",),
    "bad-record": ("mailkey record: ", "mailkey record too large"),
    "other-sender": ("signed for another MAIL FROM",),
    "expired": ("mailkey signature expired",),
    "future": ("mailkey signature from the future",),
    "body": ("body hash does not match",),
    "signature": ("signature does not match",),
    "no-key": ("unknown key",),
    "revoked": ("mailkey revoked",),
    "bad-key": ("unknown k=", "RSA key ", "not an RSA key", "ed25519 key "),
    "wrong-algorithm": ("the key is not for this algorithm",),
    "key-host": ("the key is at the https key host alone",),
    "unbound": ("not signed for this recipient",),
}


def reason_word(text: str | None) -> str | None:
    """The reason of section 9 for what the program says."""
    if text is None:
        return None
    for word, beginnings in WORDS.items():
        for beginning in beginnings:
            whole = beginning[-1] != " " and word != "no-record"
            if text == beginning or (not whole and text.startswith(beginning)):
                return word
    return "bad-field"
