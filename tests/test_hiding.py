"""Does a rebuilt report tell what is behind the alias? Attacked with every encoding that mail knows, split over folds and
nested, and searched by a reader that shares no code with what hides."""

from __future__ import annotations

import base64
import binascii
import email
import html
import os
import quopri
import re
import urllib.parse
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from hypothesis import example, given, settings
from hypothesis import strategies as st

from forwarder import bounce
from forwarder.mail.dsn import Action, RecipientStatus, Report
from forwarder.model import Address
from forwarder.ports import Forwarded

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
HOST = "mx.fwd.test"
BOB, ALIAS = Address("bob", "sender.test"), Address("alias", "fwd.test")
REVERSIBLE = Address("SRS0=KABC=XY=sender.test=bob", "fwd.test")
#: ``HIDING=20000 ./scripts/test tests/test_hiding.py`` for the figure of docs/reliability.md.
EXAMPLES = int(os.environ.get("HIDING", "250"))

#: Whom nobody may read of: address, and the host that serves it.
HIDDEN = [
    (Address("Wilhelmina.Quark+post", "zebrafish.example"), "mx7.pelican.example"),
    (Address("döner", "bücher.example"), "mx.xn--bcher-kva.example"),
    (Address('"odd one"', "zebrafish.example"), "mail.zebrafish.example"),
]


# --- a reader who wants to know ----------------------------------------------------------------------------------------


def readings(text: str, depth: int = 3) -> set[str]:
    """What a text says, to somebody with patience."""
    found, layer = {text}, {text}
    for _ in range(depth):
        layer = {one for text in layer for one in undone(text)} - found
        found |= layer
    return found


