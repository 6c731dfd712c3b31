"""What did a host find out about a message? Authentication-Results, RFC 8601: written, read, and recognized as our own.

``render`` says what our Verdict is; ``parse`` is its inverse and reads what others write; ``claims`` tells whether a
field that arrives pretends to be ours. Whatever came from outside is written as a token, a quoted string or not at
all: a domain with a quote or a parenthesis in it must not become a result ("Composition Kills" A4 and A5).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

from forwarder.kept import Kept
from forwarder.mail.address import AddressError, ascii_domain
from forwarder.model import (
    Address,
    ArcCheck,
    DkimCheck,
    DmarcCheck,
    Envelope,
    Field,
    MailkeyCheck,
    Result,
    SpfCheck,
    Verdict,
)
from forwarder.values import value

__all__ = [
    "AuthenticationResults",
    "MalformedResults",
    "MethodResult",
    "build_field",
    "claims",
    "parse",
    "render",
    "render_results",
    "results_of",
]

#: Octets of a value that are read, and results in it. Large receivers write ten results in 2 KB.
_MAX_VALUE = 16384
_MAX_RESULTS = 200
#: Words that can stand in the place of an authserv-id.
_MAX_ID_WORDS = 50
#: Comments within comments.
_MAX_COMMENT_DEPTH = 32
#: Answers of one DNS list that we write.
_MAX_CODES = 5
#: Characters of a reason that we write.
_MAX_REASON = 160
#: Characters of a value whose written form is kept: an i= can be as long as a header.
_KEPT_VALUE = 320
#: Characters of a result whose written form is kept, with those of its comment; and how many are.
_KEPT_RESULT = 1024
_KEPT_RESULTS = 512
#: Properties that each message has of its own.
_OF_A_MESSAGE = frozenset({"smtp.mailfrom", "header.b"})
#: RFC 5322 section 2.1.1: lines SHOULD be no longer than 78 characters, of which this leaves some for the signs around.
_FOLD_AT = 74


class MethodResult(NamedTuple):
    """One result. ``properties`` are pairs such as ``("smtp.mailfrom", "a@b.example")``, names in lower case; a name
    without a dot is no RFC 8601 property, but others write them. ``comment`` is the one behind the result word."""

    method: str
    result: str
    properties: tuple[tuple[str, str], ...] = ()
    comment: str | None = None
    reason: str | None = None
    version: int = 1


@value
class AuthenticationResults:
    """A field. ``authserv_id`` is ``""`` where the writer left it out; ``instance`` is the i= of RFC 8617."""

    authserv_id: str
    results: tuple[MethodResult, ...] = ()
    version: int = 1
    instance: int | None = None


class MalformedResults(ValueError):
    """The value cannot be read."""


# --- our own findings -------------------------------------------------------------------------------------------------


def build_field(value: bytes) -> bytes:
    """The whole Authentication-Results field around what ``render`` gave, with its final CRLF."""
    return b"Authentication-Results: " + value + b"\r\n"


def render(authserv_id: str, verdict: Verdict, envelope: Envelope) -> bytes:
    """The field's value, folded: behind ``Authentication-Results:``, or behind ``i=N;`` in RFC 8617's variant."""
    return render_results(AuthenticationResults(authserv_id, results_of(verdict, envelope)))


def results_of(verdict: Verdict, envelope: Envelope) -> tuple[MethodResult, ...]:
    """Every finding of the Verdict as a result."""
    # RFC 7208 section 2.4: without a reverse-path the identity is the EHLO name. mailkey does the same.
    helo = ("smtp.helo", envelope.peer.helo)
    sender = helo if envelope.sender is None else ("smtp.mailfrom", _mailbox(envelope.sender))
    results = [_mailkey(verdict.mailkey, sender), _spf(verdict.spf, sender)]
    if envelope.sender is not None and verdict.spf_helo.result is not Result.NONE:
        results.append(_spf(verdict.spf_helo, helo))
    if verdict.dkim:
        results.extend(map(_dkim, verdict.dkim))
    else:
        results.append(MethodResult("dkim", Result.NONE, (), "no signature"))
    results.append(_arc(verdict.arc, envelope))
    results.append(_dmarc(verdict.dmarc))
    results.extend(_caller(envelope))
    return tuple(results)


def _caller(envelope: Envelope) -> list[MethodResult]:
    caller = envelope.caller
    if caller is None:
        return []
    results = []
    if caller.iprev is not None:
        ip = envelope.peer.ip_text
        name = (("policy.name", caller.iprev.name),) if caller.iprev.name else ()
        results.append(MethodResult("iprev", caller.iprev.result, (("policy.iprev", ip), *name), caller.iprev.reason))
    if caller.helo is not None:
        # RFC 8601 section 2.7.6: a method of our own.
        what = (("smtp.helo", envelope.peer.helo), ("policy.helo", str(caller.helo.fact)))
        results.append(MethodResult("x-helo", caller.helo.result, what, caller.helo.reason))
    for one in caller.listed:
        # RFC 8904 has a method for lists of the good. Of the others RFC 8601 section 2.7.6 allows names that begin with x-.
        method, result = ("dnswl", Result.PASS) if one.weight < 0 else ("x-dnsbl", Result.FAIL)
        codes = tuple(("policy.ip", str(code)) for code in one.codes[:_MAX_CODES])
        results.append(MethodResult(method, result, (("dns.zone", one.zone), *codes)))
    return results


def _mailkey(check: MailkeyCheck, sender: tuple[str, str]) -> MethodResult:
    # docs/mailkey.md section 9
    properties = [sender]
    if check.signer:
        properties.append(("header.d", check.signer))
    if check.selector:
        properties.append(("header.s", check.selector))
    if check.bound:
        properties.append(("policy.rcpt", "bound"))
    return MethodResult("mailkey", check.result, tuple(properties), check.reason)


def _spf(check: SpfCheck, identity: tuple[str, str]) -> MethodResult:
    return MethodResult("spf", check.result, (identity,), check.reason)


def _dkim(check: DkimCheck) -> MethodResult:
    properties = []
    if check.domain:
        properties.append(("header.d", check.domain))
    if check.identity and check.identity != f"@{check.domain}":
        properties.append(("header.i", check.identity))
    if check.selector:
        properties.append(("header.s", check.selector))
    if check.algorithm:
        properties.append(("header.a", check.algorithm))
    if check.signature:
        # RFC 6008: enough of it to tell two signatures of one domain apart.
        properties.append(("header.b", check.signature[:8]))
    reason = check.reason
    if check.testing:
        reason = f"{reason}, testing" if reason else "testing"
    return MethodResult("dkim", check.result, tuple(properties), reason)


def _arc(check: ArcCheck, envelope: Envelope) -> MethodResult:
    if not check.sets:
        return MethodResult("arc", check.result, (), check.reason)
    # RFC 8617 section 10.2
    properties = [("smtp.remote-ip", envelope.peer.ip_text.partition("%")[0])]
    if check.oldest_pass is not None:
        properties.insert(0, ("header.oldest-pass", str(check.oldest_pass)))
    return MethodResult("arc", check.result, tuple(properties), check.reason)


def _dmarc(check: DmarcCheck) -> MethodResult:
    properties = []
    if check.domain:
        properties.append(("header.from", check.domain))
    # The IANA registry's policy.dmarc: what is left of the policy after every option of it.
    if check.applied:
        properties.append(("policy.dmarc", check.applied))
    reason = f"p={check.policy}" if check.policy else None
    if check.reason:
        reason = f"{reason}, {check.reason}" if reason else check.reason
    return MethodResult("dmarc", check.result, tuple(properties), reason)


def _mailbox(address: Address) -> str:
    # RFC 8601 section 2.2 lets the local part be left out. A quoted one is where one reader ends the value and the next
    # does not, and UTF-8 may not go to every next hop; the domain is what was authenticated anyway.
    domain = ascii_domain(address.domain)
    return f"{address.local}@{domain}" if _DOT_ATOM.fullmatch(address.local) else domain


# --- writing ----------------------------------------------------------------------------------------------------------

_DOT_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
# RFC 8601 section 2.2: a value is a token of RFC 2045 or a quoted string; a pvalue may be [[local-part]"@"]domain too.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+")
_MAILBOX = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]*(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"
)
_KEYWORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")


def render_results(results: AuthenticationResults) -> bytes:
    """The value, folded: the inverse of ``parse`` for all that RFC 8601 can express."""
    head = _value(results.authserv_id)
    if results.instance is not None:
        head = f"i={results.instance}; {head}"
    if results.version != 1:
        head = f"{head} {results.version}"
    if not results.results:
        # RFC 8601 section 2.2 no-result
        return f"{head}; none".encode("ascii")
    return ";\r\n\t".join([head, *map(_result, results.results)]).encode("ascii")


def _result(one: MethodResult) -> str:
    method, result, properties, comment, reason, version = one
    if not properties or properties[-1][0] not in _OF_A_MESSAGE:
        return _kept_result(one)
    # Most of what is found out about the mail of one domain is the same each time, but for what stands last.
    text = _kept_result(MethodResult(method, result, properties[:-1], comment, reason, version))
    name, value = properties[-1]
    word = f"{name}={_pvalue(value) if '@' in value else _value(value)}"
    # Folded as if all were written in one go: what stands on the last line counts.
    folded = len(text.rpartition("\t  ")[2]) + len(word) > _FOLD_AT
    return f"{text}\r\n\t  {word}" if folded else f"{text} {word}"


def _kept_result(one: MethodResult) -> str:
    text = _kept_results.get(one)
    if text is None:
        text = _write_result(one)
        # A stranger decides how long an i= is, and how many there are.
        if len(text) + len(one.comment or "") <= _KEPT_RESULT:
            if len(_kept_results) >= _KEPT_RESULTS:
                _kept_results.clear()
            _kept_results[one] = text
    return text


_kept_results: dict[MethodResult, str] = {}


def _write_result(one: MethodResult) -> str:
    method, result, properties, comment, reason, version = one
    line = f"{method}={result}" if version == 1 else f"{method}/{version}={result}"
    if comment is not None:
        line = f"{line} ({_comment(comment)})"
    words = [f"{name}={_pvalue(value)}" for name, value in properties]
    if reason is not None:
        words.insert(0, f"reason={_value(reason)}")
    folded = ""
    for word in words:
        if len(line) + len(word) > _FOLD_AT:
            folded = f"{folded}{line}\r\n\t  "
            line = word
        else:
            line = f"{line} {word}"
    return folded + line


def _write_pvalue(text: str) -> str:
    return text if _MAILBOX.fullmatch(text) else _value(text)


_kept_pvalues = Kept(_write_pvalue, most=4096, longest=_KEPT_VALUE)
_pvalue = _kept_pvalues.__getitem__


def _value(text: str) -> str:
    if _TOKEN.fullmatch(text):
        return text
    return '"' + _QUOTABLE.sub(r"\\\g<0>", _printable(text)) + '"'


def _write_comment(text: str) -> str:
    return _COMMENTABLE.sub(r"\\\g<0>", _printable(text[:_MAX_REASON]))


_QUOTABLE = re.compile(r'["\\]')
_COMMENTABLE = re.compile(r"[()\\]")
#: Most reasons are said of many messages.
_comment = Kept(_write_comment, most=1024, longest=_KEPT_VALUE).__getitem__
_UNPRINTABLE = re.compile(r"[^ -~]")


def _printable(text: str) -> str:
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub("?", text)


# --- reading ----------------------------------------------------------------------------------------------------------

_WORD = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?")
_NUMBER = re.compile(r"[0-9]{1,9}(?![A-Za-z0-9_.-])")
_INSTANCE = re.compile(r"i[ \t]*=[ \t]*([0-9]{1,4})[ \t]*;", re.IGNORECASE)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
# Writers do not quote what a token cannot hold: header.b=ab/c=, smtp.mailfrom=a=b@c. Nobody reads it in two ways.
_RAW = re.compile(r'[^ \t;()"]+')
_COMMENT_PART = re.compile(r"(?:[^()\\]|\\.)*", re.DOTALL)
_SPACE = re.compile(r"[ \t]*")


def parse(value: bytes, *, strict: bool = False) -> AuthenticationResults:
    """Read a value; raises MalformedResults.

    ``strict`` takes the grammar of RFC 8601 section 2.2 (with the unquoted values that all write). Otherwise also what
    large receivers write: no authserv-id, a final semicolon, properties without a type or a value, ``example.org 1``
    without any result.
    """
    if len(value) > _MAX_VALUE:
        raise MalformedResults(f"longer than {_MAX_VALUE} octets")
    text = value.replace(b"\r\n", b"").replace(b"\n", b" ").decode("utf-8", "surrogateescape")
    return _Reader(text, strict).read()


class _Reader:
    """One pass over the text; ``at`` only grows."""

    def __init__(self, text: str, strict: bool) -> None:
        self.text = text
        self.strict = strict
        self.at = 0

    def read(self) -> AuthenticationResults:
        self.skip()
        instance = self.take(_INSTANCE)
        self.skip()
        authserv_id, version = self.authserv_id()
        results: list[MethodResult] = []
        first = authserv_id is None
        while first or not self.ended():
            if not first:
                self.expect(";")
            first = False
            self.skip()
            if self.no_result(results):
                continue
            results.append(self.result())
            if len(results) > _MAX_RESULTS:
                raise MalformedResults(f"more than {_MAX_RESULTS} results")
        return AuthenticationResults(authserv_id or "", tuple(results), version, int(instance[1]) if instance else None)

    def authserv_id(self) -> tuple[str | None, int]:
        if self.peek('"'):
            name = self.quoted()
        elif match := self.take(_TOKEN if self.strict else _RAW):
            name = match[0]
        else:
            raise MalformedResults("no authserv-id")
        if not self.strict and _WORD.match(name) and "=" in name:
            # Outlook.com begins with the first result.
            self.at -= len(name)
            return None, 1
        self.skip()
        number = self.take(_NUMBER)
        self.skip()
        if number is None and not self.strict and (match := self.take(_WORD)):
            # Yahoo writes a property here.
            self.skip()
            if self.peek("="):
                self.expect("=")
                self.value()
            self.skip()
        if self.strict and self.ended():
            # RFC 8601 section 2.2: no-result, or at least one resinfo.
            raise MalformedResults("neither results nor none")
        return name, int(number[0]) if number else 1

    def no_result(self, results: list[MethodResult]) -> bool:
        """``none``, or nothing where not strict."""
        start = self.at
        word = self.take(_WORD)
        self.skip()
        if word is not None and word[0].lower() == "none" and self.ended():
            if self.strict and results:
                raise MalformedResults("none behind results")
            return True
        if word is None and not self.strict and (self.ended() or self.peek(";")):
            return True
        self.at = start
        return False

    def result(self) -> MethodResult:
        method = self.keyword("method")
        version = 1
        self.skip()
        if self.peek("/"):
            self.expect("/")
            self.skip()
            number = self.take(_NUMBER)
            if number is None:
                raise MalformedResults("a method version is no number")
            version = int(number[0])
            self.skip()
        if not self.strict and (self.ended() or self.peek(";")):
            return MethodResult(method, "", version=version)
        self.expect("=")
        self.skip()
        if not self.strict and (self.ended() or self.peek(";")):
            return MethodResult(method, "", version=version)
        result = self.keyword("result")
        comment = self.skip()
        reason: str | None = None
        properties: list[tuple[str, str]] = []
        while not self.ended() and not self.peek(";"):
            name = self.property_name()
            self.expect("=")
            self.skip()
            if name == "reason" and reason is None:
                reason = self.value()
            else:
                properties.append((name, self.value()))
            self.skip()
        return MethodResult(method, result, tuple(properties), comment, reason, version)

    def property_name(self) -> str:
        name = self.take(_WORD)
        if name is None:
            raise MalformedResults("a property has no name")
        self.skip()
        full = name[0].lower()
        if self.peek("."):
            self.expect(".")
            self.skip()
            second = self.take(_WORD)
            if second is None:
                raise MalformedResults("a property has no name behind its type")
            full = f"{full}.{second[0].lower()}"
            self.skip()
        if self.strict and full != "reason" and "." not in full:
            raise MalformedResults("a property has no type")
        return full

    def value(self) -> str:
        if self.peek('"'):
            text = self.quoted()
            # pvalue: a local part may be a quoted string with a bare domain behind it.
            if self.peek("@") and (rest := self.take(_RAW)):
                text += rest[0]
            return text
        raw = self.take(_RAW)
        if raw is None and self.strict:
            raise MalformedResults("a property has no value")
        return raw[0] if raw else ""

    def keyword(self, what: str) -> str:
        word = self.take(_WORD)
        if word is None or (self.strict and not _KEYWORD.fullmatch(word[0])):
            raise MalformedResults(f"no {what}")
        return word[0].lower()

    def quoted(self) -> str:
        match = self.take(_QUOTED)
        if match is None:
            raise MalformedResults("a quoted string does not end")
        return _QUOTED_PAIR.sub(r"\1", match[1])

    def skip(self) -> str | None:
        """RFC 5322 section 3.2.2 CFWS. The text of the first comment in it."""
        self.take(_SPACE)
        first: str | None = None
        while self.peek("("):
            start = self.at + 1
            self.at = _end_of_comment(self.text, start)
            if first is None:
                first = _QUOTED_PAIR.sub(r"\1", self.text[start : self.at - 1])
            self.take(_SPACE)
        return first

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.text, self.at)
        if match:
            self.at = match.end()
        return match

    def peek(self, sign: str) -> bool:
        return self.text.startswith(sign, self.at)

    def expect(self, sign: str) -> None:
        if not self.peek(sign):
            raise MalformedResults(f"no {sign!r} where one must be")
        self.at += 1

    def ended(self) -> bool:
        return self.at >= len(self.text)


def _end_of_comment(text: str, at: int) -> int:
    """The index behind the parenthesis that closes the comment whose inside begins at ``at``."""
    depth = 1
    while depth:
        part = _COMMENT_PART.match(text, at)
        at = part.end() if part else at
        if at >= len(text) or text[at] == "\\":
            raise MalformedResults("a comment does not end")
        depth += 1 if text[at] == "(" else -1
        if depth > _MAX_COMMENT_DEPTH:
            raise MalformedResults("comments nested too deep")
        at += 1
    return at


# --- fields that claim to be ours -------------------------------------------------------------------------------------

_ID_TOKEN = re.compile(r"[A-Za-z0-9._\x80-\U0010ffff-]+")
_INSTANCE_ONLY = re.compile(r"\s*(?:i\s*=\s*\d+\s*)?\Z", re.IGNORECASE)
_ENCODED_WORD = re.compile(r"=\?[^?\s]{1,60}\?([BbQq])\?([^?\s]*)\?=")
_JUNK = re.compile(r'[\s"\\]+')
_SIMPLE_COMMENT = re.compile(r"\([^()]*\)")


def claims(field: Field, authserv_ids: Collection[str]) -> bool:
    """Does this Authentication-Results field say that one of us wrote it? RFC 8601 section 5: then it must go.

    Readers differ in what they take for the authserv-id, so every reading counts in which our name stands in its place:
    inside quotes, beside or inside a comment, split by a fold, with a version, as an encoded word. Our name among the
    results (``smtp.helo=us``) is an honest statement of somebody else's and stays.
    """
    if len(field.value) > _MAX_VALUE:
        # Nobody needs so much; what is hidden in it is not worth finding.
        return True
    text = field.value.decode("utf-8", "surrogateescape").replace("\r\n", "")
    ours = {_normalized(one) for one in authserv_ids}
    for reading in (text, _without_comments(text)):
        head, semicolon, tail = reading.partition(";")
        if semicolon and _INSTANCE_ONLY.match(head):
            head = f"{head} {tail.partition(';')[0]}"
        if _names_one(head, ours):
            return True
    return False


def _names_one(head: str, ours: Collection[str]) -> bool:
    head = _ENCODED_WORD.sub(_decoded_word, head)
    joined = _JUNK.sub("", head)
    if any(joined.lower().rstrip("0123456789") in (one, f"{one}/", f"{one}.") for one in ours):
        return True
    tokens = {*_ID_TOKEN.findall(head), *_ID_TOKEN.findall(joined), *_ID_TOKEN.findall(head.replace("\\", ""))}
    return len(tokens) > _MAX_ID_WORDS or any(_normalized(token) in ours for token in tokens)


@lru_cache(maxsize=1024)
def _normalized(name: str) -> str:
    try:
        return ascii_domain(name.strip("."))
    except AddressError:
        return name.strip(".").lower()


def _without_comments(text: str) -> str:
    for _ in range(_MAX_COMMENT_DEPTH):
        text, count = _SIMPLE_COMMENT.subn(" ", text)
        if not count:
            break
    return text


def _decoded_word(match: re.Match[str]) -> str:
    """RFC 2047, whatever the charset says: a host name is ASCII in nearly all of them."""
    coded = match[2].encode("utf-8", "surrogateescape")
    try:
        raw = base64.b64decode(coded) if match[1] in "Bb" else binascii.a2b_qp(coded, header=True)
    except ValueError:
        return match[0]
    return raw.decode("latin-1")
