"""RFC 6376 section 3.2: what is a tag-list, and what only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.tags import TagError, parse_base64, parse_domain, parse_names, parse_number, parse_tags


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        (b"v=1", {b"v": b"1"}),
        (b"v=1;", {b"v": b"1"}),
        (b"v=1; ", {b"v": b"1"}),
        (b" v = 1 ;\r\n\ta=b ", {b"v": b"1", b"a": b"b"}),
        (b"a=", {b"a": b""}),
        (b"a=;b=c", {b"a": b"", b"b": b"c"}),
        (b"a=b=c", {b"a": b"b=c"}),
        (b"a=b c", {b"a": b"b c"}),
        (b"A=1; a=2", {b"A": b"1", b"a": b"2"}),
        (b"x_1=y", {b"x_1": b"y"}),
        ("d=bücher.example".encode(), {b"d": "bücher.example".encode()}),
        (b"", {}),
        (b" \r\n ", {}),
    ],
)
def test_a_tag_list_gives_its_tags(text: bytes, tags: dict[bytes, bytes]) -> None:
    assert parse_tags(text) == tags


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"a=1;;b=2", id="an empty tag in the middle"),
        pytest.param(b"a=1;;", id="two semicolons at the end"),
        pytest.param(b";a=1", id="an empty tag at the start"),
        pytest.param(b"a=1; a=2", id="a tag twice"),
        pytest.param(b"a=1; b", id="a tag without an equals sign"),
        pytest.param(b"1a=1", id="a name that begins with a digit"),
        pytest.param(b"a-b=1", id="a name with a hyphen"),
        pytest.param(b"a b=1", id="a name with a space"),
        pytest.param(b"=1", id="no name"),
        pytest.param(b"a=\x00", id="a NUL"),
        pytest.param(b"a=\x7f", id="a DEL"),
        pytest.param(b"a=\x0b1", id="a vertical tab"),
        pytest.param("ä=1".encode(), id="a name beyond ASCII"),
    ],
)
def test_what_could_be_read_in_two_ways_is_no_tag_list(text: bytes) -> None:
    with pytest.raises(TagError):
        parse_tags(text)


@given(
    st.dictionaries(
        st.from_regex(rb"[A-Za-z][A-Za-z0-9_]{0,9}", fullmatch=True),
        st.from_regex(rb"(?:[!-:<-~](?:[ -:<-~]{0,20}[!-:<-~])?)?", fullmatch=True),
        max_size=10,
    ),
    st.sampled_from([b"", b" ", b"\r\n ", b"\t"]),
)
def test_written_tags_are_read_back(tags: dict[bytes, bytes], space: bytes) -> None:
    text = b";".join(space + name + space + b"=" + space + value + space for name, value in tags.items())
    assert parse_tags(text) == tags


@given(st.binary(max_size=200))
def test_octets_give_tags_or_a_reason_without_them(text: bytes) -> None:
    try:
        tags = parse_tags(text)
    except TagError as error:
        reason = str(error)
    else:
        reason = "tags"
        assert all(value == value.strip(b" \t\r\n") for value in tags.values())
    assert reason.isascii()
    assert reason.isprintable()


@pytest.mark.parametrize(
    ("value", "octets"), [(b"AAEC", b"\0\1\2"), (b"A A\r\n E\tC", b"\0\1\2"), (b"AA==", b"\0"), (b"AAE=", b"\0\1")]
)
def test_base64_may_be_folded_anywhere(value: bytes, octets: bytes) -> None:
    assert parse_base64({b"b": value}, b"b") == octets


@pytest.mark.parametrize("value", [b"", b"A", b"AA", b"AAE", b"AA=", b"AAE==", b"AA==AA==", b"A*==", b"AA-_", b"=AAA"])
def test_what_is_no_base64_is_refused(value: bytes) -> None:
    with pytest.raises(TagError):
        parse_base64({b"b": value}, b"b")


@pytest.mark.parametrize(
    ("value", "domain"),
    [
        (b"Example.ORG", "example.org"),
        (b"example", "example"),
        (b"a_b.example", "a_b.example"),
        ("bücher.example".encode(), "xn--bcher-kva.example"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_a_domain_comes_out_in_lower_case_a_labels(value: bytes, domain: str) -> None:
    assert parse_domain({b"d": value}, b"d") == domain


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b".",
        b"a..b",
        b".a",
        b"-a.b",
        b"a-.b",
        b"a b.c",
        b"a@b.c",
        b"[192.0.2.1]",
        b"a" * 64,
        b"\xff.org",
        b"a." * 130,
    ],
)
def test_what_is_no_domain_name_is_refused(value: bytes) -> None:
    with pytest.raises(TagError):
        parse_domain({b"d": value}, b"d")


def test_names_are_lower_cased_and_keep_their_repeats() -> None:
    assert parse_names({b"h": b"From : Subject:\r\n from"}) == (b"from", b"subject", b"from")


@pytest.mark.parametrize("value", [b"", b":", b"from:", b":from", b"from::to", b"fr\x7fom", "ä:from".encode()])
def test_what_is_no_list_of_names_is_refused(value: bytes) -> None:
    with pytest.raises(TagError):
        parse_names({b"h": value})


@pytest.mark.parametrize(("value", "number"), [(b"0", 0), (b"012", 12), (b"9" * 12, 10**12 - 1)])
def test_a_number_has_up_to_twelve_digits(value: bytes, number: int) -> None:
    assert parse_number({b"t": value}, b"t") == number


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1 2", b"1.5", b"0x1", b"9" * 13, "\u0661".encode()])
def test_what_is_no_number_is_refused(value: bytes) -> None:
    with pytest.raises(TagError):
        parse_number({b"t": value}, b"t")


def test_no_number_is_none() -> None:
    assert parse_number({}, b"t") is None
