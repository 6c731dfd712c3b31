from __future__ import annotations

import re
from base64 import b64decode
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.model import Address
from forwarder.ports import Forwarded
from forwarder.store.records import (
    VERSION,
    Names,
    new_salt,
    open_address,
    open_forwarded,
    open_policy,
    open_salt,
    open_session,
    seal_address,
    seal_forwarded,
    seal_salt,
)
from tests.suites import ROOT

NAMES = Names(b"s" * 32)
# Every str, lone surrogates too: that is how octets that are not UTF-8 come in from a wire.
TEXT = st.text(st.characters(exclude_categories=()), max_size=80)
# Parameters of RFC 3461: the grammar of the commands lets nothing else through.
ASCII = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=80)
ADDRESSES = st.builds(Address, TEXT, TEXT)
FORWARDED = st.builds(
    Forwarded,
    reversible=ADDRESSES,
    sender=ADDRESSES,
    alias=ADDRESSES,
    destination=ADDRESSES,
    message_id=st.none() | TEXT,
    envelope_id=TEXT,
    at=st.datetimes(timezones=st.just(UTC)),
    notify=st.none() | ASCII,
    orcpt=st.none() | ASCII,
    envid=st.none() | ASCII,
    client=st.none() | ASCII,
    verified=st.booleans(),
)

#: Never changed: a release reads what an older one has put.
FORWARD_1 = b64decode(
    """
    AbKL9AmI0IV2mcQDYm9ixAtzZW5kZXIudGVzdMQFYWxpYXPECGZ3ZC50ZXN0xARkZXN0xAlzaW5rLnRlc3TEDzwxQHNlbmRlci50ZXN0PsQCZT
    HW/2sEMcg=
    """
)


@given(FORWARDED)
def test_a_forward_comes_back_as_it_was(one: Forwarded) -> None:
    value = seal_forwarded(NAMES, b"name", one, one.message_id)
    assert open_forwarded(NAMES, b"name", value, one.reversible) == one


def test_a_forward_of_version_1_is_read() -> None:
    reversible = Address("SRS0=x", "fwd.test")
    found = open_forwarded(NAMES, b"name", FORWARD_1, reversible)
    assert found == Forwarded(
        reversible,
        Address("bob", "sender.test"),
        Address("alias", "fwd.test"),
        Address("dest", "sink.test"),
        "<1@sender.test>",
        "e1",
        datetime(2026, 11, 23, 12, 30, tzinfo=UTC),
    )


@given(ADDRESSES)
def test_an_address_comes_back_as_it_was(address: Address) -> None:
    assert open_address(NAMES, b"name", seal_address(NAMES, b"name", address)) == address


@given(st.binary(max_size=200))
def test_whatever_lies_in_the_store_is_no_value_unless_we_made_it(value: bytes) -> None:
    assert open_address(NAMES, b"name", value) is None
    assert open_forwarded(NAMES, b"name", value, Address("a", "b")) is None
    assert open_salt(value) is None


@given(ADDRESSES, st.data())
def test_a_value_with_one_flipped_bit_is_no_value(address: Address, data: st.DataObject) -> None:
    value = bytearray(seal_address(NAMES, b"name", address))
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert open_address(NAMES, b"name", bytes(value)) is None


def test_a_value_under_anothers_name_is_no_value() -> None:
    value = seal_address(NAMES, b"name", Address("bob", "sender.example"))
    assert open_address(NAMES, b"other", value) is None


def test_a_value_of_another_version_is_no_value() -> None:
    value = seal_address(NAMES, b"name", Address("bob", "sender.example"))
    assert open_address(NAMES, b"name", b"\x02" + value[1:]) is None


def test_a_value_of_another_kind_is_no_value() -> None:
    value = seal_address(NAMES, b"name", Address("bob", "sender.example"))
    assert open_forwarded(NAMES, b"name", value, Address("a", "b")) is None


def test_the_salt_comes_back_as_it_was() -> None:
    salt = new_salt()
    assert open_salt(seal_salt(salt)) == salt


def test_names_differ_by_salt_kind_and_where_a_part_ends() -> None:
    names = [
        NAMES.key(b"a", "x", "yz"),
        NAMES.key(b"a", "xy", "z"),
        NAMES.key(b"a", "xyz"),
        NAMES.key(b"b", "xyz"),
        Names(b"t" * 32).key(b"a", "xyz"),
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("secret", ["bob", "sender.example", "YWxpY2U"])
def test_a_name_does_not_show_what_it_is_made_of(secret: str) -> None:
    name = NAMES.key(b"t", secret)
    assert secret.encode() not in name
    assert name.startswith(b"{fwd0}:t:")


def test_the_salt_is_in_no_repr() -> None:
    assert "s" * 8 not in repr(NAMES)


@pytest.mark.parametrize("content", [b"\x94\xa1\xff\xa4none\x90\x00", b"\x97\xa1\xff\x90\x90\xa7success\xa0\xa0\xa0"])
def test_text_that_is_not_utf8_is_no_value(content: bytes) -> None:
    assert open_policy(NAMES, b"name", VERSION + NAMES.tag(b"name", content) + content) is None
    assert open_session("a.test", VERSION + content) is None


def test_a_value_within_values_within_values_is_no_value() -> None:
    content = b"\x91" * 100_000
    assert open_address(NAMES, b"name", VERSION + NAMES.tag(b"name", content) + content) is None
    assert open_session("a.test", VERSION + content) is None


def test_each_kind_of_key_is_one_module_s() -> None:
    """Two that share a letter are kept apart by their parts alone, until one of them changes these."""
    owners: dict[str, set[str]] = {}
    for file in (ROOT / "forwarder" / "store").glob("*.py"):
        for kind in re.findall(r'\.key\(b"([a-z])"', file.read_text()):
            owners.setdefault(kind, set()).add(file.name)
    assert len(owners) > 10
    assert {kind: files for kind, files in owners.items() if len(files) > 1} == {}
