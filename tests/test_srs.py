"""srs.py: the address that brings a bounce home, and every way it must not."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.model import Address
from forwarder.srs import (
    MAX_AGE_DAYS,
    OneWay,
    Reversed,
    Token,
    WhyNot,
    decode,
    decode_reply,
    encode,
    encode_one_way,
    encode_reply,
    is_reply,
    is_srs,
    minted_on,
)

SECRETS = [b"first secret of this test", b"second secret, retired"]
TODAY = date(2026, 11, 23)
BOB = Address("bob", "sender.example")


def test_a_short_sender_is_carried_in_the_address_and_comes_back() -> None:
    encoded = encode(BOB, "fwd.example", SECRETS, TODAY)
    assert encoded.token is None
    assert encoded.address.local.startswith("SRS0=")
    assert encoded.address.local.endswith("=sender.example=bob")
    assert decode(encoded.address, SECRETS, TODAY) == Reversed(BOB)


@pytest.mark.parametrize(
    "sender",
    [
        Address("a-local-part-that-is-long-enough-to-need", "a-token.example"),
        Address('"quoted local"', "sender.example"),
        Address("bob", "[192.0.2.1]"),
        Address("jürgen", "sender.example"),
        Address("bob", "bücher.example"),
        Address("SRS1=abcd=first.example==xyz=TT=origin.example=user", "second.example"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_opaque_ascii_and_within_64_octets(sender: Address) -> None:
    encoded = encode(sender, "fwd.example", SECRETS, TODAY)
    assert encoded.token is not None
    assert len(encoded.address.local.encode()) <= 64
    assert encoded.address.local.isascii()
    assert sender.local.lower() not in encoded.address.local.lower()
    assert decode(encoded.address, SECRETS, TODAY) == Token(encoded.token)


def test_an_opaque_address_is_the_same_all_day_so_that_the_store_keeps_one_entry() -> None:
    long = Address("x" * 50, "sender.example")
    assert encode(long, "fwd.example", SECRETS, TODAY) == encode(long, "fwd.example", SECRETS, TODAY)
    assert encode(long, "fwd.example", SECRETS, TODAY).token != encode(BOB, "fwd.example", SECRETS, TODAY).token


def test_a_foreign_srs0_becomes_srs1_and_its_own_part_is_untouched() -> None:
    foreign = Address("SRS0+Ab3D=QX=origin.example=User", "first.example")
    encoded = encode(foreign, "fwd.example", SECRETS, TODAY)
    assert encoded.address.local.startswith("SRS1=")
    assert encoded.address.local.endswith("=first.example=+Ab3D=QX=origin.example=User")
    assert decode(encoded.address, SECRETS, TODAY) == Reversed(foreign)


def test_a_one_way_address_verifies_and_does_not_name_the_sender() -> None:
    address = encode_one_way(BOB, "fwd.example", SECRETS, TODAY)
    assert "bob" not in str(address)
    assert decode(address, SECRETS, TODAY) == OneWay()


def test_relays_may_fold_case() -> None:
    encoded = encode(BOB, "fwd.example", SECRETS, TODAY).address
    for folded in (encoded.local.lower(), encoded.local.upper()):
        back = decode(Address(folded, encoded.domain), SECRETS, TODAY)
        assert isinstance(back, Reversed)
        assert str(back.sender).lower() == "bob@sender.example"


def test_the_second_secret_verifies_and_a_third_does_not() -> None:
    old = encode(BOB, "fwd.example", SECRETS[1:], TODAY).address
    assert decode(old, SECRETS, TODAY) == Reversed(BOB)
    other = encode(BOB, "fwd.example", [b"a secret nobody has here"], TODAY).address
    assert decode(other, SECRETS, TODAY) is WhyNot.BAD_MAC


@pytest.mark.parametrize(
    ("days", "expected"),
    [(-2, False), (-1, True), (0, True), (MAX_AGE_DAYS, True), (MAX_AGE_DAYS + 1, False), (500, False)],
)
def test_an_address_lives_its_days_and_a_day_of_clock_skew(days: int, expected: bool) -> None:
    address = encode(BOB, "fwd.example", SECRETS, TODAY).address
    decoded = decode(address, SECRETS, TODAY + timedelta(days))
    assert decoded == (Reversed(BOB) if expected else WhyNot.EXPIRED)


def test_the_domain_it_was_minted_under_is_part_of_the_mac() -> None:
    address = encode(BOB, "fwd.example", SECRETS, TODAY).address
    assert decode(Address(address.local, "other.example"), SECRETS, TODAY) is WhyNot.BAD_MAC


@pytest.mark.parametrize("shape", ["stateless", "opaque", "one-way", "srs1"])
def test_no_single_character_can_be_changed(shape: str) -> None:
    address = {
        "stateless": encode(BOB, "fwd.example", SECRETS, TODAY).address,
        "opaque": encode(Address("x" * 50, "sender.example"), "fwd.example", SECRETS, TODAY).address,
        "one-way": encode_one_way(BOB, "fwd.example", SECRETS, TODAY),
        "srs1": encode(Address("SRS0=a=b=c=d", "first.example"), "fwd.example", SECRETS, TODAY).address,
    }[shape]
    good = decode(address, SECRETS, TODAY)
    assert not isinstance(good, WhyNot)
    for at in range(5, len(address.local)):
        for other in "A7=x-":
            changed = address.local[:at] + other + address.local[at + 1 :]
            if changed.lower() == address.local.lower():
                continue
            assert isinstance(decode(Address(changed, address.domain), SECRETS, TODAY), WhyNot), changed


def test_the_shapes_cannot_be_taken_for_one_another() -> None:
    stateless = encode(BOB, "fwd.example", SECRETS, TODAY).address.local
    key_and_mac, day = stateless.split("=")[1:3]
    for forged in (
        f"SRS0={key_and_mac}={day}=-=bob",
        f"SRS0={key_and_mac}={day}=+=bob",
        f"SRS1={key_and_mac[0]}{day}{key_and_mac[1:]}=sender.example==bob",
    ):
        assert decode(Address(forged, "fwd.example"), SECRETS, TODAY) is WhyNot.BAD_MAC


@pytest.mark.parametrize("local", ["SRS0=", "SRS0==", "SRS1=x", "SRS0=A=B=C=D", "srs0-" + "a" * 300, "SRS0=\u0130" * 9])
def test_rubbish_that_looks_like_srs_is_malformed(local: str) -> None:
    assert is_srs(local)
    assert decode(Address(local, "fwd.example"), SECRETS, TODAY) is WhyNot.MALFORMED


def test_an_ordinary_address_is_not_srs() -> None:
    assert decode(BOB, SECRETS, TODAY) is WhyNot.NOT_SRS


atoms = st.text("abcXYZ019!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=70)
domains = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{2,9}){1,3}", fullmatch=True)


@given(atoms, domains, st.integers(0, 40000))
def test_every_sender_comes_back_or_has_a_token_and_fits(local: str, domain: str, day: int) -> None:
    today = date(1970, 1, 1) + timedelta(day)
    sender = Address(local, domain)
    encoded = encode(sender, "fwd.example", SECRETS, today)
    assert len(encoded.address.local) <= 64
    decoded = decode(encoded.address, SECRETS, today)
    assert decoded == (Token(encoded.token) if encoded.token else Reversed(sender))


@given(st.text(max_size=120))
def test_no_text_makes_decode_raise(text: str) -> None:
    assert isinstance(decode(Address("SRS0=" + text, "fwd.example"), SECRETS, TODAY), WhyNot)


@pytest.mark.parametrize("letter", ["\u212a", "\u017f"], ids=["Kelvin sign", "long s"])
@pytest.mark.parametrize("at", [0, 5, 8, 20, 21])
def test_a_letter_that_only_folds_to_ascii_is_no_letter_of_ours(letter: str, at: int) -> None:
    local = encode(BOB, "fwd.example", SECRETS, TODAY).address.local
    reply = encode_reply(BOB, "fwd.example", SECRETS, TODAY).address.local
    for one in (local, local.replace("SRS0", "SRS1"), reply):
        address = Address(one[:at] + letter + one[at + 1 :], "fwd.example")
        assert isinstance(decode(address, SECRETS, TODAY), WhyNot)
        assert isinstance(decode_reply(address, SECRETS, TODAY), WhyNot)


def test_a_sender_that_only_looks_like_srs_comes_back_as_it_was() -> None:
    sender = Address("\u017fRS0=abcd=EF=x.example=u", "sender.example")
    encoded = encode(sender, "fwd.example", SECRETS, TODAY)
    assert encoded.token is not None


@pytest.mark.parametrize("days", [-1, 0, 1, 21])
@pytest.mark.parametrize(
    "sender", ["bob@sender.test", "SRS0=x=y=first.test=bob@second.test", f"{'b' * 50}@sender.test"]
)
def test_the_day_of_an_address_can_be_read_from_it(sender: str, days: int) -> None:
    local, _, domain = sender.partition("@")
    minted = TODAY - timedelta(days=days)
    address = encode(Address(local, domain), "fwd.example", SECRETS, minted).address
    assert minted_on(address, TODAY) == minted


def test_an_address_that_is_not_of_our_shape_has_no_day() -> None:
    assert minted_on(Address("SRS0=abcd=EF=sender.test=bob", "fwd.example"), TODAY) is None


# --- reply addresses --------------------------------------------------------------------------------------------------


def test_an_answer_finds_its_author_whatever_case_it_is_written_in() -> None:
    encoded = encode_reply(BOB, "fwd.example", SECRETS, TODAY)
    assert encoded.token is None
    assert encoded.address.local.startswith("reply=")
    assert decode_reply(encoded.address, SECRETS, TODAY) == Reversed(BOB)
    shouted = Address(encoded.address.local.upper(), "fwd.example")
    assert decode_reply(shouted, SECRETS, TODAY) == Reversed(Address("BOB", "sender.example"))
    retired = encode_reply(BOB, "fwd.example", SECRETS[1:], TODAY)
    assert decode_reply(retired.address, SECRETS, TODAY) == Reversed(BOB)


def test_an_author_that_does_not_fit_is_opaque() -> None:
    encoded = encode_reply(Address("jürgen", "bücher.example"), "fwd.example", SECRETS, TODAY)
    assert encoded.token is not None
    assert encoded.address.local.isascii()
    assert len(encoded.address.local) <= 64
    assert decode_reply(encoded.address, SECRETS, TODAY) == Token(encoded.token)


@given(st.from_regex(r"[a-z0-9]{1,30}", fullmatch=True), st.from_regex(r"[a-z]{1,30}\.example", fullmatch=True))
def test_every_author_comes_back(local: str, domain: str) -> None:
    author = Address(local, domain)
    encoded = encode_reply(author, "fwd.example", SECRETS, TODAY)
    assert len(encoded.address.local) <= 64
    expected = Reversed(author) if encoded.token is None else Token(encoded.token)
    assert decode_reply(encoded.address, SECRETS, TODAY) == expected


def test_a_reply_address_is_no_return_path_and_none_is_made_of_one() -> None:
    reply, srs0 = encode_reply(BOB, "fwd.example", SECRETS, TODAY).address, encode(BOB, "fwd.example", SECRETS, TODAY)
    assert not is_srs(reply.local)
    assert not is_reply(srs0.address.local)
    as_srs = Address("SRS0=" + reply.local.removeprefix("reply="), "fwd.example")
    as_reply = Address("reply=" + srs0.address.local.removeprefix("SRS0="), "fwd.example")
    assert decode(as_srs, SECRETS, TODAY) is WhyNot.BAD_MAC
    assert decode_reply(as_reply, SECRETS, TODAY) is WhyNot.BAD_MAC


def test_a_reply_address_that_was_changed_or_is_old_leads_nowhere() -> None:
    address = encode_reply(BOB, "fwd.example", SECRETS, TODAY).address
    assert decode_reply(Address(address.local[:-1] + "x", address.domain), SECRETS, TODAY) is WhyNot.BAD_MAC
    assert decode_reply(Address(address.local, "other.example"), SECRETS, TODAY) is WhyNot.BAD_MAC
    assert decode_reply(address, [b"another"], TODAY) is WhyNot.BAD_MAC
    last = TODAY + timedelta(days=MAX_AGE_DAYS)
    assert decode_reply(address, SECRETS, last) == Reversed(BOB)
    assert decode_reply(address, SECRETS, last + timedelta(days=1)) is WhyNot.EXPIRED
    assert decode_reply(Address("reply=x", "fwd.example"), SECRETS, TODAY) is WhyNot.MALFORMED
    assert decode_reply(BOB, SECRETS, TODAY) is WhyNot.NOT_SRS
