"""The attacks of "Composition Kills": an ambiguous From names nobody, the others name whom every reader sees."""

from __future__ import annotations

import json

from forwarder.mail.address import AddressError, parse_from, parse_path
from forwarder.mail.header import MalformedMessage, parse_message
from tests.suites import suite

#: The attacks on MAIL FROM and on DKIM carry an honest From field, and so do the ones by an account of the service.
PLAIN = {"server_a1", "server_a2", "server_a3", "server_a4", "server_a5", "server_a6", "server_a7", "server_a17"}
VICTIM = "legitimate.com"


def test_no_ambiguous_from_field_names_an_author() -> None:
    named = []
    for case in json.loads((suite("smtp-espoofer") / "cases.json").read_text())["cases"]:
        raw = (case["message_latin1"] or "").encode("latin-1")
        try:
            author = parse_from(parse_message(raw)).author
        except MalformedMessage:
            continue
        if author is not None and not case["id"].startswith("client") and case["id"] not in PLAIN:
            named.append((case["id"], str(author)))
    assert named == []


def test_no_mail_from_stands_for_the_domain_it_pretends_to() -> None:
    for case in json.loads((suite("smtp-espoofer") / "cases.json").read_text())["cases"]:
        try:
            path = parse_path(case["mail_from"].encode("latin-1", "replace"), smtputf8=True)
        except AddressError:
            continue
        assert path.address is None or path.address.domain != VICTIM, case["id"]