def undone(text: str) -> Iterator[str]:
    if "%" in text:
        yield urllib.parse.unquote(text)
    if "=" in text:
        yield quopri.decodestring(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")
        yield re.sub(r"=([0-9A-Fa-f]{2})", lambda one: chr(int(one[1], 16)), text)
    if "+" in text:
        yield re.sub(r"\+([0-9A-Fa-f]{2})", lambda one: chr(int(one[1], 16)), text)
    if "&" in text:
        yield html.unescape(text)
    if "\\" in text:
        yield re.sub(r"\\x\{?([0-9A-Fa-f]{2,6})\}?", lambda one: chr(min(int(one[1], 16), 0x10FFFF)), text)
        yield text.replace("\\", "")
    if "=?" in text:
        yield words(text)
    if "xn--" in text.lower():
        yield re.sub(r"(?i)xn--[a-z0-9-]+", lambda one: punycode(one[0]), text)
    for run in re.findall(r"[A-Za-z0-9+/_-]{10,}", re.sub(r"\s+", "", text)):
        for start in range(4):
            yield unbase64(run[start:])
    for run in re.findall(r"[0-9A-Fa-f]{12,}", re.sub(r"\s+", "", text)):
        for start in range(2):
            part = run[start:]
            yield binascii.unhexlify(part[: len(part) // 2 * 2]).decode("utf-8", "replace")


def unbase64(run: str) -> str:
    run = run.replace("-", "+").replace("_", "/")
    run = run[: len(run) - (len(run) % 4 == 1)]
    return base64.b64decode(run + "=" * (-len(run) % 4)).decode("utf-8", "replace")


def punycode(label: str) -> str:
    try:
        return label[4:].encode().decode("punycode")
    except UnicodeError:
        return label


def words(text: str) -> str:
    def word(match: re.Match[str]) -> str:
        try:
            raw = (
                base64.b64decode(match[2] + "==")
                if match[1] in "Bb"
                else quopri.decodestring(match[2].encode(), header=True)
            )
        except ValueError:
            return match[0]
        return raw.decode("utf-8", "replace")

    return re.sub(r"=\?[^?\s]+\?([BbQq])\?([^?]*)\?=\s*", word, text)


def plain(text: str) -> str:
    return "".join(one for one in text.casefold() if one.isalnum() or one in "@.")


def leaks(raw: bytes, address: Address, host: str) -> list[str]:
    """What of it can be read in these octets, or in any part of them."""
    texts = [raw.decode("utf-8", "replace")]
    for part in email.message_from_bytes(raw).walk():
        payload = part.get_payload(decode=True)
        if isinstance(payload, bytes):
            texts.append(payload.decode("utf-8", "replace"))
    local = plain(address.local)
    secrets = {
        local,
        local.partition("post")[0],
        plain(address.domain),
        plain(host),
        plain(address.domain.partition(".")[0]),
    }
    secrets |= {plain(punycode(one)) for one in host.split(".") if one.startswith("xn--")}
    # Who has a common name shares it with the rest of the world.
    secrets = {one for one in secrets if len(one) >= 8}
    said = [plain(one) for text in texts for one in readings(text)]
    return sorted(secret for secret in secrets if any(secret in one for one in said))


# --- a destination that wants to tell ----------------------------------------------------------------------------------


def puny(text: str) -> str:
    local, _, domain = text.rpartition("@")
    labels = [one if one.isascii() else "xn--" + one.encode("punycode").decode() for one in domain.split(".")]
    return (f"{local}@" if local else "") + ".".join(labels)


ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "upper": str.upper,
    "swapped": str.swapcase,
    "angle": lambda text: f"<{text}>",
    "quoted": lambda text: f'"{text}"',
    "percent": lambda text: "".join(f"%{one:02X}" for one in text.encode()),
    "percent some": urllib.parse.quote,
    "qp": lambda text: "".join(f"={one:02X}" for one in text.encode()),
    "qp some": lambda text: quopri.encodestring(text.encode(), quotetabs=True).decode().replace("@", "=40"),
    "xtext": lambda text: "".join(f"+{one:02X}" for one in text.encode()),
    "html": lambda text: "".join(f"&#{ord(one)};" for one in text),
    "html hex": lambda text: "".join(f"&#x{ord(one):x};" for one in text),
    "unicode": lambda text: "".join(f"\\x{{{ord(one):X}}}" for one in text),
    "backslashes": lambda text: "".join(f"\\{one}" if not one.isalnum() else one for one in text),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 bare": lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
    "base64 url": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 within": lambda text: base64.b64encode(f"user={text};".encode()).decode(),
    "base64 behind a slash": lambda text: "a/" + base64.b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "hex upper": lambda text: text.encode().hex().upper(),
    "hex behind a letter": lambda text: "id" + text.encode().hex(),
    "word b": lambda text: f"=?utf-8?B?{base64.b64encode(text.encode()).decode()}?=",
    "word q": lambda text: "=?UTF-8?q?" + "".join(f"={one:02x}" for one in text.encode()) + "?=",
    "two words": lambda text: " ".join(
        f"=?utf-8?b?{base64.b64encode(one.encode()).decode()}?="
        for one in (text[: len(text) // 2], text[len(text) // 2 :])
    ),
    "punycode": puny,
    "wide": lambda text: "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in text),
    "invisible": "\u200b".join,
    "soft hyphens": "\u00ad".join,
    "spaced": lambda text: " ".join((text[:5], text[5:])),
    "link": lambda text: f"https://help.example/?who={urllib.parse.quote(text)}",
    "mailto": lambda text: f"mailto:{text}",
    "srs": lambda text: "SRS0=abcd=EF={1}={0}@relay.example".format(*(text.split("@") if "@" in text else ("x", text))),
    "verp": lambda text: f"bounces+{text.replace('@', '=')}@list.example",
    "percent hack": lambda text: f"{text.replace('@', '%')}@relay.example",
}
LAYERS = st.lists(st.sampled_from(sorted(ENCODINGS)), min_size=1, max_size=2)
FOLDS = ["", "\r\n ", "\r\n\t", "\n "]


@st.composite
def told(draw: st.DrawFn, secrets: list[str]) -> str:
    """One of the secrets, in some disguise, perhaps folded somewhere."""
    text = draw(st.sampled_from(secrets))
    for name in draw(LAYERS):
        text = ENCODINGS[name](text)
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.sampled_from(FOLDS)) + text[at:]


@st.composite
def reports(draw: st.DrawFn) -> tuple[Address, str, Report]:
    """A report of a destination that tells wherever it can."""
    address, host = draw(st.sampled_from(HIDDEN))
    whole = [str(address), host, address.domain]
    anything = told([*whole, address.local])
    noise = st.sampled_from(["user unknown", "550 5.1.1", "is over quota;", "(in reply to RCPT TO)", ""])
    diagnostic = " ".join(draw(st.lists(st.one_of(anything, noise), min_size=1, max_size=4)))
    named = st.one_of(st.none(), told(whole), st.just(str(address)))
    header = "".join(
        f"{draw(st.sampled_from(NAMES))}: {draw(noise)} {draw(told(whole))}\r\n" for _ in range(draw(st.integers(0, 3)))
    )
    trace = draw(
        st.sampled_from(
            [
                "",
                f"Received: from {HOST} by {host}; x\r\n",
                f"Delivered-To: {address}\r\nReceived: from a by {HOST} with ESMTP id 01JDX; x\r\n",
            ]
        )
    )
    said = RecipientStatus(
        draw(st.sampled_from(list(Action))),
        draw(named),
        draw(named),
        "5.1.1",
        diagnostic,
        draw(st.sampled_from([None, host])),
    )
    header = trace + "From: Bob <bob@sender.test>\r\n" + header + "Message-ID: <1@sender.test>\r\n"
    message_id = draw(st.one_of(st.just("<1@sender.test>"), told(whole)))
    return (
        address,
        host,
        Report((said,), draw(st.one_of(st.just(host), told([host]))), None, header.encode(), message_id),
    )


NAMES = [
    "Subject",
    "To",
    "Cc",
    "References",
    "Received",
    "X-Mailer",
    "User-Agent",
    "Content-Type",
    "List-Id",
    "Date",
    "X-Other",
]


#: Found by a long run: two encoded words, broken within the first, and an entity across both.
BROKEN_WORDS = Report(
    (RecipientStatus(Action.FAILED, None, None, "5.1.1"),),
    "mx7.pelican.example",
    None,
    b"From: Bob <bob@sender.test>\r\nSubject: user unknown =?utf-8?b?\r\n"
    b" JiMxMDk7JiMxMjA7JiM1NTsmIzQ2OyYjMTEyOyYjMTAxOyYjMTA4OyYjMTA1OyYjOTk7JiM5?="
    b" =?utf-8?b?NzsmIzExMDsmIzQ2OyYjMTAxOyYjMTIwOyYjOTc7JiMxMDk7JiMxMTI7JiMxMDg7JiMxMDE7?=\r\n",
    "<1@sender.test>",
)


#: And by another: a fold between the equals sign of an octet of quoted-printable and its digits.
BROKEN_OCTET = Report(
    (RecipientStatus(Action.FAILED, None, None, "5.1.1"),),
    "mx7.pelican.example",
    None,
    b"From: Bob <bob@sender.test>\r\nSubject: =7A=65=62=72=61=66=69=73=68=\r\n 2E=65=78=61=6D=70=6C=65\r\n",
    "<1@sender.test>",
)


#: And by a third: the host in full-width letters, each label of which is written in punycode.
WIDE_LABELS = Report(
    (RecipientStatus(Action.FAILED, None, None, "5.1.1"),),
    "mx7.pelican.example",
    None,
    b"From: Bob <bob@sender.test>\r\nSubject: xn--mx7-5m0abb.xn--pelican-zz6cbbbbbbb.xn--example-zz6cbbbbbb\r\n",
    "<1@sender.test>",
)


#: And by a fourth: soft hyphens in punycode, with a fold within the first sign of it.
BROKEN_LABEL = Report(
    (RecipientStatus(Action.FAILED, None, None, "5.1.1"),),
    "mx7.pelican.example",
    None,
    b"From: Bob <bob@sender.test>\r\nSubject: user unknown x\r\n n--zebrafish-g69dbbbbbbbb.xn--example-zz6cbbbbbb\r\n",
    "<1@sender.test>",
)


@settings(max_examples=EXAMPLES, deadline=None, derandomize="HIDING" not in os.environ)
@given(reports(), st.booleans())
@example((HIDDEN[0][0], HIDDEN[0][1], BROKEN_WORDS), False)
@example((HIDDEN[0][0], HIDDEN[0][1], BROKEN_OCTET), True)
@example((HIDDEN[0][0], HIDDEN[0][1], WIDE_LABELS), True)
@example((HIDDEN[0][0], HIDDEN[0][1], BROKEN_LABEL), True)
def test_no_reader_finds_in_a_report_what_is_behind_the_alias(came: tuple[Address, str, Report], known: bool) -> None:
    address, host, report = came
    forward = Forwarded(REVERSIBLE, BOB, ALIAS, address, "<1@sender.test>", "01JDX", NOW) if known else None
    # What nobody knows can be hidden only where the report names it.
    if forward is None:
        report = Report(
            (RecipientStatus(Action.FAILED, None, str(address), "5.1.1", report.recipients[0].diagnostic, host),),
            host,
            None,
            report.returned_header,
            report.message_id,
        )
    elif report.reporting_mta != host and report.recipients[0].remote_mta is None:
        report = Report(report.recipients, host, None, report.returned_header, report.message_id)
    returned = bounce.evaluate_report(REVERSIBLE, BOB, forward, report)
    raw = bounce.compose_return(report, returned, hostname=HOST, now=NOW, id="01JDY")
    assert leaks(raw, address, host) == []
    assert b"<alias@fwd.test>" in raw or not known
