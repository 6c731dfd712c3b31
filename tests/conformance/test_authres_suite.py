"""Authentication-Results as five other parsers read them: what must be refused, and what every result says.

A case that must be refused is held against the strict reading; every other one against the reading for the real world.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

from forwarder.mail.authres import AuthenticationResults, MalformedResults, MethodResult, parse, render_results
from tests.suites import suite

# RFC 8601 section 2.7.7: unknown results are ignored, not refused; that parser's strictness is its own (suite README).
_UNKNOWN_RESULT = re.compile(r"lieser-arh-(18|19|20|21|22)\.")
_GO_FIELDS = {"From": "smtp.mailfrom", "Identifier": "header.i", "Auth": "smtp.auth", "HeaderValue": "header.from"}
_GO_METHODS = {"SPF": "spf", "DKIM": "dkim", "SenderID": "sender-id", "Auth": "auth", "DMARC": "dmarc"}


def _cases() -> list[dict[str, Any]]:
    cases = json.loads((suite("authres-vectors") / "cases.json").read_text())
    return list(cases["cases"] if isinstance(cases, dict) else cases)


def _value(case: dict[str, Any]) -> bytes:
    latin = "latin1" in case.get("encoding", "")
    value: bytes = case["input"].encode("latin-1" if latin else "utf-8")
    if value.lower().startswith(b"authentication-results:"):
        value = value.split(b":", 1)[1]
    return value.removesuffix(b"\r\n")


def test_what_must_be_refused_is_refused() -> None:
    accepted = []
    for case in _cases():
        if case["must_fail"] and not _UNKNOWN_RESULT.match(case["id"]):
            with contextlib.suppress(MalformedResults):
                accepted.append((case["id"], parse(_value(case), strict=True)))
    assert accepted == []


def test_every_other_case_reads_as_its_author_reads_it() -> None:
    wrong = []
    for case in _cases():
        if not case["must_fail"]:
            try:
                wrong += [(case["id"], *one) for one in _differences(case, parse(_value(case)))]
            except MalformedResults as error:
                wrong.append((case["id"], "refused", error))
    assert wrong == []


def test_what_was_read_is_written_and_read_again_unchanged() -> None:
    changed = []
    for case in _cases():
        value = _value(case)
        if not case["must_fail"] and value.isascii():
            read = parse(value)
            if read.authserv_id and all(one.method and one.result for one in read.results):
                again = parse(render_results(read))
                if again != read:
                    changed.append((case["id"], read, again))
    assert changed == []


def _differences(case: dict[str, Any], read: AuthenticationResults) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []

    def expect(what: str, actual: object, expected: object) -> None:
        if actual != expected:
            found.append((what, actual, expected))

    if "identifier" in case:
        expect("authserv-id", read.authserv_id, case["identifier"])
        expect("results", len(read.results), case.get("n_results", len(read.results)))
    for one, wanted in zip(read.results, case.get("results", ()), strict=False):
        expect("method", one.method, _GO_METHODS[wanted["type"]])
        expect("result", one.result, wanted["result"])
        for key, value in wanted["fields"].items():
            if key in _GO_FIELDS:
                expect(key, dict(one.properties).get(_GO_FIELDS[key]), value)
    for check in case.get("asserts", ()):
        expect(check["path"], _lieser(read, check["path"].split(".")), check["arg"])
    if case.get("parsed"):
        expect("tree", _tree(read), _perl(case["parsed"]))
    for one in case.get("evals", ()):
        # The doctests of one page read several headers into one name; only the first of a path belongs to the input.
        if one["path"] == "authserv_id":
            expect("authserv-id", read.authserv_id, one["str"])
    return found


def _lieser(read: AuthenticationResults, path: list[str]) -> object:
    match path:
        case ["authserv_id"]:
            return read.authserv_id
        case ["authres_version"]:
            return read.version
        case ["resinfo", "length"]:
            return len(read.results)
        case ["resinfo", index, "method_version"]:
            return read.results[int(index)].version
        case ["resinfo", index, "properties", *name]:
            return dict(read.results[int(index)].properties).get(".".join(name))
        case ["resinfo", index, name]:
            return getattr(read.results[int(index)], name)
        case _:
            raise AssertionError(path)


def _tree(read: AuthenticationResults) -> tuple[str, list[tuple[str, str, list[tuple[str, str]]]]]:
    return read.authserv_id, [(one.method, one.result, _pairs(one)) for one in read.results]


def _pairs(one: MethodResult) -> list[tuple[str, str]]:
    reason = [("reason", one.reason)] if one.reason is not None else []
    return [*reason, *one.properties]


def _perl(tree: dict[str, Any]) -> tuple[str, list[tuple[str, str, list[tuple[str, str]]]]]:
    entries = []
    for entry in tree["children"]:
        if entry["type"] == "entry":
            pairs = [(one["key"], one["value"]) for one in entry["children"] if one["type"] == "subentry"]
            entries.append((entry["key"], entry["value"], pairs))
    return tree["authserv_id"]["value"], entries
