"""Do addresses that other programs minted lead home, and nothing else? Made by Exim 4.96 and by the arithmetic of OpenSMTPD's."""

from __future__ import annotations

import base64
import hashlib
from datetime import date, timedelta

import pytest

from forwarder.model import Address
from forwarder.ports import Dialect, Legacy
from forwarder.srs import Reversed, WhyNot
from forwarder.srslegacy import decode

#: What ``exim -be '${srs_encode {secret}{User@Example.COM}{fwd.test}}'`` printed on this day.
EXIM = Address("SRS0=b3d4=jq=Example.COM=User", "fwd.test")
EXIM_NESTED = Address("SRS0=6f7c=jq=first.example=SRS0=abcd=AB=x.example=u", "fwd.test")
DAY = date(2026, 11, 27)


def legacy(dialect: Dialect, *secrets: bytes, until: date = date.max, max_age: int = 21) -> Legacy:
    return Legacy(dialect, "fwd.test", secrets or (b"secret",), until, max_age=max_age)


def opensmtpd(covered: str, kind: str = "SRS0") -> Address:
    digest = base64.b64encode(hashlib.sha1(f"secret{covered}@fwd.test".encode()).digest()).decode()
    return Address(f"{kind}={digest[:4]}={covered}", "fwd.test")


def test_exim() -> None:
    assert decode(EXIM, [legacy(Dialect.EXIM)], DAY) == Reversed(Address("User", "example.com"))
    assert decode(EXIM_NESTED, [legacy(Dialect.EXIM)], DAY) == Reversed(
        Address("SRS0=abcd=AB=x.example=u", "first.example")
    )
    assert decode(Address("SRS1=b3d4=first.example==x", "fwd.test"), [legacy(Dialect.EXIM)], DAY) is WhyNot.MALFORMED


def test_opensmtpd() -> None:
    address = opensmtpd("JQ=Example.COM=bob")
    assert decode(address, [legacy(Dialect.OPENSMTPD)], DAY) == Reversed(Address("bob", "example.com"))
    chained = opensmtpd("first.example==HHHH=JQ=x.example=bob", "SRS1")
    assert decode(chained, [legacy(Dialect.OPENSMTPD)], DAY) == Reversed(
        Address("SRS0=HHHH=JQ=x.example=bob", "first.example")
    )
    folded = Address(address.local.lower(), address.domain)
    assert decode(folded, [legacy(Dialect.OPENSMTPD)], DAY) is WhyNot.BAD_MAC


@pytest.mark.parametrize(
    ("days", "found"),
    [
        (-2, WhyNot.EXPIRED),
        (-1, Reversed(Address("User", "example.com"))),
        (21, Reversed(Address("User", "example.com"))),
        (22, WhyNot.EXPIRED),
    ],
)
def test_the_age_is_bounded_and_a_clock_may_be_a_day_off(days: int, found: Reversed | WhyNot) -> None:
    assert decode(EXIM, [legacy(Dialect.EXIM)], DAY + timedelta(days)) == found


def test_it_ends_with_the_day_that_the_operator_named() -> None:
    assert isinstance(decode(EXIM, [legacy(Dialect.EXIM, until=DAY)], DAY), Reversed)
    assert decode(EXIM, [legacy(Dialect.EXIM, until=DAY - timedelta(1))], DAY) is WhyNot.EXPIRED


def test_a_day_with_a_letter_that_only_folds_to_ascii_is_none() -> None:
    # The MAC of Exim does not cover the day.
    kelvin = Address(EXIM.local.replace("=jq=", "=\u212aq="), "fwd.test")
    assert decode(kelvin, [legacy(Dialect.EXIM)], DAY) is WhyNot.MALFORMED


def test_every_secret_and_every_dialect_of_the_domain_is_tried() -> None:
    several = [legacy(Dialect.POSTSRSD, b"other"), legacy(Dialect.EXIM, b"new", b"secret")]
    assert isinstance(decode(EXIM, several, DAY), Reversed)
    assert decode(EXIM, several[:1], DAY) is WhyNot.BAD_MAC
    assert decode(Address(EXIM.local, "other.test"), several, DAY) is WhyNot.NOT_SRS


@pytest.mark.parametrize(
    "local",
    [
        "bob",
        "SRS0=",
        "SRS0=" + "=" * 200,
        "SRS0=b3d4=jq=Example.COM",
        "SRS0=b3d4==Example.COM=User",
        "SRS0=b3d=jq=Example.COM=User",
        "SRS0=b3d4=jq=Example.COM=Us\u00e9r",
        "SRS0=\ud800=jq=x.example=u",
        "SRS1=b3d4=x",
    ],
)
@pytest.mark.parametrize("dialect", list(Dialect))
def test_what_they_did_not_mint_leads_nowhere(local: str, dialect: Dialect) -> None:
    assert isinstance(decode(Address(local, "fwd.test"), [legacy(dialect)], DAY), WhyNot)


def test_a_sender_that_is_no_address_is_none() -> None:
    # Its MAC is good: whoever minted it took what stands there for an address.
    covered = "JQ=example.com=a b"
    assert decode(opensmtpd(covered), [legacy(Dialect.OPENSMTPD)], DAY) is WhyNot.MALFORMED
