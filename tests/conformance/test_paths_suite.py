"""MAIL and RCPT arguments of three other servers. Leniencies that RFC 5321 does not ask for are listed, not met."""

from __future__ import annotations

import csv
import json
import re
from typing import Any

from forwarder.mail.address import ascii_domain
from forwarder.model import Address
from forwarder.smtp.commands import CommandError, parse_mail, parse_rcpt
from tests.suites import badinputs, suite

ALL = frozenset({"SIZE", "8BITMIME", "SMTPUTF8", "DSN"})

#: Taken there and refused here, or the other way round, each for its reason.
LENIENT = re.compile(
    r"""
    MAIL\ FROM\ :            # a space before the colon
    | :\s*[^\s<][^>]*@       # no angle brackets
    | <[^"@>]*\.@            # a dot-string that ends with a dot (one upstream option allows it)
    | CUSTOM= | REQUIRETLS   # extensions that are not offered
    """,
    re.VERBOSE,
)


def _parse(case: dict[str, Any]) -> tuple[Address | None, dict[str, Any]]:
    line = case.get("line") or f"MAIL FROM:{case['path']}"
    verb, _, argument = line.partition(" ")
    if verb == "RCPT":
        rcpt = parse_rcpt(argument.encode(), smtputf8=True, postmaster_domain="mx.test", offered=ALL)
        return rcpt.address, {"NOTIFY": rcpt.notify, "ORCPT": rcpt.orcpt}
    # The suite gives no SMTPUTF8 with its UTF-8 addresses.
    utf8 = b"" if argument.isascii() else b" SMTPUTF8"
    mail = parse_mail(argument.encode() + utf8, max_size=0, offered=ALL)
    args = {"SIZE": mail.size, "BODY": str(mail.body), "RET": mail.ret, "ENVID": mail.envid, "SMTPUTF8": mail.smtputf8}
    return mail.sender, args


def _wrong(case: dict[str, Any]) -> str | None:
    expected = case["expect"]
    # "MAIL TO" is a verb that does not fit its argument: the argument alone is good.
    if case.get("command") == "MAIL TO":
        expected = False
        case = case | {"line": "MAIL TO:" + case["line"].partition(":")[2]}
    try:
        address, args = _parse(case)
    except CommandError as error:
        return None if expected is False else f"refused: {error}"
    if expected is False:
        return f"taken: {address}"
    if expected is None:
        return None
    if "address" in expected and str(address or "") != expected["address"]:
        return f"read as {address}"
    if "host" in expected and (address is None or ascii_domain(address.domain) != expected["host"]):
        return f"domain of {address}"
    if "user" in expected and (address is None or address.local != expected["user"]):
        return f"local part of {address}"
    for name, value in (expected.get("args") or {}).items():
        if args.get(name) != value and str(args.get(name)) != str(value):
            return f"{name} is {args.get(name)}"
    return None


def test_arguments_are_read_and_refused_as_rfc_5321_says() -> None:
    wrong = []
    for case in json.loads((suite("smtp-paths") / "cases.json").read_text()):
        found = _wrong(case)
        if found is not None and not LENIENT.search(case.get("line") or f"MAIL FROM:{case['path']}"):
            wrong.append((case["id"], case.get("line") or case.get("path"), case["expect"], found))
    assert wrong == []


# --- hostile dialogues ------------------------------------------------------------------------------------------------


def _unescaped(text: str) -> bytes:
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1")


def test_hostile_mail_and_rcpt_commands_get_the_reply_they_must_get() -> None:
    folder = badinputs()
    wrong = []
    seen = 0
    with (folder / "index.tsv").open(encoding="utf-8") as index:
        rows = list(csv.DictReader(index, delimiter="\t", quoting=csv.QUOTE_NONE))
    for row in rows:
        # What is about counting is no matter of grammar.
        if row["category"] != "C addresses" or "421" in row["expected_regex"] or "452" in row["expected_regex"]:
            continue
        sent = [one[2:] for one in (folder / row["file"]).read_text().splitlines() if one.startswith("> ")]
        verb, _, argument = _unescaped(sent[-1]).removesuffix(b"\r\n").partition(b" ")
        try:
            if verb == b"MAIL":
                parse_mail(argument, max_size=40_000_000, offered=ALL)
            elif verb == b"RCPT" and b"{{" not in argument:
                parse_rcpt(argument, smtputf8=False, postmaster_domain="mx.test", offered=ALL)
            else:
                continue
        except CommandError as error:
            replies = [str(error.reply)]
        else:
            # Whether the address exists, and may be relayed to, is for others to say.
            replies = ["250 2.1.0 OK", *(["550 5.1.1 no such address"] if verb == b"RCPT" else [])]
        seen += 1
        if not any(re.match(row["expected_regex"], reply) for reply in replies):
            wrong.append((row["file"], row["what"], row["expected_regex"], replies))
    assert wrong == []
    assert seen > 15
