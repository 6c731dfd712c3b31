"""What domains publish, and what signatures claim: SPF as a whole evaluation, and every text with tags in it."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address

from forwarder.auth.dkim.signature import parse_signature
from forwarder.auth.dkim.verify import parse_dkim_signature
from forwarder.auth.dmarc.record import parse_record as parse_dmarc_record
from forwarder.auth.keyrecord import NoKey, parse_key_record
from forwarder.auth.mailkey.record import evaluate_key_text, parse_mailkey_record
from forwarder.auth.mailkey.signature import MalformedClaim, parse_claim
from forwarder.auth.spf import verify_spf
from forwarder.auth.tags import TagError, parse_tags
from forwarder.mail.tlsreport import parse_record as parse_tls_report_record
from forwarder.model import Address, DkimCheck
from tests.fakes import FakeResolver
from tests.fuzz.target import Target, holds

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
_DOMAIN = re.compile(r"[a-z0-9_.-]+\Z")

# --- tag lists ----------------------------------------------------------------------------------------------------------


def run_tags(data: bytes) -> None:
    """One text in every place that takes a tag list."""
    with suppress(TagError):
        tags = parse_tags(data)
        rendered = b"; ".join(name + b"=" + value for name, value in tags.items())
        holds(parse_tags(rendered) == tags, "what was read and written reads otherwise")
        with suppress(TagError):
            holds(_DOMAIN.match(parse_signature(tags).domain) is not None, "a d= that is no domain")
    for name in (b"DKIM-Signature:", b"Mailkey-Signature:"):
        claim = parse_dkim_signature(name + data) if name[0] == 68 else parse_claim(name + data)
        if isinstance(claim, DkimCheck | MalformedClaim):
            holds(
                claim.reason is not None and claim.reason.isascii() and claim.reason.isprintable(),
                f"a reason {claim.reason!r}",
            )
        else:
            holds(_DOMAIN.match(claim.domain) is not None, f"d= {claim.domain!r}")
    key = parse_key_record(data)
    holds(not isinstance(key, NoKey) or key.reason.isprintable(), "a reason")
    parse_mailkey_record(data)
    evaluate_key_text(data)
    parse_dmarc_record(data)
    parse_tls_report_record([data, b"v=TLSRPTv1;" + data])


TAGS = Target(
    "tags",
    run_tags,
    (
        (
            b"v=1; a=rsa-sha256; c=relaxed/simple; d=sender.test; s=s1; t=1700000000; x=1800000000;\r\n\th=from:to:subject;"
            b" bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n\tBBBB; i=user=40@sub.sender.test; l=10; q=dns/txt"
        ),
        (
            b"v=1; a=ed25519-sha256; d=sender.test; mf=bob@sender.test; t=1700000000; x=1700100000; rt=AAAA; h=from;"
            b" bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA"
        ),
        b"v=DKIM1; k=ed25519; t=s:y; s=email; h=sha256; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        b"v=DKIM1; k=rsa; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALRiMLAh",
        b"v=mailkey1; k=ed25519; o=all; u=https://a.test/; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        b"v=mailkey1; h=https",
        b"v=DMARC1; p=reject; sp=quarantine; np=none; adkim=s; aspf=r; t=y; psd=n; rua=mailto:a@b.test!10m; fo=1:d:s",
        b"v=TLSRPTv1; rua=mailto:a@b.test,https://b.test/x?y",
    ),
    (
        *(
            b";",
            b"=",
            b";;",
            b" ; ",
            b"\r\n\t",
            b"\r\n",
            b"\t",
            b"v=1",
            b"a=",
            b"b=",
            b"bh=",
            b"c=",
            b"d=",
            b"h=",
            b"i=",
            b"l=",
            b"q=",
            b"s=",
        ),
        *(
            b"t=",
            b"x=",
            b"p=",
            b"k=",
            b"o=",
            b"n=",
            b"g=",
            b"rt=",
            b"mf=",
            b"u=",
            b"psd=",
            b"rua=",
            b"mailto:",
            b"https://",
            b"!10m",
            b"=40",
        ),
        *(
            b"AAAA",
            b"AAA=",
            b"AA==",
            b"A",
            b"====",
            b"99999999999999999999",
            b"-1",
            b"\xd9\xa1",
            b"\xff",
            b"\xc3\xbc.test",
            b"xn--a.test",
        ),
        *(
            b"v=DKIM1",
            b"v=mailkey1",
            b"v=DMARC1",
            b"v=TLSRPTv1",
            b":",
            b"from:from",
            b"*",
            b"\0",
            b"30820122",
            b"MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A",
        ),
    ),
    40_000,
)

# --- SPF ----------------------------------------------------------------------------------------------------------------

_NAMES = ("sender.test", "a.test", "b.test", "c.test")
_CLIENTS = ("192.0.2.1", "2001:db8::1")


def run_spf(data: bytes) -> None:
    """A line for each name of a zone; the whole evaluation."""
    lines = data.split(b"\n", len(_NAMES) - 1)
    zone = {
        name: {"TXT": [text], "A": ["192.0.2.7"], "AAAA": ["2001:db8::7"], "MX": ["10 a.test", "20 b.test"]}
        for name, text in zip(_NAMES, lines, strict=False)
    }
    zone["1.2.0.192.in-addr.arpa"] = {"PTR": ["a.test", "mx.sender.test"]}
    resolver = FakeResolver(zone)
    checking = verify_spf(
        resolver,
        identity="mailfrom",
        ip=ip_address(_CLIENTS[len(data) % 2]),
        sender=Address('"a b"' if len(data) % 3 == 0 else "bob+x-y", "sender.test"),
        helo="mx.sender.test",
        receiver="mx.fwd.test",
        now=NOW,
        default_explanation=None,
    )
    try:
        checking.send(None)
    except StopIteration as done:
        spf = done.value
        holds(len(resolver.queries) <= 130, f"{len(resolver.queries)} questions")
        for text in (spf.reason, spf.explanation):
            holds(text is None or (text.isascii() and text.isprintable()), f"a text {text!r}")


SPF = Target(
    "spf",
    run_spf,
    (
        (
            b"v=spf1 a mx/24//64 ip4:192.0.2.0/24 ip6:2001:db8::/32 include:a.test ?exists:%{ir}.%{v}.s.%{d2} redirect=b.test\n"
            b"v=spf1 include:b.test ptr -all exp=c.test\nv=spf1 a:a.test ~all\n%{s} is no %{d}'s at %{t} %{c} %{r} %%%_%-"
        ),
        b"v=spf1 exp=c.test -all\n\n\n%{L}%{O}%{I}%{h} told",
        b"v=spf1 redirect=sender.test",
        b"v=spf1 include:a.test include:b.test\nv=spf1 include:b.test\nv=spf1 include:c.test",
    ),
    (
        *(
            b"v=spf1",
            b" ",
            b"  ",
            b"\n",
            b"+",
            b"-",
            b"~",
            b"?",
            b"all",
            b"a",
            b"a:",
            b"mx",
            b"mx:",
            b"ptr",
            b"ptr:",
            b"ip4:",
            b"ip6:",
            b"exists:",
        ),
        *(
            b"include:",
            b"include:a.test",
            b"redirect=",
            b"exp=",
            b"x-y=",
            b"/",
            b"//",
            b"/33",
            b"//129",
            b"/00",
            b"%{s}",
            b"%{l}",
            b"%{d}",
        ),
        *(
            b"%{i}",
            b"%{p}",
            b"%{v}",
            b"%{h}",
            b"%{c}",
            b"%{r}",
            b"%{t}",
            b"%{d0}",
            b"%{d999r+-.,/_=}",
            b"%%",
            b"%_",
            b"%-",
            b"%",
            b"%{",
            b"}",
        ),
        *(
            b"..",
            b".",
            b"a.test",
            b"\xff",
            b"\xc3\xbc",
            b"\0",
            b"192.0.2.1",
            b"::",
            b"::ffff:1.2.3.4",
            b"exists:%{l1r-}.a.test ",
            b"a:a.test ",
        ),
    ),
    9_000,
)
