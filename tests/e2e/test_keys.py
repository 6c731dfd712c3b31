"""Keys as an operation, in the running service: no signature fails at the receiver, whatever happens to records and keys."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

import dkim
import pytest

from forwarder.app import App
from forwarder.auth.verify import verify
from forwarder.cli.demo_lab import FORWARDER, Received
from forwarder.cli.main import main
from forwarder.config import load
from forwarder.keys import KeyFile, load_key, mailkey_record
from forwarder.mail.address import parse_address, parse_from
from forwarder.mail.header import parse_message
from forwarder.model import Envelope, Peer, Recipient
from forwarder.resolver import DnsResolver
from tests.e2e.lab import MESSAGE, Lab, lab
from tests.fakes import MemoryJournal
from tests.peers.dns_server import zone_text

#: Senders at once.
SENDERS = 6
#: Who signed a message: each of our signatures, as its field and s=.
Signers = Counter[tuple[str, str]]


def publish(it: Lab, name: str, text: str | None) -> None:
    """The one TXT record at ``name`` from now on; ``None``: there is no such name."""
    it.dns.records = [one for one in it.dns.records if str(one.rname).rstrip(".") != name]
    if text is not None:
        it.dns.add(zone_text({name: {"TXT": [text]}}))


def text_at(it: Lab, name: str) -> bytes:
    """What is published there, as dkimpy wants it."""
    found = [one for one in it.dns.records if str(one.rname).rstrip(".") == name.rstrip(".")]
    return b"".join(b"".join(one.rdata.data) for one in found)


def signers(arrived: Received) -> Signers:
    found: Signers = Counter()
    for one in parse_message(arrived.data).fields:
        tags = dict(tag.strip().split(b"=", 1) for tag in one.raw.partition(b":")[2].split(b";") if b"=" in tag)
        if one.name in (b"mailkey-signature", b"dkim-signature", b"arc-seal") and tags.get(b"d") == b"fwd.test":
            found[one.name.decode(), tags.get(b"s", b"").decode()] += 1
    return found


async def judge(it: Lab, arrived: Received) -> str:
    """The mailkey result of a receiver with an empty cache. Each DKIM signature has to pass, there and with dkimpy."""
    resolver = DnsResolver([it.dns.address], monotonic=asyncio.get_running_loop().time, timeout=1)
    now = it.app.clock.now()
    envelope = Envelope(
        id="judged",
        peer=Peer(ip_address(FORWARDER), "mx.fwd.test"),
        sender=parse_address(arrived.sender),
        recipients=tuple(Recipient(parse_address(one)) for one in arrived.recipients),
        received_at=now,
    )
    message = parse_message(arrived.data)
    verdict = await verify(resolver, envelope, message, parse_from(message), receiver="mx.sink.test", now=now)
    await resolver.aclose()
    assert {one.result.value for one in verdict.dkim} <= {"pass"}, verdict.dkim
    assert verdict.arc.result.value in ("pass", "none"), verdict.arc
    verifier = dkim.DKIM(arrived.data)
    for number in range(sum(one.name == b"dkim-signature" for one in message.fields)):
        assert verifier.verify(idx=number, dnsfunc=lambda name, timeout=5: text_at(it, name.decode()))
    return verdict.mailkey.result.value


async def forwarded(it: Lab, number: int = 0) -> Received:
    """A message of its own, as it arrives."""
    raw = MESSAGE.replace(b"<one@", b"<n%d@" % number)
    assert (await it.send(it.signed(raw))).startswith("250")
    return await it.next(it.sink)


async def forwarder(*words: str) -> int:
    return await asyncio.to_thread(main, words)


async def look(it: Lab) -> None:
    assert it.app.key_watch is not None
    await it.app.key_watch.check()


def text_of(line: str) -> tuple[str, str]:
    """Name and text of a TXT line in zone-file form."""
    return line.split(maxsplit=1)[0].rstrip("."), "".join(line.split('"')[1::2])


async def test_keys_are_rotated_under_load_without_one_failed_signature(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with lab(tmp_path) as it:
        config = str(tmp_path / "forwarder.toml")
        arrived: list[Received] = []
        numbers = itertools.count()
        more = True
        judged: asyncio.Queue[None] = asyncio.Queue()

        # What is sent and not judged yet is less than any number that is waited for below.
        room = asyncio.Semaphore(2 * SENDERS)

        async def send_on() -> None:
            while more:
                await room.acquire()
                raw = MESSAGE.replace(b"<one@", b"<n%d@" % next(numbers))
                assert (await it.send(it.signed(raw))).startswith("250")

        async def judge_on() -> None:
            while True:
                arrived.append(await it.next(it.sink))
                assert await judge(it, arrived[-1]) == "pass"
                judged.put_nowait(None)
                room.release()

        async def wait_for(number: int) -> None:
            while not judged.empty():
                judged.get_nowait()
            async with asyncio.timeout(60):
                for _ in range(number):
                    await judged.get()

        senders = [asyncio.create_task(send_on()) for _ in range(SENDERS)]
        judging = asyncio.create_task(judge_on())
        await wait_for(40)
        assert await forwarder("mailkey", "rotate", "--config", config, "--selector", "k2") == 0
        assert await forwarder("dkim", "rotate", "--config", config) == 0
        lines = [one for one in capsys.readouterr().out.splitlines() if " IN TXT " in one]
        assert len(lines) == 3
        # Staged, not published: nothing changes.
        await look(it)
        await wait_for(40)
        assert not any(("mailkey-signature", "k2") in signers(one) for one in arrived)
        for line in lines:
            publish(it, *text_of(line))
        switching = asyncio.create_task(look(it))
        await wait_for(60)
        await switching
        await wait_for(40)
        last = arrived[-1]
        assert signers(last)["mailkey-signature", "k2"] == 1
        assert {one for field, one in signers(last) if field == "dkim-signature"} == {
            text_of(line)[0].partition("._domainkey")[0] for line in lines[1:]
        }
        # The old ones are still on their way, and pass.
        for one in tuple(arrived):
            assert await judge(it, one) == "pass"
        # Later, the old records go.
        publish(it, "rsa._domainkey.fwd.test", None)
        publish(it, "ed._domainkey.fwd.test", None)
        await look(it)
        await wait_for(40)
        more = False
        await asyncio.gather(*senders)
        assert not judging.done()
        while not it.sink.waiting.empty():
            await wait_for(1)
        judging.cancel()
        print(f"{len(arrived)} messages while the keys were rotated, every signature good")
        assert {one["record"] for one in it.journal.named("key.switched")} >= {text_of(one)[0] for one in lines}
        assert it.journal.named("key.suspended") == []


async def test_status_tells_staged_in_use_and_retiring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with lab(tmp_path) as it:
        config = str(tmp_path / "forwarder.toml")
        assert await forwarder("dkim", "rotate", "--config", config, "--key", "rsa", "--selector", "new") == 0
        line = next(one for one in capsys.readouterr().out.splitlines() if " IN TXT " in one)
        # Twice is once.
        assert await forwarder("dkim", "rotate", "--config", config, "--key", "rsa") == 0
        assert line in capsys.readouterr().out
        publish(it, *text_of(line))
        await look(it)

        assert await forwarder("dkim", "status", "--config", config, "--json") == 0
        told = {one["selector"]: one for one in json.loads(capsys.readouterr().out)}

        assert {name: one["role"] for name, one in told.items()} == {"new": "in use", "rsa": "retiring", "ed": "in use"}
        assert "keep its record until" in told["rsa"]["advice"]
        publish(it, "new._domainkey.fwd.test", None)
        assert await forwarder("dkim", "status", "--config", config) == 1
        assert "missing" in capsys.readouterr().out


async def test_a_key_without_its_record_does_not_sign_and_mail_flows(tmp_path: Path) -> None:
    async with lab(tmp_path, zone={"mailkey.fwd.test": {}, "rsa._domainkey.fwd.test": {"TXT": ["v=DKIM1; p="]}}) as it:
        arrived = await forwarded(it)

        assert signers(arrived) == Counter({("dkim-signature", "ed"): 1})
        assert await judge(it, arrived) == "none"
        told = {one["record"]: one["reason"] for one in it.journal.named("key.suspended")}
        assert told == {"mailkey.fwd.test": "no v=mailkey1 record", "rsa._domainkey.fwd.test": "key revoked"}


async def test_a_record_that_vanishes_and_comes_back_takes_the_signature_with_it(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        record = text_at(it, "mailkey.fwd.test").decode()
        publish(it, "mailkey.fwd.test", None)
        await look(it)
        await look(it)
        assert signers(await forwarded(it, 1))["mailkey-signature", ""] == 0
        assert [one["record"] for one in it.journal.named("key.suspended")] == ["mailkey.fwd.test"]

        publish(it, "mailkey.fwd.test", record)
        await look(it)
        await look(it)
        arrived = await forwarded(it, 2)
        assert signers(arrived)["mailkey-signature", ""] == 1
        assert await judge(it, arrived) == "pass"
        assert [one["record"] for one in it.journal.named("key.restored")] == ["mailkey.fwd.test"]


async def test_a_record_with_another_key_suspends(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        publish(it, "mailkey.fwd.test", text_at(it, "mailkey.sender.test").decode())
        await look(it)

        assert [one["reason"] for one in it.journal.named("key.suspended")] == ["the record holds another key"]


async def test_a_silent_dns_suspends_nothing_and_switches_nothing(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        assert await forwarder("mailkey", "rotate", "--config", str(tmp_path / "forwarder.toml")) == 0
        it.dns.gate.clear()
        assert it.app.key_watch is not None
        before = it.app.key_watch
        await before.check()
        it.dns.gate.set()

        assert signers(await forwarded(it))["mailkey-signature", ""] == 1
        assert it.journal.named("key.suspended") == it.journal.named("key.switched") == []


async def test_a_restart_with_the_dns_down_goes_on_with_the_new_key(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        config = tmp_path / "forwarder.toml"
        assert await forwarder("mailkey", "rotate", "--config", str(config), "--selector", "k2") == 0
        file = next((tmp_path / "keys").glob("*+k2"))
        assert await forwarder("mailkey", "rotate", "--config", str(config)) == 0
        assert len(list((tmp_path / "keys").glob("*+*"))) == 1
        publish(it, "k2.mailkey.fwd.test", mailkey_record(load_key(KeyFile("fwd.test", "k2", file))))
        await look(it)
        await it.app.stop(1)
        it.dns.gate.clear()
        it.app = App(load(config), MemoryJournal())
        try:
            await it.app.start()
            it.dns.gate.set()
            assert signers(await forwarded(it))["mailkey-signature", "k2"] == 1
        finally:
            await it.app.stop(1)
