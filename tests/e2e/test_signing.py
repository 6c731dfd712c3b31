"""What a receiver finds of our mailkeys: on forwarded mail, under two domains for return addresses, and on our own reports."""

from __future__ import annotations

from pathlib import Path

from forwarder.auth.mailkey import verify_mailkey
from forwarder.auth.suffix import is_public_suffix
from forwarder.cli.demo_lab import Received
from forwarder.keys import KeyFile, generate_ed25519, load_key, mailkey_record
from forwarder.mail.address import parse_address
from forwarder.mail.header import parse_message
from forwarder.model import MailkeyCheck, Result
from tests.e2e.lab import MESSAGE, Lab, lab
from tests.e2e.test_outage import OTHER, TWO_HOSTS, team
from tests.fakes import FakeResolver
from tests.peers.smtp_sink import SmtpSink

TWO_DOMAINS = """
[[keys.mailkey]]
domain = "two.test"
key = "keys/two.pem"
[domains."two.test"]
srs_domain = "back.two.test"
[domains."two.test".aliases]
alias = ["one@sink.test"]
"""


async def checked(it: Lab, arrived: Received) -> MailkeyCheck:
    """As the next hop would."""
    return await verify_mailkey(
        FakeResolver(it.records),
        parse_message(arrived.data),
        sender=parse_address(arrived.sender) if arrived.sender else None,
        helo=arrived.helo,
        recipients=[parse_address(one) for one in arrived.recipients],
        now=it.app.clock.now(),
        is_public_suffix=is_public_suffix,
    )


def mailkey_signature(arrived: Received) -> bytes:
    found = parse_message(arrived.data).first(b"mailkey-signature")
    assert found is not None
    return found.raw


async def test_each_domain_of_return_addresses_signs_with_its_own_key(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    generate_ed25519(tmp_path / "keys/two.pem")
    record = mailkey_record(load_key(KeyFile("two.test", "", tmp_path / "keys/two.pem")))
    async with lab(tmp_path, extra=TWO_DOMAINS, zone={"mailkey.two.test": {"TXT": [record]}}) as it:
        for recipient, sender_domain, signer in (
            ("alias@fwd.test", "fwd.test", "fwd.test"),
            ("alias@two.test", "back.two.test", "two.test"),
        ):
            assert (await it.send(it.signed(recipients=(recipient,)), recipient=recipient)).startswith("250")
            arrived = await it.next(it.sink)
            check = await checked(it, arrived)
            assert (check.result, check.domain, check.signer, check.bound) == (
                Result.PASS,
                sender_domain,
                signer,
                True,
            )


async def test_recipients_are_bound_for_each_next_hop(tmp_path: Path) -> None:
    async with lab(tmp_path, zone=TWO_HOSTS) as it, SmtpSink(host=OTHER, port=it.port) as other:
        assert (await it.send(team(it), recipient="team@fwd.test")).startswith("250")
        arrived, elsewhere = await it.next(it.sink), other.messages[0]
        assert (await checked(it, arrived)).bound is True
        swapped = Received("", "mx.fwd.test", arrived.sender, arrived.recipients, elsewhere.data)
        assert (await checked(it, swapped)).bound is False, "the other next hop's copy"


async def test_binding_can_be_switched_off(tmp_path: Path) -> None:
    async with lab(tmp_path, extra="[mailkey]\nbind_recipients = false") as it:
        assert (await it.send(it.signed())).startswith("250")
        arrived = await it.next(it.sink)
        assert b"rt=" not in mailkey_signature(arrived)
        check = await checked(it, arrived)
        assert (check.result, check.bound) == (Result.PASS, None)


async def test_a_report_of_ours_passes_by_the_name_we_greet_with(tmp_path: Path) -> None:
    script = {"RCPT": b"550 5.1.1 no such user\r\n"}
    async with lab(tmp_path, zone=TWO_HOSTS) as it, SmtpSink(script, host=OTHER, port=it.port):
        assert (await it.send(team(it), recipient="team@fwd.test")).startswith("250")
        report = await it.next(it.sender)
        assert (report.sender, report.helo) == ("", "mx.fwd.test")
        check = await checked(it, report)
        assert (check.result, check.domain, check.signer, check.bound) == (Result.PASS, "mx.fwd.test", "fwd.test", True)


async def test_a_bounce_that_we_pass_on_passes_by_the_name_we_greet_with(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        assert (await it.send(it.signed(MESSAGE))).startswith("250")
        assert (await it.bounce(await it.next(it.sink))).startswith("250")
        report = await it.next(it.sender)
        check = await checked(it, report)
        assert (check.result, check.domain, check.bound) == (Result.PASS, "mx.fwd.test", True)
