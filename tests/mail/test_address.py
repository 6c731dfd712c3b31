"""Paths, configured addresses, and the one reading of From."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.mail.address import (
    MAX_FROM,
    AddressError,
    FromHeader,
    NonAsciiAddress,
    Path,
    ascii_domain,
    needs_smtputf8,
    parse_address,
    parse_from,
    parse_path,
    wire,
)
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.model import Address
from tests.cost import TRIES, cost_of
from tests.fakes import message

BOB = Address("bob", "sender.test")


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("<bob@sender.test>", "bob", "sender.test"),
        ("<Bob@SENDER.Test>", "Bob", "sender.test"),
        ("<a.b+c=d/e'f@x>", "a.b+c=d/e'f", "x"),
        ('<""@x.test>', '""', "x.test"),
        (r'<"a\"b@c> "@x.test>', r'"a\"b@c> "', "x.test"),
        ("<a@my_host.x-y.123>", "a", "my_host.x-y.123"),
        ("<a@[192.0.2.1]>", "a", "[192.0.2.1]"),
        ("<a@[ipv6:2001:DB8:0:0::1]>", "a", "[IPv6:2001:db8::1]"),
        ("<@a.test:bob@sender.test>", "bob", "sender.test"),
        ("<@a.test,@[192.0.2.1]:bob@sender.test>", "bob", "sender.test"),
        ("<böb@BÜCHER.test>", "böb", "bücher.test"),
        ("<a@" + "x" * 63 + ".test>", "a", "x" * 63 + ".test"),
        ("<" + "a" * 242 + "@sender.test>", "a" * 242, "sender.test"),
    ],
)
def test_a_path_yields_the_mailbox_in_wire_form(text: str, local: str, domain: str) -> None:
    assert parse_path(text.encode() + b" X=1", smtputf8=True) == Path(Address(local, domain), " X=1")


def test_the_null_path_is_no_address() -> None:
    assert parse_path(b"<>", smtputf8=False) == Path(None, "")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "bob@sender.test",
            "<bob@sender.test",
            "<bob>",
            "<@sender.test>",
            "<bob@>",
            "<a@b@c.test>",
            "<a b@c.test>",
        ),
        *(
            "<.a@c.test>",
            "<a.@c.test>",
            "<a..b@c.test>",
            '<"a@c.test>',
            '<"a"b@c.test>',
            '<"a".b@c.test>',
            "<a(b)@c.test>",
        ),
        *(
            "<a@c..test>",
            "<a@.c.test>",
            "<a@c.test.>",
            "<a@-c.test>",
            "<a@c-.test>",
            "<a@c,test>",
            "<a@c.test#>",
            "< >",
        ),
        *("<a@" + "x" * 64 + ".test>", "<" + "a" * 243 + "@sender.test>", "<a@" + "x." * 127 + "xx>", "<a@c(d).test>"),
        *(
            "<a@[192.0.2]>",
            "<a@[192.0.2.256]>",
            "<a@[192.0.2.01]>",
            "<a@[]>",
            "<a@[x]>",
            "<a@[fe80::1]>",
            "<a@[IPv6:x]>",
        ),
        *("<a@[IPv6:fe80::1%eth0]>", "<a@[192.0.2.1]x>", "<a@[192.0.2.1>", "<@a.test:>", "<@a.test,bob@sender.test>"),
        *("<a\x00b@c.test>", '<"\x00"@c.test>', '<"a\\\r"@c.test>', "<a\x7fb@c.test>", '<"\t"@c.test>', "<a@c\t.test>"),
        *("<a\x85b@c.test>", "<a\u202eb@c.test>", "<a\ufeffb@c.test>", "<a\u00a0b@c.test>", "<a@exam\ufeffple.test>"),
        *("<a@c。test>", "<a@xn--.ü>", "<a@\u200d.test>", "<a@ü_x.test>", "<a@" + "ü" * 60 + ".test>"),
    ],
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_path(text.encode(), smtputf8=True)


def test_octets_that_are_no_utf8_are_refused() -> None:
    with pytest.raises(AddressError, match="UTF-8"):
        parse_path(b"<b\xf6b@sender.test>", smtputf8=True)


def test_utf8_needs_the_extension() -> None:
    for text in ("<böb@sender.test>", "<bob@bücher.test>"):
        with pytest.raises(NonAsciiAddress):
            parse_path(text.encode(), smtputf8=False)


def test_joiners_are_letters_of_some_scripts() -> None:
    assert (
        parse_path("<\u0646\u0627\u0645\u0647\u200c\u0627\u06cc@sender.test>".encode(), smtputf8=True).address
        is not None
    )


def test_postmaster_needs_no_domain_where_one_is_given() -> None:
    assert parse_path(b"<PostMaster>", smtputf8=False, postmaster_domain="mx.test") == Path(
        Address("PostMaster", "mx.test"), ""
    )
    with pytest.raises(AddressError):
        parse_path(b"<postmaster>", smtputf8=False)


# --- configured addresses ---------------------------------------------------------------------------------------------


def test_an_address_is_read_as_an_operator_writes_it() -> None:
    assert parse_address("Bob@Sender.TEST") == Address("Bob", "sender.test")
    assert str(parse_address('"a b"@sender.test')) == '"a b"@sender.test'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("bob", "domain is missing"),
        ("@sender.test", "local part is empty"),
        ("bob@", "domain is empty"),
        ("bob@sender.test>", "nothing else"),
        ("bob@sender.test ", "nothing else"),
        ("a@b@sender.test", "no domain name"),
        ("a" * 300 + "@sender.test", "longer than 254"),
    ],
)
def test_a_bad_address_says_why(text: str, why: str) -> None:
    with pytest.raises(AddressError, match=why):
        parse_address(text)


def test_the_wire_carries_a_labels() -> None:
    assert wire(None) == b"<>"
    assert wire(BOB) == b"<bob@sender.test>"
    assert wire(Address("böb", "bücher.test")) == "<böb@xn--bcher-kva.test>".encode()
    assert wire(Address("a", "[IPv6:2001:db8::1]")) == b"<a@[IPv6:2001:db8::1]>"
    assert [needs_smtputf8(one) for one in (None, BOB, Address("a", "ü.test"), Address("ä", "x"))] == [False] * 3 + [
        True
    ]


def test_a_domain_is_the_same_in_every_spelling() -> None:
    assert ascii_domain("BÜCHER.Test") == ascii_domain("bu\u0308cher.test") == "xn--bcher-kva.test"
    with pytest.raises(AddressError):
        ascii_domain("ü" * 300)


_locals = st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\.[a-z0-9é-]{1,10})?", fullmatch=True) | st.from_regex(
    r'"([ !#-\[\]-~]|\\[ -~]){0,20}"', fullmatch=True
)
_domains = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,20}[a-z0-9])?(\.[a-z]{1,10}){0,3}", fullmatch=True)


@given(_locals, _domains)
def test_what_was_parsed_goes_out_as_it_came_in(local: str, domain: str) -> None:
    address = Address(local, domain)
    assert parse_path(wire(address), smtputf8=True) == Path(address, "")
    assert parse_address(str(address)) == address
    assert parse_from(message(f"From: x <{local}@{domain}>\n\n")).author in (address, None)


@given(st.text(max_size=100) | st.text('<>@"\\ab.[]:,() ü', max_size=60))
def test_no_text_raises_anything_but_an_address_error(text: str) -> None:
    for parse in (parse_address, ascii_domain):
        with contextlib.suppress(AddressError):
            parse(text)


# --- From -------------------------------------------------------------------------------------------------------------


def author(value: str | bytes) -> FromHeader:
    raw = value if isinstance(value, bytes) else value.encode()
    return parse_from(parse_message(b"From:" + raw + b"\r\n\r\n"))


@pytest.mark.parametrize(
    "value",
    [
        " bob@sender.test",
        "bob@SENDER.test",
        " <bob@sender.test>",
        " Bob <bob@sender.test>",
        ' "Bob, the <boss@x.test>" <bob@sender.test>',
        ' "B\\"ob" <bob@sender.test> ',
        " Bob Q. Public <bob@sender.test> (at (home) \\) )",
        "(x) bob@sender.test (y)",
        " =?utf-8?Q?B=C3=B6b,_Dr.?= =?utf-8?B?YWJj?=\r\n\t<bob@sender.test>",
        " =?utf-8?q?Bob:_evil?= <bob@sender.test>",
        " Böb <bob@sender.test>",
        b" B\xf6b <bob@sender.test>",
        " Bob\r\n <\r\n bob@sender.test\r\n >",
        " bob@sender.test <bob@sender.test>",
        " ,, bob@sender.test,",
        " Team: Bob <bob@sender.test>;",
        " 'Bob' <bob@sender.test>",
    ],
)
def test_one_author_is_found_however_the_name_is_written(value: str | bytes) -> None:
    assert author(value) == FromHeader((BOB,))
    assert author(value).author == BOB


def test_several_authors_are_several_addresses() -> None:
    both = FromHeader((BOB, Address('"a b"', "[192.0.2.1]")))
    assert author(' Bob <bob@sender.test>, "a b"@[192.0.2.1]') == both
    assert author(' g: Bob <bob@sender.test>, "a b"@[192.0.2.1];') == both
    assert both.author is None


def test_an_empty_group_is_nobody() -> None:
    assert author(" Undisclosed: (nobody) ;") == FromHeader(())


def test_utf8_authors_are_read() -> None:
    assert author(" Bö <böb@bücher.test>").author == Address("böb", "bücher.test")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "empty"),
        (" ", "empty"),
        (" ,", "empty"),
        (" (only a comment)", "empty"),
        (" Bob", "From: "),
        (" bob@", "From: "),
        (" <>", "From: "),
        (" <bob@sender.test", "does not close"),
        (" bob@sender.test>", "From: "),
        (" <bob@sender.test> x", "behind the address"),
        (" <bob@sender.test>, <a@b.test> c@d.test", "behind the address"),
        (" <a@b.test><bob@sender.test>", "behind the address"),
        (" <<bob@sender.test>>", "behind the address"),
        (" <@a.test,@b.test:bob@sender.test>", "route"),
        (" @a.test:bob@sender.test", "group"),
        (" admin@bank.test <bob@sender.test>", "unquoted address"),
        (" <admin@bank.test> <bob@sender.test>", "behind the address"),
        (" =?utf-8?B?PGFkbWluQGJhbmsudGVzdD4=?=, <bob@sender.test>", "encoded word"),
        (" <=?utf-8?Q?bob?=@sender.test>", "encoded word"),
        (" =?utf-8?Q?bob=40sender.test?=", "encoded word"),
        (" bob(x)@sender.test", "inside an address"),
        (" bob @sender.test", "inside an address"),
        (" bob@ sender.test", "inside an address"),
        (" bob.\r\n x@sender.test", "inside an address"),
        (" a@b@sender.test", "From: "),
        (" bob@sender..test", "From: "),
        (" bob@sender.test.", "From: "),
        (' "bob@sender.test', "malformed"),
        (" bob\\@x@sender.test", "malformed"),
        (" (x bob@sender.test", "comment"),
        (" Bob [x] <bob@sender.test>", "display name"),
        (" a: b: bob@sender.test;;", "group"),
        (" bob@sender.test;", "group"),
        (" a: bob@sender.test", "group"),
        (" : bob@sender.test;", "group"),
        (" bob\x00@sender.test", "control"),
        (" B\x1bob <bob@sender.test>", "control"),
        (b" <b\xf6b@sender.test>", "invisible"),
        (" bob@sender.test," * 60, "too many addresses"),
        (" x" * 1500, "too many words"),
    ],
)
def test_what_two_readers_could_read_in_two_ways_is_nobody(value: str | bytes, why: str) -> None:
    found = author(value)
    assert found.addresses == ()
    assert found.reason is not None
    assert why in found.reason


def test_there_is_exactly_one_from_field() -> None:
    assert parse_from(message("Subject: x\n\n")).reason == "no From field"
    assert parse_from(message("From: a@b.test\nfrom: a@b.test\n\n")).reason == "several From fields"


@given(st.binary(max_size=200) | st.text('<>@"\\ab.[]:,();=? \t\r\n', max_size=120).map(str.encode))
def test_no_from_field_raises(value: bytes) -> None:
    try:
        parsed = parse_message(b"From:" + value + b"\r\n\r\n")
    except MalformedMessage:
        return
    found = parse_from(parsed)
    assert found.reason is None or not found.addresses


@pytest.mark.parametrize(
    "unit", ['"', "(", "()", "a@b,", "\\", " ", " a", "<", ">", "=?a?q?", ":", ";", ".", "[", "ü", '""']
)
def test_a_from_field_of_one_sign_over_and_over_costs_nothing(unit: str) -> None:
    for size in (50_000, MAX_FROM // len(unit.encode()) - 20):
        if size * len(unit) < 200_000:
            texts = [parse_message(b"From: " + unit.encode() * (size - one) + b"\r\n\r\n") for one in range(TRIES)]
            assert cost_of(lambda number: parse_from(texts[number]), 0.05) < 0.05  # noqa: B023 - at once


@pytest.mark.parametrize("prefix", [" " * 3000, " a" * 450, '"' + " " * 3000 + '"', " a " * 200 + "<" + "a." * 1000])
def test_a_from_field_that_nearly_matches_costs_nothing(prefix: str) -> None:
    texts = [parse_message(b"From: " + prefix.encode() + b"!" * one + b"!(\r\n\r\n") for one in range(TRIES)]
    assert cost_of(lambda number: parse_from(texts[number]), 0.05) < 0.05
    assert all(parse_from(one).reason for one in texts)
