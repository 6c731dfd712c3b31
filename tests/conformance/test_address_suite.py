"""is_email addresses in an SMTP path: errors are refused, what RFC 5321 allows is taken (the pass rule of the set)."""

from __future__ import annotations

import json

from forwarder.mail.address import AddressError, parse_path
from tests.suites import suite

MUST_REFUSE = {"ISEMAIL_ERR"}
MUST_TAKE = {"ISEMAIL_VALID_CATEGORY", "ISEMAIL_DNSWARN", "ISEMAIL_RFC5321"}


def test_errors_are_refused_and_rfc_5321_is_taken() -> None:
    wrong = []
    for case in json.loads((suite("addr-isemail") / "cases.json").read_text()):
        try:
            path = parse_path(f"<{case['address']}>".encode(), smtputf8=True)
            taken = path.rest == ""
        except AddressError:
            taken = False
        if case["category"] in (MUST_REFUSE if taken else MUST_TAKE):
            wrong.append((case["id"], case["address"], case["diagnosis"], taken))
    assert wrong == []
