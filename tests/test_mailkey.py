"""forwarder.mailkey: what another mail program gets from us, used as it would use it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from forwarder.keys import Key, generate_ed25519, generate_rsa, mailkey_record
from forwarder.mailkey import MailkeyError, averify, load_key, sign, verify
from forwarder.resolver import DnsResolver
from tests.peers.dns_server import run_dns_server

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
MESSAGE = b"From: Bob <bob@sender.example>\r\nTo: ann@elsewhere.example\r\nSubject: x\r\n\r\nHello.\r\n"
BOB, ANN = "bob@sender.example", "ann@elsewhere.example"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    generate_ed25519(tmp_path / "key.pem")
    return tmp_path / "key.pem"


def published(key: Any, policy: str = "all") -> dict[str, list[str]]:
    name = f"{key.selector}.mailkey.{key.domain}" if key.selector else f"mailkey.{key.domain}"
    return {f"mailkey.{key.domain}": [mailkey_record(key, policy)], name: [mailkey_record(key, policy)]}


@pytest.mark.parametrize("selector", ["", "k2611"])
@pytest.mark.parametrize("rcpt_to", [[], [ANN]])
def test_what_is_signed_verifies(key_file: Path, selector: str, rcpt_to: list[str]) -> None:
    key = load_key(key_file, domain="sender.example", selector=selector)

    signed = sign(MESSAGE, key=key, mail_from=BOB, rcpt_to=rcpt_to, now=NOW) + MESSAGE

    found = verify(signed, mail_from=f"<{BOB}>", rcpt_to=[ANN], now=NOW, dns=published(key))
    assert (found.result, found.domain, found.signer, found.policy) == (
        "pass",
        "sender.example",
        "sender.example",
        "all",
    )
    assert (found.selector or "", found.bound) == (selector, True if rcpt_to else None)


def test_an_rsa_key_does_as_well(tmp_path: Path) -> None:
    generate_rsa(tmp_path / "rsa.pem", 2048)
    key = load_key(tmp_path / "rsa.pem", domain="sender.example")

    signed = sign(MESSAGE, key=key, mail_from=BOB, now=NOW) + MESSAGE

    assert verify(signed, mail_from=BOB, now=NOW, dns=published(key)).result == "pass"


@pytest.mark.parametrize(
    ("changes", "result", "reason"),
    [
        ({"mail_from": "eve@sender.example"}, "fail", "signed for another MAIL FROM"),
        ({"rcpt_to": ["carl@elsewhere.example"]}, "fail", "not signed for this recipient"),
        ({"now": NOW + timedelta(days=8)}, "fail", "mailkey signature expired"),
        ({"dns": {}}, "none", "no mailkey record"),
        ({"dns": {"mailkey.sender.example": None}}, "temperror", "no answer from the DNS for the mailkey"),
        ({"mail_from": None, "helo": "sender.example"}, "fail", "signed for another MAIL FROM"),
    ],
)
def test_what_does_not_fit_is_told(key_file: Path, changes: dict[str, Any], result: str, reason: str) -> None:
    key = load_key(key_file, domain="sender.example")
    signed = sign(MESSAGE, key=key, mail_from=BOB, rcpt_to=[ANN], now=NOW) + MESSAGE
    arguments: dict[str, Any] = {"mail_from": BOB, "rcpt_to": [ANN], "now": NOW, "dns": published(key)} | changes

    found = verify(signed, **arguments)

    assert (found.result, found.reason) == (result, reason)


def test_the_null_sender_signs_for_the_ehlo_domain(key_file: Path) -> None:
    key = load_key(key_file, domain="mx.sender.example")

    signed = sign(MESSAGE, key=key, mail_from="", now=NOW) + MESSAGE

    found = verify(signed, mail_from=None, helo="mx.sender.example", now=NOW, dns=published(key))
    assert (found.result, found.domain) == ("pass", "mx.sender.example")


def test_a_message_with_lf_is_signed_as_if_it_had_crlf(key_file: Path) -> None:
    key = load_key(key_file, domain="sender.example")
    message = MESSAGE.replace(b"\r\n", b"\n")

    field = sign(message, key=key, mail_from=BOB, now=NOW)

    assert b"\r" not in field
    on_the_wire = (field + message).replace(b"\n", b"\r\n")
    assert verify(field + message, mail_from=BOB, now=NOW, dns=published(key)).result == "pass"
    assert verify(on_the_wire, mail_from=BOB, now=NOW, dns=published(key)).result == "pass"


def test_the_dns_may_be_a_function_of_either_kind_and_its_exception_is_no_answer(key_file: Path) -> None:
    key = load_key(key_file, domain="sender.example")
    signed = sign(MESSAGE, key=key, mail_from=BOB, now=NOW) + MESSAGE
    asked: list[str] = []

    def records(name: str) -> list[str]:
        asked.append(name)
        return published(key).get(name, [])

    async def records_later(name: str) -> list[str]:
        await asyncio.sleep(0)
        return records(name)

    def down(name: str) -> list[str]:
        raise TimeoutError("nobody there")

    assert verify(signed, mail_from=BOB, now=NOW, dns=records).result == "pass"
    assert asyncio.run(averify(signed, mail_from=BOB, now=NOW, dns=records_later)).result == "pass"
    assert asked == ["mailkey.sender.example"] * 2
    found = verify(signed, mail_from=BOB, now=NOW, dns=down)
    assert found.result == "temperror"
    assert found.reason is not None
    assert "TimeoutError: nobody there" in found.reason


@pytest.mark.parametrize(
    "message",
    [b"", b"\r\n", b"\0", b"no colon\r\n\r\n", b" x\r\n", b"a\rb\nc", b"From: x", b"Mailkey-Signature: v=1\r\n" * 2000,
     b"Mailkey-Signature: " + b"\xff" * 9000 + b"\r\n\r\n"],
)  # fmt: skip
def test_a_hostile_message_is_a_result(message: bytes) -> None:
    found = verify(message, mail_from=BOB, now=NOW, dns={"mailkey.sender.example": ["v=mailkey1; p="]})

    assert found.result in {"fail", "permerror"}
    assert found.reason


async def test_a_key_host_is_asked_and_never_one_at_home(key_file: Path) -> None:
    key = load_key(key_file, domain="sender.example")
    signed = sign(MESSAGE, key=key, mail_from=BOB, now=NOW) + MESSAGE
    name = "mailkey.sender.example. 300 IN"
    zone = f'{name} TXT "v=mailkey1; u=https"\n{name} A 127.0.0.1\n'

    async with run_dns_server(zone) as server:
        resolver = DnsResolver([server.address], monotonic=asyncio.get_running_loop().time)
        found = await averify(signed, mail_from=BOB, now=NOW, dns=resolver)
        await resolver.aclose()

    assert (found.result, found.reason) == ("permerror", "key host: it has no public address")


def test_a_text_in_place_of_a_list_is_one_record(key_file: Path) -> None:
    key = load_key(key_file, domain="sender.example")
    signed = sign(MESSAGE, key=key, mail_from=BOB, now=NOW) + MESSAGE
    text = mailkey_record(key)

    assert verify(signed, mail_from=BOB, now=NOW, dns={"mailkey.sender.example": [text]}).result == "pass"
    assert verify(signed, mail_from=BOB, now=NOW, dns=lambda name: text).result == "pass"


@given(at=st.integers(0, 600), junk=st.binary(max_size=8), cut=st.integers(0, 8))
def test_no_change_of_a_message_makes_verify_raise(at: int, junk: bytes, cut: int) -> None:
    key = Key("sender.example", "", Ed25519PrivateKey.from_private_bytes(bytes(32)))
    signed = sign(MESSAGE, key=key, mail_from=BOB, rcpt_to=[ANN], now=NOW) + MESSAGE
    changed = signed[:at] + junk + signed[at + cut :]

    found = verify(changed, mail_from=BOB, rcpt_to=[ANN], now=NOW, dns=published(key))

    assert found.result in {"pass", "fail", "permerror"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mail_from": "nobody"}, "mail_from 'nobody'"),
        ({"mail_from": "a\udc80@sender.example"}, "mail_from"),
        ({"rcpt_to": [""]}, "rcpt_to: an address is empty"),
        ({"rcpt_to": ANN}, "rcpt_to is a list of addresses"),
        ({"now": datetime(2026, 11, 27)}, "now needs a time zone"),  # noqa: DTZ001 - that is the point
    ],
)
def test_an_unusable_argument_is_one_kind_of_error(key_file: Path, changes: dict[str, Any], told: str) -> None:
    key = load_key(key_file, domain="sender.example")

    arguments: dict[str, Any] = {"mail_from": BOB} | changes

    with pytest.raises(MailkeyError, match=told):
        verify(MESSAGE, dns={}, **arguments)
    with pytest.raises(MailkeyError, match=told):
        sign(MESSAGE, key=key, **arguments)


@pytest.mark.parametrize(
    ("message", "changes", "told"),
    [
        (MESSAGE, {"mail_from": "eve@other.example"}, "cannot sign for a sender in other.example"),
        (MESSAGE, {"mail_from": "eve@notsender.example"}, "cannot sign"),
        (MESSAGE, {"lifetime": timedelta(days=15)}, "14 days"),
        (MESSAGE, {"lifetime": timedelta()}, "one second"),
        (b"Subject: x\r\n\r\n", {}, "one From field"),
        (MESSAGE + b"bare\nline\r\n", {}, "line ends of two kinds"),
        (b"no colon\r\n\r\n", {}, "no colon"),
    ],
)
def test_what_nobody_could_verify_is_not_signed(
    key_file: Path, message: bytes, changes: dict[str, Any], told: str
) -> None:
    key = load_key(key_file, domain="sender.example")

    arguments: dict[str, Any] = {"mail_from": BOB} | changes

    with pytest.raises(MailkeyError, match=told):
        sign(message, key=key, **arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [({"domain": "not a domain"}, "no domain"), ({"domain": "a.example", "selector": "a.b"}, "one DNS label")],
)
def test_a_key_is_for_a_domain_and_one_label(key_file: Path, arguments: dict[str, str], told: str) -> None:
    with pytest.raises(MailkeyError, match=told):
        load_key(key_file, **arguments)


def test_a_key_file_that_cannot_be_used_is_the_same_kind_of_error(tmp_path: Path) -> None:
    with pytest.raises(MailkeyError, match=r"missing\.pem"):
        load_key(tmp_path / "missing.pem", domain="sender.example")


async def test_verify_under_an_event_loop_says_what_to_do() -> None:
    with pytest.raises(MailkeyError, match="averify"):
        verify(MESSAGE, mail_from=BOB, dns={})
