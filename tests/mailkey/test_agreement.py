"""Do the two verifiers agree on what nobody thought of? Valid vectors, mutated from a fixed seed.

Where they do not, one of them is wrong or docs/mailkey.md leaves something open: the document is mended first.
"""

from __future__ import annotations

import json
import os
import random
import re
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from forwarder.auth.mailkey import verify_mailkey
from forwarder.auth.suffix import is_public_suffix
from forwarder.edge.data import refuse_bytes
from forwarder.mail.address import AddressError, parse_address
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.resolver import ZoneError, ZoneResolver
from tests.auth.signers import run
from tests.mailkey import independent
from tests.mailkey.vectors import CASES, WORDS, reason_word
from tests.vectors.make_mailkey import ALICE, BOB, CAROL, PLAIN, WEEK, T, record, sign

#: More of them: ``AGREEMENT_EXAMPLES=100000 ./scripts/test tests/mailkey/test_agreement.py``.
EXAMPLES = int(os.environ.get("AGREEMENT_EXAMPLES", "2000"))
_PIECES = (
    b"",
    b" ",
    b"\t",
    b";",
    b"=",
    b":",
    b"\r\n ",
    b",",
    b"A",
    b"0",
    b"\x01",
    b"\xc3\xab",
    b"v=1;",
    b"s=k1;",
    b"o=test;",
    b"p=;",
)
_CHARS = "".join(one.decode() for one in _PIECES if one != b"\r\n ")

Case = dict[str, Any]


def program(case: Case) -> dict[str, Any]:
    octets = b64decode(case["message"])
    if refuse_bytes(octets):
        raise MalformedMessage("bare line ends")
    check = run(
        verify_mailkey(
            ZoneResolver(case["dns"]),
            parse_message(octets),
            sender=parse_address(case["mail_from"]) if case["mail_from"] else None,
            helo=case["helo"],
            recipients=[parse_address(one) for one in case["rcpt_to"]],
            now=datetime.fromtimestamp(case["time"], UTC),
            is_public_suffix=is_public_suffix,
        )
    )
    names = ("policy", "bound", "signer", "selector")
    return {name: getattr(check, name) for name in names} | {
        "result": check.result.value,
        "reason": reason_word(check.reason),
    }


def _splice(dice: random.Random, octets: bytes, start: int, end: int) -> bytes:
    """One piece put in, one octet taken out or one changed, between two places."""
    at = dice.randrange(start, max(start + 1, end))
    piece = dice.choice(_PIECES)
    return octets[:at] + piece + octets[at + dice.choice((0, 1, 1)) :]


def in_the_field(dice: random.Random, case: Case) -> None:
    message = b64decode(case["message"])
    field = re.match(rb"(?i)mailkey-signature:[^\n]*\n(?:[ \t][^\n]*\n)*", message)
    case["message"] = b64encode(_splice(dice, message, 18, field.end() - 2 if field else 40)).decode()


def in_the_message(dice: random.Random, case: Case) -> None:
    message = b64decode(case["message"])
    case["message"] = b64encode(_splice(dice, message, 0, len(message))).decode()


def in_a_record(dice: random.Random, case: Case) -> None:
    for types in case["dns"].values():
        if isinstance(types.get("TXT"), list):
            at = dice.randrange(len(types["TXT"]))
            text = types["TXT"][at]
            where = dice.randrange(min(len(text), 80) + 1)
            types["TXT"][at] = text[:where] + dice.choice(_CHARS) + text[where + dice.choice((0, 1)) :]


def in_the_transaction(dice: random.Random, case: Case) -> None:
    match dice.randrange(5):
        case 0:
            case["mail_from"] = dice.choice(
                ["", BOB, "Bob@sender.example", "bob@SENDER.example", "bob@a.sender.example"]
            )
        case 1:
            case["rcpt_to"] = dice.sample([ALICE, CAROL, "alice@FWD.example", "Alice@fwd.example"], dice.randint(1, 3))
        case 2:
            case["time"] += dice.choice([-1, 1]) * dice.choice([1, 300, 301, 86400, 86401, WEEK, 2 * WEEK])
        case 3:
            name = dice.choice(sorted(case["dns"]) or ["mailkey.sender.example"])
            case["dns"][name] = dice.choice([{"TXT": "TIMEOUT"}, {"TXT": ["v=mailkey1; p="]}, {"TXT": ["junk"]}, {}])
        case _:
            case["helo"] = dice.choice(
                ["", "sender.example", "[192.0.2.1]", "mx.sender.example.", "b\u00fccher.example", "a..b"]
            )


def signed_anew(dice: random.Random, case: Case) -> None:
    """A field with odd but rightly signed tags: what is legal and rare."""
    tags = dice.choice(
        [
            {
                "h": dice.choice(
                    ["FROM", "from: to :subject", "from:x-none", "from:mailkey-signature", "from::", "from:a;b=c"]
                )
            },
            {"t": dice.choice(["0", "000", str(T + 86400), f"0{T}", "+5"])},
            {"x": dice.choice([str(T + 1), str(T + 2 * WEEK), str(T + 2 * WEEK + 1), f"000{T + WEEK}"])},
            {
                "d": dice.choice(
                    ["sender.example.", "SENDER.example", "example", "a.sender.example", "_x.example", "-a.example"]
                )
            },
            {"add": {dice.choice(["Zz", "z-z", "b2", "9", "c", "I", "L"]): dice.choice(["", "1", "a=b", "\u00eb"])}},
            {"mf": dice.choice([f"<{BOB}>", "<>", "<bob@Sender.example>", "bob"])},
            {"rt": dice.sample([ALICE, CAROL, BOB], dice.randint(1, 3))},
            {"before": dice.choice([" ", "\r\n ", ";", "b=;", "q=;", "zz = 1 ;"])},
        ]
    )
    signed: Callable[..., Any] = sign
    field = signed(PLAIN, **tags).field
    above = b"" if dice.random() < 0.7 else sign(drop=dice.choice(["a", "x", "zz"])).field
    case["message"] = b64encode(above + field + PLAIN).decode()
    case["mail_from"], case["time"] = BOB, T + 100
    case["dns"] = {"mailkey.sender.example": {"TXT": [record(policy=dice.choice(["all", "some", "test"]))]}}


_MUTATIONS = (in_the_field, in_the_field, in_the_message, in_a_record, in_the_transaction, signed_anew)


def mutated(dice: random.Random) -> Case:
    case = deepcopy(dice.choice(CASES))
    for _ in range(dice.choice((1, 1, 1, 2))):
        dice.choice(_MUTATIONS)(dice, case)
    return case


def test_the_program_and_the_independent_verifier_agree_on_generated_messages() -> None:
    dice = random.Random(20031009)
    results: Counter[str] = Counter()
    reasons: Counter[str | None] = Counter()
    while results.total() < EXAMPLES:
        case = mutated(dice)
        try:
            found = program(case)
        except (MalformedMessage, AddressError, ZoneError):
            continue  # Refused before anything is verified.
        assert independent.verify(case) == found, json.dumps(case)
        results[found["result"]] += 1
        reasons[found["reason"]] += 1
    print(results, reasons)
    assert results["pass"] > EXAMPLES / 8
    assert results["fail"] + results["permerror"] > EXAMPLES / 4
    assert results["none"] > EXAMPLES / 50
    assert results["temperror"] > EXAMPLES / 50
    assert set(reasons) == {None, *WORDS, "bad-field"}
