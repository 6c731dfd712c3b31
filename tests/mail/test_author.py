"""mail/author.py: another's From becomes ours, and nothing else changes."""

from __future__ import annotations

from email import message_from_bytes
from email.header import decode_header, make_header
from email.utils import parseaddr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.mail.address import parse_author, parse_from
from forwarder.mail.author import replace_author
from forwarder.mail.header import MAX_FIELDS, MAX_HEADER, parse_message
from forwarder.model import Address, Message
from tests.fakes import message

TOKEN = Address("reply=KAAAAAAAAAAAAA=TT=author.example=bob", "fwd.example")
TEAM = Address("team", "fwd.example")


def with_from(field: bytes, rest: bytes = b"") -> Message:
    return parse_message(b"Received: x\r\nFrom:" + field + b"\r\nSubject: y\r\n" + rest + b"\r\nbody\r\n")


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (b" Bob <bob@author.example>", "Bob"),
        (b" Bob B. Baker <bob@author.example>", "Bob B. Baker"),
        (b' "Baker, \\"Bob\\"" <bob@author.example>', 'Baker, "Bob"'),
        (b" =?utf-8?q?Bj=C3=B6rn?= <bob@author.example>", "Björn"),
        (b" =?utf-8?B?QmrD?= =?utf-8?B?tnJu?= <bob@author.example>", "Björn"),
        (b" =?iso-8859-1?q?Bj=F6rn?= Baker <bob@author.example>", "Björn Baker"),
        (b" Bob\r\n Baker (at work) <bob@author.example>", "Bob Baker"),
        (" Björn <bob@author.example>".encode(), "Björn"),
        (b" bob@author.example", ""),
        (b" <bob@author.example>", ""),
        (b" bob@author.example (Bob)", ""),
        (b" bob@author.example <bob@author.example>", "bob@author.example"),
        (b" =?rot13?q?Obo?= <bob@author.example>", "=?rot13?q?Obo?="),
        (b" =?utf-8?B?A?= <bob@author.example>", "=?utf-8?B?A?="),
    ],
)
def test_an_author_has_a_name(field: bytes, name: str) -> None:
    author = parse_author(with_from(field))
    assert author is not None
    assert (author.address, author.name.strip()) == (Address("bob", "author.example"), name)


@pytest.mark.parametrize(
    "field",
    [
        b" a@author.example, b@author.example",
        b" Friends: bob@author.example;",
        b" Nobody:;",
        b" , bob@author.example",
        b" bob@",
        b" bob",
        b" Bob <bob@author.example>, <>",
    ],
)
def test_what_is_not_one_author_is_left_alone(field: bytes) -> None:
    assert parse_author(with_from(field)) is None
    assert replace_author(with_from(field), TOKEN, TEAM) is None


@pytest.mark.parametrize("header", [b"", b"From: a@b.example\r\nFrom: a@b.example\r\n"])
def test_a_message_without_one_from_has_no_author(header: bytes) -> None:
    assert parse_author(parse_message(header + b"\r\nbody")) is None


def test_from_is_replaced_where_it_stands_and_kept_beside() -> None:
    replaced = replace_author(with_from(b" Bob <bob@author.example>"), TOKEN, TEAM)
    assert replaced is not None
    assert replaced.header + replaced.separator + replaced.body == (
        b"Received: x\r\n"
        b'From: "Bob via team"\r\n <reply=KAAAAAAAAAAAAA=TT=author.example=bob@fwd.example>\r\n'
        b"X-Original-From: Bob <bob@author.example>\r\n"
        b"Reply-To: Bob <bob@author.example>\r\n"
        b"Subject: y\r\n\r\nbody\r\n"
    )
    assert replaced.fields == parse_message(replaced.header).fields
    assert parse_from(replaced).author == TOKEN


