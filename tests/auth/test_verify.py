"""auth/verify.py: every check under one deadline, and who vouches for the sender."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address

import pytest

from forwarder.auth import canonical
from forwarder.auth.dkim import build_dkim_signature
from forwarder.auth.signed import sign_now
from forwarder.auth.verify import verify
from forwarder.keys import KeyFile, Keys, dkim_record, generate_ed25519, generate_secret
from forwarder.mail.address import parse_from
from forwarder.mail.header import parse_message
from forwarder.model import Address, Envelope, Message, Peer, Recipient, Result, Verdict
from forwarder.ports import Answer
from tests.fakes import FakeResolver, message

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
BOB = Address("bob", "sender.example")
ENVELOPE = Envelope(
    "id", Peer(IPv4Address("192.0.2.1"), "mx.sender.example"), BOB, (Recipient(Address("a", "fwd.example")),), NOW
)
PLAIN = message("From: bob@sender.example\nSubject: x\n\nbody\n")
SPF = {"sender.example": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"]}}


async def checked(
    zone: dict[str, dict[str, list[str]]], envelope: Envelope = ENVELOPE, content: Message = PLAIN
) -> Verdict:
    return await verify(FakeResolver(zone), envelope, content, parse_from(content), receiver="mx.fwd.example", now=NOW)


async def test_spf_vouches_for_the_sender_it_names_and_for_no_null_sender() -> None:
    assert (await checked(SPF)).sender_verified_by == "spf"
    assert (await checked({})).sender_verified_by is None
    null = replace(ENVELOPE, sender=None)
    helo = {"mx.sender.example": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"]}}
    verdict = await checked(helo, null)
    assert verdict.spf.result is Result.PASS
    assert verdict.sender_verified_by is None


@pytest.mark.parametrize(
    ("signer", "sender", "testing", "expected"),
    [
        ("sender.example", "sender.example", False, "dkim"),
        ("sender.example", "mail.sender.example", False, "dkim"),
        ("sender.example", "notsender.example", False, None),
        ("mail.sender.example", "sender.example", False, None),
        ("sender.example", "sender.example", True, None),
        ("co.uk", "sender.co.uk", False, None),
    ],
)
async def test_a_signature_vouches_for_its_domain_and_those_below(
    tmp_path_factory: pytest.TempPathFactory, signer: str, sender: str, testing: bool, expected: str | None
) -> None:
    folder = tmp_path_factory.mktemp("keys")
    generate_ed25519(folder / "k.pem")
    generate_secret(folder / "s")
    keys = Keys.load(dkim=[KeyFile(signer, "s", folder / "k.pem")], srs_secret_file=folder / "s")
    key = keys.dkim(signer)[0]
    signature = sign_now(build_dkim_signature(PLAIN.fields, canonical.body_hash(PLAIN, "relaxed"), key, now=NOW))
    record = dkim_record(key) + ("; t=y" if testing else "")
    signed = parse_message(signature + PLAIN.header + PLAIN.separator + PLAIN.body)
    envelope = replace(ENVELOPE, sender=Address("bob", sender))
    verdict = await checked({f"s._domainkey.{signer}": {"TXT": [record]}}, envelope, signed)
    assert [one.result for one in verdict.dkim] == [Result.PASS]
    assert verdict.sender_verified_by == expected


async def test_several_authors_are_a_permerror_of_dmarc() -> None:
    two = message("From: a@one.example, b@two.example\n\nx\n")
    assert (await checked(SPF, content=two)).dmarc.result is Result.PERMERROR


class SilentResolver(FakeResolver):
    """Never answers for names under one domain."""

    async def txt(self, name: str, *, fresh: bool = False) -> Answer[bytes]:
        if name.endswith("sender.example"):
            await asyncio.Event().wait()
        return await super().txt(name, fresh=fresh)


async def test_what_the_deadline_cuts_off_is_a_temperror_and_never_a_none() -> None:
    signed = message("DKIM-Signature: v=1\nFrom: bob@sender.example\n\nx\n")
    verdict = await verify(
        SilentResolver(), ENVELOPE, signed, parse_from(signed), receiver="mx.fwd.example", now=NOW, deadline=0.01
    )
    for check in (verdict.mailkey, verdict.spf, verdict.spf_helo, verdict.arc, verdict.dmarc, *verdict.dkim):
        assert check.result is Result.TEMPERROR
    assert verdict.sender_verified_by is None


class SlowResolver(FakeResolver):
    """Answers a round of the loop later, and tells what it was asked for ahead."""

    def __init__(self, zone: dict[str, dict[str, list[str]]]) -> None:
        super().__init__(zone)
        self.ahead: list[list[str]] = []

    async def txt(self, name: str, *, fresh: bool = False) -> Answer[bytes]:
        await asyncio.sleep(0)
        return await super().txt(name, fresh=fresh)

    def prefetch_txt(self, names: Iterable[str]) -> None:
        self.ahead.append(list(names))


async def test_what_is_asked_first_is_asked_at_once_when_a_check_has_to_wait() -> None:
    signature = b"DKIM-Signature: v=1; a=rsa-sha256; d=sender.example; s=s; h=from; bh=AAAA; b=AAAA\r\n"
    signed = parse_message(signature + PLAIN.header + PLAIN.separator + PLAIN.body)
    resolver = SlowResolver(SPF)
    verdict = await verify(resolver, ENVELOPE, signed, parse_from(signed), receiver="mx.fwd.example", now=NOW)
    assert verdict == await checked(SPF, content=signed)
    first = ["mailkey.sender.example", "sender.example", "_dmarc.sender.example", "s._domainkey.sender.example"]
    assert resolver.ahead == [first]
    assert resolver.queries[0] == (first[0], "TXT")
