"""The proposal of 2003, step by step, and what it promised to follow: each sentence of it that can be tried, over real SMTP.

The wrinkle on which it ended, the forwarder that forges envelope senders, is tests/e2e/test_chain.py and test_story.py.
"""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import dkim
import pytest
import pytest_asyncio

from forwarder.cli.demo_lab import FORWARDER, SENDER, Received
from forwarder.keys import Key, generate_ed25519, load_key, mailkey_record
from forwarder.keys import KeyFile as File
from forwarder.resolver import caching
from tests.e2e.lab import MESSAGE, Lab, bounce_of, lab
from tests.e2e.signing import signed
from tests.e2e.test_submission import in_thread, sends, submission, verdict_of

FORGER = "127.0.0.66"
HAS, HAS_NOT, ROLLS_OUT, SPAMS = "has.test", "has-not.test", "rolls-out.test", "spams.test"
#: SPF vouches for it, so reports may go there.
SPF_ONLY = "spf-only.test"
pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class World:
    """A forwarder that takes part. Of four domains, three have a mailkey of one key, and SPF knows none of them."""

    it: Lab
    key: Key

    def message(self, domain: str, *, author: str | None = None, sign: bool = False, number: int = 1) -> bytes:
        """From bob@domain, or with the From header of another."""
        raw = MESSAGE.replace(b"bob@sender.test", f"bob@{author or domain}".encode())
        raw = raw.replace(b"<one@sender.test>", f"<{number}@{domain}>".encode())
        key = replace(self.key, domain=domain) if sign else None
        return signed(raw, f"bob@{domain}", ("alias@fwd.test",), mailkey=key, now=self.it.app.clock.now())

    async def send(self, data: bytes, domain: str, source: str = FORGER) -> str:
        return await self.it.send(data, f"bob@{domain}", source=source, helo="somewhere.test")

    async def arrived(self) -> Received:
        return await self.it.next(self.it.sink)

    def asked(self, name: str) -> bool:
        return any(one == name and rdtype == "TXT" for one, rdtype, _ in self.it.dns.queries)

    def txt(self, name: bytes, timeout: int = 5) -> bytes:
        """What dkimpy asks."""
        return self.it.records[name.decode().rstrip(".")]["TXT"][0].encode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("world")
    generate_ed25519(folder / "mailkey.pem")
    key = load_key(File("any.test", "", folder / "mailkey.pem"))
    policies = {HAS: "all", ROLLS_OUT: "some", SPAMS: "all"}
    zone = {f"mailkey.{domain}": {"TXT": [mailkey_record(key, policy)]} for domain, policy in policies.items()}
    zone |= {one: {"MX": ["10 mx.sender.test."]} for one in (HAS, HAS_NOT, ROLLS_OUT, SPAMS)}
    zone[SPF_ONLY] = {"MX": ["10 mx.sender.test."], "TXT": [f"v=spf1 ip4:{SENDER} -all"]}
    strict = '[domains."strict.test".policy]\nunauthenticated = "reject"\n'
    strict += '[domains."strict.test".aliases]\nalias = ["x@sink.test"]'
    async with lab(folder, zone=zone, extra=strict) as it:
        yield World(it, key)


# --- the five steps ---------------------------------------------------------------------------------------------------


async def test_step_1_the_server_receives_a_delivery_request_as_it_always_did(world: World) -> None:
    """No change to SMTP and none to mail clients: a client from before ESMTP is served, and is told of nothing new."""

    def talk() -> tuple[str, str]:
        with smtplib.SMTP(FORWARDER, world.it.port, source_address=(SENDER, 0), timeout=20) as client:
            offered = client.ehlo("old.test")[1].decode()
            client.helo("old.test")
            for command in (f"MAIL FROM:<bob@{HAS}>", "RCPT TO:<alias@fwd.test>"):
                assert client.docmd(command)[0] == 250
            return offered, str(client.data(world.message(HAS, sign=True))[0])

    offered, code = await asyncio.to_thread(talk)
    assert code == "250"
    assert "mailkey" not in offered.lower().replace("mx.fwd.test", "")
    assert b"mailkey=pass" in (await world.arrived()).data


async def test_step_2_the_server_looks_at_the_envelope_sender(world: World) -> None:
    """Not at the From header: another's name there neither helps nor hurts, and its mailkey is not asked for."""
    message = world.message(HAS, author="from-header.test", sign=True, number=2)
    assert (await world.send(message, HAS)).startswith("250")
    assert f"mailkey=pass smtp.mailfrom=bob@{HAS}".encode() in b" ".join((await world.arrived()).data.split())
    assert not world.asked("mailkey.from-header.test")
    forged = world.message(HAS, author=HAS_NOT, number=3)
    assert (await world.send(forged, HAS)).startswith(f"550 5.7.1 mailkey of {HAS}")


@pytest.mark.parametrize("sign", [True, False], ids=["signed", "unsigned"])
async def test_step_3_the_server_asks_the_mailkey_host_of_that_domain(world: World, sign: bool) -> None:
    """For every message, signed or not."""
    domain = f"{'signed' if sign else 'unsigned'}.test"
    await world.send(world.message(domain, sign=sign, number=4), domain)
    assert world.asked(f"mailkey.{domain}")
    await world.arrived()


async def test_step_4_a_mailkey_host_exists_and_the_signature_decides(world: World) -> None:
    good, other = world.message(HAS, sign=True, number=5), world.message(HAS, number=5)
    assert (await world.send(good, HAS)).startswith("250")
    assert (await world.arrived()).sender.endswith(f"={HAS}=bob@fwd.test")
    for bad in (other, good.replace(b"Hello", b"Money")):
        assert (await world.send(bad, HAS)).startswith(f"550 5.7.1 mailkey of {HAS} does not cover this message")
    assert world.it.sink.waiting.empty()


