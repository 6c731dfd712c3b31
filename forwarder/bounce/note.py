"""How does the reader of a report keep others from forging their address? The note that ends a report's part for people.

Step five of the proposal of 2003: every bounce tells its reader of the mailkey. The note is a text with two marks,
``{domain}`` and ``{url}``; it names the domain of the address that the report goes to, and nothing else of the message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from forwarder.auth.dnsname import MAX_NAME, dns_name

__all__ = ["DEFAULT", "MAX_NOTE", "check_template", "compose_note"]

#: Octets of a note before its marks are filled in: a note, not a letter.
MAX_NOTE = 2048
#: RFC 5322 section 2.1.1: octets of a line, whatever comes in the place of a mark.
_MAX_LINE = 998
_LONGEST = {"{domain}": "d" * MAX_NAME, "{url}": "u" * 200}

#: What is published begins with o=test: who only follows this note breaks no mail of theirs.
DEFAULT = """\
Did you not send that message? Then somebody has used your address, and so
far nothing at {domain} keeps them from it. A mailkey does. On your side,
make a key (its private half never leaves your machine):

    forwarder mailkey keygen --domain {domain}
    forwarder mailkey record --domain {domain} --policy test --key FILE

publish what the second prints, which is one TXT record of this form, and
sign what you send:

    mailkey.{domain}. IN TXT "v=mailkey1; k=ed25519; p=<your key>; o=test"

How to sign, and when to go on to o=all: {url}
"""

_HOST = re.compile(r"[a-z0-9_][a-z0-9_-]*(?:\.[a-z0-9_][a-z0-9_-]*)+")


def check_template(text: str) -> None:
    """Raises ValueError, with the reason, for a text that cannot be a note."""
    if not text.isascii():
        raise ValueError("must be ASCII: a report is read everywhere")
    if len(text) > MAX_NOTE:
        raise ValueError(f"longer than {MAX_NOTE} characters")
    for number, line in enumerate(text.splitlines(), 1):
        if len(_filled(line, _LONGEST)) > _MAX_LINE:
            raise ValueError(f"line {number} may grow beyond {_MAX_LINE} characters with a long domain in it")
        if not line.replace("\t", " ").isprintable():
            raise ValueError(f"line {number} holds a control character")
    if "{domain}" not in text:
        raise ValueError("must hold {domain}, where the reader's domain goes")


def compose_note(template: str, domain: str, url: str) -> str | None:
    """The note for ``domain``; ``None`` where that is no name under which a record could be published."""
    name = dns_name(domain)
    # No address literal, nothing that a shell or a zone file reads in another way; and RFC 1035 section 2.3.4 with mailkey.
    if name is None or not _HOST.fullmatch(name) or dns_name(f"mailkey.{name}") is None:
        return None
    return _filled(template, {"{domain}": name, "{url}": url}).strip("\r\n")


def _filled(text: str, marks: Mapping[str, str]) -> str:
    return re.sub(r"\{(?:domain|url)\}", lambda mark: marks[mark[0]], text)
