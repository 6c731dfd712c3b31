"""cli/authenticate: JSON lines in, verdicts out, and a bad line stops nothing."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any

from tests.suites import ROOT, badinputs

MESSAGE = b"From: a@author.example\r\nSubject: x\r\n\r\nbody\r\n"
DNS = {
    "author.example": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"], "MX": ["10 mx.author.example"]},
    "_dmarc.author.example": {"TXT": ["v=DMARC1; p=reject"]},
}


def run(*lines: object, json_out: bool = True) -> list[Any]:
    text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines)
    command = [sys.executable, "-m", "forwarder", "authenticate", *(["--json"] if json_out else [])]
    done = subprocess.run(command, input=text.encode(), capture_output=True, cwd=ROOT, check=False, timeout=60)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    out = done.stdout.decode()
    return [json.loads(line) for line in out.splitlines()] if json_out else [out]


def case(**changes: object) -> dict[str, object]:
    return {
        "id": "one",
        "message": base64.b64encode(MESSAGE).decode(),
        "ip": "192.0.2.1",
        "helo": "mx.author.example",
        "mail_from": "a@author.example",
        "rcpt_to": "b@fwd.example",
        "time": 1795430000,
        "dns": DNS,
        "authserv_id": "mx.fwd.example",
    } | changes


def test_every_check_has_its_place_in_the_answer() -> None:
    [out] = run(case())
    assert out["id"] == "one"
    assert out["spf"] == {
        "result": "pass",
        "domain": "author.example",
        "reason": out["spf"]["reason"],
        "explanation": None,
    }
    assert out["dkim"] == []
    assert out["arc"]["result"] == "none"
    assert (out["dmarc"]["result"], out["dmarc"]["policy"]) == ("pass", "reject")
    assert out["dmarc"]["aligned_by"] == "spf:author.example"
    assert out["mailkey"]["result"] == "none"
    assert out["authentication_results"].startswith("mx.fwd.example; ")
    assert out["dns_queries"] > 0
    assert out["elapsed_ms"] >= 0


def test_faults_of_the_dns_are_temperrors_and_absent_names_do_not_exist() -> None:
    servfail, timeout, empty = run(
        case(dns={"author.example": {"TXT": "SERVFAIL"}}), case(dns={"author.example": {"*": "TIMEOUT"}}), case(dns={})
    )
    assert servfail["spf"]["result"] == timeout["spf"]["result"] == "temperror"
    assert empty["spf"]["result"] == "none"
    assert empty["mailkey"]["result"] == "none"


def test_the_null_sender_is_the_empty_string_and_is_checked_as_the_helo() -> None:
    [out] = run(case(mail_from="", dns={"mx.author.example": {"TXT": ["v=spf1 -all"]}}))
    assert (out["spf"]["result"], out["spf"]["domain"]) == ("fail", "mx.author.example")
    assert out["sender_verified_by"] is None


def test_a_bad_line_says_why_and_the_run_goes_on() -> None:
    lines = run(
        "{",
        case(id=7, ip="nonsense"),
        case(id=8, message="*"),
        case(id=9, helo=1),
        case(id=10, expect="pass", helo=None),
    )
    assert [one["id"] for one in lines] == [None, 7, 8, 9, 10]
    assert ["error" in one for one in lines] == [True, True, True, True, False]


def test_a_table_for_people_shows_no_control_octets() -> None:
    [text] = run(case(helo="a\u001b[2Jb"), json_out=False)
    assert "spf" in text
    assert "\x1b" not in text


def test_the_hostile_messages_get_the_results_they_must() -> None:
    """The words before a bracket or comma of each row's expectation, for the methods that the row names."""
    folder = badinputs()
    zone: dict[str, dict[str, Any]] = {}
    for line in (folder / "auth" / "zone.tsv").read_text().splitlines():
        if line.startswith("#"):
            continue
        name, rdtype, _, value = line.split("\t")
        if rdtype == "FAULT":
            zone[name] = {} if value == "NXDOMAIN" else {"*": "TIMEOUT" if value == "TIMEOUT" else "SERVFAIL"}
        else:
            zone.setdefault(name, {}).setdefault(rdtype, []).append(value)
    zone = {name: types for name, types in zone.items() if types}
    rows = [line.split("\t") for line in (folder / "auth_index.tsv").read_text().splitlines()[1:]]
    cases = [
        case(
            id=row[0],
            message=base64.b64encode((folder / row[0]).read_bytes()).decode(),
            mail_from="a@origin.example",
            dns=zone,
        )
        for row in rows
        if (folder / row[0]).exists()
    ]
    out = {one["id"]: one for one in run(*cases)}
    # By the clock: what a busy machine made of one run, it does not make of the same message again and again.
    for _ in range(2):
        slow = [one for one in cases if out[one["id"]]["elapsed_ms"] > 500]
        out |= {one["id"]: one for one in run(*slow)} if slow else {}
    wrong = []
    for row in rows:
        if row[0] not in out:
            continue
        got = out[row[0]]
        found = {
            "dkim": {one["result"] for one in got["dkim"]},
            "arc": {got["arc"]["result"]},
            "dmarc": {got["dmarc"]["result"]},
        }
        for word in row[2].replace(",", " ").replace(";", " ").replace(":", " ").split():
            method, equal, wanted = word.partition("=")
            negated = method.endswith("!")
            if equal and method.rstrip("!") in found and wanted[0].isalpha():
                hit = bool(found[method.rstrip("!")] & set(wanted.split("|")))
                if hit is negated:
                    wrong.append((row[0], row[2], found))
        if got["elapsed_ms"] > 500:
            wrong.append((row[0], "500 ms", got["elapsed_ms"]))
    assert wrong == []
    assert len(out) >= 33


def test_a_line_nested_too_deep_is_an_error_of_that_line() -> None:
    deep = '{"id": "deep", "dns": ' + "[" * 100_000
    first, second = run(deep, case())
    assert first["error"]
    assert second["id"] == "one"
