"""Names: what is asked of the DNS for a text, and which are the registries' own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.dnsname import MAX_NAME, dns_name, parent
from forwarder.auth.suffix import is_public_suffix, registrable_domain

LONGEST = ".".join(["a" * 63] * 3 + ["b" * 61])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("_dmarc.example.org", "_dmarc.example.org"),
        ("foo:bar/baz.example.org", "foo:bar/baz.example.org"),
        ("a b%20c.example.org", "a b%20c.example.org"),
        ("a\\.b.example.org", "a\\.b.example.org"),
        ("B\u00dcCHER.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("_dmarc.b\u00fccher.example", "_dmarc.xn--bcher-kva.example"),
        ("fa\u00df.de", "xn--fa-hia.de"),
        (LONGEST, LONGEST),
        (f"{LONGEST}.", LONGEST),
        ("", None),
        (".", None),
        ("a..b", None),
        (".a", None),
        ("a.b..", None),
        ("a" * 64 + ".org", None),
        (f"{LONGEST}b", None),
        ("a\0b.org", None),
        ("a\x7f.org", None),
        ("a\nb.org", None),
        ("a.org\n", None),
        ("a\u3002org", None),
        ("\ufeffa.org", None),
        ("\u2603.org", None),
        ("_\u00fc.org", None),
        ("\ud800.org", None),
        ("\u00fc" * 600 + ".org", None),
    ],
)
def test_a_text_stands_for_this_name(text: str, name: str | None) -> None:
    assert dns_name(text) == name


@given(st.text(max_size=80))
def test_a_name_is_ascii_short_and_stands_for_itself(text: str) -> None:
    name = dns_name(text)
    if name is not None:
        assert name.isascii()
        assert len(name) <= MAX_NAME
        assert dns_name(name) == name


def test_the_parent_of_a_top_level_domain_is_nothing() -> None:
    assert [parent("a.b.org"), parent("org"), parent("")] == ["b.org", "", ""]


@pytest.mark.parametrize(
    ("domain", "suffix", "registrable"),
    [
        ("com", True, None),
        ("CO.UK.", True, None),
        ("github.io", True, None),
        ("someone.github.io", False, "someone.github.io"),
        ("a.b.example.co.uk", False, "example.co.uk"),
        ("unlisted", True, None),
        ("example.unlisted", False, "example.unlisted"),
        ("xn--55qx5d.cn", True, None),
        ("\u516c\u53f8.cn", True, None),
        ("a..b", False, None),
        ("", False, None),
    ],
)
def test_a_public_suffix_is_where_strangers_register(domain: str, suffix: bool, registrable: str | None) -> None:
    assert is_public_suffix(domain) is suffix
    assert registrable_domain(domain) == registrable