async def test_step_4_no_mailkey_host_exists_and_the_servers_own_policy_decides(world: World) -> None:
    message = world.message(HAS_NOT, number=6)
    assert (await world.send(message, HAS_NOT)).startswith("250")
    assert b"mailkey=none" in (await world.arrived()).data
    answer = await world.it.send(message, f"bob@{HAS_NOT}", "alias@strict.test", source=FORGER)
    assert answer.startswith("550 5.7.26 no authentication check vouches for this message")
    assert world.it.sink.waiting.empty()


async def test_step_5_a_bounce_tells_its_reader_how_to_keep_others_from_forging_its_address(world: World) -> None:
    """Where there is no mailkey yet, and once a day; the note is part of what the forwarder signs."""
    it = world.it
    notes = []
    for number, domain in enumerate((SPF_ONLY, SPF_ONLY, HAS), 20):
        message = world.message(domain, sign=domain == HAS, number=number)
        assert (await world.send(message, domain, SENDER)).startswith("250")
        arrived = await world.arrived()
        assert (await it.bounce(arrived, data=bounce_of(arrived, message_id=f"<b{number}@sink.test>"))).startswith(
            "250"
        )
        home = await it.next(it.sender)
        assert home.recipients == (f"bob@{domain}",)
        assert dkim.verify(home.data, dnsfunc=world.txt)
        notes.append(f'mailkey.{domain}. IN TXT "v=mailkey1;' in home.data.decode())
        assert b"forwarder mailkey keygen --domain" in home.data or not notes[-1]
    assert notes == [True, False, False]


# --- what follows -----------------------------------------------------------------------------------------------------


async def test_incremental_use_disturbs_no_existing_mail(world: World) -> None:
    """A domain that has no mailkey, or rolls one out, is served; what the one that rolls out has signed counts at once."""
    for domain, sign, reversible in ((HAS_NOT, False, False), (ROLLS_OUT, False, False), (ROLLS_OUT, True, True)):
        assert (await world.send(world.message(domain, sign=sign, number=7 + sign), domain)).startswith("250")
        assert ("=bob@" in (await world.arrived()).sender) is reversible


async def test_each_domain_by_itself_can_stop_others_from_forging_it(tmp_path: Path) -> None:
    """One record is all it takes, and nobody's leave: the forgery that passed yesterday is refused today."""
    with pytest.MonkeyPatch.context() as patch:
        # "There is no such record" is remembered for up to fifteen minutes.
        patch.setattr(caching, "MAX_NEGATIVE_TTL", 0)
        async with lab(tmp_path, zone={"young.test": {"MX": ["10 mx.sender.test."]}}) as it:
            generate_ed25519(tmp_path / "young.pem")
            world = World(it, load_key(File("young.test", "", tmp_path / "young.pem")))
            forged = world.message("young.test", number=1)
            assert (await world.send(forged, "young.test")).startswith("250")
            assert "=+=" in (await world.arrived()).sender
            it.dns.add(f'mailkey.young.test. 300 IN TXT "{mailkey_record(world.key)}"')
            assert (await world.send(forged, "young.test")).startswith("550 5.7.1 mailkey of young.test")
            own = world.message("young.test", sign=True, number=2)
            assert (await world.send(own, "young.test")).startswith("250")
            assert (await world.arrived()).sender.endswith("=young.test=bob@fwd.test")


async def test_accountability_what_is_complained_of_has_a_name_that_answers(world: World) -> None:
    """Anyone can make a mailkey host, and then it is known who it was: in the message, to the next hop, and in the log; the
    bounces go there. Whom nobody vouched for is named by no one, and gets no bounce."""
    it = world.it
    assert (await world.send(world.message(SPAMS, author="bank.test", sign=True, number=9), SPAMS)).startswith("250")
    spam = await world.arrived()
    assert f"header.d={SPAMS}".encode() in spam.data
    assert it.journal.named("message.verified")[-1]["sender_verified_by"] == "mailkey"
    assert (await it.bounce(spam, "this is spam")).startswith("250")
    home = await it.next(it.sender)
    assert home.recipients == (f"bob@{SPAMS}",)
    assert b"this is spam" in home.data

    assert (await world.send(world.message(HAS_NOT, number=10), HAS_NOT)).startswith("250")
    forged = await world.arrived()
    assert b"header.d=" not in forged.data
    assert (await it.bounce(forged, "this is spam")).startswith("250")
    assert it.sender.waiting.empty()


async def test_no_forged_envelope_senders_by_clients(tmp_path: Path) -> None:
    """Who has logged in uses the addresses that are its own, whatever else it owns elsewhere; what it sends is signed."""
    async with submission(tmp_path) as (it, port, _):
        for sender in ("bob@sink.test", "alice@has.test", "alice@sub.sender.test", ""):
            assert (await in_thread(port, sends(sender, ["x@sink.test"]))).startswith("553 5.7.1")
        answer = await in_thread(port, sends("alice@sender.test", ["x@sink.test"]), login=None)
        assert answer.startswith("530 5.7.0")
        # The back door beside it is closed as well: the port for other servers relays for nobody.
        answer = await it.send(MESSAGE, "alice@sender.test", "x@sink.test")
        assert answer.startswith("550 5.7.1")
        assert it.sink.waiting.empty()
        assert (await in_thread(port, sends("alice@sender.test", ["x@sink.test"]))).startswith("250")
        arrived = await it.next(it.sink)
        assert arrived.sender == "alice@sender.test"
        mailkey = (await verdict_of(it, arrived)).mailkey
        assert (mailkey.result, mailkey.signer, mailkey.bound) == ("pass", "sender.test", True)