def test_a_reply_to_of_the_authors_own_stays() -> None:
    replaced = replace_author(with_from(b" bob@author.example", b"Reply-To: desk@author.example\r\n"), TOKEN, TEAM)
    assert replaced is not None
    assert [one.raw for one in replaced.all(b"reply-to")] == [b"Reply-To: desk@author.example\r\n"]


def test_who_has_no_name_is_called_by_the_address() -> None:
    replaced = replace_author(with_from(b" bob@author.example"), TOKEN, TEAM)
    assert replaced is not None
    assert b'From: "bob at author.example via team"\r\n ' in replaced.header


def test_a_name_beyond_ascii_needs_no_smtputf8() -> None:
    long_name = "Ünïcödé 名前 " * 6
    replaced = replace_author(with_from(f' "{long_name}" <bob@author.example>'.encode()), TOKEN, TEAM)
    assert replaced is not None
    raw = replaced.all(b"from")[0].raw
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 76
    read = message_from_bytes(replaced.header)
    name, address = parseaddr(str(make_header(decode_header(read["From"]))))
    assert (name, address) == (f"{long_name.strip()} via team", str(TOKEN))


def test_what_cannot_be_seen_is_not_in_the_name() -> None:
    encoded = b" =?utf-8?q?Bob=0D=0AEvil=3A_x=E2=80=AE?= <bob@author.example>"
    replaced = replace_author(with_from(encoded), TOKEN, TEAM)
    assert replaced is not None
    assert replaced.all(b"from")[0].raw.startswith(b'From: "Bob Evil: x via team"\r\n ')


def test_a_line_that_would_become_too_long_is_not_made() -> None:
    field = b" " + b"B" * 965 + b" <bob@author.example>"
    assert parse_author(with_from(field)) is not None
    assert replace_author(with_from(field), TOKEN, TEAM) is None


def test_a_header_that_would_become_too_large_is_not_made() -> None:
    assert replace_author(with_from(b" bob@author.example", b"X: y\r\n" * (MAX_FIELDS - 3)), TOKEN, TEAM) is None
    lines, rest = divmod(MAX_HEADER - 64, 905)
    large = (b"X: " + b"y" * 900 + b"\r\n") * lines + b"X: " + b"y" * (rest - 5) + b"\r\n"
    assert replace_author(with_from(b" bob@author.example", large), TOKEN, TEAM) is None


NAMES = st.text(st.characters(exclude_categories=("Cs",)), max_size=150)


@given(name=NAMES, body=st.binary(max_size=200), reply_to=st.booleans(), via=NAMES)
def test_nothing_but_from_and_reply_to_changes(name: str, body: bytes, reply_to: bool, via: str) -> None:
    quoted = "".join(one for one in name if one.isprintable()).replace("\\", "\\\\").replace('"', '\\"')
    rest = b"X-Odd:\t  folded\r\n  value \r\nreply-TO : d@e.example\r\n".replace(b" :", b":") if reply_to else b""
    before = parse_message(
        b"X-First: 1\r\nFROM:" + f' "{quoted}" <bob@author.example>\r\n'.encode() + rest + b"\r\n" + body
    )
    after = replace_author(before, TOKEN, Address(via, "fwd.example"))
    assert after is not None
    ours = [one for one in after.fields if one.name in (b"from", b"x-original-from", b"reply-to")]
    kept = [one for one in before.fields if one.name == b"reply-to"]
    assert [one for one in after.fields if one not in ours] == [
        one for one in before.fields if one.name not in (b"from", b"reply-to")
    ]
    assert [one.value for one in ours[1:]] == [before.all(b"from")[0].value, *[one.value for one in kept]] + (
        [] if reply_to else [before.all(b"from")[0].value]
    )
    assert (after.separator, after.body) == (before.separator, before.body)
    again = message(after.header + b"\r\n")
    assert again.fields == after.fields
    assert parse_from(again).author == TOKEN
    assert b"".join(one.raw for one in ours[:1]).isascii()
